"""Settings of the commands that need more than a database's URL. A command's class has only what it reads."""

from common.settings import (
    DatabaseSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    OperatorSettings,
    TopicSettings,
    WalletDatabaseSettings,
)


class RestoreLostSettings(WalletDatabaseSettings, KafkaSettings):
    """What `restore lost` reads."""


class RestoreBeginSettings(DatabaseSettings, KafkaSettings, OperatorSettings):
    """What `restore begin` reads."""


class StatusSettings(HistoryDatabaseSettings, TopicSettings):
    """What `history status` reads; it asks the brokers only if they are named."""

    kafka_bootstrap_servers: str = ""
    """Brokers to ask for the lag and the topic's settings: `host:9092,…`. If unset, neither is shown."""
