"""A check that a model fulfils the protocol `Dynamics`, for authors of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor

from mbrl.types import Dynamics, Fittable, Gaussian, GaussianDynamics, Step, Transition
from planners.contract import Raised, called, said, shown

_MEMBERS = ("members", "noise_shape", "encode", "decode", "step")


def check_model(
    model: Dynamics, obs: Tensor, action: Tensor, *, data: Transition | None = None
) -> None:
    """Check the properties of a model that imagination and planning rely on.

    `encode` accepts any leading dimensions. `step` returns a `Step` of the right shapes and finite
    numbers, which is the same for the same noise and in which no row depends on another; it neither
    writes to its arguments nor draws from torch's global stream. `predict`, if there is one,
    returns mean and std of next state and reward. `fit`, if there is one, returns numbers.

    Args:
        model: any `Dynamics`.
        obs: (B, O) observations of an environment, at least two.
        action: (B, A) actions.
        data: (T,) transitions to fit a fittable model to; it is not fitted if None.

    Raises:
        ValueError: the model lacks a property; the message names the model, the method, and what
            was wanted and returned.
    """
    try:
        with torch.no_grad():
            problems = list(islice(_problems(model, obs, action, data), 1))
    except Raised as error:
        raise ValueError(f"model {type(model).__name__}: {error}") from error.__cause__
    for problem in problems:
        raise ValueError(f"model {type(model).__name__}: {problem}")


def _problems(model: Any, obs: Tensor, action: Tensor, data: Transition | None) -> Iterator[str]:
    for name in _MEMBERS:
        if not hasattr(model, name):
            yield f"has no {name}; a model has {', '.join(_MEMBERS)}"
    members, noise_shape = model.members, model.noise_shape
    if isinstance(members, bool) or not isinstance(members, int) or members < 1:
        yield f"members must be an integer of at least 1, got {members!r}"
    if not (isinstance(noise_shape, tuple) and all(isinstance(n, int) for n in noise_shape)):
        yield f"noise_shape must be a tuple of integers, (0,) for no noise, got {noise_shape!r}"
    if data is not None:
        yield from _fitted(model, data)
    rows = len(obs)
    stream = torch.get_rng_state()
    state = called("encode", model.encode, obs)
    if (
        not isinstance(state, Tensor)
        or state.shape[:-1] != (rows,)
        or not state.is_floating_point()
    ):
        yield f"encode: wanted numbers of shape ({rows}, S), got {shown(state)}"
        return
    size = state.shape[-1]
    for lead in ((), (2, rows)):
        given = obs[0] if lead == () else obs.expand(*lead, -1)
        found = called("encode", model.encode, given)
        if _shape(found) != (*lead, size):
            shape = tuple(given.shape)
            yield f"encode: wanted {(*lead, size)} for obs {shape}, got {shown(found)}"
    before = called("encode", model.encode, obs, state=state, action=action)
    if _shape(before) != (rows, size):
        yield f"encode with state and action: wanted ({rows}, {size}), got {shown(before)}"
    lead = (members, rows)
    states, actions = (x.expand(members, -1, -1).contiguous() for x in (state, action))
    kept = states.clone(), actions.clone()
    noise = torch.randn(*lead, *noise_shape, generator=Generator().manual_seed(0)).to(states)
    for what, given in (("step", noise), ("step without noise", None)):
        step = called(what, model.step, states, actions, noise=given)
        yield from _wrong_step(step, lead, size, what)
        again = model.step(states, actions, noise=given)
        if not all(torch.equal(a, b) for a, b in zip(step, again, strict=True)):
            yield f"{what}: the same state, action and noise give another step"
        if not all(torch.equal(a, b) for a, b in zip(kept, (states, actions), strict=True)):
            yield f"{what}: writes to the state or the action that it is given"
    one = model.step(states[:, 1:2], actions[:, 1:2], noise=noise[:, 1:2])
    among = model.step(states, actions, noise=noise)
    if not torch.allclose(one.state[:, 0], among.state[:, 1], rtol=1e-4, atol=1e-5):
        yield "step: a row among others gives another state than the row alone"
    if not torch.equal(stream, torch.get_rng_state()):
        yield "draws from torch's global stream; randomness comes in as noise"
    yield from _decoded(model, states, obs.shape[-1])
    if isinstance(model, GaussianDynamics):
        yield from _predicted(model, states, actions)


def _fitted(model: Any, data: Transition) -> Iterator[str]:
    if not isinstance(model, Fittable):
        return
    found = called("fit", model.fit, data, generator=Generator().manual_seed(0))
    if not isinstance(found, Mapping):
        yield f"fit: wanted a dict of numbers, got a {type(found).__name__}"
        return
    for name, value in found.items():
        if not isinstance(value, int | float):
            yield f"fit: wanted a number for {name!r}, got a {type(value).__name__}"


def _wrong_step(step: Any, lead: tuple[int, int], size: int, what: str) -> Iterator[str]:
    if not isinstance(step, Step):
        yield f"{what}: wanted a mbrl.types.Step, got a {type(step).__name__}"
        return
    shapes = {"state": (*lead, size), "reward": lead, "terminated": lead}
    for name, shape in shapes.items():
        value = getattr(step, name)
        if _shape(value) != shape:
            yield f"{what}: wanted {name} of shape {shape}, got {shown(value)}"
            return
    if step.terminated.dtype != torch.bool:
        yield f"{what}: wanted terminated to be booleans, got {step.terminated.dtype}"
    for name in ("state", "reward"):
        value = getattr(step, name)
        if not value.is_floating_point():
            yield f"{what}: wanted {name} to be real numbers, got {value.dtype}"
        elif not bool(value.isfinite().all()):
            yield f"{what}: {name} holds a number that is not finite"


def _decoded(model: Any, states: Tensor, size: int) -> Iterator[str]:
    try:
        obs = model.decode(states)
    except NotImplementedError:  # allowed, because only functions of observations need it
        return
    except Exception as error:  # a user's function may raise anything
        raise Raised(f"decode: raised {type(error).__name__}: {said(error)}") from error
    wanted = (*states.shape[:-1], size)
    if _shape(obs) != wanted:
        yield f"decode: wanted shape {wanted}, got {shown(obs)}"


def _predicted(model: Any, states: Tensor, actions: Tensor) -> Iterator[str]:
    found = called("predict", model.predict, states, actions)
    if not isinstance(found, Gaussian):
        yield f"predict: wanted a mbrl.types.Gaussian, got a {type(found).__name__}"
        return
    wanted = (*states.shape[:-1], states.shape[-1] + 1)
    for name, value in found._asdict().items():
        if _shape(value) != wanted:
            yield f"predict: wanted {name} of shape {wanted}, got {shown(value)}"
    if not bool((found.std >= 0).all()):
        yield "predict: std holds a number that is negative or not finite"


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
