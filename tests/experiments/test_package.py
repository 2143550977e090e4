import builtins
import dis
import importlib
import os
import pkgutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mbrl", "envs", "planners", "experiments")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(iter(builder(str(ROOT)).build(directory=str(folder)))))


def test_the_wheel_contains_all_files_of_the_packages(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".xml", ".typed", ".txt", ".json")
    }
    assert tracked <= inside
    assert {f"{package}/py.typed" for package in PACKAGES} <= inside


def test_the_command_runs_from_the_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import envs, sys; from experiments.cli.command import run;"
        f"assert envs.__file__.startswith({str(site)!r}), envs.__file__;"
        "[envs.make(name).reset(seed=0) for name in envs.TASKS];"
        "sys.exit(run(['train', 'random', '--steps', '150', '--run', 'r']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "metrics.jsonl").exists()


def _names(code):
    """Global names that a module's compiled code loads, including its functions."""
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


@pytest.mark.parametrize("package", ("mbrl", "envs", "experiments"))
def test_every_global_name_is_defined(package):
    """Linters do not check names, because shapes in annotations look undefined to them."""
    for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        module = importlib.import_module(found.name)
        path = Path(str(module.__file__))
        names = set(_names(compile(path.read_text(), str(path), "exec")))
        assert names <= {*vars(module), *vars(builtins)}, found.name
