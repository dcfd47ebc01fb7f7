"""`walletctl wallet statement`: the statement of the API's route, on standard output or in a file."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Final, Literal
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from common.problems import ValidationProblem
from common.visible import visible
from wallet_api.errors import WalletNotFound
from wallet_api.replies import JSON
from wallet_api.statements.formats import CSV, FORMATS, XML, read_statement
from walletctl.console import Exit, fail
from walletctl.databases import with_wallet_database
from walletctl.times import TIME_HELP, parse_time

FormatName = Literal["json", "csv", "camt053"]

_MEDIA_TYPES: Final[dict[FormatName, str]] = {"json": JSON, "csv": CSV, "camt053": XML}


def _file(text: str) -> Path:
    path = Path(text)
    if not path.name or "\0" in text:
        raise typer.BadParameter(f"{text!r} is not the name of a file")
    return path


def statement(
    wallet_id: Annotated[UUID, typer.Argument(help="The id of a wallet.", metavar="ID")],
    start: Annotated[
        datetime, typer.Option("--from", help=f"The first moment: {TIME_HELP}.", parser=parse_time, metavar="TIME")
    ],
    end: Annotated[
        datetime,
        typer.Option(
            "--to", help="The first moment after it, not in the future; as --from.", parser=parse_time, metavar="TIME"
        ),
    ],
    format_name: Annotated[
        FormatName, typer.Option("--format", help="JSON, CSV (RFC 4180), or camt.053 of ISO 20022.")
    ] = "json",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file, which only you can read. It appears when it is whole.",
            metavar="FILE",
            parser=_file,
        ),
    ] = None,
) -> None:
    """Write a wallet's statement of a period: what `GET /wallets/ID/statement` replies.

    Exit 1 if the wallet doesn't exist.
    """
    write = FORMATS[_MEDIA_TYPES[format_name]].write

    async def work(engine: AsyncEngine) -> None:
        parts = await read_statement(engine, wallet_id, None, start, end, write)
        if output is None:
            await _print(parts)
            return
        with _whole_file(output) as file:
            async for part in parts:
                file.write(part)

    try:
        with_wallet_database(work)
    except ValidationProblem as problem:
        fail(f"--{problem.detail}", Exit.USAGE)
    except WalletNotFound:
        fail(f"wallet {wallet_id} doesn't exist", Exit.FOUND_WRONG)


async def _print(parts: AsyncIterator[bytes]) -> None:
    """Write the parts to standard output: to a terminal without the control characters that they may hold."""
    sys.stdout.flush()
    is_terminal = sys.stdout.isatty()
    async for part in parts:
        sys.stdout.buffer.write(visible(part.decode().replace("\r\n", "\n")).encode() if is_terminal else part)
    sys.stdout.flush()


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the path's place at the end of the block. If the block fails, there is none."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.replace(file.name, path)  # noqa: PTH105 - `file.name` is a string
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
