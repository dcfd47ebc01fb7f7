"""A Kafka connection's settings become librdkafka's properties; what can't work is refused when a process starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
from confluent_kafka import KafkaException

from common.kafka.clients import client_config, reader_config
from common.kafka.connection import _PROPERTIES, KafkaSecurity
from common.kafka.librdkafka import KEPT
from common.settings import KafkaSettings
from walletctl.console import load_settings

CANARY = "c4n4ry"
LOGIN = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "relay",
    "KAFKA_SASL_PASSWORD": CANARY,
}
TOKEN = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "http://127.0.0.1:1/token",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "relay",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": CANARY,
}
Load = Callable[[dict[str, str]], KafkaSettings]
Refused = Callable[[dict[str, str]], str]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(variables: dict[str, str]) -> KafkaSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings(KafkaSettings)

    return load


@pytest.fixture
def refused(load: Load, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that loads settings which are refused, and returns the one line that says so."""

    def refused(variables: dict[str, str]) -> str:
        with pytest.raises(typer.Exit) as ended:
            load(variables)
        output = capfd.readouterr()
        assert ended.value.exit_code == 2
        assert CANARY not in output.out + output.err
        (line,) = output.err.splitlines()
        return line

    return refused


def without(variables: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in variables.items() if other != name}


def test_the_default_is_plaintext_without_a_login() -> None:
    assert KafkaSecurity().kafka_properties() == {}


def test_each_setting_is_a_property_of_the_client_or_the_file_with_more() -> None:
    assert KafkaSecurity.model_fields.keys() == {*_PROPERTIES, "kafka_client_config_file"}


def test_settings_become_properties_of_the_client(load: Load) -> None:
    assert load(LOGIN).kafka.properties() == {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "relay",
        "sasl.password": CANARY,
    }


def test_a_token_is_got_by_oidc_and_not_while_the_settings_are_read(
    load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        load(TOKEN).kafka.properties().items()
        >= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.secret": CANARY,
        }.items()
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (without(LOGIN, "KAFKA_SASL_MECHANISM"), "SASL_PLAINTEXT needs KAFKA_SASL_MECHANISM"),
        (without(LOGIN, "KAFKA_SASL_USERNAME"), "KAFKA_SASL_MECHANISM=PLAIN needs KAFKA_SASL_USERNAME"),
        (without(LOGIN, "KAFKA_SASL_PASSWORD"), "KAFKA_SASL_MECHANISM=PLAIN needs KAFKA_SASL_PASSWORD"),
        (without(LOGIN, "KAFKA_SECURITY_PROTOCOL"), "needs KAFKA_SECURITY_PROTOCOL=SASL_SSL or SASL_PLAINTEXT"),
        ({**LOGIN, "KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM: Input should be 'PLAIN'"),
        (
            {**LOGIN, "KAFKA_SASL_PASSWORD_FILE": "/x"},
            "is set, and so is KAFKA_SASL_PASSWORD_FILE",
        ),
        ({**LOGIN, "KAFKA_SSL_CA_FILE": "/x"}, "KAFKA_SSL_CA_FILE needs KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL"),
        (without(TOKEN, "KAFKA_SASL_OAUTHBEARER_CLIENT_ID"), "needs KAFKA_SASL_OAUTHBEARER_CLIENT_ID"),
        (without(TOKEN, "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"), "needs KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"),
        (
            without(TOKEN, "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"),
            "needs KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
        ),
        ({**TOKEN, "KAFKA_SSL_CA_FILE": "/not/there.pem"}, "KAFKA_SSL_CA_FILE: /not/there.pem: No such file"),
        ({**TOKEN, "KAFKA_SSL_CERTIFICATE_FILE": "/x"}, "KAFKA_SSL_CERTIFICATE_FILE needs KAFKA_SSL_KEY_FILE"),
        ({**TOKEN, "KAFKA_SSL_KEY_FILE": "/x"}, "KAFKA_SSL_KEY_FILE needs KAFKA_SSL_CERTIFICATE_FILE"),
        ({**TOKEN, "KAFKA_SSL_KEY_PASSWORD": CANARY}, "KAFKA_SSL_KEY_PASSWORD needs KAFKA_SSL_KEY_FILE"),
        ({**LOGIN, "KAFKA_CLIENT_CONFIG_FILE": "/not/there"}, "KAFKA_CLIENT_CONFIG_FILE: /not/there: No such file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line(
    refused: Refused, variables: dict[str, str], said: str
) -> None:
    assert said in refused(variables)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense.property=1", 'No such configuration property: "nonsense.property"'),
        ("socket.timeout.ms=soon", 'Invalid value for configuration property "socket.timeout.ms"'),
        ("error_cb=x", "line 1: error_cb is not a property of librdkafka"),
        (f"\n{CANARY}", "line 2: must be name=value"),
        (f"={CANARY}", "line 1: must be name=value"),
        ("client.rack=a\nclient.rack=b", "line 2: client.rack stands there twice"),
        (f"sasl.password={CANARY}", "has sasl.password, and KAFKA_SASL_PASSWORD is set"),
        ("sasl.mechanisms=PLAIN", "has sasl.mechanism, and KAFKA_SASL_MECHANISM is set"),
    ],
)
def test_a_file_of_properties_that_no_client_takes_is_refused_in_one_line(
    refused: Refused, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "client.properties").write_text(text)
    assert said in refused({**LOGIN, "KAFKA_CLIENT_CONFIG_FILE": str(tmp_path / "client.properties")})


