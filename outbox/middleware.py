"""Name the correlation middleware as settings do: `outbox.middleware.CorrelationMiddleware`."""

from saga_runtime.correlation_middleware import CorrelationMiddleware

__all__ = ["CorrelationMiddleware"]
