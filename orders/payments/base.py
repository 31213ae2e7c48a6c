"""Define what a payment gateway does."""

from decimal import Decimal
from typing import Protocol


class PaymentGateway(Protocol):
    """Take money and give it back, each call under an idempotency key.

    The same key and content have one effect, however often they are sent.
    """

    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        """Take money.

        Args:
            key: the idempotency key.
            reference: the order's id.
            amount: two decimals.

        Returns:
            The transaction's id.

        Raises:
            PaymentDeclined: the provider said no, or the key was closed by a refund.
            PaymentUnavailable: no usable answer; ask again with the same key.
        """

    def refund(self, *, key: str, charge_key: str, reference: str, amount: Decimal) -> None:
        """Undo a charge, whether or not it happened, and close its key.

        A charge still on its way is then declined.

        Args:
            key: the refund's own idempotency key.
            charge_key: the charge's idempotency key.
            reference: the charge's reference.
            amount: the charge's amount.

        Raises:
            PaymentUnavailable: no usable answer; ask again with the same key.
        """
