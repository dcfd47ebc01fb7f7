"""The use cases: claim, load, decide, write and reply, for a batch of commands in one transaction.

Each phase is a function over the batch's slots. A refused command leaves the other commands alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

import asyncpg

from common import failpoints
from common.identifiers import new_id
from common.problems import Problem
from wallet_api import idempotency, outbox, queries
from wallet_api.commands import Command, CreateWallet, Fund, MoneyT, Transfer
from wallet_api.errors import ExternalIdTaken, VersionConflict, WalletBusy, WalletNotFound
from wallet_api.queries import LoadedWallets
from wallet_api.replies import Reply, money_reply, wallet_reply
from wallet_api.slots import Slot, replies_of
from wallet_api.wallet import Movement, Wallet, decide_fund, decide_transfer, find_acting

CommandT_contra = TypeVar("CommandT_contra", bound=Command, contravariant=True)


class UseCase(Protocol[CommandT_contra]):
    """Takes a list of commands and returns the reply to each, inside the caller's transaction."""

    async def __call__(self, connection: asyncpg.Connection, commands: Sequence[CommandT_contra], /) -> list[Reply]:
        """Run it."""


async def fund(connection: asyncpg.Connection, commands: Sequence[Fund], *, skip_locked: bool = False) -> list[Reply]:
    """Fund wallets with optimistic locks: read without a lock, written only at the version that was read.

    A command whose wallet changed in between gets version-conflict. With `skip_locked` it gets wallet-busy, and so
    does a command whose wallet another transaction has locked, without a wait.

    Raises:
        asyncpg.LockNotAvailableError: a lock timed out; nothing of the list was done.
    """
    slots = [Slot(command) for command in commands]
    if fresh := await idempotency.claim(connection, slots):
        loaded = await queries.read_wallets(connection, {slot.command.wallet_id for slot in fresh})
        failpoints.hit("api.locked")
        _decide(fresh, loaded, decide_fund)
        await _write(connection, fresh, loaded, skip_locked=skip_locked)
    return replies_of(slots)


async def transfer(
    connection: asyncpg.Connection, commands: Sequence[Transfer], *, skip_locked: bool = False
) -> list[Reply]:
    """Transfer between wallets with pessimistic locks: all wallets of the list, in the order of their ids.

    With `skip_locked` a command one of whose wallets another transaction has locked gets wallet-busy, without a wait.

    Raises:
        asyncpg.LockNotAvailableError: a lock timed out; nothing of the list was done.
    """
    slots = [Slot(command) for command in commands]
    if fresh := await idempotency.claim(connection, slots):
        loaded = await _lock(connection, fresh, skip_locked=skip_locked)
        failpoints.hit("api.locked")
        _decide(fresh, loaded, decide_transfer)
        await _write(connection, fresh, loaded, skip_locked=skip_locked)
    return replies_of(slots)


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


async def _lock(connection: asyncpg.Connection, slots: Sequence[Slot[Transfer]], *, skip_locked: bool) -> LoadedWallets:
    """Lock the wallets of the slots and return them; refuse commands whose wallets were skipped."""
    ids = {wallet_id for slot in slots for wallet_id in (slot.command.wallet_id, slot.command.to_wallet_id)}
    loaded = await queries.lock_wallets(connection, ids, skip_locked=skip_locked)
    absent = ids - loaded.by_id.keys() if skip_locked else set()
    # A wallet that doesn't exist is absent too, and not busy.
    busy = (await queries.read_wallets(connection, absent)).by_id if absent else {}
    known = {**loaded.by_id, **busy}
    for slot in slots:
        # A caller that may not move the acting wallet learns nothing of either.
        is_busy = slot.command.wallet_id in busy or slot.command.to_wallet_id in busy
        if is_busy and find_acting(known, slot.command):
            slot.refuse(WalletBusy())
    return loaded


def _decide(
    slots: Sequence[Slot[MoneyT]],
    loaded: LoadedWallets,
    decide: Callable[[Mapping[UUID, Wallet], MoneyT], Movement | Problem],
) -> None:
    """Decide each command, on the wallets as the commands before it leave them."""
    wallets = dict(loaded.by_id)
    for slot in slots:
        if slot.reply:
            continue
        decision = decide(wallets, slot.command)
        if isinstance(decision, Problem):
            slot.refuse(decision)
            continue
        assert loaded.loaded_at is not None
        slot.movement = decision
        slot.reply = money_reply(decision, loaded.loaded_at)
        wallets.update({wallet.id: wallet for wallet in decision.wallets})


async def _write(
    connection: asyncpg.Connection, slots: Sequence[Slot[MoneyT]], loaded: LoadedWallets, *, skip_locked: bool
) -> None:
    """Write what was decided; refuse commands whose wallet changed since it was loaded."""
    movements = [slot.movement for slot in slots if slot.movement]
    if not movements:
        await idempotency.store(connection, slots)
        return
    assert loaded.loaded_at is not None
    changed = {wallet.id: wallet for movement in movements for wallet in movement.wallets}
    lost = await queries.write_movements(
        connection,
        loaded.by_id,
        changed.values(),
        movements,
        outbox.movement_rows(movements, loaded.loaded_at),
        [(command.wallet_id, row) for command, row in idempotency.decided_keys(slots)],
        loaded.loaded_at,
        skip_locked=skip_locked,
    )
    for slot in slots:
        # A refusal too: it may rest on a movement earlier in the list, which wasn't written. No movement makes a wallet
        # exist, though: a caller of another user must get the same reply whatever happens to the wallet.
        if slot.command.wallet_id in lost and slot.outcome != WalletNotFound.code:
            slot.refuse(WalletBusy() if skip_locked else VersionConflict(slot.command.wallet_id))


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
    await queries.insert_outbox(connection, rows, created_at)
    for wallet, slot in created:
        slot.reply = wallet_reply(wallet, slot.command.external_id, slot.command.metadata, created_at)


async def _taken(connection: asyncpg.Connection, command: CreateWallet) -> ExternalIdTaken:
    found = await queries.find_external_id(connection, command.user_id, command.external_id)
    return ExternalIdTaken(
        f"external_id: user {command.user_id} already has wallet {found} with {command.external_id}."
        " Use that wallet, or send another external_id.",
        extensions={"wallet_id": str(found)},
    )
