"""The merge of two streams, the comparison of lines, and the report."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from walletctl.verify.lines import SEPARATOR, UNKNOWN, differing
from walletctl.verify.merge import full_join
from walletctl.verify.report import DIFFERENCES_KEPT_MAX, CheckResult, Findings, fair_shares

keys = st.integers(0, 20)


async def _each(items: Sequence[int]) -> AsyncIterator[int]:
    for item in items:
        yield item


def _joined(left: Sequence[int], right: Sequence[int]) -> list[tuple[int | None, int | None]]:
    async def run() -> list[tuple[int | None, int | None]]:
        joined = full_join(_each(left), _each(right), lambda key: key, lambda key: key)
        return [pair async for pair in joined]

    return asyncio.run(run())


@given(st.lists(keys).map(sorted), st.sets(keys).map(sorted))
def test_a_join_pairs_every_item_with_its_counterpart_in_order(left: list[int], right: list[int]) -> None:
    pairs = _joined(left, right)
    assert [one for one, _ in pairs if one is not None] == left
    assert sorted({other for _, other in pairs if other is not None}) == right
    assert all((other == one) if one in right else (other is None) for one, other in pairs if one is not None)
    assert [other for one, other in pairs if one is None] == [other for other in right if other not in left]


@given(st.lists(st.integers(0, 200), max_size=12))
def test_shares_are_fair_and_use_the_whole_total(wanted: list[int]) -> None:
    shares = fair_shares(wanted, DIFFERENCES_KEPT_MAX)
    assert all(share <= want for share, want in zip(shares, wanted, strict=True))
    assert DIFFERENCES_KEPT_MAX - len(wanted) < sum(shares) <= DIFFERENCES_KEPT_MAX or shares == wanted
    cut = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    assert not cut or max(shares) - min(cut) <= 1


def test_differing_fields_are_named_and_the_unknown_agrees() -> None:
    expected, found = SEPARATOR.join(("5", UNKNOWN, "", "same")), SEPARATOR.join(("6", "x", "y", "same"))
    assert differing(("a", "b", "c", "d"), expected, found) == ("a 5, c (none)", "a 6, c y")
    assert differing(("a", "b", "c", "d"), found, found) is None


def test_findings_count_all_and_keep_a_hundred_lines() -> None:
    findings = Findings("a check")
    for number in range(1000):
        findings.add(f"wallet {number}", "balance", expected=1, found=2)
    assert findings.difference_count == 1000
    assert len(findings.lines) == DIFFERENCES_KEPT_MAX
    assert findings.lines[7] == "a check: wallet 7: balance: expected 1, found 2"
    result = CheckResult("a check", 1000, "wallets", findings.difference_count, 0.1, findings.lines)
    assert result.lines == findings.lines
