"""Test sagas: fixtures that kill real worker processes, for any project with `sagas`.

In your `conftest.py`:

    pytest_plugins = ["sagas.testing"]

A test with workers needs `@pytest.mark.django_db(transaction=True)`: a worker is a separate process
on the test database, and sees only committed rows.

- `saga_worker(saga_id, …)`: a worker runs undisturbed until these sagas have ended or parked.
- `saga_crash(Point.CALLED, "charge_payment:F")`: a worker is killed by SIGKILL at that point.
- `saga_hold(Point.STARTED, "charge_payment:F")`: a worker is frozen by SIGSTOP there; its
  `resume()` lets it go on.
- `saga_crash_walk(begin=…, effects=…)`: kills a worker at each point of a saga, lets another one
  finish, and compares the effects with an undisturbed run. Prints as a table:

      def test_every_crash_point(saga_crash_walk):
          matrix = saga_crash_walk(begin=place_order_number, effects=effects_of_order_number)
          print(matrix)

- `saga_workers` has all of these as methods.

`deliver_commands()` hands the commands in the outbox to the inbox, as relay and consumer would, so
that a saga starts for each.

`await run_in_memory(MySaga(), {"order_id": "1"})` needs no worker and no database: the steps run by
sagaz's engine alone, as `MySaga().run()` does in a project without `sagas`.

All fixtures take the keywords of `sagas.testing.worker.Options`. A worker has the project's
settings and the sagas of its apps; sagas of a test's own are named by `imports=["tests.my_sagas"]`.
"""

from typing import TYPE_CHECKING, Any

from sagas.crash_points import Point
from sagas.testing.delivering import deliver_commands
from sagas.testing.fixtures import (
    saga_crash,
    saga_crash_walk,
    saga_hold,
    saga_worker,
    saga_workers,
)
from sagas.testing.process import Worker
from sagas.testing.walk import CrashMatrix
from sagas.testing.worker import Moment, Options
from sagas.testing.workers import Workers

if TYPE_CHECKING:
    from sagas.run.in_memory import run_in_memory

__all__ = [
    "CrashMatrix",
    "Moment",
    "Options",
    "Point",
    "Worker",
    "Workers",
    "deliver_commands",
    "run_in_memory",
    "saga_crash",
    "saga_crash_walk",
    "saga_hold",
    "saga_worker",
    "saga_workers",
]


def __getattr__(name: str) -> Any:
    """Import late what needs the models: a worker's process imports this before there are any."""
    if name == "run_in_memory":
        from sagas.run.in_memory import run_in_memory

        return run_in_memory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
