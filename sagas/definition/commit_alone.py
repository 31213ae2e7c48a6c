"""Mark local steps that are to commit by themselves. Imported before the models."""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def commit_alone(function: F) -> F:
    """Let a local step commit by itself, not together with the local steps around it.

    For a step that takes long, or that changes a row which many sagas change: until the commit, the
    other sagas wait for that row.

    Args:
        function: a `def` step; put this decorator below `@action`.
    """
    function._commits_alone = True  # type: ignore[attr-defined] # noqa: SLF001 - read below
    return function


def commits_alone(function: Callable[..., Any]) -> bool:
    """Tell whether a step is marked with `commit_alone`."""
    return getattr(getattr(function, "__func__", function), "_commits_alone", False) is True
