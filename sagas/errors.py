"""Define the errors that `sagas` raises.

SagasError ── StepRejected
├─ NeedsAttention
├─ SagaDefinitionError, an ImproperlyConfigured of Django's too
├─ UnstorableValue
├─ UnreadableValue
├─ LeaseLost
├─ WorkerUnwell
├─ CancelRequested
├─ Suspended
├─ Decided
├─ ChainBroken
├─ HookFailed
├─ EndRefused
├─ CancelRefused ── UnknownSaga
├─ CannotRunHere
├─ NotJournalled
├─ SagaNotCompleted ── SagaFailed, SagaParked, SagaUnfinished
└─ JournalIsReadOnly
"""

from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured


class SagasError(Exception):
    """Be the base of every error of this package."""


class StepRejected(SagasError):  # noqa: N818 - a business outcome
    """Raised by a step to say no for a business reason: no retry, and the saga is undone."""


class NeedsAttention(SagasError):  # noqa: N818 - states the fact
    """Raised by a step where a person must look, because the books contradict each other.

    There is no retry, and nothing is decided: the saga is parked before the step, with the error's
    text.
    """


class SagaDefinitionError(SagasError, ImproperlyConfigured):
    """Raised at start-up for a saga that cannot run safely; the text says what to change."""


class UnstorableValue(SagasError):  # noqa: N818 - names the value's fault
    """Raised for a result or context value that the journal cannot keep."""


class UnreadableValue(SagasError):  # noqa: N818 - names the value's fault
    """Raised for a text of the journal that is damaged, or that a newer version has written."""


class LeaseLost(SagasError):  # noqa: N818 - states the fact
    """Raised where another worker has claimed the saga: the first must change nothing more."""


class WorkerUnwell(SagasError):  # noqa: N818 - states the fact
    """Raised by a worker that ends because calls of steps do not come back."""


class CancelRequested(SagasError):  # noqa: N818 - states the fact
    """Raised where a cancel was asked for before a step could begin."""


class Suspended(SagasError):  # noqa: N818 - states the fact
    """Raised where a run goes no further for now; the text says why."""


class Decided(SagasError):  # noqa: N818 - states the fact
    """Raised where a saga is to be undone though no step has just failed; the text says why."""


class ChainBroken(SagasError):  # noqa: N818 - states the fact
    """Raised where local steps that were to commit together cannot: each is then done by itself."""


class HookFailed(SagasError):  # noqa: N818 - states the fact
    """Raised where an app's part of a saga's last transaction fails; nothing is written.

    Attributes:
        may_pass: whether our own database may be to blame, so that another try may succeed.
    """

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


class EndRefused(SagasError):  # noqa: N818 - states the fact
    """Raised where a saga must not end, because a step is open; nothing is written."""


class CancelRefused(SagasError):  # noqa: N818 - states the fact
    """Raised for a cancel that comes too late; the text says why."""


class UnknownSaga(CancelRefused):
    """Raised for the cancel of a saga that does not exist."""


class CannotRunHere(SagasError):  # noqa: N818 - states the fact
    """Raised by `run_saga_sync` inside an event loop, or inside a transaction.

    The call would block the loop; in a transaction the journal would not be durable.
    """


class NotJournalled(SagasError):  # noqa: N818 - states the fact
    """Raised by functions of sagaz that would run a saga without a journal, such as `Saga.run`.

    The text says what to use instead.
    """


class SagaNotCompleted(SagasError):  # noqa: N818 - states the fact
    """Be the base of the errors of `run_saga_sync` for sagas that have not completed.

    Attributes:
        saga_id: the saga.
        context: the saga's context as far as the journal has it.
    """

    def __init__(self, text: str, *, saga_id: UUID, context: dict[str, Any]) -> None:
        super().__init__(text)
        self.saga_id = saga_id
        self.context = context


class SagaFailed(SagaNotCompleted):
    """Raised for a saga that was rolled back; the text is the failure."""


class SagaParked(SagaNotCompleted):
    """Raised for a saga that needs a person to go on; the text says why."""


class SagaUnfinished(SagaNotCompleted):
    """Raised where the time is up; the saga goes on in a consumer."""


class JournalIsReadOnly(SagasError):  # noqa: N818 - states the fact
    """Raised where sagaz's storage interface is asked to write, or to delete an unfinished saga."""
