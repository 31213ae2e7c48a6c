"""Serve the floor of `benchmarks/http.py`: a Django view with nothing but the two inserts."""

import json
import os
import uuid

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.bare_settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from orders.models import Order
from outbox.models import OutboxMessage


def place(request: HttpRequest) -> JsonResponse:
    """Insert an order and a message, without any check."""
    body = json.loads(request.body)
    with transaction.atomic():
        order = Order.objects.create(
            order_id=body["order_id"],
            user_id=body["user_id"],
            items=body["items"],
            amount=str(body["amount"]),
            saga_id=uuid.uuid4(),
            correlation_id="",
        )
        OutboxMessage.objects.create(
            topic="orders.commands",
            key=order.order_id,
            key_hash=0,
            type="orders.place",
            payload=request.body,
        )
    return JsonResponse({"order_id": order.order_id, "status": order.status}, status=202)


urlpatterns = [path("orders/", place)]
