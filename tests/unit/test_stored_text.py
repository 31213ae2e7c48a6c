"""Nothing that is stored is ever interpreted: not by a command, a log line or a page."""

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models
from django.test import Client
from django.utils import timezone

from brokers import Record
from config.logs import logging_config
from orders.models import (
    Order,
    Payment,
    Product,
    Reservation,
    Shipment,
    SimulatedCharge,
)
from outbox.models import OutboxMessage, OutboxRelay, ParkedIntervention, ParkedMessage
from saga_runtime.logs import OneLineFormatter, get_logger
from saga_runtime.text import storable
from sagas.inbox import accepting
from sagas.models import Intervention, RefusedCommand, Saga, SagaAttempt, SagaStep
from tests.processes import ROOT

MEGABYTE = "m" * 1_000_000
NASTY = {
    "a closing tag of Rich": "[/x]",
    "a link of Rich": "[link=https://evil.example]here[/link]",
    "colour of a terminal": "\x1b[31mred\x1b[0m",
    "clearing a terminal": "\x1b[2J\x1b]0;title\x07",
    "a C1 control": "\x9b31m",
    "CR and LF": "a\r\n2026-01-01 INFO root [-] forged\nb",
    "other line ends": "a\x0b\x0c\x85\u2028\u2029b",
    "right to left": "\u202egnp.exe\u202c \u2066x\u2069 \u200f",
    "zero width": "a\u200b\ufeffb",
    "HTML": "<script>alert(1)</script>",
    "a megabyte": MEGABYTE,
    "a percent sign": "%s %(x)s {0} {x}",
    "NUL and a surrogate, written out": storable("a\0b\ud800c"),
}
_MOVES = "\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"  # cursors, colours, text
OBEYED = re.compile(f"[\0-\x09\x0d\u2028\u2029\u200b-\u200f\ufeff{_MOVES}]")
OBEYED_BY_A_BROWSER = re.compile(f"[\0-\x08{_MOVES}]")


def text_fields(model: type[models.Model]) -> list[str]:
    """The columns that hold free text."""
    return [
        field.name
        for field in model._meta.concrete_fields
        if isinstance(field, models.CharField | models.TextField)
        and not field.choices
        and not field.primary_key
    ]


def store(text: str) -> Saga:
    """One row in every table that a command or a page shows, with this text in each text column."""

    def filled(model: type[models.Model], **values: Any) -> Any:
        columns = {}
        for name in text_fields(model):
            length = getattr(model._meta.get_field(name), "max_length", None)
            columns[name] = text[:length] if length else text
        return model._default_manager.create(**columns | values)

    now = timezone.now()
    saga = filled(Saga, id=uuid4(), input="{}", status="parked", next_run_at=now, deadline=now)
    filled(SagaStep, saga=saga, kind="F", status="failed")
    filled(SagaAttempt, saga=saga, kind="F", attempt=1, status="failed", started_at=now)
    filled(Intervention, saga=saga)
    filled(
        RefusedCommand,
        partition=0,
        offset=0,
        key=text.encode(errors="surrogatepass")[:1000],
        value=text.encode(errors="surrogatepass"),
        headers=[[text, "eA=="]],
    )
    filled(OutboxMessage, key_hash=1, payload=text.encode(), headers={text: text})
    filled(ParkedMessage, id=1, message_id=uuid4(), key_hash=1, payload=text.encode(), headers={})
    filled(ParkedIntervention, message=1, payload_before=json.dumps(text).encode())
    OutboxRelay.objects.create(id=str(uuid4()), until=now + timedelta(hours=1), started_at=now)
    product = filled(Product, received=1, on_hand=1)
    order = filled(
        Order, items=[{"id": text, "name": text, "quantity": 1}], amount=1, saga_id=saga.id
    )
    filled(Payment, order=order, amount=1)
    filled(Reservation, order=order, product=product, quantity=1)
    filled(Shipment, order=order)
    SimulatedCharge.objects.create(key="K", reference=text[:64], amount=1, status="charged")
    return cast("Saga", saga)


