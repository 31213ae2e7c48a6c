"""What must not be found in the database once all numbered orders have ended; each a query, whose
rows are the contradictions."""

from tests.e2e.full_service import CHARGED_TWICE, SHIPPED_TWICE
from tests.soak.clients import CANCELLED, DECLINED

_NUMBER = "split_part(order_id, '-', 2)::int"
_TAKEN = """
    SELECT item->>'id' AS product_id, sum((item->>'quantity')::int) AS quantity
    FROM orders_order, jsonb_array_elements(items::jsonb) AS item
    WHERE status = 'fulfilled' GROUP BY 1
"""


def lost(count: int) -> str:
    """The orders that were answered, and are not there."""
    return f"""
        SELECT 'SOAK-' || number FROM generate_series(0, {count - 1}) AS number
        WHERE NOT EXISTS (SELECT FROM orders_order WHERE order_id = 'SOAK-' || number)
    """


def doubled(count: int) -> dict[str, str]:
    """What was done twice, also where a constraint of the database would have refused it."""
    return {
        "orders": f"SELECT order_id FROM orders_order WHERE {_NUMBER} NOT BETWEEN 0 AND {count - 1}"
        " UNION ALL SELECT order_id FROM orders_order GROUP BY order_id HAVING count(*) > 1",
        "charges": CHARGED_TWICE,
        "shipments": SHIPPED_TWICE,
        "payments": "SELECT order_id FROM orders_payment GROUP BY 1 HAVING count(*) > 1",
        "reservations": """
            SELECT order_id, product_id FROM orders_reservation GROUP BY 1, 2 HAVING count(*) > 1
        """,
        "sagas": "SELECT name, key FROM sagas_saga GROUP BY 1, 2 HAVING count(*) > 1",
        # A step that is done is never begun again.
        "steps": """
            SELECT saga_id, step, kind
            FROM sagas_attempt AS former JOIN sagas_step AS last USING (saga_id, step, kind)
            WHERE former.status = 'done' OR former.attempt >= last.attempt
        """,
    }


ELSEWISE = {
    "not as planned": f"""
        SELECT order_id, status, reason FROM orders_order WHERE NOT CASE {_NUMBER} % 10
            WHEN {DECLINED} THEN status = 'rejected'
            WHEN {CANCELLED} THEN status = 'fulfilled'
                OR status = 'cancelled' AND cancel_requested_at IS NOT NULL
            ELSE status = 'fulfilled' END
    """,
    "stock": f"""
        SELECT product_id, received, on_hand, reserved, shipped, coalesce(taken.quantity, 0)
        FROM orders_product LEFT JOIN ({_TAKEN}) AS taken USING (product_id)
        WHERE shipped <> coalesce(taken.quantity, 0)
            OR reserved <> 0 OR on_hand <> received - shipped OR received <> 1000000
    """,
    "money": """
        SELECT * FROM
            (SELECT sum(amount) AS price FROM orders_order WHERE status = 'fulfilled') AS orders,
            (SELECT sum(amount) AS entered FROM orders_payment WHERE status = 'charged') AS books,
            (SELECT sum(amount) AS taken FROM orders_simulatedcharge WHERE status = 'charged')
                AS ledger
        WHERE price IS DISTINCT FROM entered OR price IS DISTINCT FROM taken
    """,
    "fulfilled, and not paid or not shipped": """
        SELECT placed.order_id FROM orders_order AS placed WHERE status = 'fulfilled' AND NOT (
            EXISTS (SELECT FROM orders_shipment WHERE order_id = placed.id)
            AND EXISTS (SELECT FROM orders_payment WHERE order_id = placed.id
                AND status = 'charged' AND amount = placed.amount)
            AND EXISTS (SELECT FROM orders_simulatedcharge WHERE reference = placed.order_id
                AND status = 'charged' AND amount = placed.amount)
        )
    """,
    "undone, and paid, shipped or held": """
        SELECT placed.order_id FROM orders_order AS placed WHERE status <> 'fulfilled' AND (
            EXISTS (SELECT FROM orders_shipment WHERE order_id = placed.id)
            OR EXISTS (SELECT FROM orders_payment WHERE order_id = placed.id
                AND status = 'charged')
            OR EXISTS (SELECT FROM orders_simulatedcharge WHERE reference = placed.order_id
                AND status = 'charged')
            OR EXISTS (SELECT FROM orders_reservation WHERE order_id = placed.id
                AND status <> 'released')
        )
    """,
    "saga left over": """
        SELECT key, status, park_reason FROM sagas_saga
        WHERE status NOT IN ('completed', 'rolled_back')
    """,
    "left in the outbox": "SELECT id, key FROM outbox_message",
    "parked message": "SELECT id, key, reason FROM outbox_parked",
    "refused command": "SELECT topic, reason FROM sagas_refused_command",
}
UNFINISHED = "SELECT count(*) FROM orders_order WHERE status IN ('pending', 'processing')"
TAKEN_OVER = """
    SELECT count(*) FROM (
        SELECT saga_id FROM (
            SELECT saga_id, worker FROM sagas_step UNION SELECT saga_id, worker FROM sagas_attempt
        ) AS attempts GROUP BY saga_id HAVING count(*) > 1
    ) AS taken_over
"""
EACH_ORDER = "SELECT order_id, status, cancel_requested_at IS NOT NULL FROM orders_order"
