"""The queries of the soak tests see what they are for: each fault is put into books in order."""

import psycopg
import pytest

from tests.soak import books

pytestmark = pytest.mark.postgres

ORDERS = 10
# As ten orders leave it: 3 declined, 7 cancelled, the others fulfilled, one piece each.
IN_ORDER = """
INSERT INTO orders_order (id, order_id, user_id, items, amount, status, reason, saga_id,
    correlation_id, traceparent, created_at, updated_at, cancel_requested_at)
SELECT n + 1, 'SOAK-' || n, 'USER', '[{"id": "ITEM-1", "name": "", "quantity": 1}]', 10 + n,
    CASE n WHEN 3 THEN 'rejected' WHEN 7 THEN 'cancelled' ELSE 'fulfilled' END, '',
    md5(n::text)::uuid, '', '', now(), now(), CASE n WHEN 7 THEN now() END
FROM generate_series(0, 9) AS n;
INSERT INTO orders_reservation (order_id, product_id, quantity, status)
SELECT o.id, p.id, 1, CASE o.status WHEN 'fulfilled' THEN 'shipped' ELSE 'released' END
FROM orders_order AS o, orders_product AS p WHERE product_id = 'ITEM-1';
INSERT INTO orders_simulatedcharge (key, reference, amount, status, created_at)
SELECT order_id, order_id, amount,
    CASE status WHEN 'fulfilled' THEN 'charged' ELSE 'refunded' END, now()
FROM orders_order WHERE status <> 'rejected';
INSERT INTO orders_payment (order_id, key, transaction_id, amount, status, charged_at)
SELECT id, order_id, '', amount, CASE status WHEN 'fulfilled' THEN 'charged' ELSE 'refunded' END,
    now()
FROM orders_order WHERE status <> 'rejected';
INSERT INTO orders_shipment (order_id, tracking, created_at)
SELECT id, order_id, now() FROM orders_order WHERE status = 'fulfilled';
UPDATE orders_product SET on_hand = on_hand - 8, shipped = 8 WHERE product_id = 'ITEM-1';
INSERT INTO sagas_saga (id, name, key, version, definition_hash, input, status, paused, epoch,
    worker, next_run_at, failure, park_reason, correlation_id, traceparent, created_at)
SELECT saga_id, 'order', order_id, 1, '', '{}',
    CASE status WHEN 'fulfilled' THEN 'completed' ELSE 'rolled_back' END, false, 1, '', now(), '',
    '', '', '', now()
FROM orders_order;
INSERT INTO sagas_step (saga_id, step, kind, attempt, status, key, result, error, resolved_by,
    worker, started_at)
SELECT id, 'reserve_inventory', 'F', 2, 'done', '', '', '', '', 'next', now() FROM sagas_saga;
INSERT INTO sagas_attempt (saga_id, step, kind, attempt, status, error, worker, started_at, at)
SELECT id, 'reserve_inventory', 'F', 1, 'started', '', 'lost', now(), now() FROM sagas_saga;
"""
SHIP_AGAIN = """
UPDATE orders_product SET on_hand = on_hand - 1, shipped = shipped + 1 WHERE product_id = 'ITEM-1'
"""
PARK = "UPDATE sagas_saga SET status = 'parked', park_reason = 'away' WHERE key = 'SOAK-1'"
FAULTS = {
    "UPDATE orders_order SET order_id = 'SOAK-10' WHERE order_id = 'SOAK-1'": {
        "lost",
        "orders",
        "fulfilled, and not paid or not shipped",
    },
    """
    INSERT INTO orders_simulatedcharge (key, reference, amount, status, created_at)
    VALUES ('another', 'SOAK-1', 11, 'refunded', now())
    """: {"charges"},
    """
    INSERT INTO sagas_attempt (saga_id, step, kind, attempt, status, error, worker, started_at, at)
    SELECT saga_id, step, kind, 1, 'done', error, 'another', started_at, at FROM sagas_attempt
    LIMIT 1
    """: {"steps"},
    SHIP_AGAIN: {"stock"},
    "UPDATE orders_order SET status = 'rejected' WHERE order_id = 'SOAK-1'": {
        "not as planned",
        "stock",
        "money",
        "undone, and paid, shipped or held",
    },
    "UPDATE orders_order SET status = 'pending' WHERE order_id = 'SOAK-3'": {"not as planned"},
    "UPDATE orders_order SET cancel_requested_at = NULL": {"not as planned"},
    "UPDATE orders_payment SET amount = 1 WHERE key = 'SOAK-1'": {
        "money",
        "fulfilled, and not paid or not shipped",
    },
    "UPDATE orders_simulatedcharge SET status = 'charged' WHERE key = 'SOAK-7'": {
        "money",
        "undone, and paid, shipped or held",
    },
    "DELETE FROM orders_shipment WHERE tracking = 'SOAK-1'": {
        "fulfilled, and not paid or not shipped"
    },
    "UPDATE orders_reservation SET status = 'active' WHERE order_id = 4": {
        "undone, and paid, shipped or held"
    },
    PARK: {"saga left over"},
    """
    INSERT INTO outbox_message (message_id, topic, key, key_hash, type, payload, headers,
        correlation_id, traceparent, created_at)
    VALUES (gen_random_uuid(), 'orders.events', 'SOAK-1', 1, 'order.fulfilled', '', '{}', '', '',
        now())
    """: {"left in the outbox"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(migrated_database_url: str, fault: str) -> None:
    with psycopg.connect(migrated_database_url) as connection:
        connection.execute(IN_ORDER.encode())
        assert found(connection) == set()
        connection.execute(fault.encode())
        assert found(connection) == FAULTS[fault]


def found(connection: "psycopg.Connection[tuple[object, ...]]") -> set[str]:
    queries = {"lost": books.lost(ORDERS)} | books.doubled(ORDERS) | books.ELSEWISE
    return {what for what, sql in queries.items() if connection.execute(sql.encode()).fetchall()}
