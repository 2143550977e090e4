"""An agent whose on-policy learner sees imagined rollouts of its current policy, and no real step.

Real steps go to the model. After each fit there are rounds of rollouts through the model, each
followed by one update, so the data of an update is always of the policy that it improves
(Kurutach et al. 2018, ME-TRPO, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from mbrl.agents.learned_model import LearnedModel, WithModel
from mbrl.agents.model_gradient_config import ModelGradientSchedule
from mbrl.agents.policies import PolicyPlayer, first_index
from mbrl.data import Replay, ReturnScale, RunningMoments
from mbrl.imagination import Imagined, disagreement, rollout
from mbrl.imagination.branched import members_multiple, trusted
from mbrl.learners.on_policy import OnPolicyLearner
from mbrl.spaces import Vectors, random_actions
from mbrl.types import (
    Dynamics,
    GaussianDynamics,
    Metrics,
    Resampled,
    RewardFn,
    Spec,
    Step,
    Transition,
)

STARTS = 1000
"""Most starts of real episodes that are kept; the oldest are dropped."""

LOOKED_AT = 1000
"""Imagined steps over which the members' disagreement is averaged."""


class OwnActions:
    """A model whose actions are an actor's own, as its `draw` returns them.

    A rollout through it keeps the actions that log-probabilities are computed of.

    Args:
        model: the model.
        emit: makes the model's actions of the actor's.
    """

    def __init__(self, model: Dynamics, emit: Callable[[Tensor], Tensor]) -> None:
        self.model, self.emit = model, emit
        self.members, self.noise_shape = model.members, model.noise_shape

    def encode(self, obs: Tensor, **memory: Any) -> Tensor:
        """As that of the model."""
        return self.model.encode(obs, **memory)

    def decode(self, state: Tensor) -> Tensor:
        """As that of the model."""
        return self.model.decode(state)

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """One step of each member with the actions that the environment would get."""
        return self.model.step(state, self.emit(action), noise=noise)

    def rewarded(self, reward: RewardFn | None) -> RewardFn | None:
        """A reward of the environment's actions, for the actor's."""
        if reward is None:
            return None
        return lambda obs, action, next_obs: reward(obs, self.emit(action), next_obs)


