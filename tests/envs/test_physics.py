"""Physics and rewards of the tasks against closed forms and hand-computed numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs import MujocoEnv, cartpole, half_cheetah, pendulum, pusher, reacher
from envs.suite import SUITE

G = 9.81


def period(model: mujoco.MjModel, qpos: list[float], joint: int, hanging: float) -> float:
    """Mean period of `qpos[joint]` about `hanging`, from upward crossings over 5 s."""
    model.opt.timestep = 1e-3
    model.opt.integrator = int(mujoco.mjtIntegrator.mjINT_RK4)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    angles = []
    for _ in range(5_000):
        mujoco.mj_step(model, data)
        angles.append(data.qpos[joint] - hanging)
    a = np.array(angles)
    up = np.flatnonzero((a[:-1] < 0) & (a[1:] >= 0))
    crossings = up + a[up] / (a[up] - a[up + 1])  # linear between two steps
    return float(np.diff(crossings).mean() * 1e-3)


def test_cartpole_small_swings_have_the_closed_form_period():
    # Rod of mass m and half length l on a free cart of mass M, linearised about hanging:
    # ω² = m g l / (4/3 m l² - (m l)² / (M + m)).
    m, big, half = 0.1, 1.0, 0.3
    omega = np.sqrt(m * G * half / (4 / 3 * m * half**2 - (m * half) ** 2 / (big + m)))
    found = period(cartpole.TASK.compile(), [0.0, np.pi - 0.01], 1, np.pi)
    assert found == pytest.approx(2 * np.pi / omega, rel=1e-4)  # 1.2247 s


def test_pendulum_small_swings_have_the_closed_form_period():
    found = period(pendulum.TASK.compile(), [np.pi - 0.01], 0, np.pi)
    assert found == pytest.approx(2 * np.pi * np.sqrt(2 / (3 * G)), rel=1e-4)


def test_cartpole_conserves_energy_and_momentum():
    model = cartpole.TASK.compile()
    model.opt.integrator = int(mujoco.mjtIntegrator.mjINT_RK4)
    model.opt.timestep = 2e-3
    model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    data = mujoco.MjData(model)
    data.qpos[1] = 0.5
    mujoco.mj_forward(model, data)
    assert data.energy.sum() == pytest.approx(0.1 * G * 0.3 * np.cos(0.5), rel=1e-9)
    start = data.energy.sum()
    for _ in range(1000):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    assert data.energy.sum() == pytest.approx(start, abs=1e-6)
    x, angle = data.qpos
    vx, omega = data.qvel
    assert 1.1 * vx + 0.1 * 0.3 * np.cos(angle) * omega == pytest.approx(0, abs=1e-6)
    assert 1.1 * x + 0.1 * 0.3 * (np.sin(angle) - np.sin(0.5)) == pytest.approx(0, abs=1e-6)


def test_cartpole_motor_gives_ten_newtons():
    env = MujocoEnv(cartpole.TASK)
    env.reset(seed=0)
    env.data.qpos[:], env.data.qvel[:] = [0, np.pi], 0
    env.step(np.array([1.0], np.float32))
    # Rod hanging straight down: a = F / (M + m - 3/4 m), to first order in the 0.04 s.
    assert env.data.qvel[0] == pytest.approx(10 / (1.1 - 0.075) * 0.04, rel=0.01)


def test_cartpole_stays_on_its_rail():
    env = MujocoEnv(cartpole.TASK)
    env.reset(seed=0)
    reach = 0.0
    for i in range(150):
        env.step(np.array([1.0 if i < 75 else -1.0], np.float32))
        reach = max(reach, abs(env.data.qpos[0]))
    assert 2.5 < reach < 2.65  # a soft stop


def test_cartpole_rewards_equal_hand_computed_values():
    up, down, off = [0, 0, 1, 0, 0], [0, 0, -1, 0, 0], [0.3, -0.5, np.sqrt(0.75), 9, 9]
    next_obs = np.array([up, down, off])
    action = np.array([[0.0], [1.0], [-0.5]])
    # Hanging: the tip is 1.2 m below, 1.44 / 0.36 = 4. Cart at 0.3 m leaning back by 30°: the tip
    # is above the centre, 0.6 (1 - cos 30°) = 0.0804 m too low.
    expected = [1.0, np.exp(-4) - 0.01, np.exp(-(0.0803847577**2) / 0.36) - 0.0025]
    np.testing.assert_allclose(cartpole.reward(next_obs, action, next_obs), expected, atol=1e-9)


def test_full_torque_cannot_lift_the_pendulum_in_one_swing():
    model = pendulum.TASK.compile()
    gravity = 1.0 * G * 0.5
    assert model.actuator_gear[0, 0] < 0.5 * gravity
    env = MujocoEnv(pendulum.TASK)
    env.reset(seed=0)
    heights = [env.step(np.array([1.0], np.float32))[0][1] for _ in range(60)]
    assert max(heights) < 0  # constant full torque does not lift it to the horizontal


def test_pendulum_rewards_equal_hand_computed_values():
    next_obs = np.array([[0, 1, 0], [1, 0, 3], [0, -1, 0]], dtype=float)
    expected = [1 - 0.01, np.exp(-2) - 0.01, np.exp(-4) - 0.01]
    np.testing.assert_allclose(pendulum.reward(next_obs, np.ones((3, 1)), next_obs), expected)


def test_reacher_kinematics_equal_those_of_the_model():
    model = reacher.TASK.compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(50):
        data.qpos[:] = rng.uniform(-3, 3, model.nq)
        mujoco.mj_kinematics(model, data)
        tip = np.array(reacher.finger_tip(data.qpos))
        np.testing.assert_allclose(tip, data.site("tip").xpos, atol=1e-12)
        np.testing.assert_allclose(data.body("target").xpos, data.qpos[7:], atol=1e-12)


def test_reacher_rewards_equal_hand_computed_values():
    # Stretched along x: 0.1 + 0.4 + 0.321 + 0.168 = 0.989 m; the target is PETS's mean place.
    obs = np.zeros(17)
    obs[14:] = [0, 0.25, 0]
    action = np.zeros(7)
    action[0] = 0.1  # 2 N·m
    expected = -(0.989**2 + 0.438**2) - 0.01 * 4
    assert reacher.reward(obs, action, obs) == pytest.approx(expected, rel=1e-12)


def test_pusher_rewards_equal_hand_computed_values():
    obs = np.zeros(20)
    obs[14:17] = [0.5, 0.1, -0.275]
    obs[17:20] = [0.6, -0.3, -0.275]
    action = np.full(7, 0.5)  # 1 N·m each
    expected = -1.25 * (0.15 + 0.25 + 0.048) - 0.5 * (0.1 + 0.4) - 0.1 * 7
    assert pusher.reward(obs, action, obs) == pytest.approx(expected, rel=1e-12)


def test_pusher_goal_and_sensors_equal_those_of_the_model():
    env = MujocoEnv(pusher.TASK)
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(env.data.body("goal").xpos, pusher.GOAL, atol=1e-12)
    np.testing.assert_allclose(obs[14:17], env.data.body("tips_arm").xpos, atol=1e-6)
    np.testing.assert_allclose(obs[17:20], env.data.body("object").xpos, atol=1e-6)


@pytest.mark.parametrize("name", sorted({**envs.TASKS, **SUITE}))
def test_contacts_are_as_firm_as_the_inertia_of_the_bodies(name):
    """MuJoCo scales a contact's stiffness by `body_invweight0`, which leaves out armature."""
    model = {**envs.TASKS, **SUITE}[name].compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for body in range(1, model.nbody):
        geoms = np.flatnonzero(model.geom_bodyid == body)
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
        accelerations = np.zeros_like(jacobian)
        mujoco.mj_solveM(model, data, accelerations, jacobian)
        inverse = np.trace(jacobian @ accelerations.T) / 3
        if (model.geom_contype | model.geom_conaffinity)[geoms].any() and inverse > 1e-12:
            ratio = model.body_invweight0[body, 0] / inverse
            # one on two slides gets 1 / mass in the third direction too, where it cannot move
            assert ratio == pytest.approx(1) or ratio == pytest.approx(1.5)


