"""Run the three steps as workflows of DBOS Transact, which keeps its journal in PostgreSQL too.

Of the ways in its documentation the fastest was plain functions, `start_workflow`, and a few
threads. Coroutines cost DBOS a thread switch per statement, and its queue one more per workflow;
more threads than these only wait for each other.
"""

from typing import Any
from urllib.parse import urlsplit

from dbos import DBOS

THREADS = 8
CONNECTIONS = 20


@DBOS.step()
def one(key: str) -> dict[str, str]:
    """Run the first step."""
    return {"one": key}


@DBOS.step()
def two(key: str) -> dict[str, str]:
    """Run the second step."""
    return {"two": key}


@DBOS.step()
def three(key: str) -> dict[str, str]:
    """Run the third step."""
    return {"three": key}


@DBOS.workflow()
def workflow(key: str) -> dict[str, str]:
    """Run the steps one after the other."""
    return {**one(key), **two(key), **three(key)}


class Workflows:
    """Run workflows in this process."""

    title = "DBOS, three steps"

    def __init__(self, url: str) -> None:
        self.database = urlsplit(url).path.strip("/")
        self._count = 0
        self._config: dict[str, Any] = {
            "name": "benchmark",
            "system_database_url": url,
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
            "log_level": "WARNING",
        }

    def prepare(self, count: int) -> None:
        """Start DBOS."""
        self._count = count
        DBOS(config=self._config)
        DBOS.launch()

    def run(self) -> None:
        """Start that many workflows, and wait for all."""
        handles = [DBOS.start_workflow(workflow, f"K-{n}") for n in range(self._count)]
        for handle in handles:
            handle.get_result()

    def close(self) -> None:
        """Stop DBOS."""
        DBOS.destroy()
