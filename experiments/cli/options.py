"""Command lines as dataclasses: each field is an option, and its docstring is the help text.

Wrong input raises `Wrong`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from rich.console import Console

from experiments.cli.names import Wrong
from mbrl.plain import json_text, shown, words

T = TypeVar("T")


def unset(meaning: str) -> Any:
    """What a help text says of an option that is None or empty: what takes effect then."""
    return tyro.conf.arg(
        help_behavior_hint=lambda text: f"(default: {meaning if text in ('None', '') else text})"
    )


REQUIRED = tyro.conf.arg(help_behavior_hint="(required)")
"""What a help text says of an argument that is checked after parsing, in words of our own."""


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    root: Path = Path("runs")
    """Folder of all runs, each in root/environment/algorithm/seed-time."""
    threads: Annotated[int | None, unset("all cores")] = None
    """Worker threads."""
    json: bool = False
    """Print one line of JSON on stdout, and all else on stderr."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A module of your own to import first, such as one that registers environments; may be given
    several times. A run of an environment "module:name" is opened only with --module module."""


FLAT = ("agent", "drive", "learner", "mpc", "search")
"""Fields whose options have no prefix: --horizon and not --mpc.horizon."""


UNSET: Mapping[str, Mapping[str, str]] = {
    "mbrl.agents.mpc.MPCConfig": {"budget_ms": "no limit"},
    "mbrl.agents.mpc.PlannerConfig": dict.fromkeys(
        (
            "population",
            "iterations",
            "elites",
            "knots",
            "interpolation",
            "sigma",
            "beta",
            "momentum",
            "temperature",
            "relative",
            "floor",
            "answer",
        ),
        "that of the search",
    ),
    "mbrl.agents.dyna_q.Config": {"discount": "that of the environment, 0.95 if it has none"},
    "mbrl.agents.tabular.Config": {"discount": "that of the environment, 0.99 if it has none"},
    "mbrl.agents.pets.config.Config": {
        "fit_every": "never; where episodes have no time limit, --random-steps",
    },
    "mbrl.agents.latent_mbpo.Config": {"capacity": "1000000, of images 500000"},
    "mbrl.agents.latent_pets.Config": {
        "fit_every": "never; where episodes have no time limit, --random-steps",
        "capacity": "1000000, of images 500000",
    },
    "mbrl.dynamics.recurrent_config.RecurrentConfig": {"balance": "not divided"},
    "mbrl.agents.world_config.WorldSchedule": {
        "random_steps": "five episodes, 1000 at least",
        "first_updates": "those due in the random steps",
        "capacity": "1000000, of images 500000",
    },
    "mbrl.learners.tdmpc_config.TDMPCConfig": {
        "discount": "that of the environment, or by the length of episodes",
    },
    "mbrl.agents.schedules.OffPolicySchedule": {
        "random_steps": "--learning-starts",
        "updates": "--train-every",
        "capacity": "1000000, of images 500000",
    },
    "mbrl.agents.representing_config.RepresentingSchedule": {
        "pretrain": "2000 if it is frozen and not loaded, else 0",
        "encoder": "random weights",
        "data": "the first steps",
    },
    "mbrl.agents.dyna_config.DynaSchedule": {"last_horizon": "--horizon"},
    "mbrl.agents.model_gradient_config.ModelGradientSchedule": {
        "random_steps": "--fit-every",
        "horizon": "whole episodes",
    },
    "mbrl.dynamics.configs.FitConfig": {"batches_per_epoch": "all rows"},
    "mbrl.dynamics.configs.LearnedConfig": {"constants": "none"},
    "mbrl.dynamics.configs.NeuralConfig": {"elites": "all members"},
    "mbrl.encoders.configs.VAEConfig": {"noise": "learned"},
    "mbrl.learners.svg_config.SVGConfig": {
        "critic_hidden": "--hidden",
        "discount": "that of the environment, that of the algorithm if it has none",
        "critic_learning_rate": "--learning-rate",
        "subset": "all of them",
        "temperature": "tuned",
        "target_entropy": "-1 for each dimension of an action",
        "clip": "no limit",
    },
    "mbrl.learners.configs.StepSizes": {"last_learning_rate": "constant", "decay_steps": "--steps"},
    "mbrl.learners.configs.SACConfig": {
        "critic_hidden": "--hidden",
        "discount": "that of the environment, 0.99 if it has none",
        "critic_learning_rate": "--learning-rate",
        "subset": "all of them",
        "norm": "not normalised",
        "policy_norm": "not normalised",
        "temperature": "tuned",
        "target_entropy": "-1 for each dimension of an action; 0.98 of the greatest for indices",
        "target_std": "--target-entropy holds",
        "clip": "no limit",
    },
    "mbrl.learners.on_policy_configs.PolicyConfig": {
        "value_hidden": "--hidden",
        "discount": "that of the environment, 0.99 if it has none",
        "last_learning_rate": "constant",
        "decay_steps": "--steps",
        "clip": "no limit",
        "max_kl": "no limit",
        "value_clip": "not clipped",
    },
    "mbrl.learners.value_configs.DDPGConfig": {
        "critic_hidden": "--hidden",
        "discount": "that of the environment, 0.99 if it has none",
        "critic_learning_rate": "--learning-rate",
        "clip": "no limit",
    },
    "mbrl.learners.value_configs.DQNConfig": {
        "discount": "that of the environment, 0.99 if it has none",
        "clip": "no limit",
        "huber": "squared loss",
    },
    "mbrl.settings.DriveConfig": {
        "delay": "with --asynchronous as many as the last search took, else 0",
        "device": "that of the run",
        "learner": "no learner",
    },
    "mbrl.settings.SearchConfig": {"discount": "that of the environment, 0.99 if it has none"},
}
"""What takes effect where a setting of a config of the library is None. Those of `PlannerConfig`
depend on the planner (see `experiments.cli.own`); in a config of a user's own None is what it is.
"""


_NONE: Mapping[str, Any] = MappingProxyType({})


def flat(
    kind: type[T],
    own: Mapping[str, type] = _NONE,
    meanings: Mapping[str, str] = _NONE,
    default: Any = None,
) -> type[T]:
    """The dataclass as its options: no prefix for those of `FLAT`, a word for what None means.

    Args:
        kind: the dataclass.
        own: the options of a planner or of a part of the user's own, by the field that has it.
        meanings: what takes effect where an option is not given, by the field's name.
        default: an instance; a field that may hold several kinds of configs, such as those of
            different models, gets the options of the kind that it holds there.
    """
    hints = get_type_hints(kind, include_extras=True)
    homes = [f"{base.__module__}.{base.__qualname__}" for base in reversed(kind.__mro__)]
    said = {name: words for home in homes for name, words in UNSET.get(home, {}).items()}
    fields: list[Any] = []
    for field in dataclasses.fields(cast(Any, kind)):
        held = getattr(default, field.name, None)
        hint = config_of(hints[field.name], held)
        if field.name in own:
            prefix = tyro.conf.arg(name=field.name.removesuffix("_settings"))
            marked = Annotated[own[field.name], prefix]
            fields.append((field.name, marked, dataclasses.field(default_factory=own[field.name])))
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            nested = flat(hint, own, meanings, held)
            start = _start(field, nested, held)
            marked = Annotated[nested, tyro.conf.arg(name="")] if field.name in FLAT else nested
            fields.append((field.name, marked, start))
        elif get_origin(hint) is Mapping:  # settings by name, which only a part of one's own has
            marked = Annotated[hint, tyro.conf.Suppress]
            fields.append((field.name, marked, dataclasses.field(default_factory=dict)))
        elif field.name in meanings:
            words = tyro.conf.arg(help_behavior_hint=f"(default: {meanings[field.name]})")
            start = dataclasses.field(default=field.default)
            fields.append((field.name, Annotated[hint, words], start))
        elif field.default is None and field.name in said:
            marked = Annotated[hint, unset(said[field.name])]
            fields.append((field.name, marked, dataclasses.field(default=None)))
    if not fields:
        return kind
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made


def configs_of(hint: Any) -> list[Any]:
    """The kinds of configs that a field may hold; [] if it holds none."""
    return [
        each
        for each in (hint, *get_args(hint))
        if isinstance(each, type) and dataclasses.is_dataclass(each)
    ]


def config_of(hint: Any, held: Any = None) -> Any:
    """The kind of config that `held` is, or else the first that the field may hold."""
    kinds = configs_of(hint)
    if type(held) in kinds:
        return type(held)
    return kinds[0] if kinds else hint


def _start(field: Any, flattened: Any, held: Any) -> Any:
    if held is not None:
        return dataclasses.field(default_factory=lambda: _as(flattened, held))
    if field.default_factory is dataclasses.MISSING:
        return dataclasses.field(default_factory=flattened)
    return dataclasses.field(default_factory=lambda: _as(flattened, field.default_factory()))


def _as(kind: type[T], value: Any) -> T:
    """The same values in a class with the same fields, nested ones likewise."""
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if not hasattr(value, field.name):
            continue  # a setting of a part of one's own, by default
        held, wanted = getattr(value, field.name), hints[field.name]
        if hasattr(held, "plain"):
            held = held.plain()
        kinds = [each for each in configs_of(wanted) if isinstance(held, each)]
        if kinds:  # the closest: one may be derived from another
            wanted = min(kinds, key=type(held).__mro__.index)
        again = isinstance(wanted, type) and dataclasses.is_dataclass(wanted)
        values[field.name] = _as(wanted, held) if again and type(held) is not wanted else held
    return kind(**values)


_BOX = re.compile("[╭╮╰╯│─]|-{3,}")  # the latter where there are only ASCII's characters


def parse(
    kind: type[T],
    prog: str,
    args: Sequence[str],
    default: T | None = None,
    own: Mapping[str, type] = _NONE,
    meanings: Mapping[str, str] = _NONE,
) -> T:
    """Parse by tyro, whose boxed complaint becomes one line; `own` and `meanings` as in `flat`.

    Raises:
        Wrong: an unknown option, or a value that is none.
    """
    complaint, taken = io.StringIO(), flat(kind, own, meanings, default)
    try:
        with contextlib.redirect_stderr(complaint):
            start = tyro.MISSING_NONPROP if default is None else _as(taken, default)
            return _as(kind, tyro.cli(taken, prog=prog, args=list(args), default=start))
    except SystemExit as exit:
        if exit.code in (0, None):
            raise
        said = " ".join(_BOX.sub(" ", complaint.getvalue()).split())
        said = re.sub(r"(Invalid choice|Unrecognized options) \1", r"\1", said, flags=re.I)
        own_words = r"(.* (?:must|is not one of|is unknown).*)"
        raise Wrong(
            _number_wanted(said, args)
            or re.sub(f"^Value error Error parsing [^:]+: {own_words} For full help.*", r"\1", said)
            or f"{prog}: cannot read {' '.join(args)}"
        ) from None


def _number_wanted(complaint: str, args: Sequence[str]) -> str | None:
    """The line for a value that is no number; None for another complaint of tyro's."""
    found = re.match(
        r"Value error Error parsing (--\S+): .* Argument helptext: \1 (\S+)", complaint
    )
    wanted = found and next((word for name, word in _NUMBERS.items() if name in found[2]), None)
    if not found or wanted is None:
        return None
    or_none = " or None" if "None" in found[2] else ""
    return f"{found[1]} must be {wanted}{or_none}, got {peek(args, found[1], '')!r}"


