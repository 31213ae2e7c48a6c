"""SagasError ── StepRejected
├─ NeedsAttention
├─ SagaDefinitionError, an ImproperlyConfigured of Django's too
├─ UnstorableValue
├─ UnreadableValue
├─ LeaseLost
├─ WorkerUnwell
├─ CancelRequested
├─ Suspended
├─ Decided
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
    """The base of every error that this package raises."""


class StepRejected(SagasError):  # noqa: N818 - a business outcome
    """A step raises it to say no for a business reason: it is not retried, the saga is undone."""


class NeedsAttention(SagasError):  # noqa: N818 - states the fact
    """A step raises it where the books contradict each other, so that a person must look: it is not
    retried, and nothing is decided. The saga is parked before that step, with the error's text."""


class SagaDefinitionError(SagasError, ImproperlyConfigured):
    """Raised at start-up for a saga that cannot be run safely; its text says what to change."""


class UnstorableValue(SagasError):  # noqa: N818 - names the value's fault
    """Raised for a result or context value that the journal cannot keep."""


class UnreadableValue(SagasError):  # noqa: N818 - names the value's fault
    """Raised for a text of the journal that is damaged, or that a newer version has written."""


class LeaseLost(SagasError):  # noqa: N818 - states the fact
    """Another worker has taken the saga over; this one must change nothing more."""


class WorkerUnwell(SagasError):  # noqa: N818 - states the fact
    """Raised by a worker that ends because what its steps call does not come back."""


class CancelRequested(SagasError):  # noqa: N818 - states the fact
    """Somebody has asked for the saga's cancel before this could begin."""


class Suspended(SagasError):  # noqa: N818 - states the fact
    """This run goes no further; its text says why."""


class Decided(SagasError):  # noqa: N818 - states the fact
    """The saga is decided, though no step of it failed just now; its text says why."""


class HookFailed(SagasError):  # noqa: N818 - states the fact
    """What an app has hung into a saga's last transaction has failed it; nothing is written.

    Attributes:
        may_pass: our own database may be to blame, so that the same may work later.
    """

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


class EndRefused(SagasError):  # noqa: N818 - states the fact
    """The journal does not allow the saga to end so: a step is open; nothing is written."""


class CancelRefused(SagasError):  # noqa: N818 - states the fact
    """Raised for a cancel that comes too late, or for no saga; its text says which."""


class UnknownSaga(CancelRefused):
    """Raised for the cancel of a saga that there is not."""


class CannotRunHere(SagasError):  # noqa: N818 - states the fact
    """Raised by `run_saga_sync` where it would block an event loop, or where a transaction is open
    and its journal would not be durable."""


class NotJournalled(SagasError):  # noqa: N818 - states the fact
    """Raised by what sagaz offers and nothing carries out durably, such as `Saga.run`; its text
    says what to use in its place."""


class SagaNotCompleted(SagasError):  # noqa: N818 - states the fact
    """The base of what `run_saga_sync` raises for a saga that has not completed.

    `context`: the saga's context as far as the journal has it.
    """

    def __init__(self, text: str, *, saga_id: UUID, context: dict[str, Any]) -> None:
        super().__init__(text)
        self.saga_id = saga_id
        self.context = context


class SagaFailed(SagaNotCompleted):
    """The saga was rolled back; the text is what failed it."""


class SagaParked(SagaNotCompleted):
    """The saga goes no further without a person; the text says why."""


class SagaUnfinished(SagaNotCompleted):
    """The time was up. The saga goes on in a consumer."""


class JournalIsReadOnly(SagasError):  # noqa: N818 - states the fact
    """Raised where sagaz's storage interface would write into the journal, or would have a saga
    deleted that has not ended."""
