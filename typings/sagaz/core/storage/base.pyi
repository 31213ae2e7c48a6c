from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any

from sagaz.core.types import SagaStatus, SagaStepStatus

class SagaStorage(ABC):
    @abstractmethod
    async def save_saga_state(
        self,
        saga_id: str,
        saga_name: str,
        status: SagaStatus,
        steps: list[dict[str, Any]],
        context: dict[str, Any],
        metadata: dict[str, Any] | None = ...,
    ) -> None: ...
    @abstractmethod
    async def load_saga_state(self, saga_id: str) -> dict[str, Any] | None: ...
    @abstractmethod
    async def delete_saga_state(self, saga_id: str) -> bool: ...
    @abstractmethod
    async def list_sagas(
        self,
        status: SagaStatus | None = ...,
        saga_name: str | None = ...,
        limit: int = ...,
        offset: int = ...,
    ) -> list[dict[str, Any]]: ...
    @abstractmethod
    async def update_step_state(
        self,
        saga_id: str,
        step_name: str,
        status: SagaStepStatus,
        result: Any = ...,
        error: str | None = ...,
        executed_at: datetime | None = ...,
    ) -> None: ...
    @abstractmethod
    async def get_saga_statistics(self) -> dict[str, Any]: ...
    @abstractmethod
    async def cleanup_completed_sagas(
        self, older_than: datetime, statuses: list[SagaStatus] | None = ...
    ) -> int: ...
    @abstractmethod
    async def health_check(self) -> dict[str, Any]: ...
