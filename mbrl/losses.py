"""Published losses of policies and critics, one function each, on arrays.

All return one loss a row, to be minimised; `average` takes their mean, with the weights of
prioritised replay or without rows that do not count. Gradients reach only what is learned: the
first argument, and what else the docstring names. Advantages, targets and what an older policy or a
target network says are constants.

Every function raises ValueError for arrays whose shapes do not fit, and for settings outside their
range. NaN in an array gives NaN. Indices of actions and tensors of discounts are checked on the CPU
only: on other devices it would have to wait for them.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.checks import not_negative, positive, same_shape

Over = Literal["trajectory", "causal", "step"]
"""Over which steps `importance_ratio` multiplies."""


def average(
    rows: Float[Tensor, "*B"],
    *,
    weight: Float[Tensor, "*B"] | None = None,
    mask: Bool[Tensor, "*B"] | None = None,
) -> Float[Tensor, ""]:
    """The mean loss.

    Args:
        rows: losses.
        weight: importance weights of prioritised replay (Schaul et al. 2016); each multiplies its
            row, and the sum is divided by the number of rows, not by the sum of weights.
        mask: False for rows that do not count, whatever they hold. If none does, the mean is NaN.
    """
    if weight is not None:
        same_shape(rows=rows, weight=weight)
        rows = rows * weight.detach()
    if mask is None:
        return rows.mean()
    same_shape(rows=rows, mask=mask)
    _check_bool(mask=mask)
    return rows.masked_fill(~mask, 0).sum() / mask.sum()


# Policy gradients.


def policy_gradient(
    log_prob: Float[Tensor, "*B"], advantage: Float[Tensor, "*B"]
) -> Float[Tensor, "*B"]:
    """REINFORCE: -log π(a | s) Ψ (Williams 1992), for any Ψ: a return, an advantage, a TD error."""
    same_shape(log_prob=log_prob, advantage=advantage)
    return -log_prob * advantage.detach()


def importance_ratio(
    log_prob: Float[Tensor, " T *N"],
    behaviour_log_prob: Float[Tensor, " T *N"],
    *,
    over: Over,
    mask: Bool[Tensor, " T *N"] | None = None,
) -> Float[Tensor, " T *N"]:
    """π / μ at each step of trajectories, one in each column, from its first row on.

    Args:
        log_prob: log π(a_t | s_t).
        behaviour_log_prob: log μ(a_t | s_t) of the policy that drew the actions.
        over: "trajectory" multiplies the ratios of all steps, "causal" those up to t, "step" takes
            that of step t alone.
        mask: False in the rows behind the end of a trajectory, which have ratio 1.
    """
    same_shape(log_prob=log_prob, behaviour_log_prob=behaviour_log_prob)
    if over not in get_args(Over):
        raise ValueError(f"over: must be one of {', '.join(get_args(Over))}, got {over!r}")
    log_ratio = log_prob - behaviour_log_prob.detach()
    if mask is not None:
        same_shape(log_prob=log_prob, mask=mask)
        _check_bool(mask=mask)
        log_ratio = log_ratio.masked_fill(~mask, 0)
    if over == "trajectory":
        log_ratio = log_ratio.sum(0, keepdim=True).expand_as(log_ratio)
    elif over == "causal":
        log_ratio = log_ratio.cumsum(0)
    ratio = log_ratio.exp()
    return ratio if mask is None else ratio.masked_fill(~mask, 1)


def off_policy_policy_gradient(
    log_prob: Float[Tensor, " T *N"],
    behaviour_log_prob: Float[Tensor, " T *N"],
    advantage: Float[Tensor, " T *N"],
    *,
    over: Over,
    mask: Bool[Tensor, " T *N"] | None = None,
) -> Float[Tensor, " T *N"]:
    """Policy gradient from trajectories of another policy: -(π / μ) log π(a_t | s_t) Ψ_t.

    Sum over T, then average over trajectories. The ratio is a constant. What makes the gradient
    unbiased (Levine et al. 2020, section 3):

    - "trajectory": Ψ_t is the whole return or the reward-to-go of the data. The variance grows
      exponentially with T.
    - "causal": Ψ_t is an estimate of Q^π or its advantage, such as `returns.reward_to_go` with the
      ratios of later steps.
    - "step": nothing; states are taken as if π had visited them, which is right to first order
      where π is close to μ. The variance does not grow with T.

    Args:
        log_prob: log π(a_t | s_t).
        behaviour_log_prob: log μ(a_t | s_t) of the policy that drew the actions.
        advantage: Ψ_t.
        over: see above, and `importance_ratio`.
        mask: False in the rows behind the end of a trajectory, whose loss is 0.
    """
    same_shape(log_prob=log_prob, advantage=advantage)
    ratio = importance_ratio(log_prob, behaviour_log_prob, over=over, mask=mask).detach()
    advantage = advantage.detach()
    if mask is not None:
        log_prob, advantage = (x.masked_fill(~mask, 0) for x in (log_prob, advantage))
    return -ratio * log_prob * advantage


def trpo_surrogate(
    log_prob: Float[Tensor, "*B"],
    old_log_prob: Float[Tensor, "*B"],
    advantage: Float[Tensor, "*B"],
) -> Float[Tensor, "*B"]:
    """-(π / π_old) A, which TRPO minimises under a bound on the KL (Schulman et al. 2015)."""
    return -_ratio(log_prob, old_log_prob, advantage) * advantage.detach()


def ppo_clip(
    log_prob: Float[Tensor, "*B"],
    old_log_prob: Float[Tensor, "*B"],
    advantage: Float[Tensor, "*B"],
    *,
    clip: float = 0.2,
) -> Float[Tensor, "*B"]:
    """-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) for ρ = π / π_old (Schulman et al. 2017).

    No gradient where the advantage has already moved ρ beyond `clip`, ε.
    """
    positive(clip=clip)
    ratio = _ratio(log_prob, old_log_prob, advantage)
    advantage = advantage.detach()
    # A + ε |A| is (1 + ε) A or, where A < 0, (1 - ε) A: the minimum is the same with this constant
    # as with clip(ρ) A, and its gradient has half of the operations
    return -torch.minimum(ratio * advantage, torch.add(advantage, advantage.abs(), alpha=clip))


def ppo_penalty(
    log_prob: Float[Tensor, "*B"],
    old_log_prob: Float[Tensor, "*B"],
    advantage: Float[Tensor, "*B"],
    kl: Float[Tensor, "*B"],
    *,
    beta: float,
) -> Float[Tensor, "*B"]:
    """-ρ A + β KL(π_old ‖ π) (Schulman et al. 2017); gradients reach `log_prob` and `kl`.

    `adapted_beta` gives the next β.
    """
    not_negative(beta=beta)
    same_shape(log_prob=log_prob, kl=kl)
    return trpo_surrogate(log_prob, old_log_prob, advantage) + beta * kl


def adapted_beta(beta: float, kl: float, *, target: float) -> float:
    """β halved where the KL of the last update was below target / 1.5, doubled above 1.5 · target.

    Schulman et al. 2017, section 4. Raises ValueError for a KL that is NaN.
    """
    positive(beta=beta, target=target)
    if math.isnan(kl):
        raise ValueError("kl: must be a number, got nan")
    return beta / 2 if kl < target / 1.5 else beta * 2 if kl > target * 1.5 else beta


# Values.


def value_loss(value: Float[Tensor, "*B"], target: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Half of the squared error."""
    same_shape(value=value, target=target)
    return 0.5 * (value - target.detach()).square()


