"""Keep saga classes that are ready to run, by name and version."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sagas.errors import SagaDefinitionError

if TYPE_CHECKING:
    from sagaz import Saga as SagaClass

    from sagas.definition.instances import InstanceFactory


@dataclass(frozen=True, slots=True)
class SagaType:
    """Describe a saga class that is ready to run.

    Attributes:
        name: the saga's name, common to all versions.
        version: from 1 on; new sagas take the newest.
        definition_hash: SHA-256 of names, order, kinds and pivot of the steps, in hexadecimal.
        saga_class: the class.
        instances: makes an instance for each run.
        deadline: how long a saga may take, counted from the command; None for no limit.
        max_concurrent: how many may run at a time, among all workers; None for no limit.
    """

    name: str
    version: int
    definition_hash: str
    saga_class: "type[SagaClass]"
    instances: "InstanceFactory" = field(compare=False)
    deadline: timedelta | None = None
    max_concurrent: int | None = None


def name_of(saga_class: "type[SagaClass]") -> str:
    """Return a saga's name: its `saga_name`, or else the name of the class."""
    return saga_class.saga_name or saga_class.__name__


class SagaTypes:
    """Keep saga types, the versions of a saga side by side."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[int, SagaType]] = {}

    def add(self, saga_type: SagaType) -> None:
        """Add a saga type.

        Raises:
            SagaDefinitionError: name and version are taken.
        """
        versions = self._by_name.setdefault(saga_type.name, {})
        twin = versions.setdefault(saga_type.version, saga_type)
        if twin is not saga_type:
            raise SagaDefinitionError(
                f"{saga_type.saga_class.__qualname__} and {twin.saga_class.__qualname__} share the "
                f"name {saga_type.name!r} and version {saga_type.version}: give one another "
                "saga_name, a changed saga a higher version, or a base of others `abstract = True`"
            )

    def get(self, name: str, version: int | None = None) -> SagaType | None:
        """Return the saga type of a name and version; without a version, the newest."""
        versions = self._by_name.get(name, {})
        return versions.get(max(versions, default=0) if version is None else version)

    def names(self) -> list[str]:
        """Return the names of all sagas, sorted."""
        return sorted(self._by_name)

    def newest(self) -> list[SagaType]:
        """Return each saga's newest version, in the order of adding."""
        return [versions[max(versions)] for versions in self._by_name.values()]

    def clear(self) -> None:
        """Forget all saga types."""
        self._by_name.clear()

    def copy(self) -> "SagaTypes":
        """Return an independent copy."""
        copied = SagaTypes()
        copied._by_name = {name: dict(versions) for name, versions in self._by_name.items()}
        return copied
