import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from envs import WORLDS
from envs.catalogue import simulators
from experiments.cli import train
from experiments.cli.command import run
from experiments.cli.options import Common, emit
from mbrl.dynamics.table import MODELS
from mbrl.training.metrics import read_metrics
from planners.mcts.export import from_json

TINY = [
    "--model.hidden=16",
    "--model.epochs=3",
    "--model.members=2",
    "--particles=2",
    "--planner.population=8",
    "--planner.iterations=1",
    "--planner.elites=2",
    "--planner.horizon=5",
    "--random-steps=100",
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def mbrl(*args: object) -> int:
    return run([str(arg) for arg in args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "cartpole-swingup" / "pets" / "0"
    assert mbrl("train", "pets", *TINY, "--steps=300", "--threads=1", "--run", path) == 0
    return path


def settings_of(monkeypatch, *args):
    """The agent's settings that a command line leads to."""
    seen = []
    monkeypatch.setattr(train, "_go", lambda made, *_, **__: seen.append(made.agent) or 0)
    assert mbrl("train", *args, "--threads", "1") == 0
    return seen[0]


@pytest.mark.parametrize("name", [*MODELS])
def test_the_model_that_is_named_is_the_one_that_is_trained(name, monkeypatch):
    made = settings_of(monkeypatch, "pets", "--model", name, "--model.no-warm").model
    assert type(made) is MODELS[name] and not made.warm


@pytest.mark.parametrize("algo", ["dyna", "mb-pg", "pets"])
def test_a_reward_that_is_summed_over_repeated_actions_is_learned(algo, monkeypatch):
    """The reward of one step is known, but no function of two observations is the sum."""
    args = monkeypatch, algo, "--env=Pendulum-v1"
    assert not settings_of(*args).model.learn_reward
    settings = settings_of(*args, "--env-repeat=2")
    assert settings.model.learn_reward and not settings.model.learn_termination


def test_an_agent_keeps_its_own_kind_of_model_and_its_settings(monkeypatch):
    args = ["dhmbpo", "--env", "pendulum-swingup"]
    assert type(settings_of(monkeypatch, *args).model) is MODELS["normed-ensemble"]
    made = settings_of(monkeypatch, *args, "--model.first-eps", "0.5").model
    assert type(made) is MODELS["normed-ensemble"] and made.first_eps == 0.5
    made = settings_of(monkeypatch, *args, "--model", "laplace", "--model.no-tune-noise").model
    assert type(made) is MODELS["laplace"] and not made.tune_noise and made.learn_reward


WRONG = {
    "command": (["trian"], "unknown command 'trian': did you mean train"),
    "algorithm": (["train", "petz"], "did you mean pets or latent-pets?"),
    "environment": (["train", "pets", "--env", "cartpole-swingap"], "mean cartpole-swingup"),
    "discrete": (["train", "pets", "--env", "CartPole-v1"], "bounded box"),
    "option": (["train", "pets", "--planner.horizn", "3"], "--planner.horizon"),
    "value": (["train", "pets", "--planner.horizon", "abc"], "--planner.horizon"),
    "choice": (["train", "pets", "--propagation", "ts2"], "tsinf"),
    "horizon": (["train", "pets", "--planner.horizon", "0"], "horizon must be"),
    "population": (["train", "pets", "--planner.population", "0"], "population must be"),
    "particles": (["train", "pets", "--particles", "7"], "multiple of the 5 members"),
    "objective": (["train", "pets", "--objective", "best"], "objective 'best' is unknown"),
    "setting": (["train", "pets", "--planner.name", "cem", "--planner.beta", "1"], "'beta'"),
    "steps": (["train", "pets", "--steps", "0"], "--steps must be >= 1"),
    "seed": (["train", "pets", "--seed", "-1"], "--seed must be >= 0"),
    "threads": (["train", "pets", "--threads", "0"], "--threads must be >= 1"),
    "checkpoints": (["train", "pets", "--checkpoint-every", "0"], "every must be >= 1"),
    "device": (["train", "pets", "--device", "cuda:7"], "cuda:7"),
    "no run": (["evaluate", "nowhere"], "nowhere is not a run folder"),
    "return": (["train", "random", "--until-return", "nan"], "until_return must be finite"),
    "returns": (["train", "random", "--until-episodes", "0"], "--until-episodes must be >= 1"),
    "no latest": (["evaluate"], "there is no run under"),
    "episodes": (["evaluate", "x", "--episodes", "0"], "--episodes must be >= 1"),
    "compare": (["compare"], "one or more run folders"),
    "tree's world": (["tree", "--env", "frozen-lak"], "did you mean frozen-lake? there is one of"),
    "tree's model": (["tree", "--env", "Taxi-v3"], "no true model to search"),
    "tree's actions": (["tree", "--actions", "a", "b"], "one for each of left, down, right, up"),
    "tree's samples": (["tree", "--env", "cartpole-swingup", "--actions", "a"], "are continuous"),
    "tree's rule": (["tree", "--rule", "best"], "gumbel"),
    "simulations": (["tree", "--simulations", "0"], "simulations must be an integer of at least 1"),
    "nodes": (["tree", "--nodes", "0"], "--nodes must be >= 1"),
    "discount": (["tree", "--discount", "1.5"], "discount must be in (0, 1]"),
    "no end": (["tree", "--env", "chain", "--discount", "1"], "every state must be able to end"),
    "over": (
        ["tree", "--env", "deep-sea", "--steps", "10", "--simulations", "2"],
        "the episode is over after 10",
    ),
    "study": (["study", "version"], "did you mean versions"),
    "executor": (
        ["study", "versions", "--executor", "rai"],
        "Expected one of ('processes', 'ray')",
    ),
    "address": (["study", "versions", "--address", "auto"], "and take no address"),
    "no cluster": (
        ["study", "versions", "--executor", "ray", "--address", "127.0.0.1:1"],
        "no Ray cluster answers at 127.0.0.1:1",
    ),
    "bench": (["bench", "rolout"], "did you mean rollout"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_line_and_writes_no_file(name, tmp_path, monkeypatch, capsys):
    args, said = WRONG[name]
    monkeypatch.chdir(tmp_path)
    assert mbrl(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mbrl: ") and err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command(capsys):
    assert mbrl() == 0
    out = capsys.readouterr().out
    for name in ("tree", "train", "evaluate", "plot", "compare", "study", "bench", "list"):
        assert f"  {name} " in out


def test_help_names_the_parts_that_can_be_exchanged(capsys):
    said = {}
    for algo in ("pets", "mbpo", "sac"):
        with pytest.raises(SystemExit):
            mbrl("train", algo, "--help")
        said[algo] = " ".join(capsys.readouterr().out.split())
    assert "--planner NAME takes another planner" in said["pets"] and "icem, cem" in said["pets"]
    assert "--model NAME takes another model: ensemble," in said["mbpo"]
    assert "--planner NAME" not in said["mbpo"] and "--model NAME" not in said["sac"]


def test_mpc_drives_through_the_newest_run(trained, tmp_path, capsys):
    root, out = trained.parents[2], tmp_path / "drive"
    args = ["--steps=2", "--planner.population=8", "--planner.iterations=1", "--planner.elites=2"]
    assert mbrl("mpc", "--model", "latest", *args, "--root", root, "--out", out, "--threads=1") == 0
    assert json.loads((out / "drive.json").read_text())["config"]["model"] == str(trained)
    assert mbrl("mpc", "--model", "latest", "--root", tmp_path / "none") == 2
    assert "there is no run under" in capsys.readouterr().err


def test_a_run_writes_config_metrics_and_checkpoint(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["agent"]["model"]["hidden"] == [16] and config["steps"] == 300
    assert set(config["versions"]) >= {"mujoco", "torch", "gymnasium", "numpy", "python"}
    lines = read_metrics(trained / "metrics.jsonl", "episode")
    assert [line["env_steps"] for line in lines] == [150, 300]
    assert {p.name for p in (trained / "checkpoints" / "300").iterdir()} == {
        "digests.json",
        "model.safetensors",
        "state.pt",
    }


@pytest.mark.parametrize("decay", [["1e-4"], ["1e-4", "2e-4"]])
def test_weight_decay_is_one_number_or_one_per_layer(decay, tmp_path):
    path = tmp_path / "run"
    options = ["--model.hidden", "8", "--steps", "2", "--threads", "1", "--run", path]
    assert mbrl("train", "pets", *options, "--model.weight-decay", *decay) == 0
    numbers = [float(number) for number in decay]
    model = json.loads((path / "config.json").read_text())["agent"]["model"]
    assert model["weight_decay"] == (numbers if len(numbers) > 1 else numbers[0])


def test_a_run_that_exists_is_not_overwritten(trained, capsys):
    before = (trained / "metrics.jsonl").read_bytes()
    assert mbrl("train", "random", "--run", trained) == 2
    assert "exists already" in capsys.readouterr().err
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_evaluate_is_reproducible_and_prints_json(trained, capsys):
    said = []
    for _ in range(2):
        assert mbrl("evaluate", trained, "--episodes=2", "--threads=1", "--json") == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] == json.loads((trained / "evaluation.json").read_text())
    assert len(said[0]["returns"]) == 2 and said[0]["iqm_low"] <= said[0]["iqm_high"]


def test_evaluate_reports_why_a_film_is_skipped(trained, capsys, monkeypatch):
    import experiments.plots.film as films
    from envs import RenderingUnavailable

    def dark(*_, **__):
        raise RenderingUnavailable("no OpenGL; apt install libegl1")

    monkeypatch.setattr(films, "film", dark)
    assert mbrl("evaluate", trained, "--episodes=1", "--threads=1", "--video") == 0
    assert "video skipped: no OpenGL; apt install libegl1" in capsys.readouterr().err


def test_a_run_that_repeats_its_actions_is_filmed_with_the_return_that_it_has(tmp_path, capsys):
    path = tmp_path / "run"
    repeated = ("--env=pendulum-swingup", "--env-repeat=3", "--steps=50")
    assert mbrl("train", "random", *repeated, "--run", path) == 0
    capsys.readouterr()
    assert mbrl("evaluate", path, "--episodes=1", "--threads=1", "--video", "--json") == 0
    said = capsys.readouterr()
    assert "another episode" not in said.err and "video skipped" not in said.err
    assert Path(json.loads(said.out)["video"]).is_file()


def test_plot_draws_every_figure(trained, capsys):
    assert mbrl("plot", trained, "--episodes=1", "--threads=1", "--json") == 0
    numbers = json.loads(capsys.readouterr().out)[str(trained)]
    drawn = {path.name for path in (trained / "plots").glob("*.png")}
    assert drawn == {
        "return.png",
        "model_error.png",
        "predicted_return.png",
        "calibration.png",
        "episode_spread.png",
        "plan_spread.png",
    }
    assert len(numbers["error_by_horizon"]) == 5
    assert 0 <= numbers["calibration_error"] <= 0.5


def test_compare_draws_a_figure_and_list_finds_runs(trained, tmp_path, capsys):
    other = tmp_path / "cartpole-swingup" / "random" / "1"
    assert mbrl("train", "random", "--steps=300", "--run", other) == 0
    capsys.readouterr()
    out = tmp_path / "figure.png"
    assert mbrl("compare", trained, other, "--out", out, "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {label.split()[0] for label in numbers} == {"pets", "random"} and out.exists()
    assert mbrl("compare", trained, other, "--out", tmp_path / "figure.pdf") == 2
    assert "must be a file that ends in .png" in capsys.readouterr().err
    assert mbrl("list", "runs", "--root", tmp_path, "--json") == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert listed == [{"run": str(other), "env_steps": 300}]


def test_list_envs_describes_every_environment_that_tree_accepts(capsys):
    assert mbrl("list", "envs", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert mbrl("list", "envs") == 0
    printed = capsys.readouterr().out.splitlines()
    worlds = {row.pop("name"): row for row in listed["worlds"]}
    assert worlds["four-rooms"]["states"] == 104 and worlds["chain"]["actions"] == ["on", "back"]
    for name, build in WORLDS.items():
        assert worlds[name]["states"] == build().states
        assert worlds[name]["summary"].endswith(".")
    tasks = {row["name"]: row["simulator"] for row in listed["envs"]}
    assert {name for name, has in tasks.items() if has} == set(simulators())
    assert mbrl("tree", "--env", "nowhere") == 2
    taken = re.search("one of (.*); mbrl list envs", capsys.readouterr().err)
    assert taken and set(taken[1].split(", ")) == {*worlds, *simulators()}
    rows = [line.split("│")[1].strip() for line in printed if line.startswith("│")]
    assert {*worlds, *tasks} == {name for name in rows if name}


def test_tree_draws_exports_and_compares_with_the_exact_values(tmp_path, capsys):
    options = ["--env=chain", "--rule=puct", "--simulations=60", "--nodes=9", "--json"]
    assert mbrl("tree", *options, "--root", tmp_path) == 0
    out, err = capsys.readouterr()
    said, printed = json.loads(out), err.splitlines()
    assert {path.name for path in Path(said["path"]).iterdir()} == {
        "tree.png", "tree.json", "tree.dot", "search.json",
    }  # fmt: skip
    best = WORLDS["chain"]().optimum()
    assert said["optimum"] == pytest.approx(best.values[0])
    on, back = said["actions"]
    assert (on["action"], back["action"]) == ("on", "back")
    assert [on["optimum"], back["optimum"]] == pytest.approx(best.action_values[0].tolist())
    assert on["visits"] + back["visits"] == 60 and on["prior"] == back["prior"] == 0.5
    assert on["chosen"] != back["chosen"]
    row = next(line for line in printed if "on " in line and "│" in line)
    assert f"{on['value']:.4f}" in row and f"{on['optimum']:.4f}" in row
    assert "best" in row and ("chosen" in row) == on["chosen"]
    arrivals = WORLDS["chain"]().transitions.nnz  # states are merged: at most one node each
    assert len(from_json((Path(said["path"]) / "tree.json").read_text())) == 1 + arrivals
    assert (Path(said["path"]) / "tree.dot").read_text().count("visits") == 9
    assert mbrl("tree", *options, "--out", said["path"]) == 2  # not overwritten
    assert "exists already" in capsys.readouterr().err


def test_tree_with_max_backup_finds_the_exact_values(tmp_path, capsys):
    options = ["--env=chain", "--discount=0.8", "--simulations=400", "--backup=max", "--json"]
    assert mbrl("tree", *options, "--out", tmp_path / "tree") == 0
    out, err = capsys.readouterr()
    said, printed = json.loads(out), err.splitlines()
    for choice in said["actions"]:
        assert choice["value"] == pytest.approx(choice["optimum"], abs=1e-4)
    assert any("the root's best action's value is" in line for line in printed)
    assert mbrl("tree", "--env=chain", "--backup=min") == 2
    assert "mbrl: Invalid choice 'min' for argument '--backup'." in capsys.readouterr().err


def test_compare_refuses_runs_of_different_environments(trained, tmp_path, capsys):
    other = tmp_path / "p"
    assert mbrl("train", "random", "--env=pendulum-swingup", "--steps=200", "--run", other) == 0
    capsys.readouterr()
    assert mbrl("compare", trained, other) == 2
    assert "cartpole-swingup, pendulum-swingup" in capsys.readouterr().err


def test_ctrl_c_saves_exits_130_and_the_resumed_run_is_the_same(tmp_path):
    """The run is interrupted within an episode."""
    train = [sys.executable, "-m", "experiments.cli.command", "train"]
    options = [*TINY, "--steps=400", "--threads=1"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    root = Path(__file__).parents[2]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*train, "pets", *options, "--run", whole], check=True, env=env, cwd=root)
    child = subprocess.Popen(
        [*train, "pets", *options, "--run", cut],
        env=env, cwd=root, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (cut / "checkpoints" / "150").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130 and f"mbrl train --resume {cut}" in said
    (saved,) = (cut / "checkpoints").iterdir()
    assert 150 < int(saved.name) < 400
    subprocess.run([*train, "--resume", cut, "--threads=1"], check=True, env=env, cwd=root)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_resumed_run_can_have_more_steps(trained, tmp_path, capsys):
    import shutil

    longer = tmp_path / "longer"
    shutil.copytree(trained, longer)
    assert mbrl("train", "--resume", longer, "--steps=200") == 2
    assert "already" in capsys.readouterr().err
    assert mbrl("train", "--resume", longer, "--steps=450", "--checkpoint-every=0") == 2
    assert "--checkpoint-every must be >= 1" in capsys.readouterr().err
    assert mbrl("train", "--resume", longer, "--steps=450", "--threads=1") == 0
    lines = read_metrics(longer / "metrics.jsonl", "episode")
    assert [line["env_steps"] for line in lines] == [150, 300, 450]


def test_a_run_ends_at_a_return_and_goes_on_with_a_greater_one(tmp_path, capsys):
    path = tmp_path / "run"
    args = ["--steps=700", "--until-return=-1000", "--until-episodes=1", "--threads=1"]
    assert mbrl("train", "random", *args, "--run", path, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["env_steps"] == 150
    assert "reached a return of -1000 (mean of the last 1) at step 150" in err
    config = json.loads((path / "config.json").read_text())
    assert (config["steps"], config["until_return"], config["until_episodes"]) == (700, -1000, 1)
    assert mbrl("train", "--resume", path, "--until-return=1e6", "--threads=1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["env_steps"] == 700
    assert json.loads((path / "config.json").read_text())["until_return"] == 1e6


def test_json_has_null_for_what_is_not_finite(capsys):
    emit(Common(json=True), {"a": [float("nan"), 1.0], "b": {"c": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": {"c": None}}
