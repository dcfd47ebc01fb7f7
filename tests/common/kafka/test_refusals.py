"""Each way to log in works with a real broker, and each refusal is told from a broker that is away."""

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import pytest
import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]
from prometheus_client import REGISTRY

from common.kafka import topics
from common.kafka.connection import KafkaConnection
from common.kafka.refusals import explained, refusal_of
from common.kafka.topics import TopicMissingError, describe_topic, ensure_topic
from common.secrets import Secret
from common.settings import KafkaSettings
from support.brokers_with_acls import PASSWORD, BrokerWithAcls
from walletctl.stack.ports import HOST

Eventually = Callable[..., Awaitable[Any]]


class TokenEndpoint(BaseHTTPRequestHandler):
    """Gives a token without a signature, whose subject is the client's id."""

    def do_POST(self) -> None:
        claims = {"sub": "by_token", "iat": int(time()), "exp": int(time()) + 300}
        parts = [
            urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
        ]
        token = f"{parts[0]}.{parts[1]}."
        if self.path == "/denied":
            self.send_error(401)
            return
        body = json.dumps({"access_token": token, "token_type": "bearer", "expires_in": 300}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def token_endpoint_url() -> Iterator[str]:
    with ThreadingHTTPServer((HOST, 0), TokenEndpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}/token"
        server.shutdown()


@pytest.fixture
async def guarded_topic(guarded: BrokerWithAcls) -> str:
    """A topic with which no client may do anything yet."""
    name = f"guarded_{uuid4().hex}"
    await ensure_topic(guarded.admin, name, 1, {})
    return name


def connection(settings: dict[str, Any]) -> KafkaConnection:
    return KafkaSettings(**settings).kafka


def by_plain(guarded: BrokerWithAcls) -> dict[str, Any]:
    return guarded.by_password("PLAIN", "operator", Secret(PASSWORD))


def by_token(guarded: BrokerWithAcls, endpoint_url: str) -> dict[str, Any]:
    return {
        "kafka_bootstrap_servers": guarded.servers("LOGIN"),
        "kafka_security_protocol": "SASL_SSL",
        "kafka_ssl_ca_file": str(guarded.ca_file),
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_sasl_oauthbearer_token_endpoint_url": endpoint_url,
        "kafka_sasl_oauthbearer_client_id": "by_token",
        "kafka_sasl_oauthbearer_client_secret": Secret(PASSWORD),
    }


@pytest.fixture(params=["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate", "file"])
def identity(
    request: pytest.FixtureRequest, guarded: BrokerWithAcls, token_endpoint_url: str, tmp_path: Path
) -> tuple[str, dict[str, Any]]:
    """The name of an identity, and the settings of a client that has it."""
    if request.param == "PLAIN":
        return "operator", by_plain(guarded)
    if request.param == "certificate":
        return "by-certificate", guarded.by_certificate("by-certificate")
    if request.param == "file":
        login = {"sasl.mechanisms": "PLAIN", "sasl.username": "operator", "sasl.password": PASSWORD}
        properties = {**login, "security.protocol": "sasl_ssl", "ssl.ca.location": str(guarded.ca_file)}
        file = tmp_path / "client.properties"
        file.write_text("# as a provider hands it out\n\n" + "".join(f"{n} = {v}\n" for n, v in properties.items()))
        return "operator", {
            "kafka_bootstrap_servers": guarded.servers("LOGIN"),
            "kafka_client_config_file": str(file),
        }
    if request.param == "OAUTHBEARER":
        return "by_token", by_token(guarded, token_endpoint_url)
    guarded.set_password("by_scram", PASSWORD)
    return "by_scram", guarded.by_password(request.param, "by_scram", Secret(PASSWORD))


async def test_each_way_to_log_in_reaches_the_broker_under_its_own_name(
    guarded: BrokerWithAcls, identity: tuple[str, dict[str, Any]], guarded_topic: str, eventually: Eventually
) -> None:
    name, settings = identity
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        await describe_topic(connection(settings), guarded_topic)
    guarded.allow(ResourceType.TOPIC, guarded_topic, AclOperation.DESCRIBE, principal=f"User:{name}")

    async def allowed() -> bool:
        # The broker applies an ACL after a moment.
        with suppress(KafkaException, TopicMissingError):
            return (await describe_topic(connection(settings), guarded_topic))[1] == 1
        return False

    await eventually(allowed)


def with_wrong_password(guarded: BrokerWithAcls) -> dict[str, Any]:
    return {**by_plain(guarded), "kafka_sasl_password": Secret("wrong")}


def with_wrong_scram_password(guarded: BrokerWithAcls) -> dict[str, Any]:
    guarded.set_password("by_scram", PASSWORD)
    return guarded.by_password("SCRAM-SHA-256", "by_scram", Secret("wrong"))


def with_another_mechanism(guarded: BrokerWithAcls) -> dict[str, Any]:
    plain = guarded.by_password("SCRAM-SHA-256", "operator", Secret(PASSWORD))
    return {
        **plain,
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_ssl_ca_file": "",
        "kafka_bootstrap_servers": guarded.servers("ADMIN"),
    }


def without_login_listener(guarded: BrokerWithAcls) -> dict[str, Any]:
    return {**with_another_mechanism(guarded), "kafka_bootstrap_servers": guarded.bootstrap_servers}


def with_another_authority(guarded: BrokerWithAcls) -> dict[str, Any]:
    file = guarded.directory / "another-ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return {**by_plain(guarded), "kafka_ssl_ca_file": str(file)}


def at_an_expired_certificate(guarded: BrokerWithAcls) -> dict[str, Any]:
    return {**with_tls(guarded), "kafka_bootstrap_servers": guarded.servers("EXPIRED")}


def with_tls(guarded: BrokerWithAcls) -> dict[str, Any]:
    """TLS at the plain listener."""
    return {
        "kafka_bootstrap_servers": guarded.bootstrap_servers,
        "kafka_security_protocol": "SSL",
        "kafka_ssl_ca_file": str(guarded.ca_file),
    }


def without_a_certificate(guarded: BrokerWithAcls) -> dict[str, Any]:
    return {**with_tls(guarded), "kafka_bootstrap_servers": guarded.servers("CERTIFICATE")}


def with_a_foreign_certificate(guarded: BrokerWithAcls) -> dict[str, Any]:
    return guarded.by_certificate("foreign", trustme.CA())


@pytest.mark.parametrize(
    ("client", "reason", "remedy"),
    [
        (with_wrong_password, "authentication", "correct KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"),
        (with_wrong_scram_password, "authentication", "correct KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"),
        (with_another_mechanism, "authentication", "set KAFKA_SASL_MECHANISM"),
        (without_login_listener, "authentication", "KAFKA_SECURITY_PROTOCOL as the listener has it"),
        (with_another_authority, "tls", "correct KAFKA_SSL_CA_FILE"),
        (at_an_expired_certificate, "tls", "it may have expired"),
        (with_tls, "tls", "set KAFKA_SECURITY_PROTOCOL as the listener has it"),
        (without_a_certificate, "tls", "correct KAFKA_SSL_CERTIFICATE_FILE"),
        (with_a_foreign_certificate, "tls", "correct KAFKA_SSL_CERTIFICATE_FILE"),
    ],
)
async def test_a_refusal_has_its_reason_and_remedy_and_is_counted(
    guarded: BrokerWithAcls, client: Callable[[BrokerWithAcls], dict[str, Any]], reason: str, remedy: str
) -> None:
    before = REGISTRY.get_sample_value("kafka_refusals_total", {"reason": reason}) or 0
    with pytest.raises(KafkaException) as refused:
        await describe_topic(connection(client(guarded)), "any")
    error = refused.value.args[0]
    refusal = refusal_of(error)
    assert refusal is not None, error
    assert refusal.reason == reason
    assert remedy in refusal.remedy
    assert explained(error).endswith(f"({refusal.remedy})")
    assert REGISTRY.get_sample_value("kafka_refusals_total", {"reason": reason}) == before + 1


async def test_a_token_endpoint_that_refuses_the_client_is_a_refusal(
    guarded: BrokerWithAcls, token_endpoint_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 1.0)
    settings = by_token(guarded, token_endpoint_url.replace("/token", "/denied"))
    with pytest.raises(KafkaException) as refused:
        await describe_topic(connection(settings), "any")
    refusal = refusal_of(refused.value.args[0])
    assert refusal is not None, refused.value
    assert "KAFKA_SASL_OAUTHBEARER_…" in refusal.remedy
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("listener", ["LOGIN", "ADMIN"])
async def test_a_broker_that_ends_each_connection_makes_the_client_ask_for_the_protocol(
    guarded: BrokerWithAcls, listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 1.0)
    plaintext = KafkaConnection(guarded.servers(listener))
    with pytest.raises(KafkaException, match="is KAFKA_SECURITY_PROTOCOL as theirs"):
        await describe_topic(plaintext, "any")


async def test_a_broker_that_is_away_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 1.0)
    with pytest.raises(KafkaException) as away:
        await describe_topic(KafkaConnection("127.0.0.1:1"), "any")
    assert refusal_of(away.value.args[0]) is None
    assert "KAFKA_SECURITY_PROTOCOL" not in str(away.value)
