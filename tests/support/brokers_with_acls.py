"""A broker with logins, TLS and access control lists, for tests of clients that it refuses.

Clients of the plain listener are `User:ANONYMOUS` and may do what a test allowed. Those of the others have the name of
their login or certificate. `admin` is a super-user.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs leave some out
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from common.secrets import Secret
from support.ports import free_port
from tools.servers import running
from walletctl.stack.kafka import Kafka
from walletctl.stack.ports import HOST
from walletctl.stack.readiness import KafkaProbe

PASSWORD: Final = "c4n4ry-password"
"""The password of `admin`, and of the users of the mechanism PLAIN."""
PLAIN_USERS: Final = ("relay", "consumer", "operator")

_MODULES: Final = "org.apache.kafka.common.security"
_LOGIN: Final = f'{_MODULES}.plain.PlainLoginModule required username="admin" password="{PASSWORD}" '
_PLAIN: Final = _LOGIN + " ".join(f'user_{name}="{PASSWORD}"' for name in ("admin", *PLAIN_USERS)) + ";"
_SCRAM: Final = f"{_MODULES}.scram.ScramLoginModule required;"
_TOKEN: Final = f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";'
_PROTOCOLS: Final = {
    "ADMIN": "SASL_PLAINTEXT",
    "LOGIN": "SASL_SSL",
    "CERTIFICATE": "SSL",
    "EXPIRED": "SSL",
}
"""The listeners beside the plain one: for the broker itself, for passwords and tokens, for clients with a certificate,
and one whose own certificate has expired."""
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class _KafkaWithAcls(Kafka):
    """One broker with a plain listener and those of `_PROTOCOLS`."""

    ports: Mapping[str, int] = field(default_factory=lambda: {name: free_port() for name in _PROTOCOLS})

    def _properties(self) -> str:
        ports = {"PLAINTEXT": self.port, **self.ports, "CONTROLLER": self.controller_port}
        listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", **_PROTOCOLS, "CONTROLLER": "SASL_PLAINTEXT"}
        settings = {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "inter.broker.listener.name": "ADMIN",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            **{f"listener.name.{name}.plain.sasl.jaas.config": _PLAIN for name in ("admin", "controller", "login")},
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.login.scram-sha-256.sasl.jaas.config": _SCRAM,
            "listener.name.login.scram-sha-512.sasl.jaas.config": _SCRAM,
            # It takes tokens without a signature.
            "listener.name.login.oauthbearer.sasl.jaas.config": _TOKEN,
            # Clients with this mechanism log in again and again.
            "listener.name.login.scram-sha-512.connections.max.reauth.ms": "2000",
            "listener.name.certificate.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]*).*$/$1/,DEFAULT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "broker.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": "ca.pem",
            "listener.name.expired.ssl.keystore.type": "PEM",
            "listener.name.expired.ssl.keystore.location": "expired.pem",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin",
        }
        # The last line of a name counts.
        return super()._properties() + "".join(f"{name}={value}\n" for name, value in settings.items())


@dataclass(frozen=True)
class BrokerWithAcls:
    """A running broker.

    Args:
        bootstrap_servers: the plain listener, whose clients may do nothing at first.
        admin: a client that may do everything.
        ports: those of the other listeners: LOGIN, CERTIFICATE and EXPIRED.
        authority: signs the certificates of the broker and of clients.
        directory: where its files are.
    """

    bootstrap_servers: str
    admin: AdminClient
    ports: Mapping[str, int]
    authority: trustme.CA
    directory: Path

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority."""
        return self.directory / "ca.pem"

    def servers(self, listener: str) -> str:
        """Return the `bootstrap.servers` of a listener."""
        return f"{HOST}:{self.ports[listener]}"

    def by_password(self, mechanism: str, user: str, password: Secret) -> dict[str, Any]:
        """Return the settings of a client that logs in with a password."""
        return {
            "kafka_bootstrap_servers": self.servers("LOGIN"),
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ssl_ca_file": str(self.ca_file),
            "kafka_sasl_mechanism": mechanism,
            "kafka_sasl_username": user,
            "kafka_sasl_password": password,
        }

    def by_certificate(self, name: str, authority: trustme.CA | None = None) -> dict[str, Any]:
        """Return the settings of a client with a certificate, which by default the broker trusts."""
        certificate, key = self.directory / f"{name}.certificate.pem", self.directory / f"{name}.key.pem"
        issued = (authority or self.authority).issue_cert(f"{name}.test", common_name=name)
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return {
            "kafka_bootstrap_servers": self.servers("CERTIFICATE"),
            "kafka_security_protocol": "SSL",
            "kafka_ssl_ca_file": str(self.ca_file),
            "kafka_ssl_certificate_file": str(certificate),
            "kafka_ssl_key_file": str(key),
        }

    def set_password(self, user: str, password: str) -> None:
        """Set the password of a user for both SCRAM mechanisms."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            change = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            for future in self.admin.alter_user_scram_credentials([change]).values():
                future.result()

    def allow(
        self, resource: ResourceType, name: str, *operations: AclOperation, principal: str = "User:ANONYMOUS"
    ) -> None:
        """Allow the principal to do that with the resource; `*` is every name, the cluster is `kafka-cluster`."""
        bindings = [_binding(resource, name, operation, principal) for operation in operations]
        for future in self.admin.create_acls(bindings, request_timeout=_TIMEOUT_SECONDS).values():
            future.result()

    def disallow(
        self, resource: ResourceType, name: str, *operations: AclOperation, principal: str = "User:ANONYMOUS"
    ) -> None:
        """Take back what was allowed."""
        allowed = AclPermissionType.ALLOW
        filters = [
            AclBindingFilter(resource, name, ResourcePatternType.LITERAL, principal, "*", operation, allowed)
            for operation in operations
        ]
        for future in self.admin.delete_acls(filters, request_timeout=_TIMEOUT_SECONDS).values():
            future.result()


def _binding(resource: ResourceType, name: str, operation: AclOperation, principal: str) -> AclBinding:
    return AclBinding(resource, name, ResourcePatternType.LITERAL, principal, "*", operation, AclPermissionType.ALLOW)


def _write_key_store(file: Path, certificate: trustme.LeafCert) -> None:
    """Write the certificate and its key as Kafka takes them: the key in PKCS 8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


@contextmanager
def broker_with_acls(directory: Path) -> Iterator[BrokerWithAcls]:
    """Run such a broker with its data in `directory`/kafka until the block ends.

    Start it from a thread that outlives the block, say in a fixture of the module that isn't async.
    """
    log_file = directory.resolve() / "logs" / "kafka-with-acls.log"
    broker = _KafkaWithAcls(directory.resolve() / "kafka", free_port(), free_port(), log_file)
    broker.data_dir.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(broker.data_dir / "ca.pem")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    _write_key_store(broker.data_dir / "broker.pem", authority.issue_cert(HOST))
    _write_key_store(broker.data_dir / "expired.pem", authority.issue_cert(HOST, not_after=yesterday))
    broker.prepare()
    with running(broker.launch(), log_file, KafkaProbe(HOST, broker.port), broker.stop_signal):
        login: dict[str, Any] = {
            "bootstrap.servers": f"{HOST}:{broker.ports['ADMIN']}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": PASSWORD,
        }
        admin = AdminClient(login)
        yield BrokerWithAcls(broker.bootstrap_servers, admin, broker.ports, authority, broker.data_dir)
