from collections.abc import Callable
from typing import Any

from sagaz.core.execution.graph import CompensationType

class SagaStepDefinition:
    step_id: str
    forward_fn: Callable[[dict[str, Any]], Any]
    compensation_fn: Callable[[dict[str, Any]], Any] | None
    depends_on: list[str]
    timeout_seconds: float | None
    compensation_timeout_seconds: float | None
    max_retries: int
    pivot: bool
    compensation_type: CompensationType

def forward_recovery(for_step: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...

class ExecutionEngine:
    def __init__(self, saga: Any) -> None: ...
    async def run(self, initial_context: dict[str, Any], saga_id: str | None) -> dict[str, Any]: ...
