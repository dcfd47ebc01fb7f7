"""`walletctl`, the one command line."""

import importlib
import os
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from walletctl.console import Exit, print_error

_GROUPS: Final = ("stack", "api", "relay", "consumer", "history", "outbox", "db", "restore", "verify")


class _LazyGroup(TyperGroup):
    """Imports a command when it is asked for: a service starts without the imports of all the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order in which a newcomer needs them."""
        del ctx
        return list(_GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command or group of that name, or None."""
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


@app.callback()
def walletctl() -> None:
    """A digital wallet on a transactional-outbox event pipeline."""


def main() -> None:
    """Run the command line; a server that can't be reached ends in one line and exit code 3."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does. Nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except Exception as error:
        from sqlalchemy.exc import DBAPIError

        if not isinstance(error, OSError | TimeoutError | DBAPIError):
            raise
        cause = getattr(error, "orig", None) or error
        print_error(_one_line(cause))
        sys.exit(Exit.UNREACHABLE)


def _one_line(cause: BaseException) -> str:
    text = " ".join(str(cause).split()) or type(cause).__name__
    if "UndefinedTable" in text or "does not exist" in text:
        return f"{text} (are the tables there? run: walletctl db migrate)"
    return f"a server is away or refuses: {text} (is it up, and do DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS name it?)"
