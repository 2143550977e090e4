"""A user's task, environment, finite world, planner, model and agent in every command."""

import json
import sys
from pathlib import Path

import pytest

import envs
from experiments.cli.command import run
from tests.own_parts import parts

CODE = Path(parts.__file__).parent
PETS = "--random-steps 30 --particles 1 --steps 60"


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """The folder of `parts.py` is the working folder; registered environments are removed later."""
    monkeypatch.chdir(CODE)
    path = [*sys.path]
    yield
    sys.path[:] = path
    sys.modules.pop("parts", None)
    for name in ("SLIDER", "Drift", "corridor"):
        envs.unregister(f"parts:{name}")


def said(line, tmp_path, capsys):
    """The line of JSON that a successful command prints."""
    assert run([*line.split(), "--root", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.parametrize(
    "line",
    [
        "mpc --env parts:SLIDER --steps 3",
        "mpc --env parts:SLIDER --steps 3 --planner parts:Bees --planner.bees 9",
        "mpc --env parts:SLIDER --steps 3 --model parts:Linear --model.ridge 0.1",
        "mpc --env parts:Drift --steps 3 --model parts:Linear",
        "mpc --env cartpole-swingup --steps 3 --planner parts:Bees --planner.horizon 5",
        "tree --env parts:corridor --simulations 20",
        "tree --env parts:SLIDER --simulations 5 --depth 5",
        "tree --env parts:corridor --simulations 20 --model parts:Rooms --model.pay 2",
        "tree --env parts:corridor --simulations 20 --model parts:Slippery",
        "tree --env parts:SLIDER --simulations 5 --depth 5 --model parts:Linear",
        "tree --env parts:Drift --simulations 5 --depth 5 --model parts:Linear --model.ridge 0.1",
        "tree --env frozen-lake --simulations 5 --depth 5 --model parts:Linear",
        "tree --env Pendulum-v1 --simulations 5 --depth 5 --model parts:Linear",
    ],
)
def test_one_command_works_with_a_users_parts(line, tmp_path, capsys):
    found = said(line, tmp_path, capsys)
    folder = Path(found["path"])
    assert folder.is_dir() and ":" not in str(folder.relative_to(tmp_path))


@pytest.mark.parametrize(
    "line",
    [
        f"train pets --env parts:SLIDER {PETS} --planner parts:Bees --model parts:Linear "
        "--model.ridge 0.5",
        f"train pets --env parts:Drift {PETS} --model.members 1 --model.hidden 8 --model.epochs 1 "
        "--planner.population 4 --planner.iterations 1 --planner.elites 2",
        "train parts:make --env parts:Drift --tries 2 --steps 60",
        "train random --env parts:corridor --steps 60",
    ],
)
def test_a_run_with_a_users_parts_is_resumed_evaluated_plotted_and_compared(
    line, tmp_path, capsys, monkeypatch
):
    where = said(line, tmp_path, capsys)["run"]
    config = json.loads((Path(where) / "config.json").read_text())
    assert config["env"].startswith("parts:") and ":" not in str(Path(where).relative_to(tmp_path))
    trusted = "--module parts"
    assert said(f"train --resume {where} --steps 90 {trusted}", tmp_path, capsys)["env_steps"] == 90
    assert len(said(f"evaluate {where} --episodes 2 {trusted}", tmp_path, capsys)["returns"]) == 2
    said(f"plot {where} --episodes 1 {trusted}", tmp_path, capsys)
    assert (Path(where) / "plots" / "return.png").exists()
    said(f"compare {where} --out {tmp_path / 'c.png'} {trusted}", tmp_path, capsys)
    rows = said("list runs", tmp_path, capsys)["runs"]
    assert [row["env_steps"] for row in rows] == [90]


def test_a_search_records_its_model(tmp_path, capsys):
    line = "tree --env parts:corridor --simulations 20 --model parts:Rooms --model.pay 2"
    found = said(line, tmp_path, capsys)
    config = json.loads((Path(found["path"]) / "search.json").read_text())["config"]
    assert (config["model"], config["model_settings"]) == ("parts:Rooms", {"pay": 2.0})
    assert found["optimum"] == pytest.approx(0.9**3)


def test_mpc_uses_a_runs_model_with_a_users_planner(tmp_path, capsys):
    line = f"train pets --env parts:SLIDER {PETS} --model parts:Linear"
    where = said(line, tmp_path, capsys)["run"]
    found = said(
        f"mpc --env parts:SLIDER --model {where} --planner parts:Bees --steps 3", tmp_path, capsys
    )
    assert found["episodes"] == 1


def test_a_module_named_only_by_a_run_is_not_imported(tmp_path, capsys):
    line = f"train pets --env cartpole-swingup {PETS} --planner parts:Bees --model parts:Linear"
    where = Path(said(line, tmp_path, capsys)["run"])
    config = json.loads((where / "config.json").read_text())
    for change, place in (
        ({"env": "evil:X"}, "environment"),
        ({"algo": "evil:make"}, "agent"),
        ({"agent": config["agent"] | {"model": {"name": "evil:M"}}}, "model"),
    ):
        (where / "config.json").write_text(json.dumps(config | change))
        for command in ("evaluate", "plot", "train --resume"):
            assert run([*command.split(), str(where)]) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and f"its {place} 'evil:" in err and "--module evil" in err
    assert "evil" not in sys.modules


def test_the_help_shows_the_settings_of_a_users_parts(capsys):
    for line in ("mpc --planner parts:Bees", "train pets --planner parts:Bees"):
        with pytest.raises(SystemExit):
            run([*line.split(), "--help"])
        out = capsys.readouterr().out
        assert "--planner.bees" in out and "40" in out and "--planner.momentum" not in out
    with pytest.raises(SystemExit):
        run(["tree", "--env", "parts:corridor", "--model", "parts:Rooms", "--help"])
    assert "--model.pay" in capsys.readouterr().out


def test_without_a_preset_the_cost_of_a_plan_is_reported(tmp_path, capsys):
    args = ["mpc", "--env", "parts:SLIDER", "--steps", "1", "--root", str(tmp_path)]
    assert run(args) == 0
    assert "parts:SLIDER has no preset: a plan takes" in capsys.readouterr().err
    assert run([*args, "--planner.population", "3000"]) == 0
    err = capsys.readouterr().err
    assert "and there are 40 ms for it: --budget-ms 40 or --planner.population" in err
    assert run(["mpc", "--env", "cartpole-swingup", "--steps", "1", "--root", str(tmp_path)]) == 0
    assert "has no preset" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slower", "said"),
    [(5, "--budget-ms 40 or --planner.population 20 keeps up"), (20, "--budget-ms 40 keeps up")],
)
def test_only_a_population_with_room_for_the_elites_is_suggested(
    tmp_path, capsys, monkeypatch, slower, said
):
    """iCEM has 100 candidates and 10 elites, and a plan takes some control steps."""
    monkeypatch.setattr("mbrl.control.plan_seconds", lambda driver: slower * driver.control_step)
    assert run(["mpc", "--env", "parts:SLIDER", "--steps", "1", "--root", str(tmp_path)]) == 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mpc --env parts:SLIDERS", "parts has no SLIDERS; its tasks are SLIDER"),
        ("mpc --env parts:Drift", "no simulator"),
        ("mpc --env parts:SLIDER --planner parts:Bee", "parts has no Bee"),
        ("mpc --env parts:SLIDER --planner parts:Linear", "planner Linear: cannot be built"),
        ("mpc --env parts:SLIDER --planner parts:Bees --planner.wasps 3", "--planner.wasps"),
        ("mpc --env parts:SLIDER --planner parts:Bees --planner.bees x", "--planner.bees"),
        ("mpc --env parts:SLIDER --model parts:Bees", "parts:Bees"),
        ("train pets --env parts:SLIDER --model parts:Nothing", "parts has no Nothing"),
        ("train parts:Bees --env parts:Drift", "its module has no|Config"),
        ("train nowhere:make --env parts:Drift", "nowhere cannot be imported"),
        ("tree --env parts:Drift", "no simulator"),
        ("tree --env parts:corridor --model parts:Nothing", "parts has no Nothing"),
        ("tree --env parts:corridor --model parts:Bees", "parts:Bees"),
        ("tree --env parts:corridor --model parts:Rooms --model.pay x", "--model.pay must be"),
        ("tree --env parts:corridor --model parts:Rooms --model.gold 2", "--model.gold"),
        ("tree --env parts:Drift --model parts:Rooms", "model Rooms: step: wanted reward"),
        ("tree --env parts:corridor --model nowhere", "there is true, and a model of your own"),
        ("tree --env parts:Grey --model parts:Linear", "observations that are a vector"),
        ("train parts:make --env parts:Drift --planner cem", "has no planner to exchange"),
        ("train random --env parts:Drift --model parts:Linear", "has no model to exchange"),
        ("mpc --env parts:SLIDER --planner parts:Bees --planner.elites 3", "bees, rounds, spread"),
        ("mpc --env parts:SLIDER --particles 3", "--particles of this model must be 1"),
        ("train pets --env nowhere:X", "nowhere cannot be imported"),
    ],
)
def test_an_error_in_a_users_part_is_reported_in_one_line(line, text, tmp_path, capsys):
    assert run([*line.split(), "--root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mbrl: ") and err.count("\n") == 1
    assert any(part in err for part in text.split("|"))
    assert not any(tmp_path.iterdir())
