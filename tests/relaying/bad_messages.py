"""Messages that Kafka refuses, or that cannot be written as one."""

from collections.abc import Sequence
from dataclasses import dataclass

from outbox.murmur2 import murmur2
from tests.relaying.stage import TOPIC, Stage


@dataclass(frozen=True, slots=True)
class Kind:
    """What is wrong: the topic, the payload's size in bytes, or the headers, as JSON."""

    name: str
    topic: str = TOPIC
    size: int = 10
    headers: str = "{}"


TOO_LARGE = Kind("too-large", size=1_200_000)
NO_TOPIC = Kind("no-topic", topic="absent.events")
POISON = Kind("poison", headers='{"x-number": 5}')
KINDS = (TOO_LARGE, NO_TOPIC, POISON)
GOOD = Kind("good")


def put(stage: Stage, key: str, kinds: Sequence[Kind]) -> list[int]:
    """Into the outbox, past `enqueue()`, which lets no poison in; returns the ids."""
    return [_put(stage, key, kind) for kind in kinds]


def _put(stage: Stage, key: str, kind: Kind) -> int:
    [(id_,)] = stage.query(
        "INSERT INTO outbox_message (message_id, topic, key, key_hash, type, payload, headers,"  # noqa: S608
        " correlation_id, traceparent, created_at) VALUES (gen_random_uuid(),"
        f" '{kind.topic}', '{key}', {murmur2(key.encode())}, 'test.written',"
        f" convert_to('\"' || repeat('x', {kind.size}) || '\"', 'UTF8'),"
        f" '{kind.headers}', '', '', clock_timestamp()) RETURNING id"
    )
    return int(id_)
