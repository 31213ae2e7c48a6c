"""The whole way over PostgreSQL and Kafka, as processes of their own."""

import json
import signal
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from tests import seed
from tests.e2e.full_service import FullService
from tests.e2e.service import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

CLOUDEVENTS = {
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_time",
    "ce_subject",
    "ce_sequence",
    "content-type",
}


def of_order(records: list[ConsumerRecord], order_id: str) -> tuple[dict[str, str], Any]:
    """Headers and payload of the one record about this order."""
    [record] = [each for each in records if each.key == order_id.encode()]
    headers = {name: (value or b"").decode() for name, value in record.headers}
    return headers, json.loads(record.value or b"")


def test_orders_end_and_kafka_has_their_messages(full_service: FullService) -> None:
    full_service.start()
    accepted = full_service.post(seed.ORDER, X_Correlation_ID=seed.CORRELATION_ID)
    assert accepted.status_code == 202
    until(lambda: full_service.order("ORD-001")["status"] == "fulfilled", timeout=30)
    declined = full_service.post(seed.order(order_id="ORD-002", amount=1500), Prefer="wait=30")
    assert declined.json()["status"] == "rejected"
    full_service.place("--count", "100")
    full_service.assert_audit_is_clean()
    assert full_service.statuses() == {"fulfilled": 101, "rejected": 1}

    commands = full_service.kafka_records("orders.commands")
    assert len(commands) == 102
    for record in commands:
        assert {name for name, _ in record.headers} >= CLOUDEVENTS | {"x-correlation-id"}
    headers, payload = of_order(commands, "ORD-001")
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "orders.place"
    assert headers["ce_subject"] == "ORD-001"
    assert headers["content-type"] == "application/json"
    assert headers["x-correlation-id"] == seed.CORRELATION_ID
    assert payload["amount"] == "99.99"
    until(lambda: len(full_service.kafka_records("orders.events")), reaches=102, timeout=30)
    events = full_service.kafka_records("orders.events")
    headers, _ = of_order(events, "ORD-001")
    assert headers["ce_type"] == "order.fulfilled"
    assert headers["x-correlation-id"] == seed.CORRELATION_ID
    assert of_order(events, "ORD-002")[0]["ce_type"] == "order.rejected"


def test_ready_comes_last(full_service: FullService) -> None:
    full_service.start()
    [ready] = [n for n, line in enumerate(lines_of(full_service)) if line.startswith("Ready:")]
    before = [line.rpartition("| ")[2] for line in lines_of(full_service)[:ready]]
    for said in ("web: ready", "relay: ready", "consumer: ready", "consumer: ready"):
        before.remove(said)
    assert before[0].startswith("Preparing the database")
    # From now on nothing is waited for that was still starting.
    response = full_service.post(seed.ORDER, Prefer="wait=30")
    assert response.json()["status"] == "fulfilled"


def lines_of(service: FullService) -> list[str]:
    return service.output.splitlines()


def test_stopping_leaves_no_process_and_nothing_half_done(full_service: FullService) -> None:
    full_service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.5")
    for number in range(20):
        full_service.post(seed.order(order_id=f"ORD-{number}", amount=1500 if number % 3 else 10))
    until(lambda: full_service.query("SELECT 1 FROM sagas_step"), timeout=10)
    assert len(full_service.processes()) == 7, "up, gunicorn and two workers, relay, two consumers"
    full_service.signal(signal.SIGTERM)

    assert full_service.wait() == 0
    assert full_service.processes() == []
    assert full_service.output.endswith("Stopped.\n")
    assert "Traceback" not in full_service.output
    leased = full_service.query(
        "SELECT key FROM sagas_saga WHERE finished_at IS NULL AND next_run_at > now()"
    )
    assert leased == [], "what has not ended is free to be taken at once"
    full_service.assert_audit_is_clean()

    full_service.start()
    until(lambda: len(full_service.ended_orders()), reaches=20, timeout=30)
    assert full_service.statuses() == {"fulfilled": 7, "rejected": 13}
    full_service.assert_nothing_was_done_twice()
    full_service.assert_audit_is_clean()


