"""The pipeline with logins and ACLs: the rights of the page suffice, and a refusal is reported and waited for."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.kafka.topic_settings import needed_settings
from common.kafka.topics import ensure_topic
from common.secrets import Secret
from common.settings import PipelineSettings
from common.tables.roles import Role
from common.worker import Health
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings
from outbox_relay.run import relay_until
from outbox_relay.settings import RelaySettings
from support.brokers_with_acls import PASSWORD, BrokerWithAcls
from support.command_lines import WalletCtl, walletctl
from support.kafka_acls import ACLS, Row
from support.pipeline_acts import audit
from support.pipelines import APPLIED, api_engine, move_money, new_wallets
from support.roles import ROLES

__all__ = ["walletctl"]

Eventually = Callable[..., Awaitable[Any]]
"""An identity, a resource, and the operation that the identity needs."""

REQUIRED = [row for row in ACLS if row[2] != "DESCRIBE_CONFIGS"]
OUTBOX_PENDING = text("SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL")


def grant(guarded: BrokerWithAcls, settings: PipelineSettings, rows: list[Row]) -> None:
    for identity, resource, operation in rows:
        name = settings.kafka_topic if resource == "topic" else settings.consumer_group
        guarded.allow(ResourceType[resource.upper()], name, AclOperation[operation], principal=f"User:{identity}")


@pytest.fixture
async def settings(guarded: BrokerWithAcls, operator_url: str) -> PipelineSettings:
    """The settings of an operator who may do nothing yet. The topic exists."""
    settings = PipelineSettings(
        database_url=operator_url,
        kafka_topic=f"wallet_events_{uuid4().hex}",
        consumer_group=f"history-{uuid4().hex}",
        **guarded.by_password("PLAIN", "operator", Secret(PASSWORD)),
    )
    await ensure_topic(guarded.admin, settings.kafka_topic, 2, needed_settings(-1))
    return settings


def relay_of(settings: PipelineSettings, **changes: Any) -> RelaySettings:
    login: dict[str, Any] = {"kafka_sasl_username": "relay", "relay_delivery_timeout_seconds": 2, **changes}
    return RelaySettings(**{**ROLES.settings(settings, Role.RELAY).model_dump(), **login})


def consumer_of(settings: PipelineSettings, **changes: Any) -> ConsumerSettings:
    login: dict[str, Any] = {"kafka_sasl_username": "consumer", **changes}
    quick: dict[str, Any] = {"consumer_check_seconds": 0.2, "consumer_session_timeout_seconds": 2}
    return ConsumerSettings(**{**ROLES.settings(settings, Role.CONSUMER).model_dump(), **quick, **login})


@pytest.fixture
async def api(settings: PipelineSettings) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as the wallet API does."""
    async with api_engine(settings.database_url) as engine:
        yield engine


Says = Callable[..., Callable[[], Awaitable[bool]]]


@asynccontextmanager
async def running(settings: RelaySettings | ConsumerSettings) -> AsyncIterator[Says]:
    """Run a relay or a consumer as its process does; yield a maker of conditions on what `/ready` says of Kafka."""
    stop, health = asyncio.Event(), Health()
    work = (
        relay_until(stop, settings, health) if isinstance(settings, RelaySettings) else consume(settings, stop, health)
    )
    task = asyncio.create_task(work)

    def says(*words: str) -> Callable[[], Awaitable[bool]]:
        async def condition() -> bool:
            assert not task.done(), task.exception()
            said = health.checks.get("kafka", "")
            return said == "ok" if words == ("ok",) else all(word in said for word in words)

        return condition

    try:
        yield says
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


def everything_is_applied(engine: AsyncEngine) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        async with engine.connect() as connection:
            pending = await connection.scalar(OUTBOX_PENDING)
            versions = await connection.scalar(text("SELECT sum(version) FROM wallet.wallets"))
            return not pending and await connection.scalar(APPLIED) == versions

    return condition


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("kafka_refusals_total", {"reason": reason}) or 0


async def test_the_acls_of_the_page_suffice_for_the_pipeline_and_its_audit(
    guarded: BrokerWithAcls,
    settings: PipelineSettings,
    engine: AsyncEngine,
    api: AsyncEngine,
    eventually: Eventually,
    walletctl: WalletCtl,
) -> None:
    assert len(ACLS) == 6
    grant(guarded, settings, ACLS)
    await move_money(api, await new_wallets(api), 2)
    async with running(relay_of(settings)) as relay, running(consumer_of(settings)) as consumer:
        await eventually(everything_is_applied(engine))
        await eventually(relay("ok"))
        await eventually(consumer("ok"))
    assert (await audit(settings)).differences == []
    status = walletctl("history", "status", **environment(settings, PASSWORD))
    assert status.returncode == 0, status
    assert "kafka" in status.stdout


