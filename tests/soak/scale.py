"""How long the soak tests take: SOAK_SCALE=0.1 is a tenth of the full length."""

import os

SCALE = float(os.environ.get("SOAK_SCALE", "1"))


def seconds(full: float, *, least: float = 0.0) -> float:
    return max(full * SCALE, least)
