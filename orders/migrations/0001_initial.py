"""Orders, and what they take and give: stock, reservations, payments, shipments."""

import django.db.models.deletion
import django.db.models.expressions
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("order_id", models.CharField(max_length=64, unique=True)),
                ("user_id", models.CharField(max_length=64)),
                (
                    "items",
                    models.JSONField(help_text="what was ordered: a list of {id, name, quantity}"),
                ),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("processing", "Processing"),
                            ("fulfilled", "Fulfilled"),
                            ("rejected", "Rejected"),
                            ("cancelled", "Cancelled"),
                            ("attention", "Attention (a person must look)"),
                        ],
                        default="pending",
                        max_length=16,
                    ),
                ),
                (
                    "reason",
                    models.TextField(blank=True, default="", help_text="why it was not fulfilled"),
                ),
                ("saga_id", models.UUIDField(editable=False)),
                ("correlation_id", models.CharField(max_length=128)),
                ("traceparent", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "cancel_reason",
                    models.TextField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="the reason given with that",
                    ),
                ),
                (
                    "cancel_requested_at",
                    models.DateTimeField(
                        blank=True, help_text="when somebody first asked us to cancel it", null=True
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["status", "-id"], name="orders_by_status"),
                    models.Index(fields=["user_id", "-id"], name="orders_by_user"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0)), name="orders_amount_positive"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Payment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "key",
                    models.CharField(
                        help_text="idempotency key of the charge", max_length=600, unique=True
                    ),
                ),
                ("transaction_id", models.CharField(max_length=255)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12)),
                (
                    "status",
                    models.CharField(
                        choices=[("charged", "Charged"), ("refunded", "Refunded")],
                        default="charged",
                        max_length=16,
                    ),
                ),
                ("charged_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("refunded_at", models.DateTimeField(blank=True, null=True)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="payment",
                        to="orders.order",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("product_id", models.CharField(max_length=64, unique=True)),
                ("name", models.CharField(max_length=200)),
                (
                    "received",
                    models.PositiveBigIntegerField(default=0, help_text="ever put into stock"),
                ),
                ("on_hand", models.PositiveBigIntegerField(default=0, help_text="free to reserve")),
                ("reserved", models.PositiveBigIntegerField(default=0)),
                ("shipped", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "ordering": ("product_id",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("on_hand__gte", 0), ("reserved__gte", 0), ("shipped__gte", 0)
                        ),
                        name="orders_stock_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "received",
                                django.db.models.expressions.CombinedExpression(
                                    django.db.models.expressions.CombinedExpression(
                                        models.F("on_hand"), "+", models.F("reserved")
                                    ),
                                    "+",
                                    models.F("shipped"),
                                ),
                            )
                        ),
                        name="orders_stock_conserved",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Shipment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tracking", models.CharField(max_length=100, unique=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="shipment",
                        to="orders.order",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="SimulatedCharge",
            fields=[
                ("key", models.CharField(max_length=600, primary_key=True, serialize=False)),
                ("reference", models.CharField(help_text="the order's id", max_length=64)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12, null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("charged", "Charged"),
                            ("refunded", "Refunded"),
                            ("closed", "Closed (never charged, and never will be)"),
                        ],
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("status", "charged")),
                        fields=("reference",),
                        name="orders_charged_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Reservation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("quantity", models.PositiveIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("active", "Active"),
                            ("released", "Released"),
                            ("shipped", "Shipped"),
                        ],
                        default="active",
                        max_length=16,
                    ),
                ),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reservations",
                        to="orders.order",
                    ),
                ),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reservations",
                        to="orders.product",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("order", "product"), name="orders_reserved_once"
                    )
                ],
            },
        ),
    ]
