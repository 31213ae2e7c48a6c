"""BrokerError ── BrokerConfigurationError
└─ BrokerUnavailable
"""


class BrokerError(Exception):
    """The base of every error that this package raises."""


class BrokerConfigurationError(BrokerError):
    """Raised where trying again cannot help: a wrong URL, a missing driver, wrong credentials."""


class BrokerUnavailable(BrokerError):  # noqa: N818 - the field's term
    """Raised when no server answers; the same call may work later."""
