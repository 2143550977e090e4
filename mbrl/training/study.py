"""Studies: experiments over several seeds, with their numbers, a page and figures in a folder.

A study is a function of a `Lab` that returns a `Report`; `study` makes it callable with a folder:

    def small(lab):
        paths = lab.train({"pets": config})
        found = lab.answers(
            {seed: Work(final_returns, (path, 5, {}, gymnasium.make), f"evaluate, seed {seed}")
             for seed, path in enumerate(paths["pets"])}
        )
        returns = summary([mean(found[seed]) for seed in found])
        return Report({"return": returns}, f"# Returns\n\n{shown(returns)}")

    study(small, seeds=5, lab=partial(Lab, make_env=gymnasium.make))(Path("results"))

Called again, it continues from the runs and the results that are in its folder.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from mbrl.statistics import bootstrap_interval
from mbrl.training.checkpoint import Run, write_json, written_whole
from mbrl.training.collect import evaluate
from mbrl.training.executor import Executor, Processes, Work
from mbrl.training.run_config import MakeEnv, RunConfig, versions
from mbrl.training.runs import Loaded, load_run, with_settings
from mbrl.training.seeds import Interruptible, train_all
from planners.checks import PositiveInt, check_fields

EVALUATION = 1_000_000
"""Added to a run's seed for its evaluation episodes, so that none of them was trained on."""


class Report(NamedTuple):
    """The results of a study."""

    numbers: dict[str, Any]
    """All numbers of its figures and tables, and its settings, as plain values."""
    text: str
    """The page in Markdown: tables and their interpretation."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The table's rows, all with the same keys, for `table.csv`; no such file if empty."""


class Study(Protocol):
    """A study, ready to run."""

    def __call__(
        self,
        root: Path,
        *,
        seeds: int | None = None,
        workers: int | None = None,
        fast: bool = False,
        only: Sequence[str] = (),
        data: Path | None = None,
        say: Callable[[str], None] = print,
        executor: Executor | None = None,
    ) -> Path:
        """Run or continue the study in the folder `root/name`, which is returned.

        Args:
            root: parent folder of the results.
            seeds: number of seeds; the study's default if None.
            workers: number of workers; as many as the executor has if None.
            fast: whether to run a tiny version, which only shows that the study runs.
            only: parts of names of runs; of a study with many runs, those whose name has one of
                these parts are made and shown (see `Lab.chosen`). All if empty.
            data: folder of the data of a study that reads some; the study's own data if None.
            say: called with each line of progress.
            executor: does the work; `Processes()`, on this machine, if None.

        Raises:
            ValueError: `seeds` or `workers` below one; `only` of a study that is made whole, or
                with a part that no run's name has; `data` of a study that reads none.
            RunError: a folder with a run of another config, or one that another process writes.
            KeyboardInterrupt: after the current runs have been saved.
        """
        ...


