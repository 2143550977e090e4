"""Errors of a simulator's motion; runs evaluated and compared."""

import json

import numpy as np
import pytest

import envs
import mbrl
from mbrl.dynamics import Simulator
from mbrl.evaluation import compare_runs, evaluate_run, motion_error
from mbrl.rng import episode_seed


def test_the_motion_of_the_true_simulator_has_no_error_and_that_of_another_has():
    task = envs.TASKS["cartpole-swingup"]
    true, other = Simulator(task), Simulator(task)
    other.model.opt.gravity[:] = 0
    states = np.stack([true.state(*task.initial(np.random.default_rng(k))) for k in range(3)])
    found = [
        motion_error(true, sim, states, seconds=0.2, rng=np.random.default_rng(0))
        for sim in (true, other)
    ]
    assert found[0] == pytest.approx(0, abs=1e-12) and found[1] > 1e-4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of random actions, seeds 0, 1 and 2, two episodes each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        env = envs.make("pendulum-swingup")
        agent = mbrl.make("random", env, seed=seed)
        mbrl.train(agent, env, folder / f"{seed}", steps=400, seed=seed)
    return [folder / f"{seed}" for seed in range(3)]


def test_a_run_is_evaluated_into_its_folder(runs):
    heard = []
    arguments = {"make_env": envs.make, "episodes": 2, "seed": 5}
    summary, env, first = evaluate_run(
        runs[0], callback=lambda *one: heard.append(one), **arguments
    )
    assert env == "pendulum-swingup" and summary["env_steps"] == 400 and summary["n"] == 2
    assert summary == json.loads((runs[0] / "evaluation.json").read_text())
    assert [(number, total) for number, total, _ in heard] == list(enumerate(summary["returns"], 1))
    world = envs.make(env)
    world.reset(seed=episode_seed(5, 0))
    again = sum(float(np.float32(world.step(action)[1])) for action in first)
    assert again == pytest.approx(summary["returns"][0], rel=1e-5) and len(first) == heard[0][2]
    assert evaluate_run(runs[0], **arguments)[0] == summary


def test_runs_with_one_label_are_seeds_of_the_same_thing(runs):
    env, curves, numbers = compare_runs(runs)
    assert env == "pendulum-swingup" and list(curves) == ["random"]
    assert numbers["random"]["n"] == 3 and numbers["random"]["better_than_first"] is None
    ends = [returns[-1] for _, returns in curves["random"]]
    assert numbers["random"]["returns"] == ends
    _, _, both = compare_runs(runs, labels=("a", "b", "a"), last=2)
    assert both["a"]["returns"] == [np.mean(curves["random"][i][1]) for i in (0, 2)]
    wins = [both["b"]["returns"][0] > one for one in both["a"]["returns"]]
    assert both["b"]["better_than_first"] == np.mean(wins)
