"""Who is waited for at start-up."""

from collections.abc import Sequence

import pytest

from brokers import (
    BrokerConfigurationError,
    BrokerError,
    BrokerSlow,
    BrokerUnavailable,
    BrokerUnusable,
    await_broker,
)
from brokers.memory import MemoryBroker

SLOW = BrokerSlow("a broker answers, but not in time")
AWAY = BrokerUnavailable("nobody answers")


class Scripted(MemoryBroker):
    """Raises one error after the other, then answers."""

    def __init__(self, *, check: Sequence[BrokerError], topics: Sequence[BrokerError]) -> None:
        super().__init__()
        self._check, self._errors = list(check), list(topics)
        self.made: list[str] = []

    def check(self) -> None:
        if self._check:
            raise self._check.pop(0)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.made += topics


@pytest.mark.parametrize(
    ("check", "topics"),
    [([], []), ([], [SLOW, SLOW]), ([SLOW], []), ([], [AWAY, SLOW]), ([SLOW], [AWAY])],
)
def test_whoever_has_answered_is_waited_for(
    check: Sequence[BrokerError], topics: Sequence[BrokerError]
) -> None:
    pauses: list[float] = []
    broker = Scripted(check=check, topics=topics)
    await_broker(broker, topics=["a", "b"], pause=pauses.append)
    assert broker.made == ["a", "b"]
    assert len(pauses) == len(check) + len(topics)


@pytest.mark.parametrize(
    ("check", "topics"),
    [
        ([AWAY], []),
        ([BrokerUnusable("too old")], []),
        ([], [SLOW, BrokerUnusable("no right to make topics")]),
        ([BrokerConfigurationError("a wrong password")], []),
    ],
)
def test_what_time_does_not_heal_is_said_at_once(
    check: Sequence[BrokerError], topics: Sequence[BrokerError]
) -> None:
    broker = Scripted(check=check, topics=topics)
    last = [*check, *topics][-1]
    with pytest.raises(type(last), match=str(last)):
        await_broker(broker, topics=["a"], pause=lambda _: None)
