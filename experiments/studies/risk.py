"""Which objective is best for what a model does not know, on tasks where a plan can fail?

For each task and seed, models are fitted once to random steps. Then MPC acts through them in the
true environment, with every propagation and objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
import torch

import envs
from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from experiments.studies.regression import fast
from experiments.studies.risk_worlds import CartPole, River
from mbrl.agents import Controller, Controllers, MPCConfig, PlannerConfig, RandomAgent
from mbrl.dynamics import EnsembleConfig
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.table import ModelConfig, model_config
from mbrl.particles import Propagation
from mbrl.rng import generator
from mbrl.spaces import bounds, spec_of
from mbrl.training import Episodes, collect, play, vector
from mbrl.training.executor import Work
from mbrl.training.seeds import Interruptible
from mbrl.types import Transition

HALF, LOSS = 0.5, 0.1
"""Caution pays if it leaves at most the first share of the mean objective's failures, at a return
that is lower by at most the second."""

OBJECTIVES = ("mean", "mean - λ epistemic", "CVaR α", "worst")
"""λ and α are the task's."""

PROPAGATIONS = ("tsinf", "ts1", "expectation", "moment", "distribution")
SINGLE = ("expectation",)
"""Propagations of one particle, whose mean, CVaR and worst return are the same."""

SHARED = EnsembleConfig(
    members=5, hidden=(32, 32), batch=64, learning_rate=2e-3, epochs=150, patience=15
)
"""Settings that all models share, as far as they have them."""

MODELS: Mapping[str, ModelConfig] = {
    "ensemble": dataclasses.replace(SHARED, probabilistic=False),
    "probabilistic ensemble": SHARED,
    **{
        kind: model_config(kind, SHARED)
        for kind in (
            "anchored",
            "bayes-by-backprop",
            "conditional-vae",
            "dropout",
            "gp",
            "laplace",
            "sgmcmc",
            "swag",
        )
    },
    "langevin": dataclasses.replace(model_config("langevin", SHARED), tuning_steps=2000),
}
TRUE = "true model"


class Risky(NamedTuple):
    """A task, and how it is decided on."""

    data: int
    """Number of random steps that models are fitted to."""
    steps: int
    """Of an episode."""
    planner: PlannerConfig
    failures: Callable[[gymnasium.Env, Transition], float]
    """Failures of an episode, from the environment and the last transition."""
    failure: str
    """What they are."""
    true: Callable[[], Any] | None = None
    """Makes the true dynamics, if there is a closed form."""
    penalty: float = 5.0
    """λ, the reward that a step loses for a unit of `mbrl.imagination.disagreement`."""
    share: float = 0.2
    """α of CVaR."""

    def objective(self, name: str) -> tuple[str, float]:
        """Objective and epistemic penalty of `mbrl.imagination.score_fn`, by name."""
        found = {
            "mean": ("mean", 0.0),
            "mean - λ epistemic": ("mean", self.penalty),
            "CVaR α": (f"cvar:{self.share:g}", 0.0),
            "worst": ("worst", 0.0),
        }
        return found[name]


def _falls(env: gymnasium.Env, last: Transition) -> float:
    return float(env.unwrapped.falls)  # pyright: ignore[reportAttributeAccessIssue]


def _ended(env: gymnasium.Env, last: Transition) -> float:
    return float(last.terminated[0])


def _hangs(env: gymnasium.Env, last: Transition) -> float:
    return float(last.next_obs[0, 2] < 0.9)


def _cart_pole(name: str) -> Callable[[], CartPole]:
    def made() -> CartPole:
        task = envs.TASKS[name]
        model = task.compile()
        return CartPole(task.process_noise[0], model.opt.timestep, float(model.dof_damping[0]))

    return made


