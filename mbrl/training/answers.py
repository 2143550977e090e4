"""Checks of what an environment returns; an unusable value raises an error of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from numbers import Real
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import VectorEnv

from mbrl.plain import shown

Env = TypeVar("Env", gymnasium.Env, VectorEnv)

FIVE = ("observation", "reward", "terminated", "truncated", "info")
"""Names of the values that a step returns."""


class EnvironmentError(Exception):
    """An environment raised an exception, or returned a value that no agent can use.

    The message names the value and the step. `place` is the index of the environment among N, None
    if it is not known.
    """

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.place = place


def called(call: Callable[[], Any], name: str, place: int | None = None) -> Any:
    """Call an environment's `reset`, `step` or `close`, and return its result.

    Raises:
        EnvironmentError: the call raised an exception, which is the cause of this one.
    """
    try:
        return call()
    except (EnvironmentError, MemoryError):
        raise
    except Exception as error:
        raise raised(error, name, place) from error


def raised(error: Exception, name: str, place: int | None) -> EnvironmentError:
    """The EnvironmentError for an exception that an environment raised."""
    text = shown(" ".join(str(error).split()), most=300)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return EnvironmentError(f"the environment's {name} raised {said}", place)


@contextmanager
def closing(env: Env) -> Iterator[Env]:
    """Close an environment at the end of the block, also after an exception, which is then raised.

    Raises:
        EnvironmentError: `close` raised an exception, and the block did not.
    """
    try:
        yield env
    except BaseException:
        with suppress(Exception):
            env.close()
        raise
    called(env.close, "close")


def check_step(answer: Any, space: Space, place: int) -> Any:
    """Check the five values of a step; returns them, converted if they are of unusual types.

    Args:
        answer: what `step` returned.
        space: space of the observation.
        place: index of the environment among N.

    Raises:
        EnvironmentError: other values.
    """
    if type(answer) is tuple and len(answer) == 5:
        obs, reward, terminated, truncated, info = answer
        if (
            (
                obs.shape == space.shape and obs.dtype == space.dtype
                if type(obs) is np.ndarray
                else type(obs) in _INDICES and type(space) is Discrete
            )
            and type(reward) in _NUMBERS
            and type(terminated) in _FLAGS
            and type(truncated) in _FLAGS
            and type(info) is dict
        ):
            return answer
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        raise EnvironmentError(
            f"the environment's step returned {_named(answer)}, not ({', '.join(FIVE)})", place
        )
    obs, reward, terminated, truncated, info = answer
    return (
        _observation(obs, space, "step", place),
        _number(reward, place),
        _flag(terminated, "terminated", place),
        _flag(truncated, "truncated", place),
        _info(info, "step", place),
    )


def check_reset(answer: Any, space: Space, place: int) -> tuple[np.ndarray, Any]:
    """Check the observation and the info of a reset, and return them; see `check_step`."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise EnvironmentError(
            f"the environment's reset returned {_named(answer)}, not (observation, info)", place
        )
    obs, info = answer
    return _observation(obs, space, "reset", place), _info(info, "reset", place)


def check_frame(frame: Any) -> np.ndarray:
    """Check that `frame` is a picture (h, w, 3) of uint8, as `render_mode="rgb_array"` gives it.

    Raises:
        EnvironmentError: another value.
    """
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,):
        return frame
    raise EnvironmentError(
        f"the environment's render returned {_named(frame)}, not a frame (h, w, 3) of uint8"
    )


def check_batch(values: Sequence[Any], count: int, space: Space, name: str) -> None:
    """Check the arrays that a vector of N environments returned.

    Args:
        values: observations (N, *O), and after a step rewards, terminated and truncated (N,).
        count: N.
        space: space of the N observations.
        name: the method that was called.

    Raises:
        EnvironmentError: another shape or type; an index outside its space.
    """
    obs, *others = values
    if obs.shape != space.shape or obs.dtype.kind not in "biuf":
        raise EnvironmentError(
            f"the environment's {name} returned observations of shape {obs.shape} and type "
            f"{obs.dtype}, not of shape {space.shape} and type {space.dtype}"
        )
    for part, value in zip(FIVE[1:], others, strict=False):
        kinds = "biuf" if part == "reward" else "b"
        if value.shape != (count,) or value.dtype.kind not in kinds:
            raise EnvironmentError(
                f"the environment's {name} returned {part} of shape {value.shape} and type "
                f"{value.dtype}, not {count} {'numbers' if part == 'reward' else 'truth values'}"
            )
    if isinstance(space, MultiDiscrete):
        place = obs - space.start
        bad = (place < 0) | (place >= space.nvec)
        if np.count_nonzero(bad):  # faster than `any`
            at = tuple(np.argwhere(bad)[0])
            raise EnvironmentError(
                f"the environment's {name} returned the observation {obs[at]}, "
                f"not an index from {space.start[at]} to {(space.start + space.nvec - 1)[at]}",
                int(at[0]),
            )


_NUMBERS = {float, int, np.float64, np.float32}
_INDICES = {int, np.int64}
_FLAGS = {bool, np.bool_}


def _observation(obs: Any, space: Space, name: str, place: int) -> np.ndarray:
    wanted = f"not numbers of shape {space.shape} and type {space.dtype}"
    said = f"the environment's {name} returned {_named(obs)} as observation, {wanted}"
    try:
        array = np.asarray(obs)
    except Exception:  # rows of unequal length, or an object whose conversion fails
        raise EnvironmentError(said, place) from None
    if array.dtype.kind not in "biuf" or array.shape != space.shape:
        raise EnvironmentError(said, place)
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(space.dtype)
    if not (np.can_cast(array.dtype, cast.dtype, "same_kind") or (cast == array).all()):
        raise EnvironmentError(said, place)
    return cast


def _number(value: Any, place: int) -> float:
    if isinstance(value, Real) or (getattr(value, "shape", None) == () and _is_real(value)):
        return float(value)
    raise EnvironmentError(
        f"the environment's step returned {_named(value)} as reward, not one number", place
    )


def _flag(value: Any, name: str, place: int) -> bool:
    one = isinstance(value, Real | np.bool_) or getattr(value, "shape", None) == ()
    if one and _is_real(value) and float(value) in (0.0, 1.0):
        return bool(value)
    raise EnvironmentError(
        f"the environment's step returned {_named(value)} as {name}, not True or False", place
    )


def _is_real(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "biuf"


def _info(info: Any, name: str, place: int) -> Any:
    if isinstance(info, Mapping):
        return info
    raise EnvironmentError(
        f"the environment's {name} returned {_named(info)} as info, not a dict", place
    )


def _named(value: Any) -> str:
    """A short description of a value for messages, with its shape or length if it has one."""
    if value is None or isinstance(value, bool | int | float | str):
        return shown(repr(value), most=60)
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{kind} of shape {tuple(shape)} and type {getattr(value, 'dtype', '?')}"
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)} values"
    return f"a {kind}"
