"""The demo's traffic: real requests, and the result that each must have."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import httpx2

from walletctl.demo.wallet_model import WalletModel

_USERS: Final = ("ada", "bob", "cleo", "dian", "emil", "fay", "gus", "hana", "ivo", "june")
_CURRENCIES: Final = ("EUR", "USD", "JPY", "BHD")
_CONNECTIONS: Final = 32
_HOT_FUNDS: Final = 200
_SPREAD_FUNDS: Final = 250
_WITHDRAWALS: Final = 150
_HOLDS: Final = 100
_TRANSFERS: Final = 1200
_SPLITS: Final = 150
_REVERSALS: Final = 100
_BATCHES: Final = 40
_BATCH_OPERATIONS: Final = 10
_RETRIED: Final = 150
_REFUSED: Final = 140
_REPEATED: Final = 5
_RESTATED: Final = 20
_RESTATED_REQUESTS: Final = 13

Operation = Callable[[], Awaitable[None]]


@dataclass
class Traffic:
    """Sends requests to the API and counts them. `broken` has a line for each wrong reply."""

    client: httpx2.AsyncClient
    rng: random.Random
    advance: Callable[[float], None]
    wallets: list[WalletModel] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    async def create_wallets(self) -> None:
        """Create a wallet in each currency for each user."""
        pairs = [(user, currency) for user in _USERS for currency in _CURRENCIES]
        await self._run([lambda pair=pair: self._create(*pair) for pair in pairs])  # type: ignore[misc]

    async def move_money(self) -> None:
        """Send movements of each kind, batches, reversals, repeated and refused requests, all at once."""
        await self._run([lambda wallet=wallet: self._fund(wallet, 50_000) for wallet in self.wallets])  # type: ignore[misc]
        hot = self.wallets[0]
        operations: list[Operation] = [
            *[lambda: self._fund(hot, 100)] * _HOT_FUNDS,
            *[lambda: self._fund(self.rng.choice(self.wallets), self.rng.randint(1, 5000))] * _SPREAD_FUNDS,
            *[lambda: self._withdraw(self.rng.choice(self.wallets), self.rng.randint(1, 50))] * _WITHDRAWALS,
            *[self._hold_and_end] * _HOLDS,
            *[self._transfer_somewhere] * _TRANSFERS,
            *[self._split_somewhere] * _SPLITS,
            *[self._transfer_and_reverse] * _REVERSALS,
            *[self._send_batch] * _BATCHES,
            *[self._retried_transfer] * _RETRIED,
            *[self._refused] * _REFUSED,
            *[self._repeated_external_id] * _REPEATED,
        ]
        self.rng.shuffle(operations)
        await self._run(operations)

    async def change_statuses(self) -> None:
        """Freeze, unfreeze, limit, empty, close and reopen some wallets, after all other traffic."""
        by_currency = {code: [wallet for wallet in self.wallets if wallet.currency == code] for code in _CURRENCIES}
        count = _RESTATED // len(_CURRENCIES)
        pairs = [(wallet, first) for first, *others in by_currency.values() for wallet in others[-count:]]
        await self._run([lambda pair=pair: self._restate(*pair) for pair in pairs])  # type: ignore[misc]

    async def _run(self, operations: Sequence[Operation]) -> None:
        queue = list(operations)

        async def work() -> None:
            while queue:
                await queue.pop()()

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_CONNECTIONS):
                    tasks.create_task(work())
        except ExceptionGroup as failed:
            # All tasks fail for the same reason.
            raise failed.exceptions[0] from failed

    async def _post(self, kind: str, path: str, body: dict[str, Any], key: str | None = None) -> httpx2.Response:
        headers = {"Idempotency-Key": key or str(uuid4())}
        response = await self.client.post(path, json=body, headers=headers)
        self.counts[kind] += 1
        self.advance(1)
        return response

    def _expect(self, response: httpx2.Response, status: int, what: str) -> bool:
        if response.status_code != status:
            self.broken.append(f"{what}: expected {status}, got {response.status_code} {response.text[:200]}")
        return response.status_code == status

    async def _create(self, user: str, currency: str) -> None:
        response = await self._post("wallets created", "/wallets", {"user_id": user, "currency": currency})
        if self._expect(response, 201, f"creating a wallet in {currency}"):
            self.wallets.append(WalletModel(response.json()["id"], user, currency))

    async def _fund(self, wallet: WalletModel, units: int) -> None:
        amount = wallet.amount(units)
        response = await self._post("funds", f"/wallets/{wallet.id}/fund", {"amount": amount})
        if self._expect(response, 200, "a fund"):
            wallet.balance += Decimal(amount)

    async def _withdraw(self, wallet: WalletModel, units: int) -> None:
        amount = wallet.amount(units)
        response = await self._post("withdrawals", f"/wallets/{wallet.id}/withdraw", {"amount": amount})
        if self._expect(response, 200, "a withdrawal"):
            wallet.balance -= Decimal(amount)

    def _some(self, count: int) -> list[WalletModel]:
        """Return so many of a currency's first four wallets, so that transfers in both directions meet."""
        currency = self.rng.choice(_CURRENCIES)
        return self.rng.sample([w for w in self.wallets if w.currency == currency][:4], count)

    async def _transfer_somewhere(self) -> None:
        sender, receiver = self._some(2)
        amount = sender.amount(self.rng.randint(1, 20))
        body = {"to_wallet_id": receiver.id, "amount": amount, "reference": "demo", "external_id": str(uuid4())}
        response = await self._post("transfers", f"/wallets/{sender.id}/transfer", body)
        if self._expect(response, 200, "a transfer"):
            self._moved(sender, receiver, amount)

    async def _transfer_and_reverse(self) -> None:
        """Send money, and then let the receiver give all of it back, or a part."""
        sender, receiver = self._some(2)
        body = {"to_wallet_id": receiver.id, "amount": sender.amount(10)}
        sent = await self._post("transfers", f"/wallets/{sender.id}/transfer", body)
        if not self._expect(sent, 200, "a transfer"):
            return
        self._moved(sender, receiver, sender.amount(10))
        path = f"/transactions/{sent.json()['transaction_id']}/reverse"
        part = self.rng.choice([{}, {"amount": sender.amount(4)}])
        back = await self._post("reversals", path, {"reason": "demo", **part})
        if self._expect(back, 201, "a reversal"):
            self._moved(receiver, sender, back.json()["amount"])

    async def _hold_and_end(self) -> None:
        """Reserve money, and then capture half of it, capture more than all of it, or give it up."""
        payer, receiver = self._some(2)
        body = {"to_wallet_id": receiver.id, "amount": payer.amount(10), "capture_max": payer.amount(12)}
        placed = await self._post("holds", f"/wallets/{payer.id}/holds", body)
        if not self._expect(placed, 201, "a hold"):
            return
        act, captured = self.rng.choice([("capture", 5), ("capture", 12), ("void", 0)])
        path = f"{placed.headers['location']}/{act}"
        ended = await self._post("captures and voids", path, {"amount": payer.amount(captured)} if captured else {})
        if self._expect(ended, 200, f"a {act}"):
            self._moved(payer, receiver, payer.amount(captured))

    async def _split_somewhere(self) -> None:
        payer, *receivers = self._some(4)
        parts = [payer.amount(self.rng.randint(1, 9)) for _ in receivers]
        told = [*parts[1:], "rest"]
        legs = [{"to_wallet_id": receiver.id, "amount": part} for receiver, part in zip(receivers, told, strict=True)]
        body = {"legs": legs, "amount": str(sum(map(Decimal, parts))), "reference": "demo"}
        response = await self._post("splits", f"/wallets/{payer.id}/split", body)
        if self._expect(response, 200, "a split"):
            for receiver, part in zip(receivers, [*parts[1:], parts[0]], strict=True):
                self._moved(payer, receiver, part)

    async def _send_batch(self) -> None:
        """Send transfers in one request; an atomic batch whose last transfer is refused does none of them."""
        pairs = [self._some(2) for _ in range(_BATCH_OPERATIONS)]
        operations: list[dict[str, Any]] = [
            {"op": "transfer", "wallet_id": sender.id, "to_wallet_id": receiver.id, "amount": sender.amount(1)}
            for sender, receiver in pairs
        ]
        is_atomic, is_refused = self.rng.choice([(False, False), (False, True), (True, False), (True, True)])
        if is_refused:
            operations[-1]["amount"] = pairs[-1][0].amount(10**12)
        body, headers = {"atomic": is_atomic, "operations": operations}, {"Idempotency-Key": str(uuid4())}
        if not is_atomic:
            operations[:] = [{**operation, "key": str(uuid4())} for operation in operations]
            headers = {}
        response = await self.client.post("/batches", json=body, headers=headers)
        self.counts["batches of 10 transfers"] += 1
        self.advance(1)
        refusal = httpx2.codes.UNPROCESSABLE_CONTENT
        if is_atomic and is_refused:
            self._expect(response, refusal, "an atomic batch that is refused")
        elif self._expect(response, httpx2.codes.OK if is_atomic else httpx2.codes.MULTI_STATUS, "a batch"):
            statuses = [item["status"] for item in response.json()["items"]]
            if statuses != [httpx2.codes.OK] * (_BATCH_OPERATIONS - is_refused) + [refusal] * is_refused:
                self.broken.append(f"a batch: got {statuses}")
            for (sender, receiver), status in zip(pairs, statuses, strict=True):
                self._moved(sender, receiver, sender.amount(1 if status == httpx2.codes.OK else 0))

    async def _retried_transfer(self) -> None:
        sender, receiver = self._some(2)
        amount, key = sender.amount(7), str(uuid4())
        body = {"to_wallet_id": receiver.id, "amount": amount}
        replies = await asyncio.gather(
            *(self._post("retried with the same key", f"/wallets/{sender.id}/transfer", body, key) for _ in range(2))
        )
        if all(self._expect(reply, 200, "a retried transfer") for reply in replies):
            self._moved(sender, receiver, amount)
            if replies[0].content != replies[1].content:
                self.broken.append(f"a repeated key got two replies: {replies[0].text} and {replies[1].text}")

    async def _repeated_external_id(self) -> None:
        """Fund a wallet twice with one external id, and with two keys: once it is done."""
        wallet = self.rng.choice(self.wallets)
        amount, path = wallet.amount(3), f"/wallets/{wallet.id}/fund"
        body = {"amount": amount, "external_id": str(uuid4())}
        replies = await asyncio.gather(
            *(self._post("repeated with the same external id", path, body) for _ in range(2))
        )
        done, refused = sorted(replies, key=lambda reply: reply.status_code)
        if self._expect(done, 200, "a fund with an external id"):
            wallet.balance += Decimal(amount)
        self._expect(refused, 409, "a fund with an external id that is taken")

    async def _restate(self, wallet: WalletModel, receiver: WalletModel) -> None:
        why, path = {"reason": "demo"}, f"/wallets/{wallet.id}"
        frozen = await self._post("status changes", f"{path}/freeze", {"blocks": "out", **why})
        self._expect(frozen, 200, "a freeze")
        refused = await self._post("refused", f"{path}/withdraw", {"amount": wallet.amount(1)})
        self._expect(refused, 409, "a withdrawal from a frozen wallet")
        await self._fund(wallet, 1)
        self._expect(await self._post("status changes", f"{path}/unfreeze", why), 200, "unfreezing")
        await self._limit(wallet, receiver)
        closed = await self._post("status changes", f"{path}/close", {"sweep_to_wallet_id": receiver.id, **why})
        if self._expect(closed, 200, "a close"):
            self._moved(wallet, receiver, closed.json()["sweep"]["amount"])
        self._expect(await self._post("status changes", f"{path}/reopen", why), 200, "reopening")

    async def _limit(self, wallet: WalletModel, receiver: WalletModel) -> None:
        """Overdraw a wallet as far as its limit goes, meet its velocity limit, and take the limits back."""
        overdrawn = str(wallet.balance + Decimal(wallet.amount(100)))
        velocity = [{"id": "twice", "direction": "out", "window": "month", "count": 2}]
        await self._set_limits(wallet, wallet.amount(100), velocity)
        body = {"to_wallet_id": receiver.id, "amount": overdrawn}
        sent = await self._post("transfers", f"/wallets/{wallet.id}/transfer", body)
        if self._expect(sent, 200, "a transfer that overdraws a wallet"):
            self._moved(wallet, receiver, overdrawn)
        withdraw = f"/wallets/{wallet.id}/withdraw"
        refused = await self._post("refused", withdraw, {"amount": wallet.amount(1)})
        self._expect(refused, 422, "a withdrawal beyond the overdraft limit")
        await self._fund(wallet, 300)
        await self._withdraw(wallet, 1)
        refused = await self._post("refused", withdraw, {"amount": wallet.amount(1)})
        self._expect(refused, 422, "a withdrawal beyond a velocity limit")
        await self._set_limits(wallet, "0", [])

    async def _set_limits(self, wallet: WalletModel, overdraft_limit: str, velocity: list[dict[str, Any]]) -> None:
        body = {"overdraft_limit": overdraft_limit, "balance_max": None, "velocity": velocity}
        headers = {"Idempotency-Key": str(uuid4()), "If-Match": "*"}
        response = await self.client.put(f"/wallets/{wallet.id}/limits", json=body, headers=headers)
        self.counts["limits"] += 1
        self.advance(1)
        self._expect(response, 200, "setting limits")

    async def _refused(self) -> None:
        sender, receiver = self._some(2)
        other = next(wallet for wallet in self.wallets if wallet.currency != sender.currency)
        path = f"/wallets/{sender.id}/transfer"
        body, status, code = self.rng.choice(
            [
                ({"to_wallet_id": receiver.id, "amount": sender.amount(10**12)}, 422, "insufficient-funds"),
                ({"to_wallet_id": other.id, "amount": sender.amount(1)}, 422, "currency-mismatch"),
                ({"to_wallet_id": sender.id, "amount": sender.amount(1)}, 422, "same-wallet"),
                ({"to_wallet_id": str(uuid4()), "amount": sender.amount(1)}, 404, "wallet-not-found"),
                ({"to_wallet_id": receiver.id, "amount": "0.00001"}, 422, "validation-error"),
            ]
        )
        response = await self._post("refused", path, body)
        if self._expect(response, status, f"a request to be refused with {code}") and response.json()["code"] != code:
            self.broken.append(f"expected the problem {code}, got {response.text[:200]}")

    def _moved(self, sender: WalletModel, receiver: WalletModel, amount: str) -> None:
        sender.balance -= Decimal(amount)
        receiver.balance += Decimal(amount)


WALLETS_TOTAL: Final = len(_USERS) * len(_CURRENCIES)
"""How many wallets the demo creates."""

OPERATIONS_TOTAL: Final = (
    2 * (WALLETS_TOTAL + _HOLDS + _REVERSALS + _RETRIED + _REPEATED)
    + (_HOT_FUNDS + _SPREAD_FUNDS + _WITHDRAWALS + _TRANSFERS + _SPLITS + _BATCHES + _REFUSED)
    + _RESTATED * _RESTATED_REQUESTS
)
"""How many requests the demo sends."""
