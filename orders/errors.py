"""Define the errors of orders, all derived from one base.

OrdersError ── UnknownProducts
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
    """Base of every error of this package."""


class UnknownProducts(OrdersError):  # noqa: N818 - states the fact
    """Raised when an order names products that do not exist.

    Args:
        product_ids: these products.
    """

    def __init__(self, product_ids: Sequence[str]) -> None:
        super().__init__(f"there is no product {', '.join(product_ids)}")
        self.product_ids = tuple(product_ids)


class OrderConflict(OrdersError):  # noqa: N818 - states the fact
    """Raised when the id belongs to an order with other content."""


class CancelTooLate(OrdersError):  # noqa: N818 - states the fact
    """Raised when an order to be cancelled is shipped or has ended."""


class UnknownOrder(OrdersError):  # noqa: N818 - states the fact
    """Raised when a command names an order that does not exist."""


class CommandMismatch(OrdersError):  # noqa: N818 - states the fact
    """Raised when a command contradicts the row behind it."""


class NotPaid(OrdersError):  # noqa: N818 - states the fact
    """Raised when an order is to be shipped whose amount has not been taken."""


class OutOfStock(OrdersError):  # noqa: N818 - states the fact
    """Raised when too little of a product is on hand."""


class PaymentError(OrdersError):
    """Base of the errors of payment gateways."""


class PaymentDeclined(PaymentError):  # noqa: N818 - a business outcome
    """Raised when the provider says no; the same key will always get this answer."""


class PaymentUnavailable(PaymentError):  # noqa: N818 - states the fact
    """Raised without a usable answer: the charge or refund may or may not have happened."""