TASKS: Mapping[str, Risky] = {
    "wet-chicken": Risky(
        500, 40, PlannerConfig(horizon=5, population=40, iterations=2, elites=5),
        _falls, "falls over the waterfall in 40 steps", River, penalty=8.0,
    ),
    "cartpole-cliff": Risky(
        500, 40,
        PlannerConfig(horizon=4, population=30, iterations=2, elites=4, knots=2,
                      interpolation="linear"),
        _ended, "the cart falls off the end of its rail", _cart_pole("cartpole-cliff"), share=0.1,
    ),
    "cartpole-swingup-noisy": Risky(
        2000, 150,
        PlannerConfig(horizon=25, population=40, iterations=3, elites=6),
        _hangs, "the pole does not stand at the end (cos θ < 0.9)",
        _cart_pole("cartpole-swingup-noisy"),
    ),
    "panda-reach-beside": Risky(
        2000, 75,
        PlannerConfig(horizon=8, population=32, iterations=2, elites=6, knots=2,
                      interpolation="linear", sigma=0.15, answer="mean"),
        _ended, "the hand touches the post beside its goal",
    ),
}  # fmt: skip

SMALL = (
    ("wet-chicken", "cartpole-cliff"),
    (TRUE, "probabilistic ensemble", "laplace", "dropout"),
    ("tsinf", "expectation"),
)
"""Tasks, models and propagations that are made unless `--only` names others."""


PARTICLES, EPISODES = 50, 5
"""Particles of a plan, and episodes that each seed plays. With 20 particles the worst fifth is only
four, and a search finds plans that are good for these four."""


class Setup(NamedTuple):
    """How a task is decided on; all settings are in it, as `Lab.answers` compares them."""

    task: str
    model: ModelConfig | None
    """None: the true dynamics."""
    data: int
    """Number of random steps that the model is fitted to."""
    steps: int
    """Of an episode."""
    episodes: int
    mpc: MPCConfig


Cell = tuple[str, str, str, str]
"""Task, model, propagation, objective."""


def risk(lab: Lab) -> Report:
    """Return, worst tenth and failures of every model, propagation and objective on risky tasks."""
    cells = _cells(lab)
    setups = {cell: setup(cell, fast_version=lab.fast) for cell in cells}
    # by seed first: a worker then mostly has the model of the cell before
    asked = {
        (cell, seed): Work(outcome, (setups[cell], seed), f"{_name(cell)}, seed {seed}")
        for fitted in dict.fromkeys(cell[:2] for cell in cells)
        for seed in range(lab.seeds)
        for cell in cells
        if cell[:2] == fitted
    }
    answers = lab.answers(asked)
    every = {cell: [answers[cell, seed] for seed in range(lab.seeds)] for cell in cells}
    failed = {
        f"{_name(cell)}, seed {seed}": one["failed"]
        for cell, own in every.items()
        for seed, one in enumerate(own)
        if "failed" in one
    }
    found = {cell: own for cell, own in every.items() if not any("failed" in one for one in own)}
    if not found:
        raise ValueError(f"risk: no model could be fitted; {next(iter(failed.values()))}")
    results = {cell: _measures(own) for cell, own in found.items()}
    rows = []
    for cell, own in results.items():
        mean = (*cell[:3], "mean")
        against = compared(found[cell], found[mean]) if cell != mean and mean in found else None
        rows.append((cell, own, against))
    picture({cell: own for cell, own, _ in rows}, lab)
    numbers: dict[str, Any] = {
        "settings": {
            _name(cell): {"model": own.model and vars(own.model), "data": own.data,
                          "steps": own.steps, "episodes": own.episodes,
                          "mpc": dataclasses.asdict(own.mpc)}
            for cell, own in setups.items()
        },
        "results": {
            _name(cell): own | {"against the mean": against, "each": found[cell]}
            for cell, own, against in rows
        },
        "failed": failed,
        "caution pays": [_name(cell) for cell, _, against in rows if pays(against)],
    }  # fmt: skip
    return Report(numbers, _page(rows, failed, lab), [_row(*row) for row in rows])


