"""Clients that repeat their requests until the outcome is known, and remember every reply."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, Final, Literal

import httpx
import orjson

from support.processes import http_client

Change = Literal["freeze", "unfreeze", "close", "reopen"]
Kind = (
    Literal["create", "fund", "withdraw", "transfer", "split", "holds", "capture", "void", "reverse", "limits", "batch"]
    | Change
)
Outcome = Literal["ok", "refused", "unknown", "wrong"]
"""`wrong` is an answer that no request of the driver may get: it is a violation, and is not asked again."""

OVERDRAFT_MAX_MINOR = 2_000

_PATIENCE_SECONDS = 4.0
_SETTLE_SECONDS_MAX = 60.0
_OUTCOMES: Final[Mapping[int, Outcome]] = {200: "ok", 201: "ok", 409: "refused", 422: "refused"}
_AGAIN = {429, 503}


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


@dataclass
class Driver:
    """Concurrent clients of the wallet API.

    Each client draws what it does from the seed and its own number; when it happens is up to the machine.

    Args:
        url: of the API.
        seed: of everything random.
        clients: how many at once.
        wallets_count: how many wallets they share.
    """

    url: str
    seed: int
    clients: int = 12
    wallets_count: int = 10
    operations: list[Operation] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    wallets: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    holds: list[str] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)
    seen_versions: dict[str, int] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)
    _left: list[Operation] = field(default_factory=list)

    async def prepare(self) -> None:
        """Make the wallets and fund each with 100.00, before the faults begin."""
        async with self._client() as client:
            for _ in range(self.wallets_count):
                await self._ask_until_known(client, self._create())
            self.wallets = [_json(operation)["id"] for operation in self.operations]
            for wallet in self.wallets:
                await self._ask_until_known(client, self._fund(wallet, 10_000))

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until `stop`, then until every outcome is known, or for a minute."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.clients):
                tasks.create_task(self._be_client(random.Random(f"{self.seed}-{number}"), stop))
        async with self._client() as client:
            await self._resolve(client, self._left)

    async def crowd(
        self, rng: random.Random, count: int, patience: Callable[[], float | None] = lambda: None
    ) -> list[Operation]:
        """Send so many requests at once; each client hangs up after its `patience`, in seconds."""
        asked = [self._fund(rng.choice(self.wallets), 1) for _ in range(count)]
        async with http_client(self.url, timeout=None) as client:
            await asyncio.gather(*(self._ask(client, operation, patience()) for operation in asked))
        self._left += [operation for operation in asked if operation.outcome == "unknown"]
        return asked

    def moved_minor(self, kind: Literal["fund", "withdraw"], outcomes: Container[str]) -> int:
        """Return the sum of the operations of this kind with these outcomes."""
        return sum(done.amount_minor for done in self.operations if done.kind == kind and done.outcome in outcomes)

    def _client(self) -> httpx.AsyncClient:
        return http_client(self.url, timeout=_PATIENCE_SECONDS)

    async def _be_client(self, rng: random.Random, stop: asyncio.Event) -> None:
        unknown: list[Operation] = []
        async with self._client() as client:
            while not stop.is_set():
                if rng.random() < 0.05:
                    batch = [self._move(rng) for _ in range(rng.randint(2, 8))]
                    unknown += await self._ask_together(client, batch)
                    continue
                operation = self._choose(rng, unknown)
                if operation is None:
                    await self._read(client, rng.choice(self.wallets))
                    continue
                # Some clients hang up in the middle of a request.
                patience = rng.uniform(0.001, 0.03) if rng.random() < 0.05 else None
                await self._ask(client, operation, patience)
                if operation.outcome == "unknown":
                    unknown.append(operation)
                    await asyncio.sleep(rng.uniform(0, 0.3))
                elif rng.random() < 0.1:
                    await self._ask(client, operation)
            await self._resolve(client, unknown)

    def _choose(self, rng: random.Random, unknown: list[Operation]) -> Operation | None:
        """Return what to ask now; None is a read."""
        if unknown and (len(unknown) > 20 or rng.random() < 0.4):
            return unknown.pop(rng.randrange(len(unknown)))
        drawn = rng.random()
        if drawn < 0.1:
            return None
        if drawn < 0.13:
            return self._create()
        return self._move(rng)

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

    async def _resolve(self, client: httpx.AsyncClient, unknown: list[Operation]) -> None:
        """Repeat these until each outcome is known, or for a minute: the checks find those that are still unknown."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS_MAX):
                for operation in unknown:
                    await self._ask_until_known(client, operation)

    async def _ask_until_known(self, client: httpx.AsyncClient, operation: Operation) -> None:
        while True:
            await self._ask(client, operation)
            if operation.outcome != "unknown":
                return
            await asyncio.sleep(0.1)

    async def _ask_together(self, client: httpx.AsyncClient, asked: list[Operation]) -> list[Operation]:
        """Send operations in one request that is not atomic; return those whose outcome is unknown.

        A client repeats these on their own routes, and must get the same replies.
        """
        operations = [operation for operation in asked if operation.kind not in {"batch", "limits"}]
        try:
            async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                body = {"atomic": False, "operations": [operation.in_batch for operation in operations]}
                reply = await client.post("/batches", json=body)
        except (httpx.TransportError, TimeoutError) as error:
            for operation in operations:
                self._note(operation, type(error).__name__)
            return asked
        if reply.status_code == 207:
            for operation, item in zip(operations, reply.json()["items"], strict=True):
                content = orjson.dumps(item.get("body") or item["problem"])
                self._note(operation, str(item["status"]))
                self._learn(operation, httpx.Response(item["status"], headers=item["headers"], content=content))
        elif not _is_again(reply):
            self.violations.append(f"a batch of {operations}: answered {reply.status_code} {reply.text[:300]}")
        return [operation for operation in asked if operation.outcome == "unknown"]

    async def _ask(self, client: httpx.AsyncClient, operation: Operation, patience: float | None = None) -> None:
        try:
            async with asyncio.timeout(patience or 2 * _PATIENCE_SECONDS):
                reply = await client.request(
                    operation.method,
                    operation.path,
                    json=operation.body,
                    headers=operation.headers,
                )
        except (httpx.TransportError, TimeoutError) as error:
            self._note(operation, type(error).__name__)
            return
        self._note(operation, str(reply.status_code))
        self._learn(operation, reply)

    def _note(self, operation: Operation, what: str) -> None:
        operation.attempts.append(what)
        self.answers[what] += 1

    def _learn(self, operation: Operation, reply: httpx.Response) -> None:
        if _is_again(reply):
            return
        if operation.outcome == "unknown":
            operation.outcome = _OUTCOMES.get(reply.status_code, "wrong")
            operation.status, operation.reply = reply.status_code, reply.content
            self._remember(operation)
        elif (operation.status, operation.reply) != (reply.status_code, reply.content):
            self.violations.append(
                f"{operation.path} {operation.key}: first {operation.status} {operation.reply!r},"
                f" then {reply.status_code} {reply.content!r}"
            )

    def _remember(self, operation: Operation) -> None:
        """Note what later requests use, and what no request may be answered."""
        if operation.outcome == "wrong":
            self.violations.append(
                f"{operation.path} {operation.key}: answered {operation.status} {operation.reply[:300]!r}"
            )
        if operation.outcome != "ok" or operation.kind in {"create", "batch"}:
            return
        done = _json(operation)
        self._see(done["wallet_id"], done["version"])
        if operation.kind == "holds":
            self.holds.append(done["hold"]["id"])
        if operation.kind in {"transfer", "split"}:
            self.transactions.append(done["transaction_id"])

    def _see(self, wallet: str, version: int) -> None:
        self.seen_versions[wallet] = max(version, self.seen_versions.get(wallet, 0))

    async def _read(self, client: httpx.AsyncClient, wallet: str) -> None:
        """Read a wallet: its version is at least the one known before, and its balance is within its limits."""
        known = self.seen_versions.get(wallet, 0)
        try:
            async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                reply = await client.get(f"/wallets/{wallet}")
        except (httpx.TransportError, TimeoutError):
            return
        if _is_again(reply):
            return
        found = reply.json()
        is_overdrawn = reply.status_code == 200 and float(found["balance"]) < -OVERDRAFT_MAX_MINOR / 100
        if reply.status_code != 200 or found["version"] < known or is_overdrawn:
            self.violations.append(f"GET {wallet}: version {known} was known, then {reply.status_code} {reply.text}")
            return
        self._see(wallet, found["version"])


def _is_again(reply: httpx.Response) -> bool:
    """Whether the same request may have another reply later. A decided 409 has no Retry-After."""
    return reply.status_code in _AGAIN or (reply.status_code == 409 and "retry-after" in reply.headers)


def _json(operation: Operation) -> Any:
    return httpx.Response(operation.status, content=operation.reply).json()
