"""`run_saga_consumer --processes 2`, the command itself: its processes are killed, and all end."""

import os
import re
import signal
import socket
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import processes
from tests.e2e.full_service import Process, running_processes
from tests.e2e.service import START_TIMEOUT, until
from tests.ports import free_port
from tests.relaying.relays import RelayProcess
from tests.relaying.stage import Stage

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

CONSUMER = (*processes.MANAGE, "run_saga_consumer", "--processes", "2")
PLACE = """
from decimal import Decimal
from orders.services import Item, place_order
for number in range({count}):
    item = Item(product_id="ITEM-3", name="Widget", quantity=1)
    place_order(
        order_id=f"{name}-{{number}}", user_id="u", items=[item], amount=Decimal("9.50")
    )
"""


class Consumers:
    """The command, and what is seen of it from outside.

    Args:
        command: which is running.
        port: of its metrics.
        alive: its file.
    """

    def __init__(self, command: RelayProcess, *, port: int, alive: Path) -> None:
        self.command = command
        self._port = port
        self.alive = alive

    def await_ready(self, count: int) -> None:
        def has_come() -> bool:
            return self.command.output.count("consumer: ready") == count

        until(lambda: has_come() or not self.command.is_running, timeout=START_TIMEOUT)
        assert has_come(), self.command.output

    def processes(self) -> list[Process]:
        return [each for each in running_processes() if each.parent == self.command.pid]

    def metrics(self) -> dict[str, float]:
        url = f"http://127.0.0.1:{self._port}/metrics"
        with urllib.request.urlopen(url, timeout=processes.TIMEOUT) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {
                "".join([sample.name, *sample.labels.values()]): sample.value
                for family in families
                for sample in family.samples
            }

    def accepted(self) -> int:
        return int(self.metrics()["sagas_inbox_accepted_total"])


@pytest.fixture
def consumers(stage: Stage) -> Consumers:
    """Two, and both are ready."""
    port, alive = free_port(), stage.directory / "alive"
    command = stage.relay(
        *("--metrics-port", str(port), "--alive-file", str(alive)),
        command=CONSUMER,
        PAYMENT_GATEWAY_URL="simulated://?delay=0.2",
        SAGA_LEASE="2",
        TMPDIR=str(stage.directory),  # what a command leaves there that is killed
    )
    found = Consumers(command, port=port, alive=alive)
    found.await_ready(2)
    return found


def place(stage: Stage, name: str, *, count: int) -> int:
    stage.manage("shell", "-v0", "-c", PLACE.format(name=name, count=count))
    return count


def workers(stage: Stage) -> int:
    """How many workers have begun a step."""
    [(count,)] = stage.query("SELECT count(DISTINCT worker) FROM sagas_step")
    return int(count)


def fulfilled(stage: Stage) -> int:
    [(count,)] = stage.query("SELECT count(*) FROM orders_order WHERE status = 'fulfilled'")
    return int(count)


def is_gone(process: Process) -> bool:
    return process.pid not in {each.pid for each in running_processes()}


def test_a_process_that_is_killed_is_started_again_and_its_sagas_end(
    stage: Stage, consumers: Consumers
) -> None:
    stage.relay()
    placed = place(stage, "first", count=20)
    while workers(stage) < 2:  # until both have had something
        placed += place(stage, f"more-{placed}", count=20)
    until(lambda: consumers.accepted() == placed, timeout=60)

    killed, other = consumers.processes()
    os.kill(killed.pid, signal.SIGKILL)
    consumers.await_ready(3)
    assert "killed by signal 9, starting it again" in consumers.command.output
    [again] = [each for each in consumers.processes() if each != other]
    assert again.pid != killed.pid
    assert other in consumers.processes()

    assert consumers.accepted() == placed, "what the dead has counted still counts"
    placed += place(stage, "last", count=20)
    until(lambda: fulfilled(stage) == placed, timeout=120)
    until(lambda: consumers.accepted() == placed, timeout=20)
    until(consumers.alive.exists, timeout=20)

    running = consumers.processes()
    code, _ = consumers.command.terminate(timeout=processes.TIMEOUT)
    assert code == 0, consumers.command.output
    assert all(map(is_gone, running))
    assert consumers.command.output.count("consumer: stopped") == 3
    assert "Traceback" not in stage.logs()


