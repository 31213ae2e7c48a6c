"""OrdersError ── UnknownProducts
├─ OrderConflict
├─ CancelTooLate
├─ UnknownOrder
├─ CommandMismatch
├─ NotPaid
├─ OutOfStock
└─ PaymentError ── PaymentDeclined
                └─ PaymentUnavailable
"""

from collections.abc import Sequence


class OrdersError(Exception):
    """The base of every error that this package raises."""


class UnknownProducts(OrdersError):  # noqa: N818 - states the fact
    """An order names products that there are not."""

    def __init__(self, product_ids: Sequence[str]) -> None:
        super().__init__(f"there is no product {', '.join(product_ids)}")
        self.product_ids = tuple(product_ids)


class OrderConflict(OrdersError):  # noqa: N818 - states the fact
    """Another order has this id, with other content."""


class CancelTooLate(OrdersError):  # noqa: N818 - states the fact
    """An order that is shipped or has ended cannot be cancelled."""


class UnknownOrder(OrdersError):  # noqa: N818 - states the fact
    """A command names an order that there is not."""


class CommandMismatch(OrdersError):  # noqa: N818 - states the fact
    """A command says something else than the row that it points to."""


class NotPaid(OrdersError):  # noqa: N818 - states the fact
    """An order is to be shipped for which its amount has not been taken."""


class OutOfStock(OrdersError):  # noqa: N818 - states the fact
    """There is not enough of a product on hand."""


class PaymentError(OrdersError):
    """The base of what a payment gateway raises."""


class PaymentDeclined(PaymentError):  # noqa: N818 - a business outcome
    """The provider said no; asking again with the same key says no again."""


class PaymentUnavailable(PaymentError):  # noqa: N818 - states the fact
    """No usable answer: the charge or refund may or may not have happened."""
