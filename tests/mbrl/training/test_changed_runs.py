"""Runs that were changed by someone else or damaged end in one line and are not changed."""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import envs
import mbrl
from experiments.cli.command import run as command
from mbrl.agents import AGENTS, MPCConfig, PlannerConfig, agent
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training import Run, RunError
from mbrl.training.metrics import METRICS
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import load_run

TINY = Config(
    mpc=MPCConfig(PlannerConfig(horizon=4, population=8, iterations=1, elites=2), particles=2),
    model=EnsembleConfig(members=2, hidden=(8,), epochs=1, batch=32),
    random_steps=150,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run in the middle of an episode that is planned."""
    path = tmp_path_factory.mktemp("runs") / "run"
    env = envs.make("cartpole-swingup")
    mbrl.train(mbrl.make("pets", env, config=TINY), env, path, steps=170)
    return path


@pytest.fixture
def path(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "run"))


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(path, *said, resume=True, capsys=None):
    """Assert that loading and resuming raise a RunError of one line and change nothing."""
    before = contents(path)
    with pytest.raises(RunError) as error:
        load_run(path, make_env=envs.make)
    lines = [str(error.value)]
    if resume:
        assert command(["train", "--resume", str(path), "--steps", "5000"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("mbrl: ")
        lines.append(err.removesuffix("\n"))
    for line in lines:
        assert "\n" not in line and line.isprintable() and len(line) < 500
        for part in said:
            assert part in line
    assert contents(path) == before


def change(path, change):
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


FIELDS = {
    "algo a list": ({"algo": ["pets"]}, "algo is ['pets'], not the name of an agent"),
    "algo escapes": ({"algo": "\x1b[31m"}, r"agent '\x1b[31m' is unknown; there are a2c, "),
    "algo is long": ({"algo": "x" * 10_000}, "xxx..."),
    "env a number": ({"env": 3}, "env must be text, got 3"),
    "env null": ({"env": None}, "env must be text, got None"),
    "seed a text": ({"seed": "0"}, "seed must be an integer of at least 0, got '0'"),
    "seed a fraction": ({"seed": 0.5}, "seed must be an integer of at least 0, got 0.5"),
    "seed true": ({"seed": True}, "seed must be an integer of at least 0, got True"),
    "seed negative": ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    "steps none": ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
    "steps huge": ({"steps": 10**30}, "steps must be an integer of 64 bits"),
    "environments none": ({"num_envs": 0}, "num_envs must be an integer in 1..65536, got 0"),
    "unknown": ({"colour": 3}, "colour is not known here"),
    "unknown escapes": ({"\x1b]0;x": 3}, r"\x1b]0;x is not known here"),
    "agent a list": ({"agent": []}, "agent must be an object, got []"),
    "agent missing": ({"agent": None}, "agent must be an object, got None"),
    "unknown in agent": ({"agent": {"modl": {}}}, "agent.modl is not known here"),
    "deep unknown": ({"agent": {"mpc": {"planner": {"x": 1}}}}, "agent.mpc.planner.x is not known"),
    "agent's text": ({"agent": {"capacity": "many"}}, "agent.capacity must be an integer"),
    "agent's list": ({"agent": {"model": {"hidden": 8}}}, "agent.model.hidden must be"),
    "agent's size": ({"agent": {"capacity": 10**30}}, "agent.capacity must be an integer of 64"),
    "agent's choice": ({"agent": {"mpc": {"propagation": "x"}}}, "mpc.propagation must be one of"),
    "no memory": ({"agent": {"model": {"hidden": [10**9, 10**9]}}}, "their fit would take"),
    "no memory for data": ({"agent": {"capacity": 10**17}}, "the replay buffer would take"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_an_invalid_field_of_the_config_is_named_with_what_is_accepted(path, name):
    changed, said = FIELDS[name]
    change(path, changed)
    refused(path, f"{path / 'config.json'}: ", said, resume=False)


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:99", "", "cpu\x1b[31m", "d" * 5000])
def test_an_unknown_device_of_a_config_is_refused_by_name(path, device, capsys):
    change(path, {"device": device})
    refused(path, "device '", "which this machine does not have", capsys=capsys)


def put(state, place, value):
    """`state` with another value at a place such as "agent/fits", or without it for `del`."""
    *outer, last = place.split("/")
    for name in outer:
        state = state[int(name) if isinstance(state, list) else name]
    if value is del_:
        del state[last]
    else:
        state[int(last) if isinstance(state, list) else last] = value


del_ = object()
STATES = {
    "agent/generator": [3, "x", None, torch.zeros(3, dtype=torch.uint8), torch.zeros(5056), [1]],
    "agent/fits": ["1", 1.0, True, None, [], -1, torch.ones(()), {}],
    "agent/since_fit": ["1", -5, None],
    "agent/model": [[], None, {}, 3, "x"],
    "agent/replay": [None, [], {}, {"rows": 3, "written": 3}],
    "agent/replay/rows": [torch.zeros(170, 3), torch.zeros(170, dtype=torch.int64), "x", None],
    "agent/replay/written": ["170", -1, 10**30, 169.5],
    "agent/playing": [None, [], {"each": []}],
    "agent/playing/each": [{}, None, ["x"], [3], 7],
    "agent/playing/each/0/plan": ["x", {}, [], {"actions": 3}],
    "agent/playing/each/0/plan/actions": ["x", torch.zeros(4), torch.full((4, 1), math.nan)],
    "agent/playing/each/0/plan/std": [None, 3.0, torch.zeros(4, 9)],
    "agent/playing/each/0/cursor": ["1", -1, 10**9, None],
    "agent/playing/each/0/model_state": ["x", torch.zeros(2, 2), torch.full((5,), math.inf)],
    "agent/playing/each/0/expected": ["x", None],
    "agent/playing/generator": [0, torch.zeros(16, dtype=torch.uint8)],
    "agent/more": [1],
    "episodes": [None, [], {}, {"steps": 170}],
    "episodes/steps": ["170", -1, 2**70, None, del_],
    "episodes/begun": ["2", -1, 0, 1.5],
    "episodes/obs": [3, torch.zeros(5), torch.zeros(1, 4), torch.full((1, 5), math.nan), None],
    "episodes/numbers": [[[1]], ["1"], [-1], [10**30], [], [1, 2], 1],
    "episodes/returns": [[math.nan], ["x"], [], None],
    "episodes/lengths": [[10**9], [-1], ["x"], [3], [2**80]],
    "episodes/over": [[2], ["no"], [], None],
    "episodes/actions": [["x"], [None], [torch.zeros(20, 2)], [torch.zeros(3, 1)], []],
    "log_bytes": ["5", -1, 10**9, 3, None, 2.0],
}


def test_a_run_of_another_machines_device_is_used_on_the_one_asked_for(path, tmp_path, capsys):
    """Resumed there, it goes on with the numbers that it would have had."""
    twin = Path(shutil.copytree(path, tmp_path / "twin"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"device": "cuda:7"}))
    mpc = ["mpc", "--steps", "1", "--out", str(tmp_path / "out"), "--model"]
    resume = ["train", "--steps", "180", "--resume"]
    for line in (
        ["evaluate", "--episodes", "1", "--steps", "2"], ["plot", "--episodes", "1"], mpc, resume
    ):  # fmt: skip
        before = contents(path)
        assert command([*line, str(path)]) == 2
        assert "another with --device" in capsys.readouterr().err and contents(path) == before
        assert command([*line, str(path), "--device", "cpu"]) == 0
    assert command([*resume, str(twin)]) == 0
    for file in ("metrics.jsonl", "checkpoints/180/model.safetensors"):
        assert (path / file).read_bytes() == (twin / file).read_bytes()
    env = envs.make("cartpole-swingup")
    mbrl.train(mbrl.make("pets", env, config=TINY), env, path, steps=185)
    assert (path / "checkpoints/185").exists()


@pytest.mark.parametrize("place", STATES)
def test_values_of_other_types_and_sizes_are_refused_before_anything_is_changed(
    path, place, capsys
):
    for value in STATES[place]:
        run = Run.open(path)
        state = run.load()
        put(state, place, value)
        run.save(170, state)
        if place.startswith(("episodes", "log_bytes")):  # which is needed only to resume
            before = contents(path)
            assert command(["train", "--resume", str(path), "--steps", "5000"]) == 2, value
            out, err = capsys.readouterr()
            assert out == "" and err.count("\n") == 1 and "does not fit this run: " in err
            assert contents(path) == before
        else:
            refused(path, "the checkpoint of ", "does not fit", capsys=capsys)
        shutil.rmtree(path)
        shutil.copytree(path.parent / "copy", path)


@pytest.fixture(autouse=True)
def copy(request):
    if "path" in request.fixturenames and "place" in request.fixturenames:
        path = request.getfixturevalue("path")
        shutil.copytree(path, path.parent / "copy")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["weight", "mean", "log_var"])
def test_weights_that_are_not_finite_are_named(path, value, kind, capsys):
    run = Run.open(path)
    state = run.load()
    name = next(n for n, t in state["agent"]["model"].items() if kind in n and t.numel())
    state["agent"]["model"][name].view(-1)[-1] = value
    run.save(170, state)
    refused(path, f"agent/model/{name} holds a number that is not finite", capsys=capsys)


@pytest.mark.parametrize("cast", ["double", "half", "int"])
def test_weights_of_another_type_are_named(path, cast, capsys):
    run = Run.open(path)
    state = run.load()
    name = next(n for n in state["agent"]["model"] if n.endswith("weight") or "weight" in n)
    state["agent"]["model"][name] = getattr(state["agent"]["model"][name], cast)()
    run.save(170, state)
    refused(path, f"agent/model/{name} must be float32 of shape", capsys=capsys)


LINES = {
    "empty": b"",
    "blank": b"  ",
    "binary": b"\x00\xff\x80\x1b[31m",
    "null": b"null",
    "a list": b"[1]",
    "half": b'{"kind": "episode", "env_st',
    "foreign": b'{"loss": 1}',
    "kind a number": b'{"kind": 3, "env_steps": 1}',
    "steps a text": b'{"kind": "episode", "env_steps": "1"}',
    "steps true": b'{"kind": "episode", "env_steps": true}',
    "deep": b"[" * 20_000,
    "digits": b'{"kind": "episode", "env_steps": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("where", ["first", "last", "behind the checkpoint"])
@pytest.mark.parametrize("name", LINES)
def test_an_invalid_line_of_metrics_is_named_and_nothing_is_cut(
    path, tmp_path, name, where, capsys
):
    file = path / METRICS
    whole = file.read_bytes().splitlines(keepends=True)
    bad = LINES[name] + b"\n"
    number = {"first": 1, "last": len(whole), "behind the checkpoint": len(whole) + 1}[where]
    if where == "behind the checkpoint":
        file.write_bytes(b"".join(whole) + bad)
    else:
        file.write_bytes(b"".join([*whole[: number - 1], bad, *whole[number - 1 :]]))
    before = contents(path)
    for args in (
        ["train", "--resume", path, "--steps", 5000],
        ["plot", path],
        ["compare", path, "--out", tmp_path / "compare.png"],
    ):
        assert command([str(arg) for arg in args]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and f"{file}, line {number}" in err
        assert err.strip().isprintable() and len(err) < 500
    assert contents(path) == before and not (tmp_path / "compare.png").exists()


@pytest.mark.parametrize("value", ["null", '"12"', "[1]"])
def test_plot_and_compare_name_a_return_that_is_not_a_number(path, tmp_path, value, capsys):
    line = f'{{"kind": "episode", "env_steps": 900, "return": {value}}}\n'
    with (path / METRICS).open("a") as file:
        file.write(line)
    for args in (["plot", path], ["compare", path, "--out", tmp_path / "compare.png"]):
        assert command([str(arg) for arg in args]) == 2
        assert f"{METRICS}, line 2: return must be a number" in capsys.readouterr().err


def test_metrics_without_their_checkpoints_are_not_dropped(path, capsys):
    with (path / METRICS).open("a") as file:
        file.write('{"kind": "episode", "env_steps": 300, "return": 1.0}\n')
    shutil.rmtree(path / "checkpoints")
    before = contents(path)
    assert command(["train", "--resume", str(path)]) == 2
    assert "has episodes up to step 300, but there is no checkpoint" in capsys.readouterr().err
    assert contents(path) == before


@pytest.mark.parametrize("steps", ["5000", "171", "170"])
def test_a_run_that_another_process_writes_is_not_changed(path, steps, capsys):
    with Run.open(path):
        before = contents(path)
        assert command(["train", "--resume", str(path), "--steps", steps]) == 2
        assert "is being written by another process" in capsys.readouterr().err
        assert contents(path) == before
    assert command(["train", "--resume", str(path), "--steps", steps]) == 0
    assert json.loads((path / "config.json").read_text())["steps"] == int(steps)


OWN = """
import gymnasium
gymnasium.register("Own-v0", entry_point="gymnasium.envs.classic_control:PendulumEnv",
                   max_episode_steps=20)
"""


@pytest.mark.parametrize("name", ["own_envs", "own_package.inner"])
def test_a_module_is_imported_only_where_the_user_names_it(tmp_path, monkeypatch, name, capsys):
    file = tmp_path.joinpath("lib", *name.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True)
    file.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    path = tmp_path / "run"
    args = ["train", "random", "--env", f"{name}:Own-v0", "--steps", 40, "--run", path]
    assert command([str(arg) for arg in args]) == 0  # the user names the module
    out = ["--out", tmp_path / "c.png"]
    commands = (
        ["evaluate", path, "--episodes", 1],
        ["plot", path],
        ["compare", path, *out],
        ["train", "--resume", path, "--steps", 60],
        ["mpc", "--env", "cartpole-swingup", "--model", path, "--out", tmp_path / "drive"],
    )
    for args in commands:
        del sys.modules[name]
        before = contents(path)
        capsys.readouterr()
        assert command([str(arg) for arg in args]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"add --module {name}" in said
        assert name not in sys.modules and contents(path) == before
        with pytest.raises(RunError, match=f"'{name}:Own-v0' is in the module {name}"):
            load_run(path, make_env=envs.make)
        status = command([*(str(arg) for arg in args), "--module", "json", f"--module={name}"])
        assert status == (2 if args[0] == "mpc" else 0) and name in sys.modules
    assert "was learned on" in capsys.readouterr().err  # mpc read the run of another environment
    assert load_run(path, make_env=envs.make).env_steps == 60


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module", "finds no module no_such_module"),
        ("", "must be a module's name"),
        ("..up", "must be a module's name"),
        ("a:B-v0", "must be a module's name"),
        ("failing", "its import fails with KeyError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_reported_in_one_line(
    tmp_path, monkeypatch, name, said, capsys
):
    (tmp_path / "failing.py").write_text("{}['x']")
    monkeypatch.syspath_prepend(tmp_path)
    assert command(["list", "algorithms", "--module", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err


@pytest.mark.parametrize("label", ["\x1b[31mred", "[bold]x[/bold]", "a\u202eb", "[/x]"])
def test_labels_are_printed_without_control_characters_and_markup(path, tmp_path, label, capsys):
    out = str(tmp_path / "c.png")
    assert command(["compare", str(path), "--label", label, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert mbrl.plain.shown(label) in shown and "\x1b" not in shown and "\u202e" not in shown


@pytest.mark.parametrize("name", ["plots", "videos", "evaluation.json", "checkpoints"])
def test_a_place_for_results_of_the_wrong_kind_is_refused_before_the_work(path, name, capsys):
    shutil.rmtree(path / name, ignore_errors=True)
    (path / name).mkdir() if name.endswith("json") else (path / name).write_text("mine")
    for args in (["evaluate", path, "--video"], ["plot", path], ["train", "--resume", path]):
        assert command([str(arg) for arg in args]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"{path / name} is a f" in err


@pytest.mark.parametrize("where", ["a folder", "under a file"])
def test_compare_refuses_a_place_for_its_figure_before_the_work(path, where, capsys):
    out = path.parent if where == "a folder" else path / "config.json" / "c.png"
    assert command(["compare", str(path), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(out) in err and "folder" in err


@pytest.mark.parametrize("steps", [170, 180])
def test_an_immediate_interruption_reports_the_last_checkpoint(path, steps, monkeypatch, capsys):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(mbrl.training.runs, "train_run", interrupted)
    assert command(["train", "--resume", str(path), "--steps", str(steps)]) == 130
    said = "its last one is at step 170); go on with: mbrl train --resume"
    assert said in capsys.readouterr().err


def with_own_parts(config):
    """Copies of a config, each with one of its planners or models from a module of its own."""
    for key, value in config.items():
        if key in ("planner", "model") and isinstance(value, dict):
            yield {**config, key: {**value, "name": "evil_module:Part"}}
        elif isinstance(value, dict):
            for inner in with_own_parts(value):
                yield {**config, key: inner}


@pytest.mark.parametrize("algo", [*AGENTS])
def test_no_part_that_only_a_file_names_is_imported(algo, tmp_path, monkeypatch):
    """A planner or a model at any place of any agent's settings, such as `plan.planner`."""
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("evil_module.py").write_text("raise SystemExit('imported')")
    given = RunConfig(algo, "Pendulum-v1", 0, 10, "cpu", agent(algo).Config()).to_json()
    spoilt = [given | {"agent": own} for own in with_own_parts(given["agent"])]
    with_parts = {"dhmbpo", "dyna", "latent-mbpo", "latent-pets", "mb-pg", "mbpo", "mve", "pets"}
    assert bool(spoilt) == (algo in with_parts | {"svg", "tdmpc"})
    for config in spoilt:
        with pytest.raises(RunError, match="evil_module, which is not imported because only a fi"):
            RunConfig.of(SimpleNamespace(path=tmp_path, config=config))
    assert "evil_module" not in sys.modules
