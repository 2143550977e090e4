# ruff: noqa: E501, SIM905
"""Bad invocations of the command, each with what it should do: `python -m tests.bad_inputs`.

A case passes where the exit status is right, stderr is one line `mbrl: ...` with the culprit,
stdout is empty, nothing but what the case allows has changed in the working folder, and all this
within a minute. `python -m tests.bad_inputs WORD...` runs the cases whose names have one of the
words.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import hashlib
import importlib
import io
import itertools
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 60  # s


@dataclass(frozen=True)
class Case:
    """One invocation in a folder that holds the runs `run`, `other` (PETS) and `rnd` (random)."""

    name: str
    args: tuple[str, ...]
    says: str
    """Part of the line on stderr."""
    spoil: Callable[[], object] | None = None
    """Called in the working folder before; what it gives back is closed afterwards."""
    status: tuple[int, ...] = (2,)
    writes: tuple[str, ...] = ()
    """Names in the working folder in which anything may be written."""
    progress: bool = False
    """Lines before the last one on stderr are progress."""
    shell: str = ""
    """A line of sh in a process of its own, in which $mbrl is the command; `args` is then empty."""


class Hang(BaseException):
    """A case took longer than `LIMIT`."""


CASES: list[Case] = []


def add(name: str, line: str | list[str], says: str, spoil=None, **more) -> None:
    args = tuple(line.split(" ") if isinstance(line, str) else line)
    CASES.append(Case(name, args, says, spoil, **more))


# What is spoilt ------------------------------------------------------------------------------


def text(path: str, content: str | bytes) -> Callable[[], None]:
    def spoil() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def config(**changes) -> Callable[[], None]:
    """run/config.json with other values; a name a__b stands for b in a."""

    def spoil() -> None:
        file = Path("run/config.json")
        whole = json.loads(file.read_text())
        for name, value in changes.items():
            *outer, last = name.split("__")
            at = whole
            for each in outer:
                at = at[each]
            at[last] = value
        file.write_text(json.dumps(whole))

    return spoil


def checkpoint() -> Path:
    return next(path for path in Path("run/checkpoints").iterdir() if path.name.isdigit())


def at_checkpoint(work: Callable[[Path], object]) -> Callable[[], object]:
    return lambda: work(checkpoint())


def flip(name: str, share: float) -> Callable[[], object]:
    def work(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(share * (len(data) - 1))] ^= 1
        (folder / name).write_bytes(data)

    return at_checkpoint(work)


def cut(name: str, share: float) -> Callable[[], object]:
    def work(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return at_checkpoint(work)


def swap(name: str) -> Callable[[], object]:
    return at_checkpoint(lambda f: shutil.copy(Path("other/checkpoints") / f.name / name, f / name))


def linked(path: str, target: str = "elsewhere", *, hard: bool = False, folder: bool = False):
    def spoil() -> None:
        place, aim = Path(path), Path(target)
        if not aim.exists():
            aim.mkdir() if folder else aim.write_text("mine\n")
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        os.link(aim, place) if hard else place.symlink_to(aim.absolute())

    return spoil


def replaced(path: str, by: Callable[[str], object]) -> Callable[[], None]:
    def spoil() -> None:
        place = Path(path)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        by(path)

    return spoil


def saved(place: str, value: object) -> Callable[[], None]:
    """Another value in the state of the checkpoint, with digests that fit."""

    def spoil() -> None:
        from mbrl.training import Run

        run = Run.open(Path("run"))
        state = run.load()
        *outer, last = place.split("/")
        at = state
        for each in outer:
            at = at[int(each) if isinstance(at, list) else each]
        key = int(last) if isinstance(at, list) else last
        at[key] = value(at[key]) if callable(value) else value
        run.save(run.latest(), state)

    return spoil


def weights(value: float) -> Callable[[], None]:
    def broken(model):
        name = next(n for n, t in model.items() if t.numel() and t.is_floating_point())
        model[name] = model[name].clone()
        model[name].view(-1)[0] = value
        return model

    return saved("agent/model", broken)


def metrics(line: bytes, where: int = -1) -> Callable[[], None]:
    def spoil() -> None:
        file = Path("run/metrics.jsonl")
        lines = file.read_bytes().splitlines(keepends=True)
        lines.insert(len(lines) if where < 0 else where, line + b"\n")
        file.write_bytes(b"".join(lines))

    return spoil


@contextlib.contextmanager
def limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(*paths: str) -> Iterator[None]:
    """These folders take no new files, for root neither, which gives its rights up meanwhile."""
    kept = [(path, os.stat(path).st_mode) for path in paths]
    for path in paths:
        os.chmod(path, 0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        for path, mode in kept:
            os.chmod(path, mode)


def now(manager: Callable[[], contextlib.AbstractContextManager]) -> Callable[[], object]:
    """A spoiling that lasts as long as the case."""

    def spoil() -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(manager())
        return stack

    return spoil


def both(*spoils: Callable[[], object]) -> Callable[[], object]:
    def spoil() -> object:
        return [each() for each in spoils][-1]

    return spoil


def held() -> object:
    """Another process writes the run."""
    stack = contextlib.ExitStack()
    from mbrl.training import Run

    stack.enter_context(Run.open(Path("run")))
    return stack


# Numbers -------------------------------------------------------------------------------------

HUGE = str(10**30)
NO_INTEGER = ["x", "", "nan", "1.5", HUGE, "1e3", "None None"]
NO_NUMBER = ["x", "", "nan", "inf", "-inf", "1e999", "0x10"]


def numbers(command: str, options: dict[str, list[str]], **more) -> None:
    """Each option with each of its bad values; the line names the option."""
    for option, values in options.items():
        for value in values:
            name = f"{command.split(' --')[0]} --{option} {value[:14]!r}"
            start = command.split(f" --{option} ")[0].split()  # without this option
            says = f"{option.rpartition('.')[2]}"
            add(name, [*start, f"--{option}={value}"], says, **more)


MPC = "mpc --env pendulum-swingup --steps 1"
numbers(
    MPC,
    {
        "seed": ["-1", "x", HUGE],
        "seeds": ["0", "-3", "1.5", str(10**21)],
        "steps": ["0", "-1", "ten", HUGE],
        "threads": ["0", "-1", "99999", "x"],
        "members": ["0", "-2", "x", "100000000"],
        "device": ["cpu", "gpu", ""],
        "delay": ["-1", "0", str(10**12), "x"],
        "replan-every": ["-1", "x", HUGE],
        "action-repeat": ["0", "-1", HUGE],
        "budget-ms": ["nan", "inf", "-1", "x"],
        "particles": ["0", "-2", "x", HUGE],
        "propagation": ["", "ts2", "TS1"],
        "objective": ["", "cvar:", "cvar:0", "cvar:2", "cvar:nan", "mean-std:inf", "mean+std:x",
                      "worst:1", "best", "cvar:0.1:2", "mean-std:-1"],
        "penalty": ["nan", "inf", "-1"],
        "discount": ["0", "-1", "1.5", "nan", "inf"],
        "terminal": ["nan", "inf", "-1", "x"],
        "planner.horizon": ["0", "-1", "1.5", "nan", "10000000000", HUGE],
        "planner.population": ["0", "-1", "x", "100000000000"],
        "planner.iterations": ["0", "-1", "1000000001", "x"],
        "planner.elites": ["0", "-1", "x", "1000000"],
        "planner.knots": ["-1", "x", "0", "1000"],
        "planner.interpolation": ["", "quintic"],
        "planner.sigma": ["0", "-1", "nan", "inf"],
        "planner.beta": ["-1", "nan", "inf"],
        "planner.momentum": ["-0.1", "1", "nan"],
        "planner.answer": ["", "median"],
        "randomisation.mass": ["-1", "nan", "inf", "x"],
        "randomisation.friction": ["-1", "nan"],
        "randomisation.gain": ["-0.5", "inf"],
    },
)  # fmt: skip
numbers(
    "tree --env frozen-lake",
    {
        "simulations": ["0", "-1", "x", "1000000000", HUGE],
        "rule": ["", "mcts", "UCT"],
        "discount": ["0", "-0.5", "1.0001", "nan", "inf"],
        "backup": ["", "min"],
        "seed": ["-1", "x", HUGE],
        "steps": ["-1", "1.5", HUGE],
        "rollouts": ["0", "-1", "x", HUGE],
        "depth": ["0", "-1", "x", HUGE],
        "samples": ["0", "-4", HUGE],
        "nodes": ["0", "-1", "x", HUGE],
        "threads": ["0", "2000"],
    },
)
TRAIN = "train pets --env pendulum-swingup --steps 30"
numbers(
    TRAIN,
    {
        "steps": ["0", "-1", "x", "1.5", HUGE],
        "seed": ["-1", "x", HUGE],
        "num-envs": ["0", "-1", "100000", "x", HUGE],
        "threads": ["0", "-2"],
        "checkpoint-every": ["0", "-1", "x", HUGE],
        "device": ["gpu", "", "cuda:99", "meta", "foo", "\x1b[31m", "d" * 3000],
        "random-steps": ["-1", "x", HUGE],
        "fit-every": ["-1", "0", "x"],
        "capacity": ["0", "-1", str(10**12), HUGE, "x"],
        "particles": ["0", "3", "x"],
        "objective": ["cvar:", "mean-std:inf", "median"],
        "penalty": ["nan"],
        "planner.horizon": ["0", "x", "10000000"],
        "model.members": ["0", "-1", "x"],
        "model.batch": ["0", "-1", "x"],
        "model.optimiser": ["sgd", ""],
        "model.learning-rate": ["nan", "inf", "0", "-1e-3", "x"],
        "model.epochs": ["-1", "x", HUGE],
        "model.patience": ["-1", "x"],
        "model.improvement": ["nan", "inf", "x"],
        "model.elites": ["0", "-1", "99"],
        "model.holdout": ["-0.1", "1", "nan"],
        "model.holdout-max": ["-1", "x"],
        "model.bound-weight": ["nan", "-1", "inf"],
        "model.beta-nll": ["-1", "inf", "nan"],
        "model.activation": ["", "rel", "\x1b[2J"],
        "model.weight-decay": ["-1", "nan", "inf"],
        "model.hidden": ["0", "-8", "x", HUGE],
    },
)
numbers(
    "evaluate run",
    {
        "episodes": ["0", "-1", "x", "1.5", HUGE, ""],
        "seed": ["-1", "x", HUGE],
        "steps": ["0", "-1", "x", HUGE],
        "device": ["gpu", "", "cuda:7", "meta", "\x1b[31m"],
        "threads": ["0", "x"],
    },
)
numbers(
    "plot run",
    {"episodes": ["0", "-1", "x", HUGE], "seed": ["-1", "x", HUGE], "device": ["gpu", ""]},
)
numbers("train --resume=run", {"device": ["gpu", "", "cuda:7", "meta"]})
numbers("compare run", {"last": ["0", "-1", "x", HUGE], "threads": ["0"]})
numbers(
    "study bandits --fast",
    {
        "seeds": ["0", "-1", "x", str(10**21), "1.5"],
        "workers": ["0", "-1", "x", HUGE],
        "executor": ["", "slurm", "Ray"],
        "threads": ["0"],
    },
)
numbers("bench collect", {"repeats": ["0", "-1", "x", HUGE], "threads": ["0", "x"]})
add("two huge layers", [*TRAIN.split(), "--model.hidden", "1000000", "1000000"], "layers of")
add("huge members", [*TRAIN.split(), "--model.members", "10000000"], "10000000 nets")
add("no layer", [*TRAIN.split(), "--model.hidden", "8", "0"], "hidden")
add("decay list", [*TRAIN.split(), "--model.weight-decay", "1", "2", "3", "4", "5", "6", "7"],
    "weight_decay")  # fmt: skip

# Names, options, places ----------------------------------------------------------------------

STRANGE = ["", " ", "no-such", "\x1b[31mx", "[/x]", "..", ".x", "ünïcode", "a" * 5000, "a\nb", "-"]


def culprit(name: str) -> str:
    """What a line must have of a name: all of it where it is short and prints as it is."""
    return name if name.isprintable() and 1 < len(name) < 50 and name.strip() == name else ""


COMMANDS = ["mpc", "tree", "train", "evaluate", "plot", "compare", "study", "bench", "list"]
for name in [*STRANGE, "trian", "MPC", "--seed", "-x"]:
    add(f"command {name[:12]!r}", [name], "unknown command")
for name in STRANGE:
    add(f"algorithm {name[:12]!r}", ["train", name], culprit(name))
    add(f"run of evaluate {name[:12]!r}", ["evaluate", name], culprit(name))
    add(f"run of plot {name[:12]!r}", ["plot", "run", name], culprit(name))
    add(f"run of compare {name[:12]!r}", ["compare", "run", name], culprit(name))
    add(f"run of resume {name[:12]!r}", ["train", f"--resume={name}"], culprit(name))
    add(f"study {name[:12]!r}", ["study", name], culprit(name))
    add(f"benchmark {name[:12]!r}", ["bench", name], culprit(name))
    add(f"list {name[:12]!r}", ["list", name], culprit(name))
    add(f"shell {name[:12]!r}", ["completion", name], culprit(name))
    add(f"planner {name[:12]!r}", ["mpc", f"--planner={name}", "--steps=1"], "planner")
    add(f"module {name[:12]!r}", ["list", "algorithms", f"--module={name}"], "--module")
ENVS = [*STRANGE, ":Pendulum-v1", "..:Pendulum-v1", ".x:Y", "nomodule:X-v0", "json:X-v0", "json:",
        "Pendulum", "pendulum-v1", "cartpole-swing", "CartPole-v1", "wet-chicken", "Blackjack-v1",
        "[bold]x[/bold]", "json:dumps", "a b:C", "json:\x1b[31m"]  # fmt: skip
for name in ENVS:
    shown = name[:16]
    add(f"env of mpc {shown!r}", ["mpc", f"--env={name}", "--steps=1"], culprit(name))
    discrete = name in ("CartPole-v1", "Blackjack-v1")  # the line names their spaces
    add(
        f"env of train {shown!r}",
        ["train", "pets", f"--env={name}", "--steps=30"],
        "Discrete" if discrete else culprit(name),
    )
    if name not in ("CartPole-v1", "wet-chicken"):
        add(f"env of tree {shown!r}", ["tree", f"--env={name}"], culprit(name))
del CASES[[c.name for c in CASES].index("env of train 'wet-chicken'")]
for command in COMMANDS:
    base = {
        "mpc": ["mpc", "--env=pendulum-swingup", "--steps=1"],
        "tree": ["tree", "--env=frozen-lake", "--simulations=4"],
        "train": ["train", "random", "--env=pendulum-swingup", "--steps=5"],
        "study": ["study", "dyna", "--fast", "--seeds=1"],
        "bench": ["bench", "collect"],
    }
    start = base.get(command, [command])
    if command in ("evaluate", "plot", "compare"):
        start = [command, "run"]
    for option in ["--no-such", "--sede=1", "--=", "---", "-z", "--\x1b[31m", "--seed.x=1"]:
        add(f"{command} {option}", [*start, option], "")
    add(f"{command} --threads without a value", [*start, "--threads"], "--threads")
    add(f"{command} --root without a value", [*start, "--root"], "--root")
    add(f"{command} --json=maybe", [*start, "--json=maybe"], "maybe")
    add(f"{command} --threads twice", [*start, "--threads", "1", "--threads=2"], "--threads")
    add(f"{command} --module without a value", [*start, "--module"], "--module")
    if command not in ("mpc", "tree", "train"):
        continue
    add(f"{command} a word too many", [*start, "stray"], "stray")
    add(f"{command} --seed twice", [*start, "--seed", "1", "--seed=1"], "--seed")
    add(f"{command} --env twice", [*start, "--env=Reacher-v5"], "--env")
add("list two", "list envs runs", "runs")
add("completion two", "completion bash zsh", "zsh")
add("study two", "study bandits dyna", "dyna")
add("evaluate two", "evaluate run other", "other")
add("planner twice", "mpc --steps 1 --planner cem --planner mppi", "planner")
add(
    "a setting that cem lacks", "mpc --planner cem --planner.temperature 1 --steps 1", "temperature"
)
add(
    "a setting that ilqr lacks", "mpc --planner ilqr --planner.population 9 --steps 1", "population"
)
add("more elites than candidates",
    "mpc --planner cem --planner.elites 9 --planner.population 4 --steps 1", "elites")  # fmt: skip
add("no studies", "study", "study")
add("no runs", "compare", "run")
add("labels too few", "compare run other --label a", "--label")
add("labels too many", "compare run --label a b", "--label")
add("runs of two environments", "compare run far", "env")
add("latest where none is", "evaluate latest --root empty", "empty")
add("latest, root a file", "evaluate latest --root file", "file")
add("resume latest, no root", "train --resume latest --root gone", "gone")
add("resume and an option of a new run", "train --resume run --env Pendulum-v1", "--env")
add("resume to fewer steps", "train --resume run --steps 5", "--steps 5")
add("resume with a seed", "train --resume run --seed 3", "--seed")
add("resume with an algorithm", "train pets --resume run", "pets")
add("resume of no run", "train --resume empty", "empty")
add("train without an algorithm", "train --env Pendulum-v1", "algorithm")
add("log nowhere", "train random --steps 5 --log mlflow", "mlflow")
add("log to what is not installed", "train random --steps 5 --log wandb --run new", "wandb")
add("ray without a cluster", "study bandits --fast --executor ray --address nowhere:1", "")
add("address without ray", "study bandits --fast --address nowhere:1 --seeds 1", "address")
# only in the working folder, and in /proc, where nobody can make anything: what is taken by
# mistake must not harm the machine
for out in ["run", "file", "file/x", "/proc/mbrl", "pipe", "pipe/x", "\0", "a" * 300, ""]:
    shown = out[:10]
    add(f"out of mpc {shown!r}", ["mpc", "--steps=1", f"--out={out}"], culprit(out))
    add(f"out of tree {shown!r}", ["tree", f"--out={out}", "--simulations=4"], culprit(out))
    add(f"run of train {shown!r}", ["train", "random", "--steps=5", f"--run={out}"], culprit(out))
    if out != "file":
        add(f"out of compare {shown!r}", ["compare", "run", f"--out={out}"], culprit(out))
    add(f"root of mpc {shown!r}", ["mpc", "--steps=1", f"--root={out}"], culprit(out))if out not in (
        "run", "") else None  # fmt: skip
for out in ["file", "file/x", "/proc/mbrl", "pipe", "\0"]:
    add(
        f"out of study {out!r}",
        ["study", "dyna", "--fast", "--seeds=1", f"--out={out}"],
        culprit(out),
    )
    add(f"out of bench {out!r}", ["bench", "collect", "--repeats=1", f"--out={out}"], culprit(out))
    add(f"root of train {out!r}", ["train", "random", "--steps=5", f"--root={out}"], culprit(out))
add("model of mpc is no run", "mpc --model gone --steps 1", "gone")
add("model of mpc is a file", "mpc --model file --steps 1", "file")
add("model of mpc is a random agent's", "mpc --env pendulum-swingup --model rnd --steps 1", "rnd")
add("model of mpc is of another task", "mpc --env Reacher-v5 --model run --steps 1", "run")
add("members of a learned model", "mpc --env cartpole-swingup --model run --members 3 --steps 1",
    "members")  # fmt: skip
add("viewer of gymnasium's task", "mpc --env Pendulum-v1 --viewer --steps 1", "")
for port in ["-1", "0x", "70000", HUGE, "1.5"]:
    add(
        f"viewer port {port[:8]}", ["mpc", "--viewer", "--steps=1", f"--viewer-port={port}"], "port"
    )
add("names of actions too few", "tree --env frozen-lake --actions up", "actions")
add("names of actions too many", "tree --env frozen-lake --actions a b c d e f", "actions")
add("a discount that the world lacks", "tree --env wet-chicken", "wet-chicken")

# Runs of strangers ---------------------------------------------------------------------------

READERS = {
    "evaluate": "evaluate run --episodes 1",
    "plot": "plot run --episodes 1",
    "resume": "train --resume run --steps 180",
    "compare": "compare run --out c.png",
    "mpc": "mpc --env cartpole-swingup --model run --steps 1 --out drive",
}
BYTES = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"x"',
    "binary": bytes(range(256)),
    "truncated": b'{"algo": "pets", "env": ',
    "nested": b"[" * 10_000 + b"]" * 10_000,
    "nested objects": b'{"a":' * 10_000,
    "digits": b'{"algo": "pets", "seed": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"algo": "pets"}'.encode("utf-16"),
    "mark": b"\xef\xbb\xbf{}",
    "large": b" " * 2_000_000,
    "NaN": b'{"seed": NaN}',
    "twice": b"{}{}",
    "no field": b"{}",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
}
readers = itertools.cycle(READERS)
for name, data in BYTES.items():
    for reader in (next(readers), next(readers)):
        add(f"config {name}: {reader}", READERS[reader], "run/config.json",
            text("run/config.json", data))  # fmt: skip
FIELDS = {
    "algo": [["pets"], 3, None, "", "pest", "\x1b[31m", "x" * 9000, {"a": 1}, "evil:Agent", "mpc"],
    "env": [
        3,
        None,
        [],
        "",
        "no-such",
        "evil:X-v0",
        "\x1b[2J",
        "cartpole-swingup\n",
        "Pendulum-v1",
    ],
    "seed": ["0", 0.5, True, -1, None, 10**30, [1]],
    "steps": [0, -5, "x", 10**30, 1.5, None, False],
    "device": ["foo", "meta", "cuda:99", "", 3, None, "\x1b[31m"],
    "num_envs": [0, -1, 10**9, "1", None],
    "colour": [3],
    "agent": [[], None, 3, "x"],
    "agent__capacity": ["many", 0, -1, 10**30, 10**15, None, 1.5],
    "agent__no_such": [1],
    "agent__model": [[], None, 7, {"hidden": 8}],
    "agent__model__hidden": [8, [], [0], ["x"], [10**9, 10**9], [10**30], None],
    "agent__model__members": [0, -1, 10**9, "2"],
    "agent__model__learning_rate": [0, -1, "x", None],
    "agent__model__activation": ["", "rel", 3, "\x1b[31m"],
    "agent__model__weird": ["x"],
    "agent__mpc__particles": [0, -2, "x", 10**30],
    "agent__mpc__objective": ["cvar:", "", 3, "\x1b[31m"],
    "agent__mpc__planner": [None, [], "cem"],
    "agent__mpc__planner__name": ["evil:P", "", 3, "no", "\x1b[31m"],
    "agent__mpc__planner__horizon": [0, "x", 10**30, 10**9],
    "agent__mpc__propagation": ["x", None],
}
for name, values in FIELDS.items():
    for value in values:
        # compare needs neither the device nor the environment
        reader = next(r for r in readers if r != "compare" or name not in ("device", "env"))
        shown = str(value)[:12]
        add(f"config {name}={shown!r}: {reader}", READERS[reader], "run", config(**{name: value}))

FILES = ("model.safetensors", "state.pt", "digests.json")
for name in FILES:
    for share in (0.0, 0.01, 0.3, 0.9, 1.0):
        reader = next(r for r in readers if r != "compare")
        add(
            f"bit {share} of {name}: {reader}",
            READERS[reader],
            "run/checkpoints",
            flip(name, share),
        )
    for share in (0.0, 0.5, 0.99):
        reader = next(r for r in readers if r != "compare")
        add(
            f"{name} cut at {share}: {reader}", READERS[reader], "run/checkpoints", cut(name, share)
        )
    reader = next(r for r in readers if r != "compare")
    add(f"{name} swapped: {reader}", READERS[reader], "run/checkpoints", swap(name))
    add(f"{name} missing: evaluate", READERS["evaluate"], name,
        at_checkpoint(lambda f, n=name: (f / n).unlink()))  # fmt: skip
    for kind, by in {
        "link": lambda p: Path(p).symlink_to(Path("file").absolute()),
        "folder": lambda p: Path(p).mkdir(),
        "pipe": os.mkfifo,
    }.items():
        add(f"{name} a {kind}: resume", READERS["resume"], name,
            at_checkpoint(lambda f, n=name, by=by: replaced(str(f / n), by)()))  # fmt: skip
add("all files swapped: evaluate", READERS["evaluate"], "another run",
    both(*(swap(name) for name in FILES)))  # fmt: skip
add("all files swapped: resume", READERS["resume"], "another run",
    both(*(swap(name) for name in FILES)))  # fmt: skip
add("a file too many", READERS["evaluate"], "extra", at_checkpoint(
    lambda f: (f / "extra").write_text("x")))  # fmt: skip
add("checkpoint of another name", READERS["evaluate"], "another step", at_checkpoint(
    lambda f: f.rename(f.with_name("999"))))  # fmt: skip
for value in (math.nan, math.inf, -math.inf):
    for reader in ("evaluate", "plot", "resume", "mpc"):
        add(f"weights {value}: {reader}", READERS[reader], "not finite", weights(value))
STATES = {
    "agent/generator": [3, "x", None],
    "agent/fits": ["1", None, -1],
    "agent/model": [[], None, {}],
    "agent/replay": [None, {}],
    "agent/replay/written": ["170", -1, 10**30],
    "agent/playing/each": [{}, ["x"]],
    "episodes": [None, [], {}],
    "episodes/steps": ["170", -1, None],
    "log_bytes": ["5", -1, 10**9],
}
for place, values in STATES.items():
    for value in values:
        reader = "resume" if place[0] != "a" else next(r for r in readers if r != "compare")
        add(
            f"state {place}={value!r}: {reader}",
            READERS[reader],
            "does not fit",
            saved(place, value),
        )
LINES = {
    "empty": b"", "blank": b"  ", "binary": b"\x00\xff\x80\x1b[31m", "null": b"null", "list": b"[1]",
    "half": b'{"kind": "episode", "env_st', "foreign": b'{"loss": 1}',
    "text for steps": b'{"kind": "episode", "env_steps": "1"}', "deep": b"[" * 20_000,
    "digits": b'{"kind": "episode", "env_steps": ' + b"9" * 5000 + b"}",
    "falling": b'{"kind": "episode", "env_steps": -1, "return": 1.0}',
}  # fmt: skip
for name, line in LINES.items():
    for reader in ("plot", "resume", "compare"):
        add(f"metrics {name}: {reader}", READERS[reader], "run/metrics.jsonl, line", metrics(line))
for value in ("null", '"12"', "[1]", "NaN", "Infinity", "true", "{}"):
    line = f'{{"kind": "episode", "env_steps": 900, "return": {value}}}'.encode()
    for reader in ("plot", "compare"):
        add(f"return {value}: {reader}", READERS[reader], "run/metrics.jsonl, line", metrics(line))
for name in ("metrics.jsonl", "timings.jsonl", ".lock", "config.json", "evaluation.json"):
    for reader in ("resume", "evaluate", "plot"):
        add(f"{name} a link: {reader}", READERS[reader], name, linked(f"run/{name}"))
    add(f"{name} a folder: resume", READERS["resume"], name, replaced(f"run/{name}", os.mkdir))
    add(f"{name} a pipe: resume", READERS["resume"], name, replaced(f"run/{name}", os.mkfifo))
for name in ("metrics.jsonl", "timings.jsonl", ".lock"):
    add(f"{name} a hard link: resume", READERS["resume"], name, linked(f"run/{name}", hard=True))
for name in ("checkpoints", "plots", "videos"):
    for reader in ("resume", "evaluate", "plot"):
        add(f"{name} a link: {reader}", READERS[reader], name, linked(f"run/{name}", folder=True))
        add(f"{name} a file: {reader}", READERS[reader], name,
            replaced(f"run/{name}", lambda p: Path(p).write_text("x")))  # fmt: skip
add("numbers.json a folder", READERS["plot"], "numbers.json",
    lambda: Path("run/plots/numbers.json").mkdir(parents=True))  # fmt: skip
add("no checkpoint: evaluate", READERS["evaluate"], "checkpoint",
    lambda: shutil.rmtree("run/checkpoints"))  # fmt: skip
add("no metrics: plot", READERS["plot"], "run", lambda: os.unlink("run/metrics.jsonl"))
add(
    "no metrics: resume", READERS["resume"], "metrics.jsonl", lambda: os.unlink("run/metrics.jsonl")
)
add("no metrics: compare", READERS["compare"], "run", lambda: os.unlink("run/metrics.jsonl"))
add("a run that is written: resume", READERS["resume"], "another process", held)
EVIL = "from pathlib import Path\nPath('ran').write_text('evil')\n"
for reader, line in READERS.items():
    for field in ("env", "algo"):
        add(f"a stranger's module in {field}: {reader}", line, "evil",
            both(text("evil.py", EVIL), config(**{field: "evil:X"})))  # fmt: skip
add("a stranger's planner: evaluate", READERS["evaluate"], "evil",
    both(text("evil.py", EVIL), config(agent__mpc__planner__name="evil:X")))  # fmt: skip
add("a stranger's model: evaluate", READERS["evaluate"], "evil",
    both(text("evil.py", EVIL), config(agent__model={"name": "evil:X"})))  # fmt: skip

# Parts of one's own --------------------------------------------------------------------------

PARTS = """
import gymnasium, numpy as np, torch, envs, planners
from dataclasses import dataclass