def test_the_cylinder_of_the_pusher_has_the_inertia_of_gymnasiums():
    """As mass in place of armature; under a force both move alike, out of the arm's reach."""
    speeds = []
    for model in (pusher.TASK.compile(), mujoco.MjModel.from_xml_path(str(pusher.MJCF))):
        data = mujoco.MjData(model)
        data.xfrc_applied[model.body("object").id, :2] = 0.1, -0.05  # N
        mujoco.mj_step(model, data, nstep=10)
        speeds.append(data.qvel[7:9].copy())
    np.testing.assert_allclose(*speeds, rtol=2e-4)  # gymnasium has 8 mg besides
    assert np.abs(speeds[0]).min() > 0.01  # m/s


@pytest.mark.parametrize(
    ("task", "reference"), [(half_cheetah.TASK, "HalfCheetah-v5"), (pusher.TASK, "Pusher-v5")]
)
def test_borrowed_models_move_as_gymnasiums_do(task, reference):
    """Colours and scenery change only the look of a model."""
    ours = MujocoEnv(task)
    theirs = gymnasium.make(reference).unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.set_state(ours.data.qpos, ours.data.qvel)  # pyright: ignore
    rng = np.random.default_rng(0)
    for _ in range(10):
        action = rng.uniform(-1, 1, ours.model.nu).astype(np.float32)
        ours.step(action)
        scale = theirs.action_space.high  # pyright: ignore
        theirs.do_simulation(action * scale, task.frame_skip)  # pyright: ignore
    np.testing.assert_allclose(ours.data.qpos, theirs.data.qpos, atol=1e-6)  # pyright: ignore
    np.testing.assert_allclose(ours.data.qvel, theirs.data.qvel, atol=1e-5)  # pyright: ignore


