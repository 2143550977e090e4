"""The `Spec` of an environment; bounds, sizes, vectors and random actions of spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from gymnasium.wrappers import FlattenObservation, NormalizeReward
from jaxtyping import Float, Shaped
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from mbrl.types import Goal, RewardFn, Spec, TerminatedFn


def spec_of(
    env: gymnasium.Env | gymnasium.vector.VectorEnv,
    *,
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
) -> Spec:
    """The `Spec` of an environment, or of one of N equal environments.

    An environment can offer its reward and termination as functions in `env.metadata["known"]`, as
    those of `envs` do: `reward`, `terminated` (None: not known), and `ends` (False: episodes never
    terminate). Functions given as arguments are used instead.

    Observations of one environment that are a dict or tuple are described as `flattened` gives
    them. `goal` is that of an environment of goals; see `goal_of`.
    """
    vector = isinstance(env, gymnasium.vector.VectorEnv)
    known: dict[str, Any] = dict(env.metadata.get("known", {}))
    return Spec(
        obs=env.single_observation_space if vector else flattened(env).observation_space,
        action=env.single_action_space if vector else env.action_space,
        reward=reward or known.get("reward"),
        terminated=terminated or known.get("terminated"),
        ends=terminated is None and known.get("ends", True),
        episode_steps=_episode_steps(env),
        discount=known.get("discount"),
        goal=goal_of(env),
    )


def flattened(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with observations that are one vector, if they are a dict or tuple.

    Boxes in it are flattened, and indices become one-hot vectors, one after the other in the order
    of the space. Other environments, and those with parts
    that have no fixed size, are returned as they are.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict | spaces.Tuple) and space.is_np_flattenable:
        return FlattenObservation(env)
    return env


GOALS = ("observation", "achieved_goal", "desired_goal")
"""Names in the observations of an environment of goals."""


CHANGING = (gymnasium.ObservationWrapper, gymnasium.RewardWrapper, NormalizeReward)
"""Wrappers that change observations or rewards."""


def goal_of(env: gymnasium.Env | gymnasium.vector.VectorEnv) -> Goal | None:
    """Where the observations of an environment hold goals, and its reward as a function of them.

    An environment of goals (`GoalEnv` of gymnasium-robotics) has observations that are a dict with
    the names in `GOALS`, and a method `compute_reward(achieved_goal, desired_goal, info)`. It may
    have `compute_terminated` with the same arguments. Both are called with an empty `info`, and
    with goals (B, *G); if they do not answer with (B,) numbers then, with one goal after the other.

    Returns None for other environments; where a wrapper changes rewards or observations, other than
    by flattening them; and where `env.metadata["known"]["goal"]` is None. For a vector of N
    environments in this process, the answer is that of the first.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        if isinstance(env, gymnasium.vector.VectorWrapper) or not getattr(env, "envs", None):
            return None
        env = cast(Any, env).envs[0]
    one = cast(gymnasium.Env, env)
    if one.metadata.get("known", {}).get("goal", GOALS) is None:
        return None
    size = flattened(one).observation_space.shape
    flat = False
    while isinstance(one, gymnasium.Wrapper):
        if isinstance(one, FlattenObservation) and not flat:
            flat = True
        elif isinstance(one, CHANGING):
            return None
        one = one.env
    space, compute = one.observation_space, getattr(one, "compute_reward", None)
    if not isinstance(space, spaces.Dict) or not space.is_np_flattenable or not callable(compute):
        return None
    if not {*GOALS} <= {*space.spaces} or size != (spaces.flatdim(space),):
        return None
    achieved, desired = (space.spaces[name] for name in GOALS[1:])
    alike = achieved.shape == desired.shape
    if not alike or not all(isinstance(x, Box | spaces.MultiBinary) for x in (achieved, desired)):
        return None
    places, start = {}, 0
    for name, part in space.spaces.items():
        places[name] = slice(start, start + spaces.flatdim(part))
        start = places[name].stop
    ends = getattr(one, "compute_terminated", None)
    return Goal(
        places["achieved_goal"],
        places["desired_goal"],
        _OfGoals(compute, achieved, desired, torch.float32),
        _OfGoals(ends, achieved, desired, torch.bool) if callable(ends) else None,
    )


