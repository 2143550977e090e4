"""Acrobot swing-up: its rods, its servo and its reward against hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs import MujocoEnv, acrobot

G = 9.81


def seen(shoulder: float, elbow: float, turning: float = 0.0, bending: float = 0.0) -> np.ndarray:
    angles = [np.sin(shoulder), np.cos(shoulder), np.sin(elbow), np.cos(elbow)]
    return np.array([*angles, turning, bending])


def test_the_rods_swing_at_the_two_closed_form_frequencies():
    # Linearised about hanging, M = m l² [[4/3, 1/2], [1/2, 1/3]] and K = m g l [3/2, 1/2] for the
    # angles of the two rods against the vertical.
    mass = 0.25 * np.array([[4 / 3, 1 / 2], [1 / 2, 1 / 3]])
    omega = np.sqrt(np.linalg.eigvals(np.linalg.inv(mass) @ np.diag([1.5, 0.5]) * G * 0.5))
    model = acrobot.TASK.compile()
    model.dof_damping[:] = 0
    model.actuator_gainprm[:], model.actuator_biasprm[:] = 0, 0
    model.opt.timestep, model.opt.integrator = 1e-3, int(mujoco.mjtIntegrator.mjINT_RK4)
    data = mujoco.MjData(model)
    data.qpos[:] = np.pi - 0.005, 0.002
    angles = []
    for _ in range(20_000):
        mujoco.mj_step(model, data)
        angles.append(data.qpos[0] - np.pi)
    power = np.abs(np.fft.rfft(np.array(angles) * np.hanning(20_000)))
    frequency = np.fft.rfftfreq(20_000, 1e-3)
    for wanted in omega / (2 * np.pi):  # 0.60 and 1.60 Hz: each is a peak, to within the resolution
        near = np.abs(frequency - wanted) < 0.2
        assert frequency[near][power[near].argmax()] == pytest.approx(wanted, abs=0.05)


def test_the_servo_cannot_lift_the_rods():
    env = MujocoEnv(acrobot.TASK)
    lifted = []
    for action in (-1.0, 1.0):
        obs, _ = env.reset(seed=0)
        for _ in range(100):
            obs, *_ = env.step(np.array([action], np.float32))
            lifted.append(acrobot.tip(obs)[1])
            assert abs(env.data.actuator_force[0]) <= 5.0
    assert max(lifted) < 0.25


def test_the_tip_equals_that_of_the_model():
    env = MujocoEnv(acrobot.TASK)
    env.reset(seed=0)
    for qpos in ([0.3, -0.8], [2.0, 1.0]):
        env.data.qpos[:] = qpos
        mujoco.mj_forward(env.model, env.data)
        x, z = acrobot.tip(seen(*qpos))
        np.testing.assert_allclose(env.data.sensor("tip").data, [x, 0, z], atol=1e-12)


def test_rewards_equal_hand_computed_values():
    obs = np.array([seen(0, 0), seen(np.pi, 0), seen(0, 0, 3, 4), seen(np.pi / 2, -np.pi / 2)])
    action = np.array([[0.0], [0.0], [1.0], [0.0]])
    # Upright; hanging 2 m off; upright at 5 rad/s under the farthest target; level and then up,
    # 1/√2 m off the point, so 0.01 ** (0.5 / 4).
    wanted = [1.0, 0.01, 0.9 * 0.95, 0.01**0.125]
    np.testing.assert_allclose(acrobot.reward(obs, action, obs), wanted, atol=1e-5)


def test_success_is_upright_and_slow():
    assert acrobot.success(seen(0.1, -0.2, 0.5, -0.5))
    assert not acrobot.success(seen(0.1, -0.2, 0.5, -1.5))
    assert not acrobot.success(seen(0.6, -0.6))
    assert not acrobot.success(seen(np.pi, 0))
