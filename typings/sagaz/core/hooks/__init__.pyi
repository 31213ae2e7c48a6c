from collections.abc import Callable
from typing import Any

def publish_on_success(storage: Any, event_type: str) -> Callable[..., Any]: ...
