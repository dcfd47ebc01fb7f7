import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet_api.statements.media_types import preferred

OFFERED = ["application/json", "text/csv", "application/xml"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("text/csv;q=0.5, application/xml", "application/xml"),
        ("text/csv, application/xml", "text/csv"),
        ("application/*", "application/json"),
        ("application/*;q=0.1, text/*", "text/csv"),
        # The most specific range counts, not the highest weight.
        ("*/*, application/json;q=0", "text/csv"),
        ("application/*, application/json;q=0.1, text/csv;q=0.05", "application/xml"),
        ("text/html, */*;q=0.1", "application/json"),
        ("text/csv; q = 0.3 , application/xml;q=0.30", "text/csv"),
        ("text/csv;q=0", None),
        ("text/html", None),
        ("image/png, text/plain", None),
        # What isn't a range is passed over.
        ("csv, text/csv", "text/csv"),
        (", ,text/csv,", "text/csv"),
        ("text/csv;q=2", "text/csv"),
        ("csv", None),
    ],
)
def test_the_media_type_with_the_highest_weight_is_chosen(accept: str | None, chosen: str | None) -> None:
    assert preferred(accept, OFFERED) == chosen


@given(st.text(max_size=50) | st.lists(st.sampled_from([*OFFERED, "*/*", "text/*", ";q=0", ";q=1", ","])).map("".join))
def test_any_header_leads_to_an_offered_media_type_or_to_none(accept: str) -> None:
    assert preferred(accept, OFFERED) in {*OFFERED, None}
