"""Derivatives of a simulator and its reward, for planners that use them."""

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
"""Perturbation of a coordinate or an action; the error of central differences is about 1e-9."""


class SmoothSimulator:
    """A simulator with derivatives, from a given state: the `planners.Smooth` of `planners.ILQR`.

    States are those of the simulator, (X,). Differences of states, (S,), consist of positions in
    the tangent space, velocities and activations, S = 2 nv + na. The cost of a step is minus its
    reward.

    Dynamics and observations are differentiated by central differences of whole control steps,
    in one native batch for a whole plan. The reward is differentiated exactly by autograd, as a
    function of the observations. Actions and activations on a bound, where MuJoCo clamps them, are
    differentiated just inside it. Second derivatives of observations and dynamics are omitted (the
    Gauss-Newton approximation), and negative eigenvalues of the cost's Hessian are set to zero.
    Terminations are ignored.

    Args:
        sim: a `Simulator` of one member.
        state: the state (X,) that plans start from.
        action_repeat: number of control steps for which each action is held.
        reward: used instead of the reward of the task.

    Raises:
        ValueError: a simulator of several members, or of one of gymnasium's tasks.
    """

    def __init__(
        self,
        sim: Any,
        state: Float[Tensor, " X"],
        *,
        action_repeat: int = 1,
        reward: Callable[..., Tensor] | None = None,
    ) -> None:
        if sim.members != 1 or sim.task.gymnasium:
            raise ValueError(
                f"{sim.task.name}: derivatives need a simulator of one member, "
                "of a task that is not gymnasium's"
            )
        self.sim, self.state, self.repeat = sim, state, action_repeat
        self.reward = sim.reward if reward is None else reward

    def rollout(
        self, policy: Callable[[int, Tensor], Tensor], count: int, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """States (N, H + 1, X) and costs (N,) of N = `count` trajectories under a policy."""
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
        """`states` minus `origin` in the tangent space at `origin`."""
        ends = states.reshape(-1, states.shape[-1]).numpy()
        begins = origin.reshape(ends.shape).numpy()
        found = self._difference(ends, begins)
        return torch.from_numpy(found).reshape(*states.shape[:-1], -1)

    def expand(self, states: Float[Tensor, "H1 X"], actions: Float[Tensor, "H A"]) -> Expansion:
        """Derivatives of dynamics and cost along a trajectory, at `states` and `actions`."""
        horizon, size = len(actions), 2 * self.sim.model.nv + self.sim.model.na
        eye = np.eye(size + actions.shape[1])
        count = 2 * len(eye)
        rows = states[:-1].numpy().repeat(count, 0)
        origin = states[1:].numpy().repeat(count, 0)
        changes = np.tile(STEP * np.concatenate([eye, -eye]), (horizon, 1))
        rows = self._moved(rows, changes[:, :size])
        moves = actions.double().numpy().repeat(count, 0)
        moves = _inside(moves, -1.0, 1.0, changes[:, size:]) + changes[:, size:]

        # Gradient and Hessian of the cost of each planned action, summed over its repeats.
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
            inner = vmap(hessian(cost))(middle)
            curvatures = curvatures + jacobian.mT @ inner @ jacobian
        assert isinstance(slopes, Tensor) and isinstance(curvatures, Tensor)
        values, vectors = torch.linalg.eigh(curvatures)
        curvatures = vectors @ (values.clamp_min(0)[..., None] * vectors.mT)

        moved = self._difference(rows, origin).reshape(horizon, count, size)
        moving = torch.from_numpy(_central(moved))
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
        model, (qpos, qvel, act) = self.sim.model, self._slices()
        moved = rows.copy()
        for row, change in zip(moved, changes, strict=True):
            mujoco.mj_integratePos(model, row[qpos], change[: model.nv], 1.0)
        moved[:, qvel] += changes[:, model.nv : 2 * model.nv]
        shift = changes[:, 2 * model.nv :]
        moved[:, act] = _inside(moved[:, act], *self._activation_range(), shift) + shift
        return moved

    def _difference(self, rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Tangent vectors (n, S) from `origin` to `rows`, each (n, X)."""
        model, (qpos, qvel, act) = self.sim.model, self._slices()
        positions = rows[:, qpos] - origin[:, qpos]
        if model.nq != model.nv:  # ball or free joints, whose positions are quaternions
            positions = np.empty((len(rows), model.nv))
            for out, a, b in zip(positions, origin[:, qpos], rows[:, qpos], strict=True):
                mujoco.mj_differentiatePos(model, out, 1.0, a, b)
        return np.concatenate(
            [positions, rows[:, qvel] - origin[:, qvel], rows[:, act] - origin[:, act]], axis=1
        )

    def _activation_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (na,) of the activations, infinite where MuJoCo does not clamp them."""
        model = self.sim.model
        low, high = np.full(model.na, -np.inf), np.full(model.na, np.inf)
        for i in np.flatnonzero(model.actuator_actlimited):
            first = model.actuator_actadr[i]
            where = slice(first, first + model.actuator_actnum[i])
            low[where], high[where] = model.actuator_actrange[i]
        return low, high

    def _slices(self) -> tuple[slice, slice, slice]:
        """Slices of a state, which begins with the time: positions, velocities, activations."""
        model = self.sim.model
        ends = np.cumsum([1, model.nq, model.nv, model.na])
        return slice(ends[0], ends[1]), slice(ends[1], ends[2]), slice(ends[2], ends[3])


def _inside(
    values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float, changes: np.ndarray
) -> np.ndarray:
    """The values (n, D), moved so that `changes` of ± STEP keep them in [low, high].

    A value to be changed that is within `STEP` of a bound is moved to a distance of `STEP` from it,
    because MuJoCo clamps values outside, which would halve the central difference. Values outside
    the bounds are not moved.
    """
    on_bound = (changes != 0) & (low <= values) & (values <= high)
    return np.where(on_bound, values.clip(low + STEP, high - STEP), values)


def _central(values: np.ndarray) -> np.ndarray:
    """Jacobians (H, D, K) from values (H, 2 K, D) at K forward and then K backward steps."""
    forth, back = np.split(values, 2, axis=1)
    return ((forth - back) / (2 * STEP)).swapaxes(1, 2)
