"""The command line `walletctl`."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGTERM, signal
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from common.visible import visible
from walletctl.console import Exit, print_error
from walletctl.streams import sturdy_streams

_SHOWN_CHARACTERS_MAX: Final = 200

_GROUPS: Final = (
    *("stack", "api", "relay", "consumer", "history", "wallet", "transaction"),
    *("outbox", "keys", "db", "restore", "verify"),
)


class _LazyGroup(TyperGroup):
    """Imports a command's module only when that command runs, so that each service starts fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command groups in the order in which a newcomer needs them."""
        del ctx
        return list(_GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command or group with this name, or None."""
        del ctx
        if cmd_name not in _GROUPS:
            return None
        group = importlib.import_module(f"walletctl.commands.{cmd_name}").app
        command = typer.main.get_group(group) if cmd_name != "verify" else typer.main.get_command(group)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="walletctl",
    cls=_LazyGroup,
    epilog="Start here:  walletctl stack up   ·   walletctl stack demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"wallet-outbox {version('wallet-outbox')}")
        raise typer.Exit


@app.callback()
def walletctl(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A digital wallet on a transactional-outbox event pipeline."""
    del version


def main() -> None:
    """Run the command line. A failure of a server or of this machine ends in one line and an exit code."""
    if os.getpid() == 1:
        # The kernel ignores SIGTERM to the first process of a container, unless the process handles it.
        signal(SIGTERM, lambda *_: sys.exit(128 + SIGTERM))
    # The variable names another program's directory; `serve` makes its own.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    with _failures_explained(), sturdy_streams():
        for number, argument in enumerate(sys.argv[1:], 1):
            if (shown := visible(argument)) != argument:
                print_error(f"argument {number} has control characters or isn't text: {shown[:_SHOWN_CHARACTERS_MAX]}")
                sys.exit(Exit.USAGE)
        app()


@contextmanager
def _failures_explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        from walletctl.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        with sturdy_streams():
            print_error(". ".join([explained[0], *getattr(error, "__notes__", ())]))
        sys.exit(explained[1])
