"""Payments through a gateway, which `PAYMENT_GATEWAY_URL` chooses."""

from orders.payments.base import PaymentGateway
from orders.payments.urls import gateway_from_url

__all__ = ["PaymentGateway", "gateway_from_url"]
