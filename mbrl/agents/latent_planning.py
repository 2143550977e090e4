"""An agent that plans in the latent space of a model with memory, of vectors or images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator

from mbrl.agents.latent_replay import LatentReplay
from mbrl.agents.model_planning import ModelPlanning
from mbrl.types import Metrics, Spec, Transition


class LatentPlanning(ModelPlanning):
    """A `ModelPlanning` agent whose model filters, and learns from sequences of its replay buffer.

    A fit waits for an episode as long as a sequence.

    Args:
        spec: the environment; observations must be vectors or images, actions in a bounded box.
        config: settings, a `mbrl.agents.latent_pets.Config`.
        generator: random stream of the agent, on the CPU.
        device: device of the model, the plans and the replay buffer.

    Raises:
        ValueError: as `LatentReplay`; images that are too small.
    """

    replay: LatentReplay

    def __init__(
        self,
        spec: Spec,
        config: Any,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self._stored = LatentReplay(spec, config.model, config.capacity, device=device)
        super().__init__(spec, config, generator=generator, device=device)

    def _make_model(self) -> Any:
        made = self.config.model.make
        return made(self._stored.shape, len(self.low), generator=self.generator)

    def _make_replay(self) -> LatentReplay:
        return self._stored

    def _fitted(self) -> Metrics:
        model: Any = self.model  # learns from `Sequences`
        return model.fit(self.replay, generator=self.generator)

    def observe(self, step: Transition) -> None:
        """Store N real transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite; another N than before.
        """
        super().observe(step)
        self.due = self.due and self.replay.ready

    def give_up(self, places: np.ndarray) -> None:
        """Forget the plans of episodes that do not go on, and end their sequences there."""
        super().give_up(places)
        self.replay.give_up(torch.from_numpy(places))
