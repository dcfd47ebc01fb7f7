"""Makes the reference pages (settings, metrics, commands) from the code. `make docs` writes them, a test compares."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer
import typer.main
from prometheus_client import REGISTRY
from pydantic_core import PydanticUndefined
from typer.core import TyperCommand, TyperGroup, TyperOption

from common.settings import (
    DatabaseSettings,
    HistoryDatabaseSettings,
    OperatorSettings,
    Settings,
    WalletDatabaseSettings,
    is_secret,
)
from tools.roles import roles_page

_EXIT_CODES: Final = (
    "Exit codes: 0 fine; 1 a check failed, or the requested object does not exist; 2 arguments,",
    "settings, grants or this machine must be corrected first; 3 a server is away, busy, read-only or without tables:",
    "retry later. A reader that closes the pipe early (`| head`) does not change the exit code.",
)
_METRICS_MODULES: Final = (
    "common.access.metrics",
    "common.background",
    "common.http.metrics",
    "common.kafka.refusals",
    "wallet_api.metrics",
    "outbox_relay.metrics",
    "history_consumer.metrics",
)


def pages() -> dict[str, str]:
    """Return each page by its file name."""
    return {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "commands.md": commands_page(),
        "roles.md": roles_page(),
    }


def settings_page() -> str:
    """Return the page of each process's settings."""
    from history_consumer.settings import ConsumerSettings, HistoryApiSettings
    from outbox_relay.settings import RelaySettings
    from wallet_api.settings import WalletApiSettings

    processes: dict[str, type[Settings]] = {
        "walletctl api serve": WalletApiSettings,
        "walletctl relay run": RelaySettings,
        "walletctl consumer run": ConsumerSettings,
        "walletctl history serve": HistoryApiSettings,
    }
    lines = [
        "# Settings",
        "",
        "Settings come from the environment only. A blank value means unset. An invalid value stops the process when",
        "it starts, with one line that names it.",
        "",
        "A secret may be in a file instead. In place of a variable marked (`_FILE`), set the variable of that name",
        "with `_FILE` to the file's path. The file is read again at each use.",
    ]
    for command, settings in processes.items():
        lines += ["", f"## `{command}`", "", "| variable | default | meaning |", "| --- | --- | --- |"]
        lines += [_setting_line(name, settings) for name in settings.model_fields]
    lines += ["", "## Commands", "", "Each command reads these variables and no other ones. The history's URL is"]
    lines += ["HISTORY_DATABASE_URL or, if that is unset, DATABASE_URL."]
    lines += ["", "| command | variables |", "| --- | --- |"]
    lines += [f"| `walletctl {command}` | {_read_by(command)} |" for command in settings_of_commands()]
    described = [settings for group in settings_of_commands().values() for settings in group]
    lines += ["", "| variable | default | meaning |", "| --- | --- | --- |"]
    lines += sorted({_setting_line(name, settings) for settings in described for name in settings.model_fields})
    return "\n".join(lines) + "\n"


def settings_of_commands() -> dict[str, tuple[type[Settings], ...]]:
    """Return the settings classes of each command that isn't a service."""
    from common.access.settings import KeySettings
    from common.settings import PipelineSettings
    from history_consumer import settings as history
    from outbox_relay import settings as outbox
    from walletctl.settings import DemoSettings, RestoreBeginSettings, RestoreLostSettings, RoleSettings, StatusSettings

    audited = WalletDatabaseSettings, OperatorSettings
    return {
        "db migrate": (DatabaseSettings, RoleSettings),
        "db grants": (RoleSettings,),
        "db downgrade": (DatabaseSettings,),
        "db status": (DatabaseSettings,),
        "outbox status": (WalletDatabaseSettings,),
        "outbox list": (WalletDatabaseSettings,),
        "outbox show": (WalletDatabaseSettings,),
        "outbox replay": audited,
        "outbox park": audited,
        "outbox skip": audited,
        "outbox retry": audited,
        "outbox prune": (*audited, outbox.OutboxRetentionSettings),
        "keys create": (KeySettings,),
        "keys list": (WalletDatabaseSettings,),
        "keys show": (WalletDatabaseSettings,),
        "keys rotate": (KeySettings,),
        "keys revoke": audited,
        "history status": (StatusSettings,),
        "history rebuild": (PipelineSettings,),
        "history dead-letters list": (HistoryDatabaseSettings,),
        "history dead-letters show": (HistoryDatabaseSettings,),
        "history dead-letters retry": (HistoryDatabaseSettings,),
        "history dead-letters prune": (HistoryDatabaseSettings, history.DeadLetterRetentionSettings),
        "restore begin": (RestoreBeginSettings,),
        "restore lost": (RestoreLostSettings,),
        "stack demo": (DemoSettings,),
        "verify": (PipelineSettings,),
    }


def _read_by(command: str) -> str:
    fields = {
        name: field for settings in settings_of_commands()[command] for name, field in settings.model_fields.items()
    }
    return ", ".join(
        f"`{name.upper()}`" + (" (required)" if field.is_required() else "") for name, field in fields.items()
    )


def _setting_line(name: str, settings: type[Settings]) -> str:
    field = settings.model_fields[name]
    variable = f"`{name.upper()}` (`_FILE`)" if is_secret(field) else f"`{name.upper()}`"
    default = "required" if field.default is PydanticUndefined else f"`{field.default}`"
    if field.default in {"", None}:
        default = ""
    assert field.description, f"{settings.__name__}.{name} needs a docstring"
    return f"| {variable} | {default} | {' '.join(field.description.split())} |"


def metrics_page() -> str:
    """Return the page of all processes' metrics."""
    for module in _METRICS_MODULES:
        importlib.import_module(module)
    ours = {
        metric.name: (metric.type, metric.documentation)
        for metric in REGISTRY.collect()
        if not metric.name.startswith(("python_", "process_"))
    }
    lines = [
        "# Metrics",
        "",
        "Each process has Prometheus metrics at `/metrics`. Counters end in `_total` there. With several API workers",
        "they are the sum of all workers. [troubleshooting.md](troubleshooting.md#metrics) explains the alarms.",
        "",
        "| metric | kind | meaning |",
        "| --- | --- | --- |",
        *(f"| `{name}` | {kind} | {text} |" for name, (kind, text) in sorted(ours.items())),
    ]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the page of every command, with its arguments and options."""
    from walletctl.cli import app

    root = typer.main.get_command(app)
    lines = ["# Commands", "", *_EXIT_CODES]
    for path, command in _commands("walletctl", root):
        lines += ["", f"## `{path}`", "", " ".join((command.help or "").split())]
        parameters = [line for parameter in command.params if (line := _parameter_line(parameter))]
        lines += ["", *parameters] if parameters else []
        lines += ["", f"`{command.epilog}`"] if command.epilog else []
    return "\n".join(lines) + "\n"


def _commands(path: str, command: object) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        for name in sorted(command.list_commands(context)):
            yield from _commands(f"{path} {name}", command.get_command(context, name))
    elif isinstance(command, TyperCommand):
        yield path, command


def _parameter_line(parameter: Any) -> str | None:
    if not isinstance(parameter, TyperOption):
        return f"- `{(parameter.metavar or parameter.name).upper()}`: {parameter.help or ''}"
    if parameter.name == "help":
        return None
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"- {names}: {parameter.help or parameter.name}"


def main() -> None:
    """Write the pages into the directory that the command line names."""
    for name, page in pages().items():
        (Path(sys.argv[1]) / name).write_text(page)


if __name__ == "__main__":
    main()
