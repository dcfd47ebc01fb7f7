"""The files that a URL names: certificates, keys, the password file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.postgres.urls import SYSTEM_CERTIFICATES

_NAMES: Final = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_ACCESS_OF_OTHERS: Final = 0o077


def unusable_file(parameters: Mapping[str, str]) -> str | None:
    """Say which file of the URL can't be used, and the way out.

    The errors of `ssl` don't name the file, and asyncpg goes on without a password file that it can't use.
    """
    used = [name for name in _NAMES if name in parameters and not (name == "passfile" and "password" in parameters)]
    return next(filter(None, (_wrong(name, parameters[name]) for name in used)), None)


def _wrong(name: str, path: str) -> str | None:
    if name == "sslrootcert" and path == SYSTEM_CERTIFICATES:
        return None
    try:
        with Path(path).open("rb"):
            mode = Path(path).stat().st_mode
    except OSError as error:
        return f"{name} {path}: {error.strerror} (provide the file, or correct the URL)"
    if name == "passfile" and os.name == "posix" and mode & _ACCESS_OF_OTHERS:
        return f"passfile {path}: other users have access to it, so it is not used (chmod 0600)"
    return None
