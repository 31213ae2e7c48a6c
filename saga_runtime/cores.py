"""Count the cores that this process may use."""

import math
import os
from pathlib import Path

ROOT = Path("/")


def usable_cores(*, root: Path = ROOT) -> int:
    """Return how many cores this process may use, at least one.

    A container's limit counts too (`docker run --cpus`, limits of Kubernetes, systemd's CPUQuota):
    it is a share of time, of which the number of cores says nothing.

    Args:
        root: the directory with `/proc` and `/sys`.
    """
    return max(1, math.ceil(min(_cores(), _limit(root))))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _limit(root: Path) -> float:
    """Return how many cores' time our control group may take; infinite where nothing limits it."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        [group] = [line.removeprefix("0::/") for line in groups if line.startswith("0::/")]
        quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no control groups of version 2, or no limit: "max"
        return math.inf
