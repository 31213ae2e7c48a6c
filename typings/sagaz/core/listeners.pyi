from typing import Any

class SagaListener: ...

class LoggingSagaListener(SagaListener):
    _logger_instance: Any
    def __init__(self, logger_instance: Any = ..., level: int | str = ...) -> None: ...

class MetricsSagaListener(SagaListener):
    metrics: Any
    def __init__(self, metrics: Any = ...) -> None: ...
