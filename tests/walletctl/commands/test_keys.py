from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg
import pytest

from common.access.api_keys import hash_of, id_of, new_key
from common.tables.roles import Role
from support.command_lines import WalletCtl, printed
from support.roles import Roles
from walletctl.console import Exit

CREATE = ("keys", "create", "--name", "shop", "--scopes", "wallets:read,wallets:write")
Fetch = Callable[[str], Awaitable[list[asyncpg.Record]]]


@pytest.fixture
def at(database_url: str, roles: Roles) -> dict[str, str]:
    """The environment of an operator."""
    return {"DATABASE_URL": roles.url(database_url, Role.OPERATOR), "OPERATOR": "on-call"}


@pytest.fixture
def fetch(database_url: str) -> Fetch:
    async def run(query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    return run


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_key_is_shown_once_and_only_its_hash_is_stored(
    walletctl: WalletCtl, at: dict[str, str], fetch: Fetch
) -> None:
    made = printed(walletctl(*CREATE, "--user-id", "ada", "--expires-in-days", "90", "--json", **at))
    assert id_of(made["key"]) == made["id"]
    assert made["key"].startswith("wk_live_")
    (row,) = await fetch("SELECT * FROM wallet.api_keys WHERE name = 'shop'")
    assert row["hash"] == hash_of(made["key"])
    assert (row["id"], row["user_id"], row["scopes"]) == (made["id"], "ada", ["wallets:read", "wallets:write"])
    assert row["expires_at"] - row["created_at"] == timedelta(days=90)
    secret = made["key"].split("_")[3]
    tables = ("api_keys", "api_key_audit")
    rows = [row for table in tables for row in await fetch(f"SELECT * FROM wallet.{table}")]
    assert not any(secret in str(row) for row in rows)
    for command in (("keys", "list"), ("keys", "list", "--json"), ("keys", "show", made["id"])):
        done = walletctl(*command, **at)
        assert made["id"] in done.stdout
        assert secret not in done.stdout + done.stderr


async def test_for_people_standard_output_is_the_key_alone(walletctl: WalletCtl, at: dict[str, str]) -> None:
    done = walletctl(*CREATE, API_KEY_ENVIRONMENT="staging", **at)
    (key,) = done.stdout.splitlines()
    assert id_of(key) is not None
    assert key.startswith("wk_staging_")
    assert "can't be shown again" in done.stderr
    rotated = walletctl("keys", "rotate", str(id_of(key)), **at)
    assert id_of(rotated.stdout.removesuffix("\n")) is not None


@pytest.mark.parametrize("command", ["show", "rotate", "revoke"])
def test_a_whole_key_in_place_of_its_id_is_refused_and_not_shown(walletctl: WalletCtl, command: str) -> None:
    key = new_key("live")
    done = walletctl("keys", command, key.text, DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert done.returncode == Exit.USAGE
    assert done.stderr.endswith(f"Give its id alone: {key.id}\n")
    assert key.text not in done.stdout + done.stderr
    broken = walletctl("keys", command, key.text[:-1], DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert broken.returncode == Exit.USAGE
    assert key.text[:-1] not in broken.stderr


async def test_each_act_has_an_audit_row(walletctl: WalletCtl, at: dict[str, str], fetch: Fetch) -> None:
    key_id = printed(walletctl(*CREATE, "--json", **at))["id"]
    successor = printed(walletctl("keys", "rotate", key_id, "--overlap-hours", "1", "--json", **at))["id"]
    assert printed(walletctl("keys", "revoke", key_id, "--reason", "leaked", "--json", **at)) == {"revoked": key_id}
    rows = await fetch("SELECT actor, action, key_id, details, reason FROM wallet.api_key_audit ORDER BY id")
    assert [(row["actor"], row["action"], row["key_id"], row["reason"]) for row in rows] == [
        ("on-call", "create", key_id, None),
        ("on-call", "rotate", key_id, None),
        ("on-call", "revoke", key_id, "leaked"),
    ]
    assert successor in rows[1]["details"]
    shown = printed(walletctl("keys", "show", key_id, "--json", **at))
    assert (shown["state"], shown["rotated_to"]) == ("revoked", successor)
    assert [act["action"] for act in shown["audit"]] == ["create", "rotate", "revoke"]


async def test_a_rotated_key_expires_after_the_overlap_and_its_successor_is_the_same_caller(
    walletctl: WalletCtl, at: dict[str, str]
) -> None:
    old = printed(walletctl(*CREATE, "--user-id", "ada", "--expires-in-days", "90", "--json", **at))
    new = printed(walletctl("keys", "rotate", old["id"], "--overlap-hours", "2", "--json", **at))
    keys = {key["id"]: key for key in printed(walletctl("keys", "list", "--json", **at))["items"]}
    was, is_now = keys[old["id"]], keys[new["id"]]
    assert new["old_key_expires_at"].replace(" ", "T") == was["expires_at"].replace(" ", "T")
    assert moment(was["expires_at"]) - moment(is_now["created_at"]) == timedelta(hours=2)
    assert moment(is_now["expires_at"]) - moment(is_now["created_at"]) == timedelta(days=90)
    assert is_now["caller_id"] == was["caller_id"] == old["id"]
    assert [is_now[name] for name in ("name", "scopes", "user_id")] == [
        was[name] for name in ("name", "scopes", "user_id")
    ]
    assert (is_now["rotated_from"], was["rotated_to"]) == (old["id"], new["id"])


async def test_an_act_on_a_key_in_another_state_is_refused_in_one_line(
    walletctl: WalletCtl, at: dict[str, str], fetch: Fetch
) -> None:
    key_id = printed(walletctl(*CREATE, "--json", **at))["id"]
    successor = printed(walletctl("keys", "rotate", key_id, "--overlap-hours", "0", "--json", **at))["id"]
    walletctl("keys", "revoke", successor, **at)
    acts = len(await fetch("SELECT FROM wallet.api_key_audit"))
    refused = {
        ("rotate", key_id): f"was rotated before. Rotate its successor {successor}",
        ("rotate", successor): "is revoked. Create a new one: walletctl keys create",
        ("revoke", successor): "was revoked before",
        ("revoke", "nonsense"): "doesn't exist. List the keys: walletctl keys list",
        ("rotate", "nonsense"): "doesn't exist",
        ("show", "nonsense"): "doesn't exist",
    }
    for command, words in refused.items():
        done = walletctl("keys", *command, **at)
        assert done.returncode == Exit.FOUND_WRONG
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert len(await fetch("SELECT FROM wallet.api_key_audit")) == acts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scopes", "wallets:read,money:print"], "'money:print' is no scope"),
        (["--scopes", ""], "is no scope"),
        (["--user-id", "a b"], "visible characters"),
        (["--user-id", ".."], "must not be"),
        (["--name", ""], "printable characters"),
    ],
)
async def test_a_bad_argument_makes_no_key(
    walletctl: WalletCtl, at: dict[str, str], fetch: Fetch, options: list[str], words: str
) -> None:
    done = walletctl(*CREATE, *options, **at)
    assert done.returncode == Exit.USAGE
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert await fetch("SELECT FROM wallet.api_keys WHERE name <> 'tests'") == []


def test_a_bad_environment_of_keys_is_named(walletctl: WalletCtl, at: dict[str, str]) -> None:
    done = walletctl(*CREATE, API_KEY_ENVIRONMENT="Live!", **at)
    assert done.returncode == Exit.USAGE
    assert "API_KEY_ENVIRONMENT" in done.stderr
