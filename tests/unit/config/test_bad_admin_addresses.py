"""Whatever stands in an address of the admin: an answer, never a 500."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db

BAD_TEXTS = ["%00", "%ED%A0%80", "%FF", "9" * 30, "-1"]
PARAMETERS = ["q", "p", "o", "_to_field", "pk__exact", "id__in", "nothing"]
LISTS = {
    f"/admin/{model._meta.app_label}/{model._meta.model_name}/": model_admin
    for model, model_admin in admin.site._registry.items()
}


@pytest.fixture
def boss(client: Client) -> Client:
    client.raise_request_exception = False
    client.force_login(User.objects.create(username="boss", is_staff=True, is_superuser=True))
    return client


def filters(model_admin: Any) -> list[str]:
    """The parameters of its filters: by value, by emptiness and by range."""
    fields = [each if isinstance(each, str) else each[0] for each in model_admin.list_filter]
    lookups = ("exact", "isnull", "gte")
    return [f"{field}__{lookup}" for field in fields for lookup in lookups]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_takes_any_parameter(boss: Client, path: str) -> None:
    for name in PARAMETERS + filters(LISTS[path]):
        for text in BAD_TEXTS:
            answer = boss.get(f"{path}?{name}={text}")
            assert answer.status_code < 500, (name, text)
            assert text != "%00" or answer.status_code == 400


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("view", ["change", "delete", "history"])
def test_an_address_takes_any_id(boss: Client, path: str, view: str) -> None:
    for text in [*BAD_TEXTS, "_00", "a_00b", "_FF", "_5F00"]:
        assert boss.get(f"{path}{text}/{view}/").status_code < 500, text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("auth/user/_00/change/", 400),
        ("auth/user/a_00b/history/", 400),
        ("r/1/_00/", 400),
        ("report_001/thing/", 404),
        ("auth/user_001/", 404),
        ("auth/user/a_5F00/change/", 302),  # the key `a_00`: there is no such user
        ("sagas/saga/5/monthly_001/", 302),
    ],
)
def test_only_a_key_can_hold_nul_as_the_admin_writes_it(
    boss: Client, path: str, status: int
) -> None:
    assert boss.get(f"/admin/{path}").status_code == status


@pytest.mark.parametrize("name", ["sessionid", "csrftoken", "messages", "anything"])
def test_a_cookie_may_hold_anything(boss: Client, name: str) -> None:
    for value in (r'"\000aaaaaaaa"', r'"\377"', "9" * 3000):
        answer = boss.get("/admin/login/", headers={"cookie": f"{name}={value}"})
        assert answer.status_code < 500, value


def test_a_form_may_hold_anything(client: Client) -> None:
    client.raise_request_exception = False
    for text in ("\0", "\ud7ff", "a" * 5000):
        answer = client.post("/admin/login/", {"username": text, "password": text})
        assert answer.status_code < 500
