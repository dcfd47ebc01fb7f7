"""`walletctl wallet history`: the pages and filters of the history API, for support staff."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from common.settings import PipelineSettings
from support.command_lines import WalletCtl, environment, printed
from support.history_events import History, Wallet
from walletctl.console import Exit


async def test_a_wallets_history_is_listed_in_pages_and_by_filters_of_the_api(
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine
) -> None:
    at, ada = {"DATABASE_URL": operator_url}, Wallet()
    frozen = ada.created(), ada.funded(), ada.restated("FREEZE", blocks="out"), ada.withdrawn()
    await History(engine).add(*frozen)
    command = ("wallet", "history", str(ada.id))

    def versions(*more: str) -> list[int]:
        return [item["wallet_version"] for item in printed(walletctl(*command, *more, "--json", **at))["items"]]

    first = printed(walletctl(*command, "--limit", "3", "--json", **at))
    assert [item["wallet_version"] for item in first["items"]] == [4, 3, 2]
    assert (first["complete"], first["as_of_version"], first["event_count"]) == (True, 4, 4)
    assert versions("--limit", "3", "--cursor", first["next_cursor"]) == [1]
    assert versions("--order", "asc") == [1, 2, 3, 4]
    assert versions("--type", "WALLET_FUNDED", "--type", "WALLET_FROZEN") == [3, 2]
    assert versions("--to", "2020-01-01") == []
    assert versions("--from", "2020-01-01") == [4, 3, 2, 1]
    shown = walletctl(*command, "--limit", "3", **at)
    assert shown.returncode == Exit.OK
    assert f"--cursor {first['next_cursor']}" in shown.stdout.replace("\n", "")


async def test_a_history_that_misses_a_version_says_so(
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine
) -> None:
    ada = Wallet()
    created, _, frozen = ada.created(), ada.funded(), ada.restated("FREEZE", blocks="out")
    await History(engine).add(created, frozen)
    shown = walletctl("wallet", "history", str(ada.id), DATABASE_URL=operator_url)
    assert "missing after version 1" in shown.stdout


async def test_what_cannot_be_listed_is_told_in_one_line(
    walletctl: WalletCtl, operator_url: str, engine: AsyncEngine
) -> None:
    ada = Wallet()
    await History(engine).add(ada.created())
    for words, code, told in [
        ([str(Wallet().id)], Exit.FOUND_WRONG, "the history has no event of wallet"),
        ([str(ada.id), "--cursor", "x"], Exit.USAGE, "--cursor: must be a next_cursor of this list"),
        ([str(ada.id), "--type", "GONE"], Exit.USAGE, "WALLET_FUNDED"),
        ([str(ada.id), "--from", "soon"], Exit.USAGE, "is not a time"),
    ]:
        done = walletctl("wallet", "history", *words, DATABASE_URL=operator_url)
        assert done.returncode == code, (words, done.stderr)
        assert told in done.stderr, words


async def test_reversals_are_found_by_their_event_types_and_linked_both_ways(
    walletctl: WalletCtl, settings: PipelineSettings
) -> None:
    """midaz#1975: nothing told whether a transaction was reversed, or which transactions are reversals."""
    database, at = await asyncpg.connect(settings.database_url.read()), environment(settings)
    ids = dict(await database.fetch("SELECT external_id, id::text FROM wallet.wallets"))
    await database.close()
    found: list[str] = []
    for name, event_type, count in (("hot", "REVERSAL_RECEIVED", 2), ("cold", "REVERSAL_SENT", 3)):
        listed = printed(walletctl("wallet", "history", ids[name], "--type", event_type, "--json", **at))["items"]
        assert [item["event_type"] for item in listed] == [event_type] * count
        for item in listed:
            original = item["event_data"]["reverses_transaction_id"]
            shown = [
                printed(walletctl("transaction", "show", id_, "--json", **at))
                for id_ in (original, item["transaction_id"])
            ]
            assert item["transaction_id"] in [link["transaction_id"] for link in shown[0]["reversed_by"]]
            assert shown[1]["reverses"] == original
            found.append(original)
    assert len(set(found)) == 3
