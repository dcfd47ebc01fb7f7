"""How every Kafka client of a process connects: the brokers, the protocol, the login and the certificates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, model_validator
from pydantic_settings import SettingsConfigDict

from common.kafka.librdkafka import read_properties, refusal_by_client
from common.secrets import Secret, UnreadableSecretError


class KafkaSecurity(BaseModel):
    """The settings of a Kafka connection's security. The default is plaintext without a login."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    """`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`. If it is unset, `KAFKA_CLIENT_CONFIG_FILE` may set it; the
    default is `PLAINTEXT` (docs/kafka-security.md)."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """How the client logs in: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`."""
    kafka_sasl_username: str = ""
    """The user name for PLAIN and SCRAM."""
    kafka_sasl_password: Secret | None = None
    """The password for PLAIN and SCRAM."""
    kafka_sasl_oauthbearer_token_endpoint_url: str = ""
    """Where the client gets its token for OAUTHBEARER, by OAuth 2.0 client credentials."""
    kafka_sasl_oauthbearer_client_id: str = ""
    """The client id for that."""
    kafka_sasl_oauthbearer_client_secret: Secret | None = None
    """The client secret for that."""
    kafka_sasl_oauthbearer_scope: str = ""
    """The scope that the client asks for, if the token endpoint needs one."""
    kafka_ssl_ca_file: str = ""
    """A PEM file with the certificates of the authorities that sign the brokers'. The default is the system's."""
    kafka_ssl_certificate_file: str = ""
    """A PEM file with the client's certificate, for brokers that ask for one."""
    kafka_ssl_key_file: str = ""
    """A PEM file with the key of the client's certificate."""
    kafka_ssl_key_password: Secret | None = None
    """The password of that key, if it has one."""
    kafka_client_config_file: str = ""
    """A file with more properties of librdkafka, one `name=value` a line. Properties that the guarantees need are
    refused."""

    def kafka_properties(self) -> dict[str, str]:
        """Return librdkafka's properties. The files of secrets and of properties are read now.

        Raises:
            ValueError: a file is unreadable or wrong, or two properties contradict each other.
        """
        own = {name: text for setting, name in _PROPERTIES.items() if (text := self._text_of(setting))}
        if self.kafka_sasl_oauthbearer_token_endpoint_url:
            own["sasl.oauthbearer.method"] = "oidc"
        properties = own | self._properties_of_file(own)
        if contradiction := next(_contradictions(properties), None):
            raise ValueError(contradiction)
        return properties

    def _text_of(self, setting: str) -> str:
        value = getattr(self, setting)
        try:
            return value.read() if isinstance(value, Secret) else value or ""
        except UnreadableSecretError as error:
            raise ValueError(f"{setting.upper()}_FILE: {error}") from error

    def _properties_of_file(self, own: Mapping[str, str]) -> dict[str, str]:
        if not self.kafka_client_config_file:
            return {}
        try:
            given = read_properties(Path(self.kafka_client_config_file))
        except ValueError as error:
            raise ValueError(f"KAFKA_CLIENT_CONFIG_FILE: {error}") from None
        if "sasl.mechanisms" in given:
            given["sasl.mechanism"] = given.pop("sasl.mechanisms")
        if both := sorted(own.keys() & given.keys()):
            raise ValueError(
                f"KAFKA_CLIENT_CONFIG_FILE: has {both[0]}, and {_named(both[0])} is set; remove one of them"
            )
        return given

    @model_validator(mode="after")
    def _a_client_takes_them(self) -> Self:
        properties = self.kafka_properties()
        for setting in ("kafka_ssl_ca_file", "kafka_ssl_certificate_file", "kafka_ssl_key_file"):
            _require_readable(setting, getattr(self, setting))
        if properties and (refusal := refusal_by_client(properties)):
            raise ValueError(f"the Kafka client refuses the settings: {refusal}")
        return self


@dataclass(frozen=True)
class KafkaConnection:
    """Where the brokers are, and how a client connects to them.

    Args:
        bootstrap_servers: the brokers to connect to first: `host:9092,…`.
        security: the protocol, the login and the certificates; the default is plaintext.
    """

    bootstrap_servers: str
    security: KafkaSecurity = field(default_factory=KafkaSecurity, repr=False)

    def properties(self) -> dict[str, str]:
        """Return librdkafka's properties for a new client, with the secrets as their files have them now.

        Raises:
            ValueError: a file has become unreadable or wrong.
        """
        return {"bootstrap.servers": self.bootstrap_servers, **self.security.kafka_properties()}


_PROPERTIES: Final = {
    "kafka_security_protocol": "security.protocol",
    "kafka_sasl_mechanism": "sasl.mechanism",
    "kafka_sasl_username": "sasl.username",
    "kafka_sasl_password": "sasl.password",
    "kafka_sasl_oauthbearer_token_endpoint_url": "sasl.oauthbearer.token.endpoint.url",
    "kafka_sasl_oauthbearer_client_id": "sasl.oauthbearer.client.id",
    "kafka_sasl_oauthbearer_client_secret": "sasl.oauthbearer.client.secret",
    "kafka_sasl_oauthbearer_scope": "sasl.oauthbearer.scope",
    "kafka_ssl_ca_file": "ssl.ca.location",
    "kafka_ssl_certificate_file": "ssl.certificate.location",
    "kafka_ssl_key_file": "ssl.key.location",
    "kafka_ssl_key_password": "ssl.key.password",
}
"""The property of each setting (librdkafka, CONFIGURATION.md)."""

_LOGIN: Final = ("sasl.username", "sasl.password")
_NEEDED_BY: Final = {
    "PLAIN": _LOGIN,
    "SCRAM-SHA-256": _LOGIN,
    "SCRAM-SHA-512": _LOGIN,
    "OAUTHBEARER": (
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
    ),
}
_OTHER_TOKENS: Final = (
    *("sasl.oauthbearer.config", "sasl.oauthbearer.grant.type", "sasl.oauthbearer.metadata.authentication.type"),
)
"""Properties of a file that get a token in another way. The client says itself what that way needs."""

_PAIRS: Final = (
    ("ssl.certificate.location", "ssl.key.location"),
    ("ssl.key.location", "ssl.certificate.location"),
    ("ssl.key.password", "ssl.key.location"),
)


def _contradictions(properties: Mapping[str, str]) -> Iterator[str]:
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    for prefix, protocols in (("sasl.", ("SASL_SSL", "SASL_PLAINTEXT")), ("ssl.", ("SSL", "SASL_SSL"))):
        given = [name for name in properties if name.startswith(prefix)]
        if given and protocol not in protocols:
            wanted = " or ".join(protocols)
            yield f"{_named(given[0])} needs KAFKA_SECURITY_PROTOCOL={wanted}, which is {protocol}"
    mechanism = properties.get("sasl.mechanism", "")
    if protocol.startswith("SASL_") and not mechanism:
        yield f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_MECHANISM"
    if not any(name in properties for name in _OTHER_TOKENS):
        for needed in _NEEDED_BY.get(mechanism, ()):
            if needed not in properties:
                yield f"KAFKA_SASL_MECHANISM={mechanism} needs {_named(needed)}"
    for name, needed in _PAIRS:
        if (
            name in properties
            and needed not in properties
            and f"{needed.removesuffix('location')}pem" not in properties
        ):
            yield f"{_named(name)} needs {_named(needed)}"


def _named(name: str) -> str:
    """Return the variable of the setting for this property; the property itself if no setting has it."""
    return next((setting.upper() for setting, of_it in _PROPERTIES.items() if of_it == name), name)


def _require_readable(setting: str, path: str) -> None:
    if path:
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ValueError(
                f"{setting.upper()}: {path}: {error.strerror} (name a file that this process can read)"
            ) from error
