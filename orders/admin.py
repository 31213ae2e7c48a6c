"""Show orders and products in Django's admin, read-only."""

from django.contrib import admin

from orders.models import Order, Payment, Product, Reservation, Shipment
from saga_runtime.read_only_admin import ReadOnlyAdmin


class _Inline(ReadOnlyAdmin, admin.TabularInline):
    """Show rows of an order below the order."""

    extra = 0


class ReservationInline(_Inline):
    """Show an order's reservations."""

    model = Reservation


class PaymentInline(_Inline):
    """Show an order's payment."""

    model = Payment


class ShipmentInline(_Inline):
    """Show an order's shipment."""

    model = Shipment


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """Show orders, newest first, with all that belongs to them."""

    list_display = ("order_id", "status", "user_id", "amount", "reason", "created_at")
    list_filter = ("status",)
    search_fields = ("order_id", "user_id", "correlation_id")
    ordering = ("-id",)
    show_full_result_count = False
    inlines = (ReservationInline, PaymentInline, ShipmentInline)


@admin.register(Product)
class ProductAdmin(ReadOnlyAdmin, admin.ModelAdmin):
    """Show products and their stock."""

    list_display = ("product_id", "name", "on_hand", "reserved", "shipped", "received")
    search_fields = ("product_id", "name")
