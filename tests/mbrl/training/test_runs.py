import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
import torch

import envs
import mbrl
from experiments.cli.command import run as command
from mbrl import agents
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import EnsembleConfig
from mbrl.training.checkpoint import Run, RunError, make_folder
from mbrl.training.folders import find_run, learning, new_folder
from mbrl.training.metrics import METRICS, MetricsLog, read_metrics
from mbrl.training.online import Target
from mbrl.training.run_config import RunConfig, changed, labels
from mbrl.training.runs import load_run

TINY = Config(
    mpc=MPCConfig(PlannerConfig(horizon=4, population=8, iterations=1, elites=2), particles=2),
    model=EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=32),
    random_steps=150,
)


def swing_up():
    return envs.make("cartpole-swingup")


def test_an_agent_is_made_by_name_with_settings_of_its_own_and_of_its_planning():
    env = swing_up()
    agent = mbrl.make(
        "pets", env, config=TINY, planner="mppi", seed=3, random_steps=99, objective="worst"
    )
    assert agent.config.mpc.planner == TINY.mpc.planner.named("mppi")
    assert agent.config.random_steps == 99 and agent.config.mpc.objective == "worst"
    assert agent.reward is envs.known("cartpole-swingup").reward
    plain = mbrl.make("pets", gymnasium.make("HalfCheetah-v5"))
    assert plain.config.model.learn_reward and plain.config.model.learn_termination
    with pytest.raises(ValueError, match="there is no setting 'horizn'; there are mpc, model"):
        mbrl.make("pets", env, horizn=3)
    with pytest.raises(ValueError, match="agent 'petz' is unknown"):
        mbrl.make("petz", env)


def test_settings_reach_the_config_and_its_planning():
    found = changed(TINY, replan_every=2, fit_every=7, planner="cem")
    assert (found.mpc.replan_every, found.fit_every, found.mpc.planner.name) == (2, 7, "cem")
    assert changed(found, replan_every=1, fit_every=None, planner=TINY.mpc.planner) == TINY


def test_runs_are_equal_only_for_equal_seeds():
    found = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        agent = mbrl.make("pets", swing_up(), config=TINY, seed=seed)
        found[name] = mbrl.train(agent, swing_up(), steps=300).returns
    assert found["first"] == found["again"] != found["other"] and len(found["first"]) == 2


def test_runs_are_continued_by_python_and_by_the_command_with_the_same_bytes(tmp_path, capsys):
    """One half is trained by Python and one by the command, in either order."""
    for first in ("python", "command"):
        path = tmp_path / first

        def python(steps, path=path):
            agent = mbrl.make("pets", swing_up(), config=TINY, seed=0)
            return mbrl.train(agent, swing_up(), path, steps=steps).env_steps

        def cli(steps, path=path):
            if path.exists():
                args = ["--resume", path, "--steps", steps]
            else:
                args = ["pets", *settings(TINY), "--steps", steps, "--run", path]
            return command(["train", *map(str, args)])

        if first == "python":
            assert python(150) == 150 and cli(300) == 0
        else:
            assert cli(150) == 0 and python(300) == 300
        assert command(["evaluate", str(path), "--episodes", "1", "--json"]) == 0
        loaded = load_run(path, make_env=envs.make)
        assert loaded.agent.fits == 2 and loaded.config.steps == 300
    assert (tmp_path / "python" / METRICS).read_bytes() == (
        tmp_path / "command" / METRICS
    ).read_bytes()
    configs = [
        json.loads((tmp_path / n / "config.json").read_text()) for n in ("python", "command")
    ]
    assert configs[0] == configs[1]
    returns = json.loads(capsys.readouterr().out.splitlines()[-1])["returns"]
    player = loaded.agent.player(generator=mbrl.training.generator(1000, 1))
    assert mbrl.evaluate(player, loaded.env, episodes=1, seed=1000) == returns


