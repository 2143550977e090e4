"""Planners, models, agents and environments of a user's own, found by name; and extras."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any


def named(kind: str, name: str, ours: Mapping[str, Any]) -> Any:
    """The object that a name stands for.

    Args:
        kind: planner, model or agent.
        name: one of `ours`; `module:NAME`, with a module that can be imported; or an entry point of
            an installed package, in the group `mbrl.planners`, `mbrl.models` or `mbrl.agents`.
        ours: the library's own objects, by name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name in ours:
        return ours[name]
    if ":" in name:
        return of_module(kind, name)
    for point in metadata.entry_points(group=f"mbrl.{kind}s", name=name):
        return of_module(kind, f"{point.module}:{point.attr}")
    there = f"there are {', '.join(ours)}, and yours as module:NAME" if ours else "give module:NAME"
    raise ValueError(f"{kind} {name!r} is unknown; {there}")


def installed(kind: str) -> dict[str, str]:
    """Entry points of installed packages: name -> `module:OBJECT`.

    Args:
        kind: env, planner, model or agent: the group is `mbrl.envs`, `mbrl.planners`, ...
    """
    points = metadata.entry_points(group=f"mbrl.{kind}s")
    return {p.name: f"{p.module}:{p.attr}" for p in sorted(points, key=lambda point: point.name)}


def of_module(kind: str, name: str) -> Any:
    """The object that `module:NAME` stands for.

    Raises:
        ValueError: the module cannot be imported or has no such object.
    """
    module, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ValueError(f"{kind} {name!r}: the form is NAME, or module:NAME")
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        said = " ".join(str(error).split()) or "nothing more"
        raise ValueError(
            f"{kind} {name!r}: {module} cannot be imported: {type(error).__name__}: {said}"
        ) from error
    if not hasattr(sys.modules[module], attribute):
        raise ValueError(f"{kind} {name!r}: {module} has no {attribute}")
    return getattr(sys.modules[module], attribute)


def name_of(kind: str, part: Any) -> str:
    """The `module:NAME` of a class, for `of_module`.

    Raises:
        ValueError: the class is not at the top level of a module that can be imported.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    found = getattr(sys.modules.get(module or ""), name or "", None)
    if found is not part:
        raise ValueError(f"{kind}: wanted a name, or a class at the top level of a module")
    return f"{module}:{name}"


def settings(what: str, part: Callable[..., Any], given: int) -> dict[str, inspect.Parameter]:
    """The settings of a class: the parameters of its constructor that the user chooses.

    The library passes the first `given` parameters, `generator` and `device`.

    Args:
        what: kind and name, for messages.
        part: the class.
        given: number of first parameters that the library passes.

    Raises:
        ValueError: `part` cannot be called; a setting without a default.
    """
    if not callable(part):
        raise ValueError(f"{what}: wanted a class, got a {type(part).__name__}")
    parameters = list(inspect.signature(part).parameters.values())[given:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    handed = ("generator", "device")
    found = {p.name: p for p in parameters if p.kind in kinds and p.name not in handed}
    for name, parameter in found.items():
        if parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{what}: its setting {name} needs a default")
    return found


def check_settings(what: str, part: Callable[..., Any], given: int, asked: Iterable[str]) -> None:
    """Check that a class has the settings `asked`; see `settings`.

    Raises:
        ValueError: a setting that it does not have; the message lists those that it has.
    """
    there = settings(what, part, given)
    for name in asked:
        if name not in there:
            known = ", ".join(there) or "none"
            raise ValueError(f"{what} has no setting {name!r}; it has {known}")


def require_extra(module: str, extra: str) -> None:
    """Raise ModuleNotFoundError if a module is not installed; the message says what to install."""
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{module} is not installed: pip install 'rolloutlab[{extra}]'")
