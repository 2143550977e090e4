"""A check of a planner against the contract that MPC relies on, for authors of planners."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from planners.base import Plan, RecedingPlanner

LOW, HIGH, HORIZON = (-1.0, -3.0), (1.0, 2.0), 5
"""Bounds of two actions and horizon with which a class is built."""


def check_planner(planner: RecedingPlanner | Callable[..., Any], **settings: Any) -> None:
    """Check that a planner fulfils the contract that MPC relies on.

    A plan is a `Plan` of finite actions in the box, with their score. The same generator gives the
    same plan, and torch's global stream is not used. A shifted plan is accepted as the start of the
    next search. If every candidate is forbidden, the actions are finite nevertheless. A deadline in
    the past is accepted.

    Args:
        planner: a planner that maximises a score, or its class, which is called with `low` (A,),
            `high` (A,), `horizon` and the settings.
        settings: settings of the class.

    Raises:
        ValueError: the planner breaks the contract; one line names the planner and the method, and
            what was expected and returned.
    """
    name = getattr(planner, "__name__", type(planner).__name__)
    made: Any = planner
    if isinstance(planner, type) or not hasattr(planner, "plan"):
        made = _built(name, planner, settings)
    try:
        for problem in _problems(made):
            raise ValueError(f"planner {name}: {problem}")
    except Raised as error:
        raise ValueError(f"planner {name}: {error}") from error.__cause__


def settings_of(kind: Callable[..., Any], given: int = 3) -> dict[str, inspect.Parameter]:
    """The settings of a class: its constructor's parameters after the first `given`, by name."""
    parameters = list(inspect.signature(kind).parameters.values())[given:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in parameters if p.kind in named}


def _built(name: str, kind: Any, settings: dict[str, Any]) -> Any:
    known = settings_of(kind)
    for setting in settings:
        if setting not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"planner {name}: there is no setting {setting!r}; there are {there}")
    try:
        return kind(torch.tensor(LOW), torch.tensor(HIGH), HORIZON, **settings)
    except Exception as error:  # a user's constructor may raise anything
        raise ValueError(
            f"planner {name}: cannot be built from (low, high, horizon, settings): "
            f"{type(error).__name__}: {said(error)}"
        ) from error


def _problems(planner: Any) -> Iterator[str]:
    for attribute in ("low", "high", "horizon", "plan", "shift"):
        if not hasattr(planner, attribute):
            yield f"has no {attribute}"
    low, high, horizon = planner.low, planner.high, planner.horizon

    def bowl(actions: Tensor) -> Tensor:
        return -((actions - (0.3 * low + 0.7 * high)) ** 2).sum((1, 2))

    stream = torch.get_rng_state()
    plan = called("plan", planner.plan, bowl, None, generator=_seeded(low))
    yield from _wrong(plan, low, high, horizon, "plan")
    if not torch.equal(stream, torch.get_rng_state()):
        yield "plan: draws from torch's global stream; draw from the generator that is handed in"
    score = float(bowl(plan.actions[None])[0])
    if not math.isclose(float(plan.score), score, rel_tol=1e-3, abs_tol=1e-3):
        yield f"plan: says a score of {float(plan.score):g} for actions that score {score:g}"
    again = planner.plan(bowl, None, generator=_seeded(low))
    if not torch.equal(plan.actions, again.actions):
        yield "plan: the same generator gives another plan"
    moved = called("shift", planner.shift, plan, 2)
    if not isinstance(moved, Plan):
        yield f"shift: wanted a Plan, got a {type(moved).__name__}"
    warm = called("plan", planner.plan, bowl, moved, generator=_seeded(low))
    yield from _wrong(warm, low, high, horizon, "plan from a shifted start")

    def forbidden(actions: Tensor) -> Tensor:
        return 0 * actions.sum((1, 2)) - math.inf

    nothing = called("plan", planner.plan, forbidden, None, generator=_seeded(low))
    yield from _wrong(nothing, low, high, horizon, "plan with every candidate forbidden")
    late = time.perf_counter()
    hurried = called("plan", planner.plan, bowl, None, generator=_seeded(low), deadline=late)
    yield from _wrong(hurried, low, high, horizon, "plan with a deadline in the past")


def _seeded(like: Tensor) -> Generator:
    return Generator(like.device).manual_seed(0)


def _wrong(plan: Any, low: Tensor, high: Tensor, horizon: int, what: str) -> Iterator[str]:
    if not isinstance(plan, Plan):
        yield f"{what}: wanted a planners.Plan, got a {type(plan).__name__}"
        return
    shape = (horizon, len(low))
    if not isinstance(plan.actions, Tensor) or tuple(plan.actions.shape) != shape:
        yield f"{what}: wanted actions of shape {shape}, got {shown(plan.actions)}"
        return
    if plan.actions.dtype != low.dtype:
        yield f"{what}: wanted actions of the bounds' {low.dtype}, got {plan.actions.dtype}"
    if not bool(plan.actions.isfinite().all()):
        yield f"{what}: actions hold a number that is not finite"
    if not bool(((plan.actions >= low) & (plan.actions <= high)).all()):
        yield f"{what}: actions leave the box [{low.tolist()}, {high.tolist()}]"
    if tuple(torch.as_tensor(plan.score).shape) != ():
        yield f"{what}: wanted a score of shape (), got {tuple(plan.score.shape)}"
    if plan.actions.requires_grad:
        yield f"{what}: actions carry gradients; detach them"


class Raised(Exception):
    """A user's function raised an exception; the message names the function and the exception."""


def called(name: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The result of a user's function.

    Raises:
        Raised: the function raised an exception.
    """
    try:
        return function(*arguments, **named)
    except Exception as error:
        raise Raised(f"{name}: raised {type(error).__name__}: {said(error)}") from error


def said(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or "nothing more"


def shown(value: Any) -> str:
    """The shape of a tensor, or the type of another value."""
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
