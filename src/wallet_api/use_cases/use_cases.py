"""The use cases: claim, load, decide, write and reply, for a batch of commands in one transaction.

Each phase is a function over the batch's slots. A refused command leaves the other commands alone.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from uuid import UUID

import asyncpg

from common import failpoints
from common.identifiers import new_id
from common.postgres.raw_sql import SNAPSHOT
from common.problems import Problem
from wallet_api.commands import Command, CreateWallet
from wallet_api.errors import BUSY, ExternalIdTaken, VersionConflict, WalletBusy, WalletNotFound
from wallet_api.idempotency import idempotency
from wallet_api.operations.operation import Operation, State
from wallet_api.operations.set_limits import sets_limits
from wallet_api.outbox import outbox
from wallet_api.outbox import queries as outbox_queries
from wallet_api.replies import Reply, wallet_reply
from wallet_api.slots import Slot, replies_of
from wallet_api.use_cases import external_id_queries, hold_queries, limit_queries, queries, reversal_queries
from wallet_api.use_cases.batch_replies import operation_reply
from wallet_api.use_cases.previews import preview_reply
from wallet_api.use_cases.queries import NO_WALLETS, LoadedWallets
from wallet_api.wallet import Wallet

CommandT_contra = TypeVar("CommandT_contra", bound=Command, contravariant=True)


class UseCase(Protocol[CommandT_contra]):
    """Takes a list of commands and returns the reply to each, inside the caller's transaction."""

    async def __call__(self, connection: asyncpg.Connection, commands: Sequence[CommandT_contra], /) -> list[Reply]:
        """Run it."""


async def run_operations(
    connection: asyncpg.Connection, commands: Sequence[Operation], *, skip_locked: bool = False
) -> list[Reply]:
    """Run operations on wallets. All see the wallets as the commands before them in the list leave them.

    The wallets of pessimistic operations are locked, all at once and in the order of their ids. The wallets of
    optimistic ones are read without a lock, and written only at the version that was read: a command whose wallet
    changed in between gets version-conflict.

    With `skip_locked` a command one of whose wallets another transaction has locked gets wallet-busy, without a wait;
    so does an optimistic command whose wallet has changed. In a list of both kinds of operations that holds for the
    optimistic ones in any case: the transaction already holds locks, and would wait for others out of their order.

    Raises:
        asyncpg.LockNotAvailableError: a lock timed out; nothing of the list was done.
    """
    slots = [Slot(command) for command in commands]
    if fresh := await idempotency.claim(connection, slots):
        loaded = await _load(connection, fresh, skip_locked=skip_locked)
        if any(slot.reply for slot in slots):
            _keep_order(slots)
        state = await _load_state(connection, fresh, loaded)
        failpoints.hit("api.locked")
        _decide(fresh, state)
        is_mixed = len({slot.command.is_optimistic for slot in fresh}) > 1
        await _write(connection, fresh, loaded, skip_locked=skip_locked or is_mixed)
    return replies_of(slots)


async def preview_operations(connection: asyncpg.Connection, commands: Sequence[Operation]) -> list[Reply]:
    """Decide operations as `run_operations` does, and write nothing. No lock is taken or waited for.

    The connection is read-only. All commands see one snapshot.
    """
    await connection.execute(SNAPSHOT)
    slots = [Slot(command) for command in commands]
    wallet_ids = {id_ for command in commands for id_ in command.wallet_ids}
    loaded = await _with_velocity(connection, await queries.read_wallets(connection, wallet_ids))
    state = await _load_state(connection, slots, loaded)
    existing = set(state.holds)
    for slot in slots:
        _decide([slot], state)
        if slot.transactions:
            # A later refusal must not name a transaction that is never made.
            state.external_ids.update(dict.fromkeys(slot.command.external_ids))
    return [
        preview_reply(reply, slot.transactions, existing) for slot, reply in zip(slots, replies_of(slots), strict=True)
    ]


async def create_wallets(connection: asyncpg.Connection, commands: Sequence[CreateWallet]) -> list[Reply]:
    """Create wallets. The creation of a wallet is its version 1 and its first event."""
    slots = [Slot(command) for command in commands]
    if fresh := await idempotency.claim(connection, slots):
        await _insert(connection, fresh)
        for slot in fresh:
            if not slot.reply:
                slot.refuse(await _taken(connection, slot.command))
        await idempotency.store(connection, fresh)
    return replies_of(slots)


