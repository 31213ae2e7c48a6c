"""Write into the outbox: `python -m tests.relaying.writers COMMITTED --seconds 60 …`, as a process.

It writes until its seconds are over, and its input too. What has been committed is written into the
file COMMITTED, one id a line; the first line says how many seconds a transaction took at most.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

FILLER = "x" * 250  # some 300 bytes of payload
TYPE = "test.written"
# As `enqueue()` does, for many messages in one round trip: all locks, then the ids.
MANY = """
SELECT pg_advisory_xact_lock(lock) FROM unnest(%s::bigint[]) AS lock;
INSERT INTO outbox_message (message_id, topic, type, key, key_hash, payload, headers,
    correlation_id, traceparent, created_at)
SELECT gen_random_uuid(), %s, %s, key, hash, convert_to(payload, 'UTF8'), '{}', '', '',
    clock_timestamp()
FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS new (key, hash, payload)
RETURNING id
"""


def main() -> None:
    import django

    django.setup()
    options = _options()
    until = time.monotonic() + options.seconds
    input_over = threading.Event()
    threading.Thread(target=_await_end_of_input, args=(input_over,), daemon=True).start()

    def goes_on(turn: float) -> bool:
        return turn < until or not input_over.is_set()

    written: list[list[int]] = [[] for _ in range(options.writers)]
    slowest = [0.0] * options.writers
    threads = [
        threading.Thread(target=_write, args=(options, number, goes_on, written[number], slowest))
        for number in range(options.writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = sorted(id_ for each in written for id_ in each)
    options.committed.write_text("".join(f"{line}\n" for line in (max(slowest), *ids)))


def _await_end_of_input(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("committed", type=Path)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e6, help="messages a second, of all")
    parser.add_argument("--together", type=int, default=1, help="messages in a transaction")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds, at most, until commit")
    return parser.parse_args()


def _write(
    options: argparse.Namespace,
    writer: int,
    goes_on: Callable[[float], bool],
    written: list[int],
    slowest: list[float],
) -> None:
    from django.db import connection

    chance = random.Random(writer)
    pause = options.together * options.writers / options.rate
    turn = time.monotonic() + pause * writer / options.writers
    number = 0
    try:
        while goes_on(turn):
            time.sleep(max(0.0, turn - time.monotonic()))
            keys = chance.sample(range(options.keys), options.together)
            payloads = [
                json.dumps({"writer": writer, "number": number + n, "filler": FILLER})
                for n in range(options.together)
            ]
            linger = chance.random() * options.linger
            began = time.monotonic()
            written += _commit(options.topic, [f"key-{key}" for key in keys], payloads, linger)
            slowest[writer] = max(slowest[writer], time.monotonic() - began - linger)
            number += options.together
            turn = max(turn + pause, time.monotonic() - 1.0)
    finally:
        connection.close()


def _commit(topic: str, keys: list[str], payloads: list[str], linger: float) -> list[int]:
    """One transaction; returns the ids that it has written."""
    from django.db import connection, transaction

    from outbox import enqueue
    from outbox.keys import lock_number
    from outbox.murmur2 import murmur2

    with transaction.atomic():
        if len(keys) == 1:
            payload = json.loads(payloads[0])
            ids = [enqueue(topic=topic, key=keys[0], type=TYPE, payload=payload).id]
        else:
            hashes = [murmur2(key.encode()) for key in keys]
            locks = sorted(map(lock_number, hashes))
            with connection.cursor() as cursor:
                cursor.execute(MANY, [locks, topic, TYPE, keys, hashes, payloads])
                cursor.nextset()
                ids = [id_ for (id_,) in cursor.fetchall()]
        time.sleep(linger)
    return ids


if __name__ == "__main__":
    main()
