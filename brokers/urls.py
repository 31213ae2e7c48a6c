from urllib.parse import SplitResult, urlsplit

from brokers.base import Broker
from brokers.errors import BrokerConfigurationError

SCHEMES = ("memory://", "kafka://host:port[,host:port…]")


def broker_from_url(url: str) -> Broker:
    """The broker that a URL names.

    Raises:
        BrokerConfigurationError: unknown scheme, missing driver or unusable address.
    """
    parts = _split(url)
    if parts.scheme == "memory":
        from brokers.memory import memory_broker

        return memory_broker(parts.netloc)
    raise BrokerConfigurationError(
        f"the broker URL {redacted(url)!r} has an unknown scheme; use one of: {', '.join(SCHEMES)}"
    )


def redacted(url: str) -> str:
    """The URL as it may appear in a log: without user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise BrokerConfigurationError(
            f"the broker URL {redacted(url)!r} cannot be read: {error}"
        ) from error
