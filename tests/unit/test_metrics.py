"""What relay and consumer tell Prometheus, asked over HTTP."""

import socket
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.values import MultiProcessValue, close_all_multiprocess_files

from brokers import Message, Record
from relay import metrics as relay_metrics
from relay.loop import Relay
from relay.metrics import relay_registry
from saga_runtime.prometheus import COUNTERS_DIRECTORY, metrics_served
from sagas.inbox import accepting
from sagas.inbox.sequences import Sequences
from sagas.models import Saga, SagaQuerySet
from sagas.worker import metrics as saga_metrics
from sagas.worker.metrics import SagasByStatus, consumer_registry, summed_registry
from tests.ports import free_port
from tests.unit.relay.scripted import Kafka, make_relay, put
from tests.unit.sagas.inbox.test_accepting import Travel, record
from tests.unit.sagas.saga_running import Register
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

Scrape = Callable[[], dict[str, float]]
Counted = Callable[[int, str, int], None]
ADDRESS = "127.0.0.1"
# SQLite has every lane from the start, PostgreSQL a table that is never quite empty.
NOT_ZERO = ("outbox_relay_lanes", "outbox_table_bytes", "outbox_waiting_messages")


def scraping(registry: CollectorRegistry) -> Iterator[Scrape]:
    port = free_port()

    def scrape() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{ADDRESS}:{port}/metrics", timeout=TIMEOUT) as answer:
            text = answer.read().decode()
        return {
            "".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    with metrics_served(registry, port=port, address=ADDRESS):
        yield scrape


class TestTheRelay:
    @pytest.fixture
    def broker(self) -> Kafka:
        def judge(batch: Sequence[Message]) -> list[str]:
            return ["refuse" if message.key == "bad" else "ok" for message in batch]

        return Kafka(judge)

    @pytest.fixture
    def relay(self, broker: Kafka) -> Relay:
        return make_relay(broker)

    @pytest.fixture
    def scrape(self, relay: Relay) -> Iterator[Scrape]:
        yield from scraping(relay_registry(relay))

    def test_before_anything_has_happened(self, scrape: Scrape) -> None:
        found = scrape()
        assert found.keys() >= {
            "outbox_relay_published_total",
            "outbox_relay_parked_total",
            "outbox_relay_cycle_seconds_count",
            "outbox_relay_cycle_seconds_sum",
            "outbox_relay_in_flight",
            "outbox_relay_outages_totalbroker",
            "outbox_relay_outages_totaldatabase",
            "outbox_waiting_messages",
            "outbox_oldest_seconds",
            "outbox_parked_messages",
        }
        assert all(not value for name, value in found.items() if name not in NOT_ZERO)

    def test_while_it_works(self, relay: Relay, broker: Kafka, scrape: Scrape) -> None:
        put("a", "bad", "bad", "b")
        with in_thread(relay.run):
            until(lambda: relay.published + relay.parked == 4)
            found = scrape()
            assert found["outbox_relay_published_total"] == 2
            assert found["outbox_relay_parked_total"] == 2
            assert found["outbox_parked_messages"] == 2
            assert found["outbox_relay_lanes"] == 32
            assert found["outbox_relay_cycle_seconds_count"] > 0
            assert found["outbox_relay_cycle_seconds_sum"] > 0
            broker.away = True
            put("c")
            until(lambda: relay.outages["broker"])
            found = scrape()
            assert found["outbox_relay_outages_totalbroker"] == 1
            assert found["outbox_relay_outages_totaldatabase"] == 0
            assert found["outbox_oldest_seconds"] > 0

    def test_without_a_database_it_tells_of_itself(
        self, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> float:
            raise OperationalError("nobody there")

        monkeypatch.setattr(relay_metrics, "estimated_count", away)
        found = scrape()
        assert found["outbox_relay_published_total"] == 0
        assert "outbox_waiting_messages" not in found


class TestTheConsumer:
    @pytest.fixture(autouse=True)
    def _travel(self, register: Register) -> None:
        register(Travel)

    @pytest.fixture
    def scrape(self) -> Iterator[Scrape]:
        yield from scraping(consumer_registry())

    def test_what_the_inbox_has_taken(self, scrape: Scrape) -> None:
        before, sequences = scrape(), Sequences()
        again = record({"trip": "T-2"}, ce_sequence="5")
        batch: list[Record] = [again, record({"trip": "T-1"}, ce_sequence="4"), record(raw=b"{")]
        accepting.accept(batch, consumer="sagas", sequences=sequences)
        accepting.accept([again], consumer="sagas", sequences=sequences)
        after = scrape()
        grown = {name: after[name] - before[name] for name in before}
        assert grown["sagas_inbox_accepted_total"] == 2
        assert grown["sagas_inbox_refused_total"] == 1
        assert grown["sagas_inbox_out_of_order_total"] == 1

    def test_sagas_are_counted_once_a_minute(self) -> None:
        now = 1000.0
        registry = CollectorRegistry()
        registry.register(SagasByStatus(clock=lambda: now))

        def pending() -> Any:
            return registry.get_sample_value("sagas", {"status": "pending"})

        assert pending() == 0
        accepting.accept([record({"trip": "T-1"})], consumer="sagas")
        now += saga_metrics.COUNT_EVERY - 1
        assert pending() == 0
        now += 1
        assert pending() == 1

    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    def test_a_count_that_fails_is_not_repeated_within_the_minute(
        self, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        now, asked = 1000.0, 0

        def away(self: object) -> QuerySet[Saga]:
            nonlocal asked
            asked += 1
            raise error("nobody there")

        registry = CollectorRegistry()
        registry.register(SagasByStatus(clock=lambda: now))
        with monkeypatch.context() as patch:
            patch.setattr(SagaQuerySet, "unfinished", away)
            for seconds, times in ((0, 1), (1, 1), (saga_metrics.COUNT_EVERY, 2)):
                now += seconds
                assert registry.get_sample_value("sagas", {"status": "parked"}) is None
                assert asked == times
        now += saga_metrics.COUNT_EVERY
        assert registry.get_sample_value("sagas", {"status": "parked"}) == 0


class TestSeveralConsumers:
    @pytest.fixture
    def counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
        """Counts in the place of a process, in a file as the process would."""
        monkeypatch.setenv(COUNTERS_DIRECTORY, str(tmp_path))

        def count(process: int, name: str, amount: int) -> None:
            kept = MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
            value = kept("counter", name, f"{name}_total", (), (), "as it counts itself")
            value.inc(amount)

        yield count
        close_all_multiprocess_files()  # type: ignore[no-untyped-call]

    def test_counters_are_summed_and_sagas_counted_once(
        self, tmp_path: Path, register: Register, counted: Counted
    ) -> None:
        register(Travel)
        accepting.accept([record({"trip": "T-1"})], consumer="sagas")
        counted(1, "sagas_inbox_accepted", 3)
        counted(2, "sagas_inbox_accepted", 4)
        counted(2, "of_somebody_else", 5)
        registry = summed_registry(tmp_path)
        assert registry.get_sample_value("sagas_inbox_accepted_total") == 7
        assert registry.get_sample_value("sagas", {"status": "pending"}) == 1
        assert registry.get_sample_value("of_somebody_else_total") is None

    def test_one_that_is_started_again_counts_on(self, tmp_path: Path, counted: Counted) -> None:
        registry = summed_registry(tmp_path)
        for process, sum_ in ((1, 3), (2, 6), (3, 9)):  # each begins with 0 when the last has died
            counted(process, "sagas_inbox_accepted", 3)
            assert registry.get_sample_value("sagas_inbox_accepted_total") == sum_

    def test_before_a_process_has_started_there_are_the_sagas(self, tmp_path: Path) -> None:
        registry = summed_registry(tmp_path)
        assert registry.get_sample_value("sagas_inbox_accepted_total") is None
        assert registry.get_sample_value("sagas", {"status": "parked"}) == 0


class TestServing:
    def test_a_port_in_use_is_one_line(self) -> None:
        with socket.socket() as taken:
            taken.bind((ADDRESS, 0))
            taken.listen()
            port = taken.getsockname()[1]
            with (
                pytest.raises(CommandError) as caught,
                metrics_served(CollectorRegistry(), port=port, address=ADDRESS),
            ):
                pass
        assert str(caught.value) == (
            f"cannot serve metrics at 127.0.0.1:{port}: Address already in use; "
            "choose another --metrics-port"
        )

    def test_an_address_that_is_none(self) -> None:
        with (
            pytest.raises(CommandError, match=r"cannot serve metrics at nowhere\.invalid:"),
            metrics_served(CollectorRegistry(), port=free_port(), address="nowhere.invalid"),
        ):
            pass

    @pytest.mark.parametrize("port", [None, 0])
    def test_without_a_port_nothing_is_served(self, port: int | None) -> None:
        with metrics_served(CollectorRegistry(), port=port, address="nowhere.invalid"):
            pass

    def test_the_port_is_free_afterwards(self) -> None:
        port = free_port()
        for _ in range(2):
            with metrics_served(CollectorRegistry(), port=port, address=ADDRESS):
                pass
