"""Speed and memory as ratios, each measured in one run against something that drifts alike.

Machines differ, and one machine differs from minute to minute, so no number here stands alone:
every repeat times the reference, ours and the peer in turn, and the ratio is the median over
repeats of ours / reference. References are this machine's own float32 matrix-product rate, bare
MuJoCo steps, and mbrl-lib, judo and mctx where they are installed.
"""

from __future__ import annotations

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
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import envs
from experiments.driving import DriveConfig, build_driver
from experiments.peers import HOW_TO_INSTALL, Judo, MbrlLib, Mctx, available
from experiments.presets import MPC_PRESETS
from mbrl.agents import Controller, MPCConfig, PlannerConfig
from mbrl.data import Replay
from mbrl.dynamics import Ensemble, EnsembleConfig, Simulator
from mbrl.imagination import Propagation, score_fn
from mbrl.parallel import apart
from mbrl.types import RewardFn, TerminatedFn, Transition
from planners import Plan, ScoreFn, Search

if TYPE_CHECKING:
    from planners.mcts import Evaluation, Tree

Sample = Callable[[], float]
"""Does some work once and returns how much of it a second."""


def rate(count: float, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Sample:
    """Times `work(*args, **kwargs)`, which does `count` of something."""

    def sample() -> float:
        start = time.perf_counter()
        work(*args, **kwargs)
        return count / (time.perf_counter() - start)

    return sample


@dataclass(frozen=True)
class Result:
    """One work measured against one reference, in the same unit and in turns."""

    work: str
    unit: str
    ours: Sequence[float]
    against: str
    reference: Sequence[float]
    wanted: str = ""
    """What the ratio ought to be."""
    lower: bool = False
    """Less is better."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: medians, bests, the median of the paired ratios, the ratio of bests."""
        best, middle = min if self.lower else max, statistics.median
        ours, reference = self.ours, self.reference
        named = {"work": self.work, "unit": self.unit, "against": self.against}
        return named | {
            "ours": middle(ours),
            "ours_best": best(ours),
            "reference": middle(reference),
            "reference_best": best(reference),
            "ratio": middle(a / b for a, b in zip(ours, reference, strict=True)),
            "ratio_best": best(ours) / best(reference),
            "wanted": self.wanted,
            "repeats": len(ours),
        }


@dataclass(frozen=True)
class Bench:
    """How a benchmark measures."""

    repeats: int
    threads: int
    peer: MbrlLib | None = None
    matrix: int = 2048
    """Side of the reference matrix product."""

    def compare(
        self, work: str, unit: str, ours: Sample, others: Mapping[str, Sample | None], **wanted: str
    ) -> list[Result]:
        """Ours against each other, in turns after an untimed one; None is left out."""
        samples = {name: sample for name, sample in others.items() if sample} | {"ours": ours}
        for sample in samples.values():
            sample()
        turns = [[sample() for sample in samples.values()] for _ in range(self.repeats)]
        found = dict(zip(samples, zip(*turns, strict=True), strict=True))
        mine = found.pop("ours")
        return [
            Result(work, unit, mine, name, figures, wanted.get(re.sub(r"\W", "_", name), ""))
            for name, figures in found.items()
        ]

    def matmul(self, flops: float) -> Sample:
        """How many works of `flops` operations a second three large float32 products amount to."""
        a, b = torch.randn(2, self.matrix, self.matrix, generator=_generator())
        return rate(3 * 2 * self.matrix**3 / flops, lambda: [a @ b for _ in range(3)])

    def ask(self, unit: str | None = None, **request: Any) -> Sample | None:
        """The peer's rate at a request, in what its reply counts as `unit`, else in requests."""
        peer = self.peer
        if peer is None:
            return None

        def sample() -> float:
            reply = peer.ask(**request, threads=self.threads)
            return (reply[unit] if unit else 1) / reply["seconds"][0]

        return sample


def rollout(bench: Bench, *, candidates: int = 500, horizon: int = 30) -> list[Result]:
    """Model transitions/s of `score_fn`: 5 nets 23→18, a known reward, 20 particles.

    The nets learn a reward too, which a function then replaces. `score_fn` itself is in the time,
    as every plan calls it once.
    """
    model, draw = _ensemble(17, 6, learn_reward=True), _generator()
    state = torch.randn(17, generator=draw)
    actions = torch.rand(candidates, horizon, 6, generator=draw) * 2 - 1
    kinds: tuple[tuple[Propagation, str, int, int], ...] = (
        ("ts1", "random_model", 20, 1),
        ("tsinf", "fixed_model", 20, 1),
        ("expectation", "expectation", 1, 5),  # one particle, which all nets see
    )
    results = []
    for propagation, theirs, particles, passes in kinds:
        known: dict[str, Any] = {"propagation": propagation, "reward": _run_forward}
        score = partial(score_fn, model, state, horizon=horizon, generator=draw, **known)
        request = {"propagation": theirs, "learned_reward": True}
        sizes = {"candidates": candidates, "horizon": horizon, "particles": particles}
        results += bench.compare(
            f"score_fn, {propagation}",
            "transitions/s",
            rate(candidates * horizon * particles, lambda score, x: score()(x), score, actions),
            {
                "matmul": bench.matmul(passes * _forward_flops(model)),
                "mbrl-lib score": bench.ask("transitions", work="score", **sizes, **request),
                "mbrl-lib step": bench.ask("transitions", work="step", **request),
            },
            matmul="" if propagation == "expectation" else "≥ 0.5",
        )
    return results


def rollout_busy(bench: Bench, *, candidates: int = 500, horizon: int = 30) -> list[Result]:
    """`rollout` while another process keeps one core busy; all that is measured suffers it."""
    with busy_neighbour():
        return rollout(bench, candidates=candidates, horizon=horizon)


def action(bench: Bench, *, population: int | None = None, iterations: int = 5) -> list[Result]:
    """PETS actions/s at its published budgets: CEM, TS∞, 20 particles, warm started.

    Observation sizes are what mbrl-lib's nets see: 4 for the cart-pole, which both end where it
    falls, and 18 for the half-cheetah.
    """
    results = []
    for task, obs, size, horizon, published, reward, terminated in (
        ("cart-pole", 4, 1, 15, 350, _stay_upright, _fallen),
        ("half-cheetah", 18, 6, 30, 500, _run_forward, None),
    ):
        count = population or published
        search = _search("cem", size, horizon, count, iterations)
        plan = _Planning(search, _scorer(obs, size, horizon, reward, terminated))
        request = {"task": task, "population": count, "iterations": iterations}
        peer = bench.ask(work="action", propagation="fixed_model", **request)
        results += bench.compare(
            f"CEM action, {task}", "actions/s", rate(1, plan), {"mbrl-lib": peer}, mbrl_lib="≥ 2"
        )
    return results


def train(bench: Bench, *, rows: int = 10_240, epochs: int = 2) -> list[Result]:
    """Updates/s of `Ensemble.fit`, an update being one batch of 256 rows for every member.

    Ours is the whole of `fit` with its set-up, mbrl-lib's its training epoch alone; neither
    scores held-out data.
    """
    draw = _generator()
    obs, actions = torch.randn(rows, 17, generator=draw), torch.rand(rows, 6, generator=draw)
    change = torch.tanh(obs @ torch.randn(17, 17, generator=draw))
    data = Transition(obs, actions, change.sum(-1), obs + 0.1 * change, *torch.zeros(2, rows) > 0)
    settings = {"learn_reward": True, "holdout": 0.0, "epochs": epochs, "patience": epochs}
    results = []
    for members in (5, 7):
        model = _ensemble(17, 6, members=members, **settings)
        inputs, width = model.net.sizes[:2]
        # forward, and backward to weights and to all inputs but the first layer's
        flops = members * 256 * (3 * _forward_flops(model) - 2 * inputs * width)
        results += bench.compare(
            f"fit, {members} nets",
            "updates/s",
            rate(epochs * -(-rows // 256), model.fit, data, generator=draw),
            {
                "matmul": bench.matmul(flops),
                "mbrl-lib": bench.ask("batches", work="train", rows=rows, members=members),
            },
            mbrl_lib="≥ 1.5",
        )
    return results


def planner(bench: Bench, *, population: int = 350) -> list[Result]:
    """Plans/s by a model, over those by an almost free score: the planner's share of the time."""
    score = _scorer(4, 1, 15, _stay_upright, _fallen)
    results = []
    for name in ("cem", "icem", "mppi"):
        search = _search(name, 1, 15, population, 5)
        free = _Planning(search, lambda: lambda actions: actions.sum((1, 2)))
        full = _Planning(search, score)
        results += bench.compare(name, "plans/s", rate(1, full), {"planner alone": rate(1, free)})
    return results


def physics(bench: Bench, *, steps: int = 2000) -> list[Result]:
    """Environment steps/s over those of a bare loop of `mj_step`: the share spent in physics."""

    def ours(env: Any, actions: np.ndarray) -> None:
        env.reset(seed=0)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    def bare(env: Any, actions: np.ndarray) -> None:
        data = mujoco.MjData(env.model)
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(env.model, data, nstep=env.task.frame_skip)

    results = []
    for name in ("cartpole-swingup", "half-cheetah"):
        env: Any = envs.make(name)
        draw = np.random.default_rng(0)
        actions = draw.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
        results += bench.compare(
            f"env.step, {name}",
            "steps/s",
            rate(steps, ours, env, actions),
            {"bare mj_step": rate(steps, bare, env.unwrapped, actions)},
        )
        env.close()
    return results


MPC_TASKS = {"cartpole-swingup": (32, 25, "≥ 0.75"), "half-cheetah": (64, 50, "≥ 0.9")}
"""Task -> candidates, control steps, and the share of the bare rate that a plan should keep."""


JUDO_TASKS = {"cartpole-servo": "cartpole", "cylinder-push": "cylinder_push"}
"""Our task -> judo's; each is planned with its preset, at judo's candidates and horizon."""


def mpc(bench: Bench, *, tasks: Mapping[str, tuple[int, int, str]] = MPC_TASKS) -> list[Result]:
    """Rollouts/s of whole plans through the true simulator, over those of its bare engine.

    A plan is one round of predictive sampling on six cubic knots: draws, rollouts, observations,
    rewards, the choice and the shift. The bare engine rolls out as many controls and records
    nothing. Beside it the processors kept busy while planning, and where judo is installed the
    time of its plans on its own two tasks over that of ours.
    """
    results = []
    for name, (candidates, horizon, wanted) in tasks.items():
        plan, bare = _plan_and_bare(envs.simulated(name), candidates, horizon, bench.threads)
        work = f"plan {candidates} x {horizon}, {name}"
        results += bench.compare(
            work,
            "rollouts/s",
            rate(candidates, plan),
            {"bare engine": rate(candidates, bare)},
            bare_engine=wanted,
        )
        results += bench.compare(
            work, "cores", _cores(plan), {"threads": lambda: float(bench.threads)}
        )
    if not available(Judo):
        return results
    with Judo() as peer:
        for name, theirs in JUDO_TASKS.items():
            driver = build_driver(DriveConfig(name, MPC_PRESETS[name]), seed=0)
            obs, _ = driver.env.reset(seed=0)
            ask = partial(peer.ask, work="plan", task=theirs, repeats=20)
            results += bench.compare(
                f"plan, {name}",
                "plans/s",
                _median_rate(lambda act=driver.controller.act, obs=obs: act(obs)),
                {"judo": lambda ask=ask: 1 / statistics.median(ask()["seconds"])},
            )
    return results


def _median_rate(work: Callable[[], Any], calls: int = 20) -> Sample:
    """Times each of some calls; the rate of the median."""

    def sample() -> float:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return 1 / statistics.median(seconds)

    return sample


def _plan_and_bare(
    task: envs.Task, candidates: int, horizon: int, threads: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What makes some plans, and what rolls out as many controls of the same kind."""
    sim = Simulator(task, threads=threads)
    start = sim.state(*task.initial(np.random.default_rng(0)))
    box = torch.ones(sim.model.nu)
    settings = {"knots": 6, "interpolation": "cubic"}
    config = MPCConfig(PlannerConfig("predictive", horizon, candidates - 1, **settings))
    mpc = config.build(-box, box)
    controller = Controller(
        sim,
        mpc,
        config,
        reward=None,
        terminated=None,
        state_of=lambda _: start,
        generator=_generator(),
    )
    search: Any = mpc.planner
    mean, std, _ = search.begin(None)
    actions = search.actions(search.sample(mean, std, candidates, generator=_generator()))
    low, high = sim.model.actuator_ctrlrange.T
    controls = (low + high) / 2 + (high - low) / 2 * actions.double().numpy()
    controls = np.ascontiguousarray(controls.repeat(sim.frame_skip, 1))
    batch, spread = apart(lambda: Batch(sim.model, candidates, threads))
    row, nothing = start.numpy(), np.zeros(0)

    def bare() -> None:
        spread()
        batch.state[:] = row
        batch.rollout(controls.shape[1], controls, record=())

    return lambda: controller.act(nothing), bare


def _cores(work: Callable[[], Any]) -> Sample:
    """Processor seconds a second of the work."""

    def sample() -> float:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return (time.process_time() - cpu) / (time.perf_counter() - wall)

    return sample


MCTS_SIZES = {(1, 4): 25e3, (32, 4): 150e3, (256, 4): 250e3, (1024, 4): 250e3, (64, 18): 60e3}
"""Roots and actions -> simulations/s wanted."""


def mcts(
    bench: Bench,
    *,
    sizes: Mapping[tuple[int, int], float] = MCTS_SIZES,
    simulations: int = 50,
    width: int = 64,
    calls: int = 5,
    device: str | None = "cuda",
) -> list[Result]:
    """Simulations/s of tree search by PUCT, all roots counted, against what is wanted and mctx.

    Both ask a net of the same form: state' = relu(state W + U[action]), heads state' V. A sample
    is the median of some searches; mctx is compiled beforehand and takes the threads it likes.
    Beside it the bytes of a node, states apart, against those of mctx's arrays. Where there is a
    GPU, the same with the net there: trees walked by torch beside it, against the compiled walk.
    """
    from planners.mcts import search  # numba, which nothing else here needs

    if device == "cuda" and not torch.cuda.is_available():
        device = None
    results = []
    with ExitStack() as stack:
        peer = stack.enter_context(Mctx()) if available(Mctx) else None
        for (roots, actions), wanted in sizes.items():
            root, step = _random_net(roots, actions, width)
            settings: dict[str, Any] = {"simulations": simulations, "discount": 0.99}
            look = partial(search, root, step, **settings, generator=_generator())
            request = {"roots": roots, "actions": actions, "width": width, "repeats": calls}
            count, work = roots * simulations, f"search, {roots} roots x {actions} actions"

            def ours(look: Callable[[], Any] = look, count: int = count) -> float:
                return count * _median_rate(look, calls)()

            def theirs(request: dict[str, int] = request, count: int = count) -> float:
                assert peer
                asked = peer.ask(work="time", rule="puct", simulations=simulations, **request)
                return count / statistics.median(asked["seconds"])

            results += bench.compare(
                work,
                "simulations/s",
                ours,
                {"wanted": lambda wanted=wanted: wanted, "mctx": theirs if peer else None},
                wanted="≥ 1",
            )
            arrays = 4 * (5 + 6 * actions)  # of its Tree: five (B, N) and six (B, N, A)
            size = _node_bytes(look())
            results.append(Result(work, "bytes a node", [size], "mctx", [arrays], "", True))
            if device is not None:
                root, step = _random_net(roots, actions, width, device)
                walks = (
                    partial(search, root, step, **settings, generator=_generator(), compiled=kind)
                    for kind in (False, True)
                )
                torch_walk, compiled = (_median_rate(walk, calls) for walk in walks)
                results += bench.compare(
                    f"{work}, on {device}",
                    "simulations/s",
                    lambda sample=torch_walk, count=count: count * sample(),
                    {"compiled walk": lambda sample=compiled, count=count: count * sample()},
                )
    return results


def _random_net(
    roots: int, actions: int, width: int, device: str = "cpu"
) -> tuple[Evaluation, Callable[[Tensor, Tensor], Evaluation]]:
    """What `time` of peers/mctx.py searches, as a root and a step."""
    from planners.mcts import Evaluation

    draw = _generator()
    own = torch.randn(width, width, generator=draw).to(device) / width**0.5
    moved = torch.randn(actions, width, generator=draw).to(device)
    heads = torch.randn(width, actions + 2, generator=draw).to(device) / width**0.5

    def step(state: Tensor, action: Tensor) -> Evaluation:
        after = torch.addmm(moved.index_select(0, action), state, own).relu_()
        out = after @ heads
        return Evaluation(after, out[:, 0], out[:, 1], out[:, 2:])

    zeros = torch.zeros(roots, device=device)
    state = torch.randn(roots, width, generator=draw).to(device)
    return Evaluation(state, zeros, zeros, torch.zeros(roots, actions, device=device)), step


def _node_bytes(tree: Tree) -> float:
    """Of a node in all arrays of a tree, its state apart."""
    kept = (tree.forest.nodes, tree.forest.edges)
    return sum(x.nbytes for x in kept) / tree.forest.nodes.size


def memory(bench: Bench, *, rows: int = 1_000_000, iterations: int = 5) -> list[Result]:
    """By how many MB resident memory grows at its peak, each in a fresh process.

    A replay buffer against the bytes of its floats; a plan against one of a tenth the iterations.
    """
    floats = 4e-6 * rows * (17 + 6 + 1 + 17)
    grown = _in_fresh_process(_replay_growth, bench.threads, rows)
    many = 10 * iterations
    turns = [
        [_in_fresh_process(_plan_growth, bench.threads, n) for n in (iterations, many)]
        for _ in range(bench.repeats)
    ]
    short, long = zip(*turns, strict=True)
    return [
        Result(f"replay of {rows:,}", "MB", [grown], "its floats", [floats], "≤ 1.2", True),
        Result(f"plan, {many} iterations", "MB", long, f"{iterations}", short, "≈ 1", True),
    ]


BENCHES: Mapping[str, Callable[[Bench], list[Result]]] = {
    "rollout": rollout,
    "rollout-busy": rollout_busy,
    "action": action,
    "train": train,
    "planner": planner,
    "physics": physics,
    "mpc": mpc,
    "mcts": mcts,
    "memory": memory,
}
"""Benchmarks by name."""


def bench(
    names: Sequence[str],
    *,
    threads: int | None = None,
    repeats: int = 7,
    console: Console | None = None,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Run benchmarks, show a table of each, and return the rows as plain values.

    Args:
        names: of `BENCHES`.
        threads: torch's threads, ours and the peer's alike; as they are if unset.
        repeats: timed turns, after an untimed one.
        console: where the tables go; stderr if unset.
        out: folder that gets `<name>.json` of each, if set.

    Raises:
        ValueError: an unknown benchmark, threads or repeats below one; nothing has run then.
    """
    for name in names:
        if name not in BENCHES:
            raise ValueError(f"benchmark {name!r} is unknown; take any of {', '.join(BENCHES)}")
    for option, value in (("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be >= 1, got {value}")
    console = console or Console(stderr=True)
    rows = []
    before = torch.get_num_threads()
    count = threads or before
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(count)
        peer = stack.enter_context(MbrlLib()) if available() else None
        if peer is None:
            console.print(HOW_TO_INSTALL)
        for name in names:
            about = {"bench": name, "threads": count, "torch": torch.__version__, "cpu": cpu()}
            found = [about | row.to_dict() for row in BENCHES[name](Bench(repeats, count, peer))]
            console.print(_table(found))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
            rows += found
    return rows


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
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
    command = [sys.executable, "-c", code, str(os.getpid())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | one
    ) as child:
        try:
            assert child.stdout
            child.stdout.readline()
            yield child
        finally:
            child.kill()


class _Planning:
    """Plans again and again, each search starting from the last plan."""

    def __init__(self, search: Search, score: Callable[[], ScoreFn]):
        self.search, self.score, self.generator = search, score, _generator()
        self.last: Plan | None = None

    def __call__(self) -> None:
        start = self.last and self.search.shift(self.last, 1)
        self.last = self.search.plan(self.score(), start, generator=self.generator)


def _search(name: Any, size: int, horizon: int, population: int, iterations: int) -> Search:
    elites = None if name == "mppi" else population // 10
    config = PlannerConfig(name, horizon, population, iterations, elites)
    search = config.build(-torch.ones(size), torch.ones(size))
    assert isinstance(search, Search)
    return search


def _scorer(
    obs: int, action: int, horizon: int, reward: RewardFn, terminated: TerminatedFn | None
) -> Callable[[], ScoreFn]:
    """Makes the score of plans from one state, TS∞ with 20 particles."""
    model, draw = _ensemble(obs, action), _generator()
    known = {"horizon": horizon, "reward": reward, "terminated": terminated}
    return lambda: score_fn(model, torch.zeros(obs), generator=draw, **known)


def _run_forward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return next_obs[..., 8] - 0.1 * action.square().sum(-1)


def _stay_upright(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return (~_fallen(next_obs)).float()


def _fallen(next_obs: Tensor) -> Tensor:
    return (next_obs[..., 0].abs() > 2.4) | (next_obs[..., 2].abs() > 0.21)


def _ensemble(obs_size: int, action_size: int, **settings: Any) -> Ensemble:
    config = EnsembleConfig(**settings)
    return Ensemble(obs_size, action_size, config, generator=_generator())


def _forward_flops(model: Ensemble) -> float:
    """Of one row through one net."""
    return 2 * sum(i * o for i, o in pairwise(model.net.sizes))


def _replay_growth(rows: int) -> float:
    def fill() -> None:
        replay, draw = Replay(rows, 17, 6), _generator()
        for start in range(0, rows, 1000):
            block = torch.rand(min(1000, rows - start), 24, generator=draw)
            obs, action, reward = block[:, :17], block[:, 17:23], block[:, 23]
            replay.append(Transition(obs, action, reward, obs, reward > 1, reward > 1))

    return _growth(fill)


def _plan_growth(iterations: int) -> float:
    score = _scorer(4, 1, 15, _stay_upright, _fallen)
    return _growth(_Planning(_search("cem", 1, 15, 100, iterations), score))


def _growth(work: Callable[[], Any]) -> float:
    # Not getrusage, whose peak is inherited from the process that started this one.
    def resident(line: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0])

    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) * 1024 / 1e6


def _in_fresh_process(work: Callable[[int], float], threads: int, size: int) -> float:
    if not Path("/proc/self/status").exists():
        raise ValueError("the memory benchmark reads /proc, which only Linux has")
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        return pool.submit(work, size).result()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = "{bench}: {threads} threads, torch {torch}, {cpu}; median (best)".format(**rows[0])
    table = Table(title=title)
    for heading in ("work", "unit", "ours", "against", "reference", "ratio", "wanted"):
        table.add_column(heading, justify="left" if heading in ("work", "against") else "right")
    for row in rows:
        figures = [
            f"{_digits(row[name])} ({_digits(row[name + '_best'])})"
            for name in ("ours", "reference", "ratio")
        ]
        figures.insert(1, row["against"])
        table.add_row(row["work"], row["unit"], *figures, row["wanted"])
    return table


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