def clipped_value_loss(
    value: Float[Tensor, "*B"],
    old_value: Float[Tensor, "*B"],
    target: Float[Tensor, "*B"],
    *,
    clip: float = 0.2,
) -> Float[Tensor, "*B"]:
    """`value_loss` of the value or of the value held to old ± clip, the larger of the two.

    From the code of PPO2 (Dhariwal et al. 2017). `clip` is in units of the value.
    """
    positive(clip=clip)
    same_shape(value=value, old_value=old_value, target=target)
    old_value, target = old_value.detach(), target.detach()
    held = old_value + (value - old_value).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target).square(), (held - target).square())


def td_error(
    value: Float[Tensor, "*B"],
    reward: Float[Tensor, "*B"],
    next_value: Float[Tensor, "*B"],
    terminated: Bool[Tensor, "*B"],
    *,
    discount: float | Float[Tensor, "*B"],
) -> Float[Tensor, "*B"]:
    """r + γ V(s') - V(s), without V(s') after termination (Sutton 1988).

    Args:
        value: V(s) or Q(s, a), which gradients reach.
        reward: r, or the discounted sum of n rewards.
        next_value: V(s') of the next observation, or of that n steps ahead; a constant.
        terminated: whether the MDP ended.
        discount: γ; for n steps γ^n, or a tensor of powers where n differs.
    """
    _check_discount(discount, reward)
    same_shape(value=value, reward=reward, next_value=next_value, terminated=terminated)
    _check_bool(terminated=terminated)
    return _one_step(reward, next_value, terminated, discount) - value


