"""The chain of STEVE: what do targets gain from a model that is right, noisy or wrong?

Buckman et al. 2018 (arXiv 1807.01675), section 3.1, with the settings of the authors' code: 101
states in a row, a reward of -1 for each step to the right and of 100 for the last one, no
discounting, so that the value of state s is s. Eight tables of values are learned from states drawn
uniformly, each from the mean of all eight at the states that a target looks ahead to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.returns import horizon_targets, steve, value_expansion
from mbrl.training.executor import Work, stop_if_asked

STATES, CRITICS, MEMBERS, HORIZON, NOISE = 101, 8, 8, 5, 0.1
END = STATES
"""The state after the last one."""
UPDATES, EVERY = 6_000, 100
MODELS = {
    "right": "the model is the chain",
    "noisy": f"a step goes to a random state with probability {NOISE}",
    "wrong": "all members go two states at once",
}
METHODS = ("TD", "MVE", "STEVE")


def steve_chain(lab: Lab) -> Report:
    """Errors of targets and values by method and model."""
    updates = 400 if lab.fast else UPDATES
    asked = {
        (method, model): Work(
            learned, (method, model, lab.seeds, updates), f"{method}, model {model}"
        )
        for method in METHODS
        for model in MODELS
        if method != "TD" or model == "right"
    }
    answers = lab.answers(asked)
    for model in MODELS:  # TD needs none
        answers["TD", model] = answers["TD", "right"]
    at = np.arange(EVERY, updates + 1, EVERY)
    panels = {
        f"{model}: {said}": {
            method: _band(at, answers[method, model]["target"]) for method in METHODS
        }
        for model, said in MODELS.items()
    }
    figure = plots.curves(
        panels,
        title="Targets on the chain of STEVE",
        xlabel="updates of each critic",
        ylabel="error of a target, root mean square",
        log="y",
        size=(15, 4.8),
    )
    plots.save(figure, lab.folder / "steve_chain.png")
    numbers: dict[str, Any] = {
        "settings": {
            "states": STATES, "critics": CRITICS, "members": MEMBERS, "horizon": HORIZON,
            "noise": NOISE, "updates": updates,
        },
        "errors": {
            f"{method}, {model}": {
                "curves": own,
                "first quarter": labs.summary(np.mean(_early(own["target"]), 1).tolist()),
                "last target": labs.summary([curve[-1] for curve in own["target"]]),
                "last value": labs.summary([curve[-1] for curve in own["value"]]),
            }
            for (method, model), own in answers.items()
        },
    }  # fmt: skip
    rows = [
        [
            model,
            method,
            *(
                labs.shown(numbers["errors"][f"{method}, {model}"][name], 2)
                for name in ("first quarter", "last target", "last value")
            ),
        ]
        for model in MODELS
        for method in METHODS
    ]
    head = ["model", "targets", "first quarter", "at the end", "of the values, at the end"]
    text = f"""# The chain of STEVE

Root mean square errors of targets against the exact values, 0 to {STATES - 1}; mean over the first
quarter of {updates:,} updates, and over the last {EVERY}; interquartile mean over {lab.seeds} seeds
[95 % bootstrap interval]. MVE looks {HORIZON} imagined steps ahead, STEVE weights the targets of
0 to {HORIZON} of them by their inverse variance over {MEMBERS} members and {CRITICS} critics.

{labs.table(head, rows)}

The right model speeds learning up. With noise MVE has to live with a bias that does not go away,
while STEVE takes the horizons on which members and critics agree. A fault that all members share
gives them no variance, so STEVE does not see it.
"""
    return Report(numbers, text)


def _early(curves: list[list[float]]) -> list[list[float]]:
    return [curve[: max(1, len(curve) // 4)] for curve in curves]


def _band(at: np.ndarray, curves: list[list[float]]) -> Curve:
    """Median and quartiles over seeds."""
    low, middle, high = np.quantile(np.array(curves), (0.25, 0.5, 0.75), axis=0)
    return Curve(at, middle, low, high)


def learned(method: str, model: str, seeds: int, updates: int) -> dict[str, list[list[float]]]:
    """Errors while the critics learn, of each seed, every `EVERY` updates.

    Returns:
        `target`: root mean square error of the targets since the last point. `value`: that of the
        critics' mean over all states.
    """
    generator = torch.Generator().manual_seed(seeds)
    q = torch.randint(STATES, (seeds, CRITICS, STATES + 1), generator=generator).double()
    q[..., END] = 0
    exact = torch.arange(STATES).double()
    rows, columns = torch.arange(seeds)[:, None], torch.arange(CRITICS)
    found: dict[str, list[Tensor]] = {"target": [], "value": []}
    squared = torch.zeros(seeds, dtype=torch.double)
    for update in range(1, updates + 1):
        state = torch.randint(STATES, (seeds, CRITICS), generator=generator)
        new = target(method, model, q, state, generator)
        squared += (new - exact[state]).square().mean(1)
        q[rows, columns, state] = new
        if update % EVERY == 0:
            stop_if_asked()
            found["target"].append((squared / EVERY).sqrt())
            found["value"].append((q[..., :STATES].mean(1) - exact).square().mean(1).sqrt())
            squared = torch.zeros_like(squared)
    return {name: torch.stack(each, 1).tolist() for name, each in found.items()}


def target(
    method: str,
    model: str,
    q: Float[Tensor, "R C S"],
    state: Int[Tensor, "R C"],
    generator: Generator,
) -> Float[Tensor, "R C"]:
    """The target of each critic's state in R runs."""
    members = MEMBERS if model == "noisy" else 1  # members of other models all do the same
    horizon = 0 if method == "TD" else HORIZON
    states = [state.expand(members, -1, -1), (state + 1).expand(members, -1, -1)]
    for _ in range(horizon):
        states.append(imagined(model, states[-1], generator))
    path = torch.stack(states)  # (H + 2, E, R, C)
    reward, terminated = earned(path[:-1]), path[1:] == END
    rows = torch.arange(len(q))[:, None]
    if method != "STEVE":
        last = q.mean(1)[rows, path[-1]]
        return value_expansion(reward, last, terminated, discount=1.0).target[0].mean(0)
    critics = torch.arange(CRITICS)[:, None, None]
    value = q[rows, critics, path[1:].unsqueeze(2)]  # (H + 1, E, C, R, C)

    def each(x: Tensor) -> Tensor:
        return x.unsqueeze(2).expand_as(value)

    targets = horizon_targets(each(reward), value, each(terminated), discount=1.0)
    return steve(targets.flatten(1, 2)).target


def earned(state: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """The reward of the step from a state."""
    reward = torch.where(state == END - 1, float(STATES - 1), -1.0)
    return torch.where(state == END, 0.0, reward).double()


def imagined(model: str, state: Int[Tensor, "*B"], generator: Generator) -> Int[Tensor, "*B"]:
    """The next state by the model."""
    step = 2 if model == "wrong" else 1
    after = (state + step).clamp_max(END)
    if model == "noisy":
        lost = torch.rand(state.shape, generator=generator) < NOISE
        anywhere = torch.randint(STATES, state.shape, generator=generator)
        after = torch.where(lost, anywhere, after)
    return torch.where(state == END, state, after)
