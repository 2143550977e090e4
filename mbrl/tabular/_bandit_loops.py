"""Compiled loops for bandits in which an arm's index depends on that arm only.

`bandits.regret` uses them for Bernoulli rewards: they are several times faster than separate
`choose` and `observe`.
"""

import math

import numpy as np

from planners.compile import compiled

UCB1, KL_UCB, THOMPSON = range(3)
"""Codes of the algorithms."""

_MOST = 1 - np.finfo(float).eps


@compiled(error_model="numpy")
def play(kind, counts, sums, steps, alpha, beta, means, lost, rng):
    """Play T times, updating counts and sums (R, K); write each play's regret to `lost` (R, T).

    `steps` is the number of earlier plays; alpha and beta are the prior of Thompson sampling.
    """
    for run in range(len(counts)):
        best = means[run].max()
        for t in range(lost.shape[1]):
            log = math.log(max(steps + t, 1))
            top, chosen, tied = -math.inf, 0, 0
            for arm in range(counts.shape[1]):
                count, total = counts[run, arm], sums[run, arm]
                if kind == THOMPSON:
                    wins = _gamma(alpha + total, rng)
                    index = wins / (wins + _gamma(beta + (count - total), rng))
                elif count == 0:
                    index = math.inf
                elif kind == UCB1:
                    index = total / count + math.sqrt(2 * log / count)
                else:
                    index = _kl_upper(total / count, log / count)
                if index > top:
                    top, chosen, tied = index, arm, 1
                elif index == top:  # the n-th of equals replaces the choice with probability 1 / n
                    tied += 1
                    if rng.random() * tied < 1:
                        chosen = arm
            mean = means[run, chosen]
            counts[run, chosen] += 1
            sums[run, chosen] += 1.0 if rng.random() < mean else 0.0
            lost[run, t] = best - mean


@compiled(error_model="numpy")
def _gamma(shape, rng):
    """A gamma variate (Marsaglia and Tsang 2000); numba's takes 1.5 times as long."""
    scale = 1.0
    if shape < 1:
        scale = rng.random() ** (1 / shape)
        shape += 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = rng.standard_normal()
        v = (1 + c * x) ** 3
        if v > 0:
            u, x2 = rng.random(), x * x
            if u < 1 - 0.0331 * x2 * x2 or math.log(u) < x2 / 2 + d * (1 - v + math.log(v)):
                return d * v * scale


@compiled(error_model="numpy")
def kl_upper(means, levels):
    """The greatest q with KL(mean, q) <= level, for arrays (N,) in [0, 1] and [0, ∞]."""
    upper = np.empty_like(means)
    for i in range(len(means)):
        upper[i] = _kl_upper(means[i], levels[i])
    return upper


@compiled(error_model="numpy")
def _kl_upper(p, level):
    """The greatest q with KL(p, q) <= level, by Newton's method.

    KL is convex in q above p, so from a start above the root the iterates decrease to the root. The
    start is the least of several upper bounds. They are p + d, where d² <= 2 KL · max r (1 - r)
    over r in [p, q] and r (1 - r) is at most 1/4 (Pinsker), 1 - p or p + d; and the bound that
    results from leaving out the term p ln(1 / q) >= 0.
    """
    if p >= 1 - 1e-12:
        return 1.0
    d = min(math.sqrt(level * min(0.5, 2 - 2 * p)), level + math.sqrt(level * (level + 2 * p)))
    q = min(p + d, _MOST)
    if q > 0.9:  # otherwise the other bounds are lower
        entropy = -(p * math.log(p) if p > 0 else 0.0) - (1 - p) * math.log1p(-p)
        q = min(q, -math.expm1(-(level + entropy) / (1 - p)))
    for _ in range(60):
        kl = (1 - p) * math.log((1 - p) / (1 - q))
        if p > 0:
            kl += p * math.log(p / q)
        if not kl > level:  # at the root up to rounding, or `_MOST` is below the root
            break
        step = (kl - level) * q * (1 - q) / (q - p)
        q -= step
        if step < 1e-7 * (q - p):  # convergence is quadratic
            break
    return q
