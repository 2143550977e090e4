"""Tasks in which a plan can fail: their noise, where they end, and what a failure costs."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from scipy import integrate

import envs
from envs import MujocoEnv, cartpole_cliff, panda_reach, panda_reach_beside

CLIFF, BESIDE = cartpole_cliff.TASK, panda_reach_beside.TASK


def rows(values, dtype):
    return np.array(values, np.float32) if dtype is np else torch.tensor(values)


@pytest.mark.parametrize("task", [CLIFF, BESIDE], ids=lambda task: task.name)
def test_forces_are_normal_with_the_stated_std_and_new_in_each_step(task):
    env = MujocoEnv(task)
    env.reset(seed=0)
    start = env.data.qpos.copy()
    forces = []
    for _ in range(600):
        env.step(np.zeros(env.model.nu, np.float32))
        forces.append(env.data.qfrc_applied.copy())
        env.data.qpos[:], env.data.qvel[:] = start, 0
    forces = np.array(forces)
    std = np.array(task.process_noise)
    # 4.5 standard errors of a std, a mean and a correlation over 600 draws
    np.testing.assert_allclose(forces.std(0), std, rtol=0.13)
    assert (np.abs(forces.mean(0)) <= 0.19 * std).all()
    moving = forces[:, std > 0] / std[std > 0]
    assert (np.abs((moving[1:] * moving[:-1]).mean(0)) < 0.19).all()


@pytest.mark.parametrize("task", [CLIFF, BESIDE], ids=lambda task: task.name)
def test_the_seed_determines_an_episode_with_its_noise(task):
    def episode(seed: int) -> np.ndarray:
        env = envs.make(task.name)
        found = [env.reset(seed=seed)[0]]
        for _ in range(10):
            found.append(env.step(np.full(env.action_space.shape or (), 0.1, np.float32))[0])
        return np.array(found)

    np.testing.assert_array_equal(episode(4), episode(4))
    assert np.abs(episode(4) - episode(5)).max() > 1e-3


# The cliff


@pytest.mark.parametrize("kind", [np, torch], ids=["numpy", "torch"])
def test_a_cart_falls_exactly_past_the_edge(kind):
    edge = np.float32(cartpole_cliff.EDGE)
    beyond = np.nextafter(edge, np.float32(1))
    obs = [[float(x), 0.0, -1.0, 0.0, 0.0] for x in (0.0, edge, beyond)]
    ended = cartpole_cliff.terminated(rows(obs, kind))
    assert ended.tolist() == [False, False, True]
    gained = cartpole_cliff.reward(rows(obs, kind), rows([[0.0]] * 3, kind), rows(obs, kind))
    # 0.4 m of 0.5 m away; at the edge; and fallen
    np.testing.assert_allclose(np.asarray(gained), [0.2, 1.0, 0.0], atol=1e-5)
    tired = cartpole_cliff.reward(rows(obs, kind), rows([[-1.0]] * 3, kind), rows(obs, kind))
    np.testing.assert_allclose(np.asarray(gained - tired), 0.01, atol=1e-6)


def test_a_cart_driven_at_the_edge_falls_and_ends_its_episode():
    env = envs.make("cartpole-cliff")
    env.reset(seed=0)
    places, ended, gained = [], False, 1.0
    while not ended and len(places) < 40:
        obs, reward, ended, *_ = env.step(np.ones(1, np.float32))
        places.append(float(obs[0]))
        gained = float(reward)
    assert ended and len(places) < 15
    assert places[-1] > cartpole_cliff.EDGE >= max(places[:-1])
    assert gained < 0.0  # the place is worth 1 at most


def test_the_cart_moves_as_its_equations_say():
    """Against the Lagrange equations of a cart with drag and a rod, integrated by scipy."""
    heavy, rod, half, drag, gravity = 1.0, 0.1, 0.3, cartpole_cliff.DRAG, 9.81
    turning = rod * (2 * half) ** 2 / 3  # kg m², of a uniform rod about its end

    def change(_: float, state: np.ndarray) -> np.ndarray:
        _, angle, speed, spin = state
        couple = rod * half * np.cos(angle)
        left = np.array([[heavy + rod, couple], [couple, turning]])
        right = [
            push - drag * speed + rod * half * np.sin(angle) * spin**2,
            rod * gravity * half * np.sin(angle),
        ]
        return np.concatenate([[speed, spin], np.linalg.solve(left, right)])

    model = CLIFF.compile()
    model.opt.timestep = 1e-4  # MuJoCo's integrator is of first order
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = [0.0, np.pi + 0.4], [0.2, -1.0]
    state = np.array([*data.qpos, *data.qvel])
    for push in (-10.0, 4.0, 7.0):
        data.ctrl[:] = push / 10.0
        mujoco.mj_step(model, data, nstep=2000)
        state = integrate.solve_ivp(change, (0, 0.2), state, rtol=1e-9, atol=1e-11).y[:, -1]
        np.testing.assert_allclose([*data.qpos, *data.qvel], state, atol=2e-3)


def test_a_control_step_of_the_cliff_lasts_80_ms():
    env = MujocoEnv(CLIFF)
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    assert env.data.time == pytest.approx(0.08)


# The post


@pytest.mark.parametrize("kind", [np, torch], ids=["numpy", "torch"])
def test_a_hand_touches_exactly_within_the_clearance_whatever_its_height(kind):
    obs = np.zeros((4, 22), np.float32)
    obs[:, 20:22] = 0.5, -0.2  # the post
    obs[:, 14:17] = [[0.561, -0.2, 0.3], [0.559, -0.2, 0.3], [0.5, -0.259, 0.7], [0.46, -0.24, 0.1]]
    obs[:, 17:20] = [0.6, -0.2, 0.3]
    given = obs if kind is np else torch.tensor(obs)
    action = rows([[0.0] * 7] * 4, kind)
    ended = panda_reach_beside.terminated(given)
    assert ended.tolist() == [False, True, True, True]
    gained = panda_reach_beside.reward(given, action, given)
    plain = panda_reach.reward(given, action, given)
    np.testing.assert_allclose(np.asarray(plain - gained), [0.0, 5.0, 5.0, 5.0], atol=1e-6)


def test_the_post_stands_ten_centimetres_beside_the_ball_and_never_at_the_hand():
    env = envs.make("panda-reach-beside")
    sides = []
    for seed in range(60):
        obs, _ = env.reset(seed=seed)
        ball, post = obs[17:19], obs[20:22]
        assert np.linalg.norm(post - ball) == pytest.approx(0.10, abs=1e-6)
        assert abs(ball @ (post - ball)) < 1e-6  # beside it, as seen from the arm's axis
        assert np.linalg.norm(obs[14:16] - post) > 0.08 and not BESIDE.terminated(obs)
        sides.append(ball[0] * post[1] > ball[1] * post[0])
    assert 15 < sum(sides) < 45
