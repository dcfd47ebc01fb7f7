import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import check_text, check_user_id

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@given(ANY_TEXT)
def test_text_is_taken_as_it_is_or_cannot_be_stored(value: str) -> None:
    is_storable = "\x00" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    try:
        assert check_text(value) == value
        assert is_storable
    except ValueError:
        assert not is_storable


@given(ANY_TEXT)
def test_a_user_id_that_is_taken_can_be_stored_and_seen(value: str) -> None:
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
def test_visible_characters_of_any_script_make_a_user_id(value: str) -> None:
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
def test_what_nobody_sees_makes_no_user_id(value: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 visible characters"):
        check_user_id(value)
