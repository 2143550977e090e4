"""Ensembles of probabilistic (or deterministic) neural networks.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep
ensembles"; Chua et al. 2018, "Deep reinforcement learning in a handful of trials using
probabilistic dynamics models" (PETS): each member predicts a diagonal Gaussian over the change
of the observation, its log-variance softly held between learned bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.data import moments
from mbrl.dynamics import fitting
from mbrl.nn import ACTIVATIONS, StackedMLP, stacked_mlp
from mbrl.types import Gaussian, Metrics, Step, Transition


@dataclass(frozen=True)
class EnsembleConfig:
    """How the nets look and how they are fitted."""

    members: int = 5
    """E, how many nets."""
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Width of each hidden layer."""
    activation: str = "silu"
    """silu, relu, elu or tanh."""
    probabilistic: bool = True
    """Learn a variance (Gaussian likelihood); without, squared error and no noise."""
    learn_reward: bool = False
    """Predict the reward too."""
    learn_termination: bool = False
    """Predict termination too (cross-entropy)."""
    elites: int | None = None
    """Step with only this many members, the best on held-out data; all of them if unset."""
    bootstrap: bool = True
    """Each member trains on its own resample of the data; without, all on the same data."""
    normalise: bool = True
    """Scale inputs and targets to mean 0 and std 1 on the data."""
    holdout: float = 0.1
    """Share of the data held out for early stopping and for ranking members; 0 turns both off."""
    holdout_max: int = 5000
    """Most transitions ever held out."""
    batch: int = 256
    """Rows per member in an update."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    weight_decay: float | tuple[float, ...] = 5e-5
    """L2 penalty on the weights, one number or one per layer (input layer first)."""
    bound_weight: float = 0.01
    """Pull on the log-variance bounds towards each other."""
    epochs: int = 100
    """Most passes over the data in one fit."""
    patience: int = 10
    """A member stops after this many passes without a better held-out score."""
    improvement: float = 0.01
    """How much better the held-out score must be to count."""
    warm: bool = True
    """Refit from the weights of the last fit; without, from fresh ones."""

    def __post_init__(self) -> None:
        layers = len(self.hidden) + 1
        decay = self.weight_decay
        for name in ("members", "batch", "epochs", "patience", "holdout_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one or more widths >= 1, got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {[*ACTIVATIONS]}")
        if self.elites is not None and not 1 <= self.elites <= self.members:
            raise ValueError(f"elites must be in 1..{self.members} (members), got {self.elites}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be in [0, 1), got {self.holdout}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if isinstance(decay, tuple) and len(decay) != layers:
            raise ValueError(f"weight_decay must be one number or {layers}, got {len(decay)}")


class _Folded(NamedTuple):
    """Weights of the members that step, from (obs, action) - mean to physical units."""

    members: int
    weights: list[Tensor]
    biases: list[Tensor]
    floor: Tensor  # (E, 1, D) the least variance
    range: Tensor  # (E, 1, D) how much more than that it can be


LOG_VAR = (-15.0, 0.5)
"""Where the bounds of the log-variance start, in normalised units. PETS starts the lower one at
-10; on a noiseless simulator that is more noise than the model's error, and plans suffer."""

STACKED_WORK = 8e6
"""Batch times parameters below which dispatch costs more than arithmetic on the CPU, so that all
members are better trained as one stack on one core."""

_FALSE = torch.zeros((), dtype=torch.bool)


