"""BrokerError ─┬─ BrokerConfigurationError
├─ BrokerUnavailable ─┬─ QueueFull
│                     ├─ BrokerSlow
│                     └─ BrokerUnusable
└─ Fenced
"""

from saga_runtime.outage import ServerUnusable


class BrokerError(Exception):
    """The base of every error that this package raises."""


class BrokerConfigurationError(BrokerError):
    """Raised where trying again cannot help: a wrong URL, a missing driver, wrong credentials."""


class BrokerUnavailable(BrokerError):  # noqa: N818 - the field's term
    """Raised when no server answers; the same call may work later."""


class BrokerSlow(BrokerUnavailable):
    """Raised when a server answers, but not in time what it was asked."""


class BrokerUnusable(BrokerUnavailable, ServerUnusable):
    """Raised when a server answers, but not so that it can be used, and time does not heal that:
    its text says what to do. Once that is done, the same call works."""


class QueueFull(BrokerUnavailable):
    """Raised when as much is queued as may be: once some of it has arrived, there is room."""


class Fenced(BrokerError):  # noqa: N818 - the field's term
    """Raised when another producer has taken over this one's transactional id: trying again cannot
    help, and must not."""