async def _load(
    connection: asyncpg.Connection, slots: Sequence[Slot[Operation]], *, skip_locked: bool
) -> LoadedWallets:
    """Lock the wallets of pessimistic operations, and read those of optimistic ones."""
    locked = {id_ for slot in slots if not slot.command.is_optimistic for id_ in slot.command.wallet_ids}
    read = {id_ for slot in slots if slot.command.is_optimistic for id_ in slot.command.wallet_ids} - locked
    loaded = await _lock(connection, slots, locked, skip_locked=skip_locked) if locked else NO_WALLETS
    loaded = loaded.with_(await queries.read_wallets(connection, read)) if read else loaded
    return await _with_velocity(connection, loaded)


async def _with_velocity(connection: asyncpg.Connection, loaded: LoadedWallets) -> LoadedWallets:
    """Return the wallets with the velocity limits of those that have some."""
    loaded.by_id.update(await limit_queries.with_velocity(connection, loaded.by_id, loaded.loaded_at))
    return loaded


async def _lock(
    connection: asyncpg.Connection, slots: Sequence[Slot[Operation]], ids: set[UUID], *, skip_locked: bool
) -> LoadedWallets:
    """Lock the wallets and return them; refuse commands whose wallets were skipped."""
    loaded = await queries.lock_wallets(connection, ids, skip_locked=skip_locked)
    absent = ids - loaded.by_id.keys() if skip_locked else set()
    # A wallet that doesn't exist is absent too, and not busy.
    busy = (await queries.read_wallets(connection, absent)).by_id if absent else {}
    known = {**loaded.by_id, **busy}
    for slot in slots:
        if slot.command.waits_for(busy, known):
            slot.refuse(WalletBusy())
    return loaded


async def _load_state(connection: asyncpg.Connection, slots: Sequence[Slot[Operation]], loaded: LoadedWallets) -> State:
    """Read what the commands need besides their wallets, which the transaction has locked or read by now.

    So nothing of it changes any more. A hold changes only under the lock of its wallet. Each reversal of a transaction
    locks that transaction's wallets. A transaction that takes an external id later finds its wallet locked, or leaves
    it at a version at which an optimistic command is lost.
    """
    # Without a wallet each command is refused, whatever the time.
    state = State.at(loaded.loaded_at or datetime.min.replace(tzinfo=UTC), loaded.by_id)
    commands = [slot.command for slot in slots]
    locking = [command for command in commands if not command.is_optimistic]
    named = {id_ for command in locking for id_ in command.hold_ids}
    # Overdue holds of these wallets may have to be released.
    spending = {id_ for command in locking for id_ in command.spending_ids}
    holding = {id_ for id_ in spending if (wallet := loaded.by_id.get(id_)) and wallet.held_minor}
    if named or holding:
        state.holds.update(await hold_queries.read_holds(connection, named, holding))
    if reversed_ids := {id_ for command in locking for id_ in command.reverses_ids}:
        state.reversals.update(await reversal_queries.read_reversals(connection, reversed_ids))
    if external_ids := {external_id for command in commands for external_id in command.external_ids}:
        state.external_ids.update(await external_id_queries.find_taken(connection, external_ids))
    return state


def _keep_order(slots: Sequence[Slot[Operation]]) -> None:
    """Make an operation of a batch request wait if one before it in its request has to, and they share a wallet."""
    waiting: dict[UUID, set[UUID]] = {}
    for slot in slots:
        if slot.command.batch_id is None:
            continue
        wallet_ids = waiting.setdefault(slot.command.batch_id, set())
        if slot.reply is None and not wallet_ids.isdisjoint(slot.command.wallet_ids):
            slot.refuse(WalletBusy())
        if slot.outcome in BUSY:
            wallet_ids.update(slot.command.wallet_ids)


