from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.access.caller import ANONYMOUS, SCOPES, Caller
from common.money import MINOR_MAX, to_major
from common.problems import Problem, ValidationProblem
from wallet_api.errors import BalanceLimitExceeded, InsufficientFunds, WalletClosed, WalletFrozen, WalletNotFound
from wallet_api.operations.errors import CurrencyMismatch, ReceiverUnavailable, SameWallet, VersionMismatch
from wallet_api.operations.fund import Fund
from wallet_api.operations.money_operation import CurrencyOperation
from wallet_api.operations.operation import LedgerTransaction, State
from wallet_api.operations.split import REST, Split, SplitLeg
from wallet_api.operations.transfer import Transfer
from wallet_api.operations.withdraw import Withdraw
from wallet_api.replies import DONE, Reply, problem_reply, transaction_reply
from wallet_api.wallet import Wallet

ADA, BOB, NOBODY, CLEO = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
CURRENCIES = st.sampled_from(["EUR", "JPY", "BHD"])
# Small numbers meet each other, large ones meet the limit.
BALANCES = st.integers(0, 20) | st.integers(MINOR_MAX - 20, MINOR_MAX) | st.integers(0, MINOR_MAX)
AMOUNTS = st.one_of(
    st.integers(1, 30).map(lambda minor: to_major(minor, "EUR")),
    st.integers(1, MINOR_MAX).map(lambda minor: to_major(minor, "EUR")),
    st.sampled_from(["1", "0", "-1", "1e2", "", "0.001", "1.0000", "NaN", "9" * 300]),
    st.text(max_size=5),
)
WALLET_IDS = st.sampled_from([ADA, BOB, NOBODY])


def wallet(wallet_id: UUID = ADA, **fields: Any) -> Wallet:
    return replace(Wallet(wallet_id, "ada", "EUR", 1000, 5, "active"), **fields)


def money(**fields: Any) -> dict[str, Any]:
    return {
        "caller": ANONYMOUS,
        "path": "/",
        "claim": None,
        "traceparent": None,
        "metadata": {},
        "wallet_id": ADA,
        "amount": "5.00",
        "currency": None,
        "reference": None,
        "if_match": None,
        **fields,
    }


def fund(**fields: Any) -> Fund:
    return Fund(**money(**fields))


def transfer(**fields: Any) -> Transfer:
    return Transfer(**money(**{"to_wallet_id": BOB, **fields}))


def withdraw(**fields: Any) -> Withdraw:
    return Withdraw(**money(**fields))


def leg(to_wallet_id: UUID, amount: str) -> SplitLeg:
    return SplitLeg.model_validate({"to_wallet_id": str(to_wallet_id), "amount": amount})


def split(**fields: Any) -> Split:
    return Split(**money(**{"legs": [leg(BOB, REST)], **fields}))


def restored(item: Wallet) -> Wallet:
    """Return the wallet without what only a frozen wallet has."""
    return item if item.status == "frozen" else replace(item, blocks=None)


def wallets_of(wallet_id: UUID) -> st.SearchStrategy[Wallet]:
    return st.builds(
        Wallet,
        id=st.just(wallet_id),
        user_id=st.just("ada"),
        currency=CURRENCIES,
        balance_minor=BALANCES,
        version=st.integers(1, 10),
        status=st.sampled_from(["active", "active", "active", "frozen", "closed"]),
        blocks=st.sampled_from([None, "in", "out", "all"]),
    ).map(restored)


WALLETS = st.tuples(wallets_of(ADA), wallets_of(BOB)).map(lambda pair: {item.id: item for item in pair})
FIELDS: dict[str, Any] = {
    "wallet_id": WALLET_IDS,
    "amount": AMOUNTS,
    "currency": st.none() | CURRENCIES,
    "if_match": st.none() | st.frozensets(st.integers(1, 10), max_size=3),
}
LEGS = st.lists(st.builds(leg, WALLET_IDS, AMOUNTS | st.just(REST)), min_size=1, max_size=3)
COMMANDS = st.one_of(
    st.builds(fund, **FIELDS),
    st.builds(withdraw, **FIELDS),
    st.builds(transfer, **FIELDS, to_wallet_id=WALLET_IDS),
    st.builds(split, **{**FIELDS, "amount": st.none() | AMOUNTS}, legs=LEGS),
)


