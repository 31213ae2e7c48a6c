"""Name the correlation filter as settings do: `outbox.correlation.CorrelationFilter`."""

from saga_runtime.correlation import CorrelationFilter

__all__ = ["CorrelationFilter"]
