"""Speed and memory as ratios, each measured in one run against something that drifts alike.

Machines differ, and one machine differs from minute to minute, so no number here stands alone:
every repeat times the reference, ours and the peer in turn, and the ratio is the median over
repeats of ours / reference. References are this machine's own float32 matrix-product rate, bare
MuJoCo steps, and mbrl-lib where it is installed.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import envs
from experiments.peers import HOW_TO_INSTALL, MbrlLib, available
from mbrl.data import Replay
from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.rollout import Propagation, score_fn
from mbrl.types import Transition
from planners import CEM, PLANNERS, Plan, Search

Sample = Callable[[], float]
"""Does some work once and returns the figure measured."""

PEER_PROPAGATION: Mapping[Propagation, str] = {
    "ts1": "random_model",
    "tsinf": "fixed_model",
    "expectation": "expectation",
}


@dataclass(frozen=True)
class Result:
    """One work measured against one reference, in the same unit and in turns."""

    work: str
    unit: str
    ours: Sequence[float]
    against: str
    reference: Sequence[float]
    wanted: str = ""
    """What the median ratio ought to be."""
    lower: bool = False
    """Less is better."""

    def best(self, figures: Sequence[float]) -> float:
        """The best of some figures."""
        return min(figures) if self.lower else max(figures)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: medians, bests, the median of the paired ratios, the ratio of bests."""
        pairs = zip(self.ours, self.reference, strict=True)
        return {
            "work": self.work,
            "unit": self.unit,
            "ours": statistics.median(self.ours),
            "ours_best": self.best(self.ours),
            "against": self.against,
            "reference": statistics.median(self.reference),
            "reference_best": self.best(self.reference),
            "ratio": statistics.median(ours / reference for ours, reference in pairs),
            "ratio_best": self.best(self.ours) / self.best(self.reference),
            "wanted": self.wanted,
            "repeats": len(self.ours),
        }


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given."""

    repeats: int
    threads: int
    peer: MbrlLib | None = None
    matrix: int = 2048
    """Side of the reference matrix product."""

    def alternate(self, samples: Mapping[str, Sample | None]) -> dict[str, list[float]]:
        """Each sample's figures, taken in turns after an untimed one of each; None is left out."""
        present = {name: sample for name, sample in samples.items() if sample is not None}
        for sample in present.values():
            sample()
        figures: dict[str, list[float]] = {name: [] for name in present}
        for _ in range(self.repeats):
            for name, sample in present.items():
                figures[name].append(sample())
        return figures

    def matrix_product(self, flops: float) -> Sample:
        """What of `flops` floating-point operations each would run per second as large products."""
        a, b = torch.randn(2, self.matrix, self.matrix, generator=_generator())
        return lambda: 3 * 2 * self.matrix**3 / _seconds(lambda: [a @ b for _ in range(3)]) / flops

    def ask(self, count: str | None = None, **request: Any) -> Sample | None:
        """The peer's rate at a request, in what the reply counts as `count`, else in requests."""
        peer = self.peer
        if peer is None:
            return None

        def sample() -> float:
            reply = peer.ask(**request, threads=self.threads)
            return (reply[count] if count else 1) / reply["seconds"][0]

        return sample


def rollout(
    bench: Bench,
    *,
    candidates: int = 500,
    horizon: int = 30,
    particles: int = 20,
    hidden: Sequence[int] = (200, 200, 200, 200),
) -> list[Result]:
    """Model transitions/s of `score_fn`: 5 nets, observation 17, action 6, learned reward.

    A reward function stands in for the learned reward, so that the nets are 23→18 and the score
    costs what a known reward costs. `score_fn` itself is timed too, as each plan calls it once.
    """
    model = _ensemble(17, 6, hidden=hidden)
    draw = _generator()
    state = torch.randn(17, generator=draw)
    actions = torch.rand(candidates, horizon, 6, generator=draw) * 2 - 1
    results = []
    for propagation, peers_word in PEER_PROPAGATION.items():
        passes = model.members if propagation == "expectation" else 1
        count = 1 if propagation == "expectation" else particles

        def ours(propagation: Propagation = propagation, count: int = count) -> float:
            def work() -> Tensor:
                score = score_fn(
                    model,
                    state,
                    particles=particles,
                    propagation=propagation,
                    horizon=horizon,
                    reward=_run_forward,
                    generator=draw,
                )
                return score(actions)

            return candidates * horizon * count / _seconds(work)

        sizes = {"propagation": peers_word, "learned_reward": True}
        figures = bench.alternate(
            {
                "matrix product": bench.matrix_product(passes * _forward_flops(model)),
                "ours": ours,
                "mbrl-lib score": bench.ask(
                    "transitions",
                    work="score",
                    candidates=candidates,
                    horizon=horizon,
                    particles=count,
                    **sizes,
                ),
                "mbrl-lib step": bench.ask(
                    "transitions", work="step", rows=500 * particles, **sizes
                ),
            }
        )
        wanted = {"matrix product": "≥ 0.5"} if propagation != "expectation" else {}
        results += _compare(f"score_fn, {propagation}", "transitions/s", figures, wanted)
    return results


