"""Four writers on one key: `python -m tests.integration.writers ROUNDS`, a process of its own."""

import sys
import threading

WRITERS = 4
KEY = "the only one"


def main(rounds: int) -> None:
    import django

    django.setup()
    from django.db import connection, transaction

    from outbox import enqueue

    together = threading.Barrier(WRITERS)
    written: list[int] = []

    def write(writer: int) -> None:
        try:
            for number in range(rounds):
                together.wait(30)
                with transaction.atomic(), connection.cursor() as cursor:
                    enqueue(
                        topic="orders.commands",
                        key=KEY,
                        type="test.written",
                        payload={"writer": writer, "number": number},
                    )
                    cursor.execute("SELECT pg_sleep(random() * 0.01)")
                written.append(number)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(len(written) != WRITERS * rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]))