def q_learning(
    q: Float[Tensor, "*B A"],
    action: Int[Tensor, "*B"],
    reward: Float[Tensor, "*B"],
    next_q: Float[Tensor, "*B A"],
    terminated: Bool[Tensor, "*B"],
    *,
    discount: float | Float[Tensor, "*B"],
) -> Float[Tensor, "*B"]:
    """The TD error of Q-learning: r + γ max_a' Q(s', a') - Q(s, a) (Watkins 1989).

    Its `huber` is the loss of DQN (Mnih et al. 2015), with `next_q` of the target network. The
    discount is that of `td_error`.
    """
    same_shape(q=q, next_q=next_q)
    return td_error(taken(q, action), reward, next_q.amax(-1), terminated, discount=discount)


def double_q_learning(
    q: Float[Tensor, "*B A"],
    action: Int[Tensor, "*B"],
    reward: Float[Tensor, "*B"],
    next_q: Float[Tensor, "*B A"],
    next_q_online: Float[Tensor, "*B A"],
    terminated: Bool[Tensor, "*B"],
    *,
    discount: float | Float[Tensor, "*B"],
) -> Float[Tensor, "*B"]:
    """The TD error of double Q-learning (van Hasselt et al. 2016).

    As `q_learning`, but a' is the best action by `next_q_online`, of the online network, and its
    value is that in `next_q`, of the target network.
    """
    same_shape(q=q, next_q=next_q, next_q_online=next_q_online)
    best, index = next_q_online.max(-1)
    next_value = next_q.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    next_value = torch.where(best.isnan(), best, next_value)  # an index would hide NaN
    return td_error(taken(q, action), reward, next_value, terminated, discount=discount)


def huber(error: Float[Tensor, "*B"], *, threshold: float = 1.0) -> Float[Tensor, "*B"]:
    """error² / 2 up to the threshold, and linear beyond (Huber 1964)."""
    positive(threshold=threshold)
    zero = error.new_zeros(()).expand_as(error)
    return F.huber_loss(error, zero, reduction="none", delta=threshold)


def categorical_cross_entropy(
    logits: Float[Tensor, "*B K"], target: Float[Tensor, "*B K"]
) -> Float[Tensor, "*B"]:
    """-Σ target · log softmax(logits), the loss of C51 (Bellemare et al. 2017).

    `target` are probabilities, those of `distributions.categorical_projection`.
    """
    same_shape(logits=logits, target=target)
    return -(target.detach() * logits.log_softmax(-1)).sum(-1)


def quantile_huber(
    quantiles: Float[Tensor, "*B N"],
    levels: Float[Tensor, "*B N"],
    target: Float[Tensor, "*B M"],
    *,
    threshold: float = 1.0,
) -> Float[Tensor, "*B"]:
    """Quantile Huber regression, the loss of QR-DQN and IQN (Dabney et al. 2018).

    |τ - 1{u < 0}| huber(u) / κ for the difference u between a target and a quantile, averaged over
    M targets and summed over N quantiles.

    Args:
        quantiles: predicted values.
        levels: τ of each quantile: (N,), such as `distributions.quantile_midpoints`, or one a row.
        target: samples or quantiles of the target, all equally probable.
        threshold: κ.
    """
    if levels.shape not in (quantiles.shape, quantiles.shape[-1:]):
        raise ValueError(
            f"levels: want the shape {tuple(quantiles.shape)} of quantiles, or its last dimension, "
            f"got {tuple(levels.shape)}"
        )
    if target.shape[:-1] != quantiles.shape[:-1] or target.ndim < 1:
        raise ValueError(
            f"target: want the shape {(*quantiles.shape[:-1], 'M')}, got {tuple(target.shape)}"
        )
    error = target.detach().unsqueeze(-2) - quantiles.unsqueeze(-1)  # (*B, N, M)
    weight = (levels.detach().unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber(error, threshold=threshold)).mean(-1).sum(-1) / threshold


