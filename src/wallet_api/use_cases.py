"""The use cases: claim, lock, decide, write, for a list of commands in one transaction.

A refused command leaves the others alone. One request is a list of one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import compress
from typing import Protocol, TypeVar
from uuid import UUID

import asyncpg

from common import failpoints
from common.identifiers import new_id
from common.postgres.errors import LOCK_NOT_AVAILABLE, sqlstate
from common.problems import Problem
from wallet_api import idempotency, outbox, queries
from wallet_api.commands import Command, CreateWallet, Fund, MoneyCommand, Transfer
from wallet_api.errors import ExternalIdTaken, VersionConflict, WalletBusy
from wallet_api.replies import Reply, money_reply, wallet_reply
from wallet_api.wallet import Movement, Wallet, decide_fund, decide_transfer

Outcome = Reply | Problem


CommandT = TypeVar("CommandT", bound=Command)
CommandT_contra = TypeVar("CommandT_contra", bound=Command, contravariant=True)
MoneyT = TypeVar("MoneyT", bound=MoneyCommand)


class UseCase(Protocol[CommandT_contra]):
    """A list of commands in, an outcome for each out, inside the caller's transaction."""

    async def __call__(self, connection: asyncpg.Connection, commands: Sequence[CommandT_contra], /) -> list[Outcome]:
        """Run it."""


async def fund(connection: asyncpg.Connection, commands: Sequence[Fund], *, skip_locked: bool = False) -> list[Outcome]:
    """Fund wallets, locking optimistically: a command whose wallet changed in between gets VersionConflict.

    With `skip_locked` it gets WalletBusy, and so do those whose wallets others hold, without a wait.

    Raises:
        WalletBusy: a lock was not to be had in time; nothing of the list was done.
    """

    async def undecided(fresh: Sequence[Fund]) -> list[Outcome]:
        wallets, now = await queries.read_wallets(connection, {command.wallet_id for command in fresh})
        failpoints.hit("api.locked")
        return await _move(connection, wallets, now, fresh, decide_fund, skip_locked=skip_locked)

    return await _answer(connection, commands, undecided)


async def transfer(
    connection: asyncpg.Connection, commands: Sequence[Transfer], *, skip_locked: bool = False
) -> list[Outcome]:
    """Transfer between wallets, locking pessimistically: all wallets of the list, in the order of their ids.

    With `skip_locked` commands whose wallets others hold get WalletBusy, without a wait.

    Raises:
        WalletBusy: a lock was not to be had in time; nothing of the list was done.
    """

    async def undecided(fresh: Sequence[Transfer]) -> list[Outcome]:
        ids = {command.wallet_id for command in fresh} | {command.to_wallet_id for command in fresh}
        wallets, now = await queries.lock_wallets(connection, ids, skip_locked=skip_locked)
        failpoints.hit("api.locked")
        missing = ids - wallets.keys() if skip_locked else ()
        busy, _ = await queries.read_wallets(connection, missing) if missing else ({}, None)
        is_free = [busy.keys().isdisjoint({command.wallet_id, command.to_wallet_id}) for command in fresh]
        free = list(compress(fresh, is_free))
        outcomes = iter(await _move(connection, wallets, now, free, decide_transfer, skip_locked=skip_locked))
        return [next(outcomes) if free else _busy() for free in is_free]

    return await _answer(connection, commands, undecided)


async def create_wallets(connection: asyncpg.Connection, commands: Sequence[CreateWallet]) -> list[Outcome]:
    """Make wallets. Each one's creation is its version 1 and its first event."""

    async def undecided(fresh: Sequence[CreateWallet]) -> list[Outcome]:
        made = [(new_id(), command) for command in fresh]
        inserted = await queries.insert_wallets(connection, made)
        wallets = [
            (Wallet(wallet_id, command.user_id, command.currency, 0, 1, "active"), command)
            for wallet_id, command in made
            if wallet_id in inserted
        ]
        if wallets:
            created_at = inserted[wallets[0][0].id]
            await queries.insert_outbox(connection, outbox.creation_rows(wallets, created_at), created_at)
            replies = {
                wallet.id: wallet_reply(wallet, command.external_id, command.metadata, created_at)
                for wallet, command in wallets
            }
        else:
            replies = {}
        outcomes: list[Outcome] = [
            replies.get(wallet_id) or await _taken(connection, command) for wallet_id, command in made
        ]
        await idempotency.store(connection, idempotency.decided(fresh, outcomes))
        return outcomes

    return await _answer(connection, commands, undecided)


async def _answer(
    connection: asyncpg.Connection,
    commands: Sequence[CommandT],
    undecided: Callable[[Sequence[CommandT]], Awaitable[list[Outcome]]],
) -> list[Outcome]:
    answered = await idempotency.claim(connection, commands)
    failpoints.hit("api.claimed")
    known = [answered.get(command.claim.key) if command.claim else None for command in commands]
    fresh = [command for command, answer in zip(commands, known, strict=True) if answer is None]
    outcomes = await _bounded(undecided(fresh)) if fresh else []
    decided = iter(outcomes)
    return [answer or next(decided) for answer in known]


async def _move(
    connection: asyncpg.Connection,
    read: Mapping[UUID, Wallet],
    now: datetime | None,
    commands: Sequence[MoneyT],
    decide: Callable[[Mapping[UUID, Wallet], MoneyT], Movement],
    *,
    skip_locked: bool,
) -> list[Outcome]:
    wallets = dict(read)
    movements: list[Movement] = []
    outcomes: list[Outcome] = []
    for command in commands:
        try:
            movement = decide(wallets, command)
        except Problem as problem:
            outcomes.append(problem)
            continue
        assert now is not None
        movements.append(movement)
        outcomes.append(money_reply(movement, now))
        wallets |= {wallet.id: wallet for wallet in (movement.wallet, movement.receiver) if wallet}
    replies = idempotency.decided(commands, outcomes)
    if now is None or not movements:
        await idempotency.store(connection, replies)
        return outcomes
    lost = await queries.record(
        connection,
        read,
        [wallet for wallet_id, wallet in wallets.items() if wallet is not read[wallet_id]],
        movements,
        outbox.movement_rows(movements, now),
        [(command.wallet_id, claim, reply) for command, claim, reply in replies],
        now,
        skip_locked=skip_locked,
    )
    return [
        # A refusal too: it may rest on a movement earlier in the list, which then wasn't made.
        (_busy() if skip_locked else _conflict(command)) if command.wallet_id in lost else outcome
        for command, outcome in zip(commands, outcomes, strict=True)
    ]


async def _taken(connection: asyncpg.Connection, command: CreateWallet) -> ExternalIdTaken:
    found = await queries.find_external_id(connection, command.user_id, command.external_id)
    return ExternalIdTaken(
        f"external_id: {command.user_id} already has the wallet {found} under {command.external_id}.",
        extensions={"wallet_id": str(found)},
    )


def _busy() -> WalletBusy:
    return WalletBusy("The lock was not to be had in time. Ask again with the same key.")


def _conflict(command: MoneyCommand) -> VersionConflict:
    return VersionConflict(f"Wallet {command.wallet_id} changed each time. Ask again with the same key.")


async def _bounded(outcomes: Awaitable[list[Outcome]]) -> list[Outcome]:
    try:
        return await outcomes
    except asyncpg.PostgresError as error:
        if sqlstate(error) == LOCK_NOT_AVAILABLE:
            # The reply is written in one statement with everything else; where it waited is all that tells them apart.
            is_key = "idempotency_keys" in (error.context or "")
            raise (idempotency.in_flight() if is_key else _busy()) from error
        raise
