"""Deep Q-learning and its family (Mnih et al. 2015), for a choice among A actions.

Settings make the variants: double Q-learning (van Hasselt et al. 2016), dueling networks (Wang et
al. 2016), the distributions of returns of C51 (Bellemare et al. 2017) and of QR-DQN (Dabney et al.
2018). Prioritised replay and n-step returns are matters of the data: `update` takes the weights of
the rows and a discount for each, and leaves its errors in `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from mbrl import losses
from mbrl.distributions import categorical_projection, gumbel_noise, quantile_midpoints
from mbrl.encoders.encoder import Encoder
from mbrl.learners.encoding import attach, encode
from mbrl.learners.off_policy import Factor, OffPolicyLearner
from mbrl.learners.value_configs import DQNConfig
from mbrl.nn import ACTIVATIONS, Block, StackedMLP, Target
from mbrl.types import Transition


class QNetwork(nn.Module):
    """A network with outputs (*lead, A, K): K numbers for each of A actions.

    Dueling networks (Wang et al. 2016, equation 9) share all hidden layers but the last, and then
    are V(s) + A(s, a) - mean_a A(s, a).

    Args:
        size: S, of states.
        choices: A.
        outputs: K.
        config: settings.
        encoder: turns observations into states; if None, observations are states.
        generator: draws the weights.

    Attributes:
        shape: *O, of an observation.
    """

    def __init__(
        self,
        size: int,
        choices: int,
        outputs: int,
        config: DQNConfig,
        *,
        encoder: Encoder | None = None,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.shape = attach(self, size, encoder)
        self.choices, self.outputs, self.activation = choices, outputs, config.activation

        def mlp(*sizes: int) -> StackedMLP:
            return StackedMLP(
                1, sizes, activation=config.activation, init="uniform", generator=generator
            )

        hidden = config.hidden
        self.shared: StackedMLP | None = None
        self.value: StackedMLP | None = None
        if config.dueling:
            if len(hidden) > 1:
                self.shared = mlp(size, *hidden[:-1])
                size = hidden[-2]
            hidden = hidden[-1:]
            self.value = mlp(size, *hidden, outputs)
        self.actions = mlp(size, *hidden, choices * outputs)

    def forward(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead A K"]:
        """The K numbers of each action."""
        state = encode(self, obs)
        x = state.reshape(1, -1, state.shape[-1])
        if self.shared is not None:
            x = ACTIVATIONS[self.activation](self.shared(x))
        lead = state.shape[:-1]
        out = self.actions(x).view(*lead, self.choices, self.outputs)
        if self.value is not None:
            value = self.value(x).view(*lead, 1, self.outputs)
            out = value + out - out.mean(-2, keepdim=True)
        return out


class ValuePolicy:
    """A `Policy` that takes the action of greatest value.

    Exploring, it takes a uniformly random action with probability ε, or draws from
    softmax(Q / temperature).

    Attributes:
        amount: ε, or the temperature, of exploration.

    Args:
        learner: gives the values.
    """

    def __init__(self, learner: DQN) -> None:
        self.learner, self.amount = learner, learner.config.first_exploration
        self._obs_dims = len(cast(QNetwork, learner.critic.module).shape)

    def __call__(
        self, state: Shaped[Tensor, "*lead *O"], *, generator: Generator, explore: bool
    ) -> Int[Tensor, "*lead"]:
        """Actions for observations, numbered from 0."""
        learner = self.learner
        if not explore:
            return learner.values(state).argmax(-1)
        if learner.config.exploration == "boltzmann":
            values = learner.values(state)
            noise = gumbel_noise(values.shape, generator=generator).to(values)
            return (values + self.amount * noise).argmax(-1)
        lead, device = state.shape[: state.ndim - self._obs_dims], generator.device
        explores = torch.rand(lead, generator=generator, device=device) < self.amount
        anything = torch.randint(learner.actions, lead, generator=generator, device=device)
        some = int(explores.count_nonzero()) if state.is_cpu else -1  # elsewhere it would wait
        if some == explores.numel():
            return anything  # without the values, which are not needed
        best = learner.values(state).argmax(-1)
        return best if some == 0 else torch.where(explores.to(best.device), anything.to(best), best)


class DQN(OffPolicyLearner[DQNConfig, int]):
    """A `Learner` of action values, whose policy takes the action of greatest value.

    `errors` are sizes of TD errors; with C51 KL(target ‖ prediction), as in Rainbow (Hessel et al.
    2018); with quantiles the loss.
    """

    PARTS = ("critic", "target")

    def _build(self, encoder: Encoder | None, generator: Generator) -> tuple[int, ...]:
        config = self.config
        outputs = max(config.atoms, config.quantiles)
        net = QNetwork(
            self.size, self.actions, outputs, config, encoder=encoder, generator=generator
        )
        self.critic = Block(
            net.to(self.device),
            learning_rate=config.learning_rate,
            eps=config.adam_eps,
            clip=config.clip,
        )
        self.target = Target(self.critic)
        self.atoms = torch.linspace(*config.value_range, config.atoms, device=self.device)
        self.levels = quantile_midpoints(config.quantiles, device=self.device)
        self._policy = ValuePolicy(self)
        self.errors = torch.zeros(0, device=self.device)
        return net.shape

    @property
    def policy(self) -> ValuePolicy:
        """The current policy."""
        return self._policy

    def progress(self, env_steps: int) -> None:
        """Set exploration, and step sizes, to those after `env_steps` environment steps."""
        super().progress(env_steps)
        config = self.config
        share = min(1.0, env_steps / config.exploration_steps)
        first, last = config.first_exploration, config.last_exploration
        self._policy.amount = first + share * (last - first)

    def values(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead A"]:
        """Q(s, ·), differentiable in the states, with constant parameters."""
        return self._mean(self.critic.fixed(obs))

    def value(self, obs: Shaped[Tensor, "*lead *O"]) -> Float[Tensor, "*lead"]:
        """The greatest of `values`, that of the policy's action without exploration."""
        return self.values(obs).amax(-1)

    def _learn(
        self, batch: Transition, weights: Tensor | None, discount: Factor, generator: Generator
    ) -> dict[str, Tensor]:
        rows, errors, q = self._loss(batch, discount)
        loss = losses.average(rows, weight=weights)
        self.critic.minimise(loss)
        self.errors = errors.detach()
        if self._due(self.config.target_every):
            self.target.follow(self.config.polyak)
        said = {"q": q.detach().mean(), "critic_loss": loss.detach()}
        return said | {"td_error": self.errors.mean()}

    def _loss(
        self, batch: Transition, discount: Factor
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The loss, the error and Q(s, a) of each row."""
        out = self.critic.module(batch.obs)  # (B, A, K)
        with torch.no_grad():
            next_out = self.target.module(batch.next_obs)
            online = self.critic.fixed(batch.next_obs) if self.config.double else next_out
        if out.shape[-1] == 1:
            return self._expected(batch, out, next_out, online, discount)
        chosen = _of(next_out, self._mean(online).argmax(-1))  # (B, K)
        predicted = _of(out, _checked(batch.action, out))
        goes_on = (discount * (~batch.terminated)).unsqueeze(-1)
        reward = batch.reward.unsqueeze(-1)
        q = self._mean(predicted)
        if self.config.atoms > 1:
            probs = chosen.softmax(-1)
            target = categorical_projection(reward + goes_on * self.atoms, probs, self.atoms)
            rows = losses.categorical_cross_entropy(predicted, target)
            # the entropy of the target has no gradient, but makes the error of a perfect fit 0
            return rows, rows + torch.special.xlogy(target, target).sum(-1), q
        assert self.config.huber is not None
        rows = losses.quantile_huber(
            predicted, self.levels, reward + goes_on * chosen, threshold=self.config.huber
        )
        return rows, rows, q

    def _expected(
        self,
        batch: Transition,
        out: Float[Tensor, "B A 1"],
        next_out: Float[Tensor, "B A 1"],
        online: Float[Tensor, "B A 1"],
        discount: Factor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, next_q = out.squeeze(-1), next_out.squeeze(-1)
        if self.config.double:
            error = losses.double_q_learning(
                q, batch.action, batch.reward, next_q, online.squeeze(-1), batch.terminated,
                discount=discount,
            )  # fmt: skip
        else:
            error = losses.q_learning(
                q, batch.action, batch.reward, next_q, batch.terminated, discount=discount
            )
        threshold = self.config.huber
        rows = (
            0.5 * error.square() if threshold is None else losses.huber(error, threshold=threshold)
        )
        return rows, error.detach().abs(), losses.taken(q.detach(), batch.action)

    def _mean(self, out: Float[Tensor, "*lead K"]) -> Float[Tensor, "*lead"]:
        """The expected return that K outputs stand for."""
        if self.config.atoms > 1:
            return out.softmax(-1) @ self.atoms
        return out.mean(-1) if self.config.quantiles > 1 else out.squeeze(-1)

    def state_dict(self) -> dict[str, Any]:
        """Network, target, moments of the optimiser, number of updates, amount of exploration."""
        return super().state_dict() | {"exploration": self._policy.amount}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, KeyError: it is from a different learner.
        """
        amount = state["exploration"]
        if not 0 <= amount < math.inf:
            raise ValueError(f"exploration: must be finite and not negative, got {amount}")
        super().load_state_dict(state)
        self._policy.amount = amount


def _checked(action: Tensor, out: Float[Tensor, "B A K"]) -> Tensor:
    losses.taken(out[..., 0], action)  # refuses actions that there are not
    return action.long()


def _of(out: Float[Tensor, "B A K"], action: Int[Tensor, " B"]) -> Float[Tensor, "B K"]:
    """The outputs of one action in each row."""
    index = action.view(-1, 1, 1).expand(-1, 1, out.shape[-1])
    return out.gather(1, index).squeeze(1)