def _cells(lab: Lab) -> list[Cell]:
    """Those of `SMALL`; with `--only`, those of all whose names it has a part of."""
    every: Sequence[Sequence[str]] = (
        (tuple(TASKS), (TRUE, *MODELS), PROPAGATIONS) if lab.only else SMALL
    )
    cells = {
        _name(cell): cell
        for task in every[0]
        for model in every[1]
        for propagation in every[2]
        for objective in OBJECTIVES
        if _makes_sense(cell := (task, model, propagation, objective))
    }
    return [cells[name] for name in lab.chosen(cells)]


def _makes_sense(cell: Cell) -> bool:
    """Leaves out what is the same as another cell, and what a true model cannot do."""
    task, model, propagation, objective = cell
    kind, penalty = TASKS[task].objective(objective)
    if propagation in SINGLE and kind != "mean":
        return False
    if model != TRUE:
        return True
    return TASKS[task].true is not None and propagation == "tsinf" and penalty == 0


def _name(cell: Cell) -> str:
    return ", ".join(cell)


def setup(cell: Cell, *, fast_version: bool) -> Setup:
    """The settings of a cell."""
    task, model, propagation, objective = cell
    risky, config = TASKS[task], MODELS.get(model)
    goal, penalty = risky.objective(objective)
    planner = risky.planner
    if fast_version:
        planner = dataclasses.replace(planner, population=8, iterations=1, elites=2)
        config = config and fast(config)
    mpc = MPCConfig(
        planner, particles=10 if fast_version else PARTICLES, objective=goal,
        penalty=penalty,
        propagation=cast(Propagation, propagation),
    )  # fmt: skip
    if fast_version:
        return Setup(task, config, 50, 10, 2, mpc)
    return Setup(task, config, risky.data, risky.steps, EPISODES, mpc)


def outcome(setup: Setup, seed: int) -> dict[str, Any]:
    """`returns` and `failures` of episodes; only `failed`, why, if the model's fit diverged.

    All models, propagations and objectives play the same episodes of a seed.
    """
    try:
        dynamics = _dynamics(setup.task, setup.model, setup.data, setup.steps, seed)
    except FitDiverged as error:
        return {"failed": str(error)}
    env = envs.make(setup.task, max_episode_steps=setup.steps)
    spec, mpc, draws = spec_of(env), setup.mpc, generator(seed, 2)
    low, high = bounds(spec.action)

    def make() -> Controller:
        return Controller(
            dynamics,
            mpc.build(low, high),
            mpc,
            reward=spec.reward,
            terminated=spec.terminated,
            generator=draws,
        )

    player = Interruptible(Controllers(make, generator=draws))
    episodes = Episodes(labs.EVALUATION + seed)
    returns, failures = [], []
    for step in play(player, vector(env), episodes):
        if episodes.over[0]:
            returns.append(float(episodes.returns[0]))
            failures.append(TASKS[setup.task].failures(env, step))
            if len(returns) == setup.episodes:
                break
    env.close()
    return {"returns": returns, "failures": failures}


@lru_cache(maxsize=2)
def _dynamics(task: str, config: ModelConfig | None, data: int, steps: int, seed: int) -> Any:
    """The true dynamics of a task, or a model of it that each worker process fits once."""
    if config is None:
        true = TASKS[task].true
        assert true is not None
        return true()
    known, draws = random_steps(task, data, steps, seed), generator(seed, 1)
    made = config.make(known.obs.shape[-1], known.action.shape[-1], generator=draws)
    made.fit(known, generator=draws)
    return made


def random_steps(task: str, count: int, steps: int, seed: int) -> Transition:
    """Steps (T,) of uniformly random actions, in episodes of at most `steps`."""
    env = envs.make(task, max_episode_steps=steps)
    actor = RandomAgent(env.action_space, generator=generator(seed, 0))
    found = list(collect(actor, vector(env), Episodes(seed), steps=count))
    env.close()
    return Transition(*(torch.cat(column) for column in zip(*found, strict=True)))


