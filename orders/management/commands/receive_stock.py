"""Put products into stock from the command line."""

import argparse
import re
from typing import Any

from orders.schemas import ID_PATTERN
from orders.services import receive_stock
from saga_runtime.commands import VisibleCommand
from saga_runtime.processes import positive


class Command(VisibleCommand):
    """Put a quantity of a product into stock."""

    help = "Puts a quantity of a product into stock; a new product is made."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the product and the quantity."""
        parser.add_argument("product_id", type=_product_id)
        parser.add_argument("--quantity", type=positive, required=True)
        parser.add_argument("--name", default="", help="for a new product (default: its id)")

    def handle(self, *, product_id: str, quantity: int, name: str, **_: Any) -> None:
        """Receive the stock, and print how much is on hand."""
        product = receive_stock(product_id=product_id, name=name or product_id, quantity=quantity)
        self.say(f"{product.product_id}: {product.on_hand} on hand")


def _product_id(text: str) -> str:
    if not re.fullmatch(ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id that an order can name: {ID_PATTERN}")
    return text
