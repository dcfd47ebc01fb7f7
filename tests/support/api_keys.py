"""The API key of the tests' own clients, which has all scopes."""

from prometheus_client import REGISTRY

from common.access import key_queries
from common.access.api_keys import hash_of, key_text
from common.access.caller import SCOPES
from common.postgres.engine import create_engine

_ID = "forTestsOnly"
KEY = key_text("test", _ID, 0)
"""The same in every test: it is accepted only by databases of tests."""


def bearer(key: str) -> dict[str, str]:
    """Return the header with which a client sends the key."""
    return {"Authorization": f"Bearer {key}"}


def refusals(reason: str) -> float:
    """Return how many requests this process has refused for the reason."""
    return REGISTRY.get_sample_value("auth_failures_total", {"reason": reason}) or 0


async def add_key(url: str) -> None:
    """Have the database accept `KEY`."""
    engine = create_engine(url, "tests")
    columns = {"id": _ID, "hash": hash_of(KEY), "name": "tests", "scopes": list(SCOPES), "user_id": None, "days": None}
    async with engine.begin() as connection:
        await key_queries.insert_key(connection, columns, revision=0)
    await engine.dispose()
