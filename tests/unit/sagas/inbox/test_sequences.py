"""Which messages a consumer takes for out of order."""

import logging

import pytest

from brokers.cloudevents import CloudEvent, from_record
from sagas.inbox import accepting
from sagas.inbox.sequences import Sequences
from sagas.models import InboxMessage
from tests.unit.sagas.inbox.test_accepting import Travel, record
from tests.unit.sagas.saga_running import Register


def event(sequence: int | None, *, key: str = "K", source: str = "/a") -> CloudEvent:
    return CloudEvent(
        id=f"M-{sequence}", type="x", source=source, subject=key, data=b"", sequence=sequence
    )


def out_of_order(*events: CloudEvent, most: int = 10) -> int:
    return Sequences(most=most).note(events)


class TestSequences:
    def test_rising_is_in_order(self) -> None:
        assert out_of_order(event(1), event(2), event(9)) == 0

    def test_falling_is_not(self) -> None:
        assert out_of_order(event(1), event(5), event(3), event(4), event(6)) == 2

    def test_numbers_with_and_without_leading_zeros_are_one_order(self) -> None:
        """As in a topic that has another producer too."""
        texts = ["9", "10", "00000000000000000011", "12", "00000000000000000013"]
        events = [from_record(record({}, ce_sequence=text)) for text in texts]
        assert out_of_order(*events) == 0
        assert out_of_order(*reversed(events)) == 4

    def test_the_same_again_is_in_order(self) -> None:
        assert out_of_order(event(5), event(5)) == 0

    def test_other_keys_and_sources_are_their_own(self) -> None:
        assert out_of_order(event(5), event(3, key="L"), event(4, source="/b"), event(6)) == 0

    def test_without_a_sequence_nothing_is_said(self) -> None:
        assert out_of_order(event(5), event(None), event(6)) == 0

    def test_it_remembers_so_many_keys_and_forgets_those_seen_longest_ago(self) -> None:
        sequences = Sequences(most=2)
        sequences.note([event(9, key="a"), event(9, key="b"), event(10, key="a")])
        sequences.note([event(9, key="c")])
        assert len(sequences) == 2
        assert sequences.note([event(1, key="a")]) == 1
        assert sequences.note([event(1, key="b")]) == 0

    def test_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            out_of_order(event(5), event(3))
        assert caplog.messages == ["out of order: x M-3 of key K has sequence 3, after 5"]


@pytest.mark.django_db
class TestInTheInbox:
    @pytest.fixture(autouse=True)
    def _travel(self, register: Register) -> None:
        register(Travel)

    def accept(self, sequences: Sequences, *numbers: int) -> None:
        records = [record({"trip": f"T-{n}"}, ce_id=f"M-{n}", ce_sequence=str(n)) for n in numbers]
        accepting.accept(records, consumer="sagas", sequences=sequences)

    def test_what_comes_again_is_not_out_of_order(self, caplog: pytest.LogCaptureFixture) -> None:
        """A relay that was killed sends what was in flight again, and a partition changes hands."""
        sequences = Sequences()
        self.accept(sequences, 1, 2, 3)
        self.accept(sequences, 1, 2, 3, 4)
        self.accept(sequences, 5, 6, 5)
        assert not caplog.messages

    def test_what_is_new_and_lower_is(self, caplog: pytest.LogCaptureFixture) -> None:
        sequences = Sequences()
        self.accept(sequences, 1, 5)
        self.accept(sequences, 3)
        assert len(caplog.messages) == 1

    def test_what_was_not_stored_is_not_remembered(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sequences = Sequences()

        def failing(*_: object) -> None:
            raise RuntimeError

        with monkeypatch.context() as patch:
            patch.setattr(accepting, "reach", failing)
            with pytest.raises(RuntimeError):
                self.accept(sequences, 1, 2)
        self.accept(sequences, 1)
        self.accept(sequences, 2)
        assert InboxMessage.objects.count() == 2
        assert not caplog.messages
