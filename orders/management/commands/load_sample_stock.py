"""Put sample products into stock from the command line."""

import argparse
from typing import Any

from orders.models import Product
from orders.sample_stock import load_sample_stock
from saga_runtime.commands import VisibleCommand


class Command(VisibleCommand):
    """Put the sample products into stock where they are missing."""

    help = "Puts the sample products into stock where they are missing."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the condition."""
        parser.add_argument(
            "--if-empty", action="store_true", help="only where there is no product"
        )

    def handle(self, *, if_empty: bool, **_: Any) -> None:
        """Load the products, and print how many were new."""
        new = 0 if if_empty and Product.objects.exists() else load_sample_stock()
        self.say(f"{new} sample product(s) put into stock")