def decide(wallets: dict[UUID, Wallet], command: CurrencyOperation) -> LedgerTransaction | Problem:
    try:
        (transaction,) = command.decide(State.at(NOW, wallets))
    except Problem as refusal:
        return refusal
    return transaction


def decided(wallets: dict[UUID, Wallet], command: CurrencyOperation) -> LedgerTransaction:
    movement = decide(wallets, command)
    assert isinstance(movement, LedgerTransaction), movement
    return movement


def refused(wallets: dict[UUID, Wallet], command: CurrencyOperation) -> Problem:
    problem = decide(wallets, command)
    assert isinstance(problem, Problem), problem
    return problem


# Wallets and commands between which money can move: all that may be wrong is the balance.
OPEN_WALLETS = st.tuples(BALANCES, BALANCES, st.integers(1, 10)).map(
    lambda item: {
        ADA: wallet(ADA, balance_minor=item[0], version=item[2]),
        BOB: wallet(BOB, balance_minor=item[1], version=item[2] + 1),
        CLEO: wallet(CLEO, balance_minor=item[1] // 2, version=item[2] + 2),
    }
)
GOOD_AMOUNTS = st.sampled_from(["0.01", "0.05"]) | st.integers(1, MINOR_MAX).map(lambda minor: to_major(minor, "EUR"))
GOOD_LEGS = GOOD_AMOUNTS.map(lambda amount: [leg(BOB, amount), leg(CLEO, "0.01")])
GOOD_COMMANDS = st.one_of(
    *(st.builds(make, amount=GOOD_AMOUNTS) for make in (fund, withdraw, transfer, split)),
    st.builds(split, amount=st.none(), legs=GOOD_LEGS),
)


def moved(wallets: dict[UUID, Wallet], command: CurrencyOperation) -> LedgerTransaction:
    outcome = decide(wallets, command)
    assume(not isinstance(outcome, InsufficientFunds | BalanceLimitExceeded))
    assert isinstance(outcome, LedgerTransaction)
    return outcome


@given(OPEN_WALLETS, GOOD_COMMANDS)
def test_the_entries_of_every_movement_sum_to_zero_and_none_is_zero(
    wallets: dict[UUID, Wallet], command: CurrencyOperation
) -> None:
    entries = moved(wallets, command).entries
    assert sum(entry.amount_minor for entry in entries) == 0
    assert all(entry.amount_minor for entry in entries)


@given(OPEN_WALLETS, GOOD_COMMANDS)
def test_each_entry_is_the_whole_change_of_its_wallet(wallets: dict[UUID, Wallet], command: CurrencyOperation) -> None:
    movement = moved(wallets, command)
    sides = [entry for entry in movement.entries if entry.wallet]
    assert movement.entries[0].wallet == movement.wallet
    assert {entry.wallet.id for entry in sides if entry.wallet} == set(command.wallet_ids)
    assert len(sides) == len(command.wallet_ids)
    for entry in sides:
        assert entry.wallet
        before = wallets[entry.wallet.id]
        after = before.balance_minor + entry.amount_minor
        assert entry.wallet == replace(before, balance_minor=after, version=before.version + 1)


@given(OPEN_WALLETS, GOOD_COMMANDS)
def test_a_movement_leaves_every_balance_between_zero_and_what_fits(
    wallets: dict[UUID, Wallet], command: CurrencyOperation
) -> None:
    movement = moved(wallets, command)
    assert all(0 <= after.balance_minor <= MINOR_MAX for after in movement.wallets)


@given(WALLETS, COMMANDS)
def test_a_command_is_decided_or_refused_by_a_decided_problem_or_one_that_may_pass(
    wallets: dict[UUID, Wallet], command: CurrencyOperation
) -> None:
    before = dict(wallets)
    outcome = decide(wallets, command)
    if isinstance(outcome, Problem):
        assert outcome.decided or isinstance(outcome, WalletNotFound | VersionMismatch)
    else:
        assert outcome.command is command
        assert outcome.amount_minor > 0
    assert wallets == before


@given(WALLETS, COMMANDS)
def test_a_movement_happens_only_where_the_command_allows_it(
    wallets: dict[UUID, Wallet], command: CurrencyOperation
) -> None:
    movement = decide(wallets, command)
    if isinstance(movement, Problem):
        return
    acting = wallets[command.wallet_id]
    assert movement.wallet.id == acting.id
    assert acting.status != "closed"
    assert acting.status == "active" or acting.blocks == ("out" if isinstance(command, Fund) else "in")
    assert command.currency in {None, acting.currency}
    assert command.if_match is None or acting.version in command.if_match
    if isinstance(command, Transfer):
        receiver = wallets[command.to_wallet_id]
        assert receiver.id != acting.id
        assert receiver.currency == acting.currency
        assert (receiver.status, receiver.blocks) in {("active", None), ("frozen", "out")}


def test_two_movements_have_two_transaction_ids() -> None:
    wallets = {ADA: wallet()}
    assert decided(wallets, fund()).id != decided(wallets, fund()).id


def test_all_of_a_balance_can_be_sent_and_not_a_cent_more() -> None:
    wallets = {ADA: wallet(), BOB: wallet(BOB)}
    assert decided(wallets, transfer(amount="10.00")).wallet.balance_minor == 0
    problem = refused(wallets, transfer(amount="10.01"))
    assert isinstance(problem, InsufficientFunds)
    assert "has 10.00 EUR available, less than 10.01" in problem.detail


def test_a_wallet_can_be_filled_to_the_brim_and_not_a_cent_more() -> None:
    wallets = {ADA: wallet(balance_minor=MINOR_MAX - 1), BOB: wallet(BOB)}
    assert decided(wallets, fund(amount="0.01")).wallet.balance_minor == MINOR_MAX
    for command in (fund(amount="0.02"), transfer(wallet_id=BOB, to_wallet_id=ADA, amount="0.02")):
        problem = refused(wallets, command)
        assert isinstance(problem, BalanceLimitExceeded)
        assert "92233720368547758.07" in problem.detail


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (fund(wallet_id=NOBODY), WalletNotFound),
        (transfer(wallet_id=NOBODY), WalletNotFound),
        (transfer(to_wallet_id=NOBODY), WalletNotFound),
        (transfer(to_wallet_id=ADA), SameWallet),
        (transfer(wallet_id=NOBODY, to_wallet_id=NOBODY), SameWallet),
        (split(wallet_id=NOBODY), WalletNotFound),
        (split(legs=[leg(BOB, REST), leg(NOBODY, "1")]), WalletNotFound),
        (split(legs=[leg(BOB, REST), leg(ADA, "1")]), SameWallet),
        (split(legs=[leg(NOBODY, REST), leg(NOBODY, "1")]), ValidationProblem),
        (split(currency="USD"), CurrencyMismatch),
        (split(if_match=frozenset({4})), VersionMismatch),
        (split(amount="10.01"), InsufficientFunds),
        (fund(currency="USD"), CurrencyMismatch),
        (transfer(currency="USD"), CurrencyMismatch),
        (fund(if_match=frozenset()), VersionMismatch),
        (fund(if_match=frozenset({4, 6})), VersionMismatch),
        (transfer(if_match=frozenset({4})), VersionMismatch),
        (fund(amount="1.001"), ValidationProblem),
        (transfer(amount="0"), ValidationProblem),
    ],
)
def test_a_refusal_is_of_its_kind(command: CurrencyOperation, problem: type[Problem]) -> None:
    assert type(refused({ADA: wallet(), BOB: wallet(BOB)}, command)) is problem


