"""TLS to PostgreSQL: what asyncpg doesn't know, and what is wrong when TLS fails."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from common.postgres.urls import SYSTEM_CERTIFICATES

# asyncpg's words for a server that answers the request for TLS with `N`.
_NO_TLS: Final = "rejected SSL upgrade"
_LOST: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def driver_arguments(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments of `asyncpg.connect` for `sslrootcert=system`, which asyncpg doesn't know.

    Raises:
        OSError: the client's certificate or key can't be used.
    """
    if parameters.get("sslrootcert") != SYSTEM_CERTIFICATES:
        return {}
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    if "sslcert" in parameters:
        password = parameters.get("sslpassword", "")
        context.load_cert_chain(parameters["sslcert"], parameters.get("sslkey"), lambda: password)
    return {"ssl": context}


def tls_refusal(error: BaseException) -> str | None:
    """Say what is wrong and the way out, or return None: TLS didn't fail, or the connection was lost."""
    if isinstance(error, ssl.SSLCertVerificationError):
        way_out = "correct sslrootcert or the host in the URL, or the server's certificate"
        return f"the server's certificate is refused: {error.verify_message} ({way_out})"
    if isinstance(error, ssl.SSLError) and not isinstance(error, _LOST):
        way_out = "correct the URL's parameters that begin with ssl, or their files"
        return f"TLS fails: {error.reason or error} ({way_out})"
    if isinstance(error, ConnectionError) and _NO_TLS in str(error):
        return "the server has no TLS, and the URL's sslmode requires it (turn on ssl in postgresql.conf)"
    return None