@dataclasses.dataclass
class Lab:
    """Trains the runs of a study on every seed and evaluates them, in worker processes."""

    folder: Path
    """Folder of the results."""
    seeds: PositiveInt
    """Number of seeds, which are 0, 1, ..."""
    workers: PositiveInt | None
    """Number of workers; as many as the executor has if None."""
    fast: bool
    """Whether to run a tiny version, which only shows that the study runs."""
    say: Callable[[str], None]
    """Called with each line of progress."""
    make_env: MakeEnv
    """Makes the environments of runs; importable by name, such as `gymnasium.make`."""
    configs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The configs trained so far, by label and without seeds, for `results.json`."""
    executor: Executor = dataclasses.field(default_factory=Processes)
    """Does the work."""
    only: Sequence[str] = ()
    """Parts of the names of the runs that are wanted; all if empty."""
    data: Path | None = None
    """Folder of the data that the study reads; its own data if None."""

    def __post_init__(self) -> None:
        check_fields(self)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """The names with one of the parts in `only`; all of them if it is empty.

        A part that is one or more whole words of a name means only names with these words: of
        "actor-critic CartPole" and "off-policy-actor-critic CartPole", "actor-critic" is the first.

        Raises:
            ValueError: a part that no name has.
        """
        names = list(names)
        wanted: set[str] = set() if self.only else {*names}
        for part in self.only:
            whole = [name for name in names if f" {part} " in f" {name} "]
            found = whole or [name for name in names if part in name]
            if not found:
                raise ValueError(f"no run has {part!r} in its name; there are {', '.join(names)}")
            wanted |= {*found}
        return [name for name in names if name in wanted]

    def train(self, configs: Mapping[str, RunConfig]) -> dict[str, list[Path]]:
        """Train each config on every seed; returns the runs' folders by label, in order of seeds.

        A run whose folder exists continues from its last checkpoint; a finished one is not changed.

        Raises:
            RunError: a folder with a run of another config.
        """
        paths = {
            label: [self.folder / "runs" / f"{_file_name(label)}-{seed}" for seed in self._seeds()]
            for label in configs
        }
        work = {}
        for label, config in configs.items():
            own = dataclasses.asdict(config)
            self.configs[label] = {k: v for k, v in own.items() if k != "seed"}
            for seed, path in zip(self._seeds(), paths[label], strict=True):
                name = f"train {label}, seed {seed}"
                work[path] = name, dataclasses.replace(config, seed=seed)
        train_all(
            work,
            make_env=self.make_env,
            workers=self.workers,
            say=self.say,
            executor=self.executor,
        )
        return paths

    def answers(self, questions: Mapping[Any, Work]) -> dict[Any, Any]:
        """Results of functions by key, computed in worker processes or read from the folder.

        Results must be JSON values, and are stored in the folder. One is computed again if the
        function's name, its arguments, the software versions or a run among the arguments have
        changed.
        """
        files = {key: self._answer_file(work) for key, work in questions.items()}
        kept = {key: json.loads(file.read_text()) for key, file in files.items() if file.exists()}
        fresh = self.executor.compute(
            {key: work for key, work in questions.items() if key not in kept},
            workers=self.workers,
            say=self.say,
            done=lambda key, answer: write_json(files[key], answer),
        )
        return {key: kept[key] if key in kept else fresh[key] for key in questions}

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
        digest = hashlib.sha256(question.encode()).hexdigest()[:12]
        return self.folder / "answers" / f"{_file_name(work.name)}-{digest}.json"


AnyLab = TypeVar("AnyLab", bound=Lab)


def study(
    experiment: Callable[[AnyLab], Report],
    *,
    seeds: int,
    fast_seeds: int = 1,
    choice: bool = False,
    data: bool = False,
    lab: Callable[..., AnyLab],
) -> Study:
    """A study from its experiment; its folder has the name of the function.

    Args:
        experiment: trains and evaluates with a lab, and returns a report.
        seeds: default number of seeds.
        fast_seeds: default number of seeds of the fast version.
        choice: whether the experiment makes only the runs that `Lab.chosen` gives it.
        data: whether the experiment reads the data in `Lab.data`.
        lab: makes the lab from folder, seeds, workers, fast and say, and `executor=`, `only=`,
            `data=`.
    """
    made = partial(_run, experiment, seeds, fast_seeds, choice, data, lab)
    made.__doc__ = experiment.__doc__
    return made


def _run(
    experiment: Callable[[Any], Report],
    own_seeds: int,
    fast_seeds: int,
    choice: bool,
    reads: bool,
    make_lab: Callable[..., Lab],
    root: Path,
    *,
    seeds: int | None = None, workers: int | None = None, fast: bool = False,
    only: Sequence[str] = (), data: Path | None = None, say: Callable[[str], None] = print,
    executor: Executor | None = None,
) -> Path:  # fmt: skip
    if only and not choice:
        raise ValueError(f"the study {experiment.__name__} is made whole: it has no choice of runs")
    if data is not None and not reads:
        raise ValueError(f"the study {experiment.__name__} reads no data, got the folder {data}")
    seeds = (fast_seeds if fast else own_seeds) if seeds is None else seeds
    name = experiment.__name__
    where = {"executor": executor or Processes(), "only": only, "data": data}
    lab = make_lab(Path(root) / name, seeds, workers, fast, say, **where)
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
    warning = "A fast version: it only shows that the study runs.\n\n" if fast else ""
    with written_whole(lab.folder / "table.md") as file:
        file.write_text(f"{warning}{report.text.strip()}\n")
    if report.rows:
        with (
            written_whole(lab.folder / "table.csv") as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(report.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(report.rows)
    say(report.text.strip())
    say(f"{name}: {lab.folder} after {time.perf_counter() - began:.0f} s")
    return lab.folder


def trained(path: Path, *, make_env: MakeEnv, **changes: Any) -> tuple[Loaded, Any]:
    """A run, and an agent with its model and with some settings changed.

    Raises what `load_run` and `with_settings` raise.
    """
    loaded = load_run(path, make_env=make_env)
    return loaded, with_settings(loaded, **changes)


def final_returns(
    path: Path, episodes: int, changes: Mapping[str, Any], make_env: MakeEnv
) -> list[float]:
    """Returns of a trained run's agent, with settings changed, over evaluation episodes.

    `path` is a folder of `Lab.train`, whose name ends in the seed.
    """
    loaded, agent = trained(path, make_env=make_env, **changes)
    seed = EVALUATION + int(path.name.rpartition("-")[2])
    player = Interruptible(agent.player(generator=torch.Generator().manual_seed(seed)))
    return evaluate(player, loaded.env, episodes=episodes, seed=seed)


def interval(scores: Sequence[float]) -> dict[str, float]:
    """Interquartile mean over seeds and its 95 % bootstrap interval, as the figures draw it."""
    return bootstrap_interval(scores, rng=np.random.default_rng(0))._asdict()


def summary(scores: Sequence[float]) -> dict[str, Any]:
    """The entry in `results.json` for scores (seeds,): each of them, and their `interval`."""
    return {"seeds": list(scores), **interval(scores)}


def shown(found: Mapping[str, float], digits: int = 1) -> str:
    """`estimate [low, high]`."""
    return "{estimate:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(**found, d=digits)


def shown_mean(mean: float, error: float) -> str:
    """A mean and its 95 % interval by the normal approximation, from its standard error."""
    return shown({"estimate": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error})


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in label.replace(", ", "-"))
