"""Run a consumer and an executor as a single service, and end the service when a part dies."""

import threading
import time
from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from brokers import Broker
from saga_runtime import project_settings
from saga_runtime.logs import get_logger
from sagas.definition.registry import call_start_hooks
from sagas.inbox.consumer import SagaConsumer
from sagas.run.timing import Timing
from sagas.worker.executor import Executor

logger = get_logger(__name__)

LOOK_EVERY = 0.1  # seconds between two looks at whether a part has died
OTHER_THREADS = 5  # main, inbox, leases, group commit, and the async ORM's
# For the journal, and for calls. SQLite writes one at a time: more would only wait for each other.
_ON_SQLITE = (1, 2)
_ON_A_SERVER = (4, 8)
MOST_CONNECTIONS = _ON_A_SERVER[0] + 2 * _ON_A_SERVER[1] + OTHER_THREADS + 1
"""Connections of a consumer's process on a server, with the one that wakes the relay."""
_POOL_MIN_SIZE = 4  # psycopg_pool's own default


def _check_pool(needed: int) -> None:
    """Refuse a small pool: a thread without a connection would take the database for away.

    Args:
        needed: the most connections of a consumer.

    Raises:
        ImproperlyConfigured: the pool holds fewer.
    """
    held = pool_size(connection.settings_dict["OPTIONS"].get("pool"))
    if held is not None and held < needed:
        raise ImproperlyConfigured(
            f"the pool of database connections holds {held}, a consumer needs {needed}: "
            'raise DATABASE_POOL_SIZE (in a project of your own: OPTIONS["pool"]["max_size"])'
        )


def pool_size(pool: object) -> int | None:
    """Return how many connections a pool hands out; None where there is no pool.

    Args:
        pool: Django's `OPTIONS["pool"]`: a dict for psycopg_pool, or true for the defaults. A pool
            without `max_size` never grows beyond the `min_size`.
    """
    if not pool:
        return None
    options = pool if isinstance(pool, dict) else {}
    least = int(options.get("min_size", _POOL_MIN_SIZE))
    most = options.get("max_size")
    return least if most is None else int(most)


class _Both:
    """Pass a sign of life on when both loops have turned since the last."""

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._turned = {"first": False, "second": False}

    def first(self) -> None:
        """Note a turn of the first loop."""
        self._turn("first")

    def second(self) -> None:
        """Note a turn of the second loop."""
        self._turn("second")

    def _turn(self, which: str) -> None:
        self._turned[which] = True
        if all(self._turned.values()):
            self._turned = dict.fromkeys(self._turned, False)
            self._alive()


def _end_within(timing: Timing) -> float:
    """Return the seconds for both parts to end.

    What runs has the grace to finish, and as long again for the step behind which it stops.
    """
    return 2 * timing.grace + 2.0


class SagaService:
    """Run a consumer that accepts commands, and an executor that runs the sagas.

    Args:
        consumer: accepts commands; None where there are none.
        executor: runs sagas.
        end_within: seconds for both parts to end after a stop. A part that a step or a trigger
            blocks for longer is abandoned. By default what the usual timing gives.
    """

    def __init__(
        self, consumer: SagaConsumer | None, executor: Executor, *, end_within: float | None = None
    ) -> None:
        self._end_within = _end_within(Timing()) if end_within is None else end_within
        self._consumer = consumer
        self._executor = executor
        self._errors: list[BaseException] = []

    @classmethod
    def from_settings(
        cls,
        broker: Broker | None,
        *,
        concurrency: int,
        alive: Callable[[], None] = lambda: None,
        timing: Timing | None = None,
    ) -> "SagaService":
        """Build both parts from the project's settings.

        Args:
            broker: with the commands; None for sagas that were started in the database alone.
            concurrency: how many sagas run at a time.
            alive: called when both loops have turned since the last call.
            timing: of the executor, in the place of the settings'.

        Raises:
            ImproperlyConfigured: the pool of database connections is too small.
            SagasError: a start hook of an app has found a wrong setting.
        """
        timing = timing or Timing.from_settings()
        call_start_hooks()
        threads = _ON_SQLITE if connection.vendor == "sqlite" else _ON_A_SERVER
        journal, calls = threads
        # Twice: each thread for calls may get stuck, keep its connection, and be replaced.
        _check_pool(journal + 2 * calls + OTHER_THREADS)
        both = _Both(alive)
        executor = Executor(
            alive=alive if broker is None else both.second,
            concurrency=concurrency,
            timing=timing,
            max_takeovers=project_settings.max_takeovers(),
            journal_threads=journal,
            call_threads=calls,
        )
        consumer = None
        if broker is not None:
            consumer = SagaConsumer(
                broker,
                topics=project_settings.command_topics(),
                group=project_settings.consumer_group(),
                worker=executor,
                alive=both.first,
            )
        return cls(consumer, executor, end_within=_end_within(timing))

    def run(self, stop: threading.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Run the parts until `stop` is set.

        If a part dies the other part stops, and the dead part's error is raised. The caller's event
        is left unset: so the caller can tell such an end from a requested end.

        Args:
            stop: set by the caller.
            ready: called once, as soon as commands are received and sagas are claimed.
        """
        halt = threading.Event()
        parts = [self._part(self._executor.run, halt, "executor")]
        if self._consumer is not None:
            parts.insert(0, self._part(self._consumer.run, halt, "inbox"))
        for part in parts:
            part.start()
        try:
            is_ready = False
            while not stop.wait(LOOK_EVERY) and not self._errors:
                if not is_ready and self._is_ready():
                    is_ready = True
                    ready()
        finally:
            halt.set()
            self._join(parts)
        if self._errors:
            raise self._errors[0]

    def _is_ready(self) -> bool:
        has_joined = self._consumer is None or self._consumer.is_joined
        return has_joined and self._executor.has_claimed

    def _part(
        self, run: Callable[[threading.Event], None], halt: threading.Event, name: str
    ) -> threading.Thread:
        # A daemon: a step or a trigger that blocks it must not hold up the end of the process.
        return threading.Thread(target=self._guard, args=(run, halt), name=name, daemon=True)

    def _join(self, parts: list[threading.Thread]) -> None:
        """Wait for the parts to end; a blocked part ends with the process."""
        up_at = time.monotonic() + self._end_within
        for part in parts:
            part.join(max(0.0, up_at - time.monotonic()))
            if part.is_alive():
                logger.error(
                    "the %s does not end: a step or a trigger blocks it. It is left behind, and "
                    "what it ran is taken up when the leases have run out",
                    part.name,
                )

    def _guard(self, run: Callable[[threading.Event], None], halt: threading.Event) -> None:
        try:
            run(halt)
            # Half a service would accept commands that nobody runs, or run sagas to no end.
            if not halt.is_set():
                name = threading.current_thread().name
                raise RuntimeError(f"the {name} ended by itself")  # noqa: TRY301 - as any other
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._errors.append(error)
