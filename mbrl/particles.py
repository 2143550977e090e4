"""How particles travel and what their returns are worth, by name: settings read without torch."""

from __future__ import annotations

from typing import Literal

Propagation = Literal["ts1", "tsinf", "expectation", "moment", "distribution"]
"""How particles travel.

ts1: each particle is assigned to a member anew at every step, members evenly used.
tsinf: each particle stays with its member.
expectation: one particle, the mean over members of their means.
moment: all particles are redrawn each step from one Gaussian that has the mean and variance of
    their joint prediction (across particles and members; those that have ended do not count).
distribution: each particle is seen by all members and redrawn from the Gaussian that has the
    mean and variance of their mixture at that particle.
"""


def parse_objective(name: str) -> tuple[str, float]:
    """Kind and parameter of an objective; see `mbrl.imagination.objective`.

    Raises:
        ValueError: another name, or a parameter out of range.
    """
    kind, _, text = name.partition(":")
    try:
        value = float(text) if text else 1.0
    except ValueError:
        value = float("nan")
    whole = kind in ("mean", "worst") and not text
    share = kind == "cvar" and 0 < value <= 1
    weighted = kind in ("mean+std", "mean-std") and value >= 0
    if not (whole or share or weighted):
        raise ValueError(
            f"objective {name!r} is unknown; take mean, worst, cvar:α (0 < α <= 1), "
            "mean+std:λ or mean-std:λ (λ >= 0)"
        )
    return kind, value
