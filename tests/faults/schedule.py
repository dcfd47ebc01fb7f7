"""A schedule of faults that is drawn from a seed."""

import asyncio
import random
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import asyncpg
from confluent_kafka import KafkaException

from faults.field import Act, Fault, Field
from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS, until_at_work
from support.processes import COMMANDS

_ONE_STRIKES_ANYHOW_OF: Final = 4
"""Of so many faults one strikes whatever is there. The others wait for a system at work, where they find more."""
_ANSWERED_SECONDS_MAX: Final = 5.0
_ANSWERS_MAX: Final = 100


def draw_schedule(seed: int, faults: dict[str, Act], count: int) -> list[Fault]:
    """Return so many faults, the same for the same seed: each kind once before any comes again."""
    rng = random.Random(f"{seed}-{'-'.join(faults)}")
    schedule: list[Fault] = []
    while len(schedule) < count:
        schedule += [
            Fault(name, rng.uniform(0.2, 3), rng.uniform(0.2, 2), rng.randrange(2**32))
            for name in rng.sample(list(faults), len(faults))
        ]
    return schedule[:count]


async def _until_answered(on: Field, count: int) -> None:
    """Wait until all processes work and clients got so many answers more, but not for long."""
    answers = on.driver.answers
    await until_at_work(on.cluster.first(role) for role in COMMANDS)
    before = answers["200"]
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWERED_SECONDS_MAX):
            while answers["200"] < before + count:
                await asyncio.sleep(0.05)


async def run_schedules(on: Field, seed: int, seconds: float, only: Collection[str] = ()) -> None:
    """Run two schedules at once, one of processes, one of servers and links, for about so long.

    A fault under way runs to its end.

    Args:
        on: the cluster and its clients.
        seed: of the schedules.
        seconds: how long.
        only: the names of the faults to choose from; all, if it is empty.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds

    async def carry_out(faults: dict[str, Act]) -> None:
        for fault in draw_schedule(seed, faults, 1000):
            await asyncio.sleep(fault.pause_seconds)
            if fault.choice % _ONE_STRIKES_ANYHOW_OF:
                await _until_answered(on, 1 + fault.choice % _ANSWERS_MAX)
            if loop.time() > deadline:
                return
            on.done.append(fault.name)
            answered = on.driver.answers["200"]
            print(f"{loop.time() - deadline + seconds:6.1f}s {answered:6} answered, {fault}", flush=True)
            try:
                await faults[fault.name](on, fault)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, KafkaException) as error:
                # The server that it needs may be away by another fault.
                print(f"        {fault.name} could not be carried out: {error!r}", flush=True)

    async with asyncio.TaskGroup() as tasks:
        for faults in (PROCESS_FAULTS, SERVER_FAULTS):
            if chosen := {name: act for name, act in faults.items() if not only or name in only}:
                tasks.create_task(carry_out(chosen))
