"""`mbrl mpc`: numbers, recorded controls, a figure, and errors that name the cause."""

import json

import numpy as np
import pytest
import safetensors.numpy

import envs
from experiments.cli.command import run
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.control import DriveConfig, build_driver, drive
from mbrl.rng import episode_seed

SMALL = MPCConfig(PlannerConfig(horizon=8, population=8, iterations=1, elites=2))
FEW = ["--planner.horizon", "8", "--planner.population", "8", "--planner.iterations", "1"]


def mpc(tmp_path, *args):
    folder = tmp_path / "drive"
    steps = [] if "--steps" in args else ["--steps", "6"]
    status = run(["mpc", "--out", str(folder), *steps, *FEW, *args])
    return status, folder


def test_mpc_writes_numbers_controls_and_a_figure(tmp_path, capsys):
    status, folder = mpc(tmp_path, "--env", "cartpole-swingup", "--seeds", "2", "--json")
    assert status == 0
    said = capsys.readouterr()
    summary = json.loads(said.out.strip().splitlines()[-1])
    kept = json.loads((folder / "drive.json").read_text())
    assert kept["summary"]["return"] == summary["return"] and set(kept["seeds"]) == {"0", "1"}
    assert summary["episodes"] == 2 and summary["succeeded"] is None
    assert summary["rejected"] == 0 and summary["realtime"] > 0
    assert "episode   2  seed   1" in said.err and "real time x" in said.err
    arrays = safetensors.numpy.load_file(folder / "drives.safetensors")
    assert arrays["1/actions"].shape == (6, 1) and arrays["1/states"].shape[0] == 7
    assert (folder / "plots" / "drive.png").stat().st_size > 10_000
    rewards = [kept["seeds"][seed]["return"] for seed in "01"]
    assert rewards == pytest.approx([arrays[f"{seed}/rewards"].sum() for seed in "01"])


def test_recorded_controls_reproduce_the_episode(tmp_path):
    config = DriveConfig("cartpole-swingup", SMALL)
    played = drive(build_driver(config, make_env=envs.make, seed=3), seed=7, steps=10)
    env = envs.make("cartpole-swingup")
    env.reset(seed=episode_seed(7, 0))
    assert played.seed == episode_seed(7, 0)
    again = [env.step(action)[1] for action in played.actions]
    assert np.array_equal(again, played.rewards)
    assert played.states.shape[0] == 11 and len(played.plan_ms) == 10


def test_the_same_seed_gives_the_same_episode(tmp_path):
    config = DriveConfig("cartpole-swingup", SMALL)
    one, two = (
        drive(build_driver(config, make_env=envs.make, seed=1), seed=2, steps=8) for _ in range(2)
    )
    assert np.array_equal(one.actions, two.actions)
    other = drive(build_driver(config, make_env=envs.make, seed=2), seed=2, steps=8)
    assert not np.array_equal(one.actions, other.actions)


def test_planners_are_chosen_by_name(tmp_path):
    for planner in ("mppi", "predictive", "cem"):
        status, folder = mpc(tmp_path / planner, "--planner", planner)
        assert status == 0
        assert (
            json.loads((folder / "drive.json").read_text())["config"]["mpc"]["planner"]["name"]
            == planner
        )


def test_members_and_delay_are_settings_of_the_command(tmp_path):
    status, folder = mpc(tmp_path, "--members", "3", "--objective", "worst", "--delay", "2")
    assert status == 0
    config = json.loads((folder / "drive.json").read_text())["config"]
    assert config["members"] == 3 and config["delay"] == 2


def test_a_learned_model_replaces_the_simulator(tmp_path):
    """With the ensemble of a run the planner has the given settings too."""
    trained = tmp_path / "run"
    tiny = ["--model.hidden", "8", "--model.epochs", "1", "--random-steps", "20"]
    tiny += ["--fit-every", "20"]
    assert run(["train", "pets", "--steps", "20", "--run", str(trained), *tiny]) == 0
    status, folder = mpc(tmp_path, "--model", str(trained))
    assert status == 0
    assert json.loads((folder / "drive.json").read_text())["config"]["model"] == str(trained)
    status, _ = mpc(tmp_path / "x", "--model", str(trained), "--env", "half-cheetah")
    assert status == 2


@pytest.mark.parametrize(
    "args, message",
    [
        (["--env", "half-cheeta"], "did you mean half-cheetah"),
        (["--env", "Hopper-v5"], "no simulator to plan through; there is one of cartpole-swingup"),
        (["--planner", "cemm"], "unknown planner 'cemm': did you mean"),
        (["--members", "0"], "members must be an integer of at least 1, got 0"),
        (["--threads", "0"], "--threads must be >= 1, got 0"),
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--steps", "0"], "--steps must be >= 1, got 0"),
        (["--delay", "0"], "delay must be an integer in 1..1000000 or None, got 0"),
        (["--budget-ms", "0.0001"], "is shorter than one round"),
        (["--budget-ms", "-1"], "budget_ms must be finite and > 0"),
        (["--model", "nowhere"], "nowhere"),
        (["--objective", "best"], "objective 'best' is unknown"),
        (["--planner", "mppi", "--planner.elites", "3"], "'mppi' has no setting 'elites'"),
    ],
)
def test_wrong_input_ends_in_one_line_and_writes_no_file(tmp_path, capsys, args, message):
    status, folder = mpc(tmp_path, *args)
    err = capsys.readouterr().err.strip()
    assert status == 2 and message in err and len(err.splitlines()) == 1
    assert not folder.exists()


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "drive").mkdir()
    status, folder = mpc(tmp_path)
    assert status == 2 and "exists already" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_diverged_candidates_are_counted_and_reported(tmp_path, capsys, monkeypatch):
    from dataclasses import replace

    def strong(spec):
        spec.actuators[0].gear[0] = 1e9

    task = replace(envs.TASKS["cartpole-swingup"], planning=envs.Planning(strong, 4))
    monkeypatch.setitem(envs.TASKS, "cartpole-swingup", task)
    status, folder = mpc(tmp_path, "--env", "cartpole-swingup")
    assert status == 0
    summary = json.loads((folder / "drive.json").read_text())["summary"]
    assert summary["rejected"] > 0
    assert f"warning: {summary['rejected']} candidates diverged" in capsys.readouterr().err
