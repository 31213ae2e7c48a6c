from typing import Any

from django.core.management.base import BaseCommand

from orders.stock import load_sample_stock


class Command(BaseCommand):
    help = "Puts the sample products into stock where they are missing."

    def handle(self, **_: Any) -> None:
        self.stdout.write(f"{load_sample_stock()} sample product(s) put into stock")
