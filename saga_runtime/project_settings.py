"""Read what a project says to these packages: one dict, `SAGA_OUTBOX`.

    SAGA_OUTBOX = {"SERVICE": "shop", "BROKER_URL": "kafka://localhost:9092"}

The settings of the first release, each with a name of its own, go on counting, and count first.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured

NAME = "SAGA_OUTBOX"
TAG = "saga_outbox"
_LONGEST_NAME = 100
_LONGEST_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class _Key:
    """Describe a key of the dict.

    Attributes:
        what: the wanted value, in words.
        fits: whether a value is one.
        default: builds the value for a project that gives none; None where each has to give one.
        flat: the name of the setting in the first release.
        lenient: makes a value of what the first release took under the flat name.
        is_secret: whether a value may hold a password, and is not to be shown.
    """

    what: str
    fits: Callable[[Any], bool]
    default: Callable[[], Any] | None = None
    flat: str = ""
    lenient: Callable[[Any], Any] | None = None
    is_secret: bool = False


def command_topics() -> list[str]:
    """Return the topics that hold commands."""
    return [*_read("COMMAND_TOPICS")]


def _service() -> str:
    return str(_read("SERVICE"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() == value != ""


def _is_service(value: Any) -> bool:
    allowed = "-_."
    return (
        _is_text(value)
        and len(value) <= _LONGEST_NAME
        and all(
            character.isascii() and (character.isalnum() or character in allowed)
            for character in value
        )
    )


def _is_url(value: Any) -> bool:
    return _is_text(value) and "://" in value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < _LONGEST_SECONDS  # neither infinite, nor more than a moment can hold
    )


_KEYS = {
    "SERVICE": _Key(
        "a name of letters, digits, hyphens, underscores and dots, 100 at most", _is_service
    ),
    "BROKER_URL": _Key(
        "a URL, as kafka://host:9092, or memory:// inside one process", _is_url, is_secret=True
    ),
    "BROKER_OPTIONS": _Key(
        "a dict", lambda value: isinstance(value, dict), dict, "BROKER_OPTIONS"
    ),
    "SOURCE": _Key("a text, as /shop", _is_text, lambda: f"/{_service()}", "OUTBOX_SOURCE"),
    "COMMAND_TOPICS": _Key(
        'a list of names, as ["shop.commands"]',
        lambda value: _are_texts(value) and bool(value),
        lambda: [f"{_service()}.commands"],
        "SAGA_TOPICS",
    ),
    "TOPICS": _Key(
        'a list of names, as ["shop.commands", "shop.events"]',
        _are_texts,
        command_topics,
        "BROKER_TOPICS",
        lenient=list,
    ),
    "CONSUMER_GROUP": _Key("a name", _is_text, _service, "SAGA_CONSUMER_GROUP"),
    "WAKE_UP": _Key("True or False", _is_bool, lambda: True, "OUTBOX_WAKE_UP", lenient=bool),
    "DIRECT_URL": _Key(
        "a URL of PostgreSQL, or an empty text",
        lambda value: value == "" or _is_url(value),
        lambda: "",
        "DATABASE_DIRECT_URL",
        lenient=lambda value: value or "",
        is_secret=True,
    ),
    "PREPARED_STATEMENTS": _Key("True or False", _is_bool, lambda: True),
    "LEASE": _Key(
        "seconds, 1 or more", lambda value: _is_number(value) and value >= 1, lambda: 10.0,
        "SAGA_LEASE", lenient=float,
    ),
    "MAX_TAKEOVERS": _Key(
        "a whole number from 1 on",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        lambda: 10,
        "SAGA_MAX_TAKEOVERS",
    ),
    "COMMIT_TOGETHER": _Key(
        "True or False", _is_bool, lambda: True, "SAGA_COMMIT_TOGETHER", lenient=bool
    ),
    "FIRST_BACKOFF": _Key(
        "seconds, 0 or more", lambda value: _is_number(value) and value >= 0, lambda: 0.2,
        "SAGA_FIRST_BACKOFF",
    ),
    "LONGEST_BACKOFF": _Key(
        "seconds, 0 or more", lambda value: _is_number(value) and value >= 0, lambda: 30.0,
        "SAGA_LONGEST_BACKOFF",
    ),
}  # fmt: skip


def broker_url() -> str:
    """Return the broker's URL; `SAGAZ["BROKER_URL"]`, which sagaz's users know, counts first."""
    sagaz = getattr(settings, "SAGAZ", None) or {}
    if sagaz.get("BROKER_URL"):
        return str(_checked('SAGAZ["BROKER_URL"]', sagaz["BROKER_URL"], _KEYS["BROKER_URL"]))
    return str(_read("BROKER_URL"))


def broker_options() -> dict[str, Any]:
    """Return what the broker's client is told: see `brokers.broker_from_url()`."""
    options: dict[str, Any] = _read("BROKER_OPTIONS")
    return options


def source() -> str:
    """Return the CloudEvents source of every message."""
    return str(_read("SOURCE"))


