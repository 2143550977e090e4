"""Returns, advantages and targets from rewards and values.

Pure functions of arrays (T, *N): time first, then environments or whatever else runs in parallel.
Episodes may end at any row. `terminated` means that the MDP ended, `truncated` that a time limit
cut the episode off. Both stop a sum at that row, but only termination makes the value after it 0.
`next_value[t]` is the value of the transition's own next observation, which at an end is the last
observation of the episode. After the last row sums stop as if truncated there.

All functions can be differentiated. Tensors on the CPU that need no gradient are summed by a
compiled loop, others by a loop of T torch operations. Every function raises ValueError for arrays
of different shapes, `terminated` or `truncated` that are not bool, and a discount or λ outside
[0, 1].
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planners.compile import compiled


def reward_to_go(
    reward: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
    from_start: bool = False,
    ratio: Float[Tensor, " T *N"] | None = None,
) -> Float[Tensor, " T *N"]:
    """Discounted sum of the rewards from each step to the end of its episode, without a value.

    Args:
        reward: r_t.
        terminated: whether the MDP ended.
        truncated: whether the episode was cut off.
        discount: γ.
        from_start: False weights the reward of step t' by γ^(t' - t), t being the step of the row.
            True weights it by γ^t', counted from the start of the episode, as in the exact gradient
            of the discounted return; the first row counts as a start.
        ratio: importance ratios π(a_t | s_t) / μ(a_t | s_t) of each step, for data of a policy μ.
            The reward of step t' is weighted by the product of the ratios of steps t + 1 to t'
            (per-decision importance sampling, Precup et al. 2000), so the sum estimates Q^π.

    Raises:
        ValueError: see the module; a negative ratio (checked on the CPU only).
    """
    ended = _check(reward, terminated, truncated, discount)
    if ratio is not None:
        _check_ratio(ratio, reward)
        ratio = _following(ratio)
    result = _accumulate(reward, _decay(reward, ended, discount, ratio))
    if from_start:
        step = torch.arange(len(reward), device=reward.device)
        step = step.reshape(-1, *[1] * (reward.ndim - 1)) - _first_step(ended)
        result = result * (discount ** step.to(reward.dtype))
    return result


def episode_returns(
    reward: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
) -> Float[Tensor, " T *N"]:
    """The discounted return of the whole episode that each step belongs to, from its start.

    An episode that began before the first row or goes on after the last counts with the rewards
    that are there. The returns of all episodes that end are `result[terminated | truncated]`.
    """
    ended = _check(reward, terminated, truncated, discount)
    return _accumulate(reward, _decay(reward, ended, discount)).gather(0, _first_step(ended))


def n_step(
    reward: Float[Tensor, " T *N"],
    next_value: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    n: int,
    discount: float,
) -> Float[Tensor, " T *N"]:
    """n-step targets: Σ_{k<m} γ^k r_{t+k} + γ^m V(s_{t+m}) (Sutton and Barto 2018, equation 7.1).

    m is n, or fewer where the episode or the array ends before; V is 0 after termination.

    Raises:
        ValueError: see the module; n below 1.
    """
    ended = _check(reward, terminated, truncated, discount, next_value=next_value)
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n: must be an integer of at least 1, got {n!r}")
    one_step = reward + discount * next_value.masked_fill(terminated, 0)
    stop = _with_last(ended)
    target = one_step
    for _ in range(min(n, len(reward)) - 1):
        target = torch.where(stop, one_step, reward + discount * _following(target))
    return target


def lambda_returns(
    reward: Float[Tensor, " T *N"],
    next_value: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
    lambda_: float,
) -> Float[Tensor, " T *N"]:
    """λ-returns: G_t = r_t + γ ((1 - λ) V(s_{t+1}) + λ G_{t+1}) (S&B 2018, equation 12.2).

    They average the n-step targets with weights (1 - λ) λ^(n-1). G_{t+1} is V(s_{t+1}) where the
    episode or the array ends.
    """
    ended = _check(reward, terminated, truncated, discount, lambda_=lambda_, next_value=next_value)
    weight = torch.full_like(next_value, discount * (1 - lambda_))
    weight = weight.masked_fill_(_with_last(ended), discount)
    one_step = reward + weight * next_value.masked_fill(terminated, 0)
    return _accumulate(one_step, _decay(one_step, ended, discount * lambda_))


def gae(
    reward: Float[Tensor, " T *N"],
    value: Float[Tensor, " T *N"],
    next_value: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
    lambda_: float,
) -> Float[Tensor, " T *N"]:
    """Generalised advantage estimates: Σ_l (γλ)^l δ_{t+l} (Schulman et al. 2016).

    δ_t = r_t + γ V(s_{t+1}) - V(s_t). The critic's targets are the result plus `value`.
    """
    ended = _check(
        reward,
        terminated,
        truncated,
        discount,
        lambda_=lambda_,
        value=value,
        next_value=next_value,
    )
    error = reward + discount * next_value.masked_fill(terminated, 0) - value
    return _accumulate(error, _decay(error, ended, discount * lambda_))


class VTrace(NamedTuple):
    """The results of `vtrace`."""

    target: Float[Tensor, " T *N"]
    """v_s, what the critic learns."""
    advantage: Float[Tensor, " T *N"]
    """ρ_s (r_s + γ v_{s+1} - V(s_s)), what weights the actor's log-probability."""


