"""The form of API keys: `wk_<environment>_<id>_<secret>_<checksum>`. Pure.

The checksum lets a scanner of source code, and the server, tell a key from other text without a look-up. Why the key
has this form: docs/decisions/0023-form-and-hash-of-api-keys.md.
"""

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

PREFIX: Final = "wk_"
ENVIRONMENT_PATTERN: Final = "[a-z0-9]{1,16}"

_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH: Final = 12
# 62^43 is more than 2^256.
_SECRET_LENGTH: Final = 43
_CHECKSUM_LENGTH: Final = 8
_SECRET_BITS: Final = 256

_FORM: Final = re.compile(
    f"{PREFIX}{ENVIRONMENT_PATTERN}_([0-9A-Za-z]{{{_ID_LENGTH}}})"
    f"_[0-9A-Za-z]{{{_SECRET_LENGTH}}}_[0-9a-f]{{{_CHECKSUM_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. Its text is shown once: the database has only the hash.

    Attributes:
        id: names the key in commands, logs and audits. It isn't secret.
        text: the whole key, as a client sends it. `repr` leaves it out.
    """

    id: str
    text: str = field(repr=False)


def new_key(environment: str) -> NewKey:
    """Return a new key with 256 random bits.

    Args:
        environment: tells people and scanners which installation the key is for: 1 to 16 lower-case letters or digits.
    """
    key_id = "".join(secrets.choice(_DIGITS) for _ in range(_ID_LENGTH))
    return NewKey(key_id, key_text(environment, key_id, secrets.randbits(_SECRET_BITS)))


def key_text(environment: str, key_id: str, secret: int) -> str:
    """Return the text of the key with these parts; the secret is a number of 256 bits."""
    body = f"{PREFIX}{environment}_{key_id}_{_in_digits(secret)}"
    return f"{body}_{_checksum(body)}"


def id_of(text: str) -> str | None:
    """Return the id of a key, or None if the text doesn't have the form or the checksum of a key."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(text[: -_CHECKSUM_LENGTH - 1]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return match[1]


def hash_of(text: str) -> bytes:
    """Return the SHA-256 of the whole key.

    A fast hash is enough: an attacker can try out passwords, and not 2^256 secrets.
    """
    return sha256(text.encode()).digest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):0{_CHECKSUM_LENGTH}x}"


def _in_digits(secret: int) -> str:
    digits = []
    for _ in range(_SECRET_LENGTH):
        secret, digit = divmod(secret, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)
