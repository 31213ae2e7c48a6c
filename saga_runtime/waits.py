"""Wait for an event, for so long at most."""

import asyncio


async def until_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; tell whether it was set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
