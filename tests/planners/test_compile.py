"""Functions cached on disk are compiled again if a callee changes; the cache is optional."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba import njit

from planners.compile import compiled

ROOT = Path(__file__).parents[2]

CALLEE = """
from planners.compile import compiled
FACTOR = {factor}
@compiled(inline="always")
def scaled(x):
    return FACTOR * x
"""
CALLER = """
from planners.compile import compiled
from callee import scaled
@compiled
def plus_one(x):
    return scaled(x) + 1
"""
PROGRAM = """
from caller import plus_one
print(plus_one(5.0), sum(plus_one.stats.cache_hits.values()))
"""


def run(program, *folders, **env):
    env |= {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, folders))}
    # Python overlooks a change of a file within a second if its size is the same.
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_edited_callee_in_another_file_is_compiled_again(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    printed = []
    for factor in (2, 2, 3):
        (tmp_path / "callee.py").write_text(CALLEE.format(factor=factor))
        printed.append(run(PROGRAM, tmp_path, ROOT, NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    assert printed == [["11.0", "0"], ["11.0", "1"], ["16.0", "0"]]


def test_compiled_functions_work_without_a_writable_cache(tmp_path):
    """Files block the folders of both caches, beside the sources and of the user."""
    for package in ("planners", "mbrl"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
        for source in (tmp_path / package).rglob("*.py"):
            (source.parent / "__pycache__").touch()
    program = (
        "import numpy as np, planners.mcts, mbrl.tabular;"
        "from mbrl.tabular._bandit_loops import kl_upper;"
        "print(kl_upper(np.zeros(1), np.full(1, np.log(2)))[0])"
    )
    blocked = str(tmp_path / "mbrl" / "__pycache__")
    (upper,) = run(program, tmp_path, HOME=blocked, XDG_CACHE_HOME=blocked)
    assert float(upper) == pytest.approx(0.5)  # KL(0, q) = -ln(1 - q)


def test_code_without_a_file_is_compiled():
    """numba cannot cache a function that has no file."""
    names = {}
    exec("def double(x): return 2 * x", names)
    with pytest.raises(RuntimeError, match="cannot cache function"):
        njit(cache=True)(names["double"])
    assert compiled(names["double"])(2.5) == 5.0
