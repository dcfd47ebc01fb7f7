"""Settings of commands that need more than a database's URL. A command's settings are what it reads, and no more."""

from common.settings import (
    DatabaseSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    OperatorSettings,
    WalletDatabaseSettings,
)


class LostSettings(WalletDatabaseSettings, KafkaSettings):
    """What `restore lost` compares."""


class RestoreSettings(DatabaseSettings, KafkaSettings, OperatorSettings):
    """What `restore begin` changes, and what it looks at first."""


class StatusSettings(HistoryDatabaseSettings):
    """What `history status` looks at: the broker only if it is named."""

    kafka_bootstrap_servers: str = ""
    """Brokers to ask for the lag: `host:9092,…`. Unset, none is shown."""