def vtrace(
    reward: Float[Tensor, " T *N"],
    value: Float[Tensor, " T *N"],
    next_value: Float[Tensor, " T *N"],
    ratio: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
    lambda_: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """V-trace targets and advantages from data of another policy (Espeholt et al. 2018).

    v_s = V(s_s) + Σ_t γ^(t-s) c_s ... c_{t-1} ρ_t (r_t + γ V(s_{t+1}) - V(s_t)).

    Args:
        reward: r_t.
        value: V(s_t).
        next_value: V(s_{t+1}).
        ratio: π(a_t | s_t) / μ(a_t | s_t), not its logarithm; μ drew the actions.
        terminated: whether the MDP ended.
        truncated: whether the episode was cut off.
        discount: γ.
        lambda_: λ.
        rho_bar: ρ_t = min(rho_bar, ratio); it decides the policy whose value is learned, which for
            infinity is π. The paper wants rho_bar >= c_bar.
        c_bar: c_t = λ min(c_bar, ratio); a lower one gives less variance and slower propagation.

    Raises:
        ValueError: see the module; a negative ratio (checked on the CPU only), or a bound that is
            not positive.
    """
    values = {"value": value, "next_value": next_value}
    ended = _check(reward, terminated, truncated, discount, lambda_=lambda_, **values)
    _check_ratio(ratio, reward)
    for name, bound in (("rho_bar", rho_bar), ("c_bar", c_bar)):
        if not bound > 0:
            raise ValueError(f"{name}: must be above 0, got {bound!r}")
    rho = ratio.clamp(max=rho_bar)
    error = rho * (reward + discount * next_value.masked_fill(terminated, 0) - value)
    decay = _decay(error, ended, discount * lambda_, ratio.clamp(max=c_bar))
    target = value + _accumulate(error, decay)
    after = torch.where(_with_last(ended), next_value, _following(target))
    advantage = rho * (reward + discount * after.masked_fill(terminated, 0) - value)
    return VTrace(target, advantage)


def retrace(
    reward: Float[Tensor, " T *N"],
    q: Float[Tensor, " T *N"],
    next_value: Float[Tensor, " T *N"],
    ratio: Float[Tensor, " T *N"],
    terminated: Bool[Tensor, " T *N"],
    truncated: Bool[Tensor, " T *N"],
    *,
    discount: float,
    lambda_: float = 1.0,
) -> Float[Tensor, " T *N"]:
    """Retrace(λ) targets for Q(s_t, a_t) from data of another policy (Munos et al. 2016).

    Q(s_t, a_t) + Σ_{k>=t} γ^(k-t) c_{t+1} ... c_k (r_k + γ E_π Q(s_{k+1}, ·) - Q(s_k, a_k)), with
    c_k = λ min(1, ratio_k).

    Args:
        reward: r_t.
        q: Q(s_t, a_t).
        next_value: E_π Q(s_{t+1}, ·), the expected value under π.
        ratio: π(a_t | s_t) / μ(a_t | s_t), not its logarithm; μ drew the actions.
        terminated: whether the MDP ended.
        truncated: whether the episode was cut off.
        discount: γ.
        lambda_: λ.

    Raises:
        ValueError: see the module; a negative ratio (checked on the CPU only).
    """
    values = {"q": q, "next_value": next_value}
    ended = _check(reward, terminated, truncated, discount, lambda_=lambda_, **values)
    _check_ratio(ratio, reward)
    error = reward + discount * next_value.masked_fill(terminated, 0) - q
    decay = _decay(error, ended, discount * lambda_, _following(ratio.clamp(max=1)))
    return q + _accumulate(error, decay)


class ValueExpansion(NamedTuple):
    """The results of `value_expansion`."""

    target: Float[Tensor, " H *N"]
    """Targets for the value of the state that each step starts from; 0 where not valid."""
    valid: Bool[Tensor, " H *N"]
    """Whether the step starts before the end of the trajectory; others are to be left out."""


def value_expansion(
    reward: Float[Tensor, " H *N"],
    last_value: Float[Tensor, "*N"],
    terminated: Bool[Tensor, " H *N"],
    *,
    truncated: Bool[Tensor, " H *N"] | None = None,
    discount: float,
) -> ValueExpansion:
    """H-step targets at every step of imagined trajectories (MVE; Feinberg et al. 2018).

    Step t gets Σ_{k>=t} γ^(k-t) r_k + γ^(H-t) V(s_H). A sum stops at termination, without V, and
    where the trajectory is cut off, with V there; the steps after it are not valid, whatever they
    hold.

    Args:
        reward: r_0 to r_{H-1}, imagined.
        last_value: V(s_H), of the state after the last step, or after the step that is cut off.
        terminated: whether a step ended its trajectory.
        truncated: whether a trajectory is cut off after a step; None: nowhere.
        discount: γ.
    """
    cut = torch.zeros_like(terminated) if truncated is None else truncated
    _check(reward, terminated, cut, discount)
    if last_value.shape != reward.shape[1:]:
        raise ValueError(
            f"last_value: want the shape {tuple(reward.shape[1:])} of one step's rewards, "
            f"got {tuple(last_value.shape)}"
        )
    ended = terminated | cut
    valid, bootstrapped = _valid(ended), cut.clone()
    bootstrapped[-1] = True
    bootstrapped &= ~terminated
    increment = torch.where(bootstrapped, reward + discount * last_value, reward)
    increment = increment.masked_fill(~valid, 0)
    return ValueExpansion(_accumulate(increment, _decay(increment, ended, discount)), valid)


def horizon_targets(
    reward: Float[Tensor, " H *N"],
    next_value: Float[Tensor, " H *N"],
    terminated: Bool[Tensor, " H *N"],
    *,
    truncated: Bool[Tensor, " H *N"] | None = None,
    discount: float,
) -> Float[Tensor, " H *N"]:
    """Targets of all horizons for the first state of imagined trajectories (Buckman et al. 2018).

    Row h is Σ_{k<=h} γ^k r_k + γ^(h+1) V(s_{h+1}). Horizons beyond the end of a trajectory, where
    it terminated or was cut off, have the target of its end. `steve` weights them.

    Args:
        reward: r_0 to r_{H-1}.
        next_value: V(s_1) to V(s_H).
        terminated: whether a step ended its trajectory.
        truncated: whether a trajectory is cut off after a step; None: nowhere.
        discount: γ.
    """
    cut = torch.zeros_like(terminated) if truncated is None else truncated
    ended = _check(reward, terminated, cut, discount, next_value=next_value)
    power = discount ** torch.arange(len(reward) + 1, device=reward.device, dtype=reward.dtype)
    power = power.reshape(-1, *[1] * (reward.ndim - 1))
    valid = _valid(ended)
    sums = (power[:-1] * reward.masked_fill(~valid, 0)).cumsum(0)
    targets = sums + power[1:] * next_value.masked_fill(terminated | ~valid, 0)
    row = torch.arange(len(reward), device=reward.device).reshape(-1, *[1] * (reward.ndim - 1))
    return targets.gather(0, torch.where(valid, row, 0).cummax(0).values)


class Steve(NamedTuple):
    """The results of `steve`."""

    target: Float[Tensor, "*N"]
    """The weighted mean of the candidates."""
    weight: Float[Tensor, " K *N"]
    """Weight of each candidate; they sum to 1."""


def steve(targets: Float[Tensor, "K E *N"], *, floor: float = 1e-8) -> Steve:
    """One target from K candidates, each estimated by E members (STEVE; Buckman et al. 2018).

    The members' means weighted by 1 / (variance over members + floor): a horizon on which the
    members disagree counts little. `horizon_targets` gives candidates; the members may be pairs of
    a model and a critic.

    Raises:
        ValueError: no candidates, or fewer than two members, which have no variance.
    """
    if targets.ndim < 2 or len(targets) < 1 or targets.shape[1] < 2:
        raise ValueError(
            f"targets: want the shape (K, E, ...) with K >= 1 and E >= 2, "
            f"got {tuple(targets.shape)}"
        )
    variance, mean = torch.var_mean(targets, 1, correction=0)
    weight = inverse_variance_weights(variance + floor)
    return Steve((weight * mean).sum(0), weight)


def inverse_variance_weights(variance: Float[Tensor, " K *N"]) -> Float[Tensor, " K *N"]:
    """Weights proportional to 1 / variance that sum to 1 over K; of zeros, equal ones.

    Raises:
        ValueError: a negative variance (checked on the CPU only).
    """
    if variance.is_cpu and bool((variance < 0).any()):
        raise ValueError("variance: has negative values; want 0 or more")
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
    inverse = variance.amin(0) / variance  # at most 1, so that it cannot overflow
    return inverse / inverse.sum(0)


def normalised(advantage: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Mean 0 and standard deviation 1; one row alone stays as it is."""
    if advantage.numel() < 2:
        return advantage
    std, mean = torch.std_mean(advantage)
    return (advantage - mean) / (std + 1e-8)


def explained(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target): 1 is a perfect value, 0 no better than a constant."""
    variance = target.var(correction=0)
    return 1 - (target - value).var(correction=0) / variance.clamp_min(1e-12)


def _accumulate(increment: Tensor, decay: Tensor) -> Tensor:
    """x_t = increment_t + decay_t x_{t+1}, from the last row's x = increment; both (T, *N).

    Where decay is 0, x_{t+1} is not used, so that NaN does not pass from one episode to another.
    """
    grad = torch.is_grad_enabled() and (increment.requires_grad or decay.requires_grad)
    if grad or not increment.is_cpu or increment.dtype not in (torch.float32, torch.float64):
        return _torch_accumulate(increment, decay)
    return _numba_accumulate(increment, decay)


def _torch_accumulate(increment: Tensor, decay: Tensor) -> Tensor:
    rows, factors, stops = increment.unbind(), decay.unbind(), (decay == 0).unbind()
    totals = [rows[-1]]
    for t in range(len(rows) - 2, -1, -1):
        totals.append(rows[t] + factors[t] * totals[-1].masked_fill(stops[t], 0))
    return torch.stack(totals[::-1])


def _numba_accumulate(increment: Tensor, decay: Tensor) -> Tensor:
    increment = increment.detach().contiguous()
    decay = decay.detach().to(increment.dtype).contiguous()
    total = torch.empty_like(increment)
    shape = len(increment), increment[0].numel()
    _loop(*(x.reshape(shape).numpy() for x in (increment, decay, total)))
    return total


@compiled
def _loop(increment, decay, total):
    steps, columns = increment.shape
    for i in range(columns):
        total[steps - 1, i] = increment[steps - 1, i]
    for t in range(steps - 2, -1, -1):
        for i in range(columns):
            factor = decay[t, i]
            later = total[t + 1, i] if factor != 0 else factor
            total[t, i] = increment[t, i] + factor * later


def _decay(like: Tensor, ended: Tensor, factor: float, ratio: Tensor | None = None) -> Tensor:
    """`factor`, times `ratio`, and 0 where an episode ends, in the dtype of `like`."""
    if ratio is None:
        return torch.full_like(like, factor, requires_grad=False).masked_fill_(ended, 0)
    return (factor * ratio).to(like.dtype).masked_fill(ended, 0)


def _following(x: Tensor) -> Tensor:
    """x_{t+1} at t; the last row is repeated, and must not be used."""
    return torch.cat((x[1:], x[-1:]))


def _with_last(ended: Tensor) -> Tensor:
    """`ended`, with the last row of the array as an end."""
    ended = ended.clone()
    ended[-1] = True
    return ended


def _first_step(ended: Tensor) -> Tensor:
    """The row in which the episode of each step began."""
    row = torch.arange(len(ended), device=ended.device).reshape(-1, *[1] * (ended.ndim - 1))
    before = torch.zeros_like(ended)
    before[1:] = ended[:-1]
    return torch.where(before, row, 0).cummax(0).values


def _valid(terminated: Tensor) -> Tensor:
    """Whether no earlier step terminated."""
    before = torch.zeros_like(terminated)
    before[1:] = terminated[:-1].cummax(0).values if len(terminated) > 1 else terminated[:-1]
    return ~before


def _check(
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    *,
    lambda_: float = 0.0,
    **values: Tensor,
) -> Tensor:
    """Check what all functions take; returns where episodes end."""
    if reward.ndim < 1 or len(reward) < 1 or not reward.is_floating_point():
        raise ValueError(
            f"reward: want floating-point numbers of shape (T, ...) with T >= 1, "
            f"got {reward.dtype} of shape {tuple(reward.shape)}"
        )
    for name, value in {"terminated": terminated, "truncated": truncated, **values}.items():
        if value.shape != reward.shape:
            raise ValueError(
                f"{name}: want the shape {tuple(reward.shape)} of reward, got {tuple(value.shape)}"
            )
    for name, end in (("terminated", terminated), ("truncated", truncated)):
        if end.dtype != torch.bool:
            raise ValueError(f"{name}: must be bool, got {end.dtype}")
    for name, number in (("discount", discount), ("lambda_", lambda_)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name}: must be in [0, 1], got {number!r}")
    return terminated | truncated


def _check_ratio(ratio: Tensor, reward: Tensor) -> None:
    if ratio.shape != reward.shape:
        raise ValueError(
            f"ratio: want the shape {tuple(reward.shape)} of reward, got {tuple(ratio.shape)}"
        )
    if ratio.is_cpu and bool((ratio < 0).any()):
        raise ValueError("ratio: has negative values; want π / μ, not its logarithm")
