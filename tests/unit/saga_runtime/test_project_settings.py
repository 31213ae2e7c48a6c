"""What a project may say in `SAGA_OUTBOX`, and what it hears where that is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from saga_runtime import project_settings
from saga_runtime.project_settings import check_settings

FLAT = {entry.flat for entry in project_settings._KEYS.values() if entry.flat}
GIVEN = {"SERVICE": "shop", "BROKER_URL": "kafka://broker:9092"}
# For each key: its reader, what it is for a project that leaves it out, another value, a wrong one.
KEYS: dict[str, tuple[Callable[[], Any], Any, Any, Any]] = {
    "BROKER_OPTIONS": (project_settings.broker_options, {}, {"partitions": 3}, []),
    "SOURCE": (project_settings.source, "/shop", "/shop/orders", ""),
    "COMMAND_TOPICS": (project_settings.command_topics, ["shop.commands"], ["a", "b"], "a"),
    "TOPICS": (project_settings.topics, ["shop.commands"], [], ["a", 1]),
    "CONSUMER_GROUP": (project_settings.consumer_group, "shop", "workers", None),
    "WAKE_UP": (project_settings.wakes_up, True, False, "no"),
    "DIRECT_URL": (project_settings.direct_url, "", "postgresql://db/shop", "db"),
    "PREPARED_STATEMENTS": (project_settings.prepares_statements, True, False, 1),
    "LEASE": (project_settings.lease, 10.0, 2.5, 0.5),
    "MAX_TAKEOVERS": (project_settings.max_takeovers, 10, 1, 2.5),
    "COMMIT_TOGETHER": (project_settings.commits_together, True, False, 0),
    "FIRST_BACKOFF": (project_settings.first_backoff, 0.2, 0.0, "1"),
    "LONGEST_BACKOFF": (project_settings.longest_backoff, 30.0, 5.0, -1),
}


@pytest.fixture(autouse=True)
def _a_project(settings: Any) -> None:
    """One that says no more than it has to."""
    for name in FLAT & set(dir(settings)):
        delattr(settings, name)
    settings.SAGAZ = {}
    settings.SAGA_OUTBOX = dict(GIVEN)


def said() -> list[str]:
    return [str(message.msg) for message in check_settings()]


def test_every_key_is_tried_here() -> None:
    assert {*KEYS, *GIVEN} == project_settings._KEYS.keys()


def test_two_keys_are_enough() -> None:
    assert said() == []
    assert project_settings.broker_url() == "kafka://broker:9092"
    assert {key: read() for key, (read, *_) in KEYS.items()} == {
        key: default for key, (_, default, *_) in KEYS.items()
    }


@pytest.mark.parametrize("key", [key for key in KEYS if project_settings._KEYS[key].flat])
def test_a_name_of_the_first_release_counts_first_and_is_told(key: str, settings: Any) -> None:
    read, default, another, wrong = KEYS[key]
    flat = project_settings._KEYS[key].flat
    settings.SAGA_OUTBOX[key] = default
    setattr(settings, flat, another)
    assert read() == another
    [message] = check_settings()
    assert (message.id, message.msg) == ("saga_outbox.W001", f"the setting {flat} has moved")
    assert f'SAGA_OUTBOX = {{"{key}": …}}' in str(message.hint)
    setattr(settings, flat, wrong)
    if project_settings._KEYS[key].lenient is None:
        with pytest.raises(ImproperlyConfigured, match=f"^{flat} is "):
            read()
    else:  # the first release looked less closely
        read()
        assert [message.id for message in check_settings()] == ["saga_outbox.W001"]


@pytest.mark.parametrize("key", KEYS)
class TestEachKey:
    def test_is_heeded(self, key: str, settings: Any) -> None:
        read, _, another, _ = KEYS[key]
        settings.SAGA_OUTBOX[key] = another
        assert (read(), said()) == (another, [])

    def test_that_is_wrong_is_one_line_that_says_what_to_write(
        self, key: str, settings: Any
    ) -> None:
        read, _, _, wrong = KEYS[key]
        settings.SAGA_OUTBOX[key] = wrong
        with pytest.raises(ImproperlyConfigured) as caught:
            read()
        assert str(caught.value) in said()
        assert f'SAGA_OUTBOX["{key}"] is ' in str(caught.value)
        assert project_settings._KEYS[key].what in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_that_is_misspelt_is_told_with_the_nearest(self, key: str, settings: Any) -> None:
        misspelt = key[:-1].lower()
        settings.SAGA_OUTBOX[misspelt] = 1
        assert said() == [
            f"SAGA_OUTBOX has the key '{misspelt}', which nothing reads: did you mean '{key}'?"
        ]


def test_a_project_of_the_first_release_needs_no_dict(settings: Any) -> None:
    del settings.SAGA_OUTBOX
    settings.SAGAZ = {"BROKER_URL": "memory://"}
    settings.BROKER_TOPICS = settings.SAGA_TOPICS = ["shop.commands"]
    settings.OUTBOX_SOURCE = settings.SAGA_CONSUMER_GROUP = "shop"
    assert {message.id for message in check_settings()} == {"saga_outbox.W001"}
    assert project_settings.broker_url() == "memory://"
    assert (project_settings.lease(), project_settings.source()) == (10.0, "shop")


@pytest.mark.parametrize("name", ["", " shop", "shop/eu", "ship ping", "x" * 101, "\u015bklep", 7])
def test_a_service_has_a_name_that_topics_and_groups_can_have(name: Any, settings: Any) -> None:
    settings.SAGA_OUTBOX["SERVICE"] = name
    assert {line.partition(": ")[0] for line in said()} == {f'SAGA_OUTBOX["SERVICE"] is {name!r}'}
    with pytest.raises(ImproperlyConfigured):
        project_settings.source()


def test_what_the_first_release_took_is_taken(settings: Any) -> None:
    settings.DATABASE_DIRECT_URL = None
    settings.OUTBOX_WAKE_UP = 0
    settings.BROKER_TOPICS = {"shop.commands"}
    settings.SAGA_LEASE = 0.5
    assert project_settings.direct_url() == ""
    assert project_settings.wakes_up() is False
    assert project_settings.topics() == ["shop.commands"]
    assert project_settings.lease() == 0.5
    settings.DATABASE_DIRECT_URL = "host=db dbname=shop"
    assert project_settings.direct_url() == "host=db dbname=shop"
    assert {message.id for message in check_settings()} == {"saga_outbox.W001"}


def test_a_relay_alone_of_the_first_release_has_no_group(settings: Any) -> None:
    del settings.SAGA_OUTBOX
    settings.SAGAZ = {"BROKER_URL": "memory://"}
    settings.BROKER_TOPICS, settings.OUTBOX_SOURCE = ["shop.events"], "/shop"
    assert {message.id for message in check_settings()} == {"saga_outbox.W001"}
    with pytest.raises(ImproperlyConfigured, match='needs the key "SERVICE"'):
        project_settings.consumer_group()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 10**400, 1e300, True])
@pytest.mark.parametrize("key", ["LEASE", "FIRST_BACKOFF", "LONGEST_BACKOFF"])
def test_seconds_are_a_number_that_a_moment_can_hold(key: str, seconds: Any, settings: Any) -> None:
    settings.SAGA_OUTBOX[key] = seconds
    [line] = said()
    assert line.startswith(f'SAGA_OUTBOX["{key}"] is ')


@pytest.mark.parametrize("sagaz", [{"BROKER_URL": 5}, {"BROKER_URL": "localhost:9092"}])
def test_sagaz_broker_is_looked_at_too(sagaz: Any, settings: Any) -> None:
    settings.SAGAZ = sagaz
    kind = type(sagaz["BROKER_URL"]).__name__
    [line] = said()
    assert line.startswith(f'SAGAZ["BROKER_URL"] is a value of the type {kind}: it must be a URL')
    settings.SAGAZ = None
    assert said() == []


def test_a_service_without_a_name_is_told_once(settings: Any) -> None:
    del settings.SAGA_OUTBOX["SERVICE"]
    [line] = said()
    assert line.startswith('SAGA_OUTBOX needs the key "SERVICE": ')


def test_a_broker_is_asked_for_where_one_is_used(settings: Any) -> None:
    del settings.SAGA_OUTBOX["BROKER_URL"]
    assert said() == []
    with pytest.raises(ImproperlyConfigured, match=r'^SAGA_OUTBOX needs the key "BROKER_URL": '):
        project_settings.broker_url()


@pytest.mark.parametrize("key", ["BROKER_URL", "DIRECT_URL"])
def test_what_may_hold_a_password_is_not_shown(key: str, settings: Any) -> None:
    settings.SAGA_OUTBOX[key] = "user:secret@host"
    [line] = said()
    assert line.startswith(f'SAGA_OUTBOX["{key}"] is a value of the type str: it must be a URL')
    assert "secret" not in line


def test_sagaz_setting_for_the_broker_counts_first(settings: Any) -> None:
    settings.SAGAZ = {"BROKER_URL": "memory://"}
    assert project_settings.broker_url() == "memory://"
    del settings.SAGA_OUTBOX["BROKER_URL"]
    assert said() == []


@pytest.mark.parametrize("given", [None, "shop", [("SERVICE", "shop")]])
def test_something_else_than_a_dict(given: Any, settings: Any) -> None:
    settings.SAGA_OUTBOX = given
    [line] = said()
    assert line == (
        f'SAGA_OUTBOX is a {type(given).__name__}: it must be a dict, as {{"SERVICE": "shop"}}'
    )
    with pytest.raises(ImproperlyConfigured, match="must be a dict"):
        project_settings.lease()
