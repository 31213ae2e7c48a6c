"""Name sagaz's view of the journal as settings do: `sagas.storage.DjangoSagaStorage`."""

from sagas.operations.sagaz_storage import DjangoSagaStorage

__all__ = ["DjangoSagaStorage"]
