import getpass
import os

import pytest

from common.actor import actor


def test_the_actor_comes_from_the_setting_then_the_users_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert actor() == "ada"
    monkeypatch.setenv("OPERATOR", "on-call")
    assert actor() == "on-call"
    monkeypatch.setenv("OPERATOR", "")
    assert actor() == "ada"


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_a_uid(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def nameless() -> str:
        raise error("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert actor() == f"uid {os.getuid()}"


def test_a_name_that_is_not_utf_8_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATOR", "m\udcfcller")
    assert actor() == r"m\udcfcller"
