"""The API against a model of it: for any requests in any order, both agree."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from common.money import MINOR_MAX, to_major
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

T = TypeVar("T")
NewDatabase = Callable[[str | None], str]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
USERS = st.sampled_from(["ada", "bob"])
CURRENCIES = st.sampled_from(["EUR", "EUR", "EUR", "JPY"])
EXTERNAL_IDS = st.none() | st.sampled_from(["main", "savings"])
# Mostly small, so that some balances suffice; sometimes the largest, so that the limit is reached.
AMOUNTS = st.one_of(st.integers(1, 500), st.integers(1, 50), st.sampled_from([MINOR_MAX, MINOR_MAX - 100]))
KEYED = st.booleans()
CHANGES = {
    "freeze": "WALLET_FROZEN",
    "unfreeze": "WALLET_UNFROZEN",
    "close": "WALLET_CLOSED",
    "reopen": "WALLET_REOPENED",
}
IMPOSSIBLE_AMOUNTS = st.sampled_from(["0", "0.00", "-1", "1e2", "1.00001", "NaN", "", "9" * 300, True, None, 0, -5])


OVERDRAFTS = st.sampled_from([0, 0, 50, 500])
CEILINGS = st.none() | st.sampled_from([0, 300, 5000])
VELOCITY = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(["in", "out"]),
        st.sampled_from(["transaction", "month"]),
        st.sampled_from([30, 100, 1000]),
        st.none() | st.integers(1, 3),
    ),
    max_size=2,
    unique_by=lambda limit: limit[0],
)


@dataclass(eq=False)
class ModelLimit:
    """A velocity limit; money in minor units. `since` orders it among the holds."""

    id: str
    direction: str
    window: str
    amount: int
    count: int | None
    since: int
    used: int = 0
    used_count: int = 0

    def counted(self, hold: "ModelHold") -> bool:
        return self.direction == "out" and hold.number > self.since

    def after(self, freed: list["ModelHold"]) -> tuple[int, int]:
        """Return what is used once these holds are released."""
        back = [hold for hold in freed if self.counted(hold)]
        unused = sum(not hold.captured for hold in back)
        return self.used - sum(hold.remaining for hold in back), self.used_count - unused

    def refuses(self, amount: int, count: int, freed: list["ModelHold"]) -> bool:
        used, used_count = (0, 0) if self.window == "transaction" else self.after(freed)
        is_too_often = self.count is not None and count > 0 and used_count + count > self.count
        return amount > 0 and (used + amount > self.amount or is_too_often)


@dataclass(eq=False)
class ModelWallet:
    """What a wallet should be; money in minor units."""

    id: str
    user_id: str
    currency: str
    external_id: str | None
    status: str = "active"
    blocks: str | None = None
    balance: int = 0
    version: int = 1
    held: int = 0
    overdraft: int = 0
    most: int | None = None
    limits: list[ModelLimit] = field(default_factory=list)
    entries: list[tuple[int, int, int, int]] = field(default_factory=list)
    """`(version, amount, balance after, held after)`."""

    @property
    def available(self) -> int:
        return self.balance - self.held + self.overdraft

    def limit_refusal(self, direction: str, amount: int, count: int, freed: list["ModelHold"]) -> str | None:
        limits = [limit for limit in self.limits if limit.direction == direction]
        return "limit-exceeded" if any(limit.refuses(amount, count, freed) for limit in limits) else None

    def getting_refusal(self, amount: int, *, counts: bool = True) -> str | None:
        """Return the problem that the amount meets that comes in, if any."""
        if self.balance + amount > (MINOR_MAX if self.most is None else self.most):
            return "balance-limit-exceeded"
        return self.limit_refusal("in", amount, 1, []) if counts else None

    def pay(self, amount: int) -> None:
        self.move(-amount)
        self.count("out", amount, 1)

    def get(self, amount: int) -> None:
        self.move(amount)
        self.count("in", amount, 1)

    def count(self, direction: str, amount: int, count: int, hold: "ModelHold | None" = None) -> None:
        """Count what was taken; what a hold gives back, only where that was counted."""
        for limit in self.limits:
            is_counted = hold is None or amount >= 0 or limit.counted(hold)
            if limit.direction == direction and limit.window != "transaction" and is_counted:
                limit.used += amount
                limit.used_count += count

    def refusal(self, direction: str) -> str | None:
        """Return the problem that money in this direction meets, if any. `held` is out of what a hold reserved."""
        if self.status == "frozen" and self.blocks not in {"all", direction}:
            return None
        return None if self.status == "active" else f"wallet-{self.status}"

    def restate(self, status: str, blocks: str | None = None) -> None:
        self.status, self.blocks = status, blocks
        self.move(0)

    def move(self, amount: int, held: int = 0) -> None:
        self.balance += amount
        self.held += held
        self.version += 1
        self.entries.append((self.version, amount, self.balance, self.held))


@dataclass
class ModelHold:
    """What a hold should be; money in minor units."""

    id: str
    payer: ModelWallet
    receiver: ModelWallet | None
    amount: int
    capture_max: int
    number: int
    captured: int = 0
    status: str = "open"
    is_overdue: bool = False

    @property
    def remaining(self) -> int:
        return self.amount - self.captured if self.status == "open" else 0

    def release(self, status: str) -> None:
        self.payer.count("out", -self.remaining, 0 if self.captured else -1, self)
        self.payer.move(0, -self.remaining)
        self.status = status


@dataclass
class ModelMovement:
    """A transaction that can be reversed; money in minor units. Without a wallet it is the world."""

    id: str
    payer: ModelWallet | None
    legs: list[tuple[ModelWallet | None, int]]
    reversed: Counter[ModelWallet | None] = field(default_factory=Counter)

    @property
    def left(self) -> dict[ModelWallet | None, int]:
        return {receiver: amount - self.reversed[receiver] for receiver, amount in self.legs}

    @property
    def currency(self) -> str:
        return next(item.currency for item in (self.payer, self.legs[0][0]) if item)


@dataclass(frozen=True)
class KeyedRequest:
    """A request with a key, and its reply."""

    key: str
    path: str
    body: dict[str, Any]
    status: int
    content: bytes


class WalletMachine(RuleBasedStateMachine):
    """Drives the API; each example has a database of its own."""

    wallets: Bundle[ModelWallet] = Bundle("wallets")
    asked: Bundle[KeyedRequest] = Bundle("asked")
    holds: Bundle[ModelHold] = Bundle("holds")

    def __init__(self, make_database: Callable[[], str]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.url = make_database()
        self.model: dict[str, ModelWallet] = {}
        self.held: list[ModelHold] = []
        self.movements: list[ModelMovement] = []
        self.irreversible: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.came_in: Counter[str] = Counter()
        self.external_ids: dict[tuple[str, str], str] = {}
        self.key_count = 0
        self.number = 0
        self.post_count = 0
        self.run(self.open())

    def run(self, coroutine: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await coroutine

        return self.runner.run(awaited())

    async def open(self) -> None:
        app = create_app(
            WalletApiSettings(
                auth="none",
                database_url=self.url,
                log_level="warning",
                database_pool_size=2,
                hold_release_seconds=86_400,
            )
        )
        await self.stack.enter_async_context(app.router.lifespan_context(app))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.test")
        self.client = await self.stack.enter_async_context(client)
        self.database = await asyncpg.connect(self.url)
        self.stack.push_async_callback(self.database.close)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    def post(
        self, path: str, body: dict[str, Any], *, keyed: bool = False, if_match: str | None = None
    ) -> tuple[httpx.Response, Any]:
        """Send a request; return the response, and what goes into the bundle of requests whose replies must stay."""
        headers = {"If-Match": if_match} if if_match else {}
        if keyed:
            self.key_count += 1
            headers["Idempotency-Key"] = f"key-{self.key_count}"
        self.post_count += 1
        # Some requests are previewed before. If that changed anything, the model would differ.
        previews = [f"{path}?preview=true"] if self.post_count % 4 == 0 and path != "/wallets" else []
        *previewed, response = [
            self.run(self.client.post(target, json=body, headers=headers)) for target in (*previews, path)
        ]
        for preview in previewed:
            self.assert_previewed(preview, response)
        assert "idempotent-replayed" not in response.headers
        is_kept = keyed and response.status_code not in {404, 412}
        kept = KeyedRequest(headers.get("Idempotency-Key", ""), path, body, response.status_code, response.content)
        return response, kept if is_kept else multiple()

    @initialize(target=wallets, currency=st.just("EUR"))
    def begin(self, currency: str) -> ModelWallet:
        return self.make("ada", currency, None, keyed=False)[0]

    def make(self, user_id: str, currency: str, external_id: str | None, *, keyed: bool) -> tuple[ModelWallet, Any]:
        body = {"user_id": user_id, "currency": currency, "external_id": external_id}
        response, asked = self.post("/wallets", body, keyed=keyed)
        assert response.status_code == 201, response.text
        wallet = ModelWallet(response.json()["id"], user_id, currency, external_id)
        self.model[wallet.id] = wallet
        self.events.append(("WALLET_CREATED", wallet.id))
        return wallet, asked

    @rule(target=wallets, user_id=USERS, currency=CURRENCIES, external_id=EXTERNAL_IDS)
    def create(self, user_id: str, currency: str, external_id: str | None) -> Any:
        taken = [item for item in self.model.values() if external_id and item.external_id == external_id]
        if not any(item.user_id == user_id for item in taken):
            return self.make(user_id, currency, external_id, keyed=False)[0]
        body = {"user_id": user_id, "currency": currency, "external_id": external_id}
        response, _ = self.post("/wallets", body)
        self.assert_refused(response, "external-id-taken")
        return multiple()

    @rule(target=asked, user_id=USERS, currency=CURRENCIES)
    def create_with_a_key(self, user_id: str, currency: str) -> Any:
        return self.make(user_id, currency, None, keyed=True)[1]

    @rule(target=asked, wallet=wallets, amount=AMOUNTS, keyed=KEYED)
    def fund(self, wallet: ModelWallet, amount: int, keyed: bool, external_id: str | None = None) -> Any:
        body = {"amount": to_major(amount, wallet.currency), "external_id": external_id}
        response, asked = self.post(f"/wallets/{wallet.id}/fund", body, keyed=keyed)
        refused = self.refusal_of_external_id(wallet, external_id, response)
        if refusal := refused or self.try_fund(wallet, wallet, amount):
            self.assert_refused(response, refusal)
        else:
            self.assert_moved(response, wallet, amount)
            self.note(response, None, (wallet, amount))
        return asked

    def note(self, response: httpx.Response, payer: ModelWallet | None, *legs: tuple[ModelWallet | None, int]) -> None:
        self.movements.append(ModelMovement(response.json()["transaction_id"], payer, list(legs)))

    def try_fund(self, wallet: ModelWallet, _: ModelWallet, amount: int) -> str | None:
        """Do it in the model, or return the problem that it meets."""
        if refusal := wallet.refusal("in") or wallet.getting_refusal(amount):
            return refusal
        wallet.get(amount)
        self.came_in[wallet.currency] += amount
        self.events.append(("WALLET_FUNDED", wallet.id))
        return None

    @rule(target=asked, wallet=wallets, amount=AMOUNTS, keyed=KEYED)
    def withdraw(self, wallet: ModelWallet, amount: int, keyed: bool, external_id: str | None = None) -> Any:
        body = {"amount": to_major(amount, wallet.currency), "external_id": external_id}
        response, asked = self.post(f"/wallets/{wallet.id}/withdraw", body, keyed=keyed)
        refused = self.refusal_of_external_id(wallet, external_id, response)
        if refusal := refused or self.try_withdraw(wallet, wallet, amount):
            self.assert_refused(response, refusal)
        else:
            self.assert_moved(response, wallet, amount)
            self.note(response, wallet, (None, amount))
        return asked

    @rule(target=asked, wallet=wallets, comes_in=st.booleans(), external_id=st.sampled_from("ab"), keyed=KEYED)
    def move_a_cent_with_an_external_id(
        self, wallet: ModelWallet, comes_in: bool, external_id: str, keyed: bool
    ) -> Any:
        move = self.fund if comes_in else self.withdraw
        return move(wallet, 1, keyed, external_id)

    def refusal_of_external_id(
        self, wallet: ModelWallet, external_id: str | None, response: httpx.Response
    ) -> str | None:
        """Return the refusal if the wallet has taken the id before; take it if the request is done."""
        if external_id is None:
            return None
        reply, key = response.json(), (wallet.id, external_id)
        if taken_by := self.external_ids.get(key):
            assert reply["transaction_id"] == taken_by
            return "external-id-taken"
        if response.status_code == 200:
            self.external_ids[key] = reply["transaction_id"]
        return None

    def try_withdraw(self, wallet: ModelWallet, _: ModelWallet, amount: int) -> str | None:
        if refusal := wallet.refusal("out") or self.taking_refusal(wallet, amount):
            return refusal
        self.free(wallet, amount)
        wallet.pay(amount)
        self.came_in[wallet.currency] -= amount
        self.events.append(("WALLET_WITHDRAWN", wallet.id))
        return None

    @rule(wallet=wallets, share=st.sampled_from([1, 2]))
    def withdraw_a_share_of_all_it_has(self, wallet: ModelWallet, share: int) -> None:
        if wallet.available >= share:
            self.withdraw(wallet, min(wallet.available // share, MINOR_MAX), keyed=False)

    def needed(self, wallet: ModelWallet, amount: int) -> list[ModelHold]:
        """Return the overdue holds that the wallet releases to have the amount; all, if they are not enough."""
        needed: list[ModelHold] = []
        for item in self.held:
            if amount <= 0 or wallet.available + sum(hold.remaining for hold in needed) >= amount:
                break
            if item.payer is wallet and item.status == "open" and item.is_overdue:
                needed.append(item)
        return needed

    def free(self, wallet: ModelWallet, amount: int) -> None:
        """Release the overdue holds that the wallet needs for the amount."""
        for item in self.needed(wallet, amount):
            item.release("expired")
            self.events.append(("HOLD_EXPIRED", wallet.id))

    def taking_refusal(self, wallet: ModelWallet, amount: int, count: int = 1, held: int = 0) -> str | None:
        """Return the problem that the amount meets that is spent or reserved, if any."""
        freed = self.needed(wallet, amount)
        is_too_much = wallet.held - sum(item.remaining for item in freed) + held > MINOR_MAX
        if is_too_much or not self.could_free(wallet, amount):
            return "insufficient-funds"
        return wallet.limit_refusal("out", amount, count, freed)

    @rule(target=holds, payer=wallets, receiver=st.none() | wallets, amount=AMOUNTS, over=st.sampled_from([0, 0, 20]))
    def place_a_hold(self, payer: ModelWallet, receiver: ModelWallet | None, amount: int, over: int) -> Any:
        body = {
            "amount": to_major(amount, payer.currency),
            "to_wallet_id": receiver and receiver.id,
            "capture_max": to_major(min(amount + over, MINOR_MAX), payer.currency),
        }
        response, _ = self.post(f"/wallets/{payer.id}/holds", body)
        refusal = self.refusal_of_receiving(payer, receiver) or self.taking_refusal(payer, amount, held=amount)
        # If the receiver could not take it, no overdue hold is released.
        if not refusal and receiver:
            refusal = receiver.getting_refusal(amount, counts=False)
        if refusal:
            self.assert_refused(response, refusal)
        else:
            self.free(payer, amount)
            payer.move(0, amount)
            payer.count("out", amount, 1)
            self.events.append(("HOLD_CREATED", payer.id))
            most = min(amount + over, MINOR_MAX)
            self.number += 1
            placed = ModelHold(response.json()["hold"]["id"], payer, receiver, amount, most, self.number)
            self.held.append(placed)
            self.irreversible.append(response.json()["transaction_id"])
            return placed
        return multiple()

    @rule(target=holds, payer=wallets, receiver=st.none() | wallets, share=st.sampled_from([1, 2, 3]))
    def hold_a_share_of_all_it_has(self, payer: ModelWallet, receiver: ModelWallet | None, share: int) -> Any:
        if payer.available < share:
            return multiple()
        return self.place_a_hold(payer, receiver, min(payer.available // share, MINOR_MAX), 10)

    def could_free(self, wallet: ModelWallet, amount: int) -> bool:
        if amount <= 0:
            return True
        overdue = [item for item in self.held if item.payer is wallet and item.is_overdue]
        return wallet.available + sum(item.remaining for item in overdue) >= amount

    @classmethod
    def refusal_of_receiving(cls, payer: ModelWallet, receiver: ModelWallet | None) -> str | None:
        if payer is receiver:
            return "same-wallet"
        return cls.refusal_of_wallets(payer, *([receiver] if receiver else []))

    @staticmethod
    def refusal_of_end(hold: ModelHold) -> str | None:
        if hold.status == "expired" or (hold.status == "open" and hold.is_overdue):
            return "hold-expired"
        return None if hold.status == "open" else "hold-not-open"

    @rule(target=asked, hold=holds, amount=st.none() | st.integers(1, 200), final=st.booleans(), keyed=KEYED)
    def capture(self, hold: ModelHold, amount: int | None, final: bool, keyed: bool) -> Any:
        payer, receiver = hold.payer, hold.receiver
        body = {"amount": amount and to_major(amount, payer.currency), "final": final}
        response, asked = self.post(f"/holds/{hold.id}/capture", body, keyed=keyed)
        captured = hold.remaining if amount is None else amount
        released = hold.remaining if final or captured >= hold.remaining else captured
        if refusal := self.refusal_of_capture(hold, captured, released):
            self.assert_refused(response, refusal)
            return asked
        self.free(payer, captured - released)
        payer.count("out", captured - released, 0, hold)
        payer.move(-captured, -released)
        if receiver:
            receiver.get(captured)
        else:
            self.came_in[payer.currency] -= captured
        hold.captured += captured
        hold.status = "captured" if final or hold.captured >= hold.amount else "open"
        self.events.append(("HOLD_CAPTURED", payer.id))
        self.assert_moved(response, payer, captured)
        self.note(response, payer, (receiver, captured))
        assert response.json()["hold"]["status"] == hold.status
        return asked

    def refusal_of_capture(self, hold: ModelHold, captured: int, released: int) -> str | None:
        if refusal := self.refusal_of_end(hold) or hold.payer.refusal("held"):
            return refusal
        if hold.captured + captured > hold.capture_max:
            return "capture-exceeds-hold"
        if refusal := self.taking_refusal(hold.payer, captured - released, 0):
            return refusal
        if hold.receiver:
            return hold.receiver.refusal("in") or hold.receiver.getting_refusal(captured)
        return None

    @rule(target=asked, hold=holds, keyed=KEYED)
    def void(self, hold: ModelHold, keyed: bool) -> Any:
        response, asked = self.post(f"/holds/{hold.id}/void", {"reason": "no show"}, keyed=keyed)
        if refusal := self.refusal_of_end(hold):
            self.assert_refused(response, refusal)
        else:
            released = hold.remaining
            hold.release("voided")
            self.events.append(("HOLD_VOIDED", hold.payer.id))
            self.assert_moved(response, hold.payer, released)
        return asked

    @rule(hold=holds)
    def let_the_time_of_a_hold_be_over(self, hold: ModelHold) -> None:
        # In the order of the model, so that the oldest is the same for both.
        overdue = "UPDATE wallet.holds SET expires_at = '2020-01-01Z'::timestamptz + $2 * interval '1 s' WHERE id = $1"
        self.run(self.database.execute(overdue, UUID(hold.id), self.held.index(hold)))
        hold.is_overdue = True

    @rule(hold=holds)
    def read_the_hold(self, hold: ModelHold) -> None:
        found = self.run(self.client.get(f"/holds/{hold.id}")).json()
        is_over = hold.status == "open" and hold.is_overdue
        assert found["status"] == ("expired" if is_over else hold.status)
        assert found["captured"] == to_major(hold.captured, hold.payer.currency)
        assert found["remaining"] == to_major(0 if is_over else hold.remaining, hold.payer.currency)

    @rule(target=asked, sender=wallets, receiver=wallets, amount=AMOUNTS, keyed=KEYED)
    def transfer(self, sender: ModelWallet, receiver: ModelWallet, amount: int, keyed: bool) -> Any:
        body = {"amount": to_major(amount, sender.currency), "to_wallet_id": receiver.id}
        response, asked = self.post(f"/wallets/{sender.id}/transfer", body, keyed=keyed)
        if refusal := self.try_transfer(sender, receiver, amount):
            self.assert_refused(response, refusal)
        else:
            self.assert_moved(response, sender, amount)
            self.note(response, sender, (receiver, amount))
        return asked

    def try_transfer(self, sender: ModelWallet, receiver: ModelWallet, amount: int) -> str | None:
        if refusal := self.refusal_of_transfer(sender, receiver, amount):
            return refusal
        self.free(sender, amount)
        sender.pay(amount)
        receiver.get(amount)
        self.events.append(("TRANSFER_DONE", sender.id))
        return None

    @rule(
        target=asked,
        operations=st.lists(
            st.tuples(st.sampled_from(["fund", "transfer", "withdraw"]), wallets, wallets, AMOUNTS),
            min_size=1,
            max_size=6,
        ),
        atomic=st.booleans(),
    )
    def batch(self, operations: list[tuple[str, ModelWallet, ModelWallet, int]], atomic: bool) -> Any:
        """Each operation is decided after those before it; an atomic batch does all of them or none."""
        asked_for: list[dict[str, Any]] = [
            {"op": op, "wallet_id": wallet.id, "amount": to_major(amount, wallet.currency)}
            | ({"to_wallet_id": other.id} if op == "transfer" else {})
            for op, wallet, other, amount in operations
        ]
        response, asked = self.post("/batches", {"atomic": atomic, "operations": asked_for}, keyed=atomic)
        undo, refusals = self.undo(), list[str | None]()
        attempts = {"fund": self.try_fund, "transfer": self.try_transfer, "withdraw": self.try_withdraw}
        for op, wallet, other, amount in operations:
            refusals.append(attempts[op](wallet, other, amount))
            if atomic and refusals[-1]:
                undo()
                self.assert_refused(response, refusals[-1])
                assert response.json()["item"] == len(refusals) - 1
                return asked
        items = response.json()["items"]
        assert [item.get("problem", {}).get("code") for item in items] == refusals
        assert response.status_code == (200 if atomic else 207)
        query = {"batch_id": response.json()["batch_id"]}
        found = self.run(self.client.get("/transactions", params=query)).json()["items"]
        made = {item["body"]["transaction_id"] for item in items if "body" in item}
        assert {item["transaction_id"] for item in found} == made
        return asked

    def undo(self) -> Callable[[], None]:
        """Return what makes the model as it is now."""
        things = [*self.model.values(), *self.held]
        before = [{**vars(thing)} for thing in things]
        entries = {wallet.id: len(wallet.entries) for wallet in self.model.values()}
        events, came_in = len(self.events), self.came_in.copy()

        def run() -> None:
            for thing, was in zip(things, before, strict=True):
                vars(thing).update(was)
            for wallet in self.model.values():
                del wallet.entries[entries[wallet.id] :]
            del self.events[events:]
            self.came_in = came_in

        return run

    def refusal_of_transfer(self, sender: ModelWallet, receiver: ModelWallet, amount: int) -> str | None:
        return (
            self.refusal_of_receiving(sender, receiver)
            or self.taking_refusal(sender, amount)
            or receiver.getting_refusal(amount)
        )

    @staticmethod
    def refusal_of_wallets(sender: ModelWallet, *receivers: ModelWallet) -> str | None:
        for wallet in (sender, *receivers):
            if refusal := wallet.refusal("out" if wallet is sender else "in"):
                return refusal
            if wallet.currency != sender.currency:
                return "currency-mismatch"
        return None

    @staticmethod
    def refusal_of_receivers(payer: ModelWallet, receivers: list[ModelWallet]) -> str | None:
        for number, receiver in enumerate(receivers):
            if receiver is payer:
                return "same-wallet"
            if receiver in receivers[:number]:
                return "validation-error"
        return None if receivers else "validation-error"

    @rule(sender=wallets, receiver=wallets, share=st.sampled_from([1, 2]))
    def transfer_a_share_of_all_it_has(self, sender: ModelWallet, receiver: ModelWallet, share: int) -> None:
        if sender.available >= share:
            self.transfer(sender, receiver, min(sender.available // share, MINOR_MAX), keyed=False)

    @rule(
        target=asked,
        payer=wallets,
        legs=st.lists(st.tuples(wallets, AMOUNTS | st.none()), max_size=4),
        extra=st.none() | st.integers(-1, 100),
        keyed=KEYED,
    )
    def split(
        self, payer: ModelWallet, legs: list[tuple[ModelWallet, int | None]], extra: int | None, keyed: bool
    ) -> Any:
        """A leg of None has the rest; `extra` is what the whole amount has beyond the other legs, if it is told."""
        told = sum(amount or 0 for _, amount in legs)
        parts = [to_major(amount, payer.currency) if amount else "rest" for _, amount in legs]
        body: dict[str, Any] = {
            "legs": [
                {"to_wallet_id": receiver.id, "amount": part} for (receiver, _), part in zip(legs, parts, strict=True)
            ],
            "amount": None if extra is None else to_major(told + extra, payer.currency),
        }
        response, asked = self.post(f"/wallets/{payer.id}/split", body, keyed=keyed)
        refusal = self.refusal_of_split(payer, legs, told, extra)
        if refusal:
            self.assert_refused(response, refusal)
        else:
            whole = told + (extra or 0)
            self.free(payer, whole)
            payer.pay(whole)
            for receiver, amount in legs:
                receiver.get(amount or whole - told)
            self.events.append(("SPLIT_DONE", payer.id))
            self.assert_moved(response, payer, whole)
            self.note(response, payer, *((receiver, amount or whole - told) for receiver, amount in legs))
        # Without legs, the body is refused before the key is claimed.
        return asked if legs else multiple()

    def refusal_of_split(
        self, payer: ModelWallet, legs: list[tuple[ModelWallet, int | None]], told: int, extra: int | None
    ) -> str | None:
        receivers, rests = [receiver for receiver, _ in legs], [amount for _, amount in legs].count(None)
        is_wrong = rests > 1 or (rests and extra is None)
        refusal = self.refusal_of_receivers(payer, receivers) or ("validation-error" if is_wrong else None)
        if refusal := refusal or self.refusal_of_wallets(payer, *receivers):
            return refusal
        if extra is not None and (told + extra > MINOR_MAX or (extra <= 0 if rests else extra != 0)):
            return "validation-error"
        if refusal := self.taking_refusal(payer, told + (extra or 0)):
            return refusal
        gets = (receiver.getting_refusal(amount or extra or 0) for receiver, amount in legs)
        return next((refusal for refusal in gets if refusal), None)

    @rule(target=wallets, payer=wallets, share=st.integers(1, 3), has_rest=st.booleans())
    def split_a_share_of_all_it_has(self, payer: ModelWallet, share: int, has_rest: bool) -> ModelWallet:
        """To a new wallet and to those that can receive."""
        new, _ = self.make("bob", payer.currency, None, keyed=False)
        self.fund(payer, 100, keyed=False)
        others = [item for item in self.model.values() if item not in {payer, new} and self.can_receive(item, payer)]
        part = min(payer.available, MINOR_MAX) // share // (len(others[:5]) + 1)
        legs: list[tuple[ModelWallet, int | None]] = [(item, part) for item in others[:5]]
        if part > 0:
            self.split(payer, [*legs, (new, None if has_rest else part)], part if has_rest else None, keyed=False)
        return new

    @rule(
        target=asked,
        number=st.integers(0, 20),
        part=st.none() | st.integers(1, 100) | st.just(MINOR_MAX),
        legs_count=st.integers(1, 3),
        keyed=KEYED,
    )
    def reverse(self, number: int, part: int | None, legs_count: int, keyed: bool) -> Any:
        """Reverse one of the latest movements: all that is left, or this part of some of its legs."""
        if not self.movements:
            return multiple()
        moved = self.movements[-1 - number % len(self.movements)]
        given = [(receiver, part or left) for receiver, left in moved.left.items() if part or left]
        body: dict[str, Any] = {"reason": "a test"}
        if part and len(moved.legs) == 1:
            body["amount"] = to_major(part, moved.currency)
        elif part:
            given = given[:legs_count]
            told = to_major(part, moved.currency)
            body["legs"] = [{"to_wallet_id": receiver.id, "amount": told} for receiver, _ in given if receiver]
        response, asked = self.post(f"/transactions/{moved.id}/reverse", body, keyed=keyed)
        if refusal := self.refusal_of_reversal(moved, given):
            self.assert_refused(response, refusal)
            return asked
        total = sum(amount for _, amount in given)
        for receiver, amount in given:
            moved.reversed[receiver] += amount
            if receiver:
                self.free(receiver, amount)
                receiver.move(-amount)
        if moved.payer:
            moved.payer.move(total)
        if not moved.payer or moved.legs[0][0] is None:
            self.came_in[moved.currency] += total if moved.payer else -total
        giving = given if part else moved.legs
        acting = (giving[0][0] if len(giving) == 1 else None) or moved.payer
        assert acting
        self.events.append(("MOVEMENT_REVERSED", acting.id))
        self.assert_moved(response, acting, total, 201)
        self.irreversible.append(response.json()["transaction_id"])
        return asked

    def refusal_of_reversal(self, moved: ModelMovement, given: list[tuple[ModelWallet | None, int]]) -> str | None:
        left = moved.left
        if not all(left[receiver] for receiver, _ in given) or not given:
            return "already-reversed"
        if any(amount > left[receiver] for receiver, amount in given):
            return "reversal-exceeds-original"
        for receiver, amount in given:
            short = None if not receiver or self.could_free(receiver, amount) else "insufficient-funds"
            if refusal := (receiver and receiver.refusal("out")) or short:
                return refusal
        if not moved.payer:
            return None
        total = sum(amount for _, amount in given)
        return moved.payer.refusal("in") or moved.payer.getting_refusal(total, counts=False)

    @rule(number=st.integers(0, 20), keyed=KEYED)
    def reverse_what_is_a_hold_or_a_reversal(self, number: int, keyed: bool) -> None:
        if self.irreversible:
            path = f"/transactions/{self.irreversible[number % len(self.irreversible)]}/reverse"
            response, _ = self.post(path, {"reason": "a test"}, keyed=keyed)
            self.assert_refused(response, "not-reversible")

    @rule(number=st.integers(0, 20))
    def read_what_was_reversed(self, number: int) -> None:
        if self.movements:
            moved = self.movements[number % len(self.movements)]
            found = self.run(self.client.get(f"/transactions/{moved.id}")).json()
            assert found["reversed"] == to_major(moved.reversed.total(), moved.currency)
            assert found["reversible"] == to_major(sum(moved.left.values()), moved.currency)

    @staticmethod
    def can_receive(wallet: ModelWallet, payer: ModelWallet) -> bool:
        return not wallet.refusal("in") and wallet.currency == payer.currency

    @rule(wallet=wallets, stale=st.sampled_from([0, 0, 1, -1]), amount=st.integers(1, 100))
    def fund_at_a_version(self, wallet: ModelWallet, stale: int, amount: int) -> None:
        body = {"amount": to_major(amount, wallet.currency)}
        path, if_match = f"/wallets/{wallet.id}/fund", f'"{wallet.version - stale}"'
        response, _ = self.post(path, body, keyed=True, if_match=if_match)
        if refusal := "version-mismatch" if stale else self.try_fund(wallet, wallet, amount):
            self.assert_refused(response, refusal)
        else:
            self.assert_moved(response, wallet, amount)

    @rule(wallet=wallets, amount=IMPOSSIBLE_AMOUNTS, keyed=KEYED)
    def fund_with_an_impossible_amount(self, wallet: ModelWallet, amount: Any, keyed: bool) -> None:
        response, _ = self.post(f"/wallets/{wallet.id}/fund", {"amount": amount}, keyed=keyed)
        is_amount = isinstance(amount, str | int) and not isinstance(amount, bool)
        self.assert_refused(response, (wallet.refusal("in") if is_amount else None) or "validation-error")

    @rule(wallet=wallets, keyed=KEYED)
    def ask_for_what_is_not_there(self, wallet: ModelWallet, keyed: bool) -> None:
        response, _ = self.post(f"/wallets/{UNKNOWN}/fund", {"amount": "1"}, keyed=keyed)
        self.assert_refused(response, "wallet-not-found")
        if not wallet.refusal("out"):
            body = {"amount": "1", "to_wallet_id": UNKNOWN}
            for path, sent in (("transfer", body), ("split", {"legs": [body]})):
                response, _ = self.post(f"/wallets/{wallet.id}/{path}", sent, keyed=keyed)
                self.assert_refused(response, "wallet-not-found")

    @rule(target=asked, wallet=wallets, blocks=st.sampled_from(["in", "out", "all"]), keyed=KEYED)
    def freeze(self, wallet: ModelWallet, blocks: str, keyed: bool) -> Any:
        refusal = "wallet-closed" if wallet.status == "closed" else None
        return self.change(wallet, "freeze", {"blocks": blocks}, refusal, "frozen", blocks, keyed=keyed)

    @rule(target=asked, wallet=wallets, keyed=KEYED)
    def unfreeze(self, wallet: ModelWallet, keyed: bool) -> Any:
        refusal = None if wallet.status == "frozen" else "wallet-not-frozen"
        return self.change(wallet, "unfreeze", {}, refusal, "active", keyed=keyed)

    @rule(target=asked, wallet=wallets, keyed=KEYED)
    def close(self, wallet: ModelWallet, keyed: bool) -> Any:
        refusal = "wallet-not-empty" if wallet.balance or not self.could_free_all(wallet) else None
        if wallet.status == "closed":
            refusal = "wallet-closed"
        if not refusal:
            self.free(wallet, wallet.balance + wallet.overdraft)
        return self.change(wallet, "close", {}, refusal, "closed", keyed=keyed)

    @rule(target=asked, wallet=wallets, receiver=wallets, keyed=KEYED)
    def close_with_a_sweep(self, wallet: ModelWallet, receiver: ModelWallet, keyed: bool) -> Any:
        amount, refusal = wallet.balance, "wallet-closed" if wallet.status == "closed" else None
        if amount < 0 or not self.could_free_all(wallet):
            refusal = refusal or "wallet-not-empty"
        if amount and not refusal:
            refusal = (
                self.refusal_of_receiving(wallet, receiver)
                or wallet.limit_refusal("out", amount, 1, self.needed(wallet, amount + wallet.overdraft))
                or receiver.getting_refusal(amount)
            )
        if not refusal:
            self.free(wallet, amount + wallet.overdraft)
        if amount and not refusal:
            wallet.pay(amount)
            receiver.get(amount)
            self.events.append(("TRANSFER_DONE", wallet.id))
        body = {"sweep_to_wallet_id": receiver.id}
        return self.change(wallet, "close", body, refusal, "closed", keyed=keyed)

    def could_free_all(self, wallet: ModelWallet) -> bool:
        everything = wallet.balance + wallet.overdraft
        return not wallet.held or (everything > 0 and self.could_free(wallet, everything))

    @rule(wallet=wallets, overdraft=OVERDRAFTS, most=CEILINGS, velocity=VELOCITY, stale=st.sampled_from([0, 0, 0, 1]))
    def set_limits(self, wallet: ModelWallet, overdraft: int, most: int | None, velocity: Any, stale: int) -> None:
        def major(amount: int) -> str:
            return to_major(amount, wallet.currency)

        asked = [
            ModelLimit(id_, direction, window, amount, None if window == "transaction" else count, self.number)
            for id_, direction, window, amount, count in velocity
        ]
        body = {
            "overdraft_limit": major(overdraft),
            "balance_max": None if most is None else major(most),
            "velocity": [
                {
                    **{name: getattr(limit, name) for name in ("id", "direction", "window", "count")},
                    "amount": major(limit.amount),
                }
                for limit in asked
            ],
        }
        headers = {"If-Match": f'"{wallet.version + stale}"'}
        response = self.run(self.client.put(f"/wallets/{wallet.id}/limits", json=body, headers=headers))
        if stale:
            self.assert_refused(response, "version-mismatch")
        elif wallet.status == "closed":
            self.assert_refused(response, "wallet-closed")
        else:
            before = {(limit.id, limit.direction, limit.window): limit for limit in wallet.limits}
            for limit in asked:
                if kept := before.get((limit.id, limit.direction, limit.window)):
                    limit.since, limit.used, limit.used_count = kept.since, kept.used, kept.used_count
            wallet.overdraft, wallet.most, wallet.limits = overdraft, most, asked
            wallet.move(0)
            self.events.append(("WALLET_LIMITS_SET", wallet.id))
            assert (response.status_code, response.json()["version"]) == (200, wallet.version)

    @rule(wallet=wallets)
    def read_the_limits(self, wallet: ModelWallet) -> None:
        found = self.run(self.client.get(f"/wallets/{wallet.id}/limits")).json()
        assert found["overdraft_limit"] == to_major(wallet.overdraft, wallet.currency)
        assert found["balance_max"] == (None if wallet.most is None else to_major(wallet.most, wallet.currency))
        assert [(item["id"], item["used"], item["used_count"]) for item in found["velocity"]] == [
            (limit.id, to_major(limit.used, wallet.currency), limit.used_count) for limit in wallet.limits
        ]

    @rule(target=asked, wallet=wallets, keyed=KEYED)
    def reopen(self, wallet: ModelWallet, keyed: bool) -> Any:
        refusal = None if wallet.status == "closed" else "wallet-not-closed"
        return self.change(wallet, "reopen", {}, refusal, "active", keyed=keyed)

    def change(
        self,
        wallet: ModelWallet,
        name: str,
        body: dict[str, Any],
        refusal: str | None,
        status: str,
        blocks: str | None = None,
        *,
        keyed: bool,
    ) -> Any:
        """Ask for a change of the status; it is refused with `refusal`, or done."""
        response, asked = self.post(f"/wallets/{wallet.id}/{name}", {"reason": "a test", **body}, keyed=keyed)
        if refusal:
            self.assert_refused(response, refusal)
        else:
            wallet.restate(status, blocks)
            self.events.append((CHANGES[name], wallet.id))
            reply = response.json()
            assert (response.status_code, reply["amount"], reply["version"]) == (200, None, wallet.version)
        return asked

    @rule(asked=asked)
    def ask_again_with_the_same_key(self, asked: KeyedRequest) -> None:
        headers = {"Idempotency-Key": asked.key}
        response = self.run(self.client.post(asked.path, json=asked.body, headers=headers))
        assert (response.status_code, response.content) == (asked.status, asked.content)
        assert response.headers["idempotent-replayed"] == "true"

    @rule(asked=asked)
    def ask_for_something_else_with_the_same_key(self, asked: KeyedRequest) -> None:
        changed: dict[str, Any] = {"metadata": {"else": 1}}
        if "operations" in asked.body:
            changed = {"operations": [{**each, **changed} for each in asked.body["operations"]]}
        body = {**asked.body, **changed}
        headers = {"Idempotency-Key": asked.key}
        response = self.run(self.client.post(asked.path, json=body, headers=headers))
        self.assert_refused(response, "idempotency-key-reused")

    @rule(wallet=wallets, limit=st.integers(1, 3), order=st.sampled_from(["asc", "desc"]))
    def read_the_ledger_page_by_page(self, wallet: ModelWallet, limit: int, order: str) -> None:
        entries, query = [], f"limit={limit}&order={order}"
        while query:
            page = self.run(self.client.get(f"/wallets/{wallet.id}/transactions?{query}")).json()
            entries += [
                (item["version"], item["amount"], item["balance_after"], item["held_after"]) for item in page["items"]
            ]
            cursor = page["next_cursor"]
            query = cursor and f"limit={limit}&order={order}&cursor={cursor}"
        told = [
            (version, *(to_major(minor, wallet.currency) for minor in (amount, after, held)))
            for version, amount, after, held in wallet.entries
        ]
        assert entries == (told if order == "asc" else told[::-1])

    @rule(wallet=wallets)
    def read_the_wallet(self, wallet: ModelWallet) -> None:
        response = self.run(self.client.get(f"/wallets/{wallet.id}"))
        found = response.json()
        assert response.headers["etag"] == f'"{wallet.version}"'
        assert found["balance"] == to_major(wallet.balance, wallet.currency)
        assert found["held"] == to_major(wallet.held, wallet.currency)
        assert found["available"] == to_major(wallet.available, wallet.currency)
        assert (found["version"], found["status"], found["blocks"]) == (wallet.version, wallet.status, wallet.blocks)
        at = self.run(self.client.get(f"/wallets/{wallet.id}/balance?version={wallet.version}")).json()
        assert all(at[name] == found[name] for name in ("balance", "held", "available", "version"))

    def assert_previewed(self, preview: httpx.Response, response: httpx.Response) -> None:
        told, reply = preview.json(), response.json()
        if not response.is_success:
            assert (preview.status_code, told) == (response.status_code, reply)
            return
        assert told["preview"] is True
        if "items" in reply:
            for plan, item in zip(told["items"], reply["items"], strict=True):
                assert plan.get("problem") == item.get("problem")
                if "body" in item:
                    assert plan["body"]["balance"] == item["body"]["balance"]
            return
        assert (preview.status_code, told["transaction_id"]) == (200, None)
        for name in ("type", "amount", "balance", "held", "available", "version", "external_id"):
            assert told[name] == reply[name]

    def assert_refused(self, response: httpx.Response, code: str) -> None:
        assert response.json().get("code") == code, response.text
        assert response.headers["content-type"] == "application/problem+json"

    def assert_moved(self, response: httpx.Response, wallet: ModelWallet, amount: int, status: int = 200) -> None:
        assert response.status_code == status, response.text
        reply = response.json()
        assert (reply["amount"], reply["balance"], reply["version"]) == (
            to_major(amount, wallet.currency),
            to_major(wallet.balance, wallet.currency),
            wallet.version,
        )

    @invariant()
    def the_wallets_and_their_ledger_are_those_of_the_model(self) -> None:
        wallets = "SELECT id::text, balance_minor, held_minor, version, status, blocks FROM wallet.wallets"
        found = {row["id"]: tuple(row)[1:] for row in self.run(self.database.fetch(wallets))}
        expected = {
            item.id: (item.balance, item.held, item.version, item.status, item.blocks) for item in self.model.values()
        }
        assert found == expected
        assert all(held >= 0 for _, held, *_ in found.values())
        ledger = "SELECT * FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL ORDER BY wallet_version"
        entries: dict[str, list[tuple[int, int, int, int]]] = {wallet_id: [] for wallet_id in expected}
        for row in self.run(self.database.fetch(ledger)):
            entry = (row["wallet_version"], row["amount_minor"], row["balance_after_minor"], row["held_after_minor"])
            entries[str(row["wallet_id"])].append(entry)
        assert entries == {item.id: item.entries for item in self.model.values()}

    @invariant()
    def each_external_id_is_that_of_the_transaction_that_took_it(self) -> None:
        taken = "SELECT wallet_id, external_id, transaction_id FROM wallet.wallet_transactions WHERE external_id <> ''"
        rows = self.run(self.database.fetch(taken))
        assert {(str(row[0]), row[1]): str(row[2]) for row in rows} == self.external_ids

    @invariant()
    def the_holds_are_those_of_the_model(self) -> None:
        rows = self.run(self.database.fetch("SELECT * FROM wallet.holds"))
        found = {str(row["id"]): (row["status"], row["captured_minor"]) for row in rows}
        assert found == {item.id: (item.status, item.captured) for item in self.held}
        for wallet in self.model.values():
            assert wallet.held == sum(item.remaining for item in self.held if item.payer is wallet)

    @invariant()
    def what_all_wallets_have_is_what_came_in_from_the_world_and_did_not_leave(self) -> None:
        sums = "SELECT currency, sum(amount_minor) FROM wallet.wallet_transactions WHERE wallet_id IS NULL GROUP BY 1"
        world = Counter({currency: -int(total) for currency, total in self.run(self.database.fetch(sums))})
        assert world == self.came_in
        balances: Counter[str] = Counter()
        for item in self.model.values():
            balances[item.currency] += item.balance
        assert balances == self.came_in

    @invariant()
    def the_outbox_has_one_event_for_each_change_in_their_order(self) -> None:
        rows = self.run(
            self.database.fetch("SELECT event_type, aggregate_id::text, payload FROM wallet.outbox ORDER BY id")
        )
        assert [(row["event_type"], row["aggregate_id"]) for row in rows] == self.events
        last: dict[str, tuple[int, str]] = {}
        amounts: dict[str, list[str]] = {item.id: [] for item in self.model.values()}
        for row in rows:
            event = json.loads(row["payload"])
            for change in event["wallets"]:
                assert change["version"] == last.get(change["wallet_id"], (0, ""))[0] + 1
                last[change["wallet_id"]] = (change["version"], change["balance_after"])
                if change["direction"]:
                    amounts[change["wallet_id"]].append(change.get("amount", event["amount"]))
        assert last == {item.id: (item.version, to_major(item.balance, item.currency)) for item in self.model.values()}
        assert amounts == {
            item.id: [to_major(abs(amount), item.currency) for _, amount, _, _ in item.entries if amount]
            for item in self.model.values()
        }


def test_the_api_and_its_model_agree_whatever_is_asked(new_database: NewDatabase, template: str) -> None:
    class Machine(WalletMachine):
        def __init__(self) -> None:
            super().__init__(lambda: new_database(template))

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
