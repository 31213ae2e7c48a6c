from urllib.parse import parse_qsl, urlsplit

from django.core.exceptions import ImproperlyConfigured

from orders.payments.base import PaymentGateway


def gateway_from_url(url: str) -> PaymentGateway:
    """The gateway that a URL names.

    Raises:
        ImproperlyConfigured: unknown scheme or option.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ImproperlyConfigured(f"PAYMENT_GATEWAY_URL cannot be read: {error}") from error
    if parts.scheme == "simulated":
        from orders.payments.simulated import SimulatedGateway

        return SimulatedGateway.from_options(dict(parse_qsl(parts.query, keep_blank_values=True)))
    raise ImproperlyConfigured(
        f"PAYMENT_GATEWAY_URL begins with {parts.scheme!r}; use simulated://"
    )
