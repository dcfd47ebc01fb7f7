"""A process has only settings that it reads, and the reference lists them."""

import ast
import re
import sys
from pathlib import Path

import pytest

from common.access.settings import AccessSettings
from common.kafka.connection import KafkaSecurity
from common.settings import HistoryDatabaseSettings, Settings
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.settings import RelaySettings
from support.command_lines import ARGUMENTS
from tools.reference import settings_of_commands, settings_page
from wallet_api.settings import WalletApiSettings
from walletctl.cli import main
from walletctl.console import Exit

SOURCE = Path(__file__).parents[2] / "src"
PROCESSES: dict[type[Settings], tuple[str, str]] = {
    WalletApiSettings: ("wallet_api.app", "walletctl.commands.api"),
    RelaySettings: ("outbox_relay.run", "walletctl.commands.relay"),
    ConsumerSettings: ("history_consumer.run", "walletctl.commands.consumer"),
    HistoryApiSettings: ("history_consumer.read_api.app", "walletctl.commands.history"),
}
VARIABLES = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bOPERATOR\b")


def read_by(*entries: str) -> set[str]:
    """Return every attribute that the modules read which a process imports, starting with `entries`."""
    seen: set[str] = set()
    read: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        file = SOURCE / f"{module.replace('.', '/')}.py"
        if module in seen or not file.exists() or file.name == "settings.py":
            continue
        seen.add(module)
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            # The command line's modules also have other commands, with other settings.
            if isinstance(node, ast.ImportFrom) and node.module and not module.startswith("walletctl."):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return read


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_has_no_setting_that_it_ignores(process: type[Settings]) -> None:
    read = read_by(*PROCESSES[process])
    # The classes themselves read these: they put passwords into URLs, one URL stands in for the other, AUTH=none needs
    # a loopback address, and all that says how to connect to Kafka becomes one value.
    by_itself = {"database_password", "history_database_password", "kafka_bootstrap_servers"}
    by_itself |= KafkaSecurity.model_fields.keys()
    by_itself |= {"database_url"} if issubclass(process, HistoryDatabaseSettings) else set()
    by_itself |= {"auth_none_allowed_anywhere"} if issubclass(process, AccessSettings) else set()
    assert set(process.model_fields) - read - by_itself == set()


@pytest.mark.parametrize("process", [ConsumerSettings, HistoryApiSettings])
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HISTORY_DATABASE_URL": "postgresql://h/x"}, "postgresql://h/x"),
        ({"DATABASE_URL": "postgresql://w/x"}, "postgresql://w/x"),
        ({"DATABASE_URL": "postgresql://w/x", "HISTORY_DATABASE_URL": "postgresql://h/x"}, "postgresql://h/x"),
        ({"DATABASE_URL": "postgresql://w/x", "HISTORY_DATABASE_URL": ""}, "postgresql://w/x"),
    ],
)
def test_either_url_is_enough_where_only_the_history_is_read(
    process: type[ConsumerSettings] | type[HistoryApiSettings],
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:1")
    # The API keys are in the wallet database.
    monkeypatch.setenv("AUTH", "none")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert process().history_database_url.read() == expected


@pytest.mark.parametrize("command", [name for name in settings_of_commands() if name != "db grants"])
def test_a_command_asks_for_what_it_reads_by_name_and_for_nothing_else(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without variables each command ends at once and names those that it requires. `db grants` requires none."""
    needed = {
        name.upper()
        for settings in settings_of_commands()[command]
        for name, field in settings.model_fields.items()
        if field.is_required()
    } or {"HISTORY_DATABASE_URL", "DATABASE_URL"}
    monkeypatch.setattr(sys, "argv", ["walletctl", *command.split(), *ARGUMENTS.get(command, [])])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.USAGE
    assert set(VARIABLES.findall(capfd.readouterr().err)) == needed


@pytest.mark.parametrize("command", settings_of_commands())
def test_every_variable_that_a_commands_help_names_is_read(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["walletctl", *command.split(), "--help"])
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        main()
    other_words = {"TRANSFER_DONE", "WALLET_CREATED", "WALLET_FUNDED", "ON_ERROR_STOP"}
    named = set(VARIABLES.findall(capfd.readouterr().out)) - other_words
    known = {name.upper() for settings in settings_of_commands()[command] for name in settings.model_fields}
    assert named - known == set()


def test_the_reference_says_what_each_command_reads() -> None:
    page = settings_page()
    for command in settings_of_commands():
        assert f"| `walletctl {command}` |" in page