NUMBER = 3

class World(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.first(), {}
    def first(self):
        return np.zeros(2, np.float32)
    def step(self, action):
        self.t += 1
        if self.t < 3:
            return np.zeros(2, np.float32), 0.0, False, False, {}
        return self.answer()
    def answer(self):
        return np.zeros(2, np.float32), 0.0, False, self.t >= 20, {}

O = np.zeros(2, np.float32)
ANSWERS = {
    "ObsNone": (None, 0.0, False, False, {}), "ObsText": ("x", 0.0, False, False, {}),
    "ObsDict": ({"a": 1}, 0.0, False, False, {}), "ObsShape": (np.zeros(3, np.float32), 0.0, False, False, {}),
    "ObsScalar": (1.0, 0.0, False, False, {}), "ObsNaN": (O * np.nan, 0.0, False, False, {}),
    "ObsInf": (O + np.inf, 0.0, False, False, {}), "ObsComplex": (O + 1j, 0.0, False, False, {}),
    "RewardNone": (O, None, False, False, {}), "RewardText": (O, "1", False, False, {}),
    "RewardNaN": (O, float("nan"), False, False, {}), "RewardInf": (O, float("inf"), False, False, {}),
    "RewardShape": (O, np.zeros(1), False, False, {}), "RewardTwo": (O, np.zeros(2), False, False, {}),
    "RewardDict": (O, {}, False, False, {}),
    "EndNone": (O, 0.0, None, False, {}), "EndNaN": (O, 0.0, float("nan"), False, {}),
    "EndText": (O, 0.0, "no", False, {}), "CutNone": (O, 0.0, False, None, {}),
    "CutShape": (O, 0.0, False, np.zeros(2, bool), {}), "EndTwo": (O, 0.0, 2, False, {}),
    "Four": (O, 0.0, False, {}), "Six": (O, 0.0, False, False, {}, 1), "Nothing": None, "InfoNone": (O, 0.0, False, False, 3),
}
for _name, _answer in ANSWERS.items():
    globals()[_name] = type(_name, (World,), {"answer": lambda self, a=_answer: a})
FIRSTS = {"FirstNone": None, "FirstText": "x", "FirstShape": np.zeros((2, 2), np.float32), "FirstNaN": O * np.nan}
for _name, _first in FIRSTS.items():
    globals()[_name] = type(_name, (World,), {"first": lambda self, a=_first: a})

class StepRaises(World):
    def answer(self): raise KeyError("engine\\nfailed \\x1b[31m")
class ResetRaises(World):
    def first(self): raise RuntimeError("no start")
class ResetAlone(World):
    def reset(self, *, seed=None, options=None): return np.zeros(2, np.float32)
class InitRaises(World):
    def __init__(self, **kwargs): raise OSError("no engine")
class NeedsMore(World):
    def __init__(self, file): pass
class NoSpaces(gymnasium.Env): pass
class Text(World):
    observation_space = gymnasium.spaces.Text(4)
class Dicts(World):
    observation_space = gymnasium.spaces.Dict({"a": World.observation_space})
class Unbounded(World):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
class Integers(World):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.int64)
class TwoRows(World):
    action_space = gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)
