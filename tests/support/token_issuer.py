"""An issuer of JWTs with keys of its own, and the server of its JWKS."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import AllowedPrivateKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example"
AUDIENCE = "wallet"


@cache
def _made(name: str, kind: str) -> AllowedPrivateKeys:
    del name
    match kind:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def private_key(name: str, algorithm: str = "RS256") -> AllowedPrivateKeys:
    """Return the key of that name for that algorithm, the same each time."""
    return _made(name, algorithm if algorithm.startswith("E") else "RSA")


def public_pem(name: str, algorithm: str = "RS256") -> bytes:
    """Return the public key in PEM."""
    return private_key(name, algorithm).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(name: str, algorithm: str = "RS256", **members: Any) -> dict[str, Any]:
    """Return the public key as a JWK, with its name as `kid`."""
    key: Any = private_key(name, algorithm).public_key()
    kinds: dict[str, Any] = {"E": ECAlgorithm if algorithm.startswith("ES") else OKPAlgorithm}
    made: dict[str, Any] = kinds.get(algorithm[0], RSAAlgorithm).to_jwk(key, as_dict=True)
    return {**made, "kid": name, "use": "sig", **members}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    """Return the JWKS of these keys."""
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, with changes; None leaves a claim out."""
    now = int(time.time())
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 3600, "scope": "wallets:read wallets:write"}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def token(
    key: str = "first", algorithm: str = "RS256", headers: Mapping[str, Any] | None = None, **changes: Any
) -> str:
    """Return a token that is signed with the key of that name."""
    return jwt.encode(claims(**changes), private_key(key, algorithm), algorithm, {"kid": key, **(headers or {})})


def segment(content: bytes | Mapping[str, Any]) -> str:
    """Return the base64url of bytes, or of JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], key: str = "first") -> str:
    """Return a token with exactly this header and this payload, and a good RS256 signature."""
    content = f"{segment(header)}.{segment(payload)}"
    private = private_key(key)
    assert isinstance(private, rsa.RSAPrivateKey)
    return f"{content}.{segment(RSAAlgorithm(RSAAlgorithm.SHA256).sign(content.encode(), private))}"


@dataclass
class JwksServer:
    """A server on loopback that answers each request with the given bytes, and counts the requests."""

    reply: bytes = b""
    """The whole response; without one the server is silent."""
    requests: list[bytes] = field(default_factory=list)
    """The heads of the requests."""
    allowed: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, the server waits before it replies."""
    ssl_context: ssl.SSLContext | None = None
    """The server's certificate, for `https://`."""
    port: int = 0

    async def __aenter__(self) -> Self:
        self.allowed.set()
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self.ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """Where the JWKS is."""
        return f"http{'s' if self.ssl_context else ''}://127.0.0.1:{self.port}/jwks"

    def publish(self, *keys: Mapping[str, Any]) -> None:
        """Answer with a JWKS of these keys."""
        self.answer(jwks(*keys))

    def answer(self, body: bytes, status: str = "200 OK", head: str = "") -> None:
        """Answer with this body."""
        lines = f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.reply = lines.encode() + body

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            await self.allowed.wait()
            writer.write(self.reply)
            if not self.reply:
                await reader.read()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
