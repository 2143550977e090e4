"""The contract of tasks: four functions, two array libraries, one environment."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import envs
from envs import MujocoEnv, Physics, Task
from envs.task import sensor_views


def physics(task: Task, lead: tuple[int, ...], seed: int = 0) -> Physics:
    """Plausible random states, float64, with the given leading dimensions."""
    rng = np.random.default_rng(seed)
    model = task.compile()
    start, _ = task.initial(rng)
    sensordata = rng.normal(size=(*lead, model.nsensordata))
    return Physics(
        start + rng.normal(size=(*lead, model.nq)),
        rng.normal(size=(*lead, model.nv)),
        sensor_views(model, sensordata),
    )


def test_gymnasiums_check_env_passes_without_a_warning(task):
    env = envs.make(task.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env.unwrapped, skip_render_check=True)
    finally:
        env.close()


def test_frames_show_something_that_moves(task):
    env = envs.make(task.name, render_mode="rgb_array", width=160, height=120)
    try:
        env.reset(seed=0)
        try:
            first = env.render()
        except envs.RenderingUnavailable as error:
            pytest.skip(str(error))
        for _ in range(15):
            env.step(np.full_like(envs.check_box(env).low, 0.8))
        last = env.render()
        assert isinstance(first, np.ndarray) and isinstance(last, np.ndarray)
        assert first.shape == (120, 160, 3) and first.dtype == np.uint8
        assert first.std() > 5
        changed = np.abs(first.astype(int) - last.astype(int)).max(axis=-1) > 20
        assert 0.002 < changed.mean() < 0.7  # the robot moves, the scene does not
    finally:
        env.close()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 4)], ids=str)
def test_functions_agree_in_numpy_and_torch_for_any_leading_dimensions(task, lead):
    one = physics(task, lead)
    rng = np.random.default_rng(1)
    action = rng.uniform(-1, 1, (*lead, task.compile().nu))
    obs = task.observation(one)
    next_obs = task.observation(physics(task, lead, seed=2))
    reward = task.reward(obs, action, next_obs)
    terminated = task.terminated(next_obs)
    assert np.shape(reward) == np.shape(terminated) == lead
    assert obs.shape[:-1] == lead and obs.dtype == np.float64
    assert np.asarray(terminated).dtype == bool

    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        two = Physics(
            torch.tensor(one.qpos, dtype=dtype),
            torch.tensor(one.qvel, dtype=dtype),
            {name: torch.tensor(value, dtype=dtype) for name, value in one.sensors.items()},
        )
        t_obs = task.observation(two)
        t_next = torch.tensor(next_obs, dtype=dtype)
        t_reward = task.reward(t_obs, torch.tensor(action, dtype=dtype), t_next)
        t_terminated = task.terminated(t_next)
        assert t_obs.dtype == t_reward.dtype == dtype and t_terminated.dtype == torch.bool
        assert t_reward.shape == t_terminated.shape == torch.Size(lead)
        np.testing.assert_allclose(t_obs.numpy(), obs, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(t_reward.numpy(), reward, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(t_terminated.numpy(), terminated)


def test_rows_do_not_depend_on_one_another(task):
    """The values of a row do not depend on the other rows."""
    state = physics(task, (5,))
    action = np.random.default_rng(3).uniform(-1, 1, (5, task.compile().nu))
    obs = task.observation(state)
    together = task.reward(obs, action, obs[::-1])
    alone = [task.reward(obs[i], action[i], obs[4 - i]) for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_gradients_flow_through_the_reward(task):
    obs = torch.tensor(task.observation(physics(task, (4,))), requires_grad=True)
    action = torch.full((4, task.compile().nu), 0.3, dtype=obs.dtype, requires_grad=True)
    task.reward(obs, action, obs).sum().backward()
    assert obs.grad is not None and obs.grad.isfinite().all() and (obs.grad != 0).any()
    if task.name != "cylinder-push":  # if actions cost nothing, as in judo
        assert action.grad is not None and (action.grad != 0).any()


def test_rewards_of_env_equal_the_reward_function_of_its_observations(task):
    env = envs.make(task.name)
    obs, _ = env.reset(seed=3)
    env.action_space.seed(3)
    for _ in range(30):
        action = env.action_space.sample()
        next_obs, reward, terminated, _, _ = env.step(action)
        assert reward == float(task.reward(obs, action, next_obs))
        assert terminated == bool(task.terminated(next_obs))
        obs = next_obs


def test_observations_and_sensors_belong_to_the_final_state(task):
    """Observations and sensors equal those that MuJoCo recomputes at qpos and qvel."""
    env = envs.make(task.name).unwrapped
    assert isinstance(env, MujocoEnv)
    obs, _ = env.reset(seed=5)
    for _ in range(10):
        obs, *_ = env.step(np.full(env.model.nu, 0.7, np.float32))
    fresh = mujoco.MjData(env.model)
    fresh.qpos[:], fresh.qvel[:] = env.data.qpos, env.data.qvel
    fresh.mocap_pos[:] = env.data.mocap_pos
    mujoco.mj_forward(env.model, fresh)
    expected = task.observation(
        Physics(fresh.qpos, fresh.qvel, sensor_views(env.model, fresh.sensordata))
    )
    np.testing.assert_allclose(obs, expected, rtol=1e-6, atol=1e-7)


def test_the_seed_determines_the_episode(task):
    def episode(seed: int) -> np.ndarray:
        env = envs.make(task.name)
        rows = [env.reset(seed=seed)[0]]
        rng, size = np.random.default_rng(0), task.compile().nu
        for _ in range(20):
            rows.append(env.step(rng.uniform(-1, 1, size).astype(np.float32))[0])
        return np.array(rows)

    np.testing.assert_array_equal(episode(7), episode(7))
    assert not np.array_equal(episode(7)[0], episode(8)[0])


def test_episodes_are_truncated_and_not_terminated(task):
    env = envs.make(task.name)
    env.reset(seed=0)
    action = np.zeros_like(envs.check_box(env).low)
    for _ in range(task.episode_steps - 1):
        _, _, terminated, truncated, _ = env.step(action)
        assert not terminated and not truncated
    assert env.step(action)[2:4] == (False, True)