def settings(config):
    planner = dataclasses.asdict(config.mpc.planner)
    model = dataclasses.asdict(config.model)
    plain = dataclasses.asdict(MPCConfig()) | dataclasses.asdict(config.mpc)
    given = {k: v for k, v in planner.items() if k != "settings" and v is not None}
    found = [f"--planner.{k.replace('_', '-')}={v}" for k, v in given.items()]
    for name in ("members", "epochs", "batch", "learning_rate", "weight_decay"):
        found.append(f"--model.{name.replace('_', '-')}={model[name]}")
    found += ["--model.hidden", *map(str, config.model.hidden)]
    for name in ("replan_every", "particles"):
        found.append(f"--{name.replace('_', '-')}={plain[name]}")
    return [*found, f"--random-steps={config.random_steps}", f"--fit-every={config.fit_every}"]


def test_a_folder_of_another_run_is_refused_and_not_changed(tmp_path):
    path = tmp_path / "run"
    agent = mbrl.make("random", swing_up())
    mbrl.train(agent, swing_up(), path, steps=20)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in path.rglob("*"))
    other = mbrl.make("random", swing_up(), seed=5)
    with pytest.raises(RunError, match="was begun with another config"):
        mbrl.train(other, swing_up(), path, steps=20)
    with pytest.raises(RunError, match="is at step 20 already"):
        mbrl.train(mbrl.make("random", swing_up()), swing_up(), path, steps=10)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in path.rglob("*")) == before


@pytest.mark.parametrize("value", [-1e9, 1e9], ids=["reached at once", "not reached"])
def test_a_finished_run_that_is_given_a_return_to_reach_can_still_be_loaded(tmp_path, value):
    """No checkpoint is saved then, so that of before must fit the config as it is now."""
    path = tmp_path / "run"
    mbrl.train(mbrl.make("random", swing_up()), swing_up(), path, steps=150)
    for target in (Target(value, 1), None):
        mbrl.train(mbrl.make("random", swing_up()), swing_up(), path, steps=150, target=target)
        loaded = load_run(path, make_env=envs.make)
        assert loaded.env_steps == 150 and loaded.config.target == target


def test_an_agent_or_environment_without_a_name_is_refused_before_a_folder_is_made(tmp_path):
    path = tmp_path / "run"
    env = swing_up()
    by_hand = mbrl.agents.RandomAgent(env.action_space, generator=torch.Generator())
    with pytest.raises(ValueError, match="needs an agent made by mbrl.make"):
        mbrl.train(by_hand, env, path, steps=5)

    class Nameless(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

    with pytest.raises(ValueError, match="the environment has no id"):
        mbrl.train(mbrl.make("random", Nameless()), Nameless(), path, steps=5)
    with pytest.raises(ValueError, match="sink 'printer' is unknown"):
        mbrl.train(mbrl.make("random", env), env, path, steps=5, sinks=["printer"])
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rolloutlab\[tensorboard\]'"):
        mbrl.train(mbrl.make("random", env), env, path, steps=5, sinks=["tensorboard"])
    assert not path.exists()


def test_the_number_of_environments_is_a_setting_of_the_run(tmp_path, capsys):
    path = tmp_path / "run"
    assert (
        command(["train", "random", "--num-envs", "3", "--steps", "450", "--run", str(path)]) == 0
    )
    lines = read_metrics(path / METRICS, "episode")
    assert [(line["episode"], line["env_steps"]) for line in lines] == [(k, 450) for k in range(3)]
    said = capsys.readouterr().err.splitlines()
    assert [line[:11] for line in said[:3]] == [f"episode   {k}" for k in (1, 2, 3)]
    assert json.loads((path / "config.json").read_text())["num_envs"] == 3
    assert command(["train", "--resume", str(path), "--steps", "600"]) == 0
    assert Run.open(path).latest() == 600
    assert command(["plot", str(path)]) == 0 and (path / "plots" / "return.png").exists()


def test_without_a_terminal_progress_is_one_line_per_episode(capsys):
    agent = mbrl.make("random", swing_up())
    mbrl.train(agent, swing_up(), steps=300)
    assert capsys.readouterr().err == ""
    mbrl.train(mbrl.make("random", swing_up()), swing_up(), steps=300, progress=True)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("episode   1  step    150  return")


def test_an_absent_device_raises_an_error_of_one_line(tmp_path):
    path = tmp_path / "run"
    mbrl.train(mbrl.make("random", swing_up()), swing_up(), path, steps=5)
    config = json.loads((path / "config.json").read_text())
    for device in ("cuda:7", "foo", "meta", ""):
        (path / "config.json").write_text(json.dumps(config | {"device": device}))
        with pytest.raises(RunError, match=f"device '{device}', which this machine") as error:
            load_run(path, make_env=envs.make)
        assert "\n" not in str(error.value)
        load_run(path, make_env=envs.make, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algo": "petz"}, "agent 'petz' is unknown; there are a2c, "),
        ({"algo": ["pets"]}, r"algo is \['pets'\], not the name of an agent"),
        ({"steps": "many"}, "steps must be an integer of at least 1"),
        ({"agent": {"mpc": {"particles": "x"}}}, "mpc.particles"),
        ({"env": 3}, "env must be text"),
    ],
)
def test_an_invalid_config_names_its_first_wrong_field(tmp_path, change, message):
    agent = mbrl.make("pets", swing_up(), config=TINY)
    mbrl.train(agent, swing_up(), tmp_path / "run", steps=5)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    with pytest.raises(RunError, match=f"config.json: .*{message}") as error:
        mbrl.training.RunConfig.from_json(config | change)
    assert "\n" not in str(error.value)