def commands(saga: Saga) -> dict[str, list[str]]:
    """Every command that shows what is stored, without and with `--json`."""
    return {
        "sagas list": ["sagas", "list"],
        "sagas list of one name": ["sagas", "list", "--name", saga.name],
        "sagas show": ["sagas", "show", str(saga.id)],
        "sagas show by key": ["sagas", "show", saga.key],
        "sagas refused": ["sagas", "refused"],
        "sagas retry": ["sagas", "retry", str(saga.id), "--why", "x"],
        "sagas pause": ["sagas", "pause", str(saga.id), "--why", "x"],
        "sagas resume": ["sagas", "resume", str(saga.id), "--why", "x"],
        "sagas cancel": ["sagas", "cancel", str(saga.id), "--why", "x"],
        "sagas resolve": ["sagas", "resolve", str(saga.id), "step", "--why", "x"],
        "outbox status": ["outbox", "status"],
        "outbox parked": ["outbox", "parked"],
        "outbox log": ["outbox", "log"],
    }


def run(*arguments: str) -> str:
    """All that the command prints, its error too."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except CommandError as error:
        err.write(f"{error}\n")
    except SystemExit:
        pass  # audit_orders found a contradiction, as it should
    return out.getvalue() + err.getvalue()


@pytest.mark.django_db
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
class TestCommands:
    def test_people_see_it_as_it_is(self, text: str) -> None:
        for name, arguments in commands(store(text)).items():
            printed = run(*arguments)
            assert printed, name
            assert not OBEYED.search(printed), name
            assert not any(line.startswith("2026-01-01 INFO") for line in printed.split("\n")), name
            assert len(printed) < 50_000, name

    def test_programs_get_all_of_it(self, text: str) -> None:
        saga = store(text)
        for name, arguments in commands(saga).items():
            printed = run(*arguments, "--json")
            assert printed.isascii(), name
            assert not OBEYED.search(printed), name
        assert json.loads(run("sagas", "list", "--json"))[0]["reason"] == text
        assert json.loads(run("outbox", "parked", "--json"))[0]["reason"] == text


@pytest.mark.django_db(transaction=True)  # the audit sets its own isolation
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_the_audit_shows_it_as_it_is(text: str) -> None:
    store(text)
    printed = run("audit_orders")
    assert "contradiction(s)" in printed
    assert not OBEYED.search(printed)
    assert run("audit_orders", "--json").isascii()


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["[/x]", NASTY["a link of Rich"], "<script>", "%s {0} \\"])
def test_what_no_terminal_obeys_is_shown_as_it_is(text: str) -> None:
    saga = store(text)
    assert text in run("sagas", "list")
    assert text in run("sagas", "show", str(saga.id))
    assert text in run("outbox", "parked")


@pytest.mark.django_db
@pytest.mark.parametrize("text", [t for t in NASTY.values() if t != MEGABYTE])
def test_a_message_that_names_a_saga_is_one_line(text: str) -> None:
    saga = store(text)
    Saga.objects.filter(id=saga.id).update(status="completed")
    printed = run("sagas", "retry", str(saga.id), "--why", "x")
    assert "is completed; this is for parked sagas" in printed
    assert printed.count("\n") == 1


@pytest.mark.django_db
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_pages_of_the_admin(client: Client, text: str) -> None:
    store(text)
    client.force_login(User.objects.create_superuser("boss"))
    ours = ("orders", "outbox", "sagas")
    for model in (m for m in admin.site._registry if m._meta.app_label in ours):
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        row = model._default_manager.first()
        assert row is not None, model
        for path in (base, f"{base}{row.pk}/change/", f"{base}{row.pk}/history/"):
            response = client.get(path)
            assert response.status_code == 200, path
            page = response.content.decode()
            assert not OBEYED_BY_A_BROWSER.search(page)
            assert "<script>alert" not in page


@pytest.mark.django_db
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_a_diagram_has_nothing_of_it(client: Client, text: str) -> None:
    saga = store(text)
    for status in ("running", "parked", "rolled_back", "completed"):
        Order.objects.update(order_id="ORD-1")
        Saga.objects.filter(id=saga.id).update(status=status, name="order", version=1)
        answer = client.get("/orders/ORD-1/diagram/", headers={"accept": "text/vnd.mermaid"})
        assert answer.status_code == 200
        assert not OBEYED.search(answer.content.decode())
        assert text[:100] not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/orders/%1b[2J%0d%0a%e2%80%ae/", "/%1b[2J%0d%0a%e2%80%ae/", "/orders/%c2%9b/diagram/"]
)
def test_a_problem_body_repeats_it_in_ascii(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.content.isascii()
    assert not OBEYED.search(answer.content.decode())


class Log:
    """What a handler with our formatter has written."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        config = logging_config(level="DEBUG")["formatters"]["line"]
        assert config["class"] == "saga_runtime.logs.OneLineFormatter"
        self.handler.setFormatter(OneLineFormatter(config["format"], style="{"))
        from saga_runtime.correlation import CorrelationFilter

        self.handler.addFilter(CorrelationFilter())

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().removesuffix("\n").split("\n")


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    logging.getLogger().addHandler(log.handler)
    yield log
    logging.getLogger().removeHandler(log.handler)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
