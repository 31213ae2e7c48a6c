"""Measure how deeply lists and dicts are nested, without Python's stack.

Python's own limit depends on how deep the caller is already: a value may be readable for one
function and not for the next. So values to be stored or sent have a limit far below Python's.
"""

from typing import Any

DEEPEST = 64
"""Levels of nested lists and dicts allowed in a payload or a saga's value."""


def is_too_deep(value: Any, *, text: str | bytes | None = None) -> bool:
    """Tell whether a value has more than `DEEPEST` levels of lists, tuples and dicts.

    Args:
        value: of any types; a value that holds itself is too deep.
        text: the value as JSON, if at hand: to count brackets is quicker than to walk the value.
    """
    if text is not None and _brackets(text) <= DEEPEST:
        return False
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [each for each in level if isinstance(each, dict | list | tuple)]
        if not containers:
            return False
        # By identity: what is held twice is looked at once, or shared values would double.
        once = {id(each): each for each in containers}
        level = [inner for each in once.values() for inner in _held(each)]
    return True


def _held(container: "dict[Any, Any] | list[Any] | tuple[Any, ...]") -> Any:
    return container.values() if isinstance(container, dict) else container


def _brackets(text: str | bytes) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")
