"""Wallets, ledger and outbox compared with one another. PostgreSQL compares; this module reports the differences."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from common.money import UnknownCurrencyError, to_major
from common.postgres.reading import fetch_value, stream_rows
from wallet_api.operations.original import REVERSIBLE
from walletctl.verify import queries, reversal_queries, status_queries
from walletctl.verify.facts import OUTBOX_FIELDS
from walletctl.verify.lines import differing
from walletctl.verify.report import Findings
from walletctl.verify.scope import BEGINNING, KEPT_SLICE, PRUNED_SLICE
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.sums import SliceSum, Sums

_NOTHING = "nothing"


async def check_balances(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check that balances, and what is held, are the sums of entries, and that each wallet of an entry exists."""
    findings.compared = sums.ledger.found.wallet_count
    if sums.ledger.found.chained:
        return
    async for row in stream_rows(snapshots.wallet, queries.BALANCES):
        where = f"wallet {row.wallet_id}"
        if not row.known:
            findings.add(where, "entries of a missing wallet", expected="a wallet", found="none")
            continue
        if row.balance_minor != int(row.total_minor):
            findings.add(
                where,
                "balance",
                expected=f"{_major(row.total_minor, row.currency)} by the ledger",
                found=_major(row.balance_minor, row.currency),
            )
        if row.held_minor != int(row.held_total_minor):
            findings.add(
                where,
                "held",
                expected=f"{_major(row.held_total_minor, row.currency)} by the ledger",
                found=_major(row.held_minor, row.currency),
            )
        for currency in sorted({row.lowest_currency, row.highest_currency} - {row.currency}):
            findings.add(where, "currency of its entries", expected=row.currency, found=currency)


