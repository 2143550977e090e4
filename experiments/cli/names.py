"""Names that a command line may give, read without importing what they stand for.

Torch, MuJoCo and Gymnasium take a second or more to import. So tables of names are read from the
sources, where they are literals, and what listings say of environments from `envs/catalogue.json`.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mbrl.parts import installed


class Wrong(Exception):
    """Wrong input; one line names the option, the value and what is accepted."""


def check_name(what: str, name: str, names: Iterable[str]) -> None:
    """Check that a name exists.

    Raises:
        Wrong: it does not; the message gives the nearest names and all names.
    """
    there = list(names)
    if name not in there:
        raise Wrong(f"unknown {what} {name!r}: {_near(name, there)}there are {', '.join(there)}")


SEVERAL = ("--module",)
"""Options that may be given several times."""


def check_once(args: Sequence[str]) -> None:
    """Check that no option but `SEVERAL` is given twice; --x and --no-x are one option.

    Raises:
        Wrong: one is.
    """
    given = [arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")]
    options = [re.sub(r"(--|\.)no-", r"\1", name) for name in given]
    for name in options:
        if options.count(name) > 1 and name not in SEVERAL:
            raise Wrong(f"{name} is given twice; give it once")


PIXELS = "-pixels"
"""What follows the name of an environment to name it as seen by cameras; see `envs.pixels`."""


def check_env(name: str) -> None:
    """Check that an environment's id is known, to us or to gymnasium.

    Raises:
        Wrong: it is not; the message gives the nearest. "module:name" is not checked here, nor is
            what follows "-pixels".
    """
    name = name.partition(PIXELS)[0] or name
    ours = [row["name"] for rows in catalogue().values() for row in rows]
    if ":" in name or name in ours or name in installed("env") or name in _gymnasiums():
        return
    import gymnasium

    if name not in gymnasium.registry:
        near = _near(name, [*ours, *gymnasium.registry], cutoff=0.5)
        raise Wrong(f"unknown environment {name!r}: {near}mbrl list envs shows ours")


def check_searchable(name: str) -> None:
    """Check that an environment has a true model to search through.

    Raises:
        Wrong: it has none.
    """
    tables = catalogue()
    there = [row["name"] for row in tables["worlds"]]
    there += [row["name"] for row in tables["envs"] if row["simulator"]]
    if ":" in name or name in installed("env"):
        return  # what it is will be seen when it is imported
    if name not in there:
        raise Wrong(
            f"--env {name!r}: no true model to search through; {_near(name, there, cutoff=0.5)}"
            f"there is one of {', '.join(there)}; mbrl list envs says what they are"
        )


def _near(name: str, names: Iterable[str], *, cutoff: float = 0.4) -> str:
    lower = {each.lower(): each for each in names}
    near = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, 3, cutoff)]
    return f"did you mean {' or '.join(near)}? " if near else ""


@cache
def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Rows of environments, `envs` and `worlds`; see `envs.catalogue`."""
    return json.loads((_folder("envs") / "catalogue.json").read_text(encoding="utf-8"))


def algorithms() -> dict[str, str]:
    """Each algorithm's name and what it is, by the first line of its config's docstring."""
    from mbrl.agents import AGENTS

    return {name: _said(module, "Config") for name, module in AGENTS.items()}


def planners() -> dict[str, str]:
    """Likewise the planners, by their classes."""
    return _first_lines("planners.table", "PLANNERS") | {"ilqr": _said("planners.ilqr", "ILQR")}


def planner_settings(name: str) -> dict[str, Any]:
    """Settings of one of the library's planners and their defaults, from the source of its class.

    They are those that `mbrl.parts.settings` finds in the class, which imports torch.
    """
    if name == "ilqr":
        return _settings("planners.ilqr", "ILQR")
    kind = _table("planners.table", "PLANNERS")[name]
    assert isinstance(kind, ast.Name)
    return _settings("planners.table", kind.id)


