"""A user's parts: a task, an environment, a finite world, a planner, a model and an agent.

Written as a user of the library would write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from array_api_compat import array_namespace
from torch import Tensor

import envs
import planners
from mbrl.types import Outcomes, Step


def observation(physics: envs.Physics) -> Any:
    """(..., 2): place and speed."""
    xp = array_namespace(physics.qpos)
    return xp.concat([physics.qpos, physics.qvel], axis=-1)


def reward(obs: Any, action: Any, next_obs: Any, *, effort: float = 0.01) -> Any:
    """Minus the squared distance from 1, minus the squared action."""
    return -((next_obs[..., 0] - 1) ** 2) - effort * action[..., 0] ** 2


def initial(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Near the middle, at rest."""
    return rng.uniform(-0.1, 0.1, 1), np.zeros(1)


SLIDER = envs.Task(
    name="slider",
    summary="push a block along a rail to a mark",
    mjcf=Path(__file__).parent / "slider.xml",
    observation=observation,
    reward=reward,
    initial=initial,
    frame_skip=2,
    episode_steps=30,
    camera="front",
    traces=("middle",),
    success=lambda obs: abs(obs[..., 0] - 1) < 0.1,
)


class Drift(gymnasium.Env):
    """A point that drifts; it terminates beyond 2, and an episode has 25 steps."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Start near 0."""
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.normal(0, 0.1, 2), 0
        return self.state.astype(np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        """One step."""
        push = 0.2 * float(action[0]) + self.np_random.normal(0, 0.05)
        self.state = np.array([self.state[0] + 0.3 * self.state[1], 0.9 * self.state[1] + push])
        self.steps += 1
        lost = bool(abs(self.state[0]) > 2)
        return self.state.astype(np.float32), -abs(float(self.state[0])), lost, self.steps >= 25, {}


class Grey(Drift):
    """Its observations are grey images of 2 x 2."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 2))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed, options=options)
        return np.full((2, 2), obs[0], np.float32), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        return np.full((2, 2), obs[0], np.float32), *rest


def corridor() -> envs.FiniteMDP:
    """Five rooms in a row; the last one pays."""
    states, last = 5, 4
    transitions = np.zeros((states, 2, states))
    for s in range(last):
        transitions[s, 0, max(s - 1, 0)] = 1.0
        transitions[s, 1, s + 1] = 1.0
    rewards = np.zeros((states, 2))
    rewards[last - 1, 1] = 1.0
    return envs.FiniteMDP(transitions, rewards, 0.9, 0, [last], name="corridor")


@dataclass(frozen=True)
class Bees:
    """Draws around the best actions so far, with less noise in each round; not a `Search`."""

    low: Tensor
    high: Tensor
    horizon: int
    bees: int = 40
    """Number of draws in a round."""
    rounds: int = 3
    """Number of rounds."""
    spread: float = 0.5
    """Standard deviation in the first round, as a share of the box."""

    maximises = "score"

    def plan(
        self,
        score: planners.ScoreFn,
        start: planners.Plan | None,
        *,
        generator: torch.Generator,
        deadline: float | None = None,
    ) -> planners.Plan:
        """The best actions found."""
        middle = ((self.low + self.high) / 2).expand(self.horizon, -1)
        best = middle if start is None else start.actions
        width, rejected = self.high - self.low, 0
        for k in range(self.rounds):
            noise = torch.randn(self.bees, *best.shape, generator=generator)
            drawn = best + self.spread * 0.5**k * width * noise
            places = torch.cat((best[None], drawn)).clamp(self.low, self.high)
            scores = score(places).detach()
            rejected += int((~scores.isfinite()).sum())
            best = places[scores.nan_to_num(-torch.inf, -torch.inf, -torch.inf).argmax()]
            value = scores.max()
        counted = self.rounds * (self.bees + 1)
        std = (self.spread * width).expand(self.horizon, -1)
        return planners.Plan(best, value, best, std, best[None], counted, rejected, self.rounds)

    def shift(self, plan: planners.Plan, steps: int) -> planners.Plan:
        """The plan without its first steps; the last action is repeated."""
        rows = torch.arange(self.horizon).add(steps).clamp(max=self.horizon - 1)
        moved = plan.actions[rows]
        return plan._replace(actions=moved, mean=moved, elites=moved[None])


class Rooms:
    """What `corridor` does, from memory: indices are floats, as for every model."""

    members = 1
    noise_shape = (0,)

    def __init__(
        self, obs_size: int, action_size: int, *, pay: float = 1.0, generator: torch.Generator
    ) -> None:
        self.pay = pay

    def encode(self, obs: Tensor, *, state: Any = None, action: Any = None) -> Tensor:
        """The room's number."""
        return obs

    def decode(self, state: Tensor) -> Tensor:
        """The room's number."""
        return state

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """One room back or on."""
        after = (state + 2 * action - 1).clamp(0, 4)
        arrived = (after == 4).squeeze(-1)
        return Step(after, self.pay * arrived.float(), arrived)


class Slippery(Rooms):
    """`Rooms` in which a step on fails half of the time; it draws noise."""

    noise_shape = (1,)

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """Stays where it is if the noise is below zero."""
        moved = super().step(state, action, noise=None)
        if noise is None:
            return moved
        stays = noise < 0
        still = stays.squeeze(-1)
        return Step(
            torch.where(stays, state, moved.state),
            torch.where(still, 0.0, moved.reward),
            moved.terminated & ~still,
        )


class Listed(Slippery):
    """`Slippery` that lists both outcomes with their chances."""

    most_outcomes = 2

    def outcomes(self, state: Tensor, action: Tensor) -> Outcomes:
        """To move, and to stay."""
        moved = super().step(state, action, noise=None)
        over = torch.stack((moved.terminated, torch.zeros_like(moved.terminated)), -1)
        return Outcomes(
            torch.stack((moved.state, state), -2),
            moved.reward / 2,
            over,
            torch.full_like(over, 0.5, dtype=state.dtype),
        )


class Doubting(Rooms):
    """Two members that do not agree on what the last room pays: once and three times as much."""

    members = 2

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """As `Rooms`, with another reward for each member."""
        moved = super().step(state, action, noise=noise)
        return moved._replace(reward=moved.reward * torch.tensor([[1.0], [3.0]]))


class Linear:
    """Next observation and reward as linear functions, by least squares."""

    members = 1
    noise_shape = (0,)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        ridge: float = 1e-3,
        generator: torch.Generator,
    ) -> None:
        self.size, self.ridge = obs_size, ridge
        self.weight = torch.zeros(obs_size + action_size + 1, obs_size + 1)

    def encode(self, obs: Tensor, *, state: Any = None, action: Any = None) -> Tensor:
        """The observation itself."""
        return obs

    def decode(self, state: Tensor) -> Tensor:
        """The observation itself."""
        return state

    def step(self, state: Tensor, action: Tensor, *, noise: Tensor | None) -> Step:
        """The mean; there is no noise."""
        after = self._columns(state, action) @ self.weight.to(state)
        moved, gained = after[..., : self.size], after[..., self.size]
        return Step(state + moved, gained, torch.zeros_like(gained, dtype=torch.bool))

    def fit(self, data: Any, *, generator: torch.Generator) -> Mapping[str, float]:
        """Least squares with a ridge."""
        x = self._columns(data.obs.float(), data.action.float())
        change = data.next_obs.float() - data.obs.float()
        y = torch.cat((change, data.reward.float()[:, None]), -1)
        self.weight = torch.linalg.solve(x.T @ x + self.ridge * torch.eye(x.shape[1]), x.T @ y)
        return {"error": float((x @ self.weight - y).square().mean())}

    def state_dict(self) -> dict[str, Any]:
        """The weights."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load weights."""
        self.weight = state["weight"].clone()

    def _columns(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.cat((state, action, torch.ones_like(state[..., :1])), -1)


@dataclass(frozen=True)
class Config:
    """Settings of an agent that holds one action."""

    tries: int = 4
    """How many actions are tried, one an episode."""

    @classmethod
    def suited(cls, spec: Any) -> "Config":
        """The same for every environment."""
        return cls()


class Holder:
    """Holds a constant action for an episode, and keeps the one with the highest return."""

    def __init__(self, spec: Any, config: Config, generator: torch.Generator) -> None:
        self.config, self.generator = config, generator
        self.low, self.high = torch.as_tensor(spec.action.low), torch.as_tensor(spec.action.high)
        self.action, self.best = self._drawn(), None
        self.best_return, self.earned, self.tried = -float("inf"), 0.0, 0

    def _drawn(self) -> Tensor:
        drawn = torch.rand(len(self.low), generator=self.generator)
        return self.low + (self.high - self.low) * drawn

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """The same action for each environment."""
        action = self.action if explore or self.best is None else self.best
        return np.repeat(action.numpy()[None], len(obs), 0)

    def observe(self, step: Any) -> None:
        """Sum the rewards of the first environment."""
        self.earned += float(step.reward[0])
        if bool((step.terminated | step.truncated)[0]):
            if self.earned > self.best_return:
                self.best, self.best_return = self.action.clone(), self.earned
            self.tried += 1
            assert self.best is not None
            self.action = self._drawn() if self.tried < self.config.tries else self.best
            self.earned = 0.0

    def update(self) -> dict[str, float]:
        """There are no updates."""
        return {}

    def player(self, *, generator: torch.Generator) -> Any:
        """The agent itself, which has no state in an episode."""
        return self

    def reset(self, begins: np.ndarray) -> None:
        """Nothing to reset."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the agent."""
        return {
            "action": self.action,
            "best": self.best,
            "best_return": self.best_return,
            "earned": self.earned,
            "tried": self.tried,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of the agent."""
        self.action, self.best = state["action"], state["best"]
        self.best_return, self.earned = state["best_return"], state["earned"]
        self.tried = state["tried"]
        self.generator.set_state(state["generator"].cpu())


def make(spec: Any, config: Config, *, generator: torch.Generator, device: str = "cpu") -> Holder:
    """A new agent."""
    return Holder(spec, config, generator)
