"""Settings of commands that need more than a database's URL. A command's settings are what it reads, and no more."""

from common.settings import (
    DatabaseSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    OperatorSettings,
    TopicSettings,
    WalletDatabaseSettings,
)


class LostSettings(WalletDatabaseSettings, KafkaSettings):
    """What `restore lost` compares."""


class RestoreSettings(DatabaseSettings, KafkaSettings, OperatorSettings):
    """What `restore begin` changes, and what it looks at first."""


class StatusSettings(HistoryDatabaseSettings, TopicSettings):
    """What `history status` looks at: the broker only if it is named."""

    kafka_bootstrap_servers: str = ""
    """Brokers to ask for the lag and the topic's settings: `host:9092,…`. Unset, neither is shown."""
