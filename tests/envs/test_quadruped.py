"""The Go1 and its tasks against the robot's data and hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs import MujocoEnv, Task, go1, quadruped_standup, quadruped_walk

TASKS = (quadruped_walk.TASK, quadruped_standup.TASK)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return quadruped_walk.TASK.compile()


def settled(task: Task) -> MujocoEnv:
    """The state after a second of standing with action 0."""
    env = MujocoEnv(task)
    env.reset(seed=0)
    env.data.qpos[:] = go1.pose(0.29, 0.0, 0.0, np.array(go1.STANDING))
    for _ in range(50):
        env.step(np.zeros(12, np.float32))
    return env


def standing(task: Task) -> np.ndarray:
    """The observation of a robot at rest, upright, in the pose, 0.28 m up, 3 m from the flag."""
    obs = np.zeros(34 if task is quadruped_standup.TASK else 37)
    obs[go1.HEIGHT], obs[3] = 0.28, 1.0
    obs[go1.JOINTS] = go1.STANDING
    obs[34:] = [3.0, 0.0, -0.28][: len(obs) - 34]
    return obs


def test_masses_and_limits_equal_those_of_the_robot(model):
    assert model.body("trunk").mass[0] == 5.204
    for leg in ("FR", "FL", "RR", "RL"):
        parts = [model.body(f"{leg} {part}").mass[0] for part in ("hip", "thigh", "calf")]
        assert parts == [0.68, 1.009, 0.195862]
        ranges = [model.joint(f"{leg} {part}").range for part in ("hip", "thigh", "calf")]
        np.testing.assert_array_equal(ranges, [[-0.863, 0.863], [-0.686, 4.501], [-2.818, -0.888]])
    assert model.body_mass.sum() == pytest.approx(5.204 + 4 * 1.884862)  # visual geoms have no mass
    np.testing.assert_array_equal(model.actuator_forcerange[:, 1], [23.7, 23.7, 35.55] * 4)


def test_reflected_inertia_is_the_rotors_times_the_gear_ratio_squared(model):
    ratio = np.array([6, 6, 9] * 4)
    np.testing.assert_allclose(model.dof_armature[6:], 1.11842e-4 * ratio**2, rtol=1e-5)


def test_legs_have_the_lengths_of_the_robot(model):
    """Hips at ±0.1881, ±0.04675 m, thighs 0.08 m further out, then 0.213 m and 0.213 m."""
    data = mujoco.MjData(model)
    data.qpos[:] = go1.pose(1.0, 0.0, 0.0, np.zeros(12))
    mujoco.mj_kinematics(model, data)
    feet = [data.geom(f"{leg} foot").xpos for leg in ("FR", "FL", "RR", "RL")]
    x, y = 0.1881, 0.12675
    np.testing.assert_allclose(
        feet, [[x, -y, 0.574], [x, y, 0.574], [-x, -y, 0.574], [-x, y, 0.574]], atol=1e-9
    )


def test_left_and_right_have_equal_masses(model):
    data = mujoco.MjData(model)
    data.qpos[:] = go1.pose(0.3, 0.0, 0.0, np.array(go1.STANDING))
    mujoco.mj_fwdPosition(model, data)
    for end in ("F", "R"):
        right, left = (
            np.mean([data.body(f"{end}{side} {part}").xipos for part in ("hip", "thigh")], axis=0)
            for side in "RL"
        )
        np.testing.assert_allclose(right * [1, -1, 1], left, atol=1e-9)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_the_model_has_only_primitives_and_a_small_file(task):
    assert task.compile().nmesh == 0
    assert go1.MJCF.stat().st_size < 50_000
    assert "Unitree Robotics" in go1.MJCF.with_suffix(".LICENSE").read_text()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_action_zero_stands_still_on_four_feet(task):
    env = settled(task)
    assert env.data.qpos[2] == pytest.approx(0.277, abs=0.003)  # the servos sag by 1 cm
    assert np.abs(env.data.qvel).max() < 0.02
    assert env.data.ncon == 4
    force = np.zeros(6)
    carried = 0.0
    for i in range(4):
        mujoco.mj_contactForce(env.model, env.data, i, force)
        carried += force[0]
    assert carried == pytest.approx(9.81 * 12.743448, rel=0.01)


def test_observations_are_in_the_frame_of_the_trunk():
    """The robot faces and walks along y, so a flag 2 m along x is to its right."""
    env = MujocoEnv(quadruped_walk.TASK)
    env.reset(seed=0)
    env.data.qpos[:] = go1.pose(0.3, 0.0, np.pi / 2, np.array(go1.STANDING))
    env.data.qvel[:] = [0.1, 0.7, 0, 0, 0, 0.5, *np.zeros(12)]
    env.data.mocap_pos[:] = [[2.0, 0.0, 0.0]]
    mujoco.mj_forward(env.model, env.data)
    obs = quadruped_walk.observation(env._physics)
    np.testing.assert_allclose(obs[[go1.HEIGHT]], [0.3])
    np.testing.assert_allclose(obs[go1.UP], [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(obs[go1.VELOCITY], [0.7, -0.1, 0], atol=1e-9)
    np.testing.assert_allclose(obs[go1.SPIN], [0, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(obs[quadruped_walk.GOAL], [0, -2, -0.3], atol=1e-9)
    # Rolled by a right angle, the world's up is along y.
    env.data.qpos[:] = go1.pose(0.3, np.pi / 2, 0.0, np.array(go1.STANDING))
    mujoco.mj_forward(env.model, env.data)
    np.testing.assert_allclose(
        quadruped_walk.observation(env._physics)[go1.UP], [0, 1, 0], atol=1e-9
    )


def test_walk_rewards_equal_hand_computed_values():
    obs, action = standing(quadruped_walk.TASK), np.zeros(12)
    paid = quadruped_walk.reward
    going = obs.copy()
    going[go1.VELOCITY] = [1.0, 0, 0]
    assert paid(obs, action, going) == pytest.approx(1.0, abs=1e-5)
    # Standing still is 1 m/s too slow, with a margin of 1.5 m/s.
    assert paid(obs, action, obs) == pytest.approx(1 - 0.9 / 1.5, abs=1e-5)
    assert paid(obs, np.full(12, 0.5), going) == pytest.approx(1 - 0.1 * 0.25, abs=1e-5)
    backwards = going.copy()
    backwards[34], backwards[go1.VELOCITY] = -3.0, [-1.0, 0, 0]
    assert paid(obs, action, backwards) == pytest.approx(0.5, abs=1e-5)
    # A quarter of a metre from the flag the target is half the speed; at the flag it is zero.
    near = going.copy()
    near[34], near[go1.VELOCITY] = 0.25, [0.5, 0, 0]
    assert paid(obs, action, near) == pytest.approx(1.0, abs=1e-5)
    over = obs.copy()
    over[34] = 0.0
    assert paid(obs, action, over) == pytest.approx(1.0, abs=1e-5)
    # Too low by the whole margin.
    low = going.copy()
    low[go1.HEIGHT] = 0.10
    assert paid(obs, action, low) == pytest.approx(0.1, abs=1e-5)
    assert paid(obs, action, going, speed=2.0) == pytest.approx(1 - 0.9 / 3, abs=1e-5)


def test_walk_succeeds_within_40_cm_of_the_flag_and_upright():
    near, far, fallen = (standing(quadruped_walk.TASK) for _ in range(3))
    near[34:36], far[34:36], fallen[34] = [0.3, 0.25], [0.3, 0.3], 0.1
    fallen[go1.UP] = [0, 0.8, 0.6]
    assert quadruped_walk.success(np.stack([near, far, fallen])).tolist() == [True, False, False]


def test_flags_are_two_to_three_metres_away_in_all_directions():
    rng = np.random.default_rng(0)
    flags = np.array([quadruped_walk.goal(rng)[0] for _ in range(400)])
    distance = np.linalg.norm(flags, axis=1)
    assert (distance > 2).all() and (distance < 3).all() and (flags[:, 2] == 0).all()
    angle = np.arctan2(flags[:, 1], flags[:, 0])
    assert (np.histogram(angle, 4, (-np.pi, np.pi))[0] > 60).all()


def test_standup_rewards_equal_hand_computed_values():
    obs, action = standing(quadruped_standup.TASK), np.zeros(12)
    paid = quadruped_standup.reward
    assert paid(obs, action, obs) == pytest.approx(1.0, abs=1e-5)
    assert paid(obs, np.ones(12), obs) == pytest.approx(0.7, abs=1e-5)
    moving = obs.copy()
    moving[go1.VELOCITY] = [0, 0.25, 0]
    assert paid(obs, action, moving) == pytest.approx(1 - 0.7 * 0.45, abs=1e-5)
    # On its side, 0.18 m up: half of upright, a fifth of that for its tilt, half a margin
    # too low; what it loses out of the pose is as the square of how far it stands.
    side = obs.copy()
    side[go1.UP], side[go1.HEIGHT] = [0, 1, 0], 0.18
    stands = 0.5 * 0.2 * (1 - 0.9 * 0.5)
    assert paid(obs, action, side) == pytest.approx(stands, abs=1e-5)
    side[go1.JOINTS] += 0.4
    assert paid(obs, action, side) == pytest.approx(stands * (1 - 0.5 * stands**2 * 0.45), abs=1e-5)


def test_standup_succeeds_if_the_robot_stands_still():
    still, fast, low, tilted = (standing(quadruped_standup.TASK) for _ in range(4))
    fast[go1.SPIN], low[go1.HEIGHT] = [1.0, 0, 0], 0.2
    tilted[go1.UP] = [0, np.sin(0.4), np.cos(0.4)]
    found = quadruped_standup.success(np.stack([still, fast, low, tilted]))
    assert found.tolist() == [True, False, False, False]
    env = settled(quadruped_standup.TASK)
    assert quadruped_standup.success(quadruped_standup.observation(env._physics))


def test_standup_starts_lying_and_stays_lying_without_control():
    for seed in range(5):
        env = MujocoEnv(quadruped_standup.TASK)
        env.reset(seed=seed)
        folded = (np.array(quadruped_standup.FOLDED) - go1.STANDING) / ([0.8, 1.2, 0.9] * 4)
        for _ in range(50):
            obs, *_ = env.step(folded.astype(np.float32))
        assert obs[go1.HEIGHT] < 0.2 and not quadruped_standup.success(obs)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_the_planning_model_moves_almost_as_the_true_one(task):
    """The trunk agrees to a centimetre over 0.2 s from standing, with new targets every 0.1 s."""
    models = task.compile(), task.compile(planning=True)
    rng = np.random.default_rng(0)
    off = []
    for _ in range(20):
        targets = np.array(go1.STANDING) + 0.15 * rng.standard_normal((2, 12))
        ends = []
        for model, steps in zip(models, (25, 10), strict=True):
            data = mujoco.MjData(model)
            data.qpos[:] = go1.pose(0.29, 0.0, 0.0, np.array(go1.STANDING))
            for target in targets:
                data.ctrl[:] = target
                mujoco.mj_step(model, data, nstep=steps)
            ends.append(data.qpos[:3].copy())
        off.append(np.linalg.norm(ends[0] - ends[1]))
    assert np.median(off) < 0.01
