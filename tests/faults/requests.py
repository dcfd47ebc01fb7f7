"""What clients ask for, and what they know of the answers."""

import random
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, Literal

Change = Literal["freeze", "unfreeze", "close", "reopen"]
Kind = (
    Literal["create", "fund", "withdraw", "transfer", "split", "holds", "capture", "void", "reverse", "limits", "batch"]
    | Change
)
Outcome = Literal["ok", "refused", "unknown", "wrong"]
"""`wrong` is an answer that no request of the driver may get: it is a violation, and is not asked again."""

OVERDRAFT_MAX_MINOR = 2_000


@dataclass
class Operation:
    """One request, which may be sent several times, and its only allowed reply."""

    kind: Kind
    path: str
    body: dict[str, Any]
    key: str
    amount_minor: int = 0
    outcome: Outcome = "unknown"
    status: int = 0
    reply: bytes = b""
    attempts: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """Limits are replaced."""
        return "PUT" if self.kind == "limits" else "POST"

    @property
    def headers(self) -> dict[str, str]:
        """A batch has no version of its own to match."""
        match = {} if self.kind == "batch" else {"If-Match": "*"}
        return {"Idempotency-Key": self.key, **match}

    @property
    def effects(self) -> int:
        """How many transactions have its reference: a close may make a transfer too, an atomic batch has several."""
        return len(self.body.get("operations", [self])) + (b'"sweep":{' in self.reply)

    @property
    def in_batch(self) -> dict[str, Any]:
        """The same request as an operation of a batch."""
        _, collection, id_, op = self.path.split("/")
        return {**self.body, "op": op, f"{collection[:-1]}_id": id_, "key": self.key}


