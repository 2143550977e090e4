"""The config of a run: what its results depend on, as a file that anybody may have written."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, cast

import gymnasium
import pydantic
from annotated_types import Interval

from mbrl import agents
from mbrl.dynamics.own import OwnModel
from mbrl.dynamics.table import MODELS, model_config
from mbrl.parts import name_of
from mbrl.plain import shown
from mbrl.training.checkpoint import CONFIG, Run, RunError
from mbrl.training.online import Target
from planners.checks import NonNegativeInt, PositiveInt, check_fields, first_refused

MakeEnv = Callable[[str], gymnasium.Env]
"""`make_env(id)` makes an environment by its id, as `gymnasium.make` and `envs.make` do."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that the results of a run depend on, except the versions of the software."""

    algo: str
    """Name of the agent; see `mbrl.agents.agent`."""
    env: str
    """The environment's id."""
    seed: NonNegativeInt
    """Seed of all randomness."""
    steps: PositiveInt
    """Total number of environment steps."""
    device: str
    """Device of the agent's model."""
    agent: Any
    """The agent's `Config`."""
    num_envs: Annotated[int, Interval(ge=1, le=65_536)] = 1
    """Number of environments stepped in parallel."""
    action_repeat: Annotated[int, Interval(ge=1, le=1000)] = 1
    """Number of steps of the environment for which each action is taken; their rewards are summed.
    All other numbers of steps are then numbers of actions."""
    evaluate_every: NonNegativeInt = 0
    """Number of environment steps from one evaluation to the next; 0: never."""
    evaluation_episodes: PositiveInt = 10
    """Number of episodes of an evaluation."""
    until_return: float | None = None
    """Return at which the run ends before its steps do: the mean of its last training episodes."""
    until_episodes: PositiveInt = 3
    """Number of last episodes that `until_return` is the mean of."""

    def __post_init__(self) -> None:
        check_fields(self)

    def made(self, make_env: MakeEnv) -> gymnasium.Env:
        """The environment of the run; with an `action_repeat`, `make_env` must take that too."""
        if self.action_repeat == 1:
            return make_env(self.env)
        return cast(Any, make_env)(self.env, action_repeat=self.action_repeat)

    @property
    def target(self) -> Target | None:
        """The return at which the run ends, if there is one."""
        if self.until_return is None:
            return None
        return Target(self.until_return, self.until_episodes)

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json`: the whole config, and the versions of the software."""
        return dataclasses.asdict(self) | {"versions": versions()}

    @classmethod
    def of(cls, run: Run) -> RunConfig:
        """The config of a run, which may be from an untrusted source.

        Raises:
            RunError: see `from_json`; an environment, an agent, a planner or a model in a module
                that is not imported yet. It is not imported because only the file names it.
        """
        file = run.path / CONFIG
        for place, name in _own_parts(run.config):
            module = name.rpartition(":")[0]
            if module not in sys.modules:
                raise RunError(
                    f"{file}: its {place} {shown(name, most=60)!r} is in the module "
                    f"{shown(module, most=60)}, which is not imported because only a file names "
                    f"it; if you trust it, add --module {shown(module, most=60)} (in Python: "
                    "import it)"
                )
        return cls.from_json(run.config, file)

    @classmethod
    def from_json(cls, config: Mapping[str, Any], file: Path | str = CONFIG) -> RunConfig:
        """The inverse of `to_json`; `file` names the file in messages.

        Raises:
            RunError: it is not a run's config; the message names the first field that is wrong.
        """
        given = {name: value for name, value in config.items() if name != "versions"}
        algo = given.get("algo")
        if not isinstance(algo, str):
            raise RunError(
                f"{file}: algo is {shown(repr(algo), most=60)}, not the name of an agent"
            )
        try:
            module = agents.agent(algo)
        except ValueError as error:
            raise RunError(f"{file}: {shown(str(error), most=200)}") from None
        own = _read(module.Config, given.pop("agent", None), file, "agent")
        return dataclasses.replace(_read(cls, given | {"agent": None}, file), agent=own)


def _own_parts(config: Any) -> Iterator[tuple[str, str]]:
    """What of a config is a module:NAME: its environment, its agent, and the planners and models
    at any place of it."""
    if not isinstance(config, Mapping):
        return
    for place, key in (("environment", "env"), ("agent", "algo")):
        if isinstance(found := config.get(key), str) and ":" in found:
            yield place, found
    for key, value in config.items():
        name = value.get("name") if isinstance(value, Mapping) else None
        if key in ("planner", "model") and isinstance(name, str) and ":" in name:
            yield key, name
        yield from _own_parts(value)


def _read(kind: Any, given: Any, file: Path | str, place: str = "") -> Any:
    """A dataclass from plain values, without conversions between types.

    Raises:
        RunError: the values do not fit; the message names the first wrong field.
    """
    try:
        # as JSON, because strict validation accepts a list for a tuple only there
        made = pydantic.TypeAdapter(kind).validate_json(json.dumps(given), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if refused := first_refused(kind, given, place):
            raise RunError(f"{file}: {shown(refused)}") from None
        at = [*([place] if place else []), *map(str, first["loc"])]
        raise RunError(f"{file}: {shown('.'.join(at), most=80)}: {_wanted(first)}") from None
    unknown = _unknown(given, dataclasses.asdict(made))
    if unknown:
        # of several kinds of configs, one may accept what the one that is meant refuses
        if refused := first_refused(kind, given, place):
            raise RunError(f"{file}: {shown(refused)}")
        at = shown(".".join([*([place] if place else []), *unknown]), most=80)
        raise RunError(f"{file}: {at} is not known here; is the run of another version?")
    return made


_WANTED = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object",
    "float_type": "must be a number",
    "int_from_float": "must be an integer",
    "int_type": "must be an integer",
    "missing": "is missing",
    "none_required": "must be null",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
}


def _wanted(error: Any) -> str:
    """The message for an error of pydantic."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":  # raised by the config itself
        return shown(" ".join(str(context.get("error")).split()))
    wanted = _WANTED.get(kind, "is not accepted")
    if kind == "literal_error":
        wanted = f"must be one of {context.get('expected')}"
    if kind == "missing":
        return wanted
    return f"{wanted}, got {shown(json.dumps(error['input']), most=60)}"


def _unknown(given: Any, known: Any) -> list[str]:
    """The path of the first name in nested dicts that `known` does not have; [] if it has all."""
    if not isinstance(given, Mapping) or not isinstance(known, Mapping):
        return []
    for name, value in given.items():
        if name not in known:
            return [name]
        if inner := _unknown(value, known[name]):
            return [name, *inner]
    return []


def versions() -> dict[str, str]:
    """Versions of the software that the results of a run depend on."""
    names = ("rolloutlab", "torch", "mujoco", "gymnasium", "numpy")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}


def changed(config: Any, **settings: Any) -> Any:
    """A config with some of its fields, or of those of its `mpc` or `learner`, changed.

    `planner` may be the name or the class of a planner, and `model` a name in
    `mbrl.dynamics.table.MODELS`, or the name (`module:Class`) or the class of your own model.

    Raises:
        ValueError: a field that neither has, or a value out of range.
    """
    for setting, value in settings.items():
        config = _changed(config, setting, value)
    return config


def _changed(config: Any, setting: str, value: Any) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    if setting in names:
        if setting == "model" and isinstance(value, str) and value in MODELS:
            value = model_config(value, config.model)
        elif setting == "model" and isinstance(value, str | type):
            named = value if isinstance(value, str) else name_of("model", value)
            flags = ("learn_reward", "learn_termination")
            value = OwnModel(named, **{name: getattr(config.model, name) for name in flags})
        return dataclasses.replace(config, **{setting: value})
    known = list(names)
    for place in [name for name in ("mpc", "learner") if name in names]:
        inner = getattr(config, place)
        own = [field.name for field in dataclasses.fields(inner)]
        known += own
        if setting not in own:
            continue
        if setting == "planner" and isinstance(value, str | type):
            named = value if isinstance(value, str) else name_of("planner", value)
            value = inner.planner.named(named)
        return dataclasses.replace(
            config, **{place: dataclasses.replace(inner, **{setting: value})}
        )
    raise ValueError(f"there is no setting {setting!r}; there are {', '.join(known)}")


def labels(configs: Sequence[RunConfig]) -> list[str]:
    """Labels of runs: the algorithm, the settings in which runs of that algorithm differ, and how
    often actions are repeated and how many environments there are, if that differs among runs.

    Of parts of different kinds, such as models, the kind is said, and not the settings that only
    one of them has.
    """
    flat = [_flat(config.agent) for config in configs]
    own = [
        name
        for name in ("action_repeat", "num_envs")
        if len({getattr(config, name) for config in configs}) > 1
    ]
    found = []
    for config, settings in zip(configs, flat, strict=True):
        same = [s for c, s in zip(configs, flat, strict=True) if c.algo == config.algo]
        shared = [name for name in settings if all(name in s for s in same)]
        differing = [name for name in shared if len({repr(s[name]) for s in same}) > 1]
        said = {name: getattr(config, name) for name in own}
        said |= {name: settings[name] for name in differing}
        found.append(" ".join([config.algo, *(f"{name}={value}" for name, value in said.items())]))
    return found


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by name, those of a part after its kind."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            flat |= {name: _kind(value), **_flat(value, f"{name}.")}
        else:
            flat[name] = value
    return flat


def _kind(part: Any) -> str:
    """What kind of model, learner or other part of an agent these settings are of."""
    if isinstance(part, OwnModel):
        return part.name
    words = type(part).__name__.removesuffix("Config").lower()
    return next((name for name, kind in MODELS.items() if kind is type(part)), words)