class TestLogs:
    def test_another_librarys_record_is_one_visible_line(self, log: Log, text: str) -> None:
        message = f"it says {text.replace('%', '%%')}, %s"
        logging.getLogger("foreign.library").warning(message, text)
        [line] = log.lines
        assert not OBEYED.search(line)

    def test_a_traceback_stays_readable_and_forges_no_record(self, log: Log, text: str) -> None:
        try:
            int(Exception(text))  # type: ignore[call-overload]
        except TypeError as error:
            error.args = (text,)
            logging.getLogger("foreign.library").exception("failed")
        first, *rest = log.lines
        assert first.endswith("ERROR foreign.library [-] failed")
        assert rest[0] == "    Traceback (most recent call last):"
        assert all(line.startswith("    ") and not OBEYED.search(line) for line in rest)

    def test_our_own_loggers_are_safe_with_anybodys_formatter(
        self, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        get_logger("ours").warning("%s, %s, %d", text, ValueError(text), 5)
        [record] = caplog.records
        assert not OBEYED.search(record.getMessage())
        assert "\n" not in record.getMessage()
        assert len(record.getMessage()) < 10_000
        assert Path(record.pathname) == Path(__file__)

    @pytest.mark.django_db
    def test_a_command_from_kafka_with_such_text(
        self, log: Log, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        headers = {
            "ce_specversion": "1.0",
            "ce_id": text[:200],
            "ce_type": text[:200],
            "ce_source": "/s",
            "x-correlation-id": text[:200],
        }
        encoded = tuple((k, v.encode(errors="surrogatepass")) for k, v in headers.items())
        for type_ in (text[:200], "orders.place", "orders.cancel"):
            record_headers = (*encoded, ("ce_type", type_.encode(errors="surrogatepass")))
            value = json.dumps({"order_id": text}).encode()
            accepting.accept(
                [Record(text[:200], 0, 1, b"k", value, record_headers)], consumer="sagas"
            )
        assert all("refused" in line for line in log.lines)
        assert len(log.lines) == len(caplog.records)
        assert not OBEYED.search("\n".join(log.lines))
        assert not OBEYED.search("\n".join(record.getMessage() for record in caplog.records))


def test_numbers_and_ids_reach_the_format_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    saga = UUID(int=7)
    get_logger("ours").warning("%d %.1f %s %s", 5, 0.25, saga, None)
    assert caplog.messages == [f"5 0.2 {saga} None"]


def test_every_module_logs_through_it() -> None:
    """Whoever takes the packages has a LOGGING of their own: ours must be safe with any."""
    for package in ("brokers", "config", "orders", "outbox", "relay", "sagas"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr == "getLogger":
                    pytest.fail(f"{path}:{node.lineno}: use saga_runtime.logs.get_logger")


def test_every_command_prints_through_it() -> None:
    from importlib import import_module

    from saga_runtime.commands import VisibleCommand

    for label in ("config", "orders", "outbox", "relay", "sagas"):
        folder = Path(apps.get_app_config(label).path, "management", "commands")
        for path in folder.glob("[a-z]*.py"):
            module = import_module(f"{label}.management.commands.{path.stem}")
            assert issubclass(module.Command, VisibleCommand), path
            assert "stdout.write" not in path.read_text(), f"{path}: use say()"
