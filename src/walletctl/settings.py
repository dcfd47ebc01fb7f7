"""Settings of the commands that need more than a database's URL. A command's class has only what it reads."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from common.secrets import Secret
from common.settings import (
    DatabaseSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    OperatorSettings,
    Settings,
    TopicSettings,
    WalletDatabaseSettings,
)
from common.tables.roles import Role

RoleName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.@-]{0,62}$")]


class RoleSettings(Settings):
    """What `db migrate` and `db grants` read: the roles' names in the server. Roles may share a name."""

    wallet_owner_role: RoleName = Role.OWNER.value
    """The role that owns the schemas and the tables."""
    wallet_api_role: RoleName = Role.API.value
    """The role of the wallet API."""
    outbox_relay_role: RoleName = Role.RELAY.value
    """The role of the outbox relays."""
    history_consumer_role: RoleName = Role.CONSUMER.value
    """The role of the history consumers."""
    history_reader_role: RoleName = Role.READER.value
    """The role of the history API."""
    wallet_operator_role: RoleName = Role.OPERATOR.value
    """The role of the operators' commands."""
    wallet_auditor_role: RoleName = Role.AUDITOR.value
    """The role of `walletctl verify`."""

    def names(self) -> Mapping[Role, str]:
        """Return the name of each role."""
        return {role: getattr(self, f"{role.value}_role") for role in Role}


class RestoreLostSettings(WalletDatabaseSettings, KafkaSettings):
    """What `restore lost` reads."""


class RestoreBeginSettings(DatabaseSettings, KafkaSettings, OperatorSettings):
    """What `restore begin` reads."""


class StatusSettings(HistoryDatabaseSettings, TopicSettings):
    """What `history status` reads; it asks the brokers only if they are named."""

    kafka_bootstrap_servers: str = ""
    """Brokers to ask for the lag and the topic's settings: `host:9092,…`. If unset, neither is shown."""


class DemoSettings(Settings):
    """What `stack demo --against-env` reads. With one of the last two, it also reads what `verify` does."""

    wallet_api_url: str = Field(pattern=r"^https?://")
    """The wallet API: `http://127.0.0.1:8000`."""
    history_api_url: str = Field(pattern=r"^https?://")
    """The history API: `http://127.0.0.1:8001`."""
    wallet_api_key: Secret
    """An API key with the scopes `wallets:read`, `wallets:write`, `funds:write`, `ops:write` and `history:read`."""
    database_url: Secret | None = None
    """The wallet database of these services, for `verify`. If it and KAFKA_BOOTSTRAP_SERVERS are unset, nothing is
    verified."""
    kafka_bootstrap_servers: str = ""
    """Their brokers, for `verify`."""
