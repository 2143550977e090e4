"""A step function with derivatives and a quadratic cost, for planners that use them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from planners.ilqr import Expansion

StepFn = Callable[[Tensor, Tensor], Tensor]
"""`step(state (n, Z), action (n, A)) -> (n, Z)`, with derivatives by autograd."""


class SmoothQuadratic:
    """A `planners.Smooth` of a step function, at the cost Σ_t |z_t+1 - z*|²_Q + r |u_t|².

    Jacobians of steps are exact. Their second derivatives are left out of the cost's (the
    Gauss-Newton approximation).

    Args:
        step: z' = f(z, u).
        state: z (Z,), that plans start from.
        goal: z*, (Z,).
        state_cost: Q (Z, Z), symmetric and positive semidefinite.
        action_cost: r.
        repeat: number of steps for which each action is held; all of them cost.
    """

    def __init__(
        self,
        step: StepFn,
        state: Float[Tensor, " Z"],
        goal: Float[Tensor, " Z"],
        state_cost: Float[Tensor, "Z Z"],
        action_cost: float,
        *,
        repeat: int = 1,
    ) -> None:
        self.step, self.state, self.goal, self.repeat = step, state, goal, repeat
        self.state_cost, self.action_cost = state_cost.to(state), action_cost

    def rollout(
        self, policy: Callable[[int, Tensor], Tensor], count: int, horizon: int
    ) -> tuple[Float[Tensor, "N H1 Z"], Float[Tensor, " N"]]:
        """States and costs of N = `count` trajectories under a policy."""
        state = self.state.expand(count, -1)
        states, cost = [state], state.new_zeros(count)
        for t in range(horizon):
            action = policy(t, state).to(state)
            for _ in range(self.repeat):
                state = self.step(state, action)
                away = state - self.goal
                cost = cost + (away @ self.state_cost * away).sum(-1)
                cost = cost + self.action_cost * action.square().sum(-1)
            states.append(state)
        return torch.stack(states, 1), cost

    def difference(
        self, states: Float[Tensor, "*n Z"], origin: Float[Tensor, "*n Z"]
    ) -> Float[Tensor, "*n Z"]:
        """`states` minus `origin`."""
        return states - origin

    def expand(self, states: Float[Tensor, "H1 Z"], actions: Float[Tensor, "H A"]) -> Expansion:
        """Derivatives along states and actions."""
        size, width = states.shape[1], actions.shape[1]
        outputs = self.repeat * size
        z, u = (
            part.to(states).repeat_interleave(outputs, 0).detach().requires_grad_()
            for part in (states[:-1], actions)
        )
        met, state = [], z
        for _ in range(self.repeat):
            state = self.step(state, u)
            met.append(state)
        after = torch.cat(met, -1)  # (H · K Z, K Z): the states met under each of H actions
        rows = torch.eye(outputs, dtype=z.dtype, device=z.device).repeat(len(actions), 1)
        slopes = torch.autograd.grad(after, (z, u), rows, materialize_grads=True)
        by_state, by_action = (part.unflatten(0, (-1, outputs)) for part in slopes)
        q = 2 * torch.block_diag(*[self.state_cost] * self.repeat)
        pull = (after.detach()[::outputs] - self.goal.repeat(self.repeat)) @ q
        effort = 2 * self.repeat * self.action_cost
        eye = torch.eye(width, dtype=z.dtype, device=z.device)
        end = states.new_zeros(1, size, size)
        weighted = q @ by_state
        return Expansion(
            fx=by_state[:, -size:],
            fu=by_action[:, -size:],
            lx=torch.cat(((by_state.mT @ pull.unsqueeze(-1)).squeeze(-1), end[:, 0])),
            lu=(by_action.mT @ pull.unsqueeze(-1)).squeeze(-1) + effort * actions.to(z),
            lxx=torch.cat((by_state.mT @ weighted, end)),
            luu=by_action.mT @ (q @ by_action) + effort * eye,
            lux=by_action.mT @ weighted,
        )
