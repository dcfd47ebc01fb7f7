"""Tables break no word; data of clients reaches a terminal only escaped (CWE-150), and never as rich's markup."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from sqlalchemy import text

from support.outboxes import Outbox
from walletctl import console

EVIL = "a\x1b[31mb\x1b]8;;http://x\x07c\x9b1md\u202ee\x7f\r[red]f[/red][link=x]:smile:g\\"
SHOWN = r"a\x1b[31mb\x1b]8;;http://x\x07c\x9b1md\u202ee\x7f\r[red]f[/red][link=x]:smile:g" + "\\"
RAW = set("\x1b\x07\x9b\x7f\r\u202e")

PRINTS: dict[str, Callable[[], None]] = {
    "table": lambda: console.print_table("Title " + EVIL, ("column",), [(EVIL,)]),
    "fields": lambda: console.print_fields("Title", {"name": EVIL}),
    "error": lambda: console.print_error(EVIL),
    "line": lambda: console.out.print(EVIL, markup=False, highlight=False, soft_wrap=True),
    "line on standard error": lambda: console.err.print(EVIL, markup=False, highlight=False, soft_wrap=True),
}


ID = "0198c2a5-0000-7000-8000-000000000001"
WIDTHS = [80, 120]
WORDS = st.sampled_from(
    [ID, "WALLET_LIMITS_SET", "2026-11-26T12:00:00.123456Z", "a", "ラーメン", "-92233720368547758.07"]
)
CELLS = st.none() | st.lists(WORDS, max_size=12).map(" ".join)


def table_of(width: int, columns: list[str], rows: list[list[str | None]], *, is_terminal: bool) -> list[str]:
    """Return the lines of a table as a console of this width shows them."""
    shown = Console(file=StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    console.print_table("Title", columns, rows, console=shown)
    console.print_fields("Title", dict(zip(columns, rows[0], strict=True)), console=shown)
    assert isinstance(shown.file, StringIO)
    return shown.file.getvalue().split("\n")


@pytest.mark.parametrize("is_terminal", [True, False])
@given(st.data(), st.sampled_from(WIDTHS), st.integers(1, 12))
def test_no_word_of_a_table_is_broken_however_narrow_it_is(
    is_terminal: bool, data: st.DataObject, width: int, count: int
) -> None:
    columns = [f"column_{number}" for number in range(count)]
    rows = data.draw(st.lists(st.lists(CELLS, min_size=count, max_size=count), min_size=1, max_size=3))
    lines = table_of(width, columns, rows, is_terminal=is_terminal)
    words = [word for line in lines for word in line.replace("│", " ").replace("┃", " ").split()]
    wanted = [word for row in [*rows, rows[0]] for cell in row for word in (cell or "").split()]
    assert sorted(set(wanted) - set(words)) == []
    for word in wanted:
        assert words.count(word) >= wanted.count(word)
    if is_terminal:
        assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rows_whose_words_need_more_room_than_there_is_are_records(is_terminal: bool) -> None:
    columns, row = ["id", "to_wallet_id", "lines", "reference"], [ID, ID, "one\ntwo", None]
    record = [
        *("", f"id            {ID}", f"to_wallet_id  {ID}"),
        *("lines         one", "              two", "reference     -"),
    ]
    lines = table_of(80, columns, [row, row], is_terminal=is_terminal)
    assert lines[:14] == ["Title", *record, *record, ""]
    # The fields of one row have room enough, and so have two ids side by side on a wider console.
    for table in (lines[14:], table_of(120, columns, [row], is_terminal=is_terminal)):
        assert table[1].startswith("┏")


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_command_on_a_terminal_shows_whole_ids(operator_url: str, outbox: Outbox, width: int) -> None:
    wallet = uuid4()
    await outbox.write(wallet, 2, "{}")
    lines = printed_on_a_terminal(["outbox", "list"], operator_url, columns=width).splitlines()
    assert sum(str(wallet) in line for line in lines) == 2


@pytest.mark.parametrize("how", PRINTS)
def test_every_way_of_printing_shows_escapes(
    how: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A console keeps the COLUMNS with which its process began, if any.
    monkeypatch.setattr(console.out, "_width", 400)
    monkeypatch.setattr(console.err, "_width", 400)
    PRINTS[how]()
    said = "".join(capfd.readouterr())
    assert SHOWN in said
    assert not RAW & set(said)


def test_json_shows_the_same_text_as_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    console.print_json({EVIL: [EVIL]})
    said = capfd.readouterr().out
    assert not RAW & set(said)
    assert json.loads(said) == {EVIL: [EVIL]}


@pytest.mark.parametrize(
    "command",
    [
        ["history", "dead-letters", "show", "1"],
        ["history", "dead-letters", "list"],
        ["history", "dead-letters", "show", "1", "--json"],
        ["outbox", "list"],
        ["outbox", "show", "1"],
        ["outbox", "show", "1", "--json"],
    ],
    ids=" ".join,
)
async def test_a_record_does_not_control_the_operators_terminal(
    operator_url: str, outbox: Outbox, command: list[str]
) -> None:
    """On a real terminal rich writes its own escape sequences; the record's must not be among them."""
    payload = json.dumps({"user_id": EVIL}, ensure_ascii=False)
    await outbox.write(uuid4(), 1, payload)
    async with outbox.engine.begin() as connection:
        await connection.execute(text("UPDATE wallet.outbox SET last_error = :evil"), {"evil": EVIL})
        await connection.execute(
            text("""
                INSERT INTO history.dead_letters
                    (topic, partition, "offset", topic_id, key, value, headers, reason, detail)
                VALUES (:evil, 0, 1, :evil, :raw, :raw, cast(:headers AS json), :evil, :evil)
            """),
            {"evil": EVIL, "raw": EVIL.encode(), "headers": json.dumps([[EVIL, EVIL]])},
        )
    said = printed_on_a_terminal(command, operator_url)
    assert "http://x" in said
    for sequence in ("\x1b[31mb", "\x1b]", "\x07", "\x9b", "\x7f", "\u202e", "\r["):
        assert sequence not in said
    assert "smile:" in said


def printed_on_a_terminal(command: list[str], operator_url: str, columns: int = 400) -> str:
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "walletctl", *command],
            env={"DATABASE_URL": operator_url, "COLUMNS": str(columns), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        output = b""
        # At the end Linux raises EIO.
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:
            pass
        assert child.wait(30) == 0, output
    finally:
        os.close(ours)
    return output.decode()