def test_a_process_that_hangs_makes_the_file_grow_old_and_none_outlives_its_supervisor(
    consumers: Consumers,
) -> None:
    until(consumers.alive.exists, timeout=60)
    hanging, other = consumers.processes()
    os.kill(hanging.pid, signal.SIGSTOP)
    # Its own last sign may have been passed on or not. Then only the other gives more.
    until(lambda: sign_of(other) >= sign_of(hanging) + 10, timeout=60)
    assert consumers.alive.stat().st_mtime <= sign_of(hanging)

    consumers.command.kill()
    os.kill(hanging.pid, signal.SIGCONT)
    until(lambda: is_gone(hanging) and is_gone(other), timeout=processes.TIMEOUT)


def sign_of(process: Process) -> float:
    """When a process has touched the file that is the last of its arguments."""
    return Path(process.command.split()[-1]).stat().st_mtime


def test_an_interrupt_ends_all(consumers: Consumers) -> None:
    running = consumers.processes()
    for process in running:  # as a terminal does, which sends it to each
        os.kill(process.pid, signal.SIGINT)
    assert consumers.command.interrupt(timeout=processes.TIMEOUT) == 0, consumers.command.output
    assert all(map(is_gone, running))


def test_what_is_wrong_is_said_once_and_before_anything_starts(stage: Stage) -> None:
    def refused(arguments: Sequence[str], env: dict[str, str]) -> str:
        command = ("run_saga_consumer", "--processes", "2", *arguments)
        done = processes.manage(stage.directory, *command, **stage.env | env)
        assert done.stdout == ""
        return processes.refusal(done)

    with socket.socket() as taken, ThreadPoolExecutor() as pool:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        wrong = {
            f"cannot serve metrics at 127.0.0.1:{port}": (["--metrics-port", port], {}),
            "cannot write /none/alive": (["--alive-file", "/none/alive"], {}),
            "the pool of database connections holds 5": ([], {"DATABASE_POOL_SIZE": "5"}),
            "127.0.0.1:1": ([], {"SAGAZ_BROKER_URL": "kafka://127.0.0.1:1"}),
            "memory:// lives inside one process": ([], {"SAGAZ_BROKER_URL": "memory://"}),
            "pigeon": ([], {"PAYMENT_GATEWAY_URL": "pigeon://loft"}),
        }
        lines = pool.map(lambda arguments: refused(*arguments), wrong.values())
        for expected, line in zip(wrong, lines, strict=True):
            assert expected in line


def test_one_that_fails_before_it_has_worked_ends_the_command(
    stage: Stage, one_connection_url: str
) -> None:
    """As where `max_connections` holds too few for all: the first to come takes what there is."""
    command = stage.relay(command=CONSUMER, DATABASE_URL=one_connection_url)
    assert command.wait(timeout=processes.TIMEOUT) == 1
    assert "too many connections for role" in command.output
    last = command.output.splitlines()[-1]
    assert re.search(r"consumer-[12] ended with exit code 1 before it was ready, see above", last)
    assert "starting it again" not in command.output
    assert "Traceback" not in command.output


@pytest.fixture
def one_connection_url(stage: Stage) -> Iterator[str]:
    """The database's URL as a role that may have one connection."""
    name = f"test_{uuid.uuid4().hex}"
    stage.query(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1")
    stage.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    address = urlsplit(stage.database_url)
    place = f"{address.hostname}:{address.port or 5432}"
    try:
        yield address._replace(netloc=f"{name}:secret@{place}").geturl()
    finally:
        stage.clean_up()
        stage.query(f"DROP OWNED BY {name}")
        stage.query(f"DROP ROLE {name}")
