"""Who does what an operator's command does: the name that the audit and the epochs keep."""

import getpass
import os

from common.settings import OperatorSettings


def actor() -> str:
    """Return OPERATOR, else the user's name, else `uid 1234`. It never fails: it is asked for before the first write.

    A uid needs no entry in the password database: OpenShift and Kubernetes give containers one without.
    """
    name = OperatorSettings().operator or _user_name() or f"uid {os.getuid()}"
    # What the environment has that isn't UTF-8 comes as lone surrogates, which PostgreSQL doesn't take.
    return name.encode(errors="backslashreplace").decode()


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # KeyError before Python 3.13, OSError since.
        return ""
