"""Heads: what the raw outputs of a net mean, and their loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.data import Normaliser
from mbrl.dynamics import fitting
from mbrl.dynamics.configs import FitConfig, LearnedConfig
from mbrl.nn import Net

LOG_VAR = (-15.0, 0.5)
"""Initial bounds of the log-variance, in scaled units. The lower one of PETS is -10; on a noiseless
simulator that is more variance than the model's squared error, and plans become worse."""


class Heads(nn.Module):
    """Interprets the raw outputs of a net in scaled units: D means, their variances, a logit.

    The columns are D means, then D raw log-variances if the variance depends on the input, and
    last a logit if termination is learned. A raw log-variance is softly bounded by two learned
    bounds (PETS, Chua et al. 2018); a homoscedastic one is a parameter.

    Args:
        members: E, or 1 if all members share one set of parameters.
        size: D.
        config: determines which heads there are.
        termination: whether there is a logit.

    Attributes:
        outputs: number of raw outputs.
    """

    def __init__(
        self, members: int, size: int, config: LearnedConfig, *, termination: bool
    ) -> None:
        super().__init__()
        self.members, self.size = members, size
        self.termination, self.beta = termination, config.beta_nll
        self.bounded = config.probabilistic and not config.homoscedastic
        self.probabilistic, self.bound_weight = config.probabilistic, config.bound_weight
        self.outputs = size * (1 + self.bounded) + termination
        shape = (members, 1, size)
        if self.bounded:
            self.max_log_var = nn.Parameter(torch.empty(shape))
            self.min_log_var = nn.Parameter(torch.empty(shape))
        elif self.probabilistic:
            self.log_var = nn.Parameter(torch.empty(shape))
        self.reset()

    def reset(self) -> None:
        """Set the initial variances."""
        if self.bounded:
            nn.init.constant_(self.min_log_var, LOG_VAR[0])
            nn.init.constant_(self.max_log_var, LOG_VAR[1])
        elif self.probabilistic:
            nn.init.zeros_(self.log_var)

    def split(
        self, out: Float[Tensor, "E B K"]
    ) -> tuple[Float[Tensor, "E B D"], Float[Tensor, "E _ D"] | None, Float[Tensor, "E B"] | None]:
        """Mean, log-variance and logit; the last two are None if there is none."""
        mean, *others = out.split(self.size, -1)
        logit = others[-1].squeeze(-1) if self.termination else None
        if not self.probabilistic:
            return mean, None, logit
        if not self.bounded:
            return mean, self.log_var, logit
        high, low = self.max_log_var, self.min_log_var
        log_var = high - F.softplus(high - others[0])
        return mean, low + F.softplus(log_var - low), logit

    def loss(
        self,
        out: Float[Tensor, "E B K"],
        target: Float[Tensor, "E B D"],
        ends: Float[Tensor, "E B"] | None = None,
        *,
        weights: Float[Tensor, "E B"] | None = None,
        per_row: bool = False,
    ) -> Float[Tensor, " E"]:
        """Each member's mean loss over rows and dimensions: PETS eq. 1, or the squared error.

        The cross-entropy of a learned termination is added. With `per_row`, the loss of each row,
        (E, B).
        """
        mean, log_var, logit = self.split(out)
        losses = (mean - target).square()
        if log_var is not None:
            losses = losses * (-log_var).exp() + log_var
            if self.beta:
                losses = losses * (self.beta * log_var.detach()).exp()
        loss = _average(losses, weights, per_row)
        if log_var is not None:
            loss = 0.5 * loss
        if logit is not None and ends is not None:
            entropy = F.binary_cross_entropy_with_logits(logit, ends, reduction="none")
            loss = loss + _average(entropy.unsqueeze(-1), weights, per_row)
        return loss

    def penalty(self) -> Tensor | None:
        """Penalty on the distance between the bounds of the log-variance; None without bounds."""
        if not self.bounded:
            return None
        return self.bound_weight * (self.max_log_var.sum() - self.min_log_var.sum())

    def folding(self, targets: Normaliser) -> tuple[Tensor, Tensor]:
        """Factor (K,) and shift (E, 1, K) of raw outputs for `Net.fold`, in float64."""
        size, std = self.size, targets.std.double()
        scale = torch.ones(self.outputs, dtype=torch.double, device=std.device)
        shift = scale.new_zeros(1, 1, self.outputs)
        scale[:size] = std
        if self.bounded:
            shift = shift.repeat(len(self.max_log_var), 1, 1)
            shift[..., size : 2 * size] = -self.max_log_var
        shift[..., :size] = targets.mean.double()
        return scale, shift

    def variances(self, targets: Normaliser) -> tuple[Tensor | None, Tensor | None]:
        """Lower bound of the variance in physical units, and range above it, each (E, 1, D).

        Both are None without a variance; the range is None for a homoscedastic one.
        """
        if not self.probabilistic:
            return None, None
        unit = targets.std.double().square()
        low = self.min_log_var if self.bounded else self.log_var
        # because the square root has no gradient at 0
        least = torch.where(unit > 0, torch.finfo(torch.float32).tiny, 1e-30)
        floor = torch.maximum(unit * low.double().exp(), least).to(low.dtype)
        return floor, (unit * self.max_log_var.double().exp()).to(low) if self.bounded else None


def _average(losses: Tensor, weights: Tensor | None, per_row: bool) -> Tensor:
    if weights is None:
        return losses.mean(-1) if per_row else losses.mean((1, 2))
    rows = losses.mean(-1) * weights
    return rows if per_row else rows.mean(1)


class Trained(Net):
    """A net with its heads, as passed to the fit.

    Args:
        net: the net, of E members.
        heads: the heads for its raw outputs.
        share: factor of the net's penalty in a loss that is a mean over rows and dimensions.
    """

    def __init__(self, net: Net, heads: Heads, share: float) -> None:
        super().__init__()
        self.net, self.heads, self.share = net, heads, share
        # members with one set of heads are fitted together
        self.separable = net.separable and heads.members == net.members

    def of(self, net: Net) -> Trained:
        """Another net with these heads."""
        return Trained(net, self.heads, self.share)

    @property
    def members(self) -> int:
        """E."""
        return self.net.members

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B K"]:
        """The net's raw outputs."""
        return self.net(x)

    def penalty(self) -> Tensor | None:
        """The penalties of the net, in units of the loss, and of the heads; None if none."""
        prior, bounds = self.net.penalty(), self.heads.penalty()
        if prior is None:
            return bounds
        # a fit's loss is the sum over separate members, and the mean over those fitted together
        prior = self.share * (prior.sum() if self.separable else prior.mean())
        return prior if bounds is None else prior + bounds

    def resample(self, *, generator: Generator) -> None:
        """Draw new weight samples of the net."""
        self.net.resample(generator=generator)

    def fit(
        self,
        loss: fitting.Loss,
        rows: fitting.Rows,
        config: FitConfig,
        *,
        decay: Mapping[Tensor, float],
        generator: Generator,
    ) -> fitting.Fitted:
        """Fit net and heads by gradient descent; see `fitting.fit`."""
        train, held, weights = rows
        return fitting.fit(
            self, loss, train, held, config, weights=weights, decay=decay, generator=generator
        )


def model_loss(
    trained: Net,
    x: Tensor,
    target: Tensor,
    *ends: Tensor,
    weights: Tensor | None = None,
    per_row: bool = False,
) -> Tensor:
    """`Heads.loss` of a `Trained` for rows in scaled units: a `fitting.Loss`."""
    assert isinstance(trained, Trained)
    out = trained.net(x)
    return trained.heads.loss(out, target, *ends, weights=weights, per_row=per_row)
