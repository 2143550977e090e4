"""A user's environments: by `register`, by `module:NAME` and by an entry point."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs import registry
from tests.own_parts import parts


@pytest.fixture(autouse=True)
def clean():
    """Environments that a test registers are removed after it."""
    before = {*gymnasium.registry}
    yield
    for name in {*gymnasium.registry} - before:
        envs.unregister(name)


@pytest.fixture
def parts_module(monkeypatch):
    """The name of the module `parts.py`, which can be imported."""
    monkeypatch.syspath_prepend(str(Path(parts.__file__).parent))
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    return "parts"


def played(env, steps=3):
    env.reset(seed=0)
    env.action_space.seed(0)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


def test_a_task_is_registered():
    assert envs.register(parts.SLIDER) == "slider"
    env = envs.make("slider")
    assert env.spec is not None and env.spec.max_episode_steps == 30
    assert env.metadata["known"]["reward"] is parts.reward
    assert envs.simulated("slider") is not None and "slider" in envs.names()
    assert envs.describe("slider").obs_dim == 2
    assert len(played(env)) == 3


def test_a_class_is_registered_with_its_reward_and_termination():
    def reward(obs, action, next_obs):
        return -abs(next_obs[..., 0])

    def terminated(next_obs):
        return abs(next_obs[..., 0]) > 2

    assert envs.register(parts.Drift, reward=reward, terminated=terminated) == "Drift"
    told = envs.make("Drift").metadata["known"]
    assert told["reward"] is reward and told["terminated"] is terminated
    assert not told["ends"] and told["task"] is None
    assert envs.entry("Drift").summary.startswith("A point that drifts")


def test_a_function_that_makes_a_finite_world_is_registered():
    name = envs.register(parts.corridor)
    env = envs.make(name)
    env.reset(seed=0)
    assert [env.step(1)[0] for _ in range(4)] == [1, 2, 3, 4]
    world = envs.entry(name).world
    assert world is not None and world().optimum().values[0] == pytest.approx(0.9**3)


def test_a_finite_world_is_registered():
    assert envs.register(parts.corridor()) == "corridor"
    assert played(envs.make("corridor"))


def test_functions_are_registered_for_an_id_of_gymnasium():
    def reward(obs, action, next_obs):
        return next_obs[..., 0] * 0 + 1

    assert envs.known("CartPole-v1").reward is None
    try:
        envs.register("CartPole-v1", reward=reward)
        assert envs.known("CartPole-v1").reward is reward
        assert "CartPole-v1" in gymnasium.registry
    finally:
        envs.unregister("CartPole-v1")
    assert envs.known("CartPole-v1").reward is None and "CartPole-v1" in gymnasium.registry


def test_later_presets_are_added_to_earlier_ones():
    envs.register(parts.SLIDER, preset={"random": (10, None)})
    envs.register("slider", preset={"mpc": 3})
    assert envs.entry("slider").presets == {"random": (10, None), "mpc": 3}
    assert envs.entry("slider").task is not None


def test_environments_are_made_by_module_and_name(parts_module):
    for name, kind in (("SLIDER", envs.MujocoEnv), ("Drift", gymnasium.Env)):
        id = f"{parts_module}:{name}"
        env = envs.make(id)
        assert isinstance(env.unwrapped, kind)
        assert env.spec is not None and env.spec.id == id
        assert envs.make(id) is not env, "made twice under the same name"
    assert envs.make("parts:corridor").action_space == gymnasium.spaces.Discrete(2)


def test_environments_are_made_by_gymnasiums_module_and_id(tmp_path, monkeypatch):
    (tmp_path / "hidden.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Hid-v0', entry_point='gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert envs.make("hidden:Hid-v0").observation_space.shape == (3,)


def test_environments_are_made_by_an_entry_point_of_an_installed_package(parts_module, monkeypatch):
    point = EntryPoint("rails", "parts:SLIDER", registry.GROUP)

    def entry_points(*, group, name):
        return [point] if (group, name) == (registry.GROUP, "rails") else []

    monkeypatch.setattr(registry.metadata, "entry_points", entry_points)
    assert envs.simulated("rails").name == "slider"
    assert played(envs.make("rails"))


@pytest.mark.parametrize(
    ("id", "line"),
    [
        ("parts:SLIDERS", "parts has no SLIDERS; its tasks are SLIDER"),
        ("nowhere:X", "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        (".x", "unknown environment '.x'"),
        (":Pendulum-v1", "unknown environment ':Pendulum-v1'"),
        ("..:Pendulum-v1", "the form is NAME, or module:NAME"),
        ("parts:", "the form is NAME, or module:NAME"),
        ("parts:np", "a module is no environment; wanted an envs.Task"),
        ("parts:observation", "a function is no environment; wanted an envs.Task"),
        ("parts:Bees", "a type is no environment; wanted an envs.Task"),
        ("os:abort", "is no environment; wanted an envs.Task"),
        ("", "unknown environment ''"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(parts_module, id, line):
    with pytest.raises(ValueError, match=line) as error:
        envs.make(id)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1 +", "raise RuntimeError('no\\nway')", "import nothing_like"])
def test_a_module_that_fails_on_import_is_refused_in_one_line(tmp_path, monkeypatch, text):
    (tmp_path / "broken_part.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(envs.UnknownEnvironment, match="broken_part cannot be imported") as error:
        envs.make("broken_part:X")
    assert "\n" not in str(error.value)


def column(obs, action, next_obs):
    return np.zeros((len(next_obs), 1))


def test_functions_that_differ_from_the_environment_are_refused_and_nothing_is_registered():
    wrong = {
        r"Drift: reward: wanted shape \(2,\) for 2 rows, got \(2, 1\)": {"reward": column},
        "Drift: reward: gives 5 at step 1 where the environment gave": {
            "reward": lambda obs, action, next_obs: 5 + 0 * next_obs[..., 0]
        },
        "Drift: terminated: gives 1 at step 1 where the environment gave 0": {
            "terminated": lambda next_obs: next_obs[..., 0] < 99
        },
        "Drift: reward: raised KeyError": {"reward": lambda obs, action, next_obs: {}["a"]},
    }
    for line, given in wrong.items():
        with pytest.raises(ValueError, match=line):
            envs.register(parts.Drift, **given)
        assert "Drift" not in gymnasium.registry and "Drift" not in envs.names()
    inexact: Any = {"reward": lambda obs, action, next_obs: 0 * next_obs[..., 0]}
    envs.register(parts.Drift, why="the reward is the planner's own", **inexact)
    assert envs.known("Drift").why


def test_a_name_that_is_taken_is_refused():
    envs.register(parts.SLIDER)
    for name in ("slider", "cartpole-swingup", "CartPole-v1"):
        with pytest.raises(ValueError, match=f"named '{name}' already; give another name="):
            envs.register(parts.SLIDER, name=name)
    assert envs.register(parts.SLIDER, name="slider-2") == "slider-2"