class _OfGoals:
    """An environment's function of goals and info, for flat goals (B, G) that are tensors."""

    def __init__(
        self, compute: Callable[..., Any], achieved: Space, desired: Space, dtype: torch.dtype
    ) -> None:
        self._compute, self._spaces, self._dtype = compute, (achieved, desired), dtype

    def __call__(
        self, achieved: Float[Tensor, "B G"], desired: Float[Tensor, "B G"]
    ) -> Shaped[Tensor, " B"]:
        goals = [
            given.numpy(force=True).reshape(len(given), *(space.shape or ())).astype(space.dtype)
            for given, space in zip((achieved, desired), self._spaces, strict=True)
        ]
        name, count = getattr(self._compute, "__name__", "compute_reward"), len(achieved)
        try:
            answer = np.asarray(self._compute(*goals, {}))
        except Exception:  # written for one goal
            answer = np.zeros(())
        if answer.shape != (count,):
            try:
                answer = np.array([self._compute(*row, {}) for row in zip(*goals, strict=True)])
            except Exception as error:  # a user's function may raise anything
                said = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"the environment's {name} raised {said}") from error
        if answer.shape != (count,) or answer.dtype.kind not in "biuf":
            raise ValueError(
                f"the environment's {name} must return one number for each pair of goals, got an "
                f"array of shape {answer.shape} and type {answer.dtype} for {count} pairs"
            )
        return torch.as_tensor(answer, dtype=self._dtype, device=achieved.device)


def _episode_steps(env: gymnasium.Env | gymnasium.vector.VectorEnv) -> int | None:
    one = getattr(env.unwrapped, "envs", [env])[0]  # the first of a vector in this process
    spec = one.spec if one.spec is not None else env.spec
    return None if spec is None else spec.max_episode_steps


def bounds(space: Space, *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Low and high (A,) of a box of actions, as float32 numbers that lie in the box.

    Raises:
        ValueError: the space is not a box, is unbounded or wider than float32 can express, holds
            integers or is not a vector.
    """
    if not isinstance(space, Box):
        raise ValueError(f"a planner needs a bounded box of actions, not {space}")
    if not space.is_bounded():
        raise ValueError(f"a planner needs a bounded box of actions; {space} is unbounded")
    if len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"a planner needs a box of real actions of shape (A,), not {space}")
    with np.errstate(over="ignore"):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        finite = np.isfinite(high - low).all()
    if not finite:
        raise ValueError(
            f"a planner needs a bounded box of actions; {space} is too wide for float32"
        )
    # the nearest float32 may lie outside the box, where the environment would refuse it
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    return torch.as_tensor(low, device=device), torch.as_tensor(high, device=device)


def obs_size(space: Space) -> int:
    """O, the size of observations.

    Raises:
        ValueError: observations that are not vectors of numbers.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"a model needs observations that are a vector of numbers, not {space}")
    return space.shape[0]


def random_actions(space: Space, count: int, *, generator: Generator) -> np.ndarray:
    """`count` actions (N, *A) drawn uniformly from a box, or from indices.

    Raises:
        ValueError: a space that is neither a bounded box, nor discrete, nor multi-discrete.
    """
    if isinstance(space, Box):
        low, high = bounds(space)
        uniform = torch.rand((count, len(low)), generator=generator)
        return (low + (high - low) * uniform).numpy()
    if isinstance(space, Discrete):
        drawn = torch.randint(int(space.n), (count,), generator=generator).numpy()
        return drawn + int(space.start)
    if isinstance(space, MultiDiscrete):
        uniform = torch.rand((count, *space.shape), generator=generator).double().numpy()
        return (uniform * space.nvec).astype(np.int64) + space.start
    raise ValueError(f"random actions need a bounded box or indices, not {space}")


class Vectors:
    """Turns observations of a space into vectors of float32 numbers, which networks take.

    Boxes are flattened; indices become one-hot vectors, several of them one after the other.

    Args:
        space: a box, discrete or multi-discrete space.
        device: where the vectors are to be.

    Attributes:
        size: S, the length of a vector.

    Raises:
        ValueError: another kind of space.
    """

    def __init__(self, space: Space, *, device: torch.device | str = "cpu") -> None:
        if not isinstance(space, Box | Discrete | MultiDiscrete):
            raise ValueError(
                f"a learner needs observations that are a box or indices, or a dict or tuple of "
                f"these, not {space}"
            )
        self._device, self._shape = device, tuple(space.shape or ())
        self._choices: list[int] = []
        if isinstance(space, Discrete):
            self._choices, self._start = [int(space.n)], np.asarray([space.start])
        elif isinstance(space, MultiDiscrete):
            self._choices = [int(n) for n in space.nvec.ravel()]
            self._start = np.asarray(space.start).ravel()
        self.size = sum(self._choices) or int(np.prod(self._shape, dtype=int))

    def __call__(self, obs: np.ndarray | Tensor) -> Float[Tensor, "N S"]:
        """Vectors of N observations (N, *O)."""
        if not self._choices:
            rows = torch.as_tensor(obs, dtype=torch.float32, device=self._device)
            return rows if rows.ndim == 2 else rows.reshape(len(rows), -1)
        index = np.asarray(obs).reshape(len(obs), -1) - self._start
        columns = torch.as_tensor(index, device=self._device).long().unbind(-1)
        hot = [one_hot(column, n) for column, n in zip(columns, self._choices, strict=True)]
        return torch.cat(hot, -1).float()
