"""Tuned settings to drive tasks by MPC through their simulators; others get `MPCConfig()`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from experiments.presets import pets
from mbrl.agents import MPCConfig, PlannerConfig

# Two knots, so 12 to 14 numbers to search: with four, plans are too rough to hold still.
_ARM = partial(
    PlannerConfig, iterations=2, elites=6, knots=2, interpolation="linear", answer="mean"
)
_HAND = MPCConfig(_ARM(horizon=15, population=40, sigma=0.08), replan_every=2)
_GAIT = partial(PlannerConfig, iterations=2, interpolation="cubic", beta=0.0)
_STEPS = partial(_GAIT, population=32, elites=6, knots=5, sigma=0.3)

PRESETS: dict[str, MPCConfig] = {
    "cartpole-swingup": MPCConfig(
        PlannerConfig(horizon=25, population=40, iterations=3, elites=6), replan_every=2
    ),
    # 31 draws and the mean make judo's 32 candidates; the horizon is its second.
    "cartpole-servo": MPCConfig(
        PlannerConfig("evolution", horizon=25, population=31), terminal=10.0
    ),
    "cylinder-push": MPCConfig(PlannerConfig("evolution", horizon=25, population=31), terminal=3.0),
    "acrobot-swingup": MPCConfig(PlannerConfig("evolution", horizon=38, population=31, sigma=0.25)),
    "half-cheetah": MPCConfig(
        PlannerConfig(
            horizon=20, population=32, iterations=2, elites=5, knots=5, interpolation="cubic"
        )
    ),
    "quadruped-walk": MPCConfig(
        _GAIT(horizon=12, population=24, elites=5, knots=4, sigma=0.15), action_repeat=2
    ),
    # With two knots the search easily finds constant servo targets, so the robot stands still too.
    "quadruped-standup": MPCConfig(
        PlannerConfig(
            horizon=12,
            population=30,
            iterations=3,
            elites=6,
            knots=2,
            interpolation="linear",
            momentum=0.5,
            sigma=0.2,
            beta=0.0,
        ),
        action_repeat=2,
    ),
    "walker-run": MPCConfig(_STEPS(horizon=16), action_repeat=2),
    "panda-reach": MPCConfig(_ARM(horizon=12, population=32, sigma=0.15)),
    "panda-push": _HAND,
    "panda-pick": _HAND,
}

_POLE = MPCConfig(PlannerConfig(horizon=25, population=32, iterations=2, elites=6), action_repeat=4)
_LEGS = MPCConfig(_STEPS(horizon=20), action_repeat=2)

SUITE: dict[str, MPCConfig] = {
    "dmc-cartpole-balance": _POLE,
    "dmc-cartpole-swingup": _POLE,
    "dmc-walker-stand": _LEGS,
    "dmc-walker-walk": _LEGS,
    "dmc-cheetah-run": MPCConfig(
        PlannerConfig(
            horizon=16, population=32, iterations=2, elites=6, knots=5, interpolation="cubic"
        ),
        action_repeat=4,
    ),
}
"""Settings for tasks of the DeepMind control suite; docs/suite.md has their returns."""

ARMS: dict[str, MPCConfig] = {
    name: replace(pets.PRESETS[name][1].mpc, particles=MPCConfig().particles)
    for name in ("arm-reacher", "arm-pusher")
}
"""Settings for the arms of PETS: the search of its presets, with one particle, as the simulator has
one member."""
