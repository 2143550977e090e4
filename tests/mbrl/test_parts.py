"""A user's planners, models and agents in Python; the command is tested separately."""

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import envs
import mbrl
from mbrl import parts
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.dynamics import OwnModel
from tests import own_parts

CODE = Path(own_parts.__file__).parent if own_parts.__file__ else Path("tests/own_parts")


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """`parts.py` can be imported; after the test, registered environments are removed."""
    monkeypatch.syspath_prepend(str(CODE))
    yield
    for name in ("parts:SLIDER", "parts:Drift", "parts:corridor"):
        envs.unregister(name)
    sys.modules.pop("parts", None)


def short(**settings):
    env = envs.make("parts:SLIDER")
    return mbrl.make("pets", env, random_steps=30, particles=1, **settings), env


def test_a_run_with_a_users_planner_and_model_can_be_loaded(tmp_path):
    agent, env = short(planner="parts:Bees", model="parts:Linear")
    done = mbrl.train(agent, env, tmp_path / "run", steps=60)
    assert done.env_steps == 60
    loaded = mbrl.load_run(tmp_path / "run", make_env=envs.make)
    assert torch.equal(loaded.agent.model.weight, agent.model.weight)
    assert type(loaded.agent.mpc.planner).__name__ == "Bees"
    assert agent.model.weight.abs().sum() > 0, "it was fitted"


def test_classes_are_stored_by_name():
    own = importlib.import_module("parts")
    agent, _ = short(planner=own.Bees, model=own.Linear)
    assert agent.config.mpc.planner.name == "parts:Bees"
    assert agent.config.model == OwnModel("parts:Linear", learn_reward=False)


def test_settings_reach_a_users_classes():
    agent, _ = short(
        planner=PlannerConfig("parts:Bees", horizon=7, settings={"bees": 3}),
        model=OwnModel("parts:Linear", {"ridge": 2.0}),
    )
    assert (agent.mpc.planner.bees, agent.mpc.planner.horizon) == (3, 7)
    assert agent.model.ridge == 2.0


def test_a_users_agent_is_trained():
    env = envs.make("parts:Drift")
    agent = mbrl.make("parts:make", env, tries=2)
    done = mbrl.train(agent, env, steps=100)
    assert agent.tried >= 2 and agent.best_return == pytest.approx(max(done.returns))


def test_an_entry_point_of_an_installed_package_provides_a_planner(monkeypatch):
    point = EntryPoint("bees", "parts:Bees", "mbrl.planners")

    def entry_points(*, group, name):
        return [point] if (group, name) == ("mbrl.planners", "bees") else []

    monkeypatch.setattr(parts.metadata, "entry_points", entry_points)
    made = PlannerConfig("bees", horizon=4).build(-torch.ones(1), torch.ones(1))
    assert type(made).__name__ == "Bees"


LOW, HIGH = -torch.ones(1), torch.ones(1)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: PlannerConfig("bee").build(LOW, HIGH), "planner 'bee' is unknown; there are"),
        (lambda: PlannerConfig("parts:Bee").build(LOW, HIGH), "'parts:Bee': parts has no Bee"),
        (lambda: PlannerConfig("no:Bee").build(LOW, HIGH), "'no:Bee': no cannot be imported"),
        (lambda: PlannerConfig(":Bee").build(LOW, HIGH), "the form is NAME, or module:NAME"),
        (
            lambda: PlannerConfig("parts:Bees", settings={"wasps": 1}).build(LOW, HIGH),
            "'parts:Bees' has no setting 'wasps'; it has bees, rounds, spread",
        ),
        (
            lambda: PlannerConfig("parts:Bees", population=9).build(LOW, HIGH),
            "'parts:Bees' has no setting 'population'; it has bees, rounds, spread",
        ),
        (
            lambda: PlannerConfig("parts:Linear").build(LOW, HIGH),
            "planner 'parts:Linear' has no|planner Linear: cannot be built",
        ),
        (
            lambda: OwnModel("parts:Bees").make(2, 1, generator=torch.Generator()),
            "model 'parts:Bee",
        ),
        (
            lambda: OwnModel("parts:Linear", {"r": 1}).make(2, 1, generator=torch.Generator()),
            "model 'parts:Linear' has no setting 'r'; it has ridge",
        ),
        (lambda: mbrl.make("parts:Bees", envs.make("parts:Drift")), "its module has no|wanted"),
        (lambda: mbrl.make("petz", envs.make("parts:Drift")), "agent 'petz' is unknown"),
        (lambda: short(planner=type("Local", (), {})), "planner: wanted a name, or a class at the"),
    ],
)
def test_wrong_parts_are_refused_in_one_line(make, line):
    with pytest.raises(ValueError, match=line) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_planner_that_breaks_its_contract_is_refused_before_anything_runs(tmp_path, monkeypatch):
    text = (CODE / "parts.py").read_text().replace("Plan(best, value", "Plan(best + 9, value")
    (tmp_path / "wild.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wild", raising=False)
    env = envs.make("cartpole-swingup")
    with pytest.raises(ValueError, match="planner Bees: plan: actions leave the box"):
        mbrl.make("pets", env, planner="wild:Bees")
    assert MPCConfig(planner=PlannerConfig("wild:Bees")), "a config alone runs nothing"
