"""Published losses of representations and latent dynamics, one function each, on arrays.

Each is to be minimised but the bound, which is to be maximised. Every function raises ValueError
for arrays whose shapes do not fit, and for settings outside their range. NaN in an array gives NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mbrl.checks import not_negative, positive, same_shape


def negative_elbo(
    log_likelihood: Float[Tensor, " B"],
    divergence: Float[Tensor, "B Z"],
    *,
    beta: float = 1.0,
    free_bits: float = 0.0,
) -> Float[Tensor, ""]:
    """Minus the evidence lower bound of a variational autoencoder (Kingma & Welling 2014).

    mean(-log p(x|z)) + β Σ_z max(free, mean KL_z): with weight β (Higgins et al. 2017), and with
    free nats, below which a latent dimension costs `free` and has no gradient (Kingma et al. 2016,
    appendix C.8).

    Args:
        log_likelihood: log p(x|z) of a sample of z.
        divergence: KL(q ‖ p) of each latent dimension.
        beta: β.
        free_bits: in nats for each dimension, on average over the batch.

    Raises:
        ValueError: a negative weight, or wrong shapes.
    """
    not_negative(beta=beta, free_bits=free_bits)
    if divergence.ndim != 2 or log_likelihood.shape != divergence.shape[:1]:
        raise ValueError(
            f"want log_likelihood (B,) and divergence (B, Z), got {tuple(log_likelihood.shape)} "
            f"and {tuple(divergence.shape)}"
        )
    return beta * divergence.mean(0).clamp_min(free_bits).sum() - log_likelihood.mean()


def importance_weighted_bound(log_weight: Float[Tensor, " K *B"]) -> Float[Tensor, "*B"]:
    """log of the mean weight over K samples, log p(x, z) - log q(z|x) each (Burda et al. 2016).

    On average it is at most log p(x), at least the evidence lower bound, and grows with K.
    """
    if log_weight.ndim < 1 or len(log_weight) < 1:
        raise ValueError(f"log_weight: want (K, *B) with K >= 1, got {tuple(log_weight.shape)}")
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def info_nce(scores: Float[Tensor, "B B"]) -> Float[Tensor, " B"]:
    """InfoNCE (van den Oord et al. 2018): which of B keys is that of a query, -log of its share.

    log B minus its mean is a lower bound of the mutual information of queries and keys, in nats;
    scores that say nothing cost log B. With the dynamics as critic, log p(z'_i | z_j, u_j), it is
    the loss of PC3 (Shu et al. 2020), whose queries are the next codes.

    Args:
        scores: of query i (row) and key j (column); those of a pair are on the diagonal.

    Raises:
        ValueError: another shape than a square.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores: want (B, B), got {tuple(scores.shape)}")
    return scores.logsumexp(-1) - scores.diagonal()


def epps_pulley(
    x: Float[Tensor, "B M"], *, knots: int = 17, most: float = 3.0
) -> Float[Tensor, " M"]:
    """The statistic of Epps & Pulley (1983) against a standard Gaussian, of each column.

    B ∫ |φ_B(t) - exp(-t²/2)|² exp(-t²/2) dt over [-most, most], where φ_B(t) = mean exp(i t x) is
    the empirical characteristic function, by the trapezoid rule. If B rows are drawn from the
    standard Gaussian its expectation is ∫ (1 - exp(-t²)) exp(-t²/2) dt, at most 1.06, for any B;
    otherwise it grows with B.

    Args:
        x: samples.
        knots: points of the rule in [0, most]; the integrand is even.
        most: where the integral ends; LeJEPA (Balestriero & LeCun 2025) has 17 points up to 3.

    Raises:
        ValueError: another shape, no rows, fewer than 2 knots, or a bound that is not positive.
    """
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x: want (B, M) with B >= 1, got {tuple(x.shape)}")
    if knots < 2:
        raise ValueError(f"knots: want 2 or more, got {knots}")
    positive(most=most)
    t = torch.linspace(0, most, knots, dtype=x.dtype, device=x.device)
    phi = torch.exp(-t.square() / 2)
    weight = torch.full_like(t, 2 * most / (knots - 1))
    weight[0] = weight[-1] = most / (knots - 1)
    angle = x.unsqueeze(-1) * t  # (B, M, K)
    error = (angle.cos().mean(0) - phi).square() + angle.sin().mean(0).square()
    return len(x) * error @ (weight * phi)


def isotropy(z: Float[Tensor, "B Z"], directions: Float[Tensor, "Z M"]) -> Float[Tensor, ""]:
    """SIGReg: how far codes are from an isotropic Gaussian (LeJEPA; Balestriero & LeCun 2025).

    The mean of `epps_pulley` over projections onto M random directions. For codes that are standard
    Gaussian it is about 1; for codes that have collapsed onto a point it grows with B.

    Args:
        z: codes.
        directions: any lengths; they are scaled to 1.
    """
    if z.ndim != 2 or directions.ndim != 2 or z.shape[1] != directions.shape[0]:
        raise ValueError(
            f"want z (B, Z) and directions (Z, M), got {tuple(z.shape)} and "
            f"{tuple(directions.shape)}"
        )
    return epps_pulley(z @ F.normalize(directions, dim=0)).mean()


def curvature(
    transition: Callable[[Tensor, Tensor], Tensor],
    state: Float[Tensor, "B Z"],
    action: Float[Tensor, "B A"],
    state_change: Float[Tensor, "B Z"],
    action_change: Float[Tensor, "B A"],
) -> Float[Tensor, " B"]:
    """|f(z + ε, u + η) - f(z, u) - ∇f (ε, η)|², 0 where f is linear (Levine et al. 2020, eq. 8).

    Gradients reach the parameters of f alone.

    Args:
        transition: f, from states and actions to states (B, Z), with derivatives in forward mode.
        state: z.
        action: u.
        state_change: ε, small noise.
        action_change: η.
    """
    same_shape(state=state, state_change=state_change)
    same_shape(action=action, action_change=action_change)
    here, changes = (state.detach(), action.detach()), (state_change, action_change)
    value, slope, *_ = torch.func.jvp(transition, here, changes)
    there = transition(here[0] + state_change, here[1] + action_change)
    return (there - value - slope).square().sum(-1)


def kl_to_diagonal(
    mean: Float[Tensor, "*B Z"],
    covariance: Float[Tensor, "*B Z Z"],
    other_mean: Float[Tensor, "*B Z"],
    other_log_std: Float[Tensor, "*B Z"],
) -> Float[Tensor, "*B"]:
    """KL(N(mean, covariance) ‖ a diagonal Gaussian), which keeps E2C's two encodings alike.

    Watter et al. 2015, appendix A.2. Gradients reach all arguments; NaN where the covariance has
    no positive determinant.
    """
    same_shape(mean=mean, other_mean=other_mean, other_log_std=other_log_std)
    if covariance.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(
            f"covariance: want {(*mean.shape, mean.shape[-1])}, got {tuple(covariance.shape)}"
        )
    precision = (-2 * other_log_std).exp()
    apart = (mean - other_mean).square() + covariance.diagonal(dim1=-2, dim2=-1)
    logs = 2 * other_log_std.sum(-1) - torch.logdet(covariance)
    return 0.5 * ((apart * precision - 1).sum(-1) + logs)
