"""Figures of runs with episodes that are too short for some figures; tables of one run."""

import json

import gymnasium
import numpy as np
import pytest

from experiments.cli.command import run


class OneStep(gymnasium.Env):
    """A bandit: every episode ends after one step."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.state = self.state + np.float32(0.1) * action
        return self.state.copy(), -float(np.abs(action).sum()), True, False, {}


def mbrl(*args):
    return run([str(arg) for arg in args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    if "OneStep-v0" not in gymnasium.registry:
        gymnasium.register("OneStep-v0", OneStep)
    path = tmp_path_factory.mktemp("runs") / "r"
    small = ["--model.hidden", "8", "--model.epochs", "2", "--random-steps", "10"]
    search = ["--planner.population", "20", "--planner.elites", "5", "--threads", "1"]
    options = ["--env", "OneStep-v0", "--steps", "15", "--run", path, *small, *search]
    assert mbrl("train", "pets", *options) == 0
    return path


def drawn(path):
    return {figure.stem for figure in (path / "plots").glob("*.png")}


def test_episodes_of_one_step_are_drawn_and_skipped_figures_are_reported(trained, capsys):
    assert mbrl("plot", trained, "--episodes", "1", "--threads", "1", "--json") == 0
    out, err = capsys.readouterr()
    assert "no model_error.png, no plan_spread.png" in err and "--episodes" in err
    assert "calibration_error" in json.loads(out)[str(trained)]
    assert drawn(trained) == {"return", "calibration", "episode_spread"}
    assert mbrl("plot", trained, "--episodes", "3", "--threads", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)[str(trained)]
    assert len(found["error_by_horizon"]) == 1 and np.isfinite(found["error_by_horizon"]).all()
    assert drawn(trained) >= {"model_error", "plan_spread"}


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def test_one_run_or_one_episode_has_no_interval(trained, tmp_path, capsys):
    assert mbrl("compare", trained, "--out", tmp_path / "c.png", "--last", "1", "--json") == 0
    out = capsys.readouterr().out
    (found,) = json.loads(out, parse_constant=refuse).values()
    assert found["n"] == 1 and found["iqm"] == found["mean"]
    assert found["std"] is found["iqm_low"] is found["iqm_high"] is None
    assert "nan" not in out
    assert mbrl("evaluate", trained, "--episodes", "1", "--threads", "1", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=refuse)
    assert found["std"] is found["iqm_low"] is found["iqm_high"] is None
    assert "nan" not in err and "interval" not in err
