import builtins
import dis
import os
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


def test_the_wheel_holds_all_that_the_packages_hold(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".xml", ".typed", ".txt")
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


def test_every_name_in_running_code_is_defined():
    """Ruff and pyright are told not to look, because shapes in annotations would count too."""
    given = {*vars(builtins), "__annotations__", "__file__", "__qualname__"}
    pasted = {("kernel.py", "select")}  # a rule's own, in the copy of the code that it compiles
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        module = compile(path.read_text(), str(path), "exec")
        everywhere = given | {name for code in codes(module) for name in stored(code, "GLOBAL")}
        everywhere |= set(stored(module, "NAME"))
        for code in codes(module):
            known = everywhere | set(stored(code, "NAME"))
            read = {
                step.argval
                for step in dis.get_instructions(code)
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
            }
            undefined = {name for name in read - known if (path.name, name) not in pasted}
            assert not undefined, f"{path}: {code.co_name}: {undefined}"


def codes(code):
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from codes(inner)


def stored(code, kind):
    return [s.argval for s in dis.get_instructions(code) if s.opname == f"STORE_{kind}"]