def topics() -> list[str]:
    """Return the topics that are made at start where they are missing."""
    return [*_read("TOPICS")]


def consumer_group() -> str:
    """Return the consumers' group, under which the inbox remembers messages too."""
    return str(_read("CONSUMER_GROUP"))


def wakes_up() -> bool:
    """Tell whether commits wake the relay."""
    return bool(_read("WAKE_UP"))


def direct_url() -> str:
    """Return the URL of PostgreSQL past its pooler; empty where there is no pooler."""
    return str(_read("DIRECT_URL"))


def prepares_statements() -> bool:
    """Tell whether statements may be prepared on a connection to PostgreSQL itself."""
    return bool(_read("PREPARED_STATEMENTS"))


def lease() -> float:
    """Return the seconds after which a dead worker's sagas are taken over."""
    return float(_read("LEASE"))


def max_takeovers() -> int:
    """Return how many workers in a row a saga may cost without getting on."""
    return int(_read("MAX_TAKEOVERS"))


def commits_together() -> bool:
    """Tell whether local steps that follow each other share a transaction."""
    return bool(_read("COMMIT_TOGETHER"))


def first_backoff() -> float:
    """Return the seconds that a step rests before its second attempt."""
    return float(_read("FIRST_BACKOFF"))


def longest_backoff() -> float:
    """Return the seconds that a step rests at most between two attempts."""
    return float(_read("LONGEST_BACKOFF"))


def check_settings(**_: Any) -> list[CheckMessage]:
    """Check the dict: every key is known and every value fits.

    Returns:
        An error for each key and value in need of a change, and a warning for each setting of the
        first release.
    """
    return [*_errors(), *_old_names()]


def _errors() -> Iterator[CheckMessage]:
    given = getattr(settings, NAME, {})
    if not isinstance(given, dict):
        yield Error(_is_no_dict(given), id="saga_outbox.E001")
        return
    for key in given:
        if key not in _KEYS:
            yield Error(_is_unknown(key), id="saga_outbox.E002")
    # Each once: a wrong SERVICE spoils whatever is made of it.
    found: dict[str, str] = {}
    for key, entry in _KEYS.items():
        is_said = key in given or (entry.flat and hasattr(settings, entry.flat))
        # Not missed where nothing is made of it. A project that has no dict yet is of the first
        # release; whoever reads what it left out says so.
        if not is_said and (entry.default is None or not given):
            continue
        try:
            broker_url() if key == "BROKER_URL" else _read(key)
        except _MissingKey as error:
            found[str(error)] = "saga_outbox.E003"
        except ImproperlyConfigured as error:
            found[str(error)] = "saga_outbox.E004"
    for text, number in found.items():
        yield Error(text, id=number)


def _old_names() -> Iterator[CheckMessage]:
    for key, entry in _KEYS.items():
        if entry.flat and hasattr(settings, entry.flat):
            yield Warning(
                f"the setting {entry.flat} has moved",
                hint=f'Write it as {NAME} = {{"{key}": …}}; until then {entry.flat} counts.',
                id="saga_outbox.W001",
            )


class _MissingKey(ImproperlyConfigured):
    """Raised for a key without a default that is left out."""

    def __init__(self, key: str) -> None:
        super().__init__(f'{NAME} needs the key "{key}": {_KEYS[key].what}')


def _read(key: str) -> Any:
    """Return the value of a key.

    Raises:
        ImproperlyConfigured: the value does not fit, or is missing; the text says what to write.
    """
    entry = _KEYS[key]
    given = getattr(settings, NAME, {})
    if entry.flat and hasattr(settings, entry.flat):
        return _old_value(entry)
    if not isinstance(given, dict):
        raise ImproperlyConfigured(_is_no_dict(given))
    if key in given:
        return _checked(f'{NAME}["{key}"]', given[key], entry)
    if entry.default is None:
        raise _MissingKey(key)
    return entry.default()


def _old_value(entry: _Key) -> Any:
    """Return the value under the name of the first release, which looked less closely."""
    value = getattr(settings, entry.flat)
    if entry.lenient is not None:
        with suppress(TypeError, ValueError):
            return entry.lenient(value)
    return _checked(entry.flat, value, entry)


def _checked(where: str, value: Any, entry: _Key) -> Any:
    """Return a value that fits.

    Raises:
        ImproperlyConfigured: it does not.
    """
    if not entry.fits(value):
        shown = f"a value of the type {type(value).__name__}" if entry.is_secret else repr(value)
        raise ImproperlyConfigured(f"{where} is {shown}: it must be {entry.what}")
    return value


def _is_unknown(key: object) -> str:
    nearest = get_close_matches(str(key).upper(), _KEYS, n=1, cutoff=0.0)[0]
    return f"{NAME} has the key {key!r}, which nothing reads: did you mean {nearest!r}?"


def _is_no_dict(given: object) -> str:
    return f'{NAME} is a {type(given).__name__}: it must be a dict, as {{"SERVICE": "shop"}}'
