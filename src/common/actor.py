"""The actor: the operator's name, which the audit and the epochs record."""

import getpass
import os

from common.settings import OperatorSettings


def actor() -> str:
    """Return OPERATOR, else the user's name, else `uid 1234`. It never fails.

    OpenShift and Kubernetes run containers with a uid that has no entry in the password database, and so no name.
    """
    name = OperatorSettings().operator or _user_name() or f"uid {os.getuid()}"
    # Python reads bytes of the environment that aren't UTF-8 as lone surrogates, which PostgreSQL can't store.
    return name.encode(errors="backslashreplace").decode()


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # It is a KeyError before Python 3.13 and an OSError since then.
        return ""
