"""Mend the connections of Django's async ORM.

The connections live in a thread of asgiref. No request ends there, so Django never looks at them.
"""

import asyncio
from contextlib import suppress

from asgiref.sync import sync_to_async
from django.db import Error

from saga_runtime.database_errors import causes
from saga_runtime.database_threads import heal

PATIENCE = 2.0  # seconds; the thread may be busy with another saga's query


async def heal_after(error: BaseException) -> None:
    """Close the broken connections of the async ORM, where an error is a database's.

    The next query then has a new connection.

    Args:
        error: raised by a step, whose connections may have been used.
    """
    if any(issubclass(type(each), Error) for each in causes(error)):
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await sync_to_async(heal, thread_sensitive=True)()
