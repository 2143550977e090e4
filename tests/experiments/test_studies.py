import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import envs
from experiments.studies import STUDIES, lab, objectives, propagation
from experiments.studies.lab import Lab, Report, study
from experiments.studies.versions import config
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.executor import Work
from mbrl.training.metrics import METRICS
from mbrl.training.runs import RunConfig, learning, train_run

TINY = RunConfig(
    "pets",
    "cartpole-swingup",
    0,
    160,
    "cpu",
    Config(
        mpc=MPCConfig(PlannerConfig(horizon=3, population=6, iterations=1, elites=2), particles=5),
        model=EnsembleConfig(hidden=(8,), epochs=2),
        random_steps=150,
    ),
)


def silent(_: str) -> None:
    pass


def laboratory(folder: Path, seeds: int = 1) -> Lab:
    return Lab(folder, seeds, 1, True, silent)


SCRIPT = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
if __name__ == "__main__":
    from dataclasses import replace
    from experiments.studies.lab import Lab
    from test_studies import TINY
    say = lambda line: print(line, flush=True)
    long = replace(TINY, steps=100_000, agent=replace(TINY.agent, random_steps=99_000))
    Lab(Path(sys.argv[1]), 2, 2, True, say).train({"long": long})
"""


def test_ctrl_c_saves_the_runs_and_leaves_no_process_and_no_traceback_of_a_worker(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{here.parents[1]}"}
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen: set[str] = set()
    while len(seen) < 2:
        seen.add(process.stdout.readline().partition("seed ")[2][:1])
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1  # the caller's own KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # the interpreter's own tracker outlives it by a moment
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    for seed in (0, 1):
        path = tmp_path / "runs" / f"long-{seed}"
        latest = Run.open(path).latest()
        assert latest is not None
        assert latest >= json.loads((path / METRICS).read_text().splitlines()[-1])["env_steps"]


# The laboratory.


def test_training_goes_on_from_what_is_there_and_rejects_another_config(tmp_path, inline):
    half = laboratory(tmp_path)
    path = half.folder / "runs" / "a-0"
    train_run(TINY, path, make_env=envs.make, stop=_after(70))
    assert Run.open(path).latest() == 70
    whole = laboratory(tmp_path, seeds=2)
    assert whole.train({"a": TINY})["a"] == [path, path.with_name("a-1")]
    assert [Run.open(p).latest() for p in (path, path.with_name("a-1"))] == [160, 160]
    assert learning(path)[0] == [150]
    assert whole.configs["a"]["env"] == "cartpole-swingup"
    before = (path / METRICS).stat().st_mtime_ns
    whole.train({"a": TINY})
    assert (path / METRICS).stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"a-0 was begun with another config"):
        whole.train({"a": replace(TINY, steps=200)})

    # Answers about it are kept until the run changes.
    asked = {"x": Work(lab.final_returns, (path, 1, {"replan_every": 3}), "evaluate")}
    answer = whole.answers(asked)
    (file,) = (tmp_path / "answers").iterdir()
    file.write_text("[7.0]")
    assert whole.answers(asked) == {"x": [7.0]}
    Run.open(path).save(161, Run.open(path).load())
    assert whole.answers(asked) == answer


def _after(steps: int):
    asked = iter(range(1, 10**9))
    return lambda: next(asked) >= steps


def test_a_study_leaves_numbers_versions_and_a_page(tmp_path):
    def small(lab: Lab) -> Report:
        return Report({"seeds": lab.seeds}, "# small")

    folder = study(small, seeds=3)(tmp_path, say=silent)
    assert folder == tmp_path / "small"
    results = json.loads((folder / "results.json").read_text())
    assert results["numbers"] == {"seeds": 3}
    assert results["versions"]["torch"] == torch.__version__
    assert (folder / "table.md").read_text() == "# small\n"
    fast = study(small, seeds=3)(tmp_path, fast=True, say=silent)
    assert "fast version" in (fast / "table.md").read_text()
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        study(small, seeds=3)(tmp_path, workers=0, say=silent)


def test_versions_differ_in_nothing_but_data_and_plans():
    at = Lab(Path("nowhere"), 1, 1, False, silent)
    old, middle, new = (config(at, "cartpole-swingup", name) for name in ("0.5", "1.0", "1.5"))
    assert old.steps == middle.steps == new.steps
    agents = [run.agent for run in (old, middle, new)]
    assert agents[0].random_steps == old.steps
    assert [agent.aggregate for agent in agents] == [False, True, True]
    assert [agent.mpc.replan_every for agent in agents] == [0, 0, 2]
    assert agents[0].mpc.planner == agents[1].mpc.planner


# The experiments that need no training.


def test_brute_force_and_statistics_by_hand():
    # At rest on the top with a noise of a millionth, the ball stays: h steps return h.
    rng = np.random.default_rng(0)
    near = propagation.brute_force(np.array([[0.0, 0.0]]), 50, rng)
    assert near.shape == (1, 50, propagation.HORIZON)
    assert near[0, :, 0] == pytest.approx(1.0, abs=0.01)
    returns = np.arange(20.0).reshape(1, 20, 1)
    mean, std, cvar = propagation.statistics(returns)[0, 0]
    assert (mean, cvar) == (9.5, 0.5)  # the worst tenth of 0..19 is 0 and 1
    assert std == pytest.approx(np.sqrt((20**2 - 1) / 12))


def test_propagation_ranks_what_keeps_its_member_first(tmp_path):
    folder = STUDIES["propagation"](tmp_path, fast=True, seeds=4, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert numbers["ranked"][0] == "tsinf"
    assert numbers["ranked"][-1] == "expectation"
    last = {name: errors["std"][-1] for name, errors in numbers["median error by horizon"].items()}
    assert last["expectation"] == pytest.approx(1.0)  # it has no spread at all
    assert last["tsinf"] < 0.6 * last["ts1"]
    assert Image.open(folder / "propagation.png").size[0] > 1000


def test_caution_improves_the_tail_and_optimism_does_not():
    budget = objectives.Budget(100, 8, 50, 4000)
    found = {
        name: objectives.outcome(*objectives.OBJECTIVES[name], 0, budget)
        for name in ("optimism", "mean", "penalty")
    }
    assert found["optimism"]["worst tenth"] < found["mean"]["worst tenth"] - 1
    assert found["optimism"]["falls"] > 2 * found["mean"]["falls"]
    assert found["penalty"]["clearance"] > found["mean"]["clearance"] + 0.1


def test_robots_have_pages_with_pictures_and_numbers(tmp_path):
    folder = STUDIES["robots"](tmp_path, fast=True, workers=1, say=silent)
    page = (folder / "table.md").read_text()
    found = json.loads((folder / "results.json").read_text())["numbers"]
    for name in ("cartpole-swingup", "cartpole-servo"):
        assert f"## {name}" in page and f"({name}.png)" in page
        assert found[name]["plan_ms"] > 0 and len(found[name]["planned each"]) == 1
    assert found["cartpole-swingup"]["motion error"] is None
