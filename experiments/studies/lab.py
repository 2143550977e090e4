"""What every study needs: trained runs, answers about them, and a folder for what came out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

import envs
from experiments.presets import preset
from mbrl.agents import PETS, pets
from mbrl.parallel import cores
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.statistics import bootstrap_interval
from mbrl.training import Progress, RunConfig, evaluate, executor
from mbrl.training.checkpoint import Run, RunError, written_whole
from mbrl.training.executor import Stopped, Work
from mbrl.training.metrics import METRICS, read_metrics
from mbrl.training.runs import Loaded, changed, load_run, train_run, versions
from mbrl.types import Player

EVALUATION = 1_000_000
"""Added to a run's seed for its evaluation episodes, so that none of them was trained on."""


class Report(NamedTuple):
    """What a study found."""

    numbers: dict[str, Any]
    """All numbers in its figures and tables, and its settings; plain values."""
    text: str
    """The markdown page: tables, and what may be read from them."""


class Study(Protocol):
    """A study, ready to run."""

    def __call__(
        self,
        root: Path,
        *,
        seeds: int | None = None,
        workers: int | None = None,
        fast: bool = False,
        say: Callable[[str], None] = print,
    ) -> Path:
        """Run it, or go on with it, in the folder `root/name`; returns that folder.

        Args:
            root: where results go.
            seeds: how many; the study's own number if None.
            workers: processes at once; as many as cores if None.
            fast: a tiny version that shows that it works and nothing else.
            say: takes lines of progress.

        Raises:
            ValueError: no seed or no worker.
            RunError: a run folder that another config began, or that another process holds.
            KeyboardInterrupt: after the runs under way have been saved.
        """
        ...


