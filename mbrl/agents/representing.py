"""Agents that learn from codes of their observations.

`Joint` trains the encoder all along, by the critics' loss and by one of its own. `Frozen` trains it
on its first steps, or has one that was trained before; its replay buffer then keeps codes, so an
update costs what one from vectors does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.agents.code_sources import new_encoder, observations, put, saved, transitions_of
from mbrl.agents.off_policy import CAPACITY_OF_IMAGES, OffPolicy
from mbrl.agents.policies import actions_of
from mbrl.agents.representing_config import RepresentingSchedule
from mbrl.agents.schedules import with_discount
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.encoders.images import is_image, random_shift
from mbrl.encoders.representation import Learned
from mbrl.learners.configs import discount_of
from mbrl.learners.sac import SAC
from mbrl.learners.sac_ae import SACAE, Trunk
from mbrl.nn import Block, Target
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Spec, Transition


class Joint(OffPolicy):
    """An `OffPolicy` agent with the learner `SACAE`, whose encoder may learn alone before.

    Args:
        spec, learner, config, discount, generator, device: as for `OffPolicy`.
        prior: gives the transitions that the encoder learns from before; None for those of the
            first steps.
    """

    config: RepresentingSchedule
    learner: SACAE

    def __init__(
        self,
        spec: Spec,
        learner: SACAE,
        config: RepresentingSchedule,
        *,
        prior: Callable[[], Replay | None],
        **others: Any,
    ) -> None:
        super().__init__(spec, learner, config, **others)
        self._prior = prior

    @property
    def encoder(self) -> Learned:
        """The encoder of codes."""
        return self.learner.learned

    def codes(self, obs: np.ndarray) -> Float[Tensor, "N Z"]:
        """The codes of observations of the environment."""
        with torch.no_grad():
            return self.encoder(self._scaled(self.vectors(obs)))

    def _updated(self) -> Metrics:
        said: dict[str, Any] = {}
        if not self.updates:
            prior = self._prior()
            source = self.replay if prior is None else prior
            if self.config.encoder is None:  # a loaded one has its scale
                self.encoder.rescale(self._scaled(_some(source)))
            for _ in range(self.config.pretraining):
                batch = source.sample(self.config.batch, generator=self.generator)
                said = self.learner.pretrain(self._processed(batch), generator=self.generator)
            self.learner.restart()
        return {**said, **super()._updated()}

    def state_dict(self) -> dict[str, Any]:
        """What `OffPolicy` saves, and the encoder by itself."""
        return super().state_dict() | {"encoder": saved(self.encoder, self.config)}


class Codes:
    """Turns observations into scaled codes, as vectors that learners take.

    Codes have mean 0 in the data, and mean square 1 over all dimensions: dimensions that the
    encoder does not use stay small.

    Args:
        encoder: gives codes.
        observations: turns what the environment gives into what the encoder takes.

    Attributes:
        size: Z.
        mean, std: (Z,) and (), of codes in the data.
    """

    def __init__(self, encoder: Learned, observations: Any) -> None:
        self.encoder, self.observations, self.size = encoder, observations, encoder.features
        device = next(encoder.parameters()).device
        self.mean, self.std = torch.zeros(self.size, device=device), torch.ones((), device=device)

    def __call__(self, obs: np.ndarray | Tensor) -> Float[Tensor, "N Z"]:
        """The scaled codes of observations of the environment."""
        return self.of(self.observations(obs))

    @torch.no_grad()
    def of(self, obs: Shaped[Tensor, " N *O"]) -> Float[Tensor, "N Z"]:
        """The scaled codes of observations as the encoder takes them."""
        return (self.encoder(obs) - self.mean) / self.std

    @torch.no_grad()
    def fit(self, obs: Shaped[Tensor, " T *O"]) -> None:
        """Scale to these observations, which the encoder takes as they are."""
        codes = torch.cat([self.encoder(part) for part in obs.split(256)]).double()
        self.mean.copy_(codes.mean(0))
        self.std.copy_((codes - codes.mean(0)).square().mean().sqrt().clamp_min(1e-6))


class Frozen(OffPolicy):
    """An `OffPolicy` agent on codes of an encoder that learned before policy and critics do.

    Until learning starts it keeps observations. Then the encoder learns from these, or from other
    data, and all of them are kept as codes.

    Args:
        spec, learner, config, generator, device: as for `OffPolicy`; the learner takes codes.
        encoder: gives codes.
        prior: gives the transitions that the encoder learns from; None for those of the first
            steps.
        discount: γ.

    Attributes:
        frozen: whether the encoder has learned what it will.
    """

    config: RepresentingSchedule
    vectors: Codes

    def __init__(
        self,
        spec: Spec,
        learner: SAC,
        config: RepresentingSchedule,
        *,
        encoder: Learned,
        prior: Callable[[], Replay | None],
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        inwards = observations(spec.obs, device)
        super().__init__(
            spec,
            learner,
            config,
            vectors=Codes(encoder, inwards),
            discount=discount,
            generator=generator,
            device=device,
        )
        self.encoder, self._prior = encoder, prior
        rate = config.learner.representation_learning_rate
        self.block = Block(encoder, learning_rate=rate)
        self.slow = Target(self.block)
        self.frozen = False
        self._frames = self._buffer()
        self._count = 1  # environments

    def _buffer(self) -> Replay:
        """A buffer of observations, as the encoder takes them."""
        image = len(self.encoder.shape) == 3
        return Replay(
            self.config.capacity or CAPACITY_OF_IMAGES,
            self.encoder.shape,
            tuple(self.spec.action.shape or ()),
            obs_dtype=torch.uint8 if image else torch.float32,
            distinct=image,
            device=self.device,
        )

    def codes(self, obs: np.ndarray) -> Float[Tensor, "N Z"]:
        """The codes of observations of the environment, not scaled."""
        with torch.no_grad():
            return self.encoder(self.vectors.observations(obs))

    def observe(self, step: Transition) -> None:
        """Store N transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        if self.frozen:
            super().observe(step)
            return
        inwards = self.vectors.observations
        obs, next_obs = inwards(step.obs), inwards(step.next_obs)
        self._frames.append(step._replace(obs=obs, next_obs=next_obs))
        self._count = len(step.reward)
        self.steps += self._count

    def give_up(self, places: np.ndarray) -> None:
        """As that of `OffPolicy`; kept observations are truncated there."""
        super().give_up(places)
        self._frames.give_up(torch.from_numpy(places))

    def update(self) -> Metrics:
        """Do the updates that are due, those of the encoder first; see `OffPolicy.update`."""
        if not self.frozen and self._due() > 0:
            self._freeze(self._frames)
        return super().update()

    @single_thread()
    def _freeze(self, frames: Replay) -> None:
        prior = self._prior()
        source = frames if prior is None else prior
        if self.config.encoder is None:  # a loaded one has its scale
            self.encoder.rescale(_some(source))
        shift, said = self.config.images.shift, {}
        for _ in range(self.config.pretraining):
            batch = source.sample(self.config.batch, generator=self.generator)
            if shift and len(self.encoder.shape) == 3:
                obs = random_shift(batch.obs, shift, generator=self.generator)
                after = random_shift(batch.next_obs, shift, generator=self.generator)
                batch = batch._replace(obs=obs, next_obs=after)
            slow: Any = self.slow.module
            loss, numbers = self.encoder.batch_loss(batch, slow=slow, generator=self.generator)
            self.block.minimise(loss)
            self.slow.follow(self.config.learner.encoder_polyak)
            said = {f"representation_{name}": float(value) for name, value in numbers.items()}
            said["representation_loss"] = float(loss.detach())
        self.vectors.fit(_some(source))
        self.frozen, self._frames, steps = True, self._buffer(), self.steps
        # where the oldest of some environments are overwritten, those of the others are left out
        for first in range(len(frames) % self._count, len(frames), self._count):
            rows = frames.rows(torch.arange(first, first + self._count))
            obs, next_obs = self.vectors.of(rows.obs), self.vectors.of(rows.next_obs)
            self._store(rows._replace(obs=obs, next_obs=next_obs))
        self.steps = steps
        self._totals |= said
        self._counts |= dict.fromkeys(said, 1)

    def state_dict(self) -> dict[str, Any]:
        """What `OffPolicy` saves, the encoder, and the observations kept until it has learned."""
        return super().state_dict() | {
            "encoder": saved(self.encoder, self.config),
            "mean": self.vectors.mean.clone(),
            "std": self.vectors.std.clone(),
            "frozen": self.frozen,
            "frames": self._frames.state_dict(),
            "environments": self._count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different agent.
        """
        super().load_state_dict(state)
        put(self.encoder, state["encoder"][self.config.representation], "encoder")
        self.slow.follow(1.0)
        self.block.restart()
        self.vectors.mean.copy_(state["mean"])
        self.vectors.std.copy_(state["std"])
        self._count = state["environments"]
        self.frozen = state["frozen"]
        self._frames.load_state_dict(state["frames"])


def representing(
    spec: Spec,
    config: RepresentingSchedule,
    *,
    saved: bool = False,
    generator: Generator,
    device: str = "cpu",
) -> Joint | Frozen:
    """The agent whose encoder learns all along, or first, as `config.training` says.

    Args:
        spec: the environment.
        config: settings.
        saved: whether its state is to be loaded. The run that the encoder is from is not read then,
            and that of the data only if the encoder has not learned from it yet.
        generator: draws the weights, and then whatever the agent draws.
        device: where it is to be.

    Raises:
        ValueError: see `mbrl.agents.sac_ae.make`.
    """
    actions = cast(Bounds, actions_of(spec.action, "sac-ae", device, ("box",)))
    own = with_discount(config.learner, spec)
    encoder = new_encoder(spec, config, saved=saved, generator=generator).to(device)
    # what a new agent cannot read is refused now
    found = None if saved else transitions_of(spec, config, device)

    def prior() -> Replay | None:
        return transitions_of(spec, config, device) if saved else found

    size, streams = encoder.features, {"generator": generator, "device": device}
    common: dict[str, Any] = {
        "prior": prior,
        "discount": discount_of(own),
        **streams,
    }
    if config.training == "frozen":
        learner = SAC(size, actions, own, **streams)
        return Frozen(spec, learner, config, encoder=encoder, **common)
    images = config.images if is_image(spec.obs) else None
    learner = SACAE(size, actions, own, encoder=Trunk(encoder), **streams)
    return Joint(spec, learner, config, images=images, **common)


def _some(data: Replay) -> Shaped[Tensor, " T *O"]:
    """Up to 1,000 observations from all over the data."""
    return data.rows(torch.linspace(0, len(data) - 1, min(len(data), 1000)).long()).obs
