"""SagasError ── StepRejected
├─ SagaDefinitionError
├─ UnstorableValue
└─ LeaseLost
"""


class SagasError(Exception):
    """The base of every error that this package raises."""


class StepRejected(SagasError):  # noqa: N818 - a business outcome
    """A step raises it to say no for a business reason: it is not retried, the saga is undone."""


class SagaDefinitionError(SagasError):
    """Raised at start-up for a saga that cannot be run safely; its text says what to change."""


class UnstorableValue(SagasError):  # noqa: N818 - names the value's fault
    """Raised for a result or context value that the journal cannot keep."""


class LeaseLost(SagasError):  # noqa: N818 - states the fact
    """Another worker has taken the saga over; this one must change nothing more."""