@pytest.mark.parametrize("missing", REQUIRED, ids=" ".join)
async def test_without_one_of_the_acls_the_process_reports_what_is_denied_until_it_is_granted(
    guarded: BrokerWithAcls,
    settings: PipelineSettings,
    engine: AsyncEngine,
    api: AsyncEngine,
    eventually: Eventually,
    walletctl: WalletCtl,
    missing: Row,
) -> None:
    grant(guarded, settings, [row for row in ACLS if row != missing])
    before = refusals("authorization")
    if missing[0] == "operator":
        result = walletctl("verify", **environment(settings, PASSWORD))
        assert result.returncode == 2
        assert "Kafka refuses: Broker: Topic authorization failed (grant it in Kafka's ACLs" in result.stderr
        return
    await move_money(api, await new_wallets(api), 1)
    denied = "grant it DESCRIBE and WRITE" if missing[0] == "relay" else f"READ on the {missing[1]}"
    async with AsyncExitStack() as stack:
        for process in (relay_of(settings), consumer_of(settings)):
            says = await stack.enter_async_context(running(process))
            if process.kafka_sasl_username == missing[0]:
                await eventually(says(denied))
        assert refusals("authorization") > before
        grant(guarded, settings, [missing])
        await eventually(everything_is_applied(engine), 60)


@pytest.mark.parametrize("process", [relay_of, consumer_of])
async def test_a_wrong_password_is_reported_and_the_process_goes_on_when_its_file_is_corrected(
    guarded: BrokerWithAcls,
    settings: PipelineSettings,
    eventually: Eventually,
    process: Callable[..., RelaySettings | ConsumerSettings],
    tmp_path: Path,
) -> None:
    grant(guarded, settings, ACLS)
    file = tmp_path / "password"
    file.write_text("wrong")
    before = refusals("authentication")
    async with running(process(settings, kafka_sasl_password=Secret(file=file))) as says:
        await eventually(says("Authentication failed", "correct KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"))
        assert refusals("authentication") > before
        file.unlink()
        await eventually(says(f"KAFKA_SASL_PASSWORD_FILE: {file}: No such file"))
        file.write_text(PASSWORD)
        await eventually(says("ok"))


async def test_a_password_is_rotated_while_the_pipeline_runs(
    guarded: BrokerWithAcls,
    settings: PipelineSettings,
    engine: AsyncEngine,
    api: AsyncEngine,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """The broker asks for the login every two seconds."""
    user, file = f"both-{uuid4().hex}", tmp_path / "password"
    rights = [(user, resource, operation) for _, resource, operation in ACLS]
    grant(guarded, settings, rights)
    guarded.set_password(user, "first")
    file.write_text("first")
    login = guarded.by_password("SCRAM-SHA-512", user, Secret(file=file))
    wallets = await new_wallets(api)
    async with running(relay_of(settings, **login)) as relay, running(consumer_of(settings, **login)) as consumer:
        await eventually(everything_is_applied(engine))
        before = refusals("authentication")
        guarded.set_password(user, "second")
        # The old password is refused when the broker asks for it.
        await eventually(lambda: has_risen(before), 60)
        file.write_text("second")
        await move_money(api, wallets, 1)
        await eventually(everything_is_applied(engine), 60)
        await eventually(relay("ok"))
        await eventually(consumer("ok"))


async def has_risen(before: float) -> bool:
    return refusals("authentication") > before


def environment(settings: PipelineSettings, password: str) -> dict[str, str]:
    return {
        "DATABASE_URL": settings.database_url.read(),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
        "CONSUMER_GROUP": settings.consumer_group,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CA_FILE": settings.kafka_ssl_ca_file,
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": settings.kafka_sasl_username,
        "KAFKA_SASL_PASSWORD": password,
    }


@pytest.mark.parametrize("command", ["verify", "verify --json", "history rebuild --yes", "restore lost"])
async def test_a_command_with_a_wrong_password_ends_with_one_line_that_does_not_show_it(
    settings: PipelineSettings, walletctl: WalletCtl, command: str
) -> None:
    result = walletctl(*command.split(), **environment(settings, "wr0ng-c4n4ry"))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "Kafka refuses: " in line
    assert "correct KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD" in line
    assert "c4n4ry" not in result.stdout + result.stderr


async def test_the_status_of_the_history_says_that_kafka_refuses(
    settings: PipelineSettings, engine: AsyncEngine, walletctl: WalletCtl
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO history.processed_offsets (consumer_group, topic, partition, next_offset, topic_id)"
                " VALUES (:group, :topic, 0, 0, 'any')"
            ),
            {"group": settings.consumer_group, "topic": settings.kafka_topic},
        )
    result = walletctl("history", "status", "--json", **environment(settings, "wr0ng-c4n4ry"))
    assert '"kafka":"refuses: ' in result.stdout
    assert "c4n4ry" not in result.stdout + result.stderr


def test_no_log_line_not_even_of_the_client_library_and_no_argument_shows_a_password(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    (tmp_path / "client.properties").write_text("debug=all\n")
    variables = {
        **environment(ROLES.settings(settings, Role.RELAY), "wr0ng-c4n4ry"),
        "LOG_LEVEL": "debug",
        "RELAY_OPS_PORT": "0",
        "KAFKA_CLIENT_CONFIG_FILE": str(tmp_path / "client.properties"),
    }
    command = [sys.executable, "-m", "walletctl", "relay", "run"]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            log = b""
            while b"topic_not_prepared" not in log:
                log += process.stderr.readline()
            assert "c4n4ry" not in Path(f"/proc/{process.pid}/cmdline").read_text()
        finally:
            process.kill()
        log += process.stderr.read()
    assert b"Authentication failed" in log
    assert b"c4n4ry" not in log
