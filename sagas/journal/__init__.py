"""Write and read the tables of sagas: claims, steps, attempts, ends, cancels, the inbox.

This is the only room that writes those tables, so the state machine, the fence and the order of
locks stand here and nowhere else. `run`, `inbox`, `operations` and `worker` call the room; it
decides nothing for them, and calls none of them. Here must be nothing of sagaz, no broker, and no
asyncio but in `group_commit`, through which sagas that run side by side share transactions.
"""
