"""Serve the orders' HTTP routes: parse, call a service, answer."""

import base64
import binascii
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from orders.cancelling import cancel_order
from orders.errors import CancelTooLate, OrderConflict, UnknownOrder, UnknownProducts
from orders.messages import SAGA_NAME
from orders.models import Order, OrderStatus
from orders.prefer import preference_applied, wanted_wait
from orders.schemas import ID_PATTERN, CancelIn, DiagramOut, OrderIn, OrderOut, OrderPage
from orders.services import Item, place_order
from orders.waiting import release_connection, waiting_room
from saga_runtime.database_errors import AWAY
from saga_runtime.problems import Problem
from sagas.operations.diagrams import diagram_of

router = Router(tags=["orders"])

PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
FIRST_PAUSE = 0.01  # seconds between two looks at an order
LONGEST_PAUSE = 0.2
MERMAID = "text/vnd.mermaid"


@router.post(
    "/",
    response={200: OrderOut, 201: OrderOut, 202: OrderOut, 409: None},
    url_name="place_order",
    summary="Place an order",
)
def post_order(request: HttpRequest, body: OrderIn) -> HttpResponse:
    """Place an order.

    202: the order is accepted for good, and its saga runs. 200: the same order had been placed
    before. With `Prefer: wait=N` (RFC 7240, at most 30 seconds) 201 as soon as the order has ended.
    """
    items = [Item(product_id=i.id, name=i.name, quantity=i.quantity) for i in body.items]
    try:
        placed = place_order(
            order_id=body.order_id, user_id=body.user_id, items=items, amount=body.amount
        )
    except UnknownProducts as error:
        raise Problem(422, str(error), errors=_unknown_product_errors(error, items)) from error
    except OrderConflict as error:
        raise Problem(409, str(error)) from error
    order = placed.order
    wait = wanted_wait(request.META.get("HTTP_PREFER", ""))
    if wait is not None:
        # The order is stored: whatever happens from here on must not look like a refusal.
        with suppress(*AWAY), waiting_room() as has_place:
            wait = wait if has_place else 0
            _wait_until_ended(order.order_id, seconds=wait)
            order = _find_order(order.order_id)
    has_ended = wait is not None and order.has_ended
    response = HttpResponse(
        OrderOut.of(order).model_dump_json(),
        status=200 if not placed.is_new else 201 if has_ended else 202,
        content_type="application/json",
        headers={"Location": f"{request.path}{order.order_id}/"},
    )
    if wait is not None:
        response["Preference-Applied"] = preference_applied(wait)
    return response


@router.get("/", response=OrderPage, url_name="list_orders", summary="List orders")
def list_orders(
    request: HttpRequest,
    status: OrderStatus | None = None,
    user_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = PAGE_SIZE,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> OrderPage:
    """List orders, newest first.

    `next` of a page is the `cursor` of the following page.
    """
    orders = Order.objects.newest_first()
    if status is not None:
        orders = orders.filter(status=status)
    if user_id is not None:
        orders = orders.filter(user_id=user_id)
    if cursor is not None:
        orders = orders.filter(id__lt=_decode_cursor(cursor))
    page = list(orders[: limit + 1])
    more = len(page) > limit
    page = page[:limit]
    return OrderPage(
        orders=[OrderOut.of(order) for order in page],
        next=_encode_cursor(page[-1]) if more else None,
    )


@router.get(
    "/{order_id}/",
    response={200: OrderOut, 404: None},
    url_name="get_order",
    summary="Look at an order",
)
def get_order(request: HttpRequest, order_id: str) -> OrderOut:
    """Look up an order."""
    return OrderOut.of(_find_order(order_id))


@router.get(
    "/{order_id}/diagram/",
    response={200: DiagramOut, 404: None},
    url_name="get_diagram",
    summary="The path an order took",
)
def get_diagram(
    request: HttpRequest, response: HttpResponse, order_id: str
) -> DiagramOut | HttpResponse:
    """Draw an order's path in Mermaid; with `Accept: text/vnd.mermaid` the text alone."""
    order = _find_order(order_id)
    diagram = diagram_of(order.saga_id, name=SAGA_NAME)
    if request.get_preferred_type(["application/json", MERMAID]) == MERMAID:
        content_type = f"{MERMAID}; charset=utf-8"
        return HttpResponse(diagram, content_type=content_type, headers={"Vary": "Accept"})
    response["Vary"] = "Accept"
    return DiagramOut(order_id=order.order_id, diagram=diagram)


@router.post(
    "/{order_id}/cancel/",
    response={202: OrderOut, 404: None, 409: None},
    url_name="cancel_order",
    summary="Cancel an order",
)
def post_cancel(request: HttpRequest, order_id: str, body: CancelIn | None = None) -> HttpResponse:
    """Ask for an order's cancel.

    202: the cancel is noted. The order ends `cancelled`, with all undone, or `fulfilled`, where its
    shipment came first, or `rejected`, where it had failed already. 409: the order is shipped or
    has ended.
    """
    _check_id(order_id)
    try:
        order = cancel_order(order_id=order_id, reason=body.reason if body else "")
    except UnknownOrder as error:
        raise Problem(404, str(error)) from error
    except CancelTooLate as error:
        raise Problem(409, str(error)) from error
    return HttpResponse(
        OrderOut.of(order).model_dump_json(), status=202, content_type="application/json"
    )


def _find_order(order_id: str) -> Order:
    """Find an order by its public id.

    Raises:
        Problem: 404, there is no such order.
    """
    _check_id(order_id)
    order = Order.objects.filter(order_id=order_id).first()
    if order is None:
        raise _no_order(order_id)
    return order


def _check_id(order_id: str) -> None:
    """Refuse an id with NUL, which PostgreSQL cannot compare with.

    Raises:
        Problem: 404.
    """
    if "\0" in order_id:
        raise _no_order(order_id)


def _no_order(order_id: str) -> Problem:
    return Problem(404, f"there is no order {order_id!r}")


def _wait_until_ended(order_id: str, *, seconds: float) -> None:
    """Look again and again until the order has ended, needs a person, or time is up.

    Args:
        order_id: the public id.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    waiting = Order.objects.filter(order_id=order_id).unfinished()
    while waiting.exists():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        release_connection()  # while asleep, others may have it
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _unknown_product_errors(error: UnknownProducts, items: Sequence[Item]) -> list[dict[str, str]]:
    """Build a field error for each item whose product is unknown."""
    return [
        {"field": f"items[{n}].id", "message": f"there is no product {item.product_id}"}
        for n, item in enumerate(items)
        if item.product_id in error.product_ids
    ]


def _encode_cursor(order: Order) -> str:
    """Encode the place after an order, for the next page."""
    return base64.urlsafe_b64encode(str(order.id).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int:
    """Decode a cursor to the id that all orders of the page are below.

    Raises:
        Problem: 422, the text is no cursor.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = int(text)
    except (binascii.Error, ValueError) as error:
        detail = "use `next` of the page before"
        raise Problem(
            422, "not valid: cursor", errors=[{"field": "cursor", "message": detail}]
        ) from error
    return max(0, min(position, 2**63 - 1))