class Ensemble(nn.Module):
    """E nets that each map (obs, action) to a Gaussian over the change of obs.

    A `GaussianDynamics`, differentiable in state and action, on any device; its state is the
    observation. `members` counts the elites: after each `fit` the members stand best first.

    Args:
        obs_size: O (and S).
        action_size: A.
        config: see `EnsembleConfig`.
        generator: draws the initial weights.

    Attributes:
        scale: (S,) std of the one-step change of each observation in the data last fitted.
    """

    scale: Tensor
    _in_mean: Tensor
    _in_std: Tensor
    _out_mean: Tensor
    _out_std: Tensor

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        config: EnsembleConfig | None = None,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.config = config = config or EnsembleConfig()
        self.obs_size, self.action_size = obs_size, action_size
        self.gaussians = obs_size + config.learn_reward
        outputs = self.gaussians * (1 + config.probabilistic) + config.learn_termination
        self.net = StackedMLP(
            config.members,
            (obs_size + action_size, *config.hidden, outputs),
            activation=config.activation,
            generator=generator,
        )
        bounds = (config.members, 1, self.gaussians)
        self.max_log_var = nn.Parameter(torch.full(bounds, LOG_VAR[1]))
        self.min_log_var = nn.Parameter(torch.full(bounds, LOG_VAR[0]))
        inputs = obs_size + action_size
        self.register_buffer("_in_mean", torch.zeros(inputs))
        self.register_buffer("_in_std", torch.ones(inputs))
        self.register_buffer("_out_mean", torch.zeros(self.gaussians))
        self.register_buffer("_out_std", torch.ones(self.gaussians))
        self.register_buffer("scale", torch.ones(obs_size))
        normalisers = [self._in_mean, self._in_std, self._out_mean, self._out_std]
        self._sources = [*self.stacked(), *normalisers]
        self._folded_key: tuple[int, ...] = ()

    @property
    def members(self) -> int:
        """E of the protocol: how many members step."""
        return self.config.elites or self.config.members

    def stacked(self) -> list[Tensor]:
        """All parameters, members in front: weights, biases, upper and lower bounds."""
        return [*self.net.weights, *self.net.biases, self.max_log_var, self.min_log_var]

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number a dimension of the observation."""
        return (self.obs_size,)

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """The identity."""
        return obs

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """The identity."""
        return state

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of next state and reward, (E, B, S + 1); an unlearned reward is 0 ± 0.

        Raises:
            ValueError: wrong shapes.
        """
        change, std, _ = self._gaussian(state, action)
        if std is None:
            std = torch.zeros_like(change)
        if not self.config.learn_reward:
            change, std = F.pad(change, (0, 1)), F.pad(std, (0, 1))
        return Gaussian(F.pad(state, (0, 1)) + change, std)

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S"] | None,
    ) -> Step:
        """One step of each member: mean + std · noise, or the mean where noise is None.

        A learned reward is its mean (its noise averages out of every score) and a learned
        termination is where its probability passes one half; unlearned ones are 0 and False.

        Raises:
            ValueError: wrong shapes.
        """
        change, std, logit = self._gaussian(state, action)
        size, lead = self.obs_size, state.shape[:-1]
        next_state = state + change[..., :size]
        if noise is not None and std is not None:
            next_state = torch.addcmul(next_state, std[..., :size], noise)
        reward = change[..., size] if self.config.learn_reward else state.new_zeros(()).expand(lead)
        ended = _FALSE.to(state.device).expand(lead) if logit is None else logit > 0
        return Step(next_state, reward, ended)

    def _gaussian(
        self, state: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Mean and std of the change of state (and of the reward), and the termination logit."""
        folded = self._folded()
        for name, value, size in (
            ("state", state, self.obs_size),
            ("action", action, self.action_size),
        ):
            if value.ndim != 3 or value.shape[0] != folded.members or value.shape[2] != size:
                raise ValueError(
                    f"{name} must have shape {(folded.members, 'B', size)}, "
                    f"got {tuple(value.shape)}"
                )
        x = torch.cat((state, action), -1) - self._in_mean
        out = stacked_mlp(x, folded.weights, folded.biases, self.config.activation)
        gaussians = self.gaussians
        change = out[..., :gaussians]
        logit = out[..., -1] if self.config.learn_termination else None
        if not self.config.probabilistic:
            return change, None, logit
        # exp(low + softplus(bounded - low)) with bounded = high - softplus(high - raw) is
        # exp(low) + exp(high) · sigmoid(raw - high)
        share = torch.sigmoid(out[..., gaussians : 2 * gaussians])
        return change, torch.addcmul(folded.floor, folded.range, share).sqrt(), logit

    def _folded(self) -> _Folded:
        """The members that step, with the normalisers folded into them.

        Kept until a parameter or a normaliser changes (which its version counter tells).
        """
        sources = self._sources
        key = (sources[0].data_ptr(), *(source._version for source in sources))
        if key != self._folded_key:
            self._folded_value = self._fold()
            self._folded_key = key  # last: another worker may read between the two
        return self._folded_value

    @torch.no_grad()
    def _fold(self) -> _Folded:
        members, gaussians = self.members, self.gaussians
        stacked = [parameter.detach()[:members].double() for parameter in self.stacked()]
        layers = len(self.net.weights)
        weights, biases = stacked[:layers], stacked[layers : 2 * layers]
        high, low = stacked[2 * layers :]
        weights[0] = weights[0] / self._in_std.double().unsqueeze(-1)
        scale = torch.ones(self.net.sizes[-1], dtype=torch.double, device=high.device)
        shift = torch.zeros_like(scale).repeat(members, 1, 1)
        scale[:gaussians] = self._out_std
        shift[..., :gaussians] = self._out_mean.double()
        if self.config.probabilistic:  # out of the net comes the raw log-variance - high
            shift[..., gaussians : 2 * gaussians] = -high
        weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale + shift
        unit = self._out_std.double().square()
        dtype = self.scale.dtype
        return _Folded(
            members,
            [weight.to(dtype).contiguous() for weight in weights],
            [bias.to(dtype).contiguous() for bias in biases],
            (unit * low.exp()).clamp_min(1e-30).to(dtype),  # a root of 0 has no gradient
            (unit * high.exp()).to(dtype),
        )

    def _heads(
        self, out: Tensor, high: Tensor, low: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Split the raw output (E, B, ...) into normalised mean, bounded log-variance, logit."""
        gaussians = self.gaussians
        logit = out[..., -1] if self.config.learn_termination else None
        if not self.config.probabilistic:
            return out[..., :gaussians], None, logit
        log_var = high - F.softplus(high - out[..., gaussians : 2 * gaussians])
        return out[..., :gaussians], low + F.softplus(log_var - low), logit

    def fit(self, data: Transition, *, generator: Generator) -> Metrics:
        """Fit every member to transitions (T,) until its held-out score stops improving.

        The score is the Gaussian negative log-likelihood in normalised units (mean squared
        error for a deterministic ensemble), plus the cross-entropy of a learned termination.
        Members are independent of one another: each has its own resample, order, optimiser and
        stopping time, and the outcome does not depend on the number of threads.

        Returns:
            `loss` and `holdout_loss` (mean over members, at each one's best pass),
            `holdout_mse` (normalised units, of the members that step), `epochs` (mean over
            members, to the best pass) and `updates` (mean over stacks, all passes).

        Raises:
            ValueError: wrong shapes, fewer than two transitions, numbers that are not finite.
        """
        inputs, targets, ends = self._prepare(data)
        config, count = self.config, len(inputs)
        held = min(int(config.holdout * count), config.holdout_max, count - 1)
        if config.holdout and count > 1:
            held = max(held, 1)
        order = torch.randperm(count, generator=generator).to(inputs.device)
        test, train = order[:held], order[held:]
        rows = (inputs[train], targets[train], ends[train])
        held_rows = (inputs[test], targets[test], ends[test])
        if not config.warm:
            self.net.reset(slice(None), generator=generator)
            nn.init.constant_(self.max_log_var, LOG_VAR[1])
            nn.init.constant_(self.min_log_var, LOG_VAR[0])
        work = config.batch * sum(p[0].numel() for p in self.stacked())
        together = inputs.device.type != "cpu" or work < STACKED_WORK
        size = config.members if together else 2
        groups = [slice(e, min(e + size, config.members)) for e in range(0, config.members, size)]
        seeds = torch.randint(2**62, (len(groups),), generator=generator).tolist()
        fits = [
            fitting.Fit(self, group, rows, held_rows, torch.Generator().manual_seed(seed))
            for group, seed in zip(groups, seeds, strict=True)
        ]
        fitting.run(fits)
        for fit in fits:
            fit.finish()
        best = torch.cat([fit.best for fit in fits])
        if held:
            self._reorder(best.argsort())
        metrics = {
            "loss": float(torch.cat([fit.loss for fit in fits]).mean()),
            "epochs": float(torch.cat([fit.best_epoch for fit in fits]).mean()),
            "updates": sum(fit.updates for fit in fits) / len(fits),
        }
        if held:
            metrics["holdout_loss"] = float(best.mean())
            metrics["holdout_mse"] = self._error(*held_rows[:2])
        return metrics

    def _prepare(self, data: Transition) -> tuple[Tensor, Tensor, Tensor]:
        """Check the data, set the normalisers, and return inputs, targets and ends (T, ...)."""
        device = self.scale.device
        obs, action, reward, next_obs, terminated, _ = (
            torch.as_tensor(value).to(device) for value in data
        )
        steps = len(obs)
        shapes = {
            "obs": (obs, (steps, self.obs_size)),
            "action": (action, (steps, self.action_size)),
            "reward": (reward, (steps,)),
            "next_obs": (next_obs, (steps, self.obs_size)),
            "terminated": (terminated, (steps,)),
        }
        for name, (value, shape) in shapes.items():
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} holds a number that is not finite")
        if steps < 2:
            raise ValueError(f"a fit needs at least 2 transitions, got {steps}")
        inputs, targets = torch.cat((obs, action), -1), next_obs - obs
        if self.config.learn_reward:
            targets = torch.cat((targets, reward.unsqueeze(-1)), -1)
        self.scale.copy_(_unit(moments(next_obs - obs)[1]))
        if self.config.normalise:
            (in_mean, in_std), (out_mean, out_std) = moments(inputs), moments(targets)
            self._in_mean.copy_(in_mean)
            self._in_std.copy_(_unit(in_std))
            self._out_mean.copy_(out_mean)
            self._out_std.copy_(out_std)  # what never moved in the data never will
        inputs = (inputs - self._in_mean) / self._in_std
        targets = (targets - self._out_mean) / _unit(self._out_std)
        dtype = self.scale.dtype
        return inputs.to(dtype), targets.to(dtype), terminated.to(dtype)

    def loss(
        self, out: Tensor, target: Tensor, ends: Tensor, high: Tensor, low: Tensor
    ) -> Float[Tensor, E]:
        """Each member's mean loss over raw outputs (E, B, ...): PETS eq. 1, per dimension."""
        mean, log_var, logit = self._heads(out, high, low)
        if log_var is None:
            loss = (mean - target).square().mean((1, 2))
        else:
            loss = 0.5 * ((mean - target).square() * (-log_var).exp() + log_var).mean((1, 2))
        if logit is not None:
            loss = loss + F.binary_cross_entropy_with_logits(logit, ends, reduction="none").mean(1)
        return loss

    @torch.no_grad()
    def _error(self, inputs: Tensor, targets: Tensor) -> float:
        """Mean squared error of the stepping members' mean, in normalised units."""
        out = self.net(inputs.expand(self.config.members, -1, -1))[: self.members]
        return float((out[..., : self.gaussians] - targets).square().mean())

    @torch.no_grad()
    def _reorder(self, order: Tensor) -> None:
        for parameter in self.stacked():
            parameter.copy_(parameter[order.to(parameter.device)])


def _unit(std: Tensor) -> Tensor:
    """A std to divide by: 1 where there is none."""
    return torch.where(std > 0, std, 1.0)