class Multi(World):
    action_space = gymnasium.spaces.MultiBinary(3)
def nothing(): return None
def unannotated(): return World()
def world() -> gymnasium.Env: return None
def raising() -> gymnasium.Env: raise ValueError("no world")

@dataclass
class Planner:
    low: torch.Tensor
    high: torch.Tensor
    horizon: int
    maximises = "score"
    def answer(self, actions): return actions
    def plan(self, score, start, *, generator, deadline=None):
        a = self.answer(((self.low + self.high) / 2).expand(self.horizon, -1))
        return planners.Plan(a, torch.zeros(()), a, torch.ones_like(a), a[None], 1, 0, 1)
    def shift(self, plan, steps): return plan

class PlanNone(Planner):
    def plan(self, score, start, *, generator, deadline=None): return None
class PlanShape(Planner):
    def answer(self, a): return a[:-1]
class PlanNaN(Planner):
    def answer(self, a): return a * float("nan")
class PlanOutside(Planner):
    def answer(self, a): return a + 1e3
class PlanRaises(Planner):
    def answer(self, a): raise KeyError("bees\\nfled")
class PlanText(Planner):
    def answer(self, a): return "left"
class PlanFew(Planner):
    def plan(self, score): return None
class PlanInit(Planner):
    def __init__(self, low, high, horizon): raise ValueError("no hive")
