"""Models of the kinds that a host project may have, for rows that go in with their message."""

import uuid
from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Now, Upper


class Prefixed(models.CharField):  # type: ignore[type-arg] # no subscript at run time
    """Stored with a prefix that the program never sees."""

    def get_prep_value(self, value: Any) -> Any:
        return value if value is None else f"db-{value}"

    def from_db_value(self, value: str | None, *_: object) -> str | None:
        return value if value is None else value.removeprefix("db-")


class Kind(models.Model):
    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        abstract = True
        app_label = "kinds"

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk}"


class Plain(Kind):
    name = models.CharField(max_length=20)


class ByUuid(Kind):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class ByName(Kind):
    name = models.CharField(primary_key=True, max_length=20)


class ByPrefixed(Kind):
    code = Prefixed(primary_key=True, max_length=20)


class ByDatabase(Kind):
    """The database knows the defaults."""

    number = models.IntegerField(db_default=7)
    at = models.DateTimeField(db_default=Now())


class Stamped(Kind):
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)


class Computed(Kind):
    amount = models.IntegerField()
    double = models.GeneratedField(
        expression=F("amount") * 2, output_field=models.IntegerField(), db_persist=True
    )


class Renamed(Kind):
    """A table and columns that must be quoted."""

    id = models.BigAutoField(primary_key=True, db_column="Order Id")
    group = models.CharField(max_length=20, db_column="group")
    select = models.CharField(max_length=20, db_column="Select")

    class Meta(Kind.Meta):
        abstract = False
        db_table = "user's Orders"


class Documents(Kind):
    data = models.JSONField()
    none = models.JSONField(null=True)
    raw = models.BinaryField()


class Saving(Kind):
    """Its `save()` changes what is stored."""

    name = models.CharField(max_length=20)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.name = "saved"
        super().save(*args, **kwargs)


class Child(Plain):
    """With a table of its own beside its parent's."""

    more = models.CharField(max_length=20)

    class Meta(Kind.Meta):
        abstract = False


class Proxy(Plain):
    class Meta(Kind.Meta):
        abstract = False
        proxy = True


class Line(Kind):
    """Belongs to another row."""

    of = models.ForeignKey(Plain, models.CASCADE)
    also = models.ForeignKey(ByUuid, models.CASCADE, null=True)


class Composite(Kind):
    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.IntegerField()
    number = models.IntegerField()


KINDS: tuple[type[models.Model], ...] = (
    Plain,
    ByUuid,
    ByName,
    ByPrefixed,
    ByDatabase,
    Stamped,
    Computed,
    Renamed,
    Documents,
    Saving,
    Child,
    Line,
    Composite,
)

UPPER = Upper(Value("abc"))
