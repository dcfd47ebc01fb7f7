"""The pipelines that the demo can run on: a temporary stack, or the services that the environment names."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.settings import PipelineSettings
from walletctl.console import Exit, err, load_settings
from walletctl.settings import DemoSettings
from walletctl.stack.control import running_state
from walletctl.stack.errors import StackError
from walletctl.stack.specs import shared_environment, walletctl


@dataclass(frozen=True)
class Pipeline:
    """A running pipeline.

    Attributes:
        wallet_api_url: the root of the wallet API.
        history_api_url: the root of the history API.
        api_key: a key with the scopes `wallets:read`, `wallets:write`, `funds:write`, `ops:write` and `history:read`.
        audit_environment: the variables of `walletctl verify`; None if no database and no broker are named.
        uses_proxies: whether its clients use the proxies and authorities of the caller's environment.
    """

    wallet_api_url: str
    history_api_url: str
    api_key: str = field(repr=False)
    audit_environment: Mapping[str, str] | None = field(repr=False)
    uses_proxies: bool


@contextmanager
def temporary_stack() -> Iterator[Pipeline]:
    """Run a stack for the block.

    Raises:
        StackError: the stack didn't start, or didn't stop.
    """
    err.print("starting PostgreSQL, Kafka and the four processes …", highlight=False)
    with tempfile.TemporaryDirectory(prefix="wallet-demo-") as directory:
        data_dir = Path(directory) / "stack"
        where = ("--data-dir", str(data_dir))
        try:
            _walletctl("stack", "up", "--detach", "--ephemeral", *where)
            stack = running_state(data_dir)
            named = stack.environment
            yield Pipeline(
                named["WALLET_API_URL"],
                named["HISTORY_API_URL"],
                named["WALLET_API_KEY"],
                shared_environment(stack.ports, stack.auditor_url),
                uses_proxies=False,
            )
        finally:
            err.print("stopping …", highlight=False)
            _walletctl("stack", "down", *where)


@contextmanager
def pipeline_of_environment() -> Iterator[Pipeline]:
    """Use running services. A missing or wrong variable ends the process with one line and exit code 2.

    DATABASE_URL or KAFKA_BOOTSTRAP_SERVERS asks for the audit, which needs both.
    """
    settings = load_settings(DemoSettings)
    is_audited = settings.database_url is not None or settings.kafka_bootstrap_servers != ""
    if is_audited:
        load_settings(PipelineSettings)
    yield Pipeline(
        settings.wallet_api_url,
        settings.history_api_url,
        settings.wallet_api_key.read(),
        os.environ if is_audited else None,
        uses_proxies=True,
    )


def _walletctl(*arguments: str) -> None:
    done = subprocess.run(walletctl(*arguments), stdout=subprocess.DEVNULL, check=False)
    if done.returncode != Exit.OK:
        raise StackError(f"walletctl {' '.join(arguments)} exited with {done.returncode}")
