"""The variables of the caller's environment that a stack's processes inherit: those named here, and no other ones.

Variables that are meant for other servers must not change these: `PGSSLMODE`, `JAVA_TOOL_OPTIONS`, `KAFKA_OPTS`, `TZ`,
`LD_PRELOAD`, a proxy's address and the like are not inherited.
"""

import os
import sys
from typing import Final

from common.kafka.connection import KafkaSecurity
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.settings import RelaySettings
from wallet_api.settings import WalletApiSettings

_EVERYWHERE: Final = (
    "PATH",  # where a process finds programs
    "HOME",  # where the Maven cache is; a uid without a passwd entry has no other home
    "TMPDIR",  # where the caller wants temporary files
)

_PYTHON: Final = (
    "PYTHONPATH",  # the services run this very code, wherever it was imported from
    "PYTHONHOME",  # and this very interpreter
    "LD_LIBRARY_PATH",  # whose libraries may be elsewhere (Linux)
    "DYLD_LIBRARY_PATH",  # the same (macOS)
)

_DOWNLOADS: Final = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),  # the way to the registry
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),  # the authority of its certificate
    *("M2_REPO", "JGO_CACHE_DIR", "XDG_CONFIG_HOME"),  # where jgo keeps its files
)

_SERVICES: Final = (
    "FAILPOINTS",  # set only to make the services fail
)

SETTINGS: Final = {
    name.upper()
    for settings in (WalletApiSettings, RelaySettings, ConsumerSettings, HistoryApiSettings)
    for name in settings.model_fields
}
"""The variables that configure the four services."""

_ELSEWHERE: Final = {name.upper() for name in KafkaSecurity.model_fields}
"""Settings of a connection to another broker. The stack's own broker has no TLS and no logins."""

# The JVM decodes file names by its locale: in the locale C it can't open one that isn't ASCII.
LOCALE: Final = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"

JAVA_OPTIONS: Final = "WALLET_STACK_JAVA_OPTIONS"
"""The variable with more options for Kafka's JVM. `JDK_JAVA_OPTIONS` is meant for other programs."""


def base_environment() -> dict[str, str]:
    """Return the variables of every process of a stack: enough to run, none that changes what it does."""
    return {**_inherited(_EVERYWHERE), "LC_ALL": LOCALE}


def download_environment() -> dict[str, str]:
    """Return the variables, on top of the base, that a Python program needs to download."""
    return _inherited((*_PYTHON, *_DOWNLOADS))


def service_environment() -> dict[str, str]:
    """Return the variables of the four services, on top of the base: the caller's settings, and what Python needs.

    Settings may be in any case. They are passed on in capitals, so that the stack's own, such as `DATABASE_URL`,
    replace them.
    """
    passed_on = SETTINGS - _ELSEWHERE
    settings = {name.upper(): value for name, value in os.environ.items() if name.upper() in passed_on}
    # The stack's servers have no TLS. Certificates in ~/.postgresql must not matter.
    return {**_inherited((*_PYTHON, *_SERVICES)), **settings, "PGSSLMODE": "disable"}


def _inherited(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
