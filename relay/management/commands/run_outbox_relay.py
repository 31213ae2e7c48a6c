"""`manage.py run_outbox_relay`: arguments and wiring of a relay process."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import Error, connection

from brokers import await_broker, broker_from_url, require_shared, require_transactions
from outbox.models import LANES
from relay.assembly import assemble_relay
from relay.listening import woken_by_commits
from relay.loop import Relay
from relay.metrics import relay_registry
from relay.refusals import describe_refusal, is_refusal
from relay.single import AlreadyRunning, only_relay
from relay.timing import Timing
from saga_runtime import project_settings
from saga_runtime.commands import VisibleCommand
from saga_runtime.processes import positive, sign_of_life, spare_the_collector, stop_on_signals
from saga_runtime.prometheus import add_metrics_arguments, metrics_served

MAX_BATCH_SIZE = 10_000


class Command(VisibleCommand):
    """Run a relay until a signal comes, or until the outbox is empty."""

    timing: Timing | None = None  # by default as the database wants
    help = "Publishes the outbox to SAGAZ_BROKER_URL until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that `docs/relay.md` describes."""
        parser.add_argument("--drain", action="store_true", help="empty the outbox, then exit")
        parser.add_argument(
            "--batch-size", type=_batch_size, default=1000, help="rows at a time (default 1000)"
        )
        parser.add_argument(
            "--lanes-max",
            type=_lanes,
            default=LANES,
            help=f"lanes that this relay takes at most, on PostgreSQL (default {LANES}: all)",
        )
        parser.add_argument(
            "--transactional",
            action="store_true",
            help="one transactional producer for each lane, so that Kafka refuses a relay that has"
            " lost its lease; needs librdkafka",
        )
        parser.add_argument("--alive-file", type=Path, help="touched while the relay works")
        add_metrics_arguments(parser)

    def handle(
        self,
        *,
        drain: bool,
        batch_size: int,
        lanes_max: int,
        transactional: bool,
        alive_file: Path | None,
        metrics_port: int | None,
        metrics_address: str,
        **_: Any,
    ) -> None:
        """Await the broker, take the right to relay, and relay."""
        broker = broker_from_url(project_settings.broker_url(), **project_settings.broker_options())
        require_shared(broker)
        if transactional:
            require_transactions(broker)
        await_broker(broker, topics=project_settings.topics())
        connection.ensure_connection()
        spare_the_collector()
        try:
            with only_relay("manage.py run_outbox_relay"), woken_by_commits() as woken:
                relay = assemble_relay(
                    broker,
                    source=project_settings.source(),
                    batch_size=batch_size,
                    lanes_max=lanes_max,
                    transactional=transactional,
                    timing=self.timing,
                    alive=sign_of_life(alive_file),
                    woken=woken,
                    ready=lambda: None if drain else self.say("relay: ready"),
                )
                registry = relay_registry(relay)
                with metrics_served(registry, port=metrics_port, address=metrics_address):
                    self._drain(relay) if drain else self._run(relay)
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error

    def _drain(self, relay: Relay) -> None:
        try:
            count = relay.drain(stop_on_signals())
        except Error as error:
            if not is_refusal(error):
                raise
            raise CommandError(describe_refusal(error)) from error
        self.say(f"published {count} message(s)")

    def _run(self, relay: Relay) -> None:
        stop = stop_on_signals()
        self.say("relay: started, taking its lanes")
        relay.run(stop)
        self.say(f"relay: stopped, published {relay.published} message(s)")


def _lanes(text: str) -> int:
    count = positive(text)
    if count > LANES:
        raise argparse.ArgumentTypeError(f"must be {LANES} or less")
    return count


def _batch_size(text: str) -> int:
    """Read a batch size; a batch and what is in flight must fit into a statement's parameters."""
    size = positive(text)
    if size > MAX_BATCH_SIZE:
        raise argparse.ArgumentTypeError(f"must be {MAX_BATCH_SIZE} or less")
    return size
