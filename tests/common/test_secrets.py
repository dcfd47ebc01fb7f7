import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from common.secrets import Secret, UnreadableSecretError
from common.settings import Settings
from walletctl.console import load_settings

CANARY = "c4n4ry"


class DoorSettings(Settings):
    door_key: Secret
    spare_key: Secret | None = None


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def refused() -> str:
        with pytest.raises(BaseException, match="2"):
            load_settings(DoorSettings)
        return capsys.readouterr().err

    return refused


def test_a_secret_is_the_value_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR_KEY", CANARY)
    settings = DoorSettings()
    assert (settings.door_key.read(), settings.spare_key) == (CANARY, None)


@pytest.mark.parametrize("name", ["DOOR_KEY", "SPARE_KEY"])
def test_a_secret_in_a_file_is_read_again_at_each_use(
    name: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR_KEY", "another")
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{name}_FILE", str(key_file))
    key_file.write_text("first")
    secret: Secret = getattr(DoorSettings(), name.lower())
    assert secret.read() == "first"
    key_file.write_text("second")
    assert secret.read() == "second"


@pytest.mark.parametrize("written", [b"s\n", b"s\r\n", b"s"])
def test_the_last_line_break_of_a_file_is_not_part_of_the_secret(written: bytes, key_file: Path) -> None:
    key_file.write_bytes(written)
    assert Secret(file=key_file).read() == "s"


def test_other_white_space_of_a_file_is_part_of_the_secret(key_file: Path) -> None:
    key_file.write_bytes(b" a\r\nb \n\n")
    assert Secret(file=key_file).read() == " a\r\nb \n"


def test_a_secret_shows_in_no_repr_str_dump_or_error(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[[], str]
) -> None:
    monkeypatch.setenv("DOOR_KEY", CANARY)
    settings = DoorSettings()
    shown = f"{settings!r} {settings} {settings.door_key:} {[settings.door_key]} {settings.model_dump_json()}"
    assert CANARY not in shown
    monkeypatch.setenv("SPARE_KEY_FILE", "/nowhere")
    assert CANARY not in refused()


def test_two_secrets_are_not_compared_by_their_values() -> None:
    assert Secret(CANARY) != Secret(CANARY)


def test_a_secret_goes_with_settings_to_another_process(key_file: Path) -> None:
    key_file.write_text(CANARY)
    sent = DoorSettings(door_key=Secret("value"), spare_key=Secret(file=key_file))
    received: DoorSettings = pickle.loads(pickle.dumps(sent))
    assert received.spare_key is not None
    assert (received.door_key.read(), received.spare_key.read()) == ("value", CANARY)


def test_a_secret_given_both_ways_is_refused_with_both_names(
    monkeypatch: pytest.MonkeyPatch, key_file: Path, refused: Callable[[], str]
) -> None:
    key_file.write_text(CANARY)
    monkeypatch.setenv("DOOR_KEY", CANARY)
    monkeypatch.setenv("DOOR_KEY_FILE", str(key_file))
    assert refused() == (
        "error: invalid settings: DOOR_KEY: is set, and so is DOOR_KEY_FILE; unset one of them "
        "(correct them in the environment)\n"
    )


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff" + CANARY.encode(), "is not UTF-8"),
    ],
)
def test_a_file_without_a_secret_is_refused_in_one_line_with_its_variable(
    written: bytes | None,
    reason: str,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[], str],
) -> None:
    if written is not None:
        key_file.write_bytes(written)
    monkeypatch.setenv("DOOR_KEY_FILE", str(key_file))
    line = refused()
    assert line.startswith(f"error: invalid settings: DOOR_KEY: DOOR_KEY_FILE: {key_file}: {reason} (")
    assert line.count("\n") == 1
    assert CANARY not in line


def test_a_file_that_is_gone_later_is_an_error_that_names_it(key_file: Path) -> None:
    with pytest.raises(UnreadableSecretError, match=f"{key_file}: No such file or directory"):
        Secret(file=key_file).read()


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSecretError, match=f"{tmp_path}: Is a directory"):
        Secret(file=tmp_path).read()
