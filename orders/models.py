"""Define orders, and what they take and give: stock, reservations, payments, shipments.

Invariants, each a database constraint: a product's on hand + reserved + shipped is the total ever
received, and no part is negative; an order has at most one payment and one shipment.
"""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from saga_runtime.lookups import Lookup

MAX_ID = 64


class OrderStatus(models.TextChoices):
    """Name the statuses of an order."""

    PENDING = "pending"
    PROCESSING = "processing"
    FULFILLED = "fulfilled"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    ATTENTION = "attention", "Attention (a person must look)"


ENDED = (OrderStatus.FULFILLED, OrderStatus.REJECTED, OrderStatus.CANCELLED)


class Product(models.Model):
    """Keep a product's stock."""

    product_id = models.CharField(max_length=MAX_ID, unique=True)
    name = models.CharField(max_length=200)
    received = models.PositiveBigIntegerField(default=0, help_text="ever put into stock")
    on_hand = models.PositiveBigIntegerField(default=0, help_text="free to reserve")
    reserved = models.PositiveBigIntegerField(default=0)
    shipped = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ("product_id",)
        constraints = [
            models.CheckConstraint(
                name="orders_stock_not_negative",
                condition=Q(on_hand__gte=0, reserved__gte=0, shipped__gte=0),
            ),
            models.CheckConstraint(
                name="orders_stock_conserved",
                condition=Q(received=F("on_hand") + F("reserved") + F("shipped")),
            ),
        ]

    def __str__(self) -> str:
        return self.product_id


class OrderQuerySet(models.QuerySet["Order"]):
    """Ask for orders."""

    def newest_first(self) -> "OrderQuerySet":
        """Sort by age, newest first."""
        return self.order_by("-id")

    def unfinished(self) -> "OrderQuerySet":
        """Leave out orders that have ended or need a person."""
        return self.exclude(status__in=(*ENDED, OrderStatus.ATTENTION))

    def with_details(self) -> "OrderQuerySet":
        """Fetch payments, shipments and reservations along with the orders."""
        return self.select_related("payment", "shipment").prefetch_related("reservations__product")


class Order(models.Model):
    """Keep an order as it was placed, and how far it has come."""

    order_id = models.CharField(max_length=MAX_ID, unique=True)
    user_id = models.CharField(max_length=MAX_ID)
    items = models.JSONField(help_text="what was ordered: a list of {id, name, quantity}")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.CharField(
        max_length=16, choices=OrderStatus.choices, default=OrderStatus.PENDING
    )
    reason = models.TextField(blank=True, default="", help_text="why it was not fulfilled")
    cancel_requested_at = models.DateTimeField(
        null=True, blank=True, help_text="when somebody first asked us to cancel it"
    )
    cancel_reason = models.TextField(
        blank=True, default="", db_default="", help_text="the reason given with that"
    )
    saga_id = models.UUIDField(editable=False)
    correlation_id = models.CharField(max_length=128)
    traceparent = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OrderQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["status", "-id"], name="orders_by_status"),
            models.Index(fields=["user_id", "-id"], name="orders_by_user"),
        ]
        constraints = [
            models.CheckConstraint(name="orders_amount_positive", condition=Q(amount__gt=0))
        ]

    def __str__(self) -> str:
        return self.order_id

    @property
    def has_ended(self) -> bool:
        """Whether the status is a last one."""
        return self.status in ENDED


BY_ORDER_ID = Lookup(Order, "order_id")
"""Finds an order by the public id."""


class ReservationStatus(models.TextChoices):
    """Name the statuses of a reservation."""

    ACTIVE = "active"
    RELEASED = "released"
    SHIPPED = "shipped"


class Reservation(models.Model):
    """Hold a quantity of a product for an order."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="reservations")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="reservations")
    quantity = models.PositiveIntegerField()
    status = models.CharField(
        max_length=16, choices=ReservationStatus.choices, default=ReservationStatus.ACTIVE
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "product"], name="orders_reserved_once")
        ]

    def __str__(self) -> str:
        return f"{self.quantity} of {self.product_id} for {self.order_id}: {self.status}"


class PaymentStatus(models.TextChoices):
    """Name the statuses of a payment in our books."""

    CHARGED = "charged"
    REFUNDED = "refunded"


class Payment(models.Model):
    """Keep our books. The gateway has a ledger of its own; the audit compares the two."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT, related_name="payment")
    key = models.CharField(max_length=600, unique=True, help_text="idempotency key of the charge")
    transaction_id = models.CharField(max_length=255)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.CharField(
        max_length=16, choices=PaymentStatus.choices, default=PaymentStatus.CHARGED
    )
    charged_at = models.DateTimeField(default=timezone.now)
    refunded_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.transaction_id} {self.status}"


class Shipment(models.Model):
    """Record that an order has left."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT, related_name="shipment")
    tracking = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.tracking


class LedgerStatus(models.TextChoices):
    """Name the statuses of a charge in the simulated ledger."""

    CHARGED = "charged"
    REFUNDED = "refunded"
    CLOSED = "closed", "Closed (never charged, and never will be)"


class SimulatedCharge(models.Model):
    """Keep the ledger of `simulated://`, which a real provider would keep elsewhere."""

    key = models.CharField(max_length=600, primary_key=True)
    reference = models.CharField(max_length=MAX_ID, help_text="the order's id")
    amount = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    status = models.CharField(max_length=16, choices=LedgerStatus.choices)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["reference"],
                name="orders_charged_once",
                condition=Q(status=LedgerStatus.CHARGED),
            )
        ]

    def __str__(self) -> str:
        return f"{self.reference} {self.status}"