class PlanNeeds(Planner):
    def __init__(self, low, high, horizon, bees): pass
class PlanNoArguments:
    def __init__(self): pass
    def plan(self, score, start, *, generator, deadline=None): return None
class NoPlan:
    def __init__(self, low, high, horizon): pass
class PlanNumber(Planner):
    plan = 3

class Model:
    members = 1
    noise_shape = (0,)
    def __init__(self, obs_size, action_size, *, generator=None): self.size = obs_size
    def encode(self, obs, *, state=None, action=None): return obs
    def decode(self, state): return state
    def step(self, state, action, *, noise):
        from mbrl.types import Step
        z = state[..., 0] * 0
        return Step(self.answer(state), z, torch.zeros_like(z, dtype=torch.bool))
    def answer(self, state): return state
class ModelNone(Model):
    def step(self, state, action, *, noise): return None
class ModelShape(Model):
    def answer(self, state): return state[..., :1]
class ModelNaN(Model):
    def answer(self, state): return state * float("nan")
class ModelRaises(Model):
    def answer(self, state): raise KeyError("model\\nfailed")
class ModelMembers(Model):
    members = 0
class ModelNoise(Model):
    noise_shape = 3
class ModelInit(Model):
    def __init__(self, obs_size, action_size, *, generator=None): raise ValueError("no data")
