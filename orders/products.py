"""Know which products exist.

A product is never deleted, so a process has to ask for each product only once.
"""

from collections.abc import Sequence

from orders.errors import UnknownProducts
from orders.models import Product

_known: set[str] = set()


def check_known(product_ids: Sequence[str]) -> None:
    """Check that products exist.

    Raises:
        UnknownProducts: some do not; the error has their ids.
    """
    new = [product_id for product_id in product_ids if product_id not in _known]
    if not new:
        return
    found = set(Product.objects.filter(product_id__in=new).values_list("product_id", flat=True))
    unknown = [product_id for product_id in new if product_id not in found]
    if unknown:
        raise UnknownProducts(unknown)
    _known.update(found)