def rollout_busy(bench: Bench, **sizes: Any) -> list[Result]:
    """`rollout` while another process keeps one core busy; all that is measured shares it."""
    with busy_neighbour():
        return rollout(bench, **sizes)


def action(
    bench: Bench,
    *,
    population: int | None = None,
    iterations: int = 5,
    hidden: Sequence[int] = (200, 200, 200, 200),
) -> list[Result]:
    """Actions/s of PETS at its published budgets: CEM, TS∞, 20 particles, warm started.

    Observation sizes are what mbrl-lib's networks see: 4 for the cart-pole, which both end where
    it falls, and 18 for the half-cheetah.
    """
    results = []
    for task, plan in _published(population, iterations, hidden).items():
        figures = bench.alternate(
            {
                "ours": lambda plan=plan: 1 / _seconds(plan),
                "mbrl-lib": bench.ask(
                    work="action",
                    task=task,
                    population=population,
                    iterations=iterations,
                    propagation="fixed_model",
                ),
            }
        )
        results += _compare(f"CEM action, {task}", "actions/s", figures, {"mbrl-lib": "≥ 2"})
    return results


def train(bench: Bench, *, rows: int = 10_240, epochs: int = 2) -> list[Result]:
    """Updates/s of `Ensemble.fit`, an update being one batch of 256 rows for every member.

    Ours is the whole of `fit` with its set-up, mbrl-lib's its training epoch alone; neither
    scores held-out data.
    """
    draw = _generator()
    obs, action = torch.randn(rows, 17, generator=draw), torch.rand(rows, 6, generator=draw)
    change = torch.tanh(obs @ torch.randn(17, 17, generator=draw))
    data = Transition(obs, action, change.sum(-1), obs + 0.1 * change, torch.zeros(rows) > 0)
    results = []
    for members in (5, 7):
        model = _ensemble(17, 6, members=members, holdout=0.0, epochs=epochs, patience=epochs)

        def ours(model: Ensemble = model) -> float:
            start = time.perf_counter()
            updates = model.fit(data, generator=draw)["updates"]
            return updates / (time.perf_counter() - start)

        sizes = model.net.sizes
        # forward, and backward to the weights and to all inputs but the first
        flops = members * 256 * (3 * _forward_flops(model) - 2 * sizes[0] * sizes[1])
        figures = bench.alternate(
            {
                "matrix product": bench.matrix_product(flops),
                "ours": ours,
                "mbrl-lib": bench.ask("batches", work="train", rows=rows, members=members),
            }
        )
        results += _compare(f"fit, {members} nets", "updates/s", figures, {"mbrl-lib": "≥ 1.5"})
    return results


def planner(bench: Bench, *, population: int = 350) -> list[Result]:
    """What planners cost themselves: a plan with a score that is almost free, over one with a model."""
    model = _ensemble(4, 1)
    results = []
    for name in ("cem", "icem", "mppi"):
        search = PLANNERS[name](
            *_box(1), 15, population=population, iterations=5, **({} if name == "mppi" else {"elites": population // 10})
        )
        free = _Planning(search, lambda: lambda actions: actions.sum((1, 2)))
        full = _Planning(search, lambda: _pets_score(model, 15, _stay_upright, _fallen))
        figures = bench.alternate(
            {
                "plan with a model": lambda plan=full: 1000 * _seconds(plan),
                "ours": lambda plan=free: 1000 * _seconds(plan),
            }
        )
        results += _compare(f"{name} alone", "ms", figures, lower=True)
    return results


def physics(bench: Bench, *, steps: int = 2000) -> list[Result]:
    """Environment steps/s, over those of a bare loop of `mj_step`: the share spent in physics."""
    results = []
    for name in ("cartpole-swingup", "half-cheetah"):
        env = envs.make(name)
        bare = env.unwrapped
        assert isinstance(bare, envs.MujocoEnv)
        model, data, skip = bare.model, mujoco.MjData(bare.model), bare.task.frame_skip
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, model.nu)).astype(np.float32)

        def ours(env: Any = env, actions: np.ndarray = actions) -> None:
            env.reset(seed=0)
            for action in actions:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

        def reference(
            model: Any = model, data: Any = data, skip: int = skip, actions: np.ndarray = actions
        ) -> None:
            mujoco.mj_resetData(model, data)
            for action in actions:
                data.ctrl[:] = action
                for _ in range(skip):
                    mujoco.mj_step(model, data)

        figures = bench.alternate(
            {
                "bare mj_step": lambda work=reference: steps / _seconds(work),
                "ours": lambda work=ours: steps / _seconds(work),
            }
        )
        env.close()
        results += _compare(f"env.step, {name}", "steps/s", figures)
    return results


