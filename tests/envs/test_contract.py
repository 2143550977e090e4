"""`check_task` accepts the library's tasks and names each breach of the contract in one line."""

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

import envs
from tests.own_parts.parts import SLIDER, initial, observation, reward


@pytest.mark.parametrize("task", envs.TASKS.values(), ids=list(envs.TASKS))
def test_the_librarys_tasks_pass(task):
    envs.check_task(task)


def test_a_users_task_passes():
    envs.check_task(SLIDER)


def column(obs, action, next_obs):
    return reward(obs, action, next_obs)[..., None]


def scalar(obs, action, next_obs):
    return 0.5


def numpy_only(obs, action, next_obs):
    return np.asarray(reward(obs, action, next_obs))


def mixes_rows(obs, action, next_obs):
    return reward(obs, action, next_obs) - next_obs[..., 0].mean()


def sensed(physics):
    return physics.sensors["speedometer"]


def slow(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = 0.01


BROKEN = [
    ({"reward": column}, r"reward: wanted shape \(3,\) for numpy arrays, got \(3, 1\)"),
    ({"reward": scalar}, r"reward: wanted shape \(3,\) for numpy arrays, got 0.5"),
    ({"reward": lambda obs, action, next_obs: None}, r"reward: wanted shape \(3,\).*got None"),
    ({"reward": numpy_only}, "reward: wanted a torch tensor for torch arrays, got a ndarray"),
    ({"reward": mixes_rows}, "reward: a row among others gives .*, alone"),
    ({"reward": lambda obs: 0.0}, "reward: raised TypeError for numpy arrays: .*positional"),
    ({"terminated": lambda next_obs: next_obs[..., 0]}, "terminated: wanted booleans, got float"),
    ({"success": lambda obs: obs > 0}, r"success: wanted shape \(3,\).*got \(3, 2\)"),
    ({"observation": lambda physics: physics.qpos[..., 0]}, r"observation: wanted shape \(O,\)"),
    ({"observation": lambda physics: physics.qpos[..., :1] * np.nan}, "observation: .* not finite"),
    ({"observation": sensed}, "slider.xml: no sensor 'speedometer', which slider observes"),
    (
        {"initial": lambda rng: (np.zeros(2), np.zeros(1))},
        r"wanted qpos of shape \(1,\), got \(2,\)",
    ),
    ({"initial": lambda rng: np.zeros(2)}, r"initial: wanted \(qpos, qvel\), got \(2,\)"),
    (
        {"initial": lambda rng: (np.random.default_rng().normal(size=1), np.zeros(1))},
        "initial: the same generator gives another state",
    ),
    ({"goal": lambda rng: np.zeros((1, 3))}, r"goal: wanted shape \(0, 3\), got \(1, 3\)"),
    ({"camera": "back"}, "camera 'back' is not in the model; its cameras are front"),
    ({"camera": 3}, "camera 3 is not in the model; its cameras are front"),
    ({"traces": ("tip",)}, "trace 'tip' is no position sensor, site, geom or body of the model"),
    ({"process_noise": (0.1, 0.1)}, "process_noise needs 1 values"),
    ({"mjcf": Path("nowhere.xml")}, "nowhere.xml: .*nowhere.xml"),
    ({"frame_skip": 0}, "frame_skip must be an integer of at least 1, got 0"),
    ({"episode_steps": 2.5}, "episode_steps must be an integer of at least 1, got 2.5"),
    (
        {"planning": envs.Planning(slow, 2)},
        "planning: its control step is 0.02 s, the task's is 0.04 s",
    ),
]


@pytest.mark.parametrize(("change", "line"), BROKEN)
def test_each_breach_of_the_contract_is_named_in_one_line(change, line):
    with pytest.raises(ValueError, match=line) as error:
        envs.check_task(replace(SLIDER, **change))
    assert "\n" not in str(error.value)
    assert "slider" in str(error.value) or "nowhere.xml" in str(error.value)


def test_the_tasks_that_the_broken_ones_are_made_from_pass():
    """So each variant above fails only because of its own change."""
    envs.check_task(replace(SLIDER, reward=reward, initial=initial, observation=observation))
