"""A simulator and its rewards to first and second order, for planners that use derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, hessian, vmap

from planners.ilqr import Expansion

STEP = 1e-6
"""Perturbation of a coordinate or an action: central differences then err by about 1e-9."""


class SmoothSimulator:
    """A simulator from one state as what `planners.ILQR` plans through: a `planners.Smooth`.

    States are the simulator's (X,); their differences (S,) are positions in the tangent space,
    velocities and activations, S = 2 nv + na. The cost of a step is minus its reward.

    Dynamics and observations are differentiated by central differences of whole control steps,
    all of a plan's in one native batch; the reward exactly, by autograd, at the observations.
    Second derivatives of observations and dynamics are left out, and what curvature of the cost
    is negative after that (Gauss and Newton's approximation). Terminations are no part of it.

    Args:
        sim: a `Simulator` with one member.
        state: where all plans set out.
        action_repeat: control steps that each action is held.
        reward: takes the place of the task's own.

    Raises:
        ValueError: several members; a task of gymnasium's.
    """

    def __init__(
        self,
        sim: Any,
        state: Float[Tensor, X],
        *,
        action_repeat: int = 1,
        reward: Callable[..., Tensor] | None = None,
    ) -> None:
        if sim.members != 1 or sim.task.gymnasium:
            raise ValueError(
                f"{sim.task.name}: derivatives need a simulator of one member, of one of our tasks"
            )
        self.sim, self.state, self.repeat = sim, state, action_repeat
        self.reward = sim.reward if reward is None else reward

    def rollout(
        self, policy: Callable[[int, Tensor], Tensor], count: int, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """States (N, H + 1, X) and costs (N,) of `count` trajectories under a policy."""
        state = self.state.expand(count, -1)
        states, cost = [state], state.new_zeros(count)
        for t in range(horizon):
            action = policy(t, state)[None]
            for _ in range(self.repeat):
                moved = self.sim.step(state[None], action, noise=None)
                state, cost = moved.state[0], cost - moved.reward[0]
            states.append(state)
        return torch.stack(states, 1), cost

    def difference(
        self, states: Float[Tensor, "*n X"], origin: Float[Tensor, "*n X"]
    ) -> Float[Tensor, "*n S"]:
        """What leads from `origin` to `states`."""
        ends = states.reshape(-1, states.shape[-1]).numpy()
        begins = origin.reshape(ends.shape).numpy()
        apart = self._apart(ends, begins)
        return torch.from_numpy(apart).reshape(*states.shape[:-1], -1)

    def expand(self, states: Float[Tensor, "H1 X"], actions: Float[Tensor, "H A"]) -> Expansion:
        """Derivatives along a trajectory."""
        horizon, size = len(actions), 2 * self.sim.model.nv + self.sim.model.na
        pushed = np.concatenate([np.eye(size + actions.shape[1]), -np.eye(size + actions.shape[1])])
        count = len(pushed)
        rows = states[:-1].numpy().repeat(count, 0)
        origin = states[1:].numpy().repeat(count, 0)
        changes = np.tile(STEP * pushed, (horizon, 1))
        rows = self._moved(rows, changes[:, :size])
        moves = actions.double().numpy().repeat(count, 0) + changes[:, size:]

        # Rewards and where they lead: cost (H, ·) of a step and its slopes, chained over repeats.
        slopes, curvatures = 0.0, 0.0
        for _ in range(self.repeat):
            rows, before, after = self.sim.observed_step(rows, moves)
            seen = np.concatenate([before, moves, after], -1).reshape(horizon, count, -1)
            middle = torch.from_numpy(seen.mean(1))
            jacobian = torch.from_numpy(_central(seen))  # (H, O + A + O, S + A)
            width = before.shape[-1]

            def cost(z: Tensor, width: int = width) -> Tensor:
                parts = z[:width], z[width:-width], z[-width:]
                return -self.reward(*parts)

            slopes = slopes + torch.einsum("hzk,hz->hk", jacobian, vmap(grad(cost))(middle))
            bent = vmap(hessian(cost))(middle)
            curvatures = curvatures + jacobian.mT @ bent @ jacobian
        assert isinstance(slopes, Tensor) and isinstance(curvatures, Tensor)
        values, vectors = torch.linalg.eigh(curvatures)
        curvatures = vectors @ (values.clamp_min(0)[..., None] * vectors.mT)

        apart = self._apart(rows, origin).reshape(horizon, count, size)
        moving = torch.from_numpy(_central(apart))
        end = torch.zeros(1, size, size, dtype=torch.float64)
        return Expansion(
            fx=moving[..., :size],
            fu=moving[..., size:],
            lx=torch.cat([slopes[:, :size], end[:, 0]]),
            lu=slopes[:, size:],
            lxx=torch.cat([curvatures[:, :size, :size], end]),
            luu=curvatures[:, size:, size:],
            lux=curvatures[:, size:, :size],
        )

    def _moved(self, rows: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """States (n, X) moved by tangent vectors (n, S)."""
        model, (qpos, qvel, act) = self.sim.model, self._places()
        moved = rows.copy()
        for row, change in zip(moved, changes, strict=True):
            mujoco.mj_integratePos(model, row[qpos], change[: model.nv], 1.0)
        moved[:, qvel] += changes[:, model.nv : 2 * model.nv]
        moved[:, act] += changes[:, 2 * model.nv :]
        return moved

    def _apart(self, rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Tangent vectors (n, S) from `origin` to `rows`, each (n, X)."""
        model, (qpos, qvel, act) = self.sim.model, self._places()
        turned = rows[:, qpos] - origin[:, qpos]
        if model.nq != model.nv:  # else all joints slide or turn about one axis
            turned = np.empty((len(rows), model.nv))
            for out, a, b in zip(turned, origin[:, qpos], rows[:, qpos], strict=True):
                mujoco.mj_differentiatePos(model, out, 1.0, a, b)
        return np.concatenate(
            [turned, rows[:, qvel] - origin[:, qvel], rows[:, act] - origin[:, act]], axis=1
        )

    def _places(self) -> tuple[slice, slice, slice]:
        """Where positions, velocities and activations lie in a state, behind the time."""
        model = self.sim.model
        ends = np.cumsum([1, model.nq, model.nv, model.na])
        return slice(ends[0], ends[1]), slice(ends[1], ends[2]), slice(ends[2], ends[3])


def _central(values: np.ndarray) -> np.ndarray:
    """Jacobians (H, D, K) of values (H, 2 K, D) at steps forth and back."""
    forth, back = np.split(values, 2, axis=1)
    return ((forth - back) / (2 * STEP)).swapaxes(1, 2)
