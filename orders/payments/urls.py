"""Make a payment gateway from a URL."""

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from django.core.exceptions import ImproperlyConfigured

from orders.payments.base import PaymentGateway
from saga_runtime.urls import scheme_of


def gateway_from_url(url: str) -> PaymentGateway:
    """Make the gateway that a URL names.

    Raises:
        ImproperlyConfigured: the scheme or an option is unknown, or a requirement is missing.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ImproperlyConfigured("PAYMENT_GATEWAY_URL is no URL that can be read") from error
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "simulated":
        from orders.payments.simulated import SimulatedGateway

        return SimulatedGateway.from_options(options)
    if parts.scheme == "stripe":
        return _stripe(parts, options)
    raise ImproperlyConfigured(
        f"PAYMENT_GATEWAY_URL begins with {scheme_of(url)!r}; use simulated:// or stripe://"
    )


def _stripe(parts: SplitResult, options: Mapping[str, str]) -> PaymentGateway:
    """Make a Stripe gateway; its package is imported only here."""
    if parts.netloc or parts.path:
        raise ImproperlyConfigured(
            "PAYMENT_GATEWAY_URL: after stripe:// come options only; the key is STRIPE_API_KEY"
        )
    try:
        from orders.payments.stripe import StripeGateway
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            "PAYMENT_GATEWAY_URL is stripe://, which needs Stripe's package: uv sync --extra stripe"
        ) from error
    return StripeGateway.from_options(options)
