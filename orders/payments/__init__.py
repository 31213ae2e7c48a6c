"""Take payments through a gateway, which PAYMENT_GATEWAY_URL chooses.

Called by the order saga's external steps. Our own books are in `orders.fulfilment`, not here.
"""

from orders.payments.base import PaymentGateway
from orders.payments.urls import gateway_from_url

__all__ = ["PaymentGateway", "gateway_from_url"]
