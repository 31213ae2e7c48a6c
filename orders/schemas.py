"""Define strictly what requests must look like, and what answers look like."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from orders.models import MAX_ID, Order, OrderStatus

ID_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._:-]{{0,{MAX_ID - 1}}}$"
MAX_AMOUNT = Decimal("9999999999.99")
MAX_QUANTITY = 1_000_000
MAX_ITEMS = 100
_DECIMALS = 2


def _text(value: str) -> str:
    """Refuse characters that cannot be printed."""
    if any(not char.isprintable() for char in value):
        raise ValueError("must be printable characters")
    return value


def _money(value: Any) -> Any:
    """Check a JSON number, int or Decimal: at most two decimals, and within the limits."""
    if type(value) not in (int, Decimal):
        raise ValueError("must be a number")
    amount = Decimal(value)
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent > 0 or exponent < -_DECIMALS:
        raise ValueError("must be a plain number with at most 2 decimals")
    if not Decimal("0.01") <= amount <= MAX_AMOUNT:
        raise ValueError(f"must be from 0.01 to {MAX_AMOUNT}")
    return amount.quantize(Decimal("0.01"))


Id = Annotated[str, Field(strict=True, pattern=ID_PATTERN)]
Text = Annotated[str, Field(strict=True, min_length=1, max_length=200), AfterValidator(_text)]
Money = Annotated[
    Decimal,
    BeforeValidator(_money),
    WithJsonSchema(
        {"type": "number", "minimum": 0.01, "maximum": float(MAX_AMOUNT), "multipleOf": 0.01}
    ),
]
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)]


class ItemIn(BaseModel):
    """Order a quantity of a product."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    name: Text
    quantity: Quantity


def _once_each(items: list[ItemIn]) -> list[ItemIn]:
    """Refuse a product that is listed twice."""
    ids = [item.id for item in items]
    twice = sorted({product_id for product_id in ids if ids.count(product_id) > 1})
    if twice:
        raise ValueError(f"{twice[0]} stands there twice: name each product once")
    return items


class OrderIn(BaseModel):
    """Order goods. Without `order_id` an id is made; with it, sending the order again is safe."""

    model_config = ConfigDict(extra="forbid")

    order_id: Id | None = None
    user_id: Id
    items: Annotated[
        list[ItemIn], Field(min_length=1, max_length=MAX_ITEMS), AfterValidator(_once_each)
    ]
    amount: Money


class CancelIn(BaseModel):
    """Give a reason for a cancel, for people who look at the order later."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(strict=True, max_length=200), AfterValidator(_text)] = ""


Moment = Annotated[
    datetime,
    PlainSerializer(
        lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        return_type=str,
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class ItemOut(BaseModel):
    """Show a line of an order."""

    id: str
    name: str
    quantity: int


class OrderOut(BaseModel):
    """Show an order as of now. Amounts are strings; `reason` says why it was not fulfilled."""

    order_id: str
    status: OrderStatus
    reason: str
    saga_id: UUID
    correlation_id: str
    user_id: str
    items: list[ItemOut]
    amount: str
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, order: Order) -> "OrderOut":
        """Build the answer from the row."""
        return cls(
            order_id=order.order_id,
            status=OrderStatus(order.status),
            reason=order.reason,
            saga_id=order.saga_id,
            correlation_id=order.correlation_id,
            user_id=order.user_id,
            items=[ItemOut(**item) for item in order.items],
            amount=f"{order.amount:.2f}",
            created_at=order.created_at,
            updated_at=order.updated_at,
        )


class OrderPage(BaseModel):
    """Show a page of orders; `next` is the following page's `cursor`, null on the last page."""

    orders: list[OrderOut]
    next: str | None


class DiagramOut(BaseModel):
    """Show an order's path as a diagram."""

    order_id: str
    diagram: str
    format: str = "mermaid"