@pytest.mark.parametrize(("status", "problem"), [("frozen", WalletFrozen), ("closed", WalletClosed)])
@pytest.mark.parametrize("act", [fund, withdraw, transfer, split])
def test_a_wallet_that_is_not_active_neither_gives_nor_takes(
    status: str, problem: type[Problem], act: Callable[[], CurrencyOperation]
) -> None:
    assert type(refused({ADA: wallet(status=status), BOB: wallet(BOB)}, act())) is problem
    for send in (transfer, split):
        assert type(refused({ADA: wallet(), BOB: wallet(BOB, status=status)}, send())) is problem


def test_wallets_of_two_currencies_exchange_nothing() -> None:
    problem = refused({ADA: wallet(), BOB: wallet(BOB, currency="USD")}, transfer())
    assert isinstance(problem, CurrencyMismatch)
    assert "is in USD" in problem.detail


def test_the_version_is_looked_at_before_anything_that_may_have_changed_with_it() -> None:
    problem = refused({ADA: wallet(status="frozen")}, fund(if_match=frozenset({4})))
    assert isinstance(problem, VersionMismatch)


OF_ADA = Caller("key", "ada", frozenset(SCOPES))
STRANGERS = wallets_of(BOB).map(lambda item: replace(item, user_id="bob"))
BOUND_TRANSFERS = st.builds(transfer, caller=st.just(OF_ADA), **{**FIELDS, "wallet_id": st.just(ADA)})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def reply_to(sender: Wallet, receiver: Wallet, command: Transfer) -> Reply:
    """Return the reply, with one transaction id for all movements."""
    outcome = decide({ADA: sender, BOB: receiver}, command)
    if isinstance(outcome, Problem):
        return problem_reply(outcome, "/")
    return transaction_reply(outcome._replace(id=UUID(int=0)), NOW)


