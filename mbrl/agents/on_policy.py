"""An agent that learns from its own latest steps only, by any `OnPolicyLearner`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.agents.policies import PolicyPlayer, first_index
from mbrl.data.replay import as_array
from mbrl.data.running import RunningMoments
from mbrl.learners.actors import GaussianActor
from mbrl.learners.on_policy import OnPolicyLearner
from mbrl.parallel import single_thread
from mbrl.rng import on_device
from mbrl.spaces import Vectors
from mbrl.types import Metrics, Spec, Transition

LIMIT = 10.0
"""Normalised rewards are clipped to ± this, as in Stable-Baselines3."""


class Steps:
    """Rollouts of T steps in N environments.

    Attributes:
        age: steps since the last rollout.
    """

    def __init__(self, length: int) -> None:
        self.length, self.age = length, 0
        self._columns: Transition | None = None

    def add(self, step: Transition) -> None:
        """Add one step of N environments."""
        if self._columns is None:
            self._columns = _empty(step, self.length)
        if len(self._columns.reward[0]) != len(step.reward):
            raise ValueError(
                f"observe: want {len(self._columns.reward[0])} environments as before, "
                f"got {len(step.reward)}"
            )
        for column, value in zip(self._columns, step, strict=True):
            column[self.age] = value
        self.age += 1

    def take(self) -> Transition | None:
        """The rollout (T, N), valid until the next step; None if it is not complete."""
        if self.age < self.length:
            return None
        self.age = 0
        return self._columns

    def give_up(self, places: Tensor) -> None:
        """The episodes of these environments, (N,) bool, are truncated after their last steps."""
        if self._columns is not None and self.age:
            over = self._columns.terminated[self.age - 1]
            self._columns.truncated[self.age - 1] |= places.to(over.device) & ~over

    def state_dict(self) -> dict[str, Any]:
        """The steps so far."""
        if self._columns is None or not self.age:
            return {"steps": None}
        return {"steps": [column[: self.age].clone() for column in self._columns]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._columns, self.age = None, 0
        if state["steps"] is None:
            return
        saved = Transition._make(state["steps"])
        if not 0 < len(saved.reward) < self.length:
            raise ValueError(f"rollout: want fewer than {self.length} steps")
        self._columns = _empty(Transition._make(column[0] for column in saved), self.length)
        self.age = len(saved.reward)
        for column, value in zip(self._columns, saved, strict=True):
            column[: self.age] = value


class WholeEpisodes:
    """Complete episodes, one after another, all of one policy.

    Steps of episodes that are under way when the policy changes are left out.

    Attributes:
        age: steps since the last update.
    """

    def __init__(self, count: int) -> None:
        self.count, self.age = count, 0
        self._running: list[list[Transition] | None] | None = None  # None: of an older policy
        self._complete: list[Transition] = []

    def add(self, step: Transition) -> None:
        """Add one step of N environments."""
        rows = [Transition._make(parts) for parts in zip(*step, strict=True)]
        if self._running is None:
            self._running = [[] for _ in rows]
        if len(self._running) != len(rows):
            raise ValueError(
                f"observe: want {len(self._running)} environments as before, got {len(rows)}"
            )
        over = (step.terminated | step.truncated).tolist()
        for i, (row, ended) in enumerate(zip(rows, over, strict=True)):
            own = self._running[i]
            if own is not None:
                own.append(row)
                if ended:
                    self._complete.append(_stacked(own))
            if ended:
                self._running[i] = []
        self.age += 1

    def take(self) -> Transition | None:
        """The episodes (T,), one after another; None if there are not enough yet."""
        if len(self._complete) < self.count or self._running is None:
            return None
        columns = zip(*self._complete, strict=True)
        taken = Transition._make(torch.cat(parts) for parts in columns)
        self._complete, self.age = [], 0
        self._running = [None if own is None or own else [] for own in self._running]
        return taken

    def give_up(self, places: Tensor) -> None:
        """Leave out the episodes of these environments, (N,) bool, which do not go on."""
        if self._running is not None:
            for i in places.nonzero().flatten().tolist():
                self._running[i] = []

    def state_dict(self) -> dict[str, Any]:
        """The episodes so far."""
        running = None
        if self._running is not None:
            running = [
                own if own is None else [*_stacked(own)] if own else [] for own in self._running
            ]
        complete = [[*episode] for episode in self._complete]
        return {"running": running, "complete": complete, "age": self.age}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._running = None
        if state["running"] is not None:
            self._running = [
                own if own is None else _unstacked(own) if own else [] for own in state["running"]
            ]
        self._complete = [Transition._make(episode) for episode in state["complete"]]
        self.age = state["age"]


class OnPolicy:
    """An `Agent` that collects rollouts with its policy and then learns from them.

    Observations are normalised with the statistics at the time of acting, and rewards with those
    at the time of the update, so that all rewards of a rollout have one scale.

    Args:
        learner: what learns.
        spec: the environment.
        config: what the learner was made from.
        store: what collects.
        generator: draws actions; a second generator, seeded from it, draws minibatches.
        device: where the learner is.

    Raises:
        ValueError: observations that are neither a box nor indices.
    """

    def __init__(
        self,
        learner: OnPolicyLearner,
        spec: Spec,
        config: Any,
        store: Steps | WholeEpisodes,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.learner, self.spec, self.config, self.store = learner, spec, config, store
        self.device, self.vectors = torch.device(device), Vectors(spec.obs, device=device)
        self._first = first_index(spec)
        own = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._acting = on_device(generator, self.device)
        self._learning = torch.Generator(self.device).manual_seed(own)
        self.obs_moments = None
        if config.normalise_obs:
            self.obs_moments = RunningMoments((self.vectors.size,), device=device)
        self.return_moments = RunningMoments() if config.normalise_reward else None
        self._returns = np.zeros(0)  # discounted returns of the N environments so far
        self._weights: Tensor | None = None  # of state-dependent noise
        self._taken: tuple[Tensor, Tensor] | None = None  # states and actions of the actor

    def run_for(self, steps: int) -> None:
        """Say how many environment steps the run has, over which step sizes may change."""
        self.learner.run_for(steps)

    def policy(
        self, state: Float[Tensor, "N S"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, " N *A"]:
        """The learner's policy on observations as vectors, scaled as in training."""
        return self.learner.policy(self._scaled(state), generator=generator, explore=explore)

    @single_thread()  # small products are faster on one thread
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A) for observations (N, *O): samples if `explore`, else the best."""
        with torch.no_grad():
            return self._act(self.vectors(obs), explore)

    def _act(self, state: Float[Tensor, "N S"], explore: bool) -> np.ndarray:
        if not explore:
            return self._out(self.policy(state, generator=self._acting, explore=False))
        if self.obs_moments is not None:
            self.obs_moments.update(state)
        state, actor = self._scaled(state), self.learner.policy
        own = self._drawn(actor, state)
        self._taken = state, own
        return self._out(actor.emit(own))

    def _out(self, action: Tensor) -> np.ndarray:
        given = as_array(action)
        return given if self._first is None else given + self._first

    def _drawn(self, actor: Any, state: Tensor) -> Tensor:
        if not (isinstance(actor, GaussianActor) and actor.head is not None):
            return actor.draw(state, generator=self._acting)
        every, age = self.config.noise_every, self.store.age
        due = age == 0 or (every > 0 and age % every == 0)
        if due or self._weights is None or len(self._weights) != len(state):
            self._weights = actor.weights(len(state), generator=self._acting)
        return actor.draw(state, generator=self._acting, weights=self._weights)

    def _scaled(self, state: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
        return state if self.obs_moments is None else self.obs_moments.scale(state)

    def observe(self, step: Transition) -> None:
        """Store N transitions.

        Raises:
            ValueError: they are not the steps that followed from the last `act`; another number of
                environments than before.
        """
        if self._taken is None or len(self._taken[0]) != len(step.reward):
            raise ValueError(
                "observe: an on-policy agent learns from its own steps; call act first"
            )
        (state, own), self._taken = self._taken, None
        next_obs = self._scaled(self.vectors(step.next_obs))
        reward, terminated, truncated = (
            column.to(self.device) for column in (step.reward, step.terminated, step.truncated)
        )
        self.store.add(Transition(state, own, reward.float(), next_obs, terminated, truncated))

    def give_up(self, places: np.ndarray) -> None:
        """End the episodes of these environments, (N,) bool, in the rollout; see `Resumed`."""
        self.store.give_up(torch.from_numpy(places))

    def update(self) -> Metrics:
        """Learn if a rollout is complete; returns the learner's metrics, {} if it is not."""
        batch = self.store.take()
        if batch is None:
            return {}
        if self.return_moments is not None:
            batch = batch._replace(reward=self._divided(batch))
        return self.learner.update(batch, generator=self._learning)

    def _divided(self, batch: Transition) -> Tensor:
        """Rewards divided by the running standard deviation of the discounted return."""
        assert self.return_moments is not None
        rewards = batch.reward.double().cpu().numpy()
        goes_on = ~(batch.terminated | batch.truncated).cpu().numpy()
        now = (
            self._returns if len(self._returns) == rewards[0].size else np.zeros(rewards.shape[1:])
        )
        now, all_returns = now.reshape(rewards.shape[1:]), np.empty_like(rewards)
        for t, reward in enumerate(rewards):
            all_returns[t] = now = now * self.learner.discount + reward
            now = now * goes_on[t]
        self._returns = np.atleast_1d(now)
        self.return_moments.update(torch.from_numpy(all_returns.reshape(-1)))
        std = float(self.return_moments.std)
        scaled = rewards / (std if std > 0 else 1.0)
        return torch.from_numpy(scaled.clip(-LIMIT, LIMIT)).to(batch.reward)

    def player(self, *, generator: Generator) -> PolicyPlayer:
        """Plays with this policy and these statistics, and randomness of its own."""
        return PolicyPlayer(self.policy, spec=self.spec, device=self.device, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """The learner, the steps since the last update, the statistics and the generators."""
        moments = {"obs": self.obs_moments, "return": self.return_moments}
        return {
            "learner": self.learner.state_dict(),
            "rollout": self.store.state_dict(),
            "moments": {n: m.state_dict() for n, m in moments.items() if m is not None},
            "returns": torch.from_numpy(self._returns.copy()),
            "weights": None if self._weights is None else self._weights.clone(),
            "acting": self._acting.get_state(),
            "learning": self._learning.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is of another agent.
        """
        self.learner.load_state_dict(state["learner"])
        self.store.load_state_dict(state["rollout"])
        if self.obs_moments is not None:
            self.obs_moments.load_state_dict(state["moments"]["obs"])
        if self.return_moments is not None:
            self.return_moments.load_state_dict(state["moments"]["return"])
        self._returns = state["returns"].cpu().numpy().copy()
        weights = state["weights"]
        self._weights = None if weights is None else weights.to(self.device).clone()
        self._acting.set_state(state["acting"].cpu())
        self._learning.set_state(state["learning"].cpu())
        self._taken = None


def _empty(step: Transition, length: int) -> Transition:
    return Transition._make(
        torch.empty((length, *value.shape), dtype=value.dtype, device=value.device)
        for value in step
    )


def _stacked(steps: list[Transition]) -> Transition:
    return Transition._make(torch.stack(parts) for parts in zip(*steps, strict=True))


def _unstacked(columns: list[Tensor]) -> list[Transition]:
    return [Transition._make(parts) for parts in zip(*columns, strict=True)]
