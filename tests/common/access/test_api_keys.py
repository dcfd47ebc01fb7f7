import string

from hypothesis import given
from hypothesis import strategies as st

from common.access.api_keys import hash_of, id_of, key_text, new_key

DIGITS = string.digits + string.ascii_letters
ENVIRONMENTS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=16)
KEYS = st.builds(key_text, ENVIRONMENTS, st.text(DIGITS, min_size=12, max_size=12), st.integers(0, 2**256 - 1))


@given(ENVIRONMENTS)
def test_a_new_key_has_the_form_of_a_key(environment: str) -> None:
    key = new_key(environment)
    assert id_of(key.text) == key.id
    assert key.text.startswith(f"wk_{environment}_{key.id}_")


def test_two_new_keys_share_neither_id_nor_secret() -> None:
    one, other = new_key("live").text.split("_"), new_key("live").text.split("_")
    assert not {*one[2:]} & {*other[2:]}


@given(KEYS, st.data())
def test_a_typing_error_is_noticed_without_a_look_up(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.sampled_from(DIGITS + "_-.é").filter(lambda digit: digit != key[position]))
    assert id_of(f"{key[:position]}{wrong}{key[position + 1 :]}") is None


@given(KEYS, st.data())
def test_a_key_that_is_cut_off_or_goes_on_is_none(key: str, data: st.DataObject) -> None:
    assert id_of(key[: data.draw(st.integers(0, len(key) - 1))]) is None
    assert id_of(key + data.draw(st.text(DIGITS + " \n", min_size=1))) is None


@given(st.text())
def test_other_text_is_no_key(text: str) -> None:
    assert id_of(text) is None
    assert id_of(f"wk_{text}") is None


@given(KEYS, KEYS)
def test_two_keys_have_two_hashes(one: str, other: str) -> None:
    assert (hash_of(one) == hash_of(other)) == (one == other)
    assert len(hash_of(one)) == 32


def test_the_secret_is_not_in_the_repr() -> None:
    key = new_key("live")
    assert key.text not in repr(key)
    assert key.text.split("_")[3] not in repr(key)
