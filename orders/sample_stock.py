"""Load sample products, for a first try."""

from orders.models import Product
from orders.services import receive_stock

SAMPLE = (("ITEM-1", "Widget"), ("ITEM-2", "Gadget"), ("ITEM-3", "Doohickey"))
SAMPLE_QUANTITY = 1_000_000


def load_sample_stock() -> int:
    """Put the sample products into stock where they are missing.

    Returns:
        How many were new.
    """
    known = set(Product.objects.values_list("product_id", flat=True))
    new = [(product_id, name) for product_id, name in SAMPLE if product_id not in known]
    for product_id, name in new:
        receive_stock(product_id=product_id, name=name, quantity=SAMPLE_QUANTITY)
    return len(new)
