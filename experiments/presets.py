"""Tuned settings, one per (algorithm, environment)."""

from __future__ import annotations

from dataclasses import replace

from mbrl.agents import MPCConfig, PETSConfig, PlannerConfig, RandomConfig
from mbrl.dynamics import EnsembleConfig

AgentConfig = PETSConfig | RandomConfig

ALGORITHMS: dict[str, type[PETSConfig] | type[RandomConfig]] = {
    "pets": PETSConfig,
    "random": RandomConfig,
}

_SMALL = EnsembleConfig(
    hidden=(128, 128, 128),
    batch=32,
    learning_rate=2e-3,
    weight_decay=1e-5,
    epochs=40,
)

_CARTPOLE = PETSConfig(
    planner=PlannerConfig(horizon=25, population=40, iterations=3, elites=6),
    model=_SMALL,
    random_steps=150,
    fit_every=50,
    replan_every=2,
    particles=5,
)

# What an arm pays for torque is small beside what it pays for the torques of a wide search.
_REACHER = PETSConfig(
    planner=PlannerConfig(
        horizon=25, population=60, iterations=5, elites=8, sigma=0.05, answer="mean"
    ),
    model=EnsembleConfig(hidden=(200, 200, 200), batch=128, epochs=30),
    random_steps=150,
    replan_every=2,
    particles=5,
)

_PUSHER = replace(_REACHER, planner=replace(_REACHER.planner, iterations=4, sigma=0.1))

_LARGE = PETSConfig(
    planner=PlannerConfig(horizon=30, population=100, iterations=3, elites=10),
    model=EnsembleConfig(batch=256),
    random_steps=1000,
    particles=5,
)

PRESETS: dict[tuple[str, str], tuple[int, AgentConfig]] = {
    ("pets", "cartpole-swingup"): (900, _CARTPOLE),
    ("pets", "cartpole-swingup-noisy"): (1500, _CARTPOLE),
    ("pets", "pendulum-swingup"): (1000, replace(_CARTPOLE, random_steps=200)),
    ("pets", "arm-reacher"): (3000, _REACHER),
    ("pets", "arm-pusher"): (3000, _PUSHER),
    ("pets", "half-cheetah"): (50_000, _LARGE),
}
"""Environment steps and agent settings."""


_HAND = MPCConfig(
    PlannerConfig(
        horizon=15,
        population=40,
        iterations=2,
        elites=6,
        knots=2,
        interpolation="linear",
        sigma=0.08,
        answer="mean",
    ),
    replan_every=2,
)

MPC_PRESETS: dict[str, MPCConfig] = {
    "cartpole-swingup": MPCConfig(
        PlannerConfig(horizon=25, population=40, iterations=3, elites=6), replan_every=2
    ),
    # 31 draws and the mean, over a second: judo's 32 candidates.
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
        PlannerConfig(
            horizon=12,
            population=24,
            iterations=2,
            elites=5,
            knots=4,
            interpolation="cubic",
            sigma=0.15,
            beta=0.0,
        ),
        action_repeat=2,
    ),
    # Two knots are what a servo needs to be told to hold, so the search finds stillness too.
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
    "walker-run": MPCConfig(
        PlannerConfig(
            horizon=16,
            population=32,
            iterations=2,
            elites=6,
            knots=5,
            interpolation="cubic",
            sigma=0.3,
            beta=0.0,
        ),
        action_repeat=2,
    ),
    # Two knots, so 12 to 14 numbers to search: with four, a plan is too rough to hold still.
    "panda-reach": MPCConfig(
        PlannerConfig(
            horizon=12,
            population=32,
            iterations=2,
            elites=6,
            knots=2,
            interpolation="linear",
            sigma=0.15,
            answer="mean",
        )
    ),
    "panda-push": _HAND,
    "panda-pick": _HAND,
}
"""Settings to drive a task by, from its true simulator; others get `MPCConfig`'s own."""


def preset(algo: str, env: str, *, reward_known: bool, ends: bool) -> tuple[int, AgentConfig]:
    """Steps and settings for an algorithm on an environment.

    Where there is no preset, PETS gets its defaults, learning the reward or the termination
    that is not known as a function.

    Args:
        algo: a name in `ALGORITHMS`.
        env: an environment id.
        reward_known: the reward is known as a function.
        ends: the environment may terminate, and when is not known as a function.
    """
    if (algo, env) in PRESETS:
        return PRESETS[algo, env]
    if algo == "random":
        return 1000, RandomConfig()
    model = EnsembleConfig(learn_reward=not reward_known, learn_termination=ends)
    return 20_000, replace(_LARGE, model=model)