@given(wallets_of(ADA), STRANGERS, STRANGERS, BOUND_TRANSFERS)
def test_a_bound_caller_is_told_nothing_of_a_receiver_but_its_id_and_whether_it_received(
    sender: Wallet, one: Wallet, other: Wallet, command: Transfer
) -> None:
    replies = [reply_to(sender, receiver, command) for receiver in (one, other)]
    received = [reply for reply in replies if reply.outcome != ReceiverUnavailable.code]
    assert len({(reply.status, reply.body, tuple(reply.headers.items())) for reply in received}) <= 1
    if 0 < len(received) < len(replies):
        assert received[0].outcome == DONE, "the sender's own refusals come first"


@given(wallets_of(ADA), STRANGERS, BOUND_TRANSFERS)
def test_a_receiver_is_unavailable_where_a_caller_that_may_read_it_is_told_why(
    sender: Wallet, receiver: Wallet, command: Transfer
) -> None:
    """For a transfer that the sender could make."""
    wallets = {ADA: sender, BOB: receiver}
    bound, unbound = (decide(wallets, replace(command, caller=caller)) for caller in (OF_ADA, ANONYMOUS))
    assert isinstance(bound, LedgerTransaction) == isinstance(unbound, LedgerTransaction)
    if isinstance(bound, ReceiverUnavailable):
        assert isinstance(unbound, WalletFrozen | WalletClosed | CurrencyMismatch | BalanceLimitExceeded)


@given(WALLETS, COMMANDS)
def test_a_strangers_wallet_is_refused_like_one_that_does_not_exist(
    wallets: dict[UUID, Wallet], command: CurrencyOperation
) -> None:
    command = replace(command, caller=Caller("key", "eve", frozenset(SCOPES)))
    seen, unseen = decide(wallets, command), decide({}, command)
    assert isinstance(seen, Problem)
    assert isinstance(unseen, Problem)
    assert problem_reply(seen, "/") == problem_reply(unseen, "/")
