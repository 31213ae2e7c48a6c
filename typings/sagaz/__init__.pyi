from collections.abc import Callable
from typing import Any, TypeVar

from sagaz.core.decorators import SagaStepDefinition
from sagaz.core.storage.base import SagaStorage

F = TypeVar("F", bound=Callable[..., Any])
Hook = Callable[..., Any]

class _Node:
    depends_on: list[str]

class _Graph:
    nodes: dict[str, _Node]
    def mark_step_executed(self, step_id: str) -> None: ...
    def get_compensation_order(self) -> list[list[str]]: ...

class SagaListener: ...

class OutboxSagaListener(SagaListener):
    def __init__(self, storage: Any, publish_step_events: bool = ...) -> None: ...

class Saga:
    saga_name: str | None
    _config: SagaConfig | None
    _compensation_graph: _Graph
    _instance_listeners: list[Any]
    def __init__(self, name: str | None = ..., config: Any = ...) -> None: ...
    def get_steps(self) -> list[SagaStepDefinition]: ...
    def get_execution_order(self) -> list[list[SagaStepDefinition]]: ...
    async def run(
        self, initial_context: dict[str, Any], saga_id: str | None = ...
    ) -> dict[str, Any]: ...
    async def _execute_compensation(self, step_id: str) -> None: ...
    def to_mermaid(self, *, highlight_trail: dict[str, Any] | None = ...) -> str: ...
    async def to_mermaid_with_execution(
        self,
        saga_id: str,
        storage: SagaStorage,
        direction: str = ...,
        show_compensation: bool = ...,
        show_state_markers: bool = ...,
    ) -> str: ...

class SagaConfig:
    storage: Any
    def __init__(
        self, *, metrics: bool = ..., logging: bool = ..., tracing: bool = ...
    ) -> None: ...

def configure(config: SagaConfig) -> None: ...
def action(
    name: str,
    depends_on: list[str] | None = ...,
    *,
    timeout_seconds: float = ...,
    max_retries: int = ...,
    pivot: bool = ...,
    on_enter: Hook | None = ...,
    on_success: Hook | None = ...,
    on_failure: Hook | None = ...,
) -> Callable[[F], F]: ...
def compensate(
    for_step: str,
    *,
    timeout_seconds: float = ...,
    max_retries: int = ...,
    on_compensate: Hook | None = ...,
) -> Callable[[F], F]: ...