class ModelNeeds(Model):
    def __init__(self, obs_size, action_size, file): pass
class ModelEncode(Model):
    def encode(self, obs, *, state=None, action=None): return obs[..., :1].int()
class NoStep:
    members, noise_shape = 1, (0,)
    def __init__(self, obs_size, action_size): pass
"""
AGENTS = {
    "noconfig": "def make(spec, config, *, generator, device='cpu'): return None\n",
    "nomake": "class Config: pass\n",
    "notclass": "Config = 3\ndef make(spec, config, *, generator, device='cpu'): return None\n",
}
AGENT = """
from dataclasses import dataclass
import numpy as np
@dataclass(frozen=True)
class Config:
    @classmethod
    def suited(cls, spec): return cls()
class Agent:
    def act(self, obs, *, explore): {act}
    def observe(self, step): {observe}
    def update(self): {update}
    def player(self, *, generator): return self
    def reset(self, begins): pass
    def state_dict(self): {state}
    def load_state_dict(self, state): pass
def make(spec, config, *, generator, device="cpu"): {make}
"""
SOUND = {
    "act": "return np.zeros((len(obs), 1), np.float32)", "observe": "pass", "update": "return {}",
    "state": "return {}", "make": "return Agent()",
}  # fmt: skip
FAULTS = {
    "act None": {"act": "return None"},
    "act shape": {"act": "return np.zeros((7, 3))"},
    "act NaN": {"act": "return np.full((len(obs), 1), np.nan)"},
    "act text": {"act": "return 'left'"},
    "act raises": {"act": "raise KeyError('act')"},
    "observe raises": {"observe": "raise RuntimeError('observe')"},
    "update raises": {"update": "raise TypeError('update')"},
    "update None": {"update": "return None"},
    "state a class": {"state": "return {'x': Agent}"},
    "state None": {"state": "return None"},
    "make None": {"make": "return None"},
    "make raises": {"make": "raise ValueError('no agent')"},
}
IMPORTS = {
    "fails": "raise KeyError('x\\ny')", "syntax": "def", "exits": "raise SystemExit(0)",
    "missing": "import no_such_package", "itself": "import itself_not\n", "nulls": "\0",
    "escapes": "raise RuntimeError('\\x1b[31mred')", "bytes": "\xff\xfe",
}  # fmt: skip
TINY = [
    "--planner.horizon=3", "--planner.population=4", "--planner.iterations=1",
    "--planner.elites=2",
]  # fmt: skip
WORLDS = [
    *("ObsNone ObsText ObsDict ObsShape ObsScalar ObsNaN ObsInf ObsComplex RewardNone RewardText "
      "RewardNaN RewardInf RewardTwo RewardShape RewardDict EndNone EndNaN EndText CutNone CutShape "
      "EndTwo Four Six Nothing InfoNone FirstNone FirstText FirstShape FirstNaN StepRaises "
      "ResetRaises ResetAlone").split(),
]  # fmt: skip
SPACES = ("Text", "Dicts", "Unbounded", "Integers", "TwoRows", "Multi")
PART = text("part.py", PARTS)
for name in WORLDS:
    add(f"world {name}: train", ["train", "random", "--env", f"part:{name}", "--steps=30", "--run=new"],
        "" if name.startswith("Reset") else "step" if not name.startswith("First") else "", PART,
        writes=("new",), progress=True)  # fmt: skip
for name in ("InitRaises NeedsMore NoSpaces Text Dicts Unbounded Integers TwoRows Multi nothing "
             "unannotated world raising NUMBER Missing Planner _x").split():  # fmt: skip
    add(f"world {name}: train", ["train", "pets", "--env", f"part:{name}", "--steps=30", "--run=new"],
        "needs" if name in SPACES else "part", PART)  # fmt: skip
    if name in ("InitRaises", "NUMBER", "nothing", "Missing", "World"):
        add(f"world {name}: mpc", ["mpc", "--env", f"part:{name}", "--steps=1"], "part", PART)
        add(f"world {name}: tree", ["tree", "--env", f"part:{name}"], "part", PART)
add("a world without physics: mpc", "mpc --env part:World --steps 1", "part:World", PART)
add("a world without physics: tree", "tree --env part:World", "part:World", PART)
for name in ("PlanNone PlanShape PlanNaN PlanOutside PlanRaises PlanText PlanFew PlanInit PlanNeeds "
             "PlanNoArguments NoPlan PlanNumber NUMBER Missing nothing").split():  # fmt: skip
    add(f"planner {name}: mpc", ["mpc", "--planner", f"part:{name}", "--steps=2"], name, PART)
    if name in ("PlanNone", "PlanShape", "NoPlan", "Missing", "PlanInit"):
        add(f"planner {name}: train", ["train", "pets", "--planner", f"part:{name}", "--steps=30"],
            name, PART)  # fmt: skip
for name in ("ModelNone ModelShape ModelNaN ModelRaises ModelMembers ModelNoise ModelInit ModelNeeds "
             "ModelEncode NoStep NUMBER Missing nothing").split():  # fmt: skip
    add(
        f"model {name}: mpc",
        ["mpc", "--env=pendulum-swingup", "--model", f"part:{name}", "--steps=2", *TINY],
        name,
        PART,
    )
    add(f"model {name}: train",
        ["train", "pets", "--env=pendulum-swingup", "--model", f"part:{name}", "--steps=30"], name,
        PART)  # fmt: skip
for name in ("part:", ":Bees", ".part:Bees", "part:Bees.x", "part:a b", "part:\x1b", "a/b:C", "::"):
    add(f"planner {name!r}", ["mpc", f"--planner={name}", "--steps=1"], "planner", PART)
    add(f"model {name!r}", ["mpc", f"--model={name}", "--steps=1"], "model", PART)
    add(f"agent {name!r}", ["train", name, "--steps=1"], "agent", PART)
for name, source in AGENTS.items():
    add(f"agent {name}", ["train", f"{name}:make", "--steps=5"], name, text(f"{name}.py", source))
for name, fault in FAULTS.items():
    add(
        f"agent {name}",
        ["train", "agent:make", "--env=pendulum-swingup", "--steps=5", "--run=new"],
        "",
        text("agent.py", AGENT.format(**{**SOUND, **fault})),
        writes=("new",),
        progress=True,
    )
for name, source in IMPORTS.items():
    spoil = text(f"{name}.py", source.encode("latin-1"))
    add(f"import {name}: --module", ["list", "envs", "--module", name], name, spoil)
    add(f"import {name}: --env", ["train", "pets", "--env", f"{name}:X", "--steps=9"], name, spoil)
    add(f"import {name}: --planner", ["mpc", "--planner", f"{name}:X", "--steps=1"], name, spoil)
    add(f"import {name}: --model", ["mpc", "--model", f"{name}:X", "--steps=1"], name, spoil)
    add(f"import {name}: agent", ["train", f"{name}:make", "--steps=1"], name, spoil)
add("a setting that the planner lacks", "mpc --planner part:Planner --planner.bees 3 --steps 1",
    "bees", PART)  # fmt: skip

# The system ----------------------------------------------------------------------------------

for size in (0, 64, 4096):
    add(
        f"files of {size} bytes: train",
        "train random --env pendulum-swingup --steps 400 --run new",
        "larger than a file may be",
        now(lambda s=size: limit(s)),
        writes=("new",),
        progress=True,
    )
    add(f"files of {size} bytes: tree", "tree --simulations 20 --out new", "larger than",
        now(lambda s=size: limit(s)), writes=("new",), progress=True)  # fmt: skip
    add(f"files of {size} bytes: compare", "compare run --out c.png", "larger than",
        now(lambda s=size: limit(s)), progress=True)  # fmt: skip
    add(f"files of {size} bytes: mpc", ["mpc", "--steps=2", "--out=new", *TINY], "larger than",
        now(lambda s=size: limit(s)), writes=("new",), progress=True)  # fmt: skip
for size in (0, 16):
    add(f"files of {size} bytes: evaluate", READERS["evaluate"], "larger than",
        now(lambda s=size: limit(s)), progress=True)  # fmt: skip
add("read-only: train", "train random --env pendulum-swingup --steps 5 --run shut/new", "permission",
    now(lambda: read_only("shut")))  # fmt: skip
add("read-only: tree", "tree --simulations 4 --out shut/new", "permission",
    now(lambda: read_only("shut")))  # fmt: skip
add("read-only: mpc", ["mpc", "--steps=1", "--out=shut/new", *TINY], "permission",
    now(lambda: read_only("shut")), progress=True)  # fmt: skip
add("read-only: compare", "compare run --out shut/c.png", "shut", now(lambda: read_only("shut")))
add("read-only: evaluate", READERS["evaluate"], "run", now(lambda: read_only("run")))
add("read-only: plot", READERS["plot"], "run", now(lambda: read_only("run")))
add("read-only: resume", READERS["resume"], "run", now(lambda: read_only("run")))
add("read-only: study", "study dyna --fast --seeds 1 --out shut", "shut",
    now(lambda: read_only("shut")))  # fmt: skip
add("read-only: bench", "bench collect --repeats 1 --out shut", "shut",
    now(lambda: read_only("shut")))  # fmt: skip
for line in ("list", "tree --help", "list runs --json", "completion bash", "--version", "--help",
             "compare run"):  # fmt: skip
    more = {"writes": ("results",), "progress": True}
    CASES.append(Case(f"stdout full: {line}", (), "full", shell=f"$mbrl {line} >/dev/full", **more))
    CASES.append(Case(f"stdout closed: {line}", (), "closed", shell=f"$mbrl {line} >&-", **more))
for line in ("list", "completion zsh", "list --json"):
    CASES.append(Case(f"reader gone: {line}", (), "", shell=f"$mbrl {line} | true", status=(0,)))
    CASES.append(Case(f"all closed: {line}", (), "", shell=f"$mbrl {line} >&- 2>&-"))
    CASES.append(Case(f"stderr closed: {line}", (), "", shell=f"$mbrl {line} 2>&- >/dev/null",
                      status=(0,)))  # fmt: skip
for line in ("nosuch", "train nosuch", "evaluate gone", "mpc --seed=-1"):
    CASES.append(Case(f"stderr full: {line}", (), "", shell=f"$mbrl {line} 2>/dev/full"))
    CASES.append(Case(f"stderr closed: {line}", (), "", shell=f"$mbrl {line} 2>&-"))
for coding in ("ascii", "latin-1", "cp1252"):
    CASES.append(Case(f"{coding}: list", (), "", status=(0,),
                      shell=f"PYTHONIOENCODING={coding} $mbrl list >/dev/null"))  # fmt: skip
    CASES.append(Case(f"{coding}: unknown", (), "unknown command",
                      shell=f"PYTHONIOENCODING={coding} $mbrl μ→∞"))  # fmt: skip
CASES.append(
    Case("no home", (), "unknown environment", shell="env -u HOME $mbrl train pets --env x")
)
CASES.append(Case("no locale", (), "unknown command", shell="LC_ALL=C PYTHONUTF8=0 $mbrl é"))
CASES.append(Case("folder gone", (), "",
                  shell="mkdir g && cd g && rmdir ../g && $mbrl train random --steps 5"))  # fmt: skip
CASES.append(Case("bytes as a name", (), "", shell="$mbrl evaluate \"$(printf '\\377\\376')\""))
CASES.append(Case("bytes as a folder", (), "",
                  shell="$mbrl train random --steps 5 --env \"$(printf '\\377')\""))  # fmt: skip
for after, line in itertools.product(
    ("0.5", "1", "2"), ("list", "mpc --steps 100000 --out new", "bench all")
):
    CASES.append(
        Case(f"Ctrl-C after {after} s: {line}", (), "", status=(0, 130), writes=("new",),
             progress=True, shell=f"timeout -s INT {after} $mbrl {line} >/dev/null; "
             "s=$?; [ $s = 124 ] && exit 130 || exit $s"))  # fmt: skip


# Running -------------------------------------------------------------------------------------


@cache
def runs() -> Path:
    """Small runs, made once: copied for each case."""
    import envs
    import mbrl
    from mbrl.agents import MPCConfig, PlannerConfig
    from mbrl.agents.pets import Config
    from mbrl.dynamics import EnsembleConfig

    folder = Path(tempfile.mkdtemp(prefix="bad-inputs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny = Config(
        mpc=MPCConfig(PlannerConfig(horizon=4, population=8, iterations=1, elites=2), particles=2),
        model=EnsembleConfig(members=2, hidden=(8,), epochs=1, batch=32),
        random_steps=150,
    )
    for seed, name in enumerate(("run", "other")):
        env = envs.make("cartpole-swingup")
        mbrl.train(mbrl.make("pets", env, config=tiny, seed=seed), env, folder / name, steps=170)
    for name, id in {"rnd": "pendulum-swingup", "far": "pendulum-swingup"}.items():
        env = envs.make(id)
        mbrl.train(mbrl.make("random", env), env, folder / name, steps=160)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # so that `read_only` may read them
    (folder / "file").write_text("mine\n")
    for name in ("empty", "shut"):
        (folder / name).mkdir()
    return folder


def listing(folder: Path, writes: tuple[str, ...]) -> dict[str, str]:
    """What each name in a folder is, with a digest of each file."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place) / name
            short = str(path.relative_to(folder))
            if short.split("/")[0] in writes:
                continue
            if path.is_symlink():
                found[short] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[short] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[short] = "a folder" if path.is_dir() else "another"
    return found


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """Modules, paths and environments that a case brings are forgotten; the folder too."""
    import gymnasium

    import envs.registry as registry

    here, path, modules = os.getcwd(), list(sys.path), set(sys.modules)
    known, entries = dict(gymnasium.registry), dict(registry._REGISTERED)
    made, bytecode = set(registry._MADE), sys.dont_write_bytecode
    handler, threads = signal.getsignal(signal.SIGINT), None
    if "torch" in sys.modules:
        threads = sys.modules["torch"].get_num_threads()
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if "bad-input-" in file:
                del sys.modules[name]
        for table, before in ((gymnasium.registry, known), (registry._REGISTERED, entries)):
            table.clear()
            table.update(before)
        registry._MADE.clear()
        registry._MADE.update(made)
        signal.signal(signal.SIGINT, handler)
        if threads:
            sys.modules["torch"].set_num_threads(threads)


