"""Episodes driven by MPC: their rewards, and the time that plans took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.plots.style import COLOURS, GREY, legend, note, panels
from mbrl.statistics import finite


def drives(
    rewards: Sequence[ArrayLike],
    plan_ms: Sequence[ArrayLike],
    *,
    control_step: float,
    budget_ms: float | None = None,
    title: str = "Driven by MPC",
) -> Figure:
    """Rewards over time, one line for each episode and their mean bold; a histogram of plan times.

    `rewards` has an array (T,) for each episode, `plan_ms` an array of the milliseconds of each of
    its plans; `control_step` is in seconds. Lines in the histogram mark the control step and, if
    there is one, the budget. Raises ValueError for no episodes or another number of `plan_ms`.
    """
    if not rewards or len(rewards) != len(plan_ms):
        raise ValueError(f"want as many plan_ms as rewards, got {len(plan_ms)}, {len(rewards)}")
    figure, (left, right) = panels(title, 1, 2, (9.6, 4.0))
    series = [finite(values, "rewards", 1) for values in rewards]
    for values in series:
        left.plot(control_step * np.arange(1, len(values) + 1), values, color=GREY, alpha=0.4, lw=1)
    shortest = min(map(len, series))
    mean = np.mean([values[:shortest] for values in series], axis=0)
    seconds = control_step * np.arange(1, shortest + 1)
    left.plot(seconds, mean, color=COLOURS[0], lw=2.4)
    left.set(xlabel="seconds", ylabel="reward per step")
    if len(series) > 1:
        note(left, f"mean of {len(series)} episodes; each in grey")
    took = np.concatenate([finite(values, "plan_ms", 1) for values in plan_ms])
    right.hist(np.clip(took, None, np.quantile(took, 0.995)), bins=40, color=COLOURS[0])
    lines = {"control step": (1e3 * control_step, GREY)}
    if budget_ms is not None:
        lines["budget"] = (budget_ms, COLOURS[1])
    shown = {k: v for k, v in lines.items() if v[0] < 4 * took.max()}
    for name, (at, colour) in shown.items():
        right.axvline(at, color=colour, ls="--", lw=1.6, label=f"{name}, {at:g} ms")
    right.set(xlabel="milliseconds per plan", ylabel="plans")
    right.set_xlim(left=0)
    if shown:
        legend(right)
    note(right, f"median {np.median(took):.3g} ms of {len(took)} plans")
    return figure
