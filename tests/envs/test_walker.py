"""The planar biped against closed forms, and its reward against hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs import MujocoEnv, walker


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return walker.TASK.compile()


def running() -> np.ndarray:
    """The observation of an upright robot, 1.2 m up, at 2.5 m/s."""
    obs = np.zeros(18)
    obs[0], obs[8] = 1.2, 2.5
    return obs


def capsule(radius: float, length: float) -> float:
    """The mass of a capsule in kg, at 1000 kg/m³."""
    return 1000 * np.pi * radius**2 * (length + 4 / 3 * radius)


def test_masses_are_those_of_capsules_of_water(model):
    assert model.body("torso").mass[0] == pytest.approx(capsule(0.085, 0.44))
    for side in ("left", "right"):
        assert model.body(f"{side} thigh").mass[0] == pytest.approx(capsule(0.055, 0.38))
        assert model.body(f"{side} shin").mass[0] == pytest.approx(capsule(0.042, 0.38))
        assert model.body(f"{side} foot").mass[0] == pytest.approx(capsule(0.04, 0.21))
    assert model.body_mass.sum() == pytest.approx(28.66, abs=0.01)


def test_at_the_start_the_soles_are_level_just_above_the_floor(model):
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 1.22, 0, *walker.BENT]
    mujoco.mj_forward(model, data)
    for side in ("left", "right"):
        # 1.22 m less 0.25 to the hip, 0.44 cos 0.25, 0.44 cos 0.15 and 0.10 to the sole.
        sole = data.geom(f"{side} foot").xpos[2] - 0.04
        gap = 1.22 - 0.25 - 0.44 * np.cos(0.25) - 0.44 * np.cos(0.15) - 0.10
        assert sole == pytest.approx(gap, abs=1e-9) and 0 < gap < 0.02
        axis = data.geom(f"{side} foot").xmat.reshape(3, 3)[:, 2]
        np.testing.assert_allclose(np.abs(axis), [1, 0, 0], atol=1e-9)
    assert data.ncon == 0


def test_the_velocity_is_that_of_the_centre_of_mass():
    env = MujocoEnv(walker.TASK)
    env.reset(seed=0)
    env.data.qvel[:] = [2.0, -0.5, *np.zeros(7)]
    mujoco.mj_forward(env.model, env.data)
    obs = walker.observation(env._physics)
    np.testing.assert_allclose(obs[8:10], [2.0, -0.5], atol=1e-9)
    np.testing.assert_allclose(obs[:8], env.data.qpos[1:])
    np.testing.assert_allclose(obs[10:], env.data.qvel[1:])


def test_rewards_equal_hand_computed_values():
    obs, action = running(), np.zeros(6)
    paid = walker.reward
    assert paid(obs, action, obs) == pytest.approx(1.0)
    assert paid(obs, np.ones(6), obs) == pytest.approx(0.9)
    slow, fast, low, tipped = (running() for _ in range(4))
    slow[8], fast[8], low[0], tipped[1] = 0.0, 3.5, 0.72, np.pi / 2
    # Standing still: 0.1 + 0.9 · 0.1, where 0.1 is the value of the tolerance at its margin.
    assert paid(obs, action, slow) == pytest.approx(0.1 + 0.9 * 0.1)
    assert paid(obs, action, fast) == pytest.approx(1.0)
    assert paid(obs, action, low) == pytest.approx(0.1)
    off = (np.pi / 2 - 0.35) / 0.8
    assert paid(obs, action, tipped) == pytest.approx(0.5 * 0.1 ** (off * off))
    assert paid(obs, action, obs, speed=5.0) == pytest.approx(0.1 + 0.9 * 0.55)


def test_success_is_upright_and_moving():
    good, slow, fallen = running(), running(), running()
    slow[8], fallen[0] = 0.9, 0.5
    assert walker.success(np.stack([good, slow, fallen])).tolist() == [True, False, False]


def test_the_robot_falls_without_control():
    env = MujocoEnv(walker.TASK)
    obs, _ = env.reset(seed=0)
    for _ in range(125):
        obs, *_ = env.step(np.zeros(6, np.float32))
    assert obs[0] < 0.6
