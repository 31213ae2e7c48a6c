"""Write and read the tables of sagas: claims, steps, attempts, ends, cancels, the inbox.

No other package writes the tables, so the state machine, the fence and the order of locks stand
here and nowhere else. `run`, `inbox`, `operations` and `worker` call the journal; the journal calls
none of its callers. Here must be nothing of sagaz, no broker, and no asyncio but in `group_commit`,
through which parallel sagas share transactions.
"""
