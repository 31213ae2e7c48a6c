"""BrokerError ─┬─ BrokerConfigurationError
├─ BrokerUnavailable ── QueueFull
└─ Fenced
"""


class BrokerError(Exception):
    """The base of every error that this package raises."""


class BrokerConfigurationError(BrokerError):
    """Raised where trying again cannot help: a wrong URL, a missing driver, wrong credentials."""


class BrokerUnavailable(BrokerError):  # noqa: N818 - the field's term
    """Raised when no server answers; the same call may work later."""


class QueueFull(BrokerUnavailable):
    """Raised when as much is queued as may be: once some of it has arrived, there is room."""


class Fenced(BrokerError):  # noqa: N818 - the field's term
    """Raised when another producer has taken over this one's transactional id: trying again cannot
    help, and must not."""
