"""A host project decides nothing about the keys of our tables: whatever its DEFAULT_AUTO_FIELD, its
`makemigrations` finds nothing to change."""

import pytest
from django.apps import apps
from django.db import models

OURS = ("config", "outbox", "relay", "sagas", "orders")


@pytest.mark.parametrize("label", OURS)
def test_each_app_says_it_by_itself(label: str) -> None:
    app = apps.get_app_config(label)
    assert type(app).__dict__["default_auto_field"] == "django.db.models.BigAutoField"
    keys = [model._meta.pk for model in app.get_models()]
    assert not [key for key in keys if type(key) is models.AutoField]
