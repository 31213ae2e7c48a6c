"""Which products there are. A product is never deleted, so one that was there is still there, and
each process asks for it once."""

from collections.abc import Sequence

from orders.errors import UnknownProducts
from orders.models import Product

_seen: set[str] = set()


def check_known(product_ids: Sequence[str]) -> None:
    """Raises:
    UnknownProducts: naming those that there are not.
    """
    new = [product_id for product_id in product_ids if product_id not in _seen]
    if not new:
        return
    found = set(Product.objects.filter(product_id__in=new).values_list("product_id", flat=True))
    unknown = [product_id for product_id in new if product_id not in found]
    if unknown:
        raise UnknownProducts(unknown)
    _seen.update(found)
