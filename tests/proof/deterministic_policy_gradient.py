"""Deep deterministic policy gradient (Lillicrap et al. 2016), with one critic."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from mbrl.checks import check_batch
from mbrl.nn import StackedMLP
from mbrl.parallel import single_thread
from mbrl.types import Metrics, Transition


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (32,)
    """Widths of actor and critic."""
    critic_rate: float = 1e-2
    """Adam's step size for the critic."""
    policy_rate: float = 1e-3
    """Adam's step size for the policy."""
    discount: float = 0.9
    """γ."""
    polyak: float = 0.05
    """Share of the networks that goes into their targets at each update."""
    noise: float = 0.3
    """Std of exploration, as a share of half the box of actions."""


class Actor(nn.Module):
    """A deterministic `Policy` within the box [low, high] (A,)."""

    def __init__(
        self, size: int, low: Tensor, high: Tensor, config: Config, *, generator: Generator
    ) -> None:
        super().__init__()
        self.noise = config.noise
        self.net = StackedMLP(1, (size, *config.hidden, len(low)), generator=generator)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
        raw = self.net(state.reshape(1, -1, state.shape[-1])).reshape(*state.shape[:-1], -1)
        half = (self.high - self.low) / 2
        action = self.low + half * (1 + raw.tanh())
        if explore:
            noise = torch.randn(action.shape, generator=generator, device=generator.device)
            action = action + self.noise * half * noise.to(action)
        return action.clamp(self.low, self.high)


class DeterministicPolicyGradient:
    """A `Learner`: the critic by temporal differences, the policy by the critic's gradient."""

    def __init__(
        self,
        size: int,
        low: Tensor,
        high: Tensor,
        config: Config | None = None,
        *,
        generator: Generator,
    ) -> None:
        self.config, self.size = config or Config(), size
        self.policy = Actor(size, low, high, self.config, generator=generator)
        self.critic = StackedMLP(1, (size + len(low), *self.config.hidden, 1), generator=generator)
        self.nets = nn.ModuleList([self.policy, self.critic]).to(low.device)
        self.targets = copy.deepcopy(self.nets).requires_grad_(False)
        self.optimisers = [
            torch.optim.Adam(self.policy.parameters(), lr=self.config.policy_rate),
            torch.optim.Adam(self.critic.parameters(), lr=self.config.critic_rate),
        ]

    @single_thread()  # small products are faster on one thread
    def update(self, batch: Transition, *, generator: Generator) -> Metrics:
        """One step of critic, policy and targets."""
        check_batch(batch, (self.size,), self.policy.low.shape)
        actor, critic = self.targets
        with torch.no_grad():
            then = actor(batch.next_obs, generator=generator, explore=False)
            later = _value(critic, batch.next_obs, then)
            target = batch.reward + self.config.discount * torch.where(batch.terminated, 0.0, later)
        critic_loss = F.mse_loss(_value(self.critic, batch.obs, batch.action), target)
        self._descend(1, critic_loss)
        action = self.policy(batch.obs, generator=generator, explore=False)
        policy_loss = -_value(self.critic, batch.obs, action).mean()
        self._descend(0, policy_loss)
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.nets.parameters(), strict=True):
                slow.lerp_(fast, self.config.polyak)
        return {"critic_loss": critic_loss.item(), "policy_loss": policy_loss.item()}

    def _descend(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad()
        loss.backward(inputs=list(self.nets[which].parameters()))
        self.optimisers[which].step()

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets and optimisers."""
        return {
            "nets": dict(self.nets.state_dict()),
            "targets": dict(self.targets.state_dict()),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.nets.load_state_dict(state["nets"])
        self.targets.load_state_dict(state["targets"])
        for optimiser, own in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(own)


def _value(critic: nn.Module, state: Tensor, action: Tensor) -> Tensor:
    return critic(torch.cat((state, action), -1)[None])[0, :, 0]
