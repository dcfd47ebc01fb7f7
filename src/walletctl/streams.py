"""Standard output and error as the command line uses them: whatever is at their other end, the command's result counts.

- Where the reader is gone (`| head`), what is written goes nowhere: nothing is wrong with the command.
- What the terminal's encoding hasn't got is written as an escape.
- Any other failure of standard output, a full disk say, is an OSError that names it. Of standard error there is none:
  it would have to be told there.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Pipe(io.FileIO):
    def __init__(self, descriptor: int, name: str, *, forgiving: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._where = name
        self._forgiving = forgiving

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
        except OSError as error:
            if self._forgiving:
                return memoryview(data).nbytes
            raise OSError(error.errno, error.strerror, self._where) from error


@contextmanager
def sturdy_streams() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` be so for the block.

    Raises:
        OSError: what the block left to write can't be written.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _sturdy(before[0], "standard output", forgiving=False)
    sys.stderr = _sturdy(before[1], "standard error", forgiving=True)
    try:
        try:
            yield
        finally:
            # A command that ends, by SystemExit as a rule, has told what it found only when this is written.
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def _sturdy(stream: Any, name: str, *, forgiving: bool) -> IO[str]:
    if stream is None:
        # Closed before we began: `>&-`.
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process
    stream.flush()
    # Standard error a line at a time, standard output only where somebody waits in front of it.
    by_line = forgiving or stream.isatty()
    raw = _Pipe(stream.fileno(), name, forgiving=forgiving)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=by_line
    )
