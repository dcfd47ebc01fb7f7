"""Makes the tables of docs/roles.md from the declaration of all privileges. The text above them is written by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from common.tables import grants
from common.tables.roles import ROLES, Grant, Role

PAGE: Final = Path(__file__).parents[1] / "docs" / "roles.md"
MARK: Final = "<!-- make docs writes what follows -->\n"


def roles_page() -> str:
    """Return the page: its text as it is, and the tables as the declaration has them."""
    return PAGE.read_text().partition(MARK)[0] + MARK + "\n".join(_tables()) + "\n"


def _tables() -> Iterator[str]:
    yield from ("", "## Who may do what", "", f"| object | {' | '.join(f'`{role}`' for role in Role)} |")
    yield f"| --- |{' --- |' * len(Role)}"
    for name, granted in _objects().items():
        yield f"| `{name}` | {' | '.join(_cell(name, granted, role) for role in Role)} |"
    yield from ("", "(…): only some columns. owns: everything, and triggers refuse changes of the ledger all the same.")
    for role in Role:
        if role is not Role.OWNER:
            yield from _table(role)


def _objects() -> Mapping[str, Sequence[Grant]]:
    named = {f"schema {name}": granted for name, granted in grants.SCHEMAS.items()}
    return {"database": grants.DATABASE, "schema public": (), **named, **grants.TABLES, **grants.SEQUENCES}


def _cell(name: str, granted: Sequence[Grant], role: Role) -> str:
    owner = Role.OPERATOR if name in grants.OPERATORS_TABLES else Role.OWNER
    if role is owner and name not in {"database", "schema public"}:
        return "owns"
    return ", ".join(grant.privilege + (" (…)" if grant.columns else "") for grant in granted if grant.role is role)


def _table(role: Role) -> Iterator[str]:
    yield from (
        "",
        f"## `{role}`",
        "",
        f"{ROLES[role]}.",
        "",
        "| object | privilege | what for |",
        "| --- | --- | --- |",
    )
    if role is Role.OPERATOR:
        for table in grants.OPERATORS_TABLES:
            yield f"| `{table}` | owns | `history rebuild` puts a new table in its place |"
    for name, granted in _objects().items():
        for grant in granted:
            if grant.role is role:
                columns = f" ({', '.join(grant.columns)})" if grant.columns else ""
                yield f"| `{name}` | {grant.privilege}{columns} | {grant.why.replace('|', chr(92) + '|')} |"