def test_a_part_that_is_killed_is_named_and_started_again(full_service: FullService) -> None:
    full_service.start()
    [consumer, other] = full_service.consumers()
    for number, victim in enumerate((full_service.relay(), consumer, full_service.web())):
        victim.signal(signal.SIGKILL)
        until(lambda: len(killed(full_service)), reaches=number + 1, timeout=10)
    assert killed(full_service)[0] == "relay"
    assert killed(full_service)[1] in ("consumer-1", "consumer-2")
    assert killed(full_service)[2] == "web"

    until(lambda: full_service.output.count("relay: ready"), reaches=2, timeout=20)
    until(lambda: full_service.output.count("consumer: ready"), reaches=3, timeout=20)
    assert len(full_service.parts()) == 4
    assert other in full_service.consumers(), "nothing happened to the one beside it"
    full_service.place("--count", "20", "--retry-for", "300")
    full_service.assert_audit_is_clean()


def killed(service: FullService) -> list[str]:
    """The parts of which the output says that they were killed."""
    lines = service.output.splitlines()
    return [line.split()[0] for line in lines if "killed by signal 9, starting it again" in line]


def test_a_stopped_consumers_partitions_go_to_the_other(full_service: FullService) -> None:
    full_service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.05")
    until(lambda: len(assignments(full_service)), reaches=2, timeout=20)
    assert all(assignments(full_service).values()), "each has partitions"
    stopped, _ = full_service.consumers()
    with full_service.placing("--count", "80", "--rate", "20"):
        until(lambda: len(full_service.ended_orders()), reaches=10, timeout=20)
        stopped.signal(signal.SIGSTOP)
    assert full_service.statuses() == {"fulfilled": 80}
    assert len(assignments(full_service)) == 1

    epochs = "SELECT key, status, epoch, finished_at FROM sagas_saga ORDER BY key"
    before = full_service.query(epochs)
    stopped.signal(signal.SIGCONT)
    until(lambda: len(assignments(full_service)), reaches=2, timeout=20)
    assert full_service.query(epochs) == before
    assert stopped in full_service.consumers()
    full_service.assert_nothing_was_done_twice()
    full_service.assert_audit_is_clean()


def test_a_redelivered_command_changes_nothing(full_service: FullService) -> None:
    full_service.start()
    for order_id, amount in (("ORD-1", 10), ("ORD-2", 1500)):
        full_service.post(seed.order(order_id=order_id, amount=amount), Prefer="wait=30")
    before = everything(full_service, of="ORD-%")

    commands = full_service.kafka_records("orders.commands")
    with full_service.kafka_client(KafkaProducer, acks="all") as producer:
        for record in commands * 2:
            producer.send(
                record.topic, key=record.key, value=record.value, headers=list(record.headers)
            ).get(timeout=10)
    assert len(full_service.kafka_records("orders.commands")) == 6
    until(lambda: is_consumed(full_service, "orders.commands"), timeout=20)
    # What comes later has ended: so has all that the redelivered ones could have begun.
    full_service.place("--count", "20")

    assert everything(full_service, of="ORD-%") == before
    until(lambda: len(full_service.kafka_records("orders.events")), reaches=22, timeout=30)
    assert len(full_service.kafka_records("orders.events")) == 22
    full_service.assert_audit_is_clean()


def everything(service: FullService, *, of: str) -> list[list[Any]]:
    """All that the orders whose ids are like this have come to."""
    queries = (
        "SELECT order_id, status, updated_at FROM orders_order WHERE order_id",
        "SELECT key, status, epoch, finished_at FROM sagas_saga WHERE key",
        "SELECT reference, key, status FROM orders_simulatedcharge WHERE reference",
        """SELECT g.key, step, kind, s.status, attempt, s.finished_at
        FROM sagas_step s JOIN sagas_saga g ON g.id = s.saga_id WHERE g.key""",
    )
    return [sorted(service.query(f"{query} LIKE '{of}'")) for query in queries]


def is_consumed(service: FullService, topic: str) -> bool:
    """Whether the group has committed all that the topic holds."""
    with service.kafka_client(KafkaAdminClient) as admin:
        group = service.address.named("sagas")
        offsets = admin.list_group_offsets([group])[group]
    committed = {place.partition: offset.offset for place, offset in offsets.items()}
    records = service.kafka_records(topic)
    return all(committed.get(each.partition, 0) > each.offset for each in records)


def assignments(service: FullService) -> dict[str, int]:
    """How many partitions each member of the consumers' group has; empty while they are handed
    out."""
    with service.kafka_client(KafkaAdminClient) as admin:
        [group] = admin.describe_groups([service.address.named("sagas")]).values()
    if group["group_state"] != "Stable":
        return {}
    return {
        member["member_id"]: sum(
            len(topic["partitions"]) for topic in member["member_assignment"]["assigned_partitions"]
        )
        for member in group["members"]
    }