@dataclass(kw_only=True)
class Requests:
    """Draws requests, and remembers each of them.

    Args:
        seed: of everything random, and the beginning of each key.
        operations: all requests so far.
        wallets: whose money moves.
        holds: that may be captured or voided.
        transactions: that may be reversed.
    """

    seed: int
    operations: list[Operation] = field(default_factory=list)
    wallets: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def _move(self, rng: random.Random) -> Operation:
        wallet, *others = rng.sample(self.wallets, rng.randint(2, len(self.wallets)))
        (kind,) = rng.choices(
            ("change", "fund", "withdraw", "split", "batch", "transfer", "reverse"), (1, 4, 6, 2, 1, 11, 2)
        )
        if kind == "change":
            change = self._set_limits(rng, wallet) if rng.random() < 0.2 else None
            return change or self._change_of_status(rng, wallet, others[0])
        if kind == "withdraw":
            return self._withdraw_or_hold(rng, wallet, others[0])
        if kind == "reverse" and self.transactions:
            return self._reverse(rng, rng.choice(self.transactions))
        # Some ask for more than any wallet has.
        amount_minor = rng.randint(10, 2000) if rng.random() < 0.9 else 10_000_000
        match kind:
            case "fund":
                made = self._fund(wallet, rng.randint(1, 500))
            case "split":
                made = self._split(wallet, others, amount_minor)
            case "batch":
                made = self._atomic([wallet, *others], amount_minor)
            case _:
                made = self._transfer(wallet, others[0], amount_minor)
        return made

    def _create(self) -> Operation:
        key = self._key()
        return self._new(Operation("create", "/wallets", {"user_id": "u", "currency": "EUR", "external_id": key}, key))

    def _fund(self, wallet: str, amount_minor: int) -> Operation:
        return self._money("fund", wallet, {}, amount_minor)

    def _transfer(self, wallet: str, other: str, amount_minor: int) -> Operation:
        return self._money("transfer", wallet, {"to_wallet_id": other}, amount_minor)

    def _withdraw_or_hold(self, rng: random.Random, wallet: str, other: str) -> Operation:
        drawn = rng.random()
        if drawn < 0.3:
            return self._money("withdraw", wallet, {}, rng.randint(1, 300))
        if drawn < 0.6 and self.holds:
            return self._end(rng, rng.choice(self.holds))
        return self._hold(rng, wallet, other)

    def _hold(self, rng: random.Random, wallet: str, other: str) -> Operation:
        """Place a hold; some expire before they are captured."""
        fields = {"to_wallet_id": other, "expires_in": rng.choice([1, 2, 3600])}
        return self._money("holds", wallet, fields, rng.randint(1, 300))

    def _end(self, rng: random.Random, hold: str) -> Operation:
        """Capture or void a hold, which another client may do at the same time."""
        key = self._key()
        if rng.random() < 0.3:
            body: dict[str, Any] = {"reference": key, "external_id": key}
            return self._new(Operation("void", f"/holds/{hold}/void", body, key))
        body = {"final": rng.random() < 0.7, "reference": key, "external_id": key}
        return self._new(Operation("capture", f"/holds/{hold}/capture", body, key))

    def _reverse(self, rng: random.Random, transaction: str) -> Operation:
        """Reverse a transfer or a split, which another client may do at the same time; some of them in part."""
        key = self._key()
        body = {"reason": "a test", "reference": key, **rng.choice([{}, {"amount": f"0.{rng.randint(1, 99):02}"}])}
        return self._new(Operation("reverse", f"/transactions/{transaction}/reverse", body, key))

    def _split(self, wallet: str, others: list[str], amount_minor: int) -> Operation:
        amounts = ["rest", *["0.01"] * (len(others) - 1)]
        legs = [{"to_wallet_id": other, "amount": amount} for other, amount in zip(others, amounts, strict=True)]
        return self._money("split", wallet, {"legs": legs}, amount_minor)

    def _atomic(self, wallets: list[str], amount_minor: int) -> Operation:
        """Send an amount from each wallet to the next one, all of them or none."""
        key = self._key()
        amount = f"{amount_minor // 100}.{amount_minor % 100:02}"
        operations = [
            {"op": "transfer", "wallet_id": sender, "to_wallet_id": receiver, "amount": amount, "reference": key}
            for sender, receiver in pairwise(wallets)
        ]
        return self._new(Operation("batch", "/batches", {"atomic": True, "operations": operations}, key))

    def _change_of_status(self, rng: random.Random, wallet: str, other: str) -> Operation:
        """Return a change of a status. Most make a wallet active again, so that most wallets are."""
        kinds: list[Change] = ["freeze", "close", "unfreeze", "reopen"]
        (kind,) = rng.choices(kinds, [1, 1, 16, 16])
        fields: dict[Change, dict[str, Any]] = {
            "freeze": {"blocks": rng.choice(["in", "out", "all"])},
            "close": {"sweep_to_wallet_id": other},
        }
        key = self._key()
        body = {"reason": "a test", "reference": key, "external_id": key, **fields.get(kind, {})}
        return self._new(Operation(kind, f"/wallets/{wallet}/{kind}", body, key))

    def _set_limits(self, rng: random.Random, wallet: str) -> Operation:
        """Return limits that most requests meet, and some do not."""
        velocity = [
            {"id": "out", "direction": "out", "window": "day", "amount": rng.choice(["50.00", "5000.00"])},
            {"id": "in", "direction": "in", "window": "month", "count": rng.choice([20, 2000])},
        ]
        overdraft_minor = rng.choice([0, OVERDRAFT_MAX_MINOR])
        key = self._key()
        body = {
            "overdraft_limit": f"{overdraft_minor // 100}.00",
            "balance_max": rng.choice([None, "1000.00"]),
            "velocity": rng.choice([[], velocity]),
            "reference": key,
        }
        return self._new(Operation("limits", f"/wallets/{wallet}/limits", body, key))

    def _money(self, kind: Kind, wallet: str, body: dict[str, Any], minor: int) -> Operation:
        key = self._key()
        amount = f"{minor // 100}.{minor % 100:02}"
        whole = {**body, "amount": amount, "reference": key, "external_id": key}
        return self._new(Operation(kind, f"/wallets/{wallet}/{kind}", whole, key, minor))

    def _new(self, operation: Operation) -> Operation:
        self.operations.append(operation)
        return operation

    def _key(self) -> str:
        return f"{self.seed}-{next(self._numbers)}"
