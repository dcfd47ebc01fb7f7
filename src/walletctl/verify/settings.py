"""Settings of the audit."""

from pydantic import Field

from common.settings import DatabaseSettings, KafkaSettings


class VerifySettings(DatabaseSettings, KafkaSettings):
    """Each from the environment variable of its name in capitals."""

    consumer_group: str = Field("wallet-history", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Whose rows in `processed_offsets` say how far the history has come."""
