import unicodedata
from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import check_new_user_id, check_text, check_user_id

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@given(ANY_TEXT)
def test_text_is_accepted_unchanged_or_cannot_be_stored(value: str) -> None:
    is_storable = "\x00" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    try:
        assert check_text(value) == value
        assert is_storable
    except ValueError:
        assert not is_storable


@given(ANY_TEXT)
def test_an_accepted_user_id_can_be_stored_and_seen(value: str) -> None:
    try:
        assert check_user_id(value) == value
    except ValueError:
        return
    assert check_text(value) == value
    assert value.split() == [value]
    assert 1 <= len(value) <= 64


@pytest.mark.parametrize(
    "value", ["a", "a" * 64, "ada@example.org", "a/b", "a%2Fb", "a?b#c", "..", "李", "é", "😀", "'"]
)
def test_a_user_id_may_have_visible_characters_of_any_script(value: str) -> None:
    assert check_user_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a" * 65,
        " ",
        "a b",
        " a",
        "a\n",
        "\x00",
        "a\x7f",
        "\u00a0",
        "\u3000",
        "\u200b",
        "\u202e",
        "\ud800",
        "\ufeff",
    ],
)
def test_a_user_id_with_an_invisible_character_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 visible characters"):
        check_user_id(value)


PIECES = st.sampled_from(
    [".", "..", "/", "\\", "a", "%2F", "%2e", "?", "#", ";", "é", "e\u0301", "\u3164", "\ufe0f", "x/"]
)


@given(st.lists(PIECES | ANY_TEXT, max_size=5).map("".join))
def test_a_new_user_id_can_be_requested_by_its_path_seen_and_told_from_others(value: str) -> None:
    try:
        assert check_new_user_id(value) == value
    except ValueError:
        return
    assert check_user_id(value) == value
    for path in (f"/users/{quote(value, safe='')}/wallets", f"/history/users/{quote(value, safe='')}"):
        assert unquote(httpx.URL(f"http://wallet.test{path}").raw_path.decode()) == unquote(path)
    # A client need not encode the slashes.
    assert httpx.URL(f"http://wallet.test/users/{quote(value)}").raw_path.decode() == f"/users/{quote(value)}"
    assert unicodedata.normalize("NFC", value) == value


@pytest.mark.parametrize(
    "value",
    [
        ".",
        "..",
        "ada/",
        "/ada",
        "a//b",
        "a/../b",
        "./a",
        "a/.",
        "\\",
        "..\\a",
        "a\\",
        "e\u0301",
        "\u212b",
        "\u115f",
        "a\u1160",
        "\u3164",
        "\uffa0",
        "\u2800",
        "a\u034f",
        "a\ufe0f",
        "\U000e0100",
        "",
        "a b",
    ],
)
def test_a_new_user_id_that_paths_change_or_people_confuse_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_new_user_id(value)


@pytest.mark.parametrize(
    "value",
    ["a", "a/b", "a.", ".a", "...", "a..b", "a\\b", "a%2Fb", "%2e", "a;b", "x/wallets", "李", "é", "😀", "?"],
)
def test_every_other_new_user_id_is_accepted(value: str) -> None:
    assert check_new_user_id(value) == value