def in_process(args: tuple[str, ...]) -> tuple[int | str, str, str]:
    """Exit status, or what was raised, stdout and stderr, those of libraries in C included."""
    from experiments.cli import command, streams

    codecs.register_error("readable", streams._substitute)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(fd) for fd in (1, 2)]
    before = sys.stdout, sys.stderr
    said: list[bytes] = [b"", b""]
    readers = []
    for place, fd in enumerate((1, 2)):  # pipes, as a case may limit the size of files
        end, begin = os.pipe()
        os.dup2(begin, fd)
        os.close(begin)
        readers.append(threading.Thread(target=_drain, args=(end, said, place)))
        readers[-1].start()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(os.dup(fd), "wb"), "utf-8", "readable", write_through=True)
        for fd in (1, 2)
    )
    status: int | str
    try:
        status = command.run(list(args))
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 0
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        status = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        sys.stdout, sys.stderr = before
        for fd, old in zip((1, 2), kept, strict=True):
            os.dup2(old, fd)
            os.close(old)
    for reader in readers:
        reader.join()
    return status, *(text.decode(errors="replace") for text in said)


def _drain(end: int, said: list[bytes], place: int) -> None:
    with os.fdopen(end, "rb") as stream:
        said[place] = stream.read()


def in_shell(line: str) -> tuple[int | str, str, str]:
    """The same of a line of sh."""
    command = f"{sys.executable} -m experiments.cli.command"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            ["sh", "-c", f'mbrl="{command}"\n{line}'], capture_output=True, env=env, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "Hang", "", ""
    return done.returncode, *(t.decode(errors="replace") for t in (done.stdout, done.stderr))


