"""MPC in N environments at once, with one controller for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Generator

from mbrl.agents.mpc import Controller


class Controllers:
    """A `Player` that plans in N environments, in each by a controller with its own plan.

    Args:
        make: a fresh controller; called once an environment, when it is first acted in.
        generator: that all controllers draw from, one environment after another.

    Attributes:
        each: the controllers so far, in the order of the environments.
    """

    def __init__(self, make: Callable[[], Controller], *, generator: Generator) -> None:
        self.make, self.generator = make, generator
        self.each: list[Controller] = []

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """Actions (N, A) for observations (N, O), replanning when it is due."""
        self._grow(len(obs))
        actions = [
            controller.act(row, explore=explore)
            for controller, row in zip(self.each, obs, strict=True)
        ]
        return np.stack(actions)

    def reset(self, begins: np.ndarray) -> None:
        """Forget the plans of the environments where `begins` (N,) is True."""
        self._grow(len(begins))
        for place in np.flatnonzero(begins):
            self.each[place].reset()

    def said(self, ended: np.ndarray) -> dict[str, float]:
        """Numbers of the plans made in the episodes that ended, (N,) bool; {} if there were none.

        `plans`, `evaluated` and `rejected` are sums, `expected_score` the mean over plans.
        """
        done = [self.each[i] for i in np.flatnonzero(ended) if i < len(self.each)]
        done = [controller for controller in done if controller.plans]
        if not done:
            return {}
        plans = sum(controller.plans for controller in done)
        expected = done[0].expected
        if len(done) > 1:
            expected = sum(controller.plans * controller.expected for controller in done) / plans
        return {
            "plans": plans,
            "expected_score": expected,
            "evaluated": sum(controller.evaluated for controller in done),
            "rejected": sum(controller.rejected for controller in done),
        }

    def state_dict(self) -> dict[str, Any]:
        """Each controller's plan and counts, and the generator."""
        states = [controller.state_dict() for controller in self.each]
        return {"each": states, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; raises ValueError for anything else."""
        self.each = []
        self._grow(len(state["each"]))
        for controller, own in zip(self.each, state["each"], strict=True):
            controller.load_state_dict(own)
        self.generator.set_state(state["generator"].cpu())

    def _grow(self, count: int) -> None:
        while len(self.each) < count:
            self.each.append(self.make())
