"""A building block of rewards: a number in [0, 1], 1 if a quantity lies within bounds.

Tassa et al. 2018, "DeepMind Control Suite": a product of tolerances is a reward in [0, 1] that
is high only if all are high.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from envs.task import Array

FALLOFFS = ("gaussian", "linear", "long_tail")


def tolerance(
    x: Array,
    low: float = 0.0,
    high: float = 0.0,
    *,
    margin: float,
    falloff: str = "gaussian",
    edge: float = 0.1,
) -> Array:
    """(...): 1 where low <= x <= high, falling to `edge` at a distance `margin` outside.

    With d the distance outside divided by `margin`, `gaussian` is exp(-k d²), `linear` is
    max(0, 1 - (1 - edge) d) and `long_tail` is 1 / (1 + k d²); k is such that d = 1 gives `edge`.

    Raises ValueError for low > high, a margin not over 0, an edge not in (0, 1) or an unknown
    falloff.
    """
    if not (low <= high and margin > 0 and 0 < edge < 1):
        raise ValueError(
            "tolerance needs low <= high, margin > 0 and 0 < edge < 1, "
            f"got {low}, {high}, {margin}, {edge}"
        )
    xp = array_namespace(x)
    d = (xp.clip(low - x, min=0.0) + xp.clip(x - high, min=0.0)) * (1 / margin)
    if falloff == "gaussian":
        return xp.exp(math.log(edge) * (d * d))
    if falloff == "linear":
        return xp.clip(1 - (1 - edge) * d, min=0.0)
    if falloff == "long_tail":
        return 1 / (1 + (1 / edge - 1) * (d * d))
    raise ValueError(f"falloff must be one of {', '.join(FALLOFFS)}, got {falloff!r}")
