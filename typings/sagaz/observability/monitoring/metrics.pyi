from typing import Any

class SagaMetrics:
    metrics: dict[str, Any]