_NUMBERS = {"FLOAT": "a number", "INT": "an integer"}
"""What tyro's names of types mean."""


def check_least(parsed: Any, **least: int) -> None:
    """Check that options are not below their least values, nor above what `MOST` says.

    Unset options are not checked.

    Raises:
        Wrong: one that is smaller, or larger.
    """
    for name, bound in least.items():
        value, most = getattr(parsed, name), MOST.get(name, 2**63 - 1)
        if value is not None and not bound <= value <= most:
            accepted = f">= {bound}" if value < bound else f"<= {most}"
            raise Wrong(f"--{name.replace('_', '-')} must be {accepted}, got {value}")


MOST = {
    "seeds": 1_000_000,
    "episodes": 1_000_000,
    "repeats": 1_000_000,
    "num_envs": 65_536,
    "threads": 1024,
    "workers": 1024,
}
"""The largest values of options that say how often to do something, or on how many cores."""


def check_runs(parsed: Common, *runs: str) -> None:
    """Check that runs are there, before anything slow is imported.

    Raises:
        Wrong: a folder that is no run's, or no run at all where the latest is asked for.
    """
    for name in runs:
        if name == "latest" and not any(parsed.root.rglob("config.json")):
            raise Wrong(f"there is no run under {parsed.root} yet; `mbrl train` makes one")
        if name != "latest" and not (Path(name) / "config.json").exists():
            said = name if name.strip() else repr(name)
            raise Wrong(f"{said} is not a run folder: it holds no config.json")


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result it will have.

    Raises:
        Wrong: it is a folder or a device, or lies in no folder that can be written to.
    """
    if path.is_dir():
        raise Wrong(f"{path} is a folder; a file is to be written there")
    if path.exists() and not path.is_file():
        raise Wrong(f"{path} is a pipe or a device; a file is to be written there")
    _check_place(path, path.absolute().parent)


def check_folder(path: Path) -> None:
    """Check that a folder can be written to, or made, before the work whose results it will have.

    Raises:
        Wrong: it cannot.
    """
    _check_place(path, path.absolute())


def _check_place(path: Path, folder: Path) -> None:
    """Check that `folder` can be made, where it is not there, and written to, for `path`."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        kind = "file" if there.is_file() else "pipe, a device or a broken link"
        raise Wrong(f"{path} cannot be written: {there} is a {kind}, not a folder")
    try:
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # refuses what cannot be a name
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))  # only trying it tells for sure
    except OSError as error:
        raise Wrong(f"{path} cannot be written: {words(error.errno)}") from error
    except ValueError as error:
        raise Wrong(f"{path} cannot be written: {error}") from error


