"""The study engine: its runs, stored results and folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import envs
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training import study as studies
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.executor import Work
from mbrl.training.folders import learning
from mbrl.training.metrics import METRICS
from mbrl.training.online import Target
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import make, train, train_run
from mbrl.training.study import Lab, Report, study

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
    return Lab(folder, seeds, 1, True, silent, envs.make)


SCRIPT = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
if __name__ == "__main__":
    from dataclasses import replace
    import envs
    from mbrl.training.study import Lab
    from test_study import TINY
    say = lambda line: print(line, flush=True)
    long = replace(TINY, steps=100_000, agent=replace(TINY.agent, random_steps=99_000))
    Lab(Path(sys.argv[1]), 2, 2, True, say, envs.make).train({"long": long})
"""


def test_ctrl_c_saves_the_runs_and_leaves_no_process_or_traceback(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{here.parents[2]}"}
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
        for _ in range(100):  # the interpreter's resource tracker ends a little later
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    for seed in (0, 1):
        path = tmp_path / "runs" / f"long-{seed}"
        latest = Run.open(path).latest()
        assert latest is not None
        assert latest >= json.loads((path / METRICS).read_text().splitlines()[-1])["env_steps"]


def test_training_resumes_existing_runs_and_rejects_another_config(tmp_path, inline):
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

    # Results for a run are stored until the run changes.
    asked = {
        "x": Work(studies.final_returns, (path, 1, {"replan_every": 3}, envs.make), "evaluate")
    }
    answer = whole.answers(asked)
    (file,) = (tmp_path / "answers").iterdir()
    file.write_text("[7.0]")
    assert whole.answers(asked) == {"x": [7.0]}
    Run.open(path).save(161, Run.open(path).load())
    assert whole.answers(asked) == answer


def _after(steps: int):
    asked = iter(range(1, 10**9))
    return lambda: next(asked) >= steps


def test_a_run_that_reached_its_return_is_finished(tmp_path, inline):
    """It is not trained on, although it has fewer steps than its config allows."""
    config = replace(TINY, steps=100_000, until_return=-1000.0, until_episodes=1)
    (path,) = laboratory(tmp_path).train({"tiny": config})["tiny"]
    assert Run.open(path).latest() == 150  # one random episode
    said = []
    Lab(tmp_path, 1, 1, True, said.append, envs.make).train({"tiny": config})
    assert said == []
    assert Run.open(path).latest() == 150


def test_a_target_that_is_taken_away_is_no_longer_in_the_config(tmp_path):
    env = envs.make("cartpole-swingup")
    for target, steps in ((Target(-1000.0, 1), 150), (Target(1e9, 2), 300), (None, 400)):
        agent = make("random", env)
        done = train(agent, env, tmp_path / "run", steps=400 if target is None else 300,
                     target=target)  # fmt: skip
        assert done.env_steps == steps
        config = RunConfig.of(Run.open(tmp_path / "run"))
        assert config.target == target


def test_a_study_writes_numbers_versions_and_a_page(tmp_path):
    def small(lab: Lab) -> Report:
        return Report({"seeds": lab.seeds}, "# small")

    lab = partial(Lab, make_env=gymnasium.make)
    folder = study(small, seeds=3, lab=lab)(tmp_path, say=silent)
    assert folder == tmp_path / "small"
    results = json.loads((folder / "results.json").read_text())
    assert results["numbers"] == {"seeds": 3}
    assert results["versions"]["torch"] == torch.__version__
    assert (folder / "table.md").read_text() == "# small\n"
    fast = study(small, seeds=3, lab=lab)(tmp_path, fast=True, say=silent)
    assert "fast version" in (fast / "table.md").read_text()
    with pytest.raises(ValueError, match="workers must be an integer of at least 1 or None, got 0"):
        study(small, seeds=3, lab=lab)(tmp_path, workers=0, say=silent)


def test_a_study_reads_a_folder_of_data_only_if_it_says_so(tmp_path):
    def reads(lab: Lab) -> Report:
        return Report({"data": str(lab.data)}, "# reads")

    lab = partial(Lab, make_env=gymnasium.make)
    folder = study(reads, seeds=1, data=True, lab=lab)(tmp_path, data=tmp_path, say=silent)
    assert json.loads((folder / "results.json").read_text())["numbers"]["data"] == str(tmp_path)
    with pytest.raises(ValueError, match="the study reads reads no data, got the folder "):
        study(reads, seeds=1, lab=lab)(tmp_path, data=tmp_path, say=silent)


def test_rows_of_a_report_are_a_csv_file_that_reads_back(tmp_path):
    rows = [{"name": 'a, "b"', "mean": 0.1, "error": None}, {"name": "ß\n", "mean": -3, "error": 2}]

    def tabular(lab: Lab) -> Report:
        return Report({}, "# tabular", rows)

    folder = study(tabular, seeds=1, lab=partial(Lab, make_env=gymnasium.make))(
        tmp_path, say=silent
    )
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"name": 'a, "b"', "mean": "0.1", "error": ""},
            {"name": "ß\n", "mean": "-3", "error": "2"},
        ]


