"""Parts of a user's own in a command line: --env, --planner, --model and ALGO as module:NAME.

A planner's and a model's settings become options, such as --planner.bees.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from experiments.cli.names import Wrong, check_name, check_once, planner_settings, planners
from experiments.cli.options import peek, unset
from mbrl.agents import PlannerConfig
from mbrl.dynamics.own import OwnModel
from mbrl.parts import installed, settings


def search_working_folder() -> None:
    """Let Python import modules of the working folder, after all that are installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def named(args: Sequence[str]) -> tuple[list[str], str | None]:
    """The arguments with --planner NAME as --planner.name NAME, and that name if there is one.

    Raises:
        Wrong: no planner has it; there are two.
    """
    args = [arg.replace("--planner=", "--planner.name=") for arg in args]
    args = ["--planner.name" if arg == "--planner" else arg for arg in args]
    check_once(args)
    name = peek(args, "--planner.name", "")
    if name and not is_own("planner", name):
        check_name("planner", name, [*planners(), *installed("planner")])
    return args, name or None


def is_own(kind: str, name: str) -> bool:
    """Whether a name is module:NAME, or that of an installed package's entry point."""
    return ":" in name or name in installed(kind)


def planner_of(config: Any) -> PlannerConfig | None:
    """The planner in an agent's settings, None if they have none that can be exchanged."""
    planner = getattr(getattr(config, "mpc", None), "planner", None)
    return planner if isinstance(planner, PlannerConfig) else None


def takes_model(config: Any) -> bool:
    """Whether an agent's settings can hold a model of a user's own."""
    return OwnModel in get_args(get_type_hints(type(config)).get("model"))


def planned_by(planner: PlannerConfig, name: str) -> PlannerConfig:
    """`PlannerConfig.named`, which imports the planner, without importing one of the library's."""
    if name == planner.name or name not in planners():
        return planner.named(name)
    has = {*planner_settings(name), "name", "horizon", "settings"}
    lacking = {field.name: None for field in dataclasses.fields(planner) if field.name not in has}
    return dataclasses.replace(planner, **{**lacking, "name": name, "settings": {}})


def planner_options(name: str, args: Sequence[str]) -> type:
    """A `PlannerConfig` whose options are the settings that a planner has, with its defaults.

    A planner of a user's own has those settings as options too that `PlannerConfig` lacks.

    Raises:
        Wrong: the arguments have a setting of `PlannerConfig` that the planner lacks.
    """
    fields = dataclasses.fields(PlannerConfig)
    if name in planners():
        optional = {field.name for field in fields if field.default is None}
        own = {n: value for n, value in planner_settings(name).items() if n in optional}
        made = _made(PlannerConfig, name, own, {})
        made.__doc__ = PlannerConfig.__doc__
    else:
        kind = PlannerConfig(name).kind
        own = settings(f"planner {name!r}", kind, 3)
        made = options("planner", name, kind, 3, PlannerConfig)
    given = {arg.partition("=")[0].replace("-", "_") for arg in args}
    for field in fields:
        if f"__planner.{field.name}" in given and field.default is None and field.name not in own:
            raise Wrong(
                f"--planner.{field.name}: planner {name!r} has no setting {field.name!r}; it has "
                f"{', '.join(own) or 'none'}"
            )
    return made


def options(kind: str, name: str, part: Any, handed: int, base: type) -> type:
    """A config whose options are the settings of a user's own planner or model.

    Args:
        kind: planner or model.
        name: module:Class.
        part: the class.
        handed: how many of its constructor's first parameters are not settings.
        base: the library's config, with `name` and `settings`; its other fields that are no
            settings of this part are no options.

    Returns:
        A subclass of `base`; `plain` makes a `base` of one.
    """
    own = {n: p.default for n, p in settings(f"{kind} {name!r}", part, handed).items()}
    made = _made(base, name, own, _types(part))
    made.__doc__ = inspect.getdoc(part) or base.__doc__
    return made


def _made(base: Any, name: str, own: Mapping[str, Any], types: Mapping[str, Any]) -> Any:
    """`options` of settings with these defaults; `types` has the types of those that it knows."""
    hints = get_type_hints(base)
    fields: list[Any] = []
    for field in dataclasses.fields(base):
        hint, optional = hints[field.name], field.default is None  # not every part has it
        if field.name == "settings" or (optional and field.name not in own):
            hint = Annotated[hint, tyro.conf.Suppress]
        elif optional:
            hint = Annotated[hint, _effect(field.name, own[field.name])]
        fields.append((field.name, hint, _default(field, name)))
    for setting, value in own.items():
        if setting not in hints:
            fields.append(
                (setting, types.get(setting, type(value)), dataclasses.field(default=value))
            )
    made: Any = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)
    made.plain = lambda self: _plain(self, base, own)
    made.__post_init__ = lambda self: None  # checked once they are put together
    return made


def _effect(setting: str, default: Any) -> Any:
    """What a help text says of a planner's setting that is None: the planner's default."""
    every = setting == "knots" and default is None
    return unset("one for each action" if every else str(default))


def _types(part: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(part.__init__)
    except (NameError, AttributeError, TypeError):  # annotations of names that are not there
        return {}


def _default(field: Any, name: str) -> Any:
    if field.name == "name":
        return dataclasses.field(default=name)
    if field.default is not dataclasses.MISSING:
        return dataclasses.field(default=field.default)
    return dataclasses.field(default_factory=field.default_factory)


def _plain(made: Any, base: Any, own: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(base)} - {"settings"}
    kept = {name: getattr(made, name) for name in names}
    changed = {
        name: getattr(made, name)
        for name, default in own.items()
        if name not in names and getattr(made, name) != default
    }
    return base(**kept, settings={**made.settings, **changed})


def settings_options(name: str, part: Any, handed: int) -> type:
    """A dataclass of a model's settings alone; `plain` is a dict of those that were changed."""
    own, types = settings(f"model {name!r}", part, handed), _types(part)
    made = dataclasses.make_dataclass(
        "Settings",
        [
            (n, types.get(n, type(p.default)), dataclasses.field(default=p.default))
            for n, p in own.items()
        ],
        frozen=True,
    )
    made.__doc__ = inspect.getdoc(part)
    made.plain = lambda self: {
        n: getattr(self, n) for n, p in own.items() if getattr(self, n) != p.default
    }
    return made
