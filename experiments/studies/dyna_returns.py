"""Returns of learners that imagine beside published ones, and how long they take."""

from __future__ import annotations

from typing import Any

from experiments.studies.agent_returns import Published, Row, agent_returns
from experiments.studies.lab import Lab, Report
from mbrl.agents import AGENTS
from mbrl.dynamics.configs import EnsembleConfig
from mbrl.training.run_config import changed

ROWS = (
    Row("mbpo", "InvertedPendulum-v5", 3000),
    Row("mbpo", "HalfCheetah-v5", 10_000),
    Row("dhmbpo", "HalfCheetah-v5", 20_000),
    Row("dhmbpo", "Hopper-v5", 30_000),
    Row("dhmbpo", "dmc-cartpole-swingup", 10_000, 2),
    Row("dhmbpo", "dmc-ball-in-cup-catch", 10_000, 2),
    *(
        Row(algo, env, steps)
        for env, steps in (("Pendulum-v1", 2000), ("cartpole-swingup", 3000), ("panda-reach", 3000))
        for algo in ("sac", "mbpo", "dhmbpo")
    ),
)

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "InvertedPendulum-v5": (Published("MBPO", 3000, 1000.0),),
    "HalfCheetah-v5": (
        Published("DHMBPO", 10_000, 4138.0, 3),
        Published("DHMBPO, long rollouts of 10", 20_000, 6192.0),
        Published("MBPO", 10_000, 1720.0),
        Published("MBPO", 20_000, 4236.0),
        Published("SAC", 10_000, 536.0),
        Published("SAC", 20_000, 4047.0),
    ),
    "Hopper-v5": (
        Published("DHMBPO", 20_000, 2101.0),
        Published("DHMBPO", 30_000, 3171.0, 15),
        Published("MBPO", 20_000, 530.0),
        Published("MBPO", 30_000, 697.0),
        Published("SAC", 20_000, 301.0),
        Published("SAC", 30_000, 484.0),
    ),
    "dmc-cartpole-swingup": (
        Published("DHMBPO", 10_000, 795.0),
        Published("SAC", 10_000, 276.0),
    ),
    "dmc-ball-in-cup-catch": (
        Published("DHMBPO", 10_000, 802.0),
        Published("SAC", 10_000, 496.0),
    ),
}
"""Means over seeds, from the curves that DHMBPO's authors give with their code, MBPO and SAC
included, and minutes that this code takes on a GPU; InvertedPendulum from the log of a port of
MBPO. In the suite 20,000 frames are 10,000 actions."""

FAST: tuple[Row, ...] = tuple(Row(algo, "Pendulum-v1", 800) for algo in ("sac", "mbpo", "dyna"))

EPISODES = {"Pendulum-v1": 100, "cartpole-swingup": 20, "panda-reach": 20}
"""Evaluation episodes, where not 10."""


def dyna_returns(lab: Lab) -> Report:
    """Learning curves of agents that imagine, returns of their policies, and their time."""
    rows = FAST if lab.fast else tuple(row for row in ROWS if row.algo in AGENTS)
    title = "Returns of agents that imagine"
    return agent_returns(lab, rows, PUBLISHED, title=title, small=small, episodes=EPISODES)


def small(agent: Any) -> Any:
    """The settings with a small model and few updates."""
    if not hasattr(agent, "model"):
        return agent
    model = EnsembleConfig(members=2, hidden=(16,), epochs=2)
    return changed(agent, model=model, starts=50, batch=16, updates=1, fit_every=200)