def memory(
    bench: Bench, *, rows: int = 1_000_000, iterations: tuple[int, int] = (5, 50)
) -> list[Result]:
    """Peak growth of resident memory, each in a fresh process: of a replay buffer over the bytes
    of its floats, and of one long plan over a short one."""
    floats = 4e-6 * rows * (17 + 6 + 1 + 17)
    short, long = (_in_fresh_process(_planning_growth, bench.threads, n) for n in iterations)
    filled = _in_fresh_process(_replay_growth, bench.threads, rows)
    few, many = iterations
    return [
        Result(f"replay of {rows:,}", "MB", [filled], "its floats", [floats], "≤ 1.2", lower=True),
        Result(f"plan, {many} iterations", "MB", [long], f"{few}", [short], "≈ 1", lower=True),
    ]


BENCHES: Mapping[str, Callable[[Bench], list[Result]]] = {
    "rollout": rollout,
    "rollout-busy": rollout_busy,
    "action": action,
    "train": train,
    "planner": planner,
    "physics": physics,
    "memory": memory,
}
"""Benchmarks by name."""


def bench(
    names: Sequence[str],
    *,
    threads: int | None = None,
    repeats: int = 5,
    console: Console | None = None,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Run benchmarks, show a table of each, and return their rows as plain values.

    Args:
        names: of `BENCHES`, or "all".
        threads: torch's threads, ours and the peer's alike; as they are if unset.
        repeats: timed turns, after an untimed one.
        console: where the tables go; stderr if unset.
        out: folder that gets `<name>.json` for each, if set.

    Raises:
        ValueError: an unknown benchmark, threads or repeats below one; nothing has run then.
    """
    if "all" in names:
        names = [*BENCHES]
    for name in names:
        if name not in BENCHES:
            near = difflib.get_close_matches(name, BENCHES, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"benchmark {name!r} is unknown; {hint}take all or any of {', '.join(BENCHES)}"
            )
    for option, value in (("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be >= 1, got {value}")
    console = console or Console(stderr=True)
    rows = []
    with ExitStack() as stack:
        count = stack.enter_context(_torch_threads(threads))
        peer = stack.enter_context(MbrlLib()) if available() else None
        if peer is None:
            console.print(HOW_TO_INSTALL)
        for name in names:
            results = BENCHES[name](Bench(repeats, count, peer))
            about = {"bench": name, "threads": count, "torch": torch.__version__, "cpu": cpu()}
            found = [about | result.to_dict() for result in results]
            console.print(_table(found))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
            rows += found
    return rows


def cpu() -> str:
    """The processor's name."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen[str]]:
    """A process that multiplies matrices on one thread; it dies with the block, or with us."""
    code = (
        "import os, sys, numpy\n"
        "a = numpy.ones((512, 512), numpy.float32)\n"
        "print('busy', flush=True)\n"
        "while os.getppid() == int(sys.argv[1]): a @ a\n"
    )
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one,
    )
    try:
        assert child.stdout
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.communicate()


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    first = rows[0]
    table = Table(
        title=f"{first['bench']}: threads {first['threads']}, torch {first['torch']}, "
        f"{first['cpu']}; median (best)"
    )
    for heading in ("work", "unit", "ours", "against", "reference", "ratio", "wanted"):
        table.add_column(heading, justify="left" if heading in ("work", "against") else "right")
    for row in rows:
        cells = (
            f"{row[name]:,.3g} ({row[name + '_best']:,.3g})"
            if max(row[name], row[name + "_best"]) < 1000
            else f"{row[name]:,.0f} ({row[name + '_best']:,.0f})"
            for name in ("ours", "reference", "ratio")
        )
        ours, reference, ratio = cells
        table.add_row(
            row["work"], row["unit"], ours, row["against"], reference, ratio, row["wanted"]
        )
    return table


def _compare(
    work: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    wanted: Mapping[str, str] | None = None,
    *,
    lower: bool = False,
) -> list[Result]:
    """Our figures against each of the others."""
    wanted = wanted or {}
    others = {name: found for name, found in figures.items() if name != "ours"}
    return [
        Result(work, unit, figures["ours"], name, found, wanted.get(name, ""), lower)
        for name, found in others.items()
    ]