# Deterministic policy gradients.


def dpg(q: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """-Q(s, μ(s)), whose gradient with respect to μ is DDPG's (Lillicrap et al. 2016)."""
    return -q


def td3_target_action(
    action: Float[Tensor, "*B A"],
    noise: Float[Tensor, "*B A"],
    low: Float[Tensor, " A"],
    high: Float[Tensor, " A"],
    *,
    std: float = 0.2,
    clip: float = 0.5,
) -> Float[Tensor, "*B A"]:
    """The target policy's action with clipped noise, in the box (TD3; Fujimoto et al. 2018).

    Args:
        action: μ'(s').
        noise: standard normal.
        low: lower bounds of actions.
        high: upper bounds of actions.
        std: of the noise that is added, in half widths of the box.
        clip: the most that is added, in half widths of the box.
    """
    not_negative(std=std, clip=clip)
    same_shape(action=action, noise=noise)
    same_shape(low=low, high=high)
    if low.shape != action.shape[-1:]:
        raise ValueError(
            f"low: want the shape {tuple(action.shape[-1:])} of one action, got {tuple(low.shape)}"
        )
    added = (std * noise).clamp(-clip, clip) * (0.5 * (high - low))
    return (action + added).clamp(low, high)


# Soft actor-critic.


def sac_critic_target(
    reward: Float[Tensor, "*B"],
    next_q: Float[Tensor, " C *B"],
    next_log_prob: Float[Tensor, "*B"],
    terminated: Bool[Tensor, "*B"],
    *,
    discount: float | Float[Tensor, "*B"],
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "*B"]:
    """r + γ (min_C Q(s', a') - α log π(a' | s')), a constant (SAC; Haarnoja et al. 2018).

    Args:
        reward: r.
        next_q: Q(s', a') of C target critics, for a' drawn by the current policy.
        next_log_prob: log π(a' | s').
        terminated: whether the MDP ended.
        discount: that of `td_error`.
        temperature: α.
    """
    _check_discount(discount, reward)
    _check_critics(next_q, next_log_prob)
    same_shape(reward=reward, next_log_prob=next_log_prob, terminated=terminated)
    _check_bool(terminated=terminated)
    soft = next_q.amin(0) - _constant(temperature) * next_log_prob
    return _one_step(reward, soft, terminated, discount)


def sac_actor(
    log_prob: Float[Tensor, "*B"],
    q: Float[Tensor, " C *B"],
    *,
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "*B"]:
    """α log π(a | s) - min_C Q(s, a), for a reparameterised sample a (Haarnoja et al. 2018).

    Gradients reach `log_prob` and, through the action, `q`.
    """
    _check_critics(q, log_prob)
    return _constant(temperature) * log_prob - q.amin(0)


def sac_temperature(
    log_temperature: Float[Tensor, ""], log_prob: Float[Tensor, "*B"], *, target_entropy: float
) -> Float[Tensor, "*B"]:
    """-α (log π(a | s) + target entropy) (Haarnoja et al. 2018, "Algorithms and applications").

    α grows while the policy's entropy is below the target, often minus the size of an action.
    """
    _check_scalar(log_temperature)
    return -log_temperature.exp() * (log_prob.detach() + target_entropy)


def discrete_sac_critic_target(
    reward: Float[Tensor, "*B"],
    next_q: Float[Tensor, " C *B A"],
    next_log_probs: Float[Tensor, "*B A"],
    terminated: Bool[Tensor, "*B"],
    *,
    discount: float | Float[Tensor, "*B"],
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "*B"]:
    """`sac_critic_target` with the expectation over all A actions (Christodoulou 2019)."""
    _check_discount(discount, reward)
    _check_critics(next_q, next_log_probs)
    same_shape(reward=reward, terminated=terminated)
    if next_log_probs.ndim < 1 or next_log_probs.shape[:-1] != reward.shape:
        raise ValueError(
            f"next_log_probs: want the shape {(*reward.shape, 'A')}, "
            f"got {tuple(next_log_probs.shape)}"
        )
    _check_bool(terminated=terminated)
    soft = _expected(next_log_probs, next_q.amin(0)) - _constant(temperature) * _expected(
        next_log_probs, _finite(next_log_probs)
    )
    return _one_step(reward, soft, terminated, discount)


def discrete_sac_actor(
    log_probs: Float[Tensor, "*B A"],
    q: Float[Tensor, " C *B A"],
    *,
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "*B"]:
    """Σ_a π(a | s) (α log π(a | s) - min_C Q(s, a)) (Christodoulou 2019); q is a constant.

    An action that is forbidden, with log-probability -inf, adds 0.
    """
    _check_critics(q, log_probs)
    negative_entropy = _expected(log_probs, _finite(log_probs))
    return _constant(temperature) * negative_entropy - _expected(log_probs, q.detach().amin(0))


def discrete_sac_temperature(
    log_temperature: Float[Tensor, ""], log_probs: Float[Tensor, "*B A"], *, target_entropy: float
) -> Float[Tensor, "*B"]:
    """`sac_temperature` with the expectation over all A actions (Christodoulou 2019)."""
    _check_scalar(log_temperature)
    log_probs = log_probs.detach()
    entropy = -_expected(log_probs, _finite(log_probs))
    return log_temperature.exp() * (entropy - target_entropy)


def _ratio(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    return (log_prob - old_log_prob.detach()).exp()


def _one_step(
    reward: Tensor, next_value: Tensor, terminated: Tensor, discount: float | Tensor
) -> Tensor:
    return (reward + discount * next_value.masked_fill(terminated, 0)).detach()


def _expected(log_probs: Tensor, value: Tensor) -> Tensor:
    return (log_probs.exp() * value).sum(-1)


def _finite(log_probs: Tensor) -> Tensor:
    """0 in place of -inf, which times a probability of 0 would be NaN."""
    return log_probs.masked_fill(log_probs == -math.inf, 0)


def _constant(temperature: float | Tensor) -> float | Tensor:
    if isinstance(temperature, Tensor):
        _check_scalar(temperature)
        return temperature.detach()
    not_negative(temperature=temperature)
    return temperature


def taken(q: Float[Tensor, "*B A"], action: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Q(s, a) of the actions taken, from Q(s, ·) of all of them."""
    if action.shape != q.shape[:-1] or q.ndim < 1:
        raise ValueError(
            f"action: want the shape {tuple(q.shape[:-1])} of rows, got {tuple(action.shape)}"
        )
    if action.is_floating_point() or action.dtype == torch.bool:
        raise ValueError(f"action: must be integers, got {action.dtype}")
    if action.is_cpu and action.numel():
        least, most = (int(x) for x in action.aminmax())
        if least < 0 or most >= q.shape[-1]:
            raise ValueError(f"action: must be in 0..{q.shape[-1] - 1}, got {least} to {most}")
    return q.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


def _check_critics(q: Tensor, rows: Tensor) -> None:
    if q.ndim < 1 or len(q) < 1 or q.shape[1:] != rows.shape:
        raise ValueError(
            f"q: want one or more critics of the shape {tuple(rows.shape)} of log probabilities, "
            f"got {tuple(q.shape)}"
        )


def _check_scalar(temperature: Tensor) -> None:
    if temperature.ndim:
        raise ValueError(f"temperature: want one number, got the shape {tuple(temperature.shape)}")


def _check_bool(**arrays: Tensor) -> None:
    for name, array in arrays.items():
        if array.dtype != torch.bool:
            raise ValueError(f"{name}: must be bool, got {array.dtype}")


def _check_discount(discount: float | Tensor, reward: Tensor) -> None:
    if isinstance(discount, Tensor):
        same_shape(reward=reward, discount=discount)
        if discount.is_cpu and not bool(((discount >= 0) & (discount <= 1)).all()):
            raise ValueError("discount: must be in [0, 1] in all rows")
    elif not 0 <= discount <= 1:
        raise ValueError(f"discount: must be in [0, 1], got {discount!r}")
