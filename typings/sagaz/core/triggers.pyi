from collections.abc import Callable
from typing import Any, TypeVar

from sagaz import Saga

F = TypeVar("F", bound=Callable[..., Any])

class TriggerMetadata:
    source: str
    config: dict[str, Any]
    max_concurrent: int | None
    rate_limit: float | None
    idempotency_key: str | Callable[[Any], str] | None

class RegisteredTrigger:
    saga_class: type[Saga]
    method_name: str
    metadata: TriggerMetadata

class TriggerRegistry:
    @classmethod
    def get_triggers(cls, source: str) -> list[RegisteredTrigger]: ...
    @classmethod
    def get_all(cls) -> dict[str, list[RegisteredTrigger]]: ...

def trigger(
    source: str,
    *,
    max_concurrent: int | None = ...,
    idempotency_key: str | Callable[[Any], str] | None = ...,
    **kwargs: Any,
) -> Callable[[F], F]: ...

class TriggerEngine: ...
class CronScheduler: ...
class BrokerTriggerConsumer: ...

async def fire_event(source: str, payload: Any) -> list[str]: ...