def test_a_study_of_many_runs_makes_those_with_a_part_in_their_name(tmp_path):
    def many(lab: Lab) -> Report:
        return Report({"made": lab.chosen(["sac Hopper", "ppo Hopper", "ppo Acrobot"])}, "# many")

    def made(*only: str, choice: bool = True) -> list[str]:
        run = study(many, seeds=1, choice=choice, lab=partial(Lab, make_env=gymnasium.make))
        folder = run(tmp_path, only=only, say=silent)
        return json.loads((folder / "results.json").read_text())["numbers"]["made"]

    assert made() == ["sac Hopper", "ppo Hopper", "ppo Acrobot"]
    assert made("Hopper", "sac") == ["sac Hopper", "ppo Hopper"]
    assert made("ppo A") == ["ppo Acrobot"]
    assert made("p") == ["sac Hopper", "ppo Hopper", "ppo Acrobot"]
    with pytest.raises(ValueError, match="no run has 'td3' in its name; there are sac Hopper"):
        made("ppo", "td3")
    with pytest.raises(ValueError, match="the study many is made whole: it has no choice of runs"):
        made("ppo", choice=False)


def test_whole_words_of_a_name_are_not_looked_for_within_others(tmp_path):
    names = ["actor-critic A", "off-policy-actor-critic A", "mbpo B", "dhmbpo B", "dhmbpo C-v1"]

    def chosen(*only: str) -> list[str]:
        return Lab(tmp_path, 1, 1, True, silent, gymnasium.make, only=only).chosen(names)

    assert chosen("actor-critic") == chosen("actor-critic A") == names[:1]
    assert chosen("critic") == names[:2]  # no name has this word
    assert chosen("mbpo", "C") == [names[2], names[4]]
    assert chosen() == names


def test_results_are_computed_again_only_for_other_arguments(tmp_path, inline):
    lab, seen = laboratory(tmp_path, seeds=2), []

    def squared(x: float) -> float:
        seen.append(x)
        return x * x

    def asked(*values: float):
        return {(x, s): Work(squared, (x,), f"square {x}") for x in values for s in range(2)}

    assert lab.answers(asked(2.0)) == {(2.0, 0): 4.0, (2.0, 1): 4.0}
    assert lab.answers(asked(2.0, 3.0))[3.0, 1] == 9.0
    assert seen == [2.0, 2.0, 3.0, 3.0]


def test_pages_and_intervals_equal_hand_computed_values():
    """The interval of four equal scores is a point; a normal interval is 1.96 standard errors."""
    assert studies.summary([2.0] * 4) == {
        "seeds": [2.0] * 4, "estimate": 2.0, "low": 2.0, "high": 2.0,
    }  # fmt: skip
    wide = studies.interval(np.arange(40.0).tolist())
    assert wide["low"] < wide["estimate"] == pytest.approx(19.5) and wide["high"] > 19.5
    assert studies.shown({"estimate": 1.25, "low": 0.0, "high": 2.0}, 2) == "1.25 [0.00, 2.00]"
    assert studies.shown_mean(3.0, 0.5) == "3.0 [2.0, 4.0]"
    assert studies.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
