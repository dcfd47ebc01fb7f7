"""Work that goes on beside a test until the test ends it."""

import asyncio
from collections.abc import Awaitable, Callable


async def repeat(work: Callable[[], Awaitable[object]], until: asyncio.Event) -> None:
    """Do the work again and again until the event is set; the work under way is finished."""
    while not until.is_set():
        await work()
