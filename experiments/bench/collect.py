"""Environment steps per second of `collect`, the loop of all training."""

from __future__ import annotations

import gymnasium
import numpy as np

import envs
from experiments.bench.measure import Bench, Result, rate
from mbrl.training.collect import Episodes, collect, vector


class RandomActions:
    """Uniform actions for N environments."""

    def __init__(self, space: gymnasium.Space) -> None:
        self.space = space

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, A)."""
        return self.space.sample()


def collect_steps(
    bench: Bench, *, task: str = "cartpole-swingup", steps: int = 2000
) -> list[Result]:
    """Steps/s of `collect` with random actions in 1 and 8 environments, over those of a bare loop.

    The bare loop calls `step` of a single environment, and `reset` when an episode ends.
    """
    results = []
    for count in (1, 8):
        vectors = vector([lambda: envs.make(task)] * count)
        actor, alone = RandomActions(vectors.action_space), envs.make(task)

        def collected(vectors=vectors, actor=actor) -> None:
            for _ in collect(actor, vectors, Episodes(0), steps=steps):
                pass

        def bare(env: gymnasium.Env = alone) -> None:
            env.reset(seed=0)
            for _ in range(steps):
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                if terminated or truncated:
                    env.reset()

        results += bench.compare(
            f"collect from {count} x {task}",
            "steps/s",
            rate(steps, collected),
            {"bare loop": rate(steps, bare)},
        )
    return results
