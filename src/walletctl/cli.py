"""`walletctl`, the one command line."""

import os
import sys

import typer
from sqlalchemy.exc import DBAPIError

from walletctl.commands import api, consumer, db, history, outbox, relay, stack, verify
from walletctl.console import Exit, err

app = typer.Typer(
    name="walletctl",
    help="A digital wallet on a transactional-outbox event pipeline.",
    epilog="Start here:  walletctl stack up   ·   walletctl stack demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(stack.app, name="stack")
app.add_typer(api.app, name="api")
app.add_typer(relay.app, name="relay")
app.add_typer(consumer.app, name="consumer")
app.add_typer(history.app, name="history")
app.add_typer(outbox.app, name="outbox")
app.add_typer(db.app, name="db")
app.command("verify")(verify.verify)


def main() -> None:
    """Run the command line; a server that can't be reached ends in one line and exit code 3."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does. Nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except (OSError, TimeoutError, DBAPIError) as error:
        err.print(f"[red]error:[/red] {_one_line(error)}", soft_wrap=True, highlight=False)
        sys.exit(Exit.UNREACHABLE)


def _one_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if "UndefinedTable" in text or "does not exist" in text:
        return f"{text} (are the tables there? run: walletctl db migrate)"
    return f"a server can't be reached or refuses: {text} (is it up, and is DATABASE_URL right?)"
