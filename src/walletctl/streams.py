"""Standard output and standard error of the command line: the exit code tells the command's result, not the stream's.

- If the reader is gone (`| head`), output is discarded, and the command goes on.
- A character that the terminal's encoding lacks is written as an escape sequence.
- Any other failure of standard output, such as a full disk, is an OSError that names the stream. A failure of standard
  error is ignored: there is nowhere to report it.
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
        self._name = name
        self._forgiving = forgiving

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
        except OSError as error:
            if self._forgiving:
                return memoryview(data).nbytes
            raise OSError(error.errno, error.strerror, self._name) from error


@contextmanager
def sturdy_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` by such streams for the block.

    Raises:
        OSError: buffered output can't be written.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _sturdy(before[0], "standard output", forgiving=False)
    sys.stderr = _sturdy(before[1], "standard error", forgiving=True)
    try:
        try:
            yield
        finally:
            # Most commands end by SystemExit. Their output counts as reported only when it is written.
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def _sturdy(stream: Any, name: str, *, forgiving: bool) -> IO[str]:
    if stream is None:
        # The caller closed it: `>&-`.
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process
    stream.flush()
    # Standard error is flushed line by line, standard output only on a terminal.
    by_line = forgiving or stream.isatty()
    raw = _Pipe(stream.fileno(), name, forgiving=forgiving)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=by_line
    )
