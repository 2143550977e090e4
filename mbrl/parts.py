"""Planners, models and agents of a user's own, by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any


def named(kind: str, name: str, ours: Mapping[str, Any]) -> Any:
    """What a name stands for.

    Args:
        kind: planner, model or agent.
        name: one of ours; `module:NAME`, with a module that can be imported; or an entry point
            that an installed package has in the group `mbrl.planners`, and so on.
        ours: the library's own, by name.

    Raises:
        ValueError: no such name; one line with the names that there are.
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
    """Parts of installed packages: the name of each, and the `module:OBJECT` that it stands for.

    Args:
        kind: env, planner, model or agent, for entry points of the group `mbrl.envs`, and so on.
    """
    points = metadata.entry_points(group=f"mbrl.{kind}s")
    return {p.name: f"{p.module}:{p.attr}" for p in sorted(points, key=lambda point: point.name)}


def of_module(kind: str, name: str) -> Any:
    """The object that `module:NAME` stands for.

    Raises:
        ValueError: the module cannot be imported or has no such object; one line.
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
    """The `module:NAME` of a class, so that a run can find it again.

    Raises:
        ValueError: it is not at the top level of a module that can be imported.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    found = getattr(sys.modules.get(module or ""), name or "", None)
    if found is not part:
        raise ValueError(f"{kind}: wanted a name, or a class at the top level of a module")
    return f"{module}:{name}"


def settings(what: str, part: Callable[..., Any], given: int) -> dict[str, inspect.Parameter]:
    """The settings of a class: parameters of its constructor beside those that are handed to it.

    Args:
        what: kind and name, for messages.
        part: the class.
        given: how many of its first parameters are handed to it; so are `generator` and `device`.

    Raises:
        ValueError: it cannot be called; a setting without a default.
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
    """Refuse settings that a class does not have; see `settings`.

    Raises:
        ValueError: one that does not exist; the line names those that do.
    """
    there = settings(what, part, given)
    for name in asked:
        if name not in there:
            known = ", ".join(there) or "none"
            raise ValueError(f"{what} has no setting {name!r}; it has {known}")
