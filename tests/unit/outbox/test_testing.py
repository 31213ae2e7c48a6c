"""What a project's own tests see of the outbox."""

from decimal import Decimal

import pytest
from django.db import transaction

from outbox import enqueue
from outbox.models import OutboxMessage
from outbox.testing import Message, assert_enqueued, messages
from saga_runtime.correlation import Correlation, correlated

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _three() -> None:
    with transaction.atomic():
        for number, topic in enumerate(("a", "b", "a")):
            payload = {"price": Decimal("1.50"), "pair": (number, None)}
            enqueue(topic=topic, key=f"K-{number}", type=f"t.{topic}", payload=payload)


def test_what_was_enqueued_is_as_a_consumer_reads_it() -> None:
    with transaction.atomic(), correlated(Correlation("C-1")):
        enqueue(topic="c", key="K", type="x", payload=["ü"], headers={"tenant": "7"})
    assert messages(topic="c") == [Message("c", "K", "x", ["ü"], {"tenant": "7"}, "C-1")]
    assert assert_enqueued(topic="b").payload == {"price": "1.50", "pair": [1, None]}


def test_it_is_found_by_topic_type_and_key_in_order() -> None:
    assert [m.key for m in messages()] == ["K-0", "K-1", "K-2"]
    assert [m.key for m in messages(topic="a")] == ["K-0", "K-2"]
    assert [m.key for m in messages(type="t.b")] == ["K-1"]
    assert [m.key for m in messages(type="t.a", key="K-2")] == ["K-2"]
    assert messages(key="") == []


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"type": "t.c"}, "0 messages with type='t.c' are in the outbox, which holds\n  t.a to a"),
        ({"topic": "a"}, "2 messages with topic='a' are"),
        ({}, "3 messages with anything are in the outbox"),
        ({"key": ""}, "0 messages with key='' are"),
    ],
)
def test_none_or_several_fail_with_what_is_there(wanted: dict[str, str], says: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(**wanted)
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(
        "\n  t.a to a, key K-0\n  t.b to b, key K-1\n  t.a to a, key K-2"
    )


def test_an_empty_outbox_says_so() -> None:
    OutboxMessage.objects.all().delete()
    with pytest.raises(AssertionError, match="which holds nothing"):
        assert_enqueued(key="K")
