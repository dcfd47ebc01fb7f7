"""The public keys that verify tokens, read from a JWKS (RFC 7517) or from PEM."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jiter
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from common.access.key_documents import FAMILIES, Unusable

KEYS_MAX: Final = 100
_KEY_ID_LENGTH_MAX: Final = 255

# Private members of a JWK are never read.
_PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e")
_PEM: Final = re.compile(b"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKeys:
    """Public keys by key id (None where a key has none) and algorithm. Each is bound to its algorithm."""

    keys: Mapping[tuple[str | None, str], tuple[jwt.PyJWK, ...]] = field(default_factory=dict)

    def candidates(self, key_id: str | None, algorithm: str) -> tuple[jwt.PyJWK, ...]:
        """Return the keys that may have signed a token with this header; a token without `kid` may be of any key."""
        if key_id is not None:
            return self.keys.get((key_id, algorithm), ()) + self.keys.get((None, algorithm), ())
        return tuple(key for (_, name), keys in self.keys.items() if name == algorithm for key in keys)


def read_keys(document: bytes, algorithms: Collection[str]) -> SigningKeys | Unusable:
    """Return the keys of a JWKS or of PEM, for these algorithms.

    A key of another type or use, or one that is broken or too short, is left out (RFC 7517, section 5).
    """
    jwks = _pem_jwks(document) if document.lstrip().startswith(b"-----BEGIN ") else _jwks(document)
    if isinstance(jwks, Unusable):
        return jwks
    if len(jwks) > KEYS_MAX:
        return Unusable(f"has more than {KEYS_MAX} keys")
    keys = defaultdict[tuple[str | None, str], tuple[jwt.PyJWK, ...]](tuple)
    for jwk in jwks:
        for algorithm, key in _bound_keys(jwk, algorithms):
            keys[jwk.get("kid"), algorithm] += (key,)
    return SigningKeys(dict(keys))


def _jwks(document: bytes) -> list[dict[str, Any]] | Unusable:
    try:
        jwks = jiter.from_json(document, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        return Unusable("is neither a JWKS (JSON) nor public keys in PEM")
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list):
        return Unusable('is JSON without a list "keys": it is no JWKS')
    return [key for key in keys if isinstance(key, dict)]


def _pem_jwks(document: bytes) -> list[dict[str, Any]] | Unusable:
    if b"PRIVATE KEY-----" in document:
        return Unusable("has a private key; give the public key only")
    try:
        jwks = [_jwk_of(load_pem_public_key(pem)) for pem in _PEM.findall(document)]
    except (ValueError, UnsupportedAlgorithm):
        return Unusable("has a public key that cannot be read")
    return [jwk for jwk in jwks if jwk] if jwks else Unusable("has no PUBLIC KEY in PEM")


def _jwk_of(key: object) -> dict[str, Any]:
    if isinstance(key, RSAPublicKey):
        return RSAAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, EllipticCurvePublicKey):
        return ECAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return OKPAlgorithm.to_jwk(key, as_dict=True)
    return {}


def _bound_keys(jwk: Mapping[str, Any], algorithms: Collection[str]) -> Iterator[tuple[str, jwt.PyJWK]]:
    """Yield the key once for each algorithm that it may verify."""
    if not _is_for_signatures(jwk) or not _is_key_id(jwk.get("kid")):
        return
    for algorithm in _algorithms_of(jwk):
        if algorithm in algorithms and jwk.get("alg", algorithm) == algorithm:
            key = _bound_key(jwk, algorithm)
            if key is not None:
                yield algorithm, key


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _is_key_id(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _KEY_ID_LENGTH_MAX)


def _algorithms_of(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    key_type, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(key_type, str) or not isinstance(curve, str | None):
        return ()
    return FAMILIES.get((key_type, curve), ())


def _bound_key(jwk: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK({name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}, algorithm)
        is_too_short = key.Algorithm.check_key_length(key.key)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return None if is_too_short else key
