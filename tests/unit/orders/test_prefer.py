"""The longest Prefer header that a server lets in is read in one go, whatever it holds.

With a pattern that goes back over what it has matched, each of these would outlast the run.
"""

import pytest

from orders.prefer import wanted_wait

LONGEST = 60 * 1024  # characters: what gunicorn and waitress let through is about that


@pytest.mark.parametrize("end", ["(", '"', "\\"])
@pytest.mark.parametrize(
    "part",
    [";  ", ";a=  ", ";a = \t ", "; a=b ", " ", "\t ", "a", ", ", '"\\', '\\"', '="a";', "=;"],
)
@pytest.mark.parametrize("start", ["a", 'a="', "a;b="])
def test_a_long_header_that_is_no_preference_is_soon_read(start: str, part: str, end: str) -> None:
    header = start + part * (LONGEST // len(part)) + end

    assert wanted_wait(header) is None


@pytest.mark.parametrize("part", [";  ", ";a=  ", '; a = "b\\"c" ', ", ", "  ", ",a"])
def test_what_comes_after_a_long_preference_counts(part: str) -> None:
    header = "a" + part * (LONGEST // len(part)) + ", wait=5"

    assert wanted_wait(header) == 5
