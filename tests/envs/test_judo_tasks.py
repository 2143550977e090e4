"""judo's two tasks: physics and costs against hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs import MujocoEnv, cartpole_servo, cylinder_push


def test_cartpole_servo_costs_equal_hand_computed_values():
    upright, hanging, off = [0, 0, 1, 0, 0], [0, 0, -1, 0, 0], [0.3, 0.6, 0.8, 2, -1]
    obs = np.array([upright, hanging, off], dtype=float)
    action = np.array([[0.0], [1.0], [-0.5]])
    # Hanging: 10 (√(2² + 0.01²) - 0.01), and the target at 1.8 m: 0.05 · 1.8².
    # Off: 10 (√(0.2² + 0.01²) - 0.01) = 1.902498, 10 (√(0.3² + 0.1²) - 0.1) = 2.162278,
    # 0.05 (4 + 1), 0.05 · 0.9².
    cost = [0.0, 19.900250 + 0.162, 1.902498 + 2.162278 + 0.25 + 0.0405]
    np.testing.assert_allclose(-cartpole_servo.reward(obs, action, obs), cost, atol=1e-6)


def test_cylinder_push_costs_equal_hand_computed_values():
    obs = np.zeros((4, 8))
    obs[0, :4] = 2.25, 0, 2, 0  # just behind the cart at 2 m, only 0.05 · 4 remains
    obs[1, :4] = 0, 0, 0.3, 0.4  # the point behind the cart is (0.45, 0.6), 0.75 m away
    obs[2, :4] = 0.5, 0, 1e-5, 0  # touching at rest at the goal: 0.25 · 0.25²
    obs[3, :4] = 0.5, 0, 0, 0  # on the goal there is no point behind the cart
    cost = [0.2, 0.25 * 0.75**2 + 0.05 * 0.5**2, 0.015625, 0.25 * 0.5**2]
    np.testing.assert_allclose(-cylinder_push.reward(obs, obs[:, :2], obs), cost, atol=2e-6)


def test_weights_equal_those_of_judo():
    weights = {"vertical": 10.0, "centred": 10.0, "velocity": 0.1, "control": 0.1}
    assert cartpole_servo.TASK.weights == weights
    assert cylinder_push.TASK.weights == {"proximity": 0.5, "goal": 0.1}


@pytest.mark.parametrize(
    ("task", "qpos", "control", "position", "velocity"),
    # States of judo 0.1.0's models after twenty of their time steps, with MuJoCo 4.0.0.
    [
        (
            cartpole_servo.TASK,
            [0.4, 2.5],
            [-0.6],
            [-0.282718622617, 3.61418841748],
            [-1.017674001845, 1.24430183588],
        ),
        (
            cylinder_push.TASK,
            [0.95, 0.1, 0.5, 0.0],
            [-0.5, 0.1],
            [0.583945347498, 0.182749708849, 0.166773402671, -0.093342379462],
            [-1.467140062722, 0.311471930205, -1.046368793953, -0.392128399145],
        ),
    ],
    ids=["cartpole-servo", "cylinder-push"],
)
def test_models_move_as_those_of_judo(task, qpos, control, position, velocity):
    model = task.compile()
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = qpos, control
    mujoco.mj_step(model, data, nstep=20)
    np.testing.assert_allclose(data.qpos, position, atol=1e-9)
    np.testing.assert_allclose(data.qvel, velocity, atol=1e-9)


def test_control_ranges_and_rates_equal_those_of_judo():
    for task, reach in ((cartpole_servo.TASK, 1.8), (cylinder_push.TASK, 10.0)):
        assert (task.compile().actuator_ctrlrange == [-reach, reach]).all()
        env = MujocoEnv(task)
        assert env.metadata["render_fps"] == 25
        assert task.episode_steps * task.frame_skip * env.model.opt.timestep == pytest.approx(10)


def test_initial_states_have_the_distribution_of_judo():
    rng = np.random.default_rng(0)
    starts = np.array([np.concatenate(cartpole_servo.initial(rng)) for _ in range(4000)])
    np.testing.assert_allclose(starts.mean(0), [1, np.pi, 0, 0], atol=0.07)  # 4 standard errors
    np.testing.assert_allclose(starts.std(0), [1, 1, 0.1, 0.1], rtol=0.05)
    qpos = np.array([cylinder_push.initial(rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(np.hypot(qpos[:, 0], qpos[:, 1]), 1)
    np.testing.assert_allclose(np.hypot(qpos[:, 2], qpos[:, 3]), 2)
    np.testing.assert_allclose(qpos.mean(0), 0, atol=0.1)


def test_success_depends_on_the_distance_to_the_goal():
    upright = np.array([0.05, np.sin(0.05), np.cos(0.05), 0, 0])
    assert cartpole_servo.success(upright)
    assert not cartpole_servo.success(upright * [4, 1, 1, 1, 1])
    assert not cartpole_servo.success(upright * [1, -1, -1, 1, 1])
    near, far = np.zeros(8), np.zeros(8)
    near[2:4], far[2:4] = 0.03, 0.04
    assert cylinder_push.success(near) and not cylinder_push.success(far)


def test_discs_are_planned_as_spheres_within_millimetres():
    """After a second of off-centre pushing the cart has moved 0.7 m; the models differ by 4 mm."""
    found = []
    for planning in (False, True):
        model = cylinder_push.TASK.compile(planning=planning)
        data = mujoco.MjData(model)
        data.qpos[:], data.ctrl[:] = [0.98, 0.1, 0.5, 0.0], [-0.5, 0.1]
        mujoco.mj_step(model, data, nstep=50)
        found.append(data.qpos.copy())
    true, planned = found
    assert np.linalg.norm(true[2:] - [0.5, 0]) > 0.5
    assert np.linalg.norm(true - planned) < 5e-3
