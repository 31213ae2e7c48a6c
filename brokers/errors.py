"""Define the errors of brokers.

BrokerError ─┬─ BrokerConfigurationError
             ├─ BrokerUnavailable ─┬─ QueueFull
             │                     ├─ BrokerSlow
             │                     └─ BrokerUnusable
             └─ Fenced
"""

from saga_runtime.outage import ServerUnusable


class BrokerError(Exception):
    """The base of every error that this package raises."""


class BrokerConfigurationError(BrokerError):
    """Raised where no retry can help: a wrong URL, a missing package, wrong credentials."""


class BrokerUnavailable(BrokerError):  # noqa: N818 - the field's term
    """Raised when no server answers; the same call may work later."""


class BrokerSlow(BrokerUnavailable):
    """Raised when a server answers some requests, and others not in time."""


class BrokerUnusable(BrokerUnavailable, ServerUnusable):
    """Raised when a server answers, but cannot be used, and time does not heal that.

    The error's text says what to do. Once that is done, the same call works.
    """


class QueueFull(BrokerUnavailable):
    """Raised when the publisher's queue is full; there is room once messages have arrived."""


class Fenced(BrokerError):  # noqa: N818 - the field's term
    """Raised when another producer has taken over the transactional id: a retry must not happen."""