def known(env: str) -> tuple[bool, bool] | None:
    """Whether the reward and the termination of an environment are known as functions.

    None where only the environment can tell: it is neither the library's nor gymnasium's own, or
    something may have been registered of it.
    """
    if "envs" in sys.modules or "gymnasium" in sys.modules:
        return None
    tables = catalogue()
    for row in tables["envs"]:
        if row["name"] == env:
            return row["reward_known"], row["terminated_known"]
    ours = any(row["name"] == env for row in tables["worlds"])
    return (False, False) if ours or env in _gymnasiums() else None


def discount(env: str) -> float | None:
    """The discount of one of the library's worlds; None if it has none or is not one of them."""
    return next((r["discount"] for r in catalogue()["worlds"] if r["name"] == env), None)


def models() -> dict[str, str]:
    """What `--model` takes by name, beside the folder of a run."""
    from mbrl.dynamics.table import MODELS

    learned = {
        # "Settings of NAME (authors and year), and more."
        name: re.split(r" \(| and of|[.,:]", (kind.__doc__ or "").removeprefix("Settings of "))[0]
        for name, kind in MODELS.items()
    }
    return {
        "planning": "mbrl mpc: the task's cheaper simulator, if it has one",
        "true": "mbrl mpc and tree: the task's own simulator, or the world itself",
        **{name: f"mbrl train: {said}" for name, said in learned.items()},
    }


def studies() -> dict[str, str]:
    """Likewise the studies, by their functions."""
    return _first_lines("experiments.studies", "STUDIES")


def benchmarks() -> dict[str, str]:
    """Likewise the benchmarks."""
    return _first_lines("experiments.bench", "BENCHES")


def study_seeds(name: str, *, fast: bool = False) -> int:
    """The number of seeds that a study takes by itself, or its fast version."""
    call = _table("experiments.studies", "STUDIES")[name]
    assert isinstance(call, ast.Call)
    said = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    return said.get("fast_seeds", 1) if fast else said["seeds"]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@cache
def _text(module: str) -> str:
    top, *rest = module.split(".")  # looking a submodule up would import its package
    path = _folder(top).joinpath(*rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(_text(module))


def _table(module: str, name: str) -> dict[str, ast.expr]:
    """Keys and values of a module's dict."""
    for node in _source(module).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == name:
            assert isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): value for key, value in pairs if key is not None}
    raise LookupError(f"{module} has no table {name}")


@cache
def _gymnasiums() -> set[str]:
    """Ids that gymnasium registers itself."""
    return set(re.findall(r'^ *id="([^"]+)"', _text("gymnasium.envs"), re.M))


def _settings(module: str, name: str) -> dict[str, Any]:
    """Fields with a default of a dataclass, of this module or imported by it, and their values."""
    found: dict[str, Any] = {}
    for node in _source(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for base in node.bases:
                assert isinstance(base, ast.Name)
                found |= _settings(module, base.id)
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and line.value is not None:
                    assert isinstance(line.target, ast.Name)
                    found[line.target.id] = ast.literal_eval(line.value)
            return found
    return _settings(_homes(module)[name], name)


def _homes(module: str) -> dict[str, str]:
    """The module of each name that a module imports from another."""
    return {
        name.name: f"{node.module}"
        for node in _source(module).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


def _first_lines(module: str, table: str) -> dict[str, str]:
    """The names in a table, and the first lines of the docstrings of the values."""
    home = _homes(module)
    said = {}
    for key, value in _table(module, table).items():
        if isinstance(value, ast.Call):  # study(versions.versions, seeds=5)
            value = value.args[0]
        if isinstance(value, ast.Attribute):  # versions.versions
            assert isinstance(value.value, ast.Name)
            said[key] = _said(f"{home[value.value.id]}.{value.value.id}", value.attr)
        else:
            assert isinstance(value, ast.Name)
            said[key] = _said(home[value.id], value.id)
    return said


def _said(module: str, name: str) -> str:
    """The first line of the docstring of a function or class, of this module or imported by it."""
    # to parse whole files would take as long as all else that a listing does
    found = re.search(
        rf'^(?:class|def) {name}\b[\s\S]*?:\n +"""(.*?)(?:"""|\n)', _text(module), re.M
    )
    if found is not None:
        return found.group(1)
    home = _homes(module)
    if name in home:
        return _said(home[name], name)
    raise LookupError(f"{module} has no {name}")