async def check_sums(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check that all entries, with those of the world accounts, sum to zero by currency and by transaction.

    So does what they hold.
    """
    findings.compared = sums.ledger.found.entry_count
    if sums.ledger.found.balanced:
        return
    async for row in stream_rows(snapshots.wallet, queries.CURRENCY_SUMS):
        findings.add(f"currency {row.currency}", "sum of all entries", expected=_NOTHING, found=_sums(row))
    async for row in stream_rows(snapshots.wallet, queries.TRANSACTION_SUMS):
        where = f"transaction {row.transaction_id}"
        findings.add(where, f"sum of its {row.currency} entries", expected=_NOTHING, found=_sums(row))


async def check_versions(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check that a wallet's entries are its versions 2 to n, that n is its version, and that the balances add up."""
    findings.compared = _version_count(sums)
    if sums.ledger.found.chained:
        return
    async for row in stream_rows(snapshots.wallet, queries.CHAIN_BREAKS):
        _add_chain_break(row, findings)
    async for row in stream_rows(snapshots.wallet, queries.LAST_VERSIONS):
        findings.add(
            f"wallet {row.wallet_id}", "version", expected=f"{row.last_version} by the ledger", found=row.version
        )


async def check_statuses(snapshots: Snapshots, findings: Findings) -> None:
    """Check that each wallet's status is that of its last change by the ledger, also of one before a horizon."""
    findings.compared = snapshots.wallet_figures["wallet_count"]
    async for row in stream_rows(snapshots.wallet, status_queries.STATUSES):
        findings.add(f"wallet {row.wallet_id}", "status", expected=f"{row.last_status} by the ledger", found=row.status)


def _add_chain_break(row: Row[Any], findings: Findings) -> None:
    where = f"wallet {row.wallet_id} version {row.wallet_version} (transaction {row.transaction_id})"
    due = row.previous_version + 1
    if row.wallet_version != due:
        findings.add(where, "version of the entry", expected=due, found=row.wallet_version)
    elif row.balance_after_minor != row.sum_minor:
        findings.add(
            where,
            "balance_after",
            expected=_major(row.sum_minor, row.currency),
            found=_major(row.balance_after_minor, row.currency),
        )
    elif row.held_after_minor != row.held_sum_minor:
        findings.add(
            where,
            "held_after",
            expected=_major(row.held_sum_minor, row.currency),
            found=_major(row.held_after_minor, row.currency),
        )
    else:
        findings.add(where, "held_after", expected="not below zero", found=row.held_after_minor)


async def check_holds(snapshots: Snapshots, findings: Findings) -> None:
    """Check that each hold is what its entries in the ledger tell: its status, what was captured, what is left."""
    findings.compared = snapshots.wallet_figures["hold_count"]
    async for row in stream_rows(snapshots.wallet, queries.HOLDS):
        where = f"hold {row.hold_id}"
        if row.found is None:
            findings.add(where, "entries of a missing hold", expected="a hold", found="none")
        elif row.expected is None:
            findings.add(where, "entries", expected="entries in the ledger", found="none")
        elif different := differing(queries.HOLD_FIELDS, row.expected, row.found):
            expected, found = different
            findings.add(where, "hold", expected=f"{expected} by the ledger", found=found)


async def check_reversals(snapshots: Snapshots, findings: Findings) -> None:
    """Check that each reversal names a transaction that can be reversed, and all of one move back no more than it did.

    So it is for each wallet of the transaction, also for reversals of before a horizon.
    """
    findings.compared = await fetch_value(snapshots.wallet, reversal_queries.COUNT)
    async for row in stream_rows(snapshots.wallet, reversal_queries.UNLINKED):
        where = f"transaction {row.transaction_id}"
        findings.add(where, "links", expected="one link, in all its entries", found="another link, or none, in some")
    async for row in stream_rows(snapshots.wallet, reversal_queries.EXCESSES):
        side = f"of wallet {row.wallet_id}" if row.wallet_id else "of the world account"
        where = f"transaction {row.original_id} {side}"
        found = f"{_major(row.back_minor, row.currency)} by {row.reversal_types}"
        if row.type not in REVERSIBLE:
            findings.add(where, "reversals", expected=f"none of {row.type or 'no entry'}", found=found)
        else:
            moved = f"at most {_major(-row.amount_minor, row.currency)} by REVERSAL"
            findings.add(where, "reversals", expected=moved, found=found)


async def check_outbox(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check that each version of each wallet has one outbox row, which agrees with the ledger, unless it was pruned.

    `outbox_pruned` records how many versions retention has pruned, and up to which time. As many rows of that time must
    be missing.
    """
    findings.compared = _version_count(sums)
    if slices := _different_slices(snapshots, sums):
        await _compare_outbox(snapshots, slices, findings)
    if sums.repeats.found:
        await _name_repeats(snapshots, findings)


async def _name_repeats(snapshots: Snapshots, findings: Findings) -> None:
    async for row in stream_rows(snapshots.wallet, queries.REPEATED_EVENT_IDS, since=snapshots.scope.since):
        where = f"outbox row {row.last_id}"
        findings.add(where, "event_id", expected="a unique id", found=f"{row.event_id}, as in row {row.first_id}")


def _version_count(sums: Sums) -> int:
    return sum(facts.row_count for facts in sums.facts.found.values())


def _different_slices(snapshots: Snapshots, sums: Sums) -> list[int]:
    """Return the slices of time whose rows must be compared one by one."""
    facts, claims, none = sums.facts.found, sums.claims.found, SliceSum()
    different = [
        slice_ for slice_ in snapshots.scope.slices if not facts.get(slice_, none).agrees(claims.get(slice_, none))
    ]
    if _may_have_pruned(snapshots, facts.get(PRUNED_SLICE, none).row_count):
        return [slice_ for slice_ in different if slice_ != PRUNED_SLICE]
    return [KEPT_SLICE, PRUNED_SLICE, *(slice_ for slice_ in different if slice_ > PRUNED_SLICE)]


def _may_have_pruned(snapshots: Snapshots, version_count: int) -> bool:
    """Return whether retention has pruned so many versions. Some of those that it counts may be of before the scope."""
    pruned_count = int(snapshots.wallet_figures["pruned_version_count"])
    return version_count == pruned_count or (snapshots.scope.since > BEGINNING and version_count < pruned_count)


async def _compare_outbox(snapshots: Snapshots, slices: Sequence[int], findings: Findings) -> None:
    """Compare the versions of these slices one by one."""
    missing_count = 0
    parameters = {**snapshots.scope.parameters, **snapshots.scope.unit_parameters, "slices": slices}
    async for row in stream_rows(snapshots.wallet, queries.LEDGER_AND_OUTBOX, **parameters):
        if row.pruned:
            missing_count += 1
        else:
            _add_outbox_difference(row, findings)
    if PRUNED_SLICE in slices and not _may_have_pruned(snapshots, missing_count):
        expected = f"{snapshots.wallet_figures['pruned_version_count']}, as outbox_pruned counts"
        findings.add("versions of the pruned time", "without an outbox row", expected=expected, found=missing_count)


def _add_outbox_difference(row: Row[Any], findings: Findings) -> None:
    version = f"wallet {row.wallet_id} version {row.version}"
    if row.found is None:
        findings.add(version, "event", expected="an outbox row", found="none")
    elif row.wallet_id is None or row.version is None:
        findings.add(f"outbox row {row.outbox_id}", "payload", expected="wallets and their versions", found="neither")
    elif row.copy > 1:
        findings.add(f"outbox row {row.outbox_id}", version, expected="one row", found="an earlier row has it too")
    elif row.expected is None:
        findings.add(f"outbox row {row.outbox_id}", version, expected="an entry in the ledger", found="none")
    elif different := differing(OUTBOX_FIELDS, row.expected, row.found):
        expected, found = different
        findings.add(f"outbox row {row.outbox_id}", version, expected=expected, found=found)


def _sums(row: Row[Any]) -> str:
    return f"{_major(row.total_minor, row.currency)}, held {_major(row.held_total_minor, row.currency)}"


def _major(amount_minor: object, currency: str) -> str:
    try:
        return f"{to_major(int(str(amount_minor)), currency)} {currency}"
    except UnknownCurrencyError:
        return f"{amount_minor} minor units of {currency}"
