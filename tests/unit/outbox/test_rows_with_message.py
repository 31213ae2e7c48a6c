"""Rows that go in with their message: the same on both databases, for every kind of model."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from outbox import RowError, enqueue
from outbox.models import OutboxMessage
from tests.unit.outbox import kinds_of_models as kinds

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _tables(transactional_db: None) -> Iterator[None]:
    with connection.schema_editor() as editor:
        for kind in kinds.KINDS:
            editor.create_model(kind)
    yield
    with connection.schema_editor() as editor:
        for kind in reversed(kinds.KINDS):
            editor.delete_model(kind)


def put(*rows_before: models.Model) -> None:
    with transaction.atomic():
        enqueue(topic="t", key="K", type="x", payload=1, insert_first=rows_before)


def stored(row: models.Model) -> Any:
    """As somebody else reads it."""
    return type(row)._base_manager.get(pk=row.pk)


class TestKeys:
    def test_one_that_is_given_is_kept(self) -> None:
        row = kinds.Plain(id=777, name="a")
        put(row)
        assert row.pk == 777
        assert stored(row).name == "a"

    def test_one_that_is_not_given_is_drawn(self) -> None:
        rows = [kinds.Plain(name="a"), kinds.Plain(name="b")]
        put(*rows)
        assert [stored(row).name for row in rows] == ["a", "b"]

    def test_both_kinds_side_by_side(self) -> None:
        rows = [kinds.Plain(name="a"), kinds.Plain(id=777, name="b"), kinds.Plain(name="c")]
        put(*rows)
        assert [stored(row).name for row in rows] == ["a", "b", "c"]

    def test_a_uuid_by_default(self) -> None:
        row = kinds.ByUuid()
        put(row)
        assert stored(row).id == row.id
        assert isinstance(row.id, uuid.UUID)

    def test_a_uuid_that_is_given_or_taken_away(self) -> None:
        given, without = kinds.ByUuid(id=uuid.UUID(int=5)), kinds.ByUuid(id=None)
        put(given, without)
        assert kinds.ByUuid.objects.filter(id=uuid.UUID(int=5)).exists()
        assert stored(without).id == without.id

    def test_a_text(self) -> None:
        put(kinds.ByName(name="a"))
        assert kinds.ByName.objects.get().name == "a"

    def test_one_that_is_stored_in_another_form(self) -> None:
        row = kinds.ByPrefixed(code="a")
        put(row)
        assert row.code == "a"
        assert stored(row).code == "a"

    def test_one_of_several_columns(self) -> None:
        put(kinds.Composite(tenant=1, number=2))
        assert kinds.Composite.objects.get().pk == (1, 2)


class TestValues:
    def test_defaults_of_the_database(self) -> None:
        row, given = kinds.ByDatabase(), kinds.ByDatabase(number=1)
        put(row, given)
        assert [stored(each).number for each in (row, given)] == [7, 1]
        assert stored(row).at is not None

    def test_times_that_django_sets(self) -> None:
        row = kinds.Stamped()
        put(row)
        assert row.made is not None
        assert (stored(row).made, stored(row).changed) == (row.made, row.changed)

    def test_generated_columns(self) -> None:
        row = kinds.Computed(amount=4)
        put(row)
        assert (row.double, stored(row).double) == (8, 8)

    def test_names_that_must_be_quoted(self) -> None:
        row = kinds.Renamed(group="g", select="s")
        put(row)
        assert (stored(row).group, stored(row).select) == ("g", "s")

    def test_documents_and_bytes(self) -> None:
        data = {"a": [1, None, "ü%s"]}
        row = kinds.Documents(data=data, raw=b"\0\xff%s")
        put(row)
        found = stored(row)
        assert (found.data, found.none, bytes(found.raw)) == (data, None, b"\0\xff%s")

    def test_expressions(self) -> None:
        row = kinds.Plain(name=kinds.UPPER)
        put(row, kinds.Plain(name="b"))
        assert stored(row).name == "ABC"
        assert kinds.Plain.objects.count() == 2

    def test_a_proxy(self) -> None:
        put(kinds.Proxy(name="a"))
        assert kinds.Plain.objects.get().name == "a"


class TestRelations:
    def test_to_an_earlier_row(self) -> None:
        plain, by_uuid = kinds.Plain(name="a"), kinds.ByUuid()
        line = kinds.Line(of=plain, also=by_uuid)
        put(plain, by_uuid, line)
        assert stored(line).of == plain
        assert stored(line).also == by_uuid

    def test_to_a_later_row_is_refused_before_anything_is_lost(self) -> None:
        plain = kinds.Plain(name="a")
        with pytest.raises(ValueError, match="unsaved related object"):
            put(kinds.Line(of=plain), plain)
        assert not OutboxMessage.objects.exists()
        assert not kinds.Plain.objects.exists()


class TestWhatIsNotCalled:
    """As with `bulk_create()`."""

    def test_signals(self) -> None:
        heard: list[object] = []

        def hear(sender: object, **_: object) -> None:
            heard.append(sender)

        pre_save.connect(hear)
        post_save.connect(hear)
        try:
            put(kinds.Plain(name="a"), kinds.Plain(name=kinds.UPPER))
        finally:
            pre_save.disconnect(hear)
            post_save.disconnect(hear)
        assert heard == []

    def test_save(self) -> None:
        row = kinds.Saving(name="as it is")
        put(row)
        assert stored(row).name == "as it is"


class TestRefusals:
    """In a sentence, and before anything is written."""

    def refused(self, *rows_before: Any) -> str:
        with pytest.raises(RowError) as caught:
            put(kinds.Plain(id=1, name="first"), *rows_before)
        assert not kinds.Plain.objects.filter(id=1).exists()
        assert not OutboxMessage.objects.exists()
        return str(caught.value)

    def test_a_row_with_a_parents_table(self) -> None:
        assert "parent with a table of its own" in self.refused(kinds.Child(name="a", more="b"))

    def test_a_row_that_is_stored(self) -> None:
        row = kinds.Plain.objects.create(id=5, name="a")
        assert "5 is stored already" in self.refused(row)

    def test_a_row_twice(self) -> None:
        row = kinds.Plain(name="a")
        assert "named twice" in self.refused(row, row)

    def test_what_is_no_row(self) -> None:
        assert "is no row of a model" in self.refused({"name": "a"})

    def test_a_row_of_another_database(self, settings: Any) -> None:
        class Elsewhere:
            def db_for_write(self, model: object, **_: object) -> str | None:
                return "other" if model is kinds.ByUuid else None

        settings.DATABASE_ROUTERS = [Elsewhere()]
        assert "belongs into the database 'other'" in self.refused(kinds.ByUuid())

    def test_a_key_that_is_taken(self) -> None:
        kinds.Plain.objects.create(id=5, name="a")
        with pytest.raises(IntegrityError):
            put(kinds.Plain(id=5, name="b"))
        assert not OutboxMessage.objects.exists()


@pytest.mark.on_postgresql
def test_arrays() -> None:
    from django.contrib.postgres.fields import ArrayField

    class Arrays(kinds.Kind):
        numbers = ArrayField(models.IntegerField(null=True))

    with connection.schema_editor() as editor:
        editor.create_model(Arrays)
    try:
        rows = [Arrays(numbers=[1, None]), Arrays(numbers=[])]
        put(*rows)
        assert [stored(row).numbers for row in rows] == [[1, None], []]
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Arrays)


@pytest.mark.on_postgresql
@pytest.mark.parametrize(
    "rows",
    [
        [kinds.Plain(name="a")],
        [kinds.Plain(id=7, name="a"), kinds.ByUuid(), kinds.Stamped()],
    ],
)
def test_plain_values_take_one_round_trip(rows: Sequence[models.Model]) -> None:
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        enqueue(topic="t", key="K", type="x", payload=1, insert_first=rows)
    assert len(queries) == 1