def _decide(slots: Sequence[Slot[Operation]], state: State) -> None:
    """Decide each command, on the state as the commands before it leave it."""
    for slot in slots:
        if slot.reply:
            continue
        try:
            slot.transactions = slot.command.decide(state)
        except Problem as refusal:
            slot.refuse(refusal)
            continue
        slot.reply = operation_reply(slot.command, slot.transactions, state.now)
        state.apply(slot.transactions)


async def _write(
    connection: asyncpg.Connection, slots: Sequence[Slot[Operation]], loaded: LoadedWallets, *, skip_locked: bool
) -> None:
    """Write what was decided; refuse commands whose wallet changed since it was loaded."""
    transactions = [transaction for slot in slots for transaction in slot.transactions]
    if not transactions:
        await idempotency.store(connection, slots)
        return
    assert loaded.loaded_at is not None
    changed = {wallet.id: wallet for transaction in transactions for wallet in transaction.wallets}
    relimited = {transaction.wallet.id for transaction in transactions if sets_limits(transaction)}
    if relimited:
        made = [wallet for made in transactions for wallet in made.wallets if wallet.id in relimited]
        await limit_queries.widen_limits(connection, loaded.by_id, made)
    lost = await queries.write_transactions(
        connection,
        loaded.by_id,
        changed.values(),
        transactions,
        outbox.transaction_rows(transactions, loaded.loaded_at),
        [(command.wallet_id, row) for command, row in idempotency.decided_keys(slots)],
        loaded.loaded_at,
        skip_locked=skip_locked,
    )
    if holds := {made.hold.id: made.hold for made in transactions if made.hold}:
        # Their wallets are locked, so none of them is lost.
        await hold_queries.write_holds(connection, holds.values(), loaded.loaded_at)
    if restated := [wallet for wallet in changed.values() if _is_restated(wallet, loaded.by_id[wallet.id], lost)]:
        await queries.write_statuses(connection, restated)
    await _write_limits(connection, loaded, [changed[id_] for id_ in changed.keys() - lost], relimited)
    for slot in slots:
        # A refusal too: it may rest on a transaction earlier in the list, which wasn't written. No transaction makes a
        # wallet exist, though: a caller of another user must get the same reply whatever happens to the wallet.
        if slot.command.wallet_id in lost and slot.outcome != WalletNotFound.code:
            slot.refuse(WalletBusy() if skip_locked else VersionConflict(slot.command.wallet_id))


async def _write_limits(
    connection: asyncpg.Connection, loaded: LoadedWallets, changed: Sequence[Wallet], relimited: Collection[UUID]
) -> None:
    """Write the limits that were set, and what was used of velocity limits."""
    if relimited:
        await limit_queries.set_limits(connection, [wallet for wallet in changed if wallet.id in relimited])
    used = [wallet for wallet in changed if wallet.velocity is not loaded.by_id[wallet.id].velocity]
    if used := [wallet for wallet in used if wallet.id not in relimited]:
        await limit_queries.write_used(connection, used)


def _is_restated(wallet: Wallet, before: Wallet, lost: Collection[UUID]) -> bool:
    return (wallet.status, wallet.blocks) != (before.status, before.blocks) and wallet.id not in lost


async def _insert(connection: asyncpg.Connection, slots: Sequence[Slot[CreateWallet]]) -> None:
    """Write the wallets whose external ids are free, and answer their commands."""
    wallets = {new_id(): slot for slot in slots}
    inserted = await queries.insert_wallets(
        connection, [(wallet_id, slot.command) for wallet_id, slot in wallets.items()]
    )
    created = [
        (Wallet(wallet_id, slot.command.user_id, slot.command.currency, 0, 1, "active"), slot)
        for wallet_id, slot in wallets.items()
        if wallet_id in inserted
    ]
    if not created:
        return
    created_at = inserted[created[0][0].id]
    rows = outbox.creation_rows([(wallet, slot.command) for wallet, slot in created], created_at)
    await outbox_queries.insert_outbox(connection, rows, created_at)
    for wallet, slot in created:
        slot.reply = wallet_reply(wallet, slot.command.external_id, slot.command.metadata, created_at)


async def _taken(connection: asyncpg.Connection, command: CreateWallet) -> ExternalIdTaken:
    found = await queries.find_external_id(connection, command.user_id, command.external_id)
    return ExternalIdTaken.by_wallet(command.user_id, command.external_id, found)
