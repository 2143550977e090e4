"""Parts of a user's own in a command line: --env, --planner, --model and ALGO as module:NAME.

A planner's and a model's settings become options, such as --planner.bees.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import tyro

from experiments.cli.names import check_name, check_once, planners
from experiments.cli.options import peek
from mbrl.parts import installed


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
    from mbrl.parts import settings

    own = settings(f"{kind} {name!r}", part, handed)
    hints, types = get_type_hints(base), _types(part)
    fields: list[Any] = []
    for field in dataclasses.fields(base):
        unset = field.default is None  # a setting that not every planner has
        hidden = field.name == "settings" or (unset and field.name not in own)
        hint = Annotated[hints[field.name], tyro.conf.Suppress] if hidden else hints[field.name]
        fields.append((field.name, hint, _default(field, name)))
    for setting, parameter in own.items():
        if setting not in hints:
            kind_of = types.get(setting, type(parameter.default))
            start = dataclasses.field(default=parameter.default)
            fields.append((setting, kind_of, start))
    made = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)
    made.__doc__ = inspect.getdoc(part) or base.__doc__
    made.plain = lambda self: _plain(self, base, own)
    made.__post_init__ = lambda self: None  # checked once they are put together
    return made


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


def _plain(made: Any, base: Any, own: Mapping[str, inspect.Parameter]) -> Any:
    names = {field.name for field in dataclasses.fields(base)} - {"settings"}
    kept = {name: getattr(made, name) for name in names}
    changed = {
        name: getattr(made, name)
        for name, parameter in own.items()
        if name not in names and getattr(made, name) != parameter.default
    }
    return base(**kept, settings={**made.settings, **changed})


def settings_options(name: str, part: Any, handed: int) -> type:
    """A dataclass of a model's settings alone; `plain` is a dict of those that were changed."""
    from mbrl.parts import settings

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