def test_half_cheetah_reward_is_its_forward_velocity():
    env = MujocoEnv(half_cheetah.TASK)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.full(6, 0.5, np.float32))
    assert reward == pytest.approx(env.data.qvel[0] - 0.1 * 6 * 0.25, abs=1e-6)


def test_gusts_have_the_stated_size_and_duration():
    task = envs.TASKS["cartpole-swingup-noisy"]
    env = MujocoEnv(task)
    env.reset(seed=0)
    forces = []
    for _ in range(400):
        env.step(np.zeros(1, np.float32))
        forces.append(env.data.qfrc_applied.copy())
        env.data.qpos[:], env.data.qvel[:] = [0, np.pi], 0
    forces = np.array(forces)
    assert forces[:, 0].std() == pytest.approx(2.0, rel=0.15)  # 4 standard errors
    assert abs(forces[:, 0].mean()) < 0.4
    assert (forces[:, 1] == 0).all()


def test_a_plan_made_once_fails_under_gusts():
    """Actions that balance the pole without noise do not balance it under gusts."""
    task, noisy = envs.TASKS["cartpole-swingup"], envs.TASKS["cartpole-swingup-noisy"]
    gain = np.array([-0.35, -4.2, 0.0, -0.55, -0.85])  # on (x, sin, cos, velocities)

    def run(which: envs.Task, plan: list[np.ndarray] | None) -> tuple[float, list[np.ndarray]]:
        env = MujocoEnv(which)
        env.reset(seed=1)
        env.data.qpos[:], env.data.qvel[:] = [0.1, 0.05], 0
        mujoco.mj_forward(env.model, env.data)
        obs = np.array([0.1, np.sin(0.05), np.cos(0.05), 0, 0])
        total, actions = 0.0, []
        for t in range(100):
            feedback = np.clip(-(gain @ obs), -1, 1)
            action = np.array([feedback], np.float32) if plan is None else plan[t]
            obs, reward, *_ = env.step(action)
            actions.append(action)
            if t >= 50:
                total += reward
        return total, actions

    clean, plan = run(task, None)
    closed, _ = run(noisy, None)
    opened, _ = run(noisy, plan)
    assert clean > 48  # of 50
    assert closed > 40
    assert opened < 20


def test_frames_render_for_any_order_of_imports():
    """MuJoCo chooses its OpenGL library at import, and `mbrl` imports it too."""
    pytest.importorskip("OpenGL.EGL", reason="no OpenGL")
    code = (
        "import mujoco, mbrl.dynamics, envs\n"
        "try:\n"
        "    env = envs.make('cartpole-swingup', render_mode='rgb_array')\n"
        "    env.reset(seed=0)\n"
        "    print(env.render().shape)\n"
        "except envs.RenderingUnavailable as error:\n"
        "    print('none', error)\n"
    )
    own = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=own, timeout=240
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("none"):
        pytest.skip(done.stdout)
    assert done.stdout.strip() == "(360, 640, 3)"