def test_slashes_in_an_environments_id_make_no_folders(tmp_path):
    folder = new_folder(tmp_path, "lab/Drift-v0", "random", 3)
    assert folder.parent == tmp_path / "lab-Drift-v0" / "random"


@pytest.mark.parametrize(
    "create", [make_folder, lambda path, **how: Run.create(path, {}, **how).path]
)
def test_processes_that_begin_in_the_same_second_get_separate_folders(tmp_path, create):
    path = tmp_path / "deep" / "0-20260101-000000"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(path, numbered=True), range(40)))
    assert len(set(made)) == 40 and path in made and all(folder.is_dir() for folder in made)
    with pytest.raises(RunError, match="exists already"):
        create(path)


def test_the_newest_run_is_found_in_any_subfolder(tmp_path):
    with pytest.raises(RunError, match="there is no run under"):
        find_run("latest", tmp_path)
    for name in ("a/b/c", "deep/down/below/here"):
        Run.create(tmp_path / name, {})
        assert find_run("latest", tmp_path) == tmp_path / name
    assert find_run("some/where", tmp_path).parts == ("some", "where")


def test_public_names_of_the_library_can_be_imported():
    for name in mbrl.__all__:
        assert getattr(mbrl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mbrl.nonsense  # noqa: B018
    assert np.array_equal(sorted(dir(mbrl)), sorted(mbrl.__all__))


def test_a_label_says_which_model_and_planner_a_run_has():
    """Runs of one algorithm, whose settings then have other names."""

    def run(algo, **settings):
        config = changed(agents.agent(algo).Config(), **settings)
        return RunConfig(algo, "cartpole-swingup", 0, 1, "cpu", config)

    found = labels([run("pets", model=model) for model in ("gp", "gp", "dropout")])
    assert [label.split()[:2] for label in found] == [
        ["pets", "model=gp"], ["pets", "model=gp"], ["pets", "model=dropout"]
    ]  # fmt: skip
    assert "model.rate" not in found[2] and found[0] == found[1]
    own = [run("pets", model="parts:Linear"), run("pets", model="parts:Other")]
    assert labels(own) == [
        f"pets model=parts:{n} model.name=parts:{n}" for n in ("Linear", "Other")
    ]
    bees = [PlannerConfig("parts:Bees", settings=given) for given in ({}, {"bees": 3})]
    found = labels([run("pets", planner=planner) for planner in bees])
    assert found == [f"pets mpc.planner.settings={planner.settings}" for planner in bees]


def test_returns_of_episodes_that_end_at_one_step_are_averaged(tmp_path):
    log = MetricsLog(tmp_path)
    for env_steps, total in ((3, 1.0), (6, 2.0), (6, 5.0), (9, 4.0)):
        log.write("episode", env_steps, {"return": total})
        log.write("update", env_steps, {"loss": 0.0})
    log.close()
    assert learning(tmp_path) == ([3, 6, 9], [1.0, 3.5, 4.0])
    assert learning(tmp_path, after=6) == ([9], [4.0])
    with pytest.raises(RunError, match="has no finished episode"):
        learning(tmp_path, after=9)
