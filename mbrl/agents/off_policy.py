"""An agent with an off-policy learner: it acts, stores what it sees, and updates on a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.agents.guide import Guide
from mbrl.agents.held_noise import HeldNoise
from mbrl.agents.policies import PolicyPlayer, first_index
from mbrl.agents.schedules import OffPolicySchedule
from mbrl.data import HindsightReplay, NStep, PrioritisedReplay, Replay, ReturnScale, RunningMoments
from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.convolution import ImageEncoder
from mbrl.encoders.images import Images, is_image, random_shift
from mbrl.nn.block import check_finite
from mbrl.parallel import single_thread
from mbrl.spaces import Vectors, random_actions
from mbrl.types import Learner, Metrics, Scheduled, Spec, Transition, Valued

CAPACITY, CAPACITY_OF_IMAGES = 1_000_000, 500_000
"""Most transitions kept, of vectors and of images, where the settings do not say."""


def states_of(
    spec: Spec, images: ImageConfig, *, generator: Generator
) -> tuple[int, ImageEncoder | None]:
    """S, the size of a learner's states, and the encoder that makes them of images.

    Args:
        spec: the environment.
        images: settings of the encoder.
        generator: draws the encoder's weights.

    Returns:
        S, and None where observations are no images (`is_image`) and become `Vectors`.

    Raises:
        ValueError: images that are too small for the network; observations that are neither a box
            nor indices.
    """
    if not is_image(spec.obs):
        return Vectors(spec.obs).size, None
    return images.features, ImageEncoder(spec.obs.shape or (), images, generator=generator)


@runtime_checkable
class Annealed(Protocol):
    """A learner with settings that depend on how far the training is."""

    def progress(self, env_steps: int) -> None:
        """Called with the number of environment steps so far."""
        ...


class OffPolicy:
    """An `Agent` with a replay buffer and a learner, in N environments at once.

    Args:
        spec: the environment; observations must be a box or indices.
        learner: of states that are vectors (`Vectors`) or images, and of actions in a box or
            indices from 0. For `n_step` above 1 its `update` must take `discount`, and for
            prioritised replay `weights`, as that of `SAC`. It is told the steps so far if it is
            `Annealed`, and those of the run if it is `Scheduled`.
        config: the schedule, with the learner's settings as `learner`.
        images: settings of images; the learner then takes images, (N, *O) uint8, instead of
            vectors, and the replay buffer keeps them so. If None, observations are vectors.
        vectors: turns observations into the vectors that the learner takes, of `vectors.size`
            numbers; if None, `Vectors` of the spec, or images.
        discount: γ of n-step returns and of the scale of rewards.
        generator: random stream of the agent, on the CPU.
        device: device of the learner and of the replay buffer.

    Attributes:
        steps: environment steps so far.
        updates: updates of the learner so far.

    Raises:
        ValueError: observations that are not a box or indices; a replay buffer that does not fit
            into memory; `priority` with a learner that measures no errors of rows; `hindsight`
            without goals, or with n-step returns or priorities; images
            that are to be normalised.
    """

    def __init__(
        self,
        spec: Spec,
        learner: Learner,
        config: OffPolicySchedule,
        *,
        images: ImageConfig | None = None,
        vectors: Any = None,
        discount: float,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.spec, self.learner, self.config, self.generator = spec, learner, config, generator
        self.discount = discount
        self.device, self.steps, self.updates = torch.device(device), 0, 0
        self.images = images
        self.vectors: Any
        if vectors is not None:
            self.vectors = vectors
        elif images is None:
            self.vectors = Vectors(spec.obs, device=device)
        elif config.normalise_obs:
            raise ValueError("normalise_obs: images are scaled by their encoder; want False")
        else:
            self.vectors = Images(spec.obs.shape or (), device=device)
        size = self.vectors.size
        self._first = first_index(spec)
        shifted = self._first is not None and self._first.any()
        self._shift = torch.as_tensor(self._first) if shifted else None
        self.window = NStep(config.n_step, discount=discount) if config.n_step > 1 else None
        kind: Any = Replay
        if config.priority > 0:
            if getattr(learner, "errors", None) is None:
                raise ValueError("priority: this learner measures no errors of rows; want 0")
            kind = partial(PrioritisedReplay, alpha=config.priority)
        if config.hindsight > 0:
            if spec.goal is None:
                raise ValueError(
                    "hindsight: needs an environment of goals: observations with achieved_goal and "
                    "desired_goal, and a method compute_reward; want 0"
                )
            if config.n_step > 1 or config.priority > 0:
                raise ValueError("hindsight: needs n_step 1 and priority 0; want 0")
            kind = partial(HindsightReplay, goal=spec.goal, k=config.hindsight)
        self.replay: Replay = kind(
            config.capacity or (CAPACITY if images is None else CAPACITY_OF_IMAGES),
            size,
            tuple(spec.action.shape or ()),
            obs_dtype=torch.float32 if images is None else torch.uint8,
            action_dtype=torch.float32 if self._first is None else torch.int64,
            extra=None if self.window is None else {"discount": ()},
            distinct=images is not None,
            device=device,
        )
        self.moments = RunningMoments((size,) if isinstance(size, int) else size, device=device)
        self.scale = ReturnScale(discount, greatest=True)
        # asked once, because asking takes longer than a step of a small environment
        self._annealed = learner if isinstance(learner, Annealed) else None
        self.playing = self.player(generator=generator)
        self._held = HeldNoise(config.hold_noise) if config.hold_noise > 1 else None
        self._logged = 0
        self._totals: dict[str, float | Tensor] = {}
        self._counts: dict[str, int] = {}

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has, over which step sizes may change."""
        if isinstance(self.learner, Scheduled):
            self.learner.run_for(steps)

    def policy(
        self, state: Shaped[Tensor, "N S"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, " N *A"]:
        """The learner's policy on vectors or images, scaled as in training."""
        return self.learner.policy(self._scaled(state), generator=generator, explore=explore)

    def value(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead"]:
        """The learner's value of vectors or images, in units of the environment's reward.

        Raises:
            ValueError: a learner that gives no values.
        """
        if not isinstance(self.learner, Valued):
            raise ValueError(f"value: a {type(self.learner).__name__} values no states")
        value = self.learner.value(self._scaled(state))
        return value * self.scale.value if self.config.scale_reward else value

    def guide(self) -> Guide:
        """What the learner tells a planner: its policy and its values, of observations.

        Raises:
            ValueError: a learner that gives no values, or whose actions are not in a box;
                observations that are images or codes.
        """
        if not isinstance(self.vectors, Vectors):
            raise ValueError("a planner needs observations that are vectors, not images or codes")
        if self._first is not None or not isinstance(self.learner, Valued):
            raise ValueError(
                f"a planner needs a policy in a box of actions, and values of states: "
                f"a {type(self.learner).__name__} has not both"
            )
        return Guide(self.value, self.policy, self.discount)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A): random at first, then the policy's."""
        random_steps = self.config.random_steps
        if self.steps < (self.config.learning_starts if random_steps is None else random_steps):
            return random_actions(self.spec.action, len(obs), generator=self.generator)
        if self._held is not None:
            own = self.generator
            self.playing.generator = self._held.next(own) if explore else own
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        obs, next_obs = self.vectors(step.obs), self.vectors(step.next_obs)
        self._store(step._replace(obs=obs, next_obs=next_obs))

    def _store(self, step: Transition) -> None:
        """Store N transitions whose observations are what the learner takes, before any scaling."""
        action, obs = step.action, step.obs
        if self._shift is not None:
            action = action - self._shift
        rows = step._replace(action=action)
        if self.window is None:
            self.replay.append(rows)
        else:
            rows = Transition(*(torch.as_tensor(x, device=self.device) for x in rows))
            rows, discount = self.window.push(rows)
            self.replay.append(rows, discount=discount)
        if self.config.normalise_obs:
            self.moments.update(obs)
        if self.config.scale_reward:
            self.scale.update(step.reward, step.terminated | step.truncated)
        self.steps += len(step.reward)
        if self._annealed is not None:
            self._annealed.progress(self.steps)

    @single_thread()  # small products are faster on one thread
    def update(self) -> Metrics:
        """Do the updates that are due; every `log_every` steps, the means of their metrics.

        Raises:
            Diverged: a metric of an update is not finite.
        """
        # in many environments learning may start before any n-step transition is complete
        due = self._due() if len(self.replay) else 0
        while self.updates < due:
            metrics = self._updated()
            self.updates += 1
            here = self.device.type == "cpu"  # elsewhere a number would have to be waited for
            if here:
                metrics = {name: float(value) for name, value in metrics.items()}
            if here or self.updates == due:
                check_finite(metrics)
            for name, value in metrics.items():
                self._totals[name] = self._totals.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
        log = self.steps // self.config.log_every > self._logged
        self._logged = self.steps // self.config.log_every
        if not log or not self._totals:
            return {}
        means = {name: float(total) / self._counts[name] for name, total in self._totals.items()}
        self._totals, self._counts = {}, {}
        return means | {"updates": self.updates}

    def _due(self) -> int:
        """Updates that should have been done by now."""
        start, every = self.config.learning_starts, self.config.train_every
        return max(0, self.steps - start) // every * (self.config.updates or every)

    def _updated(self) -> Metrics:
        """One update from transitions that are drawn uniformly or by priority."""
        count, generator = self.config.batch, self.generator
        if self.window is None and not isinstance(self.replay, PrioritisedReplay):
            batch = self._processed(self._drawn(count))
            return self.learner.update(batch, generator=generator)
        index = self.replay.draw(count, generator=generator)
        columns = self.replay.columns(index)
        given: dict[str, Tensor] = {}
        if self.window is not None:
            given["discount"] = columns["discount"]
        if isinstance(self.replay, PrioritisedReplay):
            given["weights"] = self.replay.weights(index, beta=self._correction())
        batch = self._processed(Transition(*(columns[name] for name in Transition._fields)))
        learner: Any = self.learner  # `Learner` does not name these arguments
        metrics = learner.update(batch, **given, generator=generator)
        if isinstance(self.replay, PrioritisedReplay):
            self.replay.prioritise(index, learner.errors)
        return metrics

    def _drawn(self, count: int) -> Transition:
        """Transitions drawn uniformly."""
        return self.replay.sample(count, generator=self.generator)

    def _correction(self) -> float:
        """β, which rises linearly to 1."""
        share = min(1.0, self.steps / self.config.correction_steps)
        return self.config.correction + share * (1.0 - self.config.correction)

    def _processed(self, batch: Transition) -> Transition:
        """Transitions scaled, and their images shifted, as the settings say."""
        if self.images is not None and self.images.shift:
            obs, next_obs = (
                random_shift(x, self.images.shift, generator=self.generator)
                for x in (batch.obs, batch.next_obs)
            )
            batch = batch._replace(obs=obs, next_obs=next_obs)
        if self.config.normalise_obs:
            obs, next_obs = self._scaled(batch.obs), self._scaled(batch.next_obs)
            batch = batch._replace(obs=obs, next_obs=next_obs)
        if self.config.scale_reward:
            batch = batch._replace(reward=batch.reward / self.scale.value)
        return batch

    def _scaled(self, state: Tensor) -> Tensor:
        return self.moments.scale(state) if self.config.normalise_obs else state

    def give_up(self, places: np.ndarray) -> None:
        """Leave out the n-step transitions of episodes that do not go on; see `Resumed`."""
        if self.window is not None:
            self.window.give_up(torch.from_numpy(places))

    def player(self, *, generator: Generator) -> PolicyPlayer:
        """A player for evaluation episodes: the same policy, another random stream."""
        return PolicyPlayer(
            self.policy,
            spec=self.spec,
            vectors=self.vectors,
            device=self.device,
            generator=generator,
        )

    def state_dict(self) -> dict[str, Any]:
        """The learner, the data, the statistics, the generator and the counters."""
        held = {} if self._held is None else {"held": self._held.state_dict()}
        return held | {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "window": None if self.window is None else self.window.state_dict(),
            "moments": self.moments.state_dict(),
            "scale": self.scale.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "updates": self.updates,
            "totals": {name: float(total) for name, total in self._totals.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different agent.
        """
        if min(state["steps"], state["updates"]) < 0:
            raise ValueError("steps and updates must be >= 0")
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        if self.window is not None:
            self.window.load_state_dict(state["window"])
        if self._held is not None:
            self._held.load_state_dict(state["held"])
        self.moments.load_state_dict(state["moments"])
        self.scale.load_state_dict(state["scale"])
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.updates = state["steps"], state["updates"]
        self._totals = {name: float(total) for name, total in state["totals"].items()}
        self._counts = dict(state["counts"])
        self._logged = self.steps // self.config.log_every
