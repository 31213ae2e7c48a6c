"""How long the soak tests take: SOAK_SCALE=0.1 is a tenth of the full length."""

import os

SCALE = float(os.environ.get("SOAK_SCALE", "1"))


def seconds(full: float, *, least: float = 0.0) -> float:
    return max(full * SCALE, least)


def number(variable: str, full: int) -> int:
    """As the environment's variable says, else by the scale; one at least."""
    return int(os.environ.get(variable, max(round(full * SCALE), 1)))
