"""A broker with access control lists, for tests of clients that lack a permission.

Clients of the plain listener are `User:ANONYMOUS` and may do what a test allowed. `admin` is a super-user, by SASL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs leave some out
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from common.kafka.clients import client_config
from support.ports import free_port
from tools.servers import running
from walletctl.stack.kafka import Kafka
from walletctl.stack.ports import HOST
from walletctl.stack.readiness import KafkaProbe

_LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="secret" '
_TIMEOUT_SECONDS = 10.0


class _KafkaWithAcls(Kafka):
    """One broker with a plain listener for the clients under test and one with SASL for all else."""

    def _properties(self) -> str:
        admin_port = free_port()
        (self.data_dir / "admin.port").write_text(str(admin_port))
        settings = {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},ADMIN://{HOST}:{admin_port},"
            f"CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port},ADMIN://{HOST}:{admin_port},"
            f"CONTROLLER://{HOST}:{self.controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,ADMIN:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "inter.broker.listener.name": "ADMIN",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.admin.plain.sasl.jaas.config": f'{_LOGIN}user_admin="secret";',
            "listener.name.controller.plain.sasl.jaas.config": f'{_LOGIN}user_admin="secret";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin",
        }
        # The last line of a name counts.
        return super()._properties() + "".join(f"{name}={value}\n" for name, value in settings.items())


@dataclass(frozen=True)
class BrokerWithAcls:
    """A running broker.

    Args:
        bootstrap_servers: for the clients under test, which may do nothing at first.
        admin: a client that may do everything.
    """

    bootstrap_servers: str
    admin: AdminClient

    def allow(self, resource: ResourceType, name: str, *operations: AclOperation) -> None:
        """Allow `User:ANONYMOUS` to do that with the resource; `*` is every name, the cluster is `kafka-cluster`."""
        bindings = [_binding(resource, name, operation, AclPermissionType.ALLOW) for operation in operations]
        for future in self.admin.create_acls(bindings, request_timeout=_TIMEOUT_SECONDS).values():
            future.result()

    def disallow(self, resource: ResourceType, name: str, *operations: AclOperation) -> None:
        """Take back what was allowed."""
        filters = [
            AclBindingFilter(
                resource,
                name,
                ResourcePatternType.LITERAL,
                "User:ANONYMOUS",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for future in self.admin.delete_acls(filters, request_timeout=_TIMEOUT_SECONDS).values():
            future.result()


def _binding(resource: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(resource, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission)


@contextmanager
def broker_with_acls(directory: Path) -> Iterator[BrokerWithAcls]:
    """Run such a broker with its data in `directory`/kafka until the block ends.

    Start it from a thread that outlives the block, say in a fixture of the module that isn't async.
    """
    log_file = directory.resolve() / "logs" / "kafka-with-acls.log"
    broker = _KafkaWithAcls(directory.resolve() / "kafka", free_port(), free_port(), log_file)
    broker.data_dir.mkdir(parents=True, exist_ok=True)
    broker.prepare()
    with running(broker.launch(), log_file, KafkaProbe(HOST, broker.port), broker.stop_signal):
        login = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "secret",
        }
        address = f"{HOST}:{(broker.data_dir / 'admin.port').read_text()}"
        yield BrokerWithAcls(broker.bootstrap_servers, AdminClient(client_config(address, "tests-admin", **login)))
