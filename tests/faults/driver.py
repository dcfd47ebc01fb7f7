"""Clients that repeat their requests until the outcome is known, and remember every reply."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx
import orjson

from faults.requests import OVERDRAFT_MAX_MINOR, Operation, Outcome, Requests
from support.processes import http_client

_PATIENCE_SECONDS = 4.0
_SETTLE_SECONDS_MAX = 60.0
_OUTCOMES: Final[Mapping[int, Outcome]] = {200: "ok", 201: "ok", 409: "refused", 422: "refused"}
_AGAIN = {429, 503}


@dataclass
class Driver(Requests):
    """Concurrent clients of the wallet API.

    Each client draws what it does from the seed and its own number; when it happens is up to the machine.

    Args:
        url: of the API.
        clients: how many at once.
        wallets_count: how many wallets they share.
    """

    url: str
    clients: int = 12
    wallets_count: int = 10
    violations: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    seen_versions: dict[str, int] = field(default_factory=dict)
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
        if not operations:
            return asked
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
