"""The roles in PostgreSQL, and what a grant to one is. `common/tables/grants.py` has the grants."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """A role, by its usual name. A setting may give it another name."""

    OWNER = "wallet_owner"
    API = "wallet_api"
    RELAY = "outbox_relay"
    CONSUMER = "history_consumer"
    READER = "history_reader"
    OPERATOR = "wallet_operator"
    AUDITOR = "wallet_auditor"


ROLES: Final[Mapping[Role, str]] = {
    Role.OWNER: "`walletctl db migrate`: owns the schemas, the tables and the functions",
    Role.API: "`walletctl api serve`",
    Role.RELAY: "`walletctl relay run`",
    Role.CONSUMER: "`walletctl consumer run`",
    Role.READER: "`walletctl history serve`",
    Role.OPERATOR: (
        "operators: `walletctl wallet`, `transaction`, `outbox`, `history status|rebuild|dead-letters`, `keys`,"
        " `restore`, `verify`"
    ),
    Role.AUDITOR: "auditors: `walletctl verify`, which stores its horizon, and all that only reads",
}
"""Who logs in as the role, or as a member of it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege of a role on an object.

    Attributes:
        role: the one that has it.
        privilege: as PostgreSQL names it.
        why: what it is needed for.
        columns: it is for these columns only, if there are any.
    """

    role: Role
    privilege: str
    why: str
    columns: tuple[str, ...] = ()
