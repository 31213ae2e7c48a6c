"""A relay beside that of the service, which its supervisor does not know of."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.full_service import FullService
from tests.relaying.relays import RelayProcess
from tests.relaying.stage import RELAY

LOG = "relay-beside"


class RelaysBeside:
    """Start them one after the other, each with the Kafka client that the service's has not."""

    def __init__(self, service: FullService) -> None:
        self._service = service
        self._last: RelayProcess | None = None

    def start(self) -> RelayProcess:
        """One more; the one before has ended."""
        env = self._service.env | {"SAGAZ_KAFKA_CLIENT": "kafka-python"}
        self._last = RelayProcess(self._service.directory, LOG, command=RELAY, **env)
        return self._last

    def lines(self) -> Iterator[str]:
        """What all of them have logged."""
        with (self._service.directory / f"{LOG}.log").open() as log:
            yield from log

    def clean_up(self) -> None:
        if self._last is not None:
            self._last.clean_up()


@contextmanager
def relays_beside(service: FullService) -> Iterator[RelaysBeside]:
    """None is started yet, and none runs on after the block."""
    relays = RelaysBeside(service)
    try:
        yield relays
    finally:
        relays.clean_up()
