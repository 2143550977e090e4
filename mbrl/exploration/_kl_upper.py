"""The index of KL-UCB, compiled: it is solved for by iteration, for each arm at every play."""

import math

import numpy as np
from numba import njit

_MOST = 1 - np.finfo(float).eps


@njit(cache=True, nogil=True, error_model="numpy")
def kl_upper(means, levels):
    """The greatest q with KL(mean, q) <= level, for arrays (N,) in [0, 1] and [0, ∞].

    By Newton's method from above, where KL is convex: so q comes down and never passes the root.
    Above lie mean + d with d² <= 2 KL · max r (1 - r), r in [mean, q], where r (1 - r) is at most
    1/4 (Pinsker), 1 - mean or mean + d; and what comes of leaving out mean ln(1 / q) >= 0.
    """
    upper = np.empty_like(means)
    for i in range(len(means)):
        p, level = means[i], levels[i]
        if p >= 1 - 1e-12:
            upper[i] = 1.0
            continue
        d = min(math.sqrt(level * min(0.5, 2 - 2 * p)), level + math.sqrt(level * (level + 2 * p)))
        q = min(p + d, _MOST)
        if q > 0.9:  # elsewhere the others are the closer ones
            entropy = -(p * math.log(p) if p > 0 else 0.0) - (1 - p) * math.log1p(-p)
            q = min(q, -math.expm1(-(level + entropy) / (1 - p)))
        for _ in range(60):
            kl = (1 - p) * math.log((1 - p) / (1 - q))
            if p > 0:
                kl += p * math.log(p / q)
            if not kl > level:  # at the root but for rounding, or beyond it at `_MOST`
                break
            step = (kl - level) * q * (1 - q) / (q - p)
            q -= step
            if step < 1e-7 * (q - p):  # what is left is the square of that
                break
        upper[i] = q
    return upper
