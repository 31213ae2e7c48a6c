"""Make text of foreign origin safe: to store, to log, to show. Text is never interpreted here.

Error texts, keys, headers and reasons come from providers, producers and clients. Such text may
hold NUL or half of a surrogate pair (no database stores either), line breaks and terminal escapes
(a log or a terminal would obey both), be megabytes long, or be an object whose `__str__` raises.
"""

import unicodedata

LONGEST_ERROR = 4_000
"""Characters kept of an error's text: in the journal, in events and in log lines."""

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def describe_error(error: BaseException, *, longest: int = LONGEST_ERROR) -> str:
    """Describe an error as `TypeName: text`, or as `TypeName` where the text is empty.

    Args:
        error: any exception, even if `__str__` raises.
        longest: characters of the answer at most.

    Returns:
        Storable text (see `storable`), cut to `longest` (see `cut`). Line breaks are kept.
    """
    text = error_text(error)
    name = type(error).__name__
    return bounded(f"{name}: {text}" if text else name, longest=longest)


def error_text(error: BaseException) -> str:
    """Return `str(error)`, or a sentence about why the error has no text. Never raises.

    An exception group's text is followed by descriptions of the leaves, since the group's own text
    only counts leaves.
    """
    try:
        text = str(error)
        if isinstance(error, BaseExceptionGroup):
            inside = "; ".join(describe_error(each) for each in leaves(error)[:_MOST_LEAVES])
            text = f"{text}: {inside}"
    except BaseException as failure:  # noqa: BLE001 - to describe an error must not fail
        return f"(its text cannot be made: {type(failure).__name__})"
    return text if type(text) is str else str.__str__(text)


def shown(value: object, *, longest: int = 80) -> str:
    """Return the beginning of `repr(value)` as one visible line. Never raises.

    Where `repr()` fails, a sentence says so instead.
    """
    try:
        return one_line(repr(value)[:longest])
    except BaseException as failure:  # noqa: BLE001 - to describe a value must not fail
        return f"(a value that cannot be shown: {type(failure).__name__})"


def leaves(error: BaseException) -> list[BaseException]:
    """List the errors in an exception group and in nested groups; any further error alone."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting:  # not by recursion: a group may be nested deeper than Python's stack
        each = waiting.pop()
        if issubclass(type(each), BaseExceptionGroup):  # not isinstance: an error may lie to it
            group: BaseExceptionGroup[BaseException] = each  # type: ignore[assignment]
            waiting += reversed(group.exceptions)
        else:
            found.append(each)
    return found


_MOST_LEAVES = 10


def one_line_error(error: BaseException, *, longest: int = LONGEST_ERROR) -> str:
    """Return the error's text, without its type, as one line without control characters.

    An error without a text gives the name of the type.
    """
    return cut(one_line(error_text(error)) or type(error).__name__, longest)


def storable(text: str) -> str:
    r"""Write out characters that no database stores: NUL as `\0`, a lone surrogate as `\udc80`."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def bounded(text: str, *, longest: int = LONGEST_ERROR) -> str:
    """Return the storable form of a text (see `storable`), cut to `longest` (see `cut`)."""
    return cut(storable(text), longest)


def is_storable(text: object, *, longest: int | None = None) -> bool:
    """Tell whether `text` is a str that every database stores unchanged.

    Args:
        text: any object.
        longest: characters of the text at most.
    """
    if not isinstance(text, str) or (longest is not None and len(text) > longest):
        return False
    if text.isascii():  # quickly, beside every request
        return "\0" not in text
    return storable(text) == text


def one_line(text: str) -> str:
    r"""Make one visible line of a text.

    White space becomes single spaces. Control and format characters and surrogates, which would
    move a cursor, colour a terminal, hide or reorder the text, are written out: `\x1b`, `\u202e`.
    """
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    r"""Write out control and format characters, with line breaks, as in `\n` or `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if unicodedata.category(char) not in _ESCAPED_CATEGORIES:
        return char
    return char.encode("unicode_escape").decode()


def cut(text: str, longest: int) -> str:
    """Shorten a text to `longest` characters.

    The text's beginning and end stay, with a mark between both for the number of characters left
    out.
    """
    if len(text) <= longest:
        return text
    mark = f" … ({len(text) - longest} more characters) … "
    kept = max(longest - len(mark), 0)
    head = kept - kept // 3
    return (text[:head] + mark + text[len(text) - (kept - head) :])[:longest]


def says_something(text: object) -> bool:
    """Tell whether a text has at least one visible character."""
    return isinstance(text, str) and any(char.isprintable() and not char.isspace() for char in text)
