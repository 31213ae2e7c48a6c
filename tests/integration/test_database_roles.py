"""Web, relay and consumer, each as a role of PostgreSQL with exactly the rights that
docs/how-to/database-roles.md lists."""

import json
import re
import urllib.request
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests import processes, seed
from tests.e2e.service import until
from tests.ports import free_port
from tests.relaying.relays import RelayProcess
from tests.relaying.stage import Stage

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

DOCS = processes.ROOT / "docs/how-to/database-roles.md"
ROLES = ("web", "relay", "consumer")
PLACE = """
from django.test import Client
order = {order}
for path in ("/orders/", "/orders/%s/cancel/" % order["order_id"])[:{requests}]:
    answer = Client().post(path, order if path == "/orders/" else {{}}, "application/json")
    assert answer.status_code == 202, (path, answer.content)
for path in ("/orders/", "/orders/%s/" % order["order_id"], "/health/ready/", "/admin/login/"):
    answer = Client().get(path)
    assert answer.status_code == 200, (path, answer.content)
"""


@pytest.fixture
def urls(stage: Stage) -> Iterator[dict[str, str]]:
    """The database's URL as each of the roles."""
    names = {role: f"test_{role}_{uuid.uuid4().hex[:8]}" for role in ROLES}
    [granted] = re.findall(r"```sql\n(-- web.*?)```", DOCS.read_text(), re.DOTALL)
    for role, name in names.items():
        granted = re.sub(rf"\bTO {role};", f"TO {name};", granted)
        stage.query(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    stage.query(granted)
    try:
        yield {role: _as(name, stage.database_url) for role, name in names.items()}
    finally:
        stage.clean_up()
        with psycopg.connect(stage.database_url, autocommit=True) as connection:
            for one in map(sql.Identifier, names.values()):
                connection.execute(sql.SQL("DROP OWNED BY {}").format(one))
                connection.execute(sql.SQL("DROP ROLE {}").format(one))


def _as(role: str, url: str) -> str:
    address = urlsplit(url)
    place = f"{address.hostname}:{address.port or 5432}"
    return address._replace(netloc=f"{role}:secret@{place}").geturl()


def place(stage: Stage, url: str, order_id: str, *, requests: int = 1) -> None:
    order = seed.ORDER | {"order_id": order_id}
    code = PLACE.format(order=json.dumps(order), requests=requests)
    env = {"DATABASE_URL": url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "testserver"}
    done = processes.manage(stage.directory, "shell", "-v0", "-c", code, **stage.env | env)
    assert done.returncode == 0, done.stderr


def test_orders_are_fulfilled_by_roles_that_own_nothing(stage: Stage, urls: dict[str, str]) -> None:
    port = free_port()
    relay = stage.relay("--metrics-port", str(port), DATABASE_URL=urls["relay"])
    command = (*processes.MANAGE, "run_saga_consumer", "--processes", "1")
    consumer = stage.relay(command=command, DATABASE_URL=urls["consumer"])
    with stage.reader().running() as reader:
        place(stage, urls["web"], "A", requests=2)
        until(lambda: status(stage, "A") in ("fulfilled", "cancelled"), timeout=90)
        assert_segments_are_emptied(stage)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert "outbox_parked_messages 0" in answer.read().decode()
        assert "permission denied" not in stage.logs()

        without_housekeeping(stage, relay, urls)
        again = without_deletes(stage, relay, urls)
    assert not reader.repeated
    for process in (relay, again, consumer):
        assert process.terminate()[0] == 0, process.output
    assert "Traceback" not in stage.logs()


def assert_segments_are_emptied(stage: Stage) -> None:
    until(lambda: stage.query("SELECT last_value FROM outbox_segment") != [(0,)], timeout=20)
    until(lambda: stage.query("SELECT pg_relation_size('outbox_message_0')") == [(0,)], timeout=20)


def without_housekeeping(stage: Stage, relay: RelayProcess, urls: dict[str, str]) -> None:
    """One line, which says what to do, and publishing goes on."""
    name = urlsplit(urls["relay"]).username
    for number in range(4):
        stage.query(f"REVOKE ALL ON outbox_message_{number} FROM {name}")
    stage.query(f"REVOKE ALL ON SEQUENCE outbox_segment FROM {name}")
    place(stage, urls["web"], "B")
    until(lambda: status(stage, "B") == "fulfilled", timeout=30)
    until(lambda: "segments cannot be emptied" in relay.output, timeout=20)
    until(lambda: not stage.waiting(), timeout=30)
    [line] = [line for line in relay.output.splitlines() if "permission denied" in line]
    assert "publishing goes on" in line
    stage.query(line[line.index("GRANT ") :])
    assert stage.query(
        f"SELECT has_table_privilege('{name}', 'outbox_message_3', 'TRUNCATE'),"
        f" has_sequence_privilege('{name}', 'outbox_segment', 'UPDATE')"
    ) == [(True, True)]


def without_deletes(stage: Stage, relay: RelayProcess, urls: dict[str, str]) -> RelayProcess:
    """Nothing more is published, nor anything again by a relay that is started then."""
    name = urlsplit(urls["relay"]).username
    stage.query(f"REVOKE DELETE ON outbox_message FROM {name}")
    place(stage, urls["web"], "C")
    until(lambda: "the database refuses what the relay needs" in relay.output, timeout=20)
    again = stage.relay(DATABASE_URL=urls["relay"])
    until(
        lambda: "the rights that docs/how-to/database-roles.md lists" in again.output,
        timeout=60,
    )
    assert stage.waiting()
    assert relay.is_running
    stage.query(f"GRANT DELETE ON outbox_message TO {name}")
    until(lambda: status(stage, "C") == "fulfilled", timeout=30)
    until(lambda: not stage.waiting(), timeout=30)
    return again


def status(stage: Stage, order_id: str) -> object:
    return dict(stage.query("SELECT order_id, status FROM orders_order"))[order_id]
