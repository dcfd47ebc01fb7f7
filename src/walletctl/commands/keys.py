"""`walletctl keys`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access import key_acts
from common.access.api_keys import PREFIX, NewKey, id_of
from common.access.caller import SCOPES
from common.access.key_acts import KeyStateError
from common.access.key_store import REVOKED_SECONDS_MAX
from common.access.settings import KeySettings
from common.text import check_new_user_id
from walletctl.console import (
    Exit,
    JsonOption,
    err,
    fail,
    load_settings,
    out,
    print_fields,
    print_json,
    print_table,
)
from walletctl.databases import with_wallet_database

app = typer.Typer(help="API keys: create, list, rotate and revoke them.", no_args_is_help=True)

ResultT = TypeVar("ResultT")

_NAME_LENGTH_MAX: Final = 100
_DAYS_MAX: Final = 36_500
_HOURS_MAX: Final = 24 * 365


def _scopes(value: str) -> str:
    scopes = value.split(",")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        fail(f"--scopes: {unknown[0]!r} is no scope. Known scopes: {', '.join(SCOPES)}", Exit.USAGE)
    return ",".join(dict.fromkeys(scopes))


def _user_id(value: str | None) -> str | None:
    try:
        return value if value is None else check_new_user_id(value)
    except ValueError as error:
        fail(f"--user-id: {error}", Exit.USAGE)


def _name(value: str) -> str:
    if not 1 <= len(value) <= _NAME_LENGTH_MAX or not value.isprintable():
        fail(f"--name: must be 1 to {_NAME_LENGTH_MAX} printable characters", Exit.USAGE)
    return value


def _key_id(value: str) -> str:
    if value.startswith(PREFIX):
        # The line leaves the key out: it may be valid.
        part = id_of(value) or "its third part"
        fail(
            f"ID: this is a whole key, which other users of the machine see here. Give its id alone: {part}", Exit.USAGE
        )
    return value


KeyId = Annotated[str, typer.Argument(help="The id of a key, the third part of it.", metavar="ID", callback=_key_id)]


@app.command(
    epilog="Examples:  walletctl keys create --name shop --scopes wallets:read,wallets:write   ·   "
    "walletctl keys create --name ada-phone --scopes wallets:read --user-id ada --expires-in-days 90 --json"
)
def create(
    name: Annotated[str, typer.Option(help="What the key is for, for operators.", callback=_name)],
    scopes: Annotated[str, typer.Option(help=f"What the key may do: {', '.join(SCOPES)}.", callback=_scopes)],
    user_id: Annotated[
        str | None,
        typer.Option(help="The only user whose wallets the key sees and moves; default: all users.", callback=_user_id),
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option(help="The key's lifetime; default: for ever.", min=0.001, max=_DAYS_MAX)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API key and print it, this once. The database has only its hash.

    Each API process accepts the key at once.
    """
    environment = load_settings(KeySettings).api_key_environment
    asked = scopes.split(",")
    key = with_wallet_database(
        lambda engine: key_acts.create_key(
            engine, environment, name, asked, user_id=user_id, expires_in_days=expires_in_days
        )
    )
    found = {"name": name, "scopes": asked, "user_id": user_id, "expires_in_days": expires_in_days}
    _print_new(key, found, as_json)


@app.command("list", epilog="Example:  walletctl keys list --json | jq '.items[] | select(.state == \"valid\")'")
def list_keys(as_json: JsonOption = False) -> None:
    """List all API keys, newest first; also those that were revoked or have expired."""
    keys = with_wallet_database(key_acts.list_keys)
    if as_json:
        print_json({"items": [dict(key) for key in keys]})
        return
    columns = ("id", "name", "state", "scopes", "user", "last used")
    print_table("API keys", columns, map(_cells, keys))


@app.command(epilog="Example:  walletctl keys show 3qFZ0aVbT9Lx")
def show(key_id: KeyId, as_json: JsonOption = False) -> None:
    """Show one API key, and what operators did with it; exit 1 if it doesn't exist."""

    async def work(engine: AsyncEngine) -> tuple[RowMapping, list[dict[str, Any]]]:
        key, acts = await key_acts.show_key(engine, key_id)
        return key, [dict(act) for act in acts]

    key, acts = _in_state(work)
    if as_json:
        print_json({**key, "audit": acts})
        return
    print_fields(f"API key {key_id}", {**key, "scopes": ", ".join(key["scopes"])})
    print_table("Audit", ("time", "actor", "act", "details", "reason"), map(_act_cells, acts))


@app.command(epilog="Example:  walletctl keys rotate 3qFZ0aVbT9Lx --overlap-hours 1 --json")
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(help="How long the old key stays valid.", min=0, max=_HOURS_MAX)
    ] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Create a successor of an API key and print it, this once; exit 1 if the key isn't valid.

    The successor has the same scopes, user and lifetime, and is the same caller: idempotency keys stay valid. Give it
    to the client before the old key expires.
    """
    environment = load_settings(KeySettings).api_key_environment
    key, old_expires_at = _in_state(lambda engine: key_acts.rotate_key(engine, environment, key_id, overlap_hours))
    _print_new(key, {"rotated_from": key_id, "old_key_expires_at": old_expires_at}, as_json)


@app.command(epilog="Example:  walletctl keys revoke 3qFZ0aVbT9Lx --reason 'found in a public repository'")
def revoke(
    key_id: KeyId,
    reason: Annotated[str | None, typer.Option(help="The reason, for the audit table.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke an API key: each API process refuses it within 5 seconds. Exit 1 if it was revoked before.

    Other keys of a rotation stay valid: `walletctl keys show` names them.
    """
    _in_state(lambda engine: key_acts.revoke_key(engine, key_id, reason))
    if as_json:
        print_json({"revoked": key_id})
    else:
        message = f"API key {key_id} is revoked. Each API process refuses it within {REVOKED_SECONDS_MAX:.0f} seconds."
        out.print(message, highlight=False, soft_wrap=True)


def _in_state(work: Callable[[AsyncEngine], Awaitable[ResultT]]) -> ResultT:
    try:
        return with_wallet_database(work)
    except KeyStateError as error:
        fail(str(error), Exit.FOUND_WRONG)


def _print_new(key: NewKey, fields: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"id": key.id, "key": key.text, **fields})
        return
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in fields.items()}
    # Standard output has the key alone, so that a script can write key=$(walletctl keys create …).
    print_fields(f"API key {key.id}", shown, console=err)
    err.print("Store the key now: it can't be shown again.", highlight=False)
    out.print(key.text, highlight=False, soft_wrap=True)


def _act_cells(act: Mapping[str, Any]) -> tuple[object, ...]:
    details = orjson.dumps(act["details"]).decode()
    return f"{act['created_at']:%F %T}", act["actor"], act["action"], details, act["reason"]


def _cells(key: RowMapping) -> tuple[object, ...]:
    last_used = key["last_used_at"] and f"{key['last_used_at']:%F %T}"
    return key["id"], key["name"], key["state"], ", ".join(key["scopes"]), key["user_id"], last_used