def run(case: Case) -> str:
    """What is wrong with what the command does; "" if it is right."""
    source = runs()
    folder = Path(tempfile.mkdtemp(prefix="bad-input-"))
    hang = signal.getsignal(signal.SIGALRM)

    def ring(signum, frame):
        raise Hang

    try:
        with left_as_it_was():
            shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
            os.chmod(folder, 0o755)
            os.chdir(folder)
            os.mkfifo("pipe")
            spoilt = None if case.spoil is None else case.spoil()
            before = listing(folder, case.writes)
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, LIMIT, 10)  # again, if it is caught on its way
            try:
                if case.shell:
                    status, out, err = in_shell(case.shell)
                else:
                    status, out, err = in_process(case.args)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                if isinstance(spoilt, contextlib.ExitStack):
                    spoilt.close()
            return wrong(case, status, out, err, before, listing(folder, case.writes))
    finally:
        signal.signal(signal.SIGALRM, hang)
        shutil.rmtree(folder, ignore_errors=True)


def wrong(case, status, out: str, err: str, before: dict, after: dict) -> str:
    """What is not as the case says."""
    faults = []
    if status not in case.status:
        faults.append(f"status {status}")
    if out:
        faults.append(f"stdout {out[:80]!r}")
    lines = err.split("\n")[:-1] if err.endswith("\n") or not err else [err]
    silent = case.shell and "2>" in case.shell
    if "Traceback" in err:
        faults.append(f"traceback {lines[-1]!r}")
    elif 2 in case.status and not silent:
        if len(lines) != 1 and not (case.progress and lines):
            faults.append(f"{len(lines)} lines {lines[:3]!r}")
        elif not lines[-1].startswith("mbrl: "):
            faults.append(f"the line is {lines[-1]!r}")
        elif not lines[-1].isprintable() or len(lines[-1]) > 3000:
            faults.append(f"a line of {len(lines[-1])} characters {lines[-1][:99]!r}")
        elif case.says.replace("-", "_") not in lines[-1].replace("-", "_"):  # option or field
            faults.append(f"not {case.says!r} in {lines[-1]!r}")
    changed = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    if changed:
        faults.append(f"changed {changed[:4]}")
    return "; ".join(faults)


def main(words: list[str]) -> int:
    """Run the cases; prints those that fail and a count."""
    failed, began = 0, time.perf_counter()
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    for case in chosen:
        start = time.perf_counter()
        fault = run(case)
        took = time.perf_counter() - start
        failed += bool(fault)
        if fault or took > 15:
            print(
                f"{'FAILED' if fault else 'slow'} {case.name} ({took:.1f} s): {fault}", flush=True
            )
    print(f"{failed} of {len(chosen)} fail, {time.perf_counter() - began:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
