"""What of the caller's environment reaches the processes of a stack: the variables named here, and no others.

A variable set for other servers must not change these: `PGSSLMODE`, `JAVA_TOOL_OPTIONS`, `KAFKA_OPTS`, `TZ`,
`LD_PRELOAD`, a proxy's address and their like stay behind.
"""

import os
import sys
from typing import Final

from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.settings import RelaySettings
from wallet_api.settings import WalletApiSettings

_EVERYWHERE: Final = (
    "PATH",  # a program finds the programs that it starts
    "HOME",  # the Maven cache; a uid without a passwd entry has no other home
    "TMPDIR",  # temporary files go where the caller's go
)

_PYTHON: Final = (
    "PYTHONPATH",  # the services are this very code, from wherever it was imported
    "PYTHONHOME",  # and this very interpreter
    "LD_LIBRARY_PATH",  # whose own libraries may lie apart (Linux)
    "DYLD_LIBRARY_PATH",  # the same (macOS)
)

_DOWNLOADS: Final = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),  # the way to the registry
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),  # the authority that such a way needs
    *("M2_REPO", "JGO_CACHE_DIR", "XDG_CONFIG_HOME"),  # where jgo keeps its files
)

_SERVICES: Final = (
    "FAILPOINTS",  # nobody sets it but to break the services
)

SETTINGS: Final = {
    name.upper()
    for settings in (WalletApiSettings, RelaySettings, ConsumerSettings, HistoryApiSettings)
    for name in settings.model_fields
}
"""The variables that configure the four services."""

# The JVM decodes file names by its locale: in the locale C it can't open one that isn't ASCII.
LOCALE: Final = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"

JAVA_OPTIONS: Final = "WALLET_STACK_JAVA_OPTIONS"
"""Options of Kafka's JVM on top of the stack's; those of `JDK_JAVA_OPTIONS` are meant for others."""


def base_environment() -> dict[str, str]:
    """Return what every process of a stack gets: enough to run, nothing that changes what it does."""
    return {**_passed_on(_EVERYWHERE), "LC_ALL": LOCALE}


def python_environment() -> dict[str, str]:
    """Return what runs this very code in another process, on top of the base."""
    return _passed_on(_PYTHON)


def download_environment() -> dict[str, str]:
    """Return what a Python program needs to download, on top of the base."""
    return _passed_on((*_PYTHON, *_DOWNLOADS))


def service_environment() -> dict[str, str]:
    """Return the caller's settings of the four services, and what runs them, on top of the base.

    Settings are read whatever their case, so they are passed on in capitals: what the stack sets itself, such as
    `DATABASE_URL`, replaces each of them.
    """
    settings = {name.upper(): value for name, value in os.environ.items() if name.upper() in SETTINGS}
    # The servers have no TLS: what lies in ~/.postgresql must not matter either.
    return {**_passed_on((*_PYTHON, *_SERVICES)), **settings, "PGSSLMODE": "disable"}


def _passed_on(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
