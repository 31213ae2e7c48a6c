import pytest
from django.core.management import CommandError, call_command

from orders.models import Product

pytestmark = pytest.mark.django_db


def test_receive_stock_makes_a_new_product(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("receive_stock", "NEW-1", "--quantity", "10", "--name", "Thing")
    call_command("receive_stock", "NEW-1", "--quantity", "5")

    product = Product.objects.get(product_id="NEW-1")
    assert (product.name, product.on_hand, product.received) == ("Thing", 15, 15)
    assert capsys.readouterr().out.splitlines() == ["NEW-1: 10 on hand", "NEW-1: 15 on hand"]


@pytest.mark.parametrize(
    "arguments", [("A/B", "--quantity", "1"), ("A", "--quantity", "0"), ("A", "--quantity", "x")]
)
def test_receive_stock_refuses_what_no_order_could_name(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("receive_stock", *arguments)

    assert not Product.objects.exists()


def test_sample_stock_is_loaded_once() -> None:
    call_command("load_sample_stock")
    Product.objects.filter(product_id="ITEM-2").delete()
    call_command("load_sample_stock")

    assert list(Product.objects.values_list("product_id", "on_hand")) == [
        ("ITEM-1", 1_000_000),
        ("ITEM-2", 1_000_000),
        ("ITEM-3", 1_000_000),
    ]


def test_sample_stock_may_be_for_the_first_start_only() -> None:
    call_command("load_sample_stock", "--if-empty")
    assert Product.objects.count() == 3
    Product.objects.exclude(product_id="ITEM-2").delete()
    call_command("load_sample_stock", "--if-empty")
    assert [product.product_id for product in Product.objects.all()] == ["ITEM-2"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", "0"),
        ("--count", "1", "--rate", "0"),
        ("--count", "1", "--url", "localhost:8000"),
        ("--count", "1", "--declined", "2"),
        ("--count", "1", "--url", "http://127.0.0.1:1"),
    ],
)
def test_place_orders_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("place_orders", *arguments)
