"""Read received messages, also those with headers that confluent-kafka cannot read."""

from operator import methodcaller
from typing import cast

from confluent_kafka import Message

from brokers.base import Headers, Record
from brokers.kafka.membership import NOT_UTF8
from brokers.librdkafka.faults import explain

# confluent-kafka returns a message's headers with an error set where it could not make one of them.
# Python notices that, and raises SystemError, only where the call goes by its general way: a call
# that stands in the code is made faster once it is hot, and hands out a list with holes.
_read_headers = methodcaller("headers")


def record_of(message: Message) -> Record:
    """Make a record of a received message; never raises for headers that cannot be read."""
    headers, unreadable = _headers(message)
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=headers,
        unreadable=unreadable,
    )


def _headers(message: Message) -> tuple[Headers, str]:
    """Read the headers, and say why they cannot be read where they cannot.

    confluent-kafka raises SystemError where one header's name is not UTF-8, and hands out none.
    """
    try:
        headers = cast("list[tuple[str, bytes | None]]", _read_headers(message) or [])
    except SystemError:
        return (), f"{NOT_UTF8}; this client keeps none of its headers"
    except Exception as error:  # noqa: BLE001 - whatever it is, the record must be stepped over
        return (), f"its headers cannot be read: {explain(error)}"
    return tuple((name, value or b"") for name, value in headers), ""
