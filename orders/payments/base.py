from decimal import Decimal
from typing import Protocol


class PaymentGateway(Protocol):
    """Takes money and gives it back, each call under an idempotency key: the same key and content
    have one effect, however often they are sent."""

    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        """Take `amount` (two decimals) for the order `reference`; returns the transaction's id.

        Raises:
            PaymentDeclined: the provider said no, or the key was closed by a refund.
            PaymentUnavailable: no usable answer; ask again with the same key.
        """

    def refund(self, *, key: str, charge_key: str, reference: str, amount: Decimal) -> None:
        """Undo the charge made under `charge_key` with this reference and amount, whether or not it
        happened, and close that key, so that a charge that is still on its way is declined.

        Raises:
            PaymentUnavailable: no usable answer; ask again with the same key.
        """
