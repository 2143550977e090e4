"""The Panda and its tasks against the robot's data and hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

import envs
from envs import MujocoEnv, panda, panda_pick, panda_push, panda_reach
from mbrl.dynamics import Simulator

DOWN = [1.0, 0.0, 0.0, 0.0]  # the cube's quaternion, lying flat


@pytest.fixture(scope="module")
def arm() -> mujoco.MjModel:
    return panda_pick.TASK.compile()


def test_masses_and_ranges_equal_those_of_the_robot(arm):
    masses = [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522]
    np.testing.assert_allclose([arm.body(f"link{i + 1}").mass[0] for i in range(7)], masses)
    assert arm.body("hand").mass[0] + 2 * arm.body("left finger").mass[0] == pytest.approx(0.76)
    low = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
    high = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
    np.testing.assert_allclose(arm.jnt_range[:7].T, [low, high])
    np.testing.assert_allclose(arm.jnt_actfrcrange[:7, 1], [87] * 4 + [12] * 3)


def test_lengths_equal_those_of_the_robot(arm):
    """At zero the arm is straight: 0.333 + 0.316 + 0.384 m up, and 0.107 + 0.1034 m down again."""
    data = mujoco.MjData(arm)
    mujoco.mj_kinematics(arm, data)
    np.testing.assert_allclose(data.site("grasp").xpos, [0.088, 0, 0.8226], atol=1e-6)
    data.qpos[3] = -np.pi / 2  # the elbow's offsets of 0.0825 m cancel only if it is straight
    mujoco.mj_kinematics(arm, data)
    elbow = np.array([0.0825, 0, 0.649])
    wrist = elbow + np.array([0.384, 0, 0.0825])
    np.testing.assert_allclose(data.body("link4").xpos, elbow, atol=1e-9)
    np.testing.assert_allclose(data.body("link5").xpos, wrist, atol=1e-9)


def test_in_the_ready_pose_the_hand_points_straight_down(arm):
    data = mujoco.MjData(arm)
    data.qpos[:7] = panda.READY
    mujoco.mj_kinematics(arm, data)
    np.testing.assert_allclose(data.site("grasp").xpos, [0.45, 0, 0.20], atol=1e-4)
    np.testing.assert_allclose(
        data.site("grasp").xmat.reshape(3, 3), np.diag([1, -1, -1]), atol=1e-3
    )


@pytest.mark.parametrize("task", [panda_reach.TASK, panda_push.TASK, panda_pick.TASK])
def test_the_model_has_only_primitives_and_a_small_file(task):
    model = task.compile()
    assert model.nmesh == 0
    assert sum(path.stat().st_size for path in panda.ASSETS.glob("panda*.xml")) < 50_000
    assert (panda.ASSETS / "panda.LICENSE").read_text().count("Apache License") >= 1


def test_the_arm_carries_its_own_weight():
    env = MujocoEnv(panda_reach.TASK)
    env.reset(seed=0)
    start = env.data.qpos.copy()
    for _ in range(25):
        env.step(np.zeros(7, np.float32))
    np.testing.assert_allclose(env.data.qpos, start, atol=1e-6)


def test_joints_move_at_the_commanded_velocity():
    env = MujocoEnv(panda_reach.TASK)
    env.reset(seed=0)
    action = np.array([0.5, 0, 0, 0, -0.5, 0, 1], np.float32)
    for _ in range(12):
        env.step(action)
    asked = action * [2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61]
    # 1 N·m·s/rad of friction against servos of 60 to 10: a tenth is lost at the wrist.
    np.testing.assert_allclose(env.data.qvel, asked, atol=0.3)


def test_the_hand_moves_to_the_commanded_place():
    env = MujocoEnv(panda_pick.TASK)
    env.reset(seed=0)
    centre, scale = (
        env.model.actuator_ctrlrange.mean(1),
        np.ptp(env.model.actuator_ctrlrange, 1) / 2,
    )
    target = np.array([0.40, 0.15, 0.30, 0, 0, 0.5, 0.01])
    for _ in range(75):
        env.step(((target - centre) / scale).astype(np.float32))
    data = env.data
    np.testing.assert_allclose(data.site("grasp").xpos, target[:3], atol=2e-3)
    np.testing.assert_allclose(data.qpos[7:9], 0.01, atol=1e-3)
    hand = data.site("grasp").xmat.reshape(3, 3)
    np.testing.assert_allclose(hand[:, 2], [0, 0, -1], atol=0.02)
    assert np.arctan2(-hand[1, 0], hand[0, 0]) == pytest.approx(0.5, abs=0.03)


def test_a_grasped_cube_stays_in_the_fingers():
    """After closing and lifting, the cube moves with the hand."""
    env = MujocoEnv(panda_pick.TASK)
    env.reset(seed=0)
    env.data.qpos[9:] = [0.45, 0, 0.02, *DOWN]
    centre, scale = (
        env.model.actuator_ctrlrange.mean(1),
        np.ptp(env.model.actuator_ctrlrange, 1) / 2,
    )

    def go(z: float, opening: float, steps: int) -> None:
        action = (np.array([0.45, 0, z, 0, 0, 0, opening]) - centre) / scale
        for _ in range(steps):
            env.step(action.astype(np.float32))

    go(0.02, 0.04, 50)
    go(0.02, 0.0, 15)
    go(0.30, 0.0, 85)
    np.testing.assert_allclose(env.data.qpos[9:12], env.data.site("grasp").xpos, atol=0.01)
    assert env.data.qpos[11] == pytest.approx(0.30, abs=0.01)


def test_reach_rewards_and_success_equal_hand_computed_values():
    obs = np.zeros((3, 20))
    obs[:, 17:] = [0.5, 0.1, 0.3]
    obs[:, 14:17] = obs[:, 17:] + [[0, 0, 0], [0.03, 0, 0.04], [0, 0.02, 0]]
    action = np.zeros((3, 7))
    action[2] = 0.5
    # 5 cm away halves it; 2 cm away and a quarter of the effort: 1 / 1.16 · (1 - 0.025).
    expected = [1, 0.5, 0.975 / 1.16]
    np.testing.assert_allclose(panda_reach.reward(obs, action, obs), expected)
    np.testing.assert_array_equal(panda_reach.TASK.success(obs), [True, False, True])


def test_the_reach_goal_changes_after_three_seconds():
    env = MujocoEnv(panda_reach.TASK)
    goals = [env.reset(seed=0)[0][17:]]
    for _ in range(80):
        goals.append(env.step(np.zeros(7, np.float32))[0][17:])
    moved = np.any(np.diff(goals, axis=0) != 0, axis=1)
    assert np.flatnonzero(moved).tolist() == [74]


def test_reach_goals_are_in_front_of_the_arm():
    rng = np.random.default_rng(0)
    goals = np.array([panda_reach.goal(rng)[0] for _ in range(200)])
    radius = np.hypot(goals[:, 0], goals[:, 1])
    assert radius.min() >= 0.40 and radius.max() <= 0.65 and goals[:, 0].min() > 0.2
    assert goals[:, 2].min() >= 0.15 and goals[:, 2].max() <= 0.60


def push_obs(cube: list[float], hand: list[float], goal: list[float]) -> np.ndarray:
    obs = np.zeros(33)
    obs[7:10], obs[10:14], obs[27:30], obs[30:33] = cube, DOWN, hand, goal
    return obs


def test_push_rewards_and_success_equal_hand_computed_values():
    # The goal lies 12 cm along -y: 5 cm of the way from it is y = 5 · 12 / 13 cm behind the cube.
    far = push_obs([0.5, 0, 0.02], [0.5, 0.05 * 12 / 13, 0.02], [0.5, -0.12, 0.02])
    there = push_obs([0.5, 0, 0.02], [0.5, 0, 0.07], [0.5, 0, 0.02])
    action = np.zeros(6)
    assert panda_push.reward(far, action, far) == pytest.approx(0.2 + 0.8 / (1 + 400 * 0.0144))
    assert panda_push.reward(there, action, there) == pytest.approx(0.2 * 0.5 + 0.8)
    action[3:5] = 1
    assert panda_push.reward(there, action, there) == pytest.approx(0.9 * 0.9)
    assert panda_push.TASK.success(there) and not panda_push.TASK.success(far)


def pick_obs(cube: list[float], hand: list[float], goal: list[float], opening: float) -> np.ndarray:
    obs = np.zeros(37)
    obs[7:9], obs[9:12], obs[12:16], obs[31:34], obs[34:37] = opening, cube, DOWN, hand, goal
    return obs


def test_pick_rewards_and_success_equal_hand_computed_values():
    goal, action = [0.5, 0, 0.25], np.zeros(7)
    held = pick_obs(goal, goal, goal, 0.02)
    under = pick_obs([0.5, 0, 0.15], [0.5, 0, 0.15], goal, 0.02)
    open_ = pick_obs([0.5, 0, 0.15], [0.5, 0.05, 0.15], goal, 0.04)
    assert panda_pick.reward(held, action, held) == pytest.approx(1)
    assert panda_pick.reward(under, action, under) == pytest.approx(0.2 + 0.1 + 0.7 / 3)
    assert panda_pick.reward(open_, action, open_) == pytest.approx(0.5 * (0.2 + 0.7 / 3))
    assert panda_pick.TASK.success(held) and not panda_pick.TASK.success(under)


@pytest.mark.parametrize("task", [panda_push.TASK, panda_pick.TASK])
def test_no_task_succeeds_in_its_first_state(task):
    env = envs.make(task.name)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        assert not task.success(obs)


def test_pick_goals_are_twenty_centimetres_up():
    rng = np.random.default_rng(0)
    assert min(panda_pick.goal(rng)[0, 2] for _ in range(200)) - 0.02 >= 0.20


@pytest.mark.parametrize("task", [panda_reach.TASK, panda_push.TASK, panda_pick.TASK])
def test_the_planning_model_moves_the_hand_as_the_true_one_does(task):
    """The difference is within 6 % of the way after 0.2 s of random actions."""
    rng = np.random.default_rng(0)
    true, planning = Simulator(task), Simulator(task, planning=True)
    start = true.state(*task.initial(rng), mocap_pos=task.goal(rng))
    actions = torch.tensor(np.clip(rng.normal(0, 0.5, (64, 1, true.model.nu)), -1, 1))
    path, other = (
        sim.trace(start, actions.expand(-1, 5, -1), ["hand"])["hand"] for sim in (true, planning)
    )
    way = np.linalg.norm(path[:, -1] - path[:, 0], axis=-1).mean()
    assert np.linalg.norm(path[:, -1] - other[:, -1], axis=-1).mean() < 0.06 * way
