import asyncio

from common.pauses import Pauses, pause


def test_pauses_double_up_to_the_longest() -> None:
    pauses = Pauses(0.1, 0.5)
    assert [pauses.after(times) for times in range(1, 5)] == [0.1, 0.2, 0.4, 0.5]
    assert pauses.after(10_000) == 0.5


async def test_a_pause_ends_when_the_worker_is_told_to_stop() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(20):
        assert await pause(stop, 3600) is False


async def test_a_pause_ends_after_its_time() -> None:
    async with asyncio.timeout(20):
        assert await pause(asyncio.Event(), 0.001) is False
