"""Name who intervenes in what went wrong, and why, before anything is changed."""

from dataclasses import dataclass

from saga_runtime.text import says_something


class NoReason(Exception):  # noqa: N818 - states the fact
    """Raised when nobody says who intervenes, or why."""


@dataclass(frozen=True, slots=True)
class By:
    """Name who intervenes, and the reason.

    Attributes:
        who: a person, or a program.
        why: the reason, kept for good.

    Raises:
        NoReason: one of them is blank.
    """

    who: str
    why: str

    def __post_init__(self) -> None:
        """Refuse an intervention that nobody can account for."""
        if not (says_something(self.who) and says_something(self.why)):
            raise NoReason("say who does it, and why: neither may be blank")
