"""Data of clients reaches a terminal only escaped (CWE-150), and never as rich's markup."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from uuid import uuid4

import pytest
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


def printed_on_a_terminal(command: list[str], operator_url: str) -> str:
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "walletctl", *command],
            env={"DATABASE_URL": operator_url, "COLUMNS": "400", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
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