class ModelGradient(WithModel):
    """An `Agent` and `ModelBased` with a replay buffer, a model and an on-policy learner.

    Args:
        spec: the environment; observations must be a box of vectors, or indices.
        learner: of states that are vectors (`Vectors`), and of actions in a box or indices from 0.
        config: the schedule.
        generator: random stream of the agent, on the CPU.
        device: device of the learner, the model and the replay buffer.

    Attributes:
        learned: the model with its reward, termination and fits.
        steps: environment steps so far.
        starts: first observations of real episodes, as vectors (K, S).

    Raises:
        ValueError: as `LearnedModel`; a replay buffer that does not fit into memory.
    """

    def __init__(
        self,
        spec: Spec,
        learner: OnPolicyLearner,
        config: ModelGradientSchedule,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.spec, self.learner, self.config, self.generator = spec, learner, config, generator
        self.device, self.steps = torch.device(device), 0
        self.vectors, self._first = Vectors(spec.obs, device=device), first_index(spec)
        self.learned = LearnedModel(spec, config.model, generator=generator, device=device)
        size = self.vectors.size
        self.replay = Replay(
            config.capacity,
            size,
            tuple(spec.action.shape or ()),
            action_dtype=torch.float32 if self._first is None else torch.int64,
            device=device,
        )
        self.moments = RunningMoments((size,), device=device)
        self.scale = ReturnScale(learner.discount)
        self.starts = torch.zeros(0, size, device=device)
        self._begins = torch.zeros(0, dtype=torch.bool)  # where the next step is an episode's first
        self.playing = self.player(generator=generator)

    def policy(
        self, state: Float[Tensor, "*lead S"], *, generator: Generator, explore: bool
    ) -> Shaped[Tensor, "*lead A"]:
        """The learner's policy on observations as vectors, scaled as in training."""
        return self.learner.policy(self._scaled(state), generator=generator, explore=explore)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N, *A): random at first, then the policy's."""
        random_steps = self.config.random_steps
        if self.steps < (self.config.learning_starts if random_steps is None else random_steps):
            return random_actions(self.spec.action, len(obs), generator=self.generator)
        return self.playing.act(obs, explore=explore)

    def observe(self, step: Transition) -> None:
        """Store N transitions.

        Raises:
            ValueError: wrong shapes, or a number that is not finite.
        """
        action = step.action if self._first is None else step.action - torch.as_tensor(self._first)
        obs, next_obs = self.vectors(step.obs), self.vectors(step.next_obs)
        self.replay.append(step._replace(obs=obs, action=action, next_obs=next_obs))
        if len(self._begins) != len(obs):
            self._begins = torch.ones(len(obs), dtype=torch.bool)
        if bool(self._begins.any()):
            first = obs[self._begins.to(obs.device)]
            self.starts = torch.cat((self.starts, first))[-STARTS:]
        self._begins = (step.terminated | step.truncated).cpu()
        if self.config.normalise_obs:
            self.moments.update(obs)
        if self.config.scale_reward:
            self.scale.update(step.reward, self._begins)
        self.steps += len(step.reward)

    def update(self) -> Metrics:
        """Refit the model and improve the policy in it if that is due.

        Raises:
            Diverged: a loss or a parameter of the model or the learner is not finite.
        """
        since = self.steps - self.config.learning_starts
        due = since >= 0 and since // self.config.fit_every >= self.fits
        if not due or len(self.replay) < 2:
            return {}
        margin = self.config.margin
        fitted = self.learned.fit(self.replay, margin=margin, generator=self.generator)
        return {**fitted, **self.improve()}

    def improve(self) -> Metrics:
        """Rounds of rollouts in the model, each with an update, until they no longer help.

        Returns:
            The learner's metrics, means over rounds; `rounds`; `imagined_steps`, of all of them;
            `rollout_return`, the mean of the last round's returns, not discounted, and
            `rollout_gain`, by how much that is more than the first round's; of the last round
            `rollout_steps`, the mean steps of a trajectory, and the shares that terminated and were
            dropped; `rollout_disagreement` of the members on it; `agreement`, the share of members
            under which the return improved at the last comparison.
        """
        config, learned = self.config, self.learned
        seed = int(torch.randint(2**62, (), generator=self.generator))
        compares, samples = config.validation > 0, isinstance(learned.model, Resampled)
        before: Tensor | None = None
        totals: dict[str, float] = {}
        said: dict[str, float] = {}
        first: float | None = None
        done = steps = 0
        while True:
            if before is None:  # members stay the same from here to where returns are compared
                learned.resample(self.generator)
                before = self.member_returns(seed) if compares else None
            imagined, said = self.imagine()
            first = said["rollout_return"] if first is None else first
            if not bool(imagined.alive.any()):
                break  # the model blows up at once, and there is nothing to learn from
            said["rollout_gain"] = said["rollout_return"] - first
            metrics = self.learner.update(self.batch(imagined), generator=self.generator)
            done, steps = done + 1, steps + int(imagined.alive.sum())
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value
            if before is not None and done % config.validate_every == 0:
                after = self.member_returns(seed)
                said["agreement"] = float((after > before).float().mean())
                before = None if samples else after
                if said["agreement"] < config.validation:
                    break
            if done == config.rounds:
                break
        means = {name: total / done for name, total in totals.items()}
        said |= {"rounds": float(done), "imagined_steps": float(steps)}
        if bool(imagined.alive.any()) and isinstance(learned.model, GaussianDynamics):
            said["rollout_disagreement"] = self._disagreement(imagined)
        return means | said

    @torch.no_grad()
    def imagine(self) -> tuple[Imagined, dict[str, float]]:
        """A round's trajectories, with the actor's own actions, and what became of them."""
        members = self.learned.model.members
        count = members_multiple(self.config.rollouts, members)
        starts = self._drawn(count, self.generator).view(members, count // members, -1)
        imagined = self._rollout(starts, self.config.propagation, self.generator)
        kept = imagined.alive
        ended = (kept & imagined.terminated).any(-1)
        short = (kept.sum(-1) < kept.shape[-1]) & ~ended
        shares = {"terminated": ended, "dropped": short}
        return imagined, {
            "rollout_return": float(imagined.returns().mean()),
            "rollout_steps": float(kept.sum(-1).float().mean()),
            **{f"rollout_{name}": float(share.float().mean()) for name, share in shares.items()},
        }

    def batch(self, imagined: Imagined) -> Transition:
        """Trajectories as the learner takes them: columns (H, P · N), or one (T,).

        They are one column, one trajectory after another, where some end before the horizon.
        """
        if bool(imagined.alive.all()):
            truncated = torch.zeros_like(imagined.terminated)
            truncated[..., -1] = ~imagined.terminated[..., -1]
            state = imagined.state
            parts = (state[..., :-1, :], imagined.action, imagined.reward, state[..., 1:, :])
            rows = Transition(*(
                part.flatten(0, 1).transpose(0, 1)  # (P, N, H, ...) -> (H, P · N, ...)
                for part in (*parts, imagined.terminated, truncated)
            ))  # fmt: skip
        else:
            rows = imagined.transitions()
        rows = rows._replace(
            obs=self._scaled(rows.obs),
            action=self.learned.indices(rows.action),
            next_obs=self._scaled(rows.next_obs),
        )
        if self.config.scale_reward:
            rows = rows._replace(reward=rows.reward / self.scale.value)
        return rows

    @torch.no_grad()
    def member_returns(self, seed: int) -> Float[Tensor, " E"]:
        """The policy's mean discounted return under each member.

        Args:
            seed: decides starts and noise, so that policies are compared on the same ones.
        """
        members = self.learned.model.members
        count = members_multiple(self.config.rollouts, members) // members
        draws = torch.Generator().manual_seed(seed)
        starts = self._drawn(count, draws).expand(members, -1, -1)
        return self._rollout(starts, "tsinf", draws).returns(self.learner.discount).mean(1)

    def _drawn(self, count: int, generator: Generator) -> Float[Tensor, "N S"]:
        """Start states."""
        if self.config.horizon is not None:
            return self.learned.model.encode(self.replay.sample(count, generator=generator).obs)
        own = {"generator": generator, "device": generator.device}
        index = torch.randint(len(self.starts), (count,), **own)
        return self.learned.model.encode(self.starts[index.to(self.device)])

    def _rollout(
        self, starts: Float[Tensor, "E N S"], propagation: Any, generator: Generator
    ) -> Imagined:
        """Trajectories with the actor's own actions.

        A step that is not to be trusted does not count, nor does what follows it.
        """
        config, learned = self.config, self.learned
        actor: Any = self.learner.policy
        emit = actor.emit if learned.choices is None else lambda action: action
        model = OwnActions(learned.model, emit)

        def draw(state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
            return actor.draw(self._scaled(state), generator=generator)

        imagined = rollout(
            model,
            starts,
            learned.policy(draw),
            horizon=config.horizon or self.spec.episode_steps,
            particles=learned.model.members,
            propagation=propagation,
            reward=model.rewarded(learned.reward),
            terminated=learned.terminated,
            generator=generator,
        )
        kept = trusted(imagined, learned.bounds)
        return imagined._replace(alive=kept, reward=torch.where(kept, imagined.reward, 0.0))

    @torch.no_grad()
    def _disagreement(self, imagined: Imagined) -> float:
        state, action = (x[imagined.alive] for x in (imagined.state[..., :-1, :], imagined.action))
        some, actor = slice(None, None, -(-len(state) // LOOKED_AT)), self.learner.policy
        given = actor.emit(action[some]) if self.learned.choices is None else action[some]
        return float(disagreement(self.learned.model, state[some], given).mean())

    def _scaled(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead S"]:
        return self.moments.scale(state) if self.config.normalise_obs else state

    def player(self, *, generator: Generator) -> PolicyPlayer:
        """A player for evaluation episodes: the same policy, another random stream."""
        return PolicyPlayer(self.policy, spec=self.spec, device=self.device, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """The learner, the model, the data, the statistics, the generator and the counters."""
        return {
            "learner": self.learner.state_dict(),
            "learned": self.learned.state_dict(),
            "replay": self.replay.state_dict(),
            "moments": self.moments.state_dict(),
            "scale": self.scale.state_dict(),
            "starts": self.starts.clone(),
            "begins": self._begins.clone(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different agent.
        """
        if state["steps"] < 0:
            raise ValueError("steps must be >= 0")
        self.learner.load_state_dict(state["learner"])
        self.learned.load_state_dict(state["learned"])
        self.replay.load_state_dict(state["replay"])
        self.moments.load_state_dict(state["moments"])
        self.scale.load_state_dict(state["scale"])
        self.starts = state["starts"].to(self.device).clone()
        self._begins = state["begins"].cpu().clone()
        self.generator.set_state(state["generator"].cpu())
        self.steps = state["steps"]
