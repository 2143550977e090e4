"""Small tasks in a plane whose observations are pictures, as batched functions.

Their states have a few numbers, so a learned representation can be compared with the truth. Steps
and pictures are array-API functions of any number of states, on numpy or torch, so a data set of
random transitions is made in one call (`PlanarTask.triples`). No OpenGL is needed. The tasks
themselves are in `envs.planar_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from array_api_compat import array_namespace
from gymnasium.spaces import Box

from envs.raster import in_blocks
from envs.task import Array


class Triples(NamedTuple):
    """Transitions from random states by random actions."""

    obs: np.ndarray  # (N, H, W, C) uint8
    action: np.ndarray  # (N, A) in [-1, 1]
    next_obs: np.ndarray  # (N, H, W, C) uint8
    state: np.ndarray  # (N, S)
    next_state: np.ndarray  # (N, S)


@dataclass(frozen=True)
class PlanarTask:
    """A task whose observations are pictures of its state.

    An action is in [-1, 1]^A; `step` scales it and clips it to that box. `step`, `picture` and
    `reached` are in array-API style; states have any leading dimensions.
    """

    name: str
    summary: str
    """One line for listings."""
    action_size: int
    step: Callable[[Array, Array], Array]
    """`step(state (..., S), action (..., A)) -> (..., S)`."""
    picture: Callable[[Array], Array]
    """`picture(state (N, S)) -> (N, H, W, channels)` uint8; `frames` calls it in blocks."""
    size: int
    """H and W of a picture in pixels."""
    channels: int
    pictures: int
    """Consecutive pictures in an observation: 2 where one does not show velocities."""
    states: Callable[[np.random.Generator, int], np.ndarray]
    """`states(rng, count) -> (count, S)`: random states, of which data sets are made."""
    initial: Callable[[np.random.Generator], np.ndarray]
    """`initial(rng) -> (S,)`: where an episode begins, at rest."""
    goal: tuple[float, ...]
    """State to reach where no other is asked for."""
    draw_goal: Callable[[np.random.Generator], np.ndarray]
    """`draw_goal(rng) -> (S,)`: a goal of the published protocol."""
    reached: Callable[[Array, Array], Array]
    """`reached(state (..., S), goal (..., S)) -> (...)` bool."""
    episode_steps: int
    plan_steps: int
    """Steps that a planner looks ahead: PC3's; of `two-rooms` a choice of ours."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an observation."""
        return (self.size, self.size, self.channels * self.pictures)

    def frames(self, state: Array) -> Array:
        """Pictures (..., H, W, channels) uint8 of states (..., S), on the states' device."""
        xp = array_namespace(state)
        if state.shape[-1] != len(self.goal):
            raise ValueError(
                f"{self.name}: want states (..., {len(self.goal)}), got {tuple(state.shape)}"
            )
        rows = xp.reshape(xp.astype(state, xp.float32), (-1, state.shape[-1]))
        seen = in_blocks(self.picture, rows, self.size**2)
        return xp.reshape(seen, (*state.shape[:-1], *seen.shape[1:]))

    def observation(self, before: Array, state: Array) -> Array:
        """Observations (..., H, W, C) uint8 of states (..., S) and those one step before."""
        if self.pictures == 1:
            return self.frames(state)
        xp = array_namespace(state)
        return xp.concat([self.frames(before), self.frames(state)], axis=-1)

    def triples(self, rng: np.random.Generator, count: int) -> Triples:
        """Transitions from `count` random states by uniformly random actions.

        With two pictures a random action leads to each state from one step before (PC3). Raises
        ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count!r}")
        before = self.states(rng, count)
        actions = rng.uniform(-1, 1, (2, count, self.action_size))
        state = before if self.pictures == 1 else self.step(before, actions[0])
        after = self.step(state, actions[1])
        return self._triples(before, state, actions[1], after)

    def walks(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        length: int = 20,
        turns: float = 0.3,
        noise: float = 0.3,
    ) -> Triples:
        """Transitions of random walks from random states, in the order of their steps.

        A walk keeps its action, but for normal noise, until it turns. Unlike the random states of
        `triples` it comes to stand where walls stop it. With two pictures it begins one step later.

        Args:
            rng: draws the walks.
            count: number of walks.
            length: T, the number of steps of each; the result has count · T transitions, all first
                steps, then all second ones.
            turns: probability that a walk draws a new action, uniform in the box, at a step.
            noise: std of the noise on actions, which are clipped into the box.

        Raises:
            ValueError: a count or a length below 1.
        """
        if min(count, length) < 1:
            raise ValueError(f"count and length must be at least 1, got {count!r} and {length!r}")
        action = rng.uniform(-1, 1, (count, self.action_size))
        before, actions = self.states(rng, count), []
        # two pictures have to show the velocity of the first state too
        states = [before, before if self.pictures == 1 else self.step(before, action)]
        for _ in range(length):
            fresh = rng.uniform(-1, 1, action.shape)
            action = np.where(rng.random((count, 1)) < turns, fresh, action)
            actions.append(np.clip(action + noise * rng.standard_normal(action.shape), -1, 1))
            states.append(self.step(states[-1], actions[-1]))
        rows = np.stack(states)  # (T + 2, count, S)
        before, now, after = (rows[i : i + length].reshape(-1, rows.shape[-1]) for i in range(3))
        return self._triples(before, now, np.concatenate(actions), after)

    def _triples(
        self, before: np.ndarray, state: np.ndarray, action: np.ndarray, after: np.ndarray
    ) -> Triples:
        return Triples(
            self.observation(before, state),
            action.astype(np.float32),
            self.observation(state, after),
            state.astype(np.float32),
            after.astype(np.float32),
        )


class PlanarEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A `PlanarTask` as an environment.

    The reward is 1 for each step that ends in the goal region, and 0 otherwise; an episode never
    terminates. `info` has the true "state" (S,) and the "goal" (S,), both float32. The goal is
    `goal`, by default the task's; `reset(options={"goal": state})` sets another for one episode.

    Raises ValueError for another render mode and for a goal that is not (S,).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        task: PlanarTask,
        render_mode: str | None = None,
        goal: tuple[float, ...] | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.task, self.render_mode = task, render_mode
        self.observation_space = Box(0, 255, task.shape, np.uint8)
        self.action_space = Box(-1.0, 1.0, (task.action_size,), np.float32)
        self._own_goal = self._goal = self._checked(task.goal if goal is None else goal)
        self._before: np.ndarray | None = None
        self._state: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at rest."""
        super().reset(seed=seed)
        asked = (options or {}).get("goal")
        self._goal = self._own_goal if asked is None else self._checked(asked)
        self._before = self._state = self.task.initial(self.np_random)
        return self._observed(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises ValueError for an action that is not finite or not (A,), ResetNeeded before the
        first reset.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded(f"{self.task.name}: call reset() before step()")
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(
                f"{self.task.name}: want a finite action of shape {self.action_space.shape}, "
                f"got {action.tolist()}"
            )
        self._before, self._state = self._state, self.task.step(self._state, action)
        reward = float(self.task.reached(self._state, self._goal))
        return self._observed(), reward, False, False, self._info()

    def goal_observation(self) -> np.ndarray:
        """The observation (H, W, C) of standing still at the current goal."""
        return self.task.observation(self._goal, self._goal)

    def render(self) -> np.ndarray | None:
        """The picture enlarged, (h, w, 3) uint8; None without a `render_mode`."""
        if self.render_mode is None or self._state is None:
            return None
        seen = self.task.frames(self._state)
        seen = seen.max(-1) if self.task.channels == 1 else np.maximum(seen[..., 0], seen[..., 1])
        times = -(-240 // self.task.size)
        large = np.kron(seen, np.ones((times, times), np.uint8))
        return np.repeat(large[..., None], 3, axis=-1)

    def _observed(self) -> np.ndarray:
        return self.task.observation(self._before, self._state)

    def _info(self) -> dict[str, Any]:
        assert self._state is not None
        return {"state": self._state.astype(np.float32), "goal": self._goal.astype(np.float32)}

    def _checked(self, goal: Any) -> np.ndarray:
        found = np.asarray(goal, np.float64)
        if found.shape != (len(self.task.goal),) or not np.isfinite(found).all():
            raise ValueError(
                f"{self.task.name}: goal must be {len(self.task.goal)} finite numbers, got {goal!r}"
            )
        return found
