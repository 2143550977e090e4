"""Control knots: one matrix W (H, K) turns K knots into H actions, `actions = W @ knots`."""

from __future__ import annotations

import numpy as np

INTERPOLATIONS = ("zero", "linear", "cubic")


def interpolation_matrix(horizon: int, knots: int, kind: str) -> np.ndarray:
    """The matrix W (H, K), float64, whose rows sum to one; the identity when K = H.

    - `zero`: action t takes knot floor(t K / H), so each knot is held for about H/K steps.
    - `linear`: hat functions between knots at t_k = k (H - 1) / (K - 1).
    - `cubic`: the not-a-knot cubic spline through the same knots (de Boor, "A Practical
      Guide to Splines", 1978, ch. IV). Twice differentiable, and exact on cubics; with
      fewer than four knots it is the polynomial through them. It may overshoot its knots.

    Raises ValueError for sizes below 1, K > H, or an unknown kind.
    """
    if not 1 <= knots <= horizon:
        raise ValueError(f"knots must lie in 1..horizon = 1..{horizon}, got {knots}")
    if kind not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {kind!r}")
    if knots == horizon:
        return np.eye(horizon)
    t = np.arange(horizon)
    if kind == "zero":
        return np.eye(knots)[t * knots // horizon]
    if knots == 1:
        return np.ones((horizon, 1))
    x = t * (knots - 1) / (horizon - 1)  # in knot spacings, so that knot k sits at x = k
    if kind == "cubic" and knots < 4:
        at_knots = np.vander(np.arange(knots, dtype=float), knots)
        return np.vander(x, knots) @ np.linalg.inv(at_knots)
    left = np.minimum(x.astype(int), knots - 2)
    b = (x - left)[:, None]
    a = 1 - b
    eye = np.eye(knots)
    linear = a * eye[left] + b * eye[left + 1]
    if kind == "linear":
        return linear
    curvature = _curvature_at_knots(knots)
    return linear + ((a**3 - a) * curvature[left] + (b**3 - b) * curvature[left + 1]) / 6


def shift_matrix(matrix: np.ndarray, steps: int) -> np.ndarray:
    """The (K, K) matrix that moves knots `steps` actions on, holding the last action.

    With S the roll of H actions, the new knots are the least-squares fit of the rolled
    actions, pinv(W) S W: exact for K = H and for whole segments of zero-order knots, and
    the identity for `steps` = 0. Rows sum to one, so constant plans stay as they are.
    """
    horizon = matrix.shape[0]
    rolled = matrix[np.minimum(np.arange(horizon) + steps, horizon - 1)]
    return np.linalg.pinv(matrix) @ rolled


def _curvature_at_knots(knots: int) -> np.ndarray:
    """Second derivatives of the spline at its knots as a linear map (K, K) of their values."""
    system = np.zeros((knots, knots))
    second_difference = np.zeros((knots, knots))
    for k in range(1, knots - 1):
        system[k, k - 1 : k + 2] = 1, 4, 1
        second_difference[k, k - 1 : k + 2] = 6, -12, 6
    # Not-a-knot: the third derivative does not jump at the second and last but one knot.
    system[0, :3] = 1, -2, 1
    system[-1, -3:] = 1, -2, 1
    return np.linalg.solve(system, second_difference)