@pytest.mark.parametrize("name", sorted(KEPT))
def test_a_file_can_not_change_what_the_guarantees_need(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / "client.properties").write_text(f"{name}=1")
    line = refused({**LOGIN, "KAFKA_CLIENT_CONFIG_FILE": str(tmp_path / "client.properties")})
    assert f"line 1: {name} can't be changed" in line


def test_what_the_program_needs_is_kept_from_the_file() -> None:
    """A property that a client gets from this program, and that is no bare tuning, can't come from the file."""
    tuning = {
        *("client.id", "socket.keepalive.enable", "socket.timeout.ms", "reconnect.backoff.ms"),
        *("reconnect.backoff.max.ms", "logger"),
    }
    settings = KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1")
    assert reader_config(settings.kafka, "tests").keys() - tuning <= KEPT


def test_a_file_changes_the_tuning_of_a_client(load: Load, tmp_path: Path) -> None:
    (tmp_path / "client.properties").write_text("# slow network\nsocket.timeout.ms = 20000\n")
    settings = load({**LOGIN, "KAFKA_CLIENT_CONFIG_FILE": str(tmp_path / "client.properties")})
    config = client_config(settings.kafka, "tests", acks="all")
    assert (config["socket.timeout.ms"], config["acks"]) == ("20000", "all")


def test_a_new_client_has_the_password_that_its_file_has_now(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    connection = load({**without(LOGIN, "KAFKA_SASL_PASSWORD"), "KAFKA_SASL_PASSWORD_FILE": str(file)}).kafka
    assert client_config(connection, "tests")["sasl.password"] == "first"
    file.write_text("second\n")
    assert client_config(connection, "tests")["sasl.password"] == "second"
    file.unlink()
    with pytest.raises(KafkaException, match=f"KAFKA_SASL_PASSWORD_FILE: {file}: No such file"):
        client_config(connection, "tests")


def test_a_wrong_key_password_is_refused_in_one_line_without_it(refused: Refused, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("relay.test")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    (tmp_path / "key.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CERTIFICATE_FILE": str(tmp_path / "certificate.pem"),
        "KAFKA_SSL_KEY_FILE": str(tmp_path / "key.pem"),
        "KAFKA_SSL_KEY_PASSWORD": CANARY,
    }
    assert "ssl.key.location failed" in refused(variables)


@pytest.mark.parametrize("variables", [LOGIN, TOKEN])
def test_no_text_of_the_settings_or_the_connection_shows_a_secret(load: Load, variables: dict[str, Any]) -> None:
    settings = load(variables)
    texts = (settings, settings.kafka, settings.model_dump(), settings.model_dump_json())
    assert [text for text in texts if CANARY in f"{text!r}{text}"] == []
