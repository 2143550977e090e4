"""Bad input raises an error of one line that names the cause."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs import MujocoEnv, Task

TASK = envs.TASKS["cartpole-swingup"]
SLIDER = """<mujoco><worldbody><body><joint name="j" type="slide"/><geom size=".1"/></body>
</worldbody><actuator><motor name="engine" joint="j" {motor}/></actuator><sensor>{sensor}</sensor>
</mujoco>"""


def slider(path: Path, motor: str = 'ctrlrange="-1 1"', sensor: str = "") -> Task:
    path.write_text(SLIDER.format(motor=motor, sensor=sensor))
    return dataclasses.replace(
        TASK,
        name="slider",
        mjcf=path,
        observation=lambda physics: np.concatenate([physics.qpos, physics.qvel], axis=-1),
        reward=lambda obs, action, next_obs: next_obs[..., 0],
        initial=lambda rng: (np.zeros(1), np.zeros(1)),
    )


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_actions_of_wrong_shape_or_not_finite_are_refused():
    env = envs.make("arm-pusher")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action has shape \(6,\), expected \(7,\)"):
        env.step(np.zeros(6, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        env.unwrapped.step(np.array([0, 0, np.nan, 0, 0, 0, 0], np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        MujocoEnv(TASK).step(np.zeros(1, np.float32))


def test_action_beyond_the_bounds_acts_as_the_bound():
    at, beyond = MujocoEnv(TASK), MujocoEnv(TASK)
    at.reset(seed=0)
    beyond.reset(seed=0)
    one = at.step(np.array([1.0], np.float32))
    two = beyond.step(np.array([5.0], np.float32))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1] - two[1] == pytest.approx(0.01 * 24, abs=1e-6)  # unclipped


def test_actions_map_linearly_to_the_control_range(tmp_path):
    env = MujocoEnv(slider(tmp_path / "a.xml", 'ctrlrange="-1 3"'))
    env.reset(seed=0)
    for action, ctrl in ((-1, -1), (0, 1), (1, 3)):
        env.step(np.array([action], np.float32))
        assert env.data.ctrl[0] == ctrl


def test_a_divergence_is_reported_with_its_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = MujocoEnv(slider(tmp_path / "a.xml", 'ctrlrange="-1 1" gear="1e15"'))
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    with pytest.raises(envs.SimulationDiverged, match="slider.*step 2") as error:
        env.step(np.ones(1, np.float32))
    one_line(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.xml"]  # MuJoCo wrote no log file
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))  # works again after a reset


def test_mjcf_that_does_not_compile_names_file_and_reason(tmp_path):
    task = slider(tmp_path / "bad.xml")
    (tmp_path / "bad.xml").write_text("<mujoco><worldbody><bodi/></worldbody></mujoco>")
    with pytest.raises(ValueError, match="bad.xml.*bodi") as error:
        task.compile()
    one_line(error)
    with pytest.raises(ValueError, match=r"none\.xml") as error:
        dataclasses.replace(task, mjcf=tmp_path / "none.xml").compile()
    one_line(error)


@pytest.mark.parametrize(
    ("motor", "sensor", "message"),
    [
        ("", "", "without ctrlrange.*engine"),
        (
            'ctrlrange="-1 1"',
            '<actuatorfrc name="strain" actuator="engine"/>',
            "need accelerations.*strain",
        ),
    ],
)
def test_unsupported_actuators_and_sensors_are_refused_by_name(tmp_path, motor, sensor, message):
    with pytest.raises(ValueError, match=message) as error:
        slider(tmp_path / "a.xml", motor, sensor).compile()
    one_line(error)


def test_noise_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="needs 2 values.*got 3"):
        dataclasses.replace(TASK, process_noise=(1.0, 0.0, 0.0)).compile()


@pytest.mark.parametrize(
    ("id", "nearest"),
    [
        ("cartpol-swingup", "cartpole-swingup"),
        ("HalfCheetah-v6", "HalfCheetah-v5"),
        ("hopper-v5", "Hopper-v5"),
        ("zzzzzz", "arm-reacher"),
    ],
)
def test_an_unknown_environment_is_refused_with_the_nearest_name(id, nearest):
    for function in (envs.make, envs.known, envs.describe):
        with pytest.raises(envs.UnknownEnvironment, match=nearest) as error:
            function(id)
        one_line(error)


def test_action_spaces_other_than_a_bounded_box_are_refused():
    with pytest.raises(ValueError, match="CartPole-v1: a planner needs a bounded box.*Discrete"):
        envs.check_box(envs.make("CartPole-v1"))
    env = envs.make("cartpole-swingup")
    assert envs.check_box(env) is env.action_space
    env.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(ValueError, match="bounded"):
        envs.check_box(env)
    env.action_space = gymnasium.spaces.Box(-1, 1, (2, 2))
    with pytest.raises(ValueError, match=r"shape \(A,\)"):
        envs.check_box(env)


class Bare(gymnasium.Env):
    """An environment whose constructor takes no arguments."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self):
        self.render_mode = None

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}


def test_an_environment_whose_constructor_takes_no_arguments_can_be_made():
    gymnasium.register("bare-v0", entry_point=Bare, max_episode_steps=7)
    try:
        env = envs.make("bare-v0")
        assert isinstance(env.unwrapped, Bare) and env.unwrapped.metadata["known"]["ends"]
        assert envs.describe("bare-v0")[:4] == ("bare-v0", 2, 1, 7)
        pair = gymnasium.vector.SyncVectorEnv([lambda: envs.make("bare-v0")] * 2)
        assert pair.reset()[0].shape == (2, 2)
    finally:
        del gymnasium.registry["bare-v0"]


def test_environments_are_listed_with_their_sizes():
    assert envs.names()[: len(envs.TASKS)] == tuple(envs.TASKS)
    found = envs.describe("arm-reacher")
    assert found[:6] == ("arm-reacher", 17, 7, 150, True, True)
    assert envs.describe("Hopper-v5")[:6] == ("Hopper-v5", 11, 3, 1000, False, True)
    for id in envs.TASKS:
        assert envs.TASKS[id].summary


def test_rendering_without_opengl_names_what_to_install(monkeypatch):
    def broken(*args: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    env = envs.make("cartpole-swingup", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))  # only rendering fails
    with pytest.raises(envs.RenderingUnavailable, match="apt install libegl1 libgl1") as error:
        env.render()
    one_line(error)


def test_environments_import_neither_torch_nor_the_library():
    code = "import sys, envs; assert not {'torch', 'mbrl', 'planners'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_sensor_is_refused_by_name():
    def without_sensor(spec):
        envs.TASKS["arm-pusher"].prepare(spec)
        spec.delete(spec.sensor("object"))

    task = dataclasses.replace(envs.TASKS["arm-pusher"], prepare=without_sensor)
    with pytest.raises(ValueError, match="no sensor 'object', which arm-pusher observes; there"):
        task.compile()
