"""`walletctl db`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import operator_engine
from common.postgres.grants import Names, grants_script
from common.postgres.migrations import (
    SCHEMAS,
    Schema,
    current_revision,
    head_revision,
    is_newer,
    migrate,
    pending_revisions,
    title,
)
from common.postgres.privileges import GrantsRefusedError, apply_grants
from common.postgres.sequences import raise_sequences
from common.secrets import Secret
from common.settings import DatabaseSettings
from walletctl.console import Exit, JsonOption, err, fail, load_settings, out, print_json, print_table
from walletctl.databases import run
from walletctl.settings import RoleSettings

app = typer.Typer(help="Create, upgrade and remove the tables.", no_args_is_help=True)


def _urls() -> dict[str, Secret]:
    settings = load_settings(DatabaseSettings)
    return {"wallet": settings.database_url, "history": settings.history_database_url}


def _warn(message: str) -> None:
    err.print(f"warning: {message}", highlight=False, soft_wrap=True)


def _wait(message: str) -> None:
    err.print(f"waiting: {message}", highlight=False, soft_wrap=True)


@app.command("migrate", epilog="Example:  DATABASE_URL=postgresql://… walletctl db migrate")
def migrate_all(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be migrated; change nothing.")] = False,
) -> None:
    """Upgrade the schemas `wallet` and `history` to the newest revision, while requests go on.

    The command may be repeated, and may run several times at once. A migration waits for a lock for 0.2 seconds at a
    time, so that no request fails. After 60 seconds it exits with 3 and names the session that holds the lock. What was
    migrated before stays: run the command again (docs/upgrades.md).

    It also raises sequences that are behind, and renumbers outbox rows below them. Run it after a cut-over to a logical
    replica, and after restoring a dump.

    Last it makes the roles of docs/roles.md that are missing, without a login, and gives each its privileges. For that
    it needs a superuser, or a role that may create roles; later it runs as wallet_owner. WALLET_API_ROLE and the like
    name roles that exist.

    DATABASE_URL names the database. HISTORY_DATABASE_URL names another one for the history, if you want one.
    """
    urls, names = _urls(), load_settings(RoleSettings).names()
    found = run(_revisions(urls))
    if newer := [row["revision"] for row in found if row["newer"]]:
        # After a roll back. Grants of this version would take privileges from processes of the newer one.
        _warn(f"a newer version has migrated this database ({', '.join(newer)}): nothing is changed")
        return
    if dry_run:
        pending = [f"would migrate {each}" for row in found for each in row["pending"]]
        out.print("\n".join(pending) or "nothing to migrate", soft_wrap=True)
        return
    try:
        run(_migrate(urls, names))
    except GrantsRefusedError as error:
        fail(f"the tables are migrated, but not their grants: {error}", Exit.USAGE)
    out.print(f"migrated: {', '.join(f'{schema} at {head_revision(schema)}' for schema in SCHEMAS)}")


async def _migrate(urls: Mapping[str, Secret], names: Names) -> None:
    from outbox_relay.numbering import renumber_if_needed

    for schema in SCHEMAS:
        async with operator_engine(urls[schema]) as engine:
            tell_unsafe_settings(engine, _warn)
            await migrate(engine, schema, tell=_wait)
            if schema == "wallet":
                await renumber_if_needed(engine)
            async with engine.begin() as connection:
                await raise_sequences(connection, schema)
    for url in dict.fromkeys(urls.values()):
        async with operator_engine(url) as engine:
            await apply_grants(engine, names, _wait)


async def _revisions(urls: Mapping[str, Secret]) -> list[dict[str, Any]]:
    found = []
    for schema in SCHEMAS:
        async with operator_engine(urls[schema]) as engine:
            current = await current_revision(engine, schema)
        newer = is_newer(schema, current)
        pending = [] if newer else [title(script) for script in pending_revisions(schema, current)]
        row = {"schema": schema, "revision": current, "head": head_revision(schema), "pending": pending, "newer": newer}
        found.append(row)
    return found


@app.command("grants", epilog="Example:  walletctl db grants --before-migrate | psql --dbname wallet")
def print_grants(
    before_migrate: Annotated[
        bool, typer.Option("--before-migrate", help="Only the roles and the database: what must be there first.")
    ] = False,
    schema: Annotated[
        Schema | None, typer.Option(help="Only of this schema, for a history in a database of its own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the SQL that makes the roles, the owners and the privileges, each with its reason; change nothing.

    `walletctl db migrate` does the same. Use this where its role may not: run the SQL as a superuser, in the database
    itself. It may be repeated. Without --before-migrate it needs the tables.
    """
    names = load_settings(RoleSettings).names()
    statements = grants_script(names, [schema] if schema else SCHEMAS, with_tables=not before_migrate)
    if as_json:
        print_json({"statements": [statement for statement, _ in statements]})
        return
    for statement, why in statements:
        typer.echo(f"{statement};" + (f" -- {why}" if why else ""))


@app.command(epilog="Example:  walletctl db downgrade --yes")
def downgrade(yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Remove both schemas with all their data."""
    if not yes:
        typer.confirm("This deletes all wallets, the ledger and the history. Continue?", abort=True)
    urls = _urls()

    async def work() -> None:
        for schema in reversed(SCHEMAS):
            async with operator_engine(urls[schema]) as engine:
                await migrate(engine, schema, "base", _wait)

    run(work())
    out.print("removed")


@app.command(epilog="Example:  walletctl db status --json")
def status(as_json: JsonOption = False) -> None:
    """Show the revision of each schema and the migrations that it lacks; exit 1 if one lacks any.

    A schema that a newer version has migrated lacks none.
    """
    found = run(_revisions(_urls()))
    if as_json:
        print_json({"schemas": found})
    else:
        rows = [
            (row["schema"], row["revision"], row["head"], "\n".join(row["pending"]) or None, row["newer"])
            for row in found
        ]
        print_table("Schemas", ("schema", "revision", "newest", "pending", "newer"), rows)
    if any(row["pending"] for row in found):
        raise typer.Exit(Exit.FOUND_WRONG)
