"""What operators do with wallets: the operations of the API, each with an audit row in its transaction."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS
from common.actor import actor
from common.postgres.raw_sql import RawStatement
from wallet_api import read_queries
from wallet_api.bodies import OperationBody
from wallet_api.limit_replies import limits_out_json
from wallet_api.operations.operation import Operation
from wallet_api.replies import DONE, Reply
from wallet_api.transactions import execute
from wallet_api.use_cases import run_operations

INSERT_AUDIT: Final = RawStatement("""
    INSERT INTO wallet.wallet_audit (actor, action, wallet_id, transaction_id, reason)
    VALUES (:actor, :action, :wallet_id, :transaction_id, :reason)
""")


async def run(
    engine: AsyncEngine,
    operation: type[Operation],
    wallet_id: UUID,
    body: OperationBody,
    if_match: frozenset[int] | None = None,
) -> Reply:
    """Run an operation that has a reason; return its reply. If it is done, the audit has who did it and why.

    The wallet must be at one of the versions of `if_match`; None means any.

    Raises:
        OutcomeUnknown: it failed after COMMIT was sent.
        Exception: any other means that nothing was done.
    """
    command = operation(
        **dict(body),
        path=f"/wallets/{wallet_id}/{operation.name}",
        claim=None,
        traceparent=None,
        caller=ANONYMOUS,
        wallet_id=wallet_id,
        if_match=if_match,
    )
    (reply,) = await execute(engine, _run_audited, [command])
    return reply


async def _run_audited(connection: asyncpg.Connection, commands: Sequence[Operation]) -> list[Reply]:
    replies = await run_operations(connection, commands)
    for command, reply in zip(commands, replies, strict=True):
        if reply.outcome == DONE:
            done: dict[str, Any] = orjson.loads(reply.body)
            await INSERT_AUDIT.fetch(
                connection,
                actor=actor(),
                action=command.name,
                wallet_id=command.wallet_id,
                transaction_id=UUID(done["transaction_id"]),
                reason=done["reason"],
            )
    return replies


async def find_wallet(engine: AsyncEngine, wallet_id: UUID) -> RowMapping | None:
    """Return the wallet's row, or None if there is no such wallet."""
    async with engine.connect() as connection:
        return await read_queries.get_wallet(connection, wallet_id, None)


async def find_limits(engine: AsyncEngine, wallet_id: UUID) -> dict[str, Any] | None:
    """Return the wallet's limits and what is used of them, as JSON values; None if there is no such wallet."""
    async with engine.connect() as connection:
        rows = await read_queries.get_limits(connection, wallet_id, None)
    return limits_out_json(wallet_id, rows) if rows else None


async def list_entries(engine: AsyncEngine, wallet_id: UUID, limit: int) -> Sequence[RowMapping]:
    """Return the latest entries of the wallet's ledger, newest first."""
    async with engine.connect() as connection:
        return await read_queries.list_entries(connection, wallet_id, None, "desc", 2**63 - 1, limit)
