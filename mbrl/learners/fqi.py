"""Fitted Q-iteration: Q-learning from a fixed set of transitions (Ernst et al. 2005).

With a neural network (Riedmiller 2005): in each of K iterations the network is trained for S
gradient steps towards r + γ max_a Q_k(s', a), where Q_k is the network at the end of the iteration
before. K bounds how far rewards are looked ahead, S how closely a network meets its targets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator

from mbrl.data import Replay
from mbrl.learners.dqn import DQN
from mbrl.learners.value_configs import DQNConfig, FQIConfig
from mbrl.types import Metrics, Transition


class FQI(DQN):
    """Fitted Q-iteration: `fit` does all K iterations; `update` is one gradient step of them.

    It is a `DQN` whose target is copied every S updates, and which does not explore. The network
    of an iteration starts from the weights of the one before.

    Args:
        size: S, of states.
        actions: A; they are numbered from 0.
        config: settings; the discount must be set.
        more: `generator` and `device`, as for `DQN`.
    """

    def __init__(self, size: int, actions: int, config: FQIConfig, **more: Any) -> None:
        self.settings = config
        own = DQNConfig(
            hidden=config.hidden,
            activation=config.activation,
            discount=config.discount,
            learning_rate=config.learning_rate,
            clip=None,
            huber=config.huber,
            double=config.double,
            target_every=config.updates,
            first_exploration=0.0,
            last_exploration=0.0,
        )
        super().__init__(size, actions, own, **more)

    def fit(
        self,
        data: Replay | Transition,
        *,
        generator: Generator,
        callback: Callable[[int, Metrics], None] = lambda iteration, metrics: None,
    ) -> Metrics:
        """All iterations on transitions; call it again for K more.

        Args:
            data: the transitions, in a buffer or (T,); actions are integers.
            generator: draws the batches.
            callback: called with the number of each iteration, from 1, and the means of its
                metrics.

        Returns:
            The metrics of the last iteration.

        Raises:
            ValueError: no transitions, or such that do not fit.
        """
        if isinstance(data, Transition) and not len(data.reward):
            raise ValueError("data: there are no transitions")
        count, metrics = self.settings.batch, dict[str, float]()
        for iteration in range(1, self.settings.iterations + 1):
            totals: dict[str, torch.Tensor] = {}
            for _ in range(self.settings.updates):
                rows = _sample(data, count, generator)
                for name, value in self.update(rows, generator=generator).items():
                    totals[name] = totals.get(name, 0) + value  # pyright: ignore[reportArgumentType]
            metrics = {n: float(total) / self.settings.updates for n, total in totals.items()}
            callback(iteration, metrics)
        return metrics


def _sample(data: Replay | Transition, count: int, generator: Generator) -> Transition:
    if isinstance(data, Replay):
        return data.sample(count, generator=generator)
    index = torch.randint(
        len(data.reward), (count,), generator=generator, device=generator.device
    ).to(data.reward.device)
    return Transition(*(column[index] for column in data))
