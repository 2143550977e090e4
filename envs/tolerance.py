"""A building block of rewards: a number in [0, 1], 1 if a quantity lies within bounds.

Tassa et al. 2018, "DeepMind Control Suite": a product of tolerances is a reward in [0, 1] that
is high only if all are high.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from envs.task import Array

FALLOFFS = (
    "gaussian",
    "linear",
    "quadratic",
    "cosine",
    "long_tail",
    "reciprocal",
    "hyperbolic",
    "tanh_squared",
)
REACH_ZERO = ("linear", "quadratic", "cosine")
"""The falloffs that reach 0 at a finite distance, so that `edge` may be 0."""


def tolerance(
    x: Array,
    low: float = 0.0,
    high: float = 0.0,
    *,
    margin: float = 0.0,
    falloff: str = "gaussian",
    edge: float = 0.1,
) -> Array:
    """(...): 1 where low <= x <= high, falling to `edge` at a distance `margin` outside.

    With d the distance outside divided by `margin`, `gaussian` is exp(-k d²), `linear` is
    max(0, 1 - k d), `quadratic` is max(0, 1 - k d²), `cosine` is half a cosine wave that ends at 0,
    `long_tail` is 1 / (1 + k d²), `reciprocal` is 1 / (1 + k d), `hyperbolic` is 1 / cosh(k d) and
    `tanh_squared` is 1 - tanh(k d)²; k is such that d = 1 gives `edge`. Without a margin the result
    is 0 outside the bounds. `low` and `high` may be infinite.

    Raises ValueError for low > high, a margin below 0, an edge not in (0, 1) (for linear, quadratic
    and cosine not in [0, 1)) or an unknown falloff.
    """
    if falloff not in FALLOFFS:
        raise ValueError(f"falloff must be one of {', '.join(FALLOFFS)}, got {falloff!r}")
    least = edge >= 0 if falloff in REACH_ZERO else edge > 0
    if not (low <= high and margin >= 0 and least and edge < 1):
        bound = "0 <=" if falloff in REACH_ZERO else "0 <"
        raise ValueError(
            f"tolerance needs low <= high, margin >= 0 and {bound} edge < 1 for {falloff}, "
            f"got {low}, {high}, {margin}, {edge}"
        )
    xp = array_namespace(x)
    if margin == 0:
        return xp.astype((low <= x) & (x <= high), x.dtype)
    d = (xp.clip(low - x, min=0.0) + xp.clip(x - high, min=0.0)) * (1 / margin)
    if falloff == "gaussian":
        return xp.exp(math.log(edge) * (d * d))
    if falloff == "linear":
        return xp.clip(1 - (1 - edge) * d, min=0.0)
    if falloff == "quadratic":
        return xp.clip(1 - (1 - edge) * (d * d), min=0.0)
    if falloff == "cosine":
        return 0.5 + 0.5 * xp.cos(xp.clip(math.acos(2 * edge - 1) * d, max=math.pi))
    if falloff == "long_tail":
        return 1 / (1 + (1 / edge - 1) * (d * d))
    if falloff == "reciprocal":
        return 1 / (1 + (1 / edge - 1) * d)
    if falloff == "hyperbolic":
        return 1 / xp.cosh(math.acosh(1 / edge) * d)
    tanh = xp.tanh(math.atanh(math.sqrt(1 - edge)) * d)
    return 1 - tanh * tanh
