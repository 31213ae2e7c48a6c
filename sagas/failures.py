"""How foreign code has failed: described once, so that describing it cannot fail.

A step, a compensation or a hook may raise anything: what is no `Exception`, what cannot be printed,
three megabytes. Everything behind it goes by a `Failure`, so that the journal, the hooks, the
events and the log have the same text.
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
    Decided,
    HookFailed,
    LeaseLost,
    NeedsAttention,
    StepRejected,
    Suspended,
    UnstorableValue,
)

LONGEST_TRACEBACK = 8_000
"""Characters of a traceback that are kept."""

_MOST_NOS = 10
_OURS = (LeaseLost, CancelRequested, HookFailed, Suspended, Decided)
"""Signals of the executor's own; raised by foreign code they mean nothing."""


class StepFailed(Exception):  # noqa: N818 - states the fact
    """A step has failed for good. What it raised is in `failure`: sagaz's engine sees this error
    alone, for it prints what it catches."""

    def __init__(self, failure: "Failure") -> None:
        super().__init__(failure.text)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call of foreign code has failed.

    Attributes:
        text: for people; storable, at most `LONGEST_ERROR` characters.
        error: what was raised. Not to be printed, compared or asked for its class.
        is_no: a `StepRejected`, or a group with one in it: not to be tried again.
        is_group: it was several errors: what ran beside a refusal may have had its effect.
        is_expected: the text says all: a refusal, a timeout, a value that cannot be kept, a
            question for a person.
        needs_attention: a person must look before anything is decided, alone or out of a group.
    """

    text: str
    error: BaseException = field(compare=False)
    is_no: bool = False
    is_group: bool = False
    is_expected: bool = False
    needs_attention: bool = False

    @property
    def traceback(self) -> str:
        """Where an error comes from that nobody expects, storable and cut; otherwise empty."""
        return "" if self.is_expected else traceback_of(self.error)

    @property
    def is_unstorable(self) -> bool:
        """The journal cannot keep what the step returned; another attempt would return the same."""
        return issubclass(type(self.error), UnstorableValue)


def failure_of(error: BaseException) -> Failure:
    """Describe what foreign code has raised. Never raises."""
    try:
        return _failure_of(error)
    except BaseException:  # noqa: BLE001 - to describe an error must not fail
        return Failure("an error that cannot be described", error)


def _failure_of(error: BaseException) -> Failure:
    if issubclass(type(error), StepRejected):
        return Failure(_told_no(error), error, is_no=True, is_expected=True)
    if issubclass(type(error), NeedsAttention):
        return Failure(_told_no(error), error, is_expected=True, needs_attention=True)
    if type(error) is TimeoutError and not error.args:
        return Failure("timed out", error, is_expected=True)
    is_group = issubclass(type(error), BaseExceptionGroup)
    inside = leaves(error) if is_group else [error]
    questions = [each for each in inside if issubclass(type(each), NeedsAttention)]
    if questions:
        return Failure(_told_no(questions[0]), error, is_group=True, needs_attention=True)
    nos = [each for each in inside if issubclass(type(each), StepRejected)]
    if nos:
        text = "; ".join(dict.fromkeys(_told_no(each) for each in nos[:_MOST_NOS]))
        alone = len(nos) == len(inside)
        return Failure(bounded(text), error, is_no=True, is_group=True, is_expected=alone)
    is_expected = issubclass(type(error), UnstorableValue)
    return Failure(describe_error(error), error, is_group=is_group, is_expected=is_expected)


def _told_no(error: BaseException) -> str:
    """A refusal, and a question for a person, is told in its own words."""
    return bounded(error_text(error)) or describe_error(error)


def raisable(error: BaseException) -> Exception:
    """Return what our own code may raise in the place of what foreign code has raised: the same,
    but for what is no `Exception` and for the executor's own signals."""
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
    """Return an error to be logged in the place of this one: it comes from the same lines and bears
    the same name, but its text is one visible line, cut, and to print it cannot fail. Never raises.

    Args:
        depth: of how many errors before it, from which it came, it tells too.
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
