"""Demand the name of the person who intervenes, and a reason, before anything is changed."""

from dataclasses import dataclass

from saga_runtime.text import says_something


class NoReason(Exception):  # noqa: N818 - states the fact
    """Raised for an intervention without a name or a reason."""


@dataclass(frozen=True, slots=True)
class By:
    """Name the author of an intervention, and the reason.

    Attributes:
        who: a person, or a program.
        why: the reason, kept for good.

    Raises:
        NoReason: name or reason is blank.
    """

    who: str
    why: str

    def __post_init__(self) -> None:
        """Refuse a blank name or reason."""
        if not (says_something(self.who) and says_something(self.why)):
            raise NoReason("say who does it, and why: neither may be blank")
