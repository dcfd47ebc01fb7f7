from common.settings import PipelineSettings
from support.command_lines import WalletCtl, environment, printed
from support.pipelines import tamper
from walletctl.console import Exit


def test_a_new_epoch_needs_yes_and_stops_the_history_until_it_is_rebuilt(
    walletctl: WalletCtl, settings: PipelineSettings
) -> None:
    at, begin = environment(settings), ("restore", "begin")
    refused = walletctl(*begin, **at)
    assert refused.returncode == Exit.FOUND_WRONG
    assert "--yes" in refused.stderr
    assert walletctl("history", "status", **at).returncode == Exit.OK
    begun = walletctl(*begin, "--yes", "--reason", "a drill", "--json", **at)
    assert begun.returncode == Exit.OK
    found = printed(begun)
    assert (found["source_epoch"], found["pending"], sorted(found["topic_ends"])) == (2, 0, ["0", "1", "2"])
    stopped = walletctl("history", "status", **at)
    assert stopped.returncode == Exit.FOUND_WRONG
    assert "walletctl history rebuild" in stopped.stdout
    assert printed(walletctl("history", "status", "--json", **at))["is_stopped"] is True
    assert walletctl("history", "rebuild", "--yes", **at).returncode == Exit.OK
    assert walletctl("history", "status", **at).returncode == Exit.OK
    again = walletctl(*begin, "--yes", **at)
    assert "Source epoch 3" in again.stdout
    assert "walletctl restore lost" in again.stdout


async def test_lost_events_are_listed_with_their_content(walletctl: WalletCtl, settings: PipelineSettings) -> None:
    at, lost = environment(settings), ("restore", "lost")
    nothing = walletctl(*lost, "--json", **at)
    assert (nothing.returncode, printed(nothing)) == (Exit.OK, {"count": 0, "items": []})
    await tamper(settings.database_url, "DELETE FROM wallet.wallet_transactions WHERE type = 'TRANSFER'")
    found = walletctl(*lost, "--json", "--limit", "2", **at)
    assert found.returncode == Exit.FOUND_WRONG
    assert printed(found)["count"] > len(printed(found)["items"]) == 2
    item = printed(found)["items"][0]
    assert (item["source_epoch"], item["event"]["event_type"]) == (1, "TRANSFER_DONE")
    shown = walletctl(*lost, **at)
    assert shown.returncode == Exit.FOUND_WRONG
    assert f"Lost events: {printed(found)['count']}" in shown.stdout