def _measures(seeds: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Summaries of a cell: of seeds' mean returns, of the worst tenth of all episodes, of failures.

    Intervals of the latter two are bootstrap intervals that draw seeds with all their episodes.
    """
    returns, failures = (
        np.array([own[what] for own in seeds]) for what in ("returns", "failures")
    )  # (seeds, episodes)
    worst = max(1, returns.size // 10)

    def tail(values: np.ndarray) -> np.ndarray:
        return np.sort(values.reshape(*values.shape[:-2], -1))[..., :worst].mean(-1)

    def with_interval(statistic: Callable[[np.ndarray], Any], each: np.ndarray) -> dict[str, float]:
        low, high = np.quantile(statistic(each[_resampled(len(each))]), (0.025, 0.975))
        return {"estimate": float(statistic(each)), "low": float(low), "high": float(high)}

    return {
        "return": labs.summary(returns.mean(1).tolist()),
        "worst tenth": with_interval(tail, returns),
        "failures": with_interval(lambda each: each.mean((-2, -1)), failures),
    }


def _resampled(seeds: int, resamples: int = 2000) -> np.ndarray:
    """(resamples, seeds), seeds drawn with replacement."""
    return np.random.default_rng(0).integers(seeds, size=(resamples, seeds))


def compared(
    seeds: Sequence[Mapping[str, Sequence[float]]],
    mean: Sequence[Mapping[str, Sequence[float]]],
) -> dict[str, dict[str, float | None]]:
    """Failures over those of the mean objective, and by what share of its return ours is lower.

    Both are of means over seeds, with 95 % intervals by a bootstrap that draws seeds for both
    objectives together, as they share models and episodes. None where the mean objective has no
    failures; resamples without any are left out.
    """
    failures, returns = (
        np.array([[np.mean(own[what]) for own in group] for group in (seeds, mean)])
        for what in ("failures", "returns")
    )  # (2, seeds)
    picked = _resampled(len(seeds))

    def interval(share: Callable[[Any, Any], Any], each: np.ndarray) -> dict[str, float | None]:
        estimate = share(*each.mean(1))
        drawn = share(*each[:, picked].mean(-1))
        if not np.isfinite(estimate):
            return dict.fromkeys(("estimate", "low", "high"))
        low, high = np.quantile(drawn[np.isfinite(drawn)], (0.025, 0.975))
        return {"estimate": float(estimate), "low": float(low), "high": float(high)}

    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "failures ratio": interval(lambda ours, theirs: ours / theirs, failures),
            "return lost": interval(lambda ours, theirs: (theirs - ours) / np.abs(theirs), returns),
        }


def pays(against: Mapping[str, Mapping[str, float | None]] | None) -> bool:
    """Whether the estimates of `compared` reach `HALF` and `LOSS`; their intervals may not."""
    if against is None:
        return False
    ratio, lost = (against[name]["estimate"] for name in ("failures ratio", "return lost"))
    return ratio is not None and lost is not None and ratio <= HALF and lost <= LOSS


def picture(results: Mapping[Cell, Mapping[str, Any]], lab: Lab) -> None:
    """Return against failures: a panel for each task, a colour for each objective.

    A panel has one propagation, the first of `PROPAGATIONS` with which the task was made.
    """
    tasks = list(dict.fromkeys(cell[0] for cell in results))
    firsts = {
        task: next(p for p in PROPAGATIONS if any(cell[:3:2] == (task, p) for cell in results))
        for task in tasks
    }
    models = list(dict.fromkeys(cell[1] for cell in results))
    figure, axes = plots.panels(
        "Return and failures by objective", 1, len(tasks), (6.2 * len(tasks), 5.4)
    )
    learned = [model for model in models if model != TRUE]
    markers = {TRUE: "*"} if TRUE in models else {}
    markers |= dict(zip(learned, "os^DvPXhd", strict=False))
    for ax, task in zip(axes, tasks, strict=True):
        for model in models:
            for objective, colour in zip(OBJECTIVES, plots.COLOURS, strict=False):
                own = results.get((task, model, firsts[task], objective))
                if own is None:
                    continue
                x, y = own["failures"], own["return"]
                ax.errorbar(
                    x["estimate"], y["estimate"],
                    xerr=[[x["estimate"] - x["low"]], [x["high"] - x["estimate"]]],
                    yerr=[[max(0.0, y["estimate"] - y["low"])],
                          [max(0.0, y["high"] - y["estimate"])]],
                    color=colour, marker=markers[model], ms=17 if model == TRUE else 10,
                    mec="white", lw=0, elinewidth=1.5, alpha=0.9,
                )  # fmt: skip
        plots.note(ax, f"{task}, {firsts[task]}: better is up and to the left")
        ax.set_xlabel(f"failures in an episode: {TASKS[task].failure}")
        ax.set_ylabel("return")
    ax = axes[0]
    for objective, colour in zip(OBJECTIVES, plots.COLOURS, strict=False):
        ax.plot([], [], color=colour, lw=6, label=objective)
    for model, marker in markers.items():
        ax.plot([], [], color=plots.GREY, marker=marker, lw=0, ms=9, label=model)
    plots.legend_below(figure, columns=4)
    plots.save(figure, lab.folder / "risk.png")


def _page(rows: Sequence[tuple[Cell, Any, Any]], failed: Mapping[str, str], lab: Lab) -> str:
    head = [
        "task", "model", "propagation", "objective", "return", "worst tenth", "failures",
        "failures / mean's", "lower return, %",
    ]  # fmt: skip
    lines = []
    for cell, own, against in rows:
        ratios = ["", ""]
        if against is not None:
            ratio, lost = against["failures ratio"], against["return lost"]
            ratios = [
                "-" if ratio["estimate"] is None else labs.shown(ratio, 2),
                labs.shown({key: 100 * value for key, value in lost.items()}, 0),
            ]
        cells = [labs.shown(own[name], 1) for name in ("return", "worst tenth")]
        lines.append([*cell, *cells, labs.shown(own["failures"], 2), *ratios])
    used = list(dict.fromkeys(cell[0] for cell, _, _ in rows))
    paid = "".join(f"\n- {_name(cell)}" for cell, _, against in rows if pays(against)) or " none."
    tasks = "\n".join(
        f"- {name}: {TASKS[name].data} random steps to learn from, episodes of {TASKS[name].steps} "
        f"steps; λ {TASKS[name].penalty:g}, "
        f"α {TASKS[name].share:g}; a failure: {TASKS[name].failure}."
        for name in used
    )
    left_out = "".join(
        f"\nThe fit of {name} diverged, and its row is left out: {why}\n"
        for name, why in failed.items()
    )
    return f"""# Objectives on risky tasks

Models are fitted once a seed to random steps; then MPC acts through them in the true environment,
{2 if lab.fast else EPISODES} episodes for each seed, the same for all. Reward and termination are
known.

{tasks}

Interquartile mean over {lab.seeds} seeds of their mean returns; mean return of the worst tenth of
all episodes; mean number of failures in an episode; 95 % bootstrap intervals over seeds. The last
two columns compare means over seeds with those of the mean objective of the same model and
propagation, which has the same models and episodes. With expectation there is one particle, so CVaR
and the worst case are the mean.

{labs.table(head, lines)}

At most half of the mean objective's failures at a return at most {LOSS:.0%} lower, by the
estimates:{paid}

![Return against failures, by objective](risk.png)
{left_out}"""


def _row(cell: Cell, own: Any, against: Any) -> dict[str, Any]:
    """A row of `table.csv`."""
    row: dict[str, Any] = dict(
        zip(("task", "model", "propagation", "objective"), cell, strict=True)
    )
    for name in ("return", "worst tenth", "failures"):
        for part in ("estimate", "low", "high"):
            row[f"{name} {part}"] = own[name][part]
    for name in ("failures ratio", "return lost"):
        for part in ("estimate", "low", "high"):
            row[f"{name} {part}"] = None if against is None else against[name][part]
    return row
