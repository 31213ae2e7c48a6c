"""Describe how an app's code has failed, without failing in turn.

A step, a compensation or a hook may raise anything: an object that is no `Exception`, that cannot
be printed, or that has three megabytes of text. The error is described once, as a `Failure`, so
that journal, hooks, events and log have the same text.
"""

import traceback
from dataclasses import dataclass, field

from saga_runtime.text import (
    bounded,
    cut,
    describe_error,
    error_text,
    leaves,
    visible,
)
from sagas.errors import (
    CancelRequested,
    ChainBroken,
    Decided,
    HookFailed,
    LeaseLost,
    NeedsAttention,
    StepRejected,
    Suspended,
    UnstorableValue,
)

LONGEST_TRACEBACK = 8_000
"""Characters of a traceback in the journal and the log, at most."""

_MOST_NOS = 10
_OURS = (LeaseLost, CancelRequested, ChainBroken, HookFailed, Suspended, Decided)
"""The executor's own signals; raised by an app's code they mean nothing."""


class StepFailed(Exception):  # noqa: N818 - states the fact
    """Raised to sagaz's engine for a step that has failed for good.

    The engine prints the errors that it catches, and so must not see the step's own error.

    Attributes:
        failure: describes the step's own error.
    """

    def __init__(self, failure: "Failure") -> None:
        super().__init__(failure.text)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Failure:
    """Describe how a call of an app's code has failed.

    Attributes:
        text: for people; storable, at most `LONGEST_ERROR` characters.
        error: the raised object, not to be printed, compared or asked for its class.
        is_no: whether it is a `StepRejected`, or a group with one in it: no retry.
        is_group: whether there were several errors: a call beside a refusal may have had effect.
        is_expected: whether the text says all, as for a refusal or a timeout: no traceback.
        needs_attention: whether a person must look before anything is decided.
    """

    text: str
    error: BaseException = field(compare=False)
    is_no: bool = False
    is_group: bool = False
    is_expected: bool = False
    needs_attention: bool = False

    @property
    def traceback(self) -> str:
        """Return the traceback of an unexpected error, storable and cut; else an empty text."""
        return "" if self.is_expected else traceback_of(self.error)

    @property
    def is_unstorable(self) -> bool:
        """Tell whether the journal cannot keep the step's result: a retry would not help."""
        return issubclass(type(self.error), UnstorableValue)


def failure_of(error: BaseException) -> Failure:
    """Describe an error of an app's code. Never raises."""
    try:
        return _failure_of(error)
    except BaseException:  # noqa: BLE001 - to describe an error must not fail
        return Failure("an error that cannot be described", error)


def _failure_of(error: BaseException) -> Failure:
    if issubclass(type(error), StepRejected):
        return Failure(_own_words(error), error, is_no=True, is_expected=True)
    if issubclass(type(error), NeedsAttention):
        return Failure(_own_words(error), error, is_expected=True, needs_attention=True)
    if type(error) is TimeoutError and not error.args:
        return Failure("timed out", error, is_expected=True)
    is_group = issubclass(type(error), BaseExceptionGroup)
    inside = leaves(error) if is_group else [error]
    questions = [each for each in inside if issubclass(type(each), NeedsAttention)]
    if questions:
        return Failure(_own_words(questions[0]), error, is_group=True, needs_attention=True)
    nos = [each for each in inside if issubclass(type(each), StepRejected)]
    if nos:
        text = "; ".join(dict.fromkeys(_own_words(each) for each in nos[:_MOST_NOS]))
        alone = len(nos) == len(inside)
        return Failure(bounded(text), error, is_no=True, is_group=True, is_expected=alone)
    is_expected = issubclass(type(error), UnstorableValue)
    return Failure(describe_error(error), error, is_group=is_group, is_expected=is_expected)


def _own_words(error: BaseException) -> str:
    """Return the own words of a refusal, or of a question for a person."""
    return bounded(error_text(error)) or describe_error(error)


def raisable(error: BaseException) -> Exception:
    """Return the error that our code may raise in the place of an error of an app's code.

    The error itself is returned, unless it is no `Exception` or one of the executor's own signals.
    """
    is_plain = issubclass(type(error), Exception) and not issubclass(type(error), _OURS)
    if is_plain and not issubclass(type(error), StopIteration):  # it can't leave a coroutine
        return error  # type: ignore[return-value]
    return RuntimeError(f"it raised {_described(error)}")


def _described(error: BaseException) -> str:
    try:
        return describe_error(error)
    except BaseException:  # noqa: BLE001 - to describe an error must not fail
        return "an error that cannot be described"


def stand_in(error: BaseException, *, depth: int = 10) -> Exception:
    """Return an error that can be logged in the place of an app's error. Never raises.

    The returned error has the same traceback and the same name; its text is one visible line, cut,
    and printing cannot fail.

    Args:
        error: the app's error.
        depth: how many causes and contexts are copied too, at most.
    """
    try:
        shown = _stand_in(error)
        if error.__cause__ is not None and depth:
            shown.__cause__ = stand_in(error.__cause__, depth=depth - 1)
        elif error.__context__ is not None and not error.__suppress_context__ and depth:
            shown.__context__ = stand_in(error.__context__, depth=depth - 1)
    except BaseException as failure:  # noqa: BLE001 - to describe an error must not fail
        return RuntimeError(f"an error that cannot be described: {type(failure).__name__}")
    return shown


def _stand_in(error: BaseException) -> Exception:
    kind = type(type(error).__name__, (Exception,), {"__module__": "builtins"})
    shown: Exception = kind(visible(bounded(error_text(error))))
    return shown.with_traceback(error.__traceback__)


def traceback_of(error: BaseException, *, longest: int = LONGEST_TRACEBACK) -> str:
    """Return the traceback as text: storable, cut, each line visible. Never raises."""
    try:
        # Cut before it is made visible too: of megabytes that would take seconds.
        text = "".join(traceback.format_exception(stand_in(error)))
        lines = cut(text, longest).splitlines()
        return cut("\n".join(visible(line) for line in lines), longest)
    except BaseException as failure:  # noqa: BLE001 - to describe an error must not fail
        return f"(its traceback cannot be made: {type(failure).__name__})"
