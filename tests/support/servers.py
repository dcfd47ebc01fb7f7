"""PostgreSQL or Kafka as a test ends it and starts it again."""

import asyncio
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from walletctl.stack.launch import Launch, open_log, spawn
from walletctl.stack.readiness import Probe

READY_SECONDS_MAX = 90.0


@dataclass
class Server:
    """A server that can be ended in any way and started again on the same data and port."""

    launch: Callable[[], Launch]
    probe: Probe
    log_file: Path
    child: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, in the main thread: the server ends with the thread that started it."""
        with open_log(self.log_file) as log:
            self.child = spawn(self.launch(), log)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.child is not None
        self.child.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal that ends it, and wait for the end."""
        self.send(number)
        assert self.child is not None
        await asyncio.to_thread(self.child.wait, 60)

    async def ready(self) -> None:
        """Wait until it answers. Start it again if it ended: its last run may still hold files or the port."""
        async with asyncio.timeout(READY_SECONDS_MAX):
            while not await self.probe.ready():
                if self.child is None or self.child.poll() is not None:
                    self.start()
                await asyncio.sleep(0.1)
