"""Both APIs do what their OpenAPI documents say, for whatever a client sends (schemathesis, as a process).

`make fuzz` runs the same for longer: FUZZ_EXAMPLES inputs of each operation, from the seed FUZZ_SEED.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.tables.roles import Role
from history_consumer.read_api.app import create_app as create_history_api
from history_consumer.settings import HistoryApiSettings
from support.api_keys import KEY, bearer
from support.raw_http import serving_api
from support.roles import ROLES
from wallet_api.app import create_app as create_wallet_api
from wallet_api.settings import WalletApiSettings

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "8")
SEED = os.environ.get("FUZZ_SEED", "1")
IS_LONG = "FUZZ_EXAMPLES" in os.environ


# Each request comes from one address, and some without credentials.
COMMON: dict[str, Any] = {"log_level": "error", "authentication_failures_burst": 1_000_000}


@contextmanager
def wallet_api(database_url: str) -> Iterator[int]:
    settings = WalletApiSettings(database_url=ROLES.url(database_url, Role.API), **COMMON)
    with serving_api(create_wallet_api(settings), settings) as port:
        yield port


@contextmanager
def history_api(database_url: str) -> Iterator[int]:
    url = ROLES.url(database_url, Role.READER)
    settings = HistoryApiSettings(database_url=url, history_min_version_wait_seconds=0, **COMMON)
    with serving_api(create_history_api(settings), settings) as port:
        yield port


@pytest.fixture
def client_headers() -> dict[str, str]:
    """The headers that each request has."""
    return bearer(KEY)


@pytest.mark.timeout(24 * 3600 if IS_LONG else 120)
@pytest.mark.parametrize("api", [wallet_api, history_api])
def test_no_input_leads_to_a_server_error_or_to_a_reply_that_the_document_does_not_have(
    api: Callable[[str], AbstractContextManager[int]],
    database_url: str,
    client_headers: dict[str, str],
    tmp_path: Path,
) -> None:
    headers = [f"--header={name}: {value}" for name, value in client_headers.items()]
    with api(database_url) as port:
        command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "--no-color", "run"]
        options = [f"--seed={SEED}", f"--max-examples={EXAMPLES}", "--checks=all", *headers]
        url = f"http://127.0.0.1:{port}/openapi.json"
        ran = subprocess.run([*command, *options, url], cwd=tmp_path, capture_output=True, text=True, check=False)
    sys.stdout.write(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
