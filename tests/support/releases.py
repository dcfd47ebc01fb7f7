"""Commands of this release, or of the last one."""

import asyncio
import os
import sys


async def walletctl(*arguments: str, **environment: str) -> str:
    """Run a command in a process of its own, which may have the last release's code; return what it printed."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walletctl", *arguments),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await command.communicate()
    assert command.returncode == 0, output.decode()
    return output.decode()
