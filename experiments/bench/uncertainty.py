"""Plans per second through models whose members are samples, over those through an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from experiments.bench.measure import Bench, Result, Sample, answer, rate, seeded
from experiments.bench.parts import Planning, make_search, run_forward
from experiments.peers import Bayesian, available
from mbrl.dynamics import EnsembleConfig, NeuralDynamics
from mbrl.dynamics.bayesian_configs import BayesianConfig
from mbrl.dynamics.table import MODELS, model_config
from mbrl.imagination import score_fn
from mbrl.parallel import single_thread
from mbrl.types import Transition
from planners import ScoreFn

OBS, ACTION, MEMBERS = 18, 6, 5
SIZES = (OBS + ACTION, 200, 200, 200, 200, OBS)
"""Of the layers of a network."""

ROWS = 300
"""Of Gaussian processes."""

QUICK: Mapping[str, Mapping[str, Any]] = {
    "langevin": {"hidden": (200, 200, 200, 200), "samples": 5},
    "sgmcmc": {"cycle_samples": 2},
    "gp": {"iterations": 1},
}
"""The ensemble's sizes, and small banks, of chains; hardly tuned Gaussian processes."""


PEERS: Mapping[str, str] = {"laplace": "laplace-torch", "bayes-by-backprop": "bayesian-torch"}
"""The libraries that have a kind of model too."""


def uncertainty(
    bench: Bench, *, population: int = 100, horizon: int = 30, rows: int = 2000
) -> list[Result]:
    """CEM plans/s of PETS, TS∞ with 20 particles: 5 samples of 4 x 200 units, over 5 nets.

    Samples are drawn anew for each plan, as a controller does. Networks are not fitted, which
    changes no shapes; Gaussian processes are, to `ROWS` rows. Then predictions/s of as many
    samples for `rows` inputs, on one thread, against those of other libraries. laplace-torch
    evaluates the hidden layers once for all samples, ours for each, since in a plan their states
    differ.
    """
    results = _predictions(bench, rows)
    for name in MODELS:
        if name in ("ensemble", "normed-ensemble"):
            continue
        sampled, plain = (made(kind) for kind in (name, "ensemble"))
        results += bench.compare(
            f"plan, {name}",
            "plans/s",
            planning(sampled, population, horizon),
            {"ensemble": planning(plain, population, horizon)},
            ensemble="≥ 0.77" if issubclass(MODELS[name], BayesianConfig) else "",
        )
    return results


@single_thread()
def _predictions(bench: Bench, rows: int) -> list[Result]:
    found = []
    with ExitStack() as stack:
        ask = stack.enter_context(Bayesian()).ask if available(Bayesian) else None
        for name, library in PEERS.items():
            request = {"library": library, "sizes": SIZES, "rows": rows, "samples": MEMBERS}
            found += bench.compare(
                f"predict, {name}",
                "predictions/s",
                predicting(made(name), rows),
                {
                    "matmul": bench.matmul(2 * sum(a * b for a, b in pairwise(SIZES))),
                    library: answer(ask, "seconds", MEMBERS * rows, work="predict", **request),
                },
            )
    return found


def predicting(model: NeuralDynamics, rows: int) -> Sample:
    """Predictions per second, each call of which has new samples of the weights."""
    draw = seeded()
    state = torch.randn(MEMBERS, rows, OBS, generator=draw)
    action = torch.randn(MEMBERS, rows, ACTION, generator=draw)

    def run() -> None:
        model.resample(generator=draw)
        with torch.no_grad():
            model.predict(state, action)

    return rate(MEMBERS * rows, run)


def made(name: str) -> NeuralDynamics:
    """A model of one kind, unfitted unless it predicts from its rows."""
    like = EnsembleConfig(members=MEMBERS)
    config = model_config(name, like)
    if name in QUICK:
        config = type(config)(members=MEMBERS, **QUICK[name])
    draw = seeded()
    model = config.make(OBS, ACTION, generator=draw)
    if name == "gp":
        obs, after = torch.randn(2, ROWS, OBS, generator=draw)
        action, ends = torch.randn(ROWS, ACTION, generator=draw), torch.zeros(ROWS) > 0
        model.fit(Transition(obs, action, obs[:, 0], after, ends, ends), generator=draw)
    return model


def planning(model: NeuralDynamics, population: int, horizon: int) -> Sample:
    """Plans per second, each with new samples of the weights."""
    draw = seeded()
    score: Callable[[], ScoreFn] = partial(
        score_fn, model, torch.zeros(OBS), horizon=horizon, reward=run_forward, generator=draw
    )

    def fresh() -> ScoreFn:
        model.resample(generator=draw)
        return score()

    return rate(1, Planning(make_search("cem", ACTION, horizon, population, 5), fresh))
