"""What operators do with wallets: the operations of the API, each with an audit row in its transaction."""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS
from common.actor import actor
from common.problems import Problem
from wallet_api import audit_queries, read_queries
from wallet_api.bodies import OperationBody
from wallet_api.group_commit.transactions import execute
from wallet_api.holds import queries as holds
from wallet_api.limits import queries as limits
from wallet_api.limits.replies import limits_out_json
from wallet_api.lookups import queries as lookups
from wallet_api.lookups.replies import transaction_json
from wallet_api.operation_objects import object_fields
from wallet_api.operations.operation import Operation
from wallet_api.replies import DONE, Reply, problem_reply
from wallet_api.use_cases.use_cases import run_operations


async def run(
    engine: AsyncEngine,
    operation: type[Operation],
    body: OperationBody,
    reason: str,
    id_: UUID,
    if_match: frozenset[int] | None = None,
) -> Reply:
    """Run an operation; return its reply. If it is done, the audit has who did it and why.

    Args:
        engine: of the wallet database, as the operator's role.
        operation: the class of the command.
        body: its fields are fields of the command.
        reason: for the audit.
        id_: of the object on which it acts.
        if_match: the acting wallet must be at one of these versions; None means any.

    Raises:
        OutcomeUnknown: it failed after COMMIT was sent.
        Exception: any other means that nothing was done.
    """
    target = operation.target_of(id_)
    try:
        fields = await object_fields(engine, operation, id_, body, ANONYMOUS)
    except Problem as missing:
        return problem_reply(missing, target)
    command = operation(**vars(body), **fields, path=target, caller=ANONYMOUS, if_match=if_match)
    (reply,) = await execute(engine, partial(_run_audited, reason=reason), [command])
    return reply


async def _run_audited(connection: asyncpg.Connection, commands: Sequence[Operation], reason: str) -> list[Reply]:
    replies = await run_operations(connection, commands)
    for command, reply in zip(commands, replies, strict=True):
        if reply.outcome == DONE:
            done: dict[str, Any] = orjson.loads(reply.body)
            await audit_queries.insert_audit(
                connection,
                actor=actor(),
                action=command.name,
                wallet_id=command.wallet_id,
                transaction_id=UUID(done["transaction_id"]),
                reason=reason,
            )
    return replies


async def find_wallet(engine: AsyncEngine, wallet_id: UUID) -> RowMapping | None:
    """Return the wallet's row, or None if there is no such wallet."""
    async with engine.connect() as connection:
        return await read_queries.get_wallet(connection, wallet_id, None)


async def find_transaction(engine: AsyncEngine, transaction_id: UUID) -> dict[str, Any] | None:
    """Return the JSON of the transaction with its legs, or None if there is no such transaction."""
    async with engine.connect() as connection:
        legs = await lookups.get_transaction(connection, transaction_id, None)
    return None if legs is None else transaction_json(legs)


async def find_limits(engine: AsyncEngine, wallet_id: UUID) -> dict[str, Any] | None:
    """Return the wallet's limits and what is used of them, as JSON values; None if there is no such wallet."""
    async with engine.connect() as connection:
        rows = await limits.get_limits(connection, wallet_id, None)
    return limits_out_json(wallet_id, rows) if rows else None


async def list_entries(engine: AsyncEngine, wallet_id: UUID, limit: int) -> Sequence[RowMapping]:
    """Return the latest entries of the wallet's ledger, newest first."""
    async with engine.connect() as connection:
        return await read_queries.list_entries(connection, wallet_id, None, "desc", 2**63 - 1, limit)


async def find_hold(engine: AsyncEngine, hold_id: UUID) -> RowMapping | None:
    """Return the hold's row, or None if there is no such hold."""
    async with engine.connect() as connection:
        return await holds.get_hold(connection, hold_id, None)


async def list_holds(engine: AsyncEngine, wallet_id: UUID, status: str | None, limit: int) -> Sequence[RowMapping]:
    """Return the latest holds on the wallet, newest first: those with the status, if there is one."""
    async with engine.connect() as connection:
        return await holds.list_holds(connection, wallet_id, None, status, "desc", UUID(int=2**128 - 1), limit)
