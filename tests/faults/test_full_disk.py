"""A full disk: the processes report it and wait, and continue when the disk has room again."""

import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from faults.attack import attacked
from faults.cluster import running_cluster
from faults.field import Field, session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

Eventually = Callable[..., Awaitable[Any]]
_DISK_BYTES = 200_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", directory],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


def fill(disk: Path) -> Path:
    """Fill the disk; return the file that fills it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


async def answered(on: Field, eventually: Eventually, status: str, more: int) -> None:
    """Wait for so many more answers of this status."""
    before = on.driver.answers[status]

    async def enough() -> bool:
        return on.driver.answers[status] >= before + more

    await eventually(enough, 90)


async def test_while_postgres_has_no_disk_the_api_says_503_and_everything_goes_on_when_it_has(
    tmp_path: Path, seed: int, eventually: Eventually, disk: Path
) -> None:
    settings = {"max_wal_size": "64MB", "min_wal_size": "32MB"}
    async with (
        running_cluster(tmp_path, postgres_disk=disk, postgres_settings=settings) as cluster,
        attacked(cluster, seed) as on,
    ):
        await answered(on, eventually, "200", 200)
        filler = fill(disk)
        await answered(on, eventually, "503", 50)
        await panic(on)
        await answered(on, eventually, "503", 50)
        filler.unlink()
        await cluster.postgres.ready()
        await answered(on, eventually, "200", 200)


async def panic(on: Field) -> None:
    """Switch log segments until PostgreSQL ends, because the disk is full (PANIC)."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with session(on) as connection:
            for _ in range(_DISK_BYTES // 16_000_000 + 1):
                await connection.execute("SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()")
            pytest.fail("PostgreSQL wrote all segments, although the disk is full")
    assert "PANIC" in on.cluster.postgres.log_file.read_text()


async def test_while_kafka_has_no_disk_the_api_goes_on_and_the_events_follow_when_it_has(
    tmp_path: Path, seed: int, eventually: Eventually, disk: Path
) -> None:
    async def pending() -> int:
        async with session(on) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL"))

    async def many_are_pending() -> bool:
        return await pending() > 100

    async with running_cluster(tmp_path, kafka_disk=disk) as cluster, attacked(cluster, seed) as on:
        await answered(on, eventually, "200", 200)
        filler = fill(disk)
        before = on.driver.answers.copy()
        await eventually(many_are_pending, 90)
        assert not (on.driver.answers - before)["503"]
        filler.unlink()
        assert cluster.kafka.child is not None
        print("kafka ended with", cluster.kafka.child.poll())
        if cluster.kafka.child.poll() is None:
            await cluster.kafka.end(signal.SIGKILL)
        await cluster.kafka.ready()
