"""How many cores a process may use, as far as its control group decides it."""

import os
from pathlib import Path

import pytest

from saga_runtime import cores
from saga_runtime.cores import usable_cores

GROUPS = "2:cpu:/\n0::/system.slice/consumer.service\n"


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_cores", lambda: 8)


def limited(root: Path, groups: str, limit: str) -> int:
    group = root / "sys/fs/cgroup/system.slice/consumer.service"
    for file, text in ((root / "proc/self/cgroup", groups), (group / "cpu.max", limit)):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return usable_cores(root=root)


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("\n", 8),
    ],
)
def test_a_limit_of_time_is_a_limit_of_cores(tmp_path: Path, limit: str, count: int) -> None:
    assert limited(tmp_path, GROUPS, limit) == count


def test_without_control_groups_of_version_2_nothing_is_limited(tmp_path: Path) -> None:
    assert usable_cores(root=tmp_path) == 8
    assert limited(tmp_path, "2:cpu:/\n", "100000 100000") == 8


def test_this_process_may_use_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
