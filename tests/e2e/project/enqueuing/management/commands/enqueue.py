import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from outbox import NewMessage, enqueue_many


class Command(BaseCommand):
    help = "Puts messages into the outbox."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("topic")
        parser.add_argument("type")
        parser.add_argument("key", help="the payload's field with the message's key")
        parser.add_argument("payloads", type=json.loads, help="as a list")

    def handle(self, *, payloads: list[dict[str, Any]], **options: Any) -> None:
        with transaction.atomic():
            enqueue_many(
                NewMessage(
                    topic=options["topic"],
                    key=payload[options["key"]],
                    type=options["type"],
                    payload=payload,
                )
                for payload in payloads
            )
