"""The same three steps as workflows of DBOS Transact, which keeps its journal in PostgreSQL too.

Of what its documentation offers this was the fastest: plain functions, `start_workflow`, a few
threads. Coroutines cost it a thread switch for each statement, and its queue one more for each
workflow; more threads than these only wait for each other.
"""

from typing import Any
from urllib.parse import urlsplit

from dbos import DBOS

THREADS = 8
CONNECTIONS = 20


@DBOS.step()
def one(key: str) -> dict[str, str]:
    return {"one": key}


@DBOS.step()
def two(key: str) -> dict[str, str]:
    return {"two": key}


@DBOS.step()
def three(key: str) -> dict[str, str]:
    return {"three": key}


@DBOS.workflow()
def workflow(key: str) -> dict[str, str]:
    return {**one(key), **two(key), **three(key)}


class Workflows:
    title = "DBOS, three steps"

    def __init__(self, url: str) -> None:
        self.database = urlsplit(url).path.strip("/")
        self._config: dict[str, Any] = {
            "name": "benchmark",
            "system_database_url": url,
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
            "log_level": "WARNING",
        }

    def prepare(self, count: int) -> None:
        self._count = count
        DBOS(config=self._config)
        DBOS.launch()

    def run(self) -> None:
        handles = [DBOS.start_workflow(workflow, f"K-{n}") for n in range(self._count)]
        for handle in handles:
            handle.get_result()

    def close(self) -> None:
        DBOS.destroy()
