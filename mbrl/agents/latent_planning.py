"""An agent that plans in the latent space of a model with memory, of vectors or images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator

from mbrl.agents.model_planning import ModelPlanning
from mbrl.agents.off_policy import CAPACITY, CAPACITY_OF_IMAGES
from mbrl.data.sequences import SequenceReplay
from mbrl.encoders.images import is_image
from mbrl.spaces import obs_size
from mbrl.types import Metrics, Spec, Transition


class LatentPlanning(ModelPlanning):
    """A `ModelPlanning` agent whose model filters, and learns from sequences of its replay buffer.

    The first fit waits for an episode as long as a sequence.

    Args:
        spec: the environment; observations must be vectors or images, actions in a bounded box.
        config: settings, a `mbrl.agents.latent_pets.Config`.
        generator: random stream of the agent, on the CPU.
        device: device of the model, the plans and the replay buffer.

    Raises:
        ValueError: other kinds of spaces; images that are too small; a reward or a termination that
            is neither known nor learned; an episode that is shorter than the model's sequences.
    """

    replay: SequenceReplay

    def __init__(
        self,
        spec: Spec,
        config: Any,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.image = is_image(spec.obs)
        self.shape = tuple(spec.obs.shape or ()) if self.image else (obs_size(spec.obs),)
        learned = config.model
        if spec.reward is None and not learned.learn_reward:
            raise ValueError("the reward is not known: set model.learn_reward")
        if spec.ends and spec.terminated is None and not learned.learn_termination:
            raise ValueError("the termination is not known: set model.learn_termination")
        if spec.episode_steps is not None and spec.episode_steps < learned.length:
            raise ValueError(
                f"model.length: want at most the {spec.episode_steps} steps of an episode, "
                f"got {learned.length}"
            )
        self.exploration = config.noise
        self._lengths, self._longest = torch.zeros(1, dtype=torch.long), 0
        super().__init__(spec, config, generator=generator, device=device)

    def _make_model(self) -> Any:
        return self.config.model.make(self.shape, len(self.low), generator=self.generator)

    def _make_replay(self, environments: int = 1) -> SequenceReplay:
        return SequenceReplay(
            self.config.capacity or (CAPACITY_OF_IMAGES if self.image else CAPACITY),
            self.shape,
            len(self.low),
            environments=environments,
            obs_dtype=torch.uint8 if self.image else torch.float32,
            device=self.low.device,
        )

    def _fitted(self) -> Metrics:
        model: Any = self.model  # learns from `Sequences`
        return model.fit(self.replay, generator=self.generator)

    def observe(self, step: Transition) -> None:
        """Store N real transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite; another N than before.
        """
        count = len(step.reward)
        if not len(self.replay) and count != self.replay.environments:
            self.replay = self._make_replay(count)
            self._lengths = torch.zeros(count, dtype=torch.long)
        super().observe(step)
        self._lengths += 1
        self._longest = max(self._longest, int(self._lengths.max()))
        self._lengths[step.terminated | step.truncated] = 0
        self.due = self.due and self._longest >= self.config.model.length

    def state_dict(self) -> dict[str, Any]:
        """The model, the data, the current plans, the generators and the counters."""
        return super().state_dict() | {
            "lengths": self._lengths.clone(),
            "longest": self._longest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        lengths = torch.as_tensor(state["lengths"])
        self.replay = self._make_replay(len(lengths))
        super().load_state_dict(state)
        self._lengths, self._longest = lengths.clone(), int(state["longest"])