@dataclasses.dataclass
class Lab:
    """Where a study works."""

    folder: Path
    seeds: int
    workers: int
    fast: bool
    say: Callable[[str], None]
    configs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The configs trained, by label; their seeds run from 0."""

    def pets(self, env: str, steps: int | None = None, **changes: Any) -> RunConfig:
        """The preset PETS run on an environment, with some settings of its config changed.

        A fast study trains for two episodes, the first a random one, with a tiny net and search.
        """
        world = envs.make(env)
        spec = spec_of(world)
        world.close()
        standard, agent = preset("pets", env, spec)
        agent = changed(agent, **changes)
        steps = steps or standard
        if self.fast:
            steps = 2 * (spec.episode_steps or 150)
            search = {"population": 8, "iterations": 1, "elites": 2}
            agent = changed(
                agent,
                random_steps=min(agent.random_steps, steps),
                model=dataclasses.replace(agent.model, hidden=(16,), epochs=5),
                planner=dataclasses.replace(agent.mpc.planner, **search),
            )
        return RunConfig("pets", env, 0, steps, "cpu", agent)

    def train(self, configs: Mapping[str, RunConfig]) -> dict[str, list[Path]]:
        """Train each config on every seed; the runs' folders by label, in order of seeds.

        A run whose folder is there goes on from its last checkpoint, and one that has come to
        its end is left as it is.

        Raises:
            RunError: a folder that another config began.
        """
        paths = {
            label: [self.folder / "runs" / f"{_file_name(label)}-{seed}" for seed in self._seeds()]
            for label in configs
        }
        work = {}
        for label, config in configs.items():
            self.configs[label] = {
                k: v for k, v in dataclasses.asdict(config).items() if k != "seed"
            }
            for seed, path in zip(self._seeds(), paths[label], strict=True):
                own = dataclasses.replace(config, seed=seed)
                if _reached(own, path) < own.steps:
                    name = f"train {label}, seed {seed}"
                    work[path] = Work(train_to_end, (own, path, name), name)
        executor.compute(work, workers=self.workers, say=self.say)
        return paths

    def answers(self, questions: Mapping[Any, Work]) -> dict[Any, Any]:
        """The functions' answers by key, each in a worker process; asked before, none is called.

        Answers are JSON values, kept in the folder. One is asked again when the function's
        name, its arguments, the versions or a run among the arguments have changed.
        """
        files = {key: self._answer_file(work) for key, work in questions.items()}
        kept = {key: _read(file) for key, file in files.items() if file.exists()}
        fresh = executor.compute(
            {key: work for key, work in questions.items() if key not in kept},
            workers=self.workers,
            say=self.say,
            done=lambda key, answer: write_json(files[key], answer),
        )
        return {key: kept[key] if key in kept else fresh[key] for key in questions}

    def means(self, answers: Mapping[Any, Sequence[float]], *key: Any) -> list[float]:
        """The mean of `answers[*key, seed]`, such as returns of episodes, for each seed."""
        return [float(np.mean(answers[*key, seed])) for seed in self._seeds()]

    def _seeds(self) -> range:
        return range(self.seeds)

    def _answer_file(self, work: Work) -> Path:
        arguments = [
            (argument.name, Run.open(argument).config, Run.open(argument).latest())
            if isinstance(argument, Path)
            else argument
            for argument in work.arguments
        ]
        question = repr((work.function.__qualname__, arguments, versions()))
        mark = hashlib.sha256(question.encode()).hexdigest()[:12]
        return self.folder / "answers" / f"{_file_name(work.name)}-{mark}.json"


def study(experiment: Callable[[Lab], Report], *, seeds: int, fast_seeds: int = 1) -> Study:
    """A study from its experiment, with its own number of seeds."""
    made = partial(_run, experiment, seeds, fast_seeds)
    made.__doc__ = experiment.__doc__
    return made


def _run(
    experiment: Callable[[Lab], Report],
    own_seeds: int,
    fast_seeds: int,
    root: Path,
    *,
    seeds: int | None = None, workers: int | None = None, fast: bool = False,
    say: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    seeds = (fast_seeds if fast else own_seeds) if seeds is None else seeds
    workers = cores() if workers is None else workers
    for name, value in (("seeds", seeds), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    name = experiment.__name__
    lab = Lab(Path(root) / name, seeds, workers, fast, say)
    began = time.perf_counter()
    report = experiment(lab)
    results = {
        "study": name,
        "seeds": seeds,
        "fast": fast,
        "versions": versions(),
        "configs": lab.configs,
        "numbers": report.numbers,
    }
    write_json(lab.folder / "results.json", results)
    warning = "A fast version: it shows that the study runs, and nothing else.\n\n" if fast else ""
    with written_whole(lab.folder / "table.md") as file:
        file.write_text(f"{warning}{report.text.strip()}\n")
    say(report.text.strip())
    say(f"{name}: {lab.folder} after {time.perf_counter() - began:.0f} s")
    return lab.folder


def train_to_end(config: RunConfig, path: Path, name: str) -> None:
    """Train a run in a worker, from nothing or from its last checkpoint, telling each episode.

    Raises:
        Stopped: asked to; the run is saved.
    """
    seen = 0

    def callback(progress: Progress) -> None:
        nonlocal seen
        if len(progress.returns) > seen:
            seen = len(progress.returns)
            at = f"{progress.env_steps} of {config.steps}"
            executor.tell(f"{name}: step {at}, return {progress.returns[-1]:.1f}")

    train_run(
        config,
        path,
        make_env=envs.make,
        resume=path.exists(),
        stop=executor.stopping,
        callback=callback,
    )
    if executor.stopping():
        raise Stopped


def _reached(config: RunConfig, path: Path) -> int:
    """Environment steps of the run in a folder; -1 where there is none yet."""
    if not path.exists():
        return -1
    run = Run.open(path)
    if RunConfig.from_json(run.config) != config:
        raise RunError(f"{path} was begun with another config; remove it or name another --root")
    latest = run.latest()
    return -1 if latest is None else latest


def trained(path: Path, **changes: Any) -> tuple[Loaded, PETS]:
    """A run, and its model in an agent with some settings of its config changed."""
    loaded = load_run(path, make_env=envs.make)
    agent = changed(loaded.config.agent, **changes)
    other = pets.make(loaded.spec, agent, generator=generator(loaded.config.seed))
    other.model.load_state_dict(loaded.agent.model.state_dict())
    return loaded, other


class Interruptible:
    """A player that gives up when this worker is asked to stop.

    Raises:
        Stopped: from `act`.
    """

    def __init__(self, player: Player) -> None:
        self.player = player

    @property
    def each(self) -> Any:
        """The controllers of a player that plans, [] of others."""
        return getattr(self.player, "each", [])

    def reset(self, begins: np.ndarray) -> None:
        """Episodes begin."""
        self.player.reset(begins)

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """The player's actions (N, *A)."""
        if executor.stopping():
            raise Stopped
        return self.player.act(obs, explore=explore)


def stop_if_asked(_: object) -> None:
    """A drive's callback.

    Raises:
        Stopped: this worker is asked to stop.
    """
    if executor.stopping():
        raise Stopped


def final_returns(path: Path, episodes: int, changes: Mapping[str, Any]) -> list[float]:
    """Returns of a trained run's agent, with settings changed, over evaluation episodes."""
    loaded, agent = trained(path, **changes)
    seed = EVALUATION + int(path.name.rpartition("-")[2])
    player = Interruptible(agent.player(generator=torch.Generator().manual_seed(seed)))
    return evaluate(player, loaded.env, episodes=episodes, seed=seed)


def curve(path: Path, *, after: int = 0) -> tuple[list[int], list[float]]:
    """Environment steps and returns of a run's training episodes that end after so many steps."""
    lines = [s for s in read_metrics(path / METRICS, "episode") if s["env_steps"] > after]
    return [line["env_steps"] for line in lines], [line["return"] for line in lines]


def interval(scores: Sequence[float]) -> dict[str, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval, as the figures draw it."""
    return bootstrap_interval(scores, rng=np.random.default_rng(0))._asdict()


def summary(scores: Sequence[float]) -> dict[str, Any]:
    """What `results.json` says of scores (seeds,): each of them, and their `interval`."""
    return {"seeds": list(scores), **interval(scores)}


def shown(found: Mapping[str, float], digits: int = 1) -> str:
    """`estimate [low, high]`."""
    return "{estimate:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(**found, d=digits)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_json(path: Path, value: Any) -> None:
    """Write plain values, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in label.replace(", ", "-"))
