"""What agents with a model of sequences store: steps of vectors or images, by environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from mbrl.agents.off_policy import CAPACITY, CAPACITY_OF_IMAGES
from mbrl.data import SequenceReplay
from mbrl.encoders.images import is_image
from mbrl.spaces import bounds, obs_size
from mbrl.types import Spec, Transition


class LatentReplay:
    """A `SequenceReplay` for as many environments as the first step has.

    Args:
        spec: the environment; observations must be vectors or images, actions in a bounded box.
        model: settings of the model: `length`, `learn_reward`, `learn_termination`.
        capacity: most transitions; if None, 1,000,000 of vectors or 500,000 of images.
        device: where they are stored.

    Attributes:
        shape: *O, of an observation.
        longest: steps of the longest episode so far, which may have been overwritten.
        written: how many transitions were ever added.

    Raises:
        ValueError: other kinds of spaces; a reward or a termination that is neither known nor
            learned; episodes, or a capacity, that are shorter than the model's sequences.
    """

    def __init__(
        self, spec: Spec, model: Any, capacity: int | None, *, device: torch.device | str
    ) -> None:
        image = is_image(spec.obs)
        self.shape = tuple(spec.obs.shape or ()) if image else (obs_size(spec.obs),)
        if spec.reward is None and not model.learn_reward:
            raise ValueError("the reward is not known: set model.learn_reward")
        if spec.ends and spec.terminated is None and not model.learn_termination:
            raise ValueError("the termination is not known: set model.learn_termination")
        if spec.episode_steps is not None and spec.episode_steps < model.length:
            raise ValueError(
                f"model.length: want at most the {spec.episode_steps} steps of an episode, "
                f"got {model.length}"
            )
        self._length = model.length
        self._capacity = capacity or (CAPACITY_OF_IMAGES if image else CAPACITY)
        self._actions = len(bounds(spec.action)[0])
        self._image = image
        self._device = device
        self._begin(1)

    def _begin(self, environments: int) -> None:
        least = self._length * environments
        if self._capacity < least:
            raise ValueError(
                f"capacity: want {least} or more, for one sequence, got {self._capacity}"
            )
        self._replay = SequenceReplay(
            self._capacity,
            self.shape,
            self._actions,
            environments=environments,
            obs_dtype=torch.uint8 if self._image else torch.float32,
            distinct=self._image,
            device=self._device,
        )
        self._lengths, self.longest = torch.zeros(environments, dtype=torch.long), 0

    def __len__(self) -> int:
        return len(self._replay)

    @property
    def environments(self) -> int:
        """N."""
        return self._replay.environments

    @property
    def ready(self) -> bool:
        """Whether there is a sequence of the model's length."""
        return self.longest >= self._length and self._replay.holds(self._length)

    @property
    def written(self) -> int:
        """How many transitions were ever added."""
        return self._replay.written

    def append(self, step: Transition) -> None:
        """Add one transition of each of the N environments.

        Raises:
            ValueError: as `SequenceReplay`; another N than at first; a capacity that is too small
                for a sequence of each environment.
        """
        count = len(step.reward)
        if not self._replay.written and count != self.environments:
            self._begin(count)
        self._replay.append(step)
        self._lengths += 1
        self.longest = max(self.longest, int(self._lengths.max()))
        self._lengths[step.terminated | step.truncated] = 0

    def give_up(self, places: Bool[Tensor, " N"]) -> None:
        """As of `SequenceReplay`."""
        self._replay.give_up(places)
        self._lengths[places] = 0

    def sequences(self, batch: int, length: int, *, generator: Generator) -> Transition:
        """As of `SequenceReplay`."""
        return self._replay.sequences(batch, length, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """The transitions, and how long episodes are."""
        return {
            "replay": self._replay.state_dict(),
            # how many environments there are is not known before the first step
            "lengths": self._lengths[: None if self.written else 0].clone(),
            "longest": self.longest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it does not fit; see `Replay`.
        """
        lengths = torch.as_tensor(state["lengths"])
        self._begin(max(1, len(lengths)))
        self._replay.load_state_dict(state["replay"])
        self._lengths[: len(lengths)] = lengths
        self.longest = int(state["longest"])
