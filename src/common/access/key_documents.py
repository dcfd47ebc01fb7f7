"""The documents that have public keys, as bytes, and the algorithms of keys. Nothing here reads what a key is.

So a process that accepts no JWTs need not load a library for cryptography, which takes some 10 MiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCUMENT_BYTES_MAX: Final = 256 * 1024

FAMILIES: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""The algorithms of each type of key and its curve. All are asymmetric: no shared secret can sign a token."""

ALGORITHMS: Final = tuple(dict.fromkeys(name for names in FAMILIES.values() for name in names))


@dataclass(frozen=True)
class Unusable:
    """Keys that could not be read, and why, in words that follow the name of their place."""

    reason: str


def read_file(path: Path) -> bytes | Unusable:
    """Return the file's bytes, at most `DOCUMENT_BYTES_MAX`."""
    try:
        with path.open("rb") as file:
            document = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        return Unusable(f"cannot be read: {error.strerror}")
    return document if len(document) <= DOCUMENT_BYTES_MAX else Unusable(f"has more than {DOCUMENT_BYTES_MAX} bytes")
