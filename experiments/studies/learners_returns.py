"""Returns of model-free learners beside published ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import envs
from experiments import plots
from experiments.presets import environments, preset
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.agents import varied
from mbrl.spaces import spec_of
from mbrl.training import RunConfig
from mbrl.training.runs import learning

ZOO = "rl-baselines3-zoo"


class Row(NamedTuple):
    """A learner on an environment, and what others reached there."""

    algo: str
    env: str
    steps: int
    published: float
    source: str
    variant: str | None = None
    action_repeat: int = 1

    @property
    def label(self) -> str:
        """The algorithm, or its variant."""
        return self.variant or self.algo


ROWS = (
    Row("dqn", "CartPole-v1", 50_000, 500.0, ZOO),
    Row("ppo", "CartPole-v1", 100_000, 500.0, ZOO),
    Row("trpo", "CartPole-v1", 100_000, 500.0, ZOO),
    Row("a2c", "CartPole-v1", 500_000, 500.0, ZOO),
    Row("reinforce", "CartPole-v1", 500_000, 500.0, "the greatest possible"),
    Row("dqn", "Acrobot-v1", 100_000, -77.0, ZOO),
    Row("dqn", "Acrobot-v1", 100_000, -69.0, ZOO, variant="qr-dqn"),
    Row("sac", "Pendulum-v1", 5_000, -155.0, f"{ZOO}: -157 at 20,000"),
    Row("td3", "Pendulum-v1", 20_000, -155.0, f"{ZOO}: -152"),
    Row("ddpg", "Pendulum-v1", 20_000, -155.0, f"{ZOO}: -152 by TD3"),
    Row("ppo", "Pendulum-v1", 100_000, -172.0, ZOO),
    Row("trpo", "Pendulum-v1", 100_000, -175.0, ZOO),
    Row("sac", "HalfCheetah-v5", 50_000, 5733.0, "SAC of DHMBPO's authors", "crossq-512"),
    Row("sac", "Hopper-v5", 50_000, 1125.0, "SAC of DHMBPO's authors", "crossq-512"),
    Row("sac", "dmc-cartpole-swingup", 50_000, 800.0, "at 100k frames", "crossq-512", 2),
    Row("sac", "dmc-ball-in-cup-catch", 50_000, 900.0, "at 100k frames", "crossq-512", 2),
)
"""Steps are numbers of actions."""

EPISODES = {"HalfCheetah-v5": 10, "Hopper-v5": 10}
"""Evaluation episodes, where not 100: those of the suite and of MuJoCo take longer."""


def learners_returns(lab: Lab) -> Report:
    """Learning curves of every learner, and the returns of the final policies."""
    rows = [row for row in ROWS if _quick(row)] if lab.fast else ROWS
    configs = {f"{row.label} {row.env}": config(lab, row) for row in rows}
    paths = lab.train(configs)
    asked = {
        name: [(path, _episodes(lab, row.env), {}) for path in paths[name]]
        for name, row in zip(configs, rows, strict=True)
    }
    answers = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {}
    cells = []
    for (name, own), row in zip(configs.items(), rows, strict=True):
        numbers[name] = {
            "curves": [learning(path) for path in paths[name]],
            "final": labs.summary(answers[name]),
            "published": row.published,
        }
        final = labs.shown(numbers[name]["final"])
        cells.append(
            [row.label, row.env, f"{own.steps:,}", final, f"{row.published:g}", row.source]
        )
    for env in dict.fromkeys(row.env for row in rows):
        here = {row.label: f"{row.label} {row.env}" for row in rows if row.env == env}
        figure = plots.learning_curve(
            {label: numbers[name]["curves"] for label, name in here.items()},
            references={
                f"published, {row.label}": [(row.steps, row.published)]
                for row in rows
                if row.env == env
            },
            title=env,
        )
        plots.save(figure, lab.folder / f"{env}.png")
    text = f"""# Returns of model-free learners

Return of the final policy, without exploration, over new episodes: interquartile mean over
{lab.seeds} seeds [95 % bootstrap interval]. The figures show training episodes.

{labs.table(["learner", "environment", "actions", "return", "published", "source"], cells)}

Published numbers are those of one trained agent each ({ZOO}), or means over seeds.
"""
    return Report(numbers, text)


def config(lab: Lab, row: Row) -> RunConfig:
    """The run of a row: the preset of its algorithm, and of its variant."""
    world = envs.make(row.env)
    spec = spec_of(world)
    world.close()
    _, agent = preset(row.algo, row.env, lambda: spec)
    agent = varied(row.algo, agent, row.variant)
    steps = 1100 if lab.fast else row.steps
    count = environments(row.algo, row.env)
    return RunConfig(row.algo, row.env, 0, steps, "cpu", agent, count, row.action_repeat)


def _quick(row: Row) -> bool:
    """Whether the fast version has the row."""
    return row.env in ("CartPole-v1", "Pendulum-v1") and row.variant is None


def _episodes(lab: Lab, env: str) -> int:
    return 2 if lab.fast else 10 if env.startswith("dmc-") else EPISODES.get(env, 100)