def check_new(path: Path) -> None:
    """Check that a folder to be written is not there yet, and can be made.

    Raises:
        Wrong: it is there, or cannot be made.
    """
    if os.path.lexists(path):
        raise Wrong(f"{path} exists already")
    check_folder(path)


def peek(args: Sequence[str], name: str, default: str) -> str:
    """The value of an option on which the defaults of others depend, before these are parsed."""
    for place, arg in enumerate(args):
        if arg == name and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return default


def import_modules(args: Sequence[str]) -> None:
    """Import every module that --module names, before anything else is done.

    Raises:
        Wrong: there is no such module, or it fails while it is imported.
    """
    for place, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if name != "--module":
            continue
        value = value or next(iter(args[place + 1 :]), "")
        if not all(part.isidentifier() for part in value.split(".")):
            raise Wrong(f"--module must be a module's name, such as my_envs, got {value!r}")
        try:
            importlib.import_module(value)
        except ModuleNotFoundError as error:
            raise Wrong(f"--module {value}: Python finds no module {error.name}") from error
        except (Exception, SystemExit) as error:
            raise Wrong(
                f"--module {value}: its import fails with {type(error).__name__}: {error}"
            ) from error


def set_threads(parsed: Common) -> None:
    """Give torch the threads asked for, or one for each core that this process may use.

    Raises:
        Wrong: fewer than one.
    """
    check_least(parsed, threads=1)
    import torch

    from mbrl.parallel import cores

    torch.set_num_threads(parsed.threads or cores())


def console(stream: Any = None) -> Console:
    """A stream, stderr if None; off a terminal lines are as long as they have to be."""
    stream = sys.stderr if stream is None else stream
    return _Console(file=stream, width=None if stream.isatty() else 10_000)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


def say(text: str) -> None:
    """Lines on stderr, as they are but for control characters (see `mbrl.plain.shown`)."""
    text = "\n".join(map(shown, text.split("\n")))
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def show(parsed: Common, *tables: Any) -> None:
    """Tables, or lines as they are, on stdout; on stderr if that is for JSON."""
    to = console(sys.stderr if parsed.json else sys.stdout)
    for table in tables:
        to.print(table, highlight=False, markup=False)


def emit(parsed: Common, summary: Any) -> None:
    """The line of JSON, where it was asked for; numbers that are not finite are null in it."""
    if parsed.json:
        print(json_text(summary))
