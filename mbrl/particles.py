"""Names of propagations and objectives, which the command reads without importing torch."""

from __future__ import annotations

import math
from typing import Literal

Propagation = Literal["ts1", "tsinf", "expectation", "moment", "distribution"]
"""How particles are propagated through the members of a model (Chua et al. 2018).

ts1: each particle is assigned to a random member at every step, equally many to each.
tsinf: each particle stays with its member.
expectation: one particle, which moves to the mean of the members' means.
moment: at every step all particles are redrawn from one Gaussian with the mean and variance of
    their predictions over particles and members, without particles that have terminated.
distribution: every member predicts each particle, which is redrawn from a Gaussian with the mean
    and variance of the mixture of these predictions.
"""


def parse_objective(name: str) -> tuple[str, float]:
    """Kind and parameter of an objective; see `mbrl.imagination.objective`.

    Raises:
        ValueError: an unknown name, or a parameter out of range.
    """
    kind, colon, text = name.partition(":")
    try:
        value = float(text) if colon else 1.0
    except ValueError:
        value = math.nan
    whole = kind in ("mean", "worst") and not colon
    share = kind == "cvar" and bool(colon) and 0 < value <= 1
    weighted = kind in ("mean+std", "mean-std") and 0 <= value < math.inf
    if not (whole or share or weighted):
        raise ValueError(
            f"objective {name!r} is unknown; take mean, worst, cvar:α (0 < α <= 1), "
            "mean+std:λ or mean-std:λ (finite λ >= 0)"
        )
    return kind, value
