"""n-step transitions from a stream of steps (Sutton and Barto 2018, section 7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.checks import check_state
from mbrl.types import Transition


class NStep:
    """Joins up to n successive steps of each of N environments into one transition.

    The transition of step t has its observation and action, the discounted sum of the rewards of
    k steps, the observation after them, and the discount γ^k, which multiplies the value of that
    observation in a target: `losses.td_error` with this discount has the target of
    `returns.n_step`. k is n, or less where an episode ends before. A truncated episode's last
    observation is bootstrapped from, a terminated one's is not: both flags are those of the last
    of the k steps.

    Args:
        n: number of steps.
        discount: γ.

    Raises:
        ValueError: `n` below one, `discount` outside [0, 1].
    """

    def __init__(self, n: int, *, discount: float) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: must be an integer of at least 1, got {n!r}")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount: must be in [0, 1], got {discount!r}")
        self.n, self.discount = n, discount
        self._next = 0  # slot of the next step; slots are used in turn
        self._obs: Tensor | None = None  # (n, N, *O)
        self._action = self._reward = self._age = self._pending = torch.empty(0)

    def push(self, step: Transition) -> tuple[Transition, Float[Tensor, " M"]]:
        """Add one step of N environments; N must stay the same.

        Returns:
            The transitions that are complete now, (M, ...), from the oldest, and γ^k of each.
            M is 0 at first, and above N where episodes end.

        Raises:
            ValueError: another number of environments than before.
        """
        if self._obs is None:
            self._start(step)
        assert self._obs is not None
        if step.reward.shape != self._reward.shape[1:]:
            raise ValueError(
                f"step: want {self._reward.shape[1]} environments as before, "
                f"got the shape {tuple(step.reward.shape)} of rewards"
            )
        slot, self._next = self._next, (self._next + 1) % self.n
        self._obs[slot], self._action[slot] = step.obs, step.action
        self._reward[slot], self._age[slot], self._pending[slot] = 0.0, 0, True
        # slots that are not pending are counted on, and set back when they are used again
        self._reward += self.discount**self._age * step.reward
        self._age += 1
        ready = self._pending & ((step.terminated | step.truncated) | (self._age >= self.n))
        self._pending &= ~ready
        order = (torch.arange(self.n, device=ready.device) + self._next) % self.n  # oldest first
        turn, env = ready[order].nonzero(as_tuple=True)
        slots = order[turn]
        complete = Transition(
            self._obs[slots, env],
            self._action[slots, env],
            self._reward[slots, env].to(step.reward.dtype),
            step.next_obs[env],
            step.terminated[env],
            step.truncated[env],
        )
        return complete, (self.discount ** self._age[slots, env]).to(step.reward.dtype)

    def give_up(self, places: Bool[Tensor, " N"]) -> None:
        """Drop the steps that are not complete yet of environments whose episodes do not go on."""
        if self._obs is not None:
            self._pending[:, places.to(self._pending.device)] = False

    def _start(self, step: Transition) -> None:
        if step.reward.ndim != 1:
            raise ValueError(
                f"step: want N environments, got rewards of shape {tuple(step.reward.shape)}"
            )
        self._obs, self._action = (
            torch.zeros((self.n, *x.shape), dtype=x.dtype, device=x.device)
            for x in (step.obs, step.action)
        )
        device, shape = step.reward.device, (self.n, *step.reward.shape)
        self._reward = torch.zeros(shape, dtype=torch.float64, device=device)
        self._age = torch.zeros(shape, dtype=torch.float64, device=device)
        self._pending = torch.zeros(shape, dtype=torch.bool, device=device)

    def state_dict(self) -> dict[str, Any]:
        """The steps that are not complete yet."""
        if self._obs is None:
            return {"next": self._next, "kept": {}}
        return {"next": self._next, "kept": {name: x.clone() for name, x in self._kept().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of another n, or of other environments than those seen here.
        """
        kept = state["kept"]
        if not kept:
            self._obs = None
        else:
            if self._obs is not None:
                check_state(kept, self._kept(), "n_step")
            if len(kept["pending"]) != self.n:
                raise ValueError(f"n_step: want {self.n} steps, got {len(kept['pending'])}")
            self._obs, self._action = kept["obs"].clone(), kept["action"].clone()
            self._reward, self._age = kept["reward"].clone(), kept["age"].clone()
            self._pending = kept["pending"].clone()
        self._next = int(state["next"])

    def _kept(self) -> dict[str, Tensor]:
        assert self._obs is not None
        return {
            "obs": self._obs,
            "action": self._action,
            "reward": self._reward,
            "age": self._age,
            "pending": self._pending,
        }
