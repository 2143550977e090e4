"""The control suite's tasks against dm_control: its numbers are in `data/suite.npz`.

`python -m experiments.peers.suite_data` writes that file by running dm_control on MuJoCo 3.17.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from scipy import ndimage

import envs
from envs.mujoco_env import get_state
from envs.suite import SuiteMissing, quadruped
from envs.tolerance import FALLOFFS, tolerance
from experiments.peers import suite_data
from mbrl.agents import Controller, MPCConfig, PlannerConfig
from mbrl.dynamics import Simulator
from mbrl.training import generator

NAMES = [*envs.SUITE]
EXACT = 1e-9
"""Relative to 1 plus the value; the largest difference is 1e-12, in forces on a foot."""
FLOAT32 = 1e-6
"""The environment computes rewards from float32 observations."""

ARRAYS = suite_data.read()


def theirs(name):
    """dm_control's arrays of a task, by key."""
    return ARRAYS[name.removeprefix("dmc-")]


def started(name, seed=0):
    env = envs.MujocoEnv(envs.SUITE[name])
    env.reset(seed=seed)
    return env


@pytest.mark.parametrize("name", NAMES)
def test_observations_motion_and_rewards_are_those_of_dm_control(name):
    arrays = theirs(name)
    assert len(set(arrays["reward"])) > 1, "otherwise the rewards show nothing"
    found = suite_data.differences(name, arrays)
    assert max(found.first, found.obs, found.motion) < EXACT and found.reward < FLOAT32


def test_the_comparison_sees_a_wrong_observation_and_a_wrong_step():
    """A hundredth of a radian, and a tenth of an action."""
    name = "dmc-walker-walk"
    for key, change in (("first", 0.01), ("action", 0.1)):
        arrays = {**theirs(name), key: theirs(name)[key] + change}
        found = suite_data.differences(name, arrays)
        assert found.first > 1e-3 if key == "first" else found.motion > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_control_steps_and_bounds_of_actions_are_those_of_dm_control(name):
    arrays, task = theirs(name), envs.SUITE[name]
    model = task.compile()
    assert model.opt.timestep * task.frame_skip == pytest.approx(arrays["control_step"])
    low, high = model.actuator_ctrlrange.T
    assert (low <= arrays["action"]).all() and (arrays["action"] <= high).all()
    assert envs.make(name).spec.max_episode_steps == 1000


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_distributed_as_those_of_dm_control(name):
    """Means and standard deviations of positions, velocities and goals over 150 starts.

    With 400 starts of dm_control the difference of two means has a standard error of 0.1 standard
    deviations; 0.5 are allowed.
    """
    arrays, env = theirs(name), started(name)
    found = {"qpos": [], "qvel": [], "goal": []}
    for seed in range(150):
        env.reset(seed=seed)
        found["qpos"].append(env.data.qpos.copy())
        found["qvel"].append(env.data.qvel.copy())
        goal = env.data.mocap_pos[:1].ravel().copy()
        if "wrap_prm" in arrays:
            turned = np.arctan2(*env.data.mocap_quat[:, [3, 0]].T) * 2
            goal = np.stack([np.cos(turned), np.sin(turned)], axis=-1).ravel()
        found["goal"].append(goal)
    target = next((k for k in ("wrap_prm", "geom_pos", "site_pos") if k in arrays), None)
    moved = target and env.model.nmocap
    keys = {"qpos": "qpos", "qvel": "qvel"} | ({"goal": target} if moved else {})
    for ours, key in keys.items():
        rows = np.array(found[ours])
        mean, std, low, high, size = arrays[f"starts/{key}"]
        room = 0.5 * std + 1e-9
        assert (abs(rows.mean(0) - mean) <= room).all()
        assert (abs(abs(rows).mean(0) - size) <= room).all()
        assert (abs(rows.std(0) - std) <= 0.4 * std + 1e-9).all()
        if not env.task.settle:  # falling spreads a few starts far out
            assert (rows.min(0) >= low - std - 1e-9).all()
            assert (rows.max(0) <= high + std + 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_tasks_keep_the_contract(name):
    envs.check_task(envs.SUITE[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_knows_state_observation_and_reward(name):
    """From a state within an episode; forces are compared where a step has evaluated them."""
    env, rng = started(name, seed=1), np.random.default_rng(1)
    size = env.action_space.shape
    for _ in range(5):
        env.step(rng.uniform(-1, 1, size))
    sim = Simulator(env.task)
    state = torch.from_numpy(get_state(env.model, env.data))
    actions = torch.from_numpy(rng.uniform(-1, 1, (3, 6, *size)))
    native, rows = sim.unroll(state, actions), state[None].numpy()
    for t in range(6):
        obs, reward, *_ = env.step(actions[1, t].numpy())
        rows, _, after = sim.observed_step(rows, actions[1, t][None].numpy())
        assert np.abs(rows[0] - get_state(env.model, env.data)).max() <= EXACT
        np.testing.assert_allclose(after[0, : len(obs)].astype(np.float32), obs, rtol=1e-6)
        assert float(native.reward[1 if native.reward.ndim == 2 else 0, ..., 1, t]) == reward
    assert sim.decode(torch.from_numpy(rows)).shape == (1, len(obs))
    assert native.terminated is None and native.finite is None


def test_terrains_are_dm_controls_formula_with_cubic_splines_between_the_bumps():
    """The spline by another routine of scipy, with ends that reflect as dm_control's do."""
    rng = np.random.default_rng(5)
    heights, bumps = quadruped.terrain(np.random.default_rng(5)), rng.uniform(0.15, 1, (30, 30))
    assert heights.shape == (201, 201) and heights.min() == 0
    at = np.array([60, 90, 100, 140, 170])
    places = np.stack(np.meshgrid(at, at, indexing="ij")) * 29 / 200
    factor = ndimage.map_coordinates(bumps, places, mode="mirror")
    away = np.hypot(*np.meshgrid(at / 100 - 1, at / 100 - 1)).clip(0.04, 1)
    wanted = 5 * (0.5 - np.cos(2 * np.pi * away) / 2) * factor
    np.testing.assert_allclose(heights[np.ix_(at, at)], wanted.clip(0), atol=1e-12)


def test_an_episode_draws_one_terrain_and_the_simulator_stands_on_the_same():
    """Rays down from 20 m meet the ground at the height of the drawn terrain."""
    env, chosen = started("dmc-quadruped-escape"), set()
    sim = Simulator(env.task)
    for seed in range(12):
        first, _ = env.reset(seed=seed)
        (index,) = np.flatnonzero(env.data.mocap_pos[:, 2] == -0.01)
        chosen.add(int(index))
        here = torch.from_numpy(get_state(env.model, env.data))
        np.testing.assert_allclose(sim.decode(here).numpy(), first, atol=1e-5)
        ground = quadruped.terrains()[index]
        for x, y in ((6.0, -3.0), (-12.0, 9.0)):
            start, hit = np.array([x, y, 20.0]), np.zeros(1, np.int32)
            met = mujoco.mj_ray(env.model, env.data, start, -np.eye(3)[2], None, 1, -1, hit)
            row, column = (round((at + 30) * 200 / 60) for at in (y, x))
            assert 20 - met == pytest.approx(ground[row, column] - 0.01, abs=1e-5)
    assert len(chosen) > 5


def test_other_seeds_give_other_terrains():
    first, second = quadruped.terrains(2, 0), quadruped.terrains(2, 1)
    assert all(np.abs(a - b).max() > 1 for a, b in zip(first, second, strict=True))
    env = envs.MujocoEnv(quadruped.escape_task(2, seed=1))
    env.reset(seed=0)
    assert env.data.mocap_pos.shape == (2, 3)


def test_plans_through_the_simulator_raise_the_return():
    """A short random-shooting plan swings the pole up, which random actions do not."""
    name = "dmc-cartpole-swingup"
    config = MPCConfig(PlannerConfig(horizon=25, population=24, iterations=2), action_repeat=4)
    planned, random = started(name), started(name)
    low, high = -torch.ones(1), torch.ones(1)
    controller = Controller(
        Simulator(planned.task),
        config.build(low, high),
        config,
        reward=None,
        terminated=None,
        state_of=lambda _: torch.from_numpy(get_state(planned.model, planned.data)),
        generator=generator(0, 1),
    )
    rng, returns = np.random.default_rng(0), np.zeros(2)
    for _ in range(250):
        action = controller.act(np.zeros(5))
        returns += planned.step(action)[1], random.step(rng.uniform(-1, 1, 1))[1]
    assert returns[0] > 100 and returns[1] < 20


def test_a_reward_that_needs_more_than_the_observation_is_not_offered_to_learners():
    assert envs.known("dmc-cheetah-run").reward is None
    assert "observation lacks" in envs.known("dmc-cheetah-run").why
    assert envs.known("dmc-cartpole-swingup").reward is not None
    assert envs.make("dmc-cheetah-run").observation_space.shape == (17,)


def test_the_features_enter_the_reward_only():
    """A cheetah is paid by the speed of its centre of mass, which it does not observe."""
    env = started("dmc-cheetah-run")
    env.data.qvel[0] = 5.0
    obs, reward, *_ = env.step(np.zeros(6))
    mujoco.mj_subtreeVel(env.model, env.data)
    assert reward == pytest.approx(env.data.subtree_linvel[1][0] / 10, abs=1e-6)
    assert len(obs) == 17


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    task = replace(envs.SUITE["dmc-walker-walk"], mjcf=Path("dm_control/suite/walker.xml"))
    with pytest.raises(SuiteMissing, match=r"^dmc-walker-walk: .*'rolloutlab\[suite\]'") as e:
        envs.MujocoEnv(task)
    assert "\n" not in str(e.value)


def test_dm_controls_python_is_never_imported():
    code = (
        "import sys, envs; envs.make('dmc-ball-in-cup-catch').reset(seed=0);"
        "assert 'dm_control' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("falloff", FALLOFFS)
def test_tolerances_are_those_of_dm_control(falloff):
    x = ARRAYS["tolerance"]["x"]
    edges, curves = ARRAYS["tolerance"]["edge"], ARRAYS["tolerance"][falloff]
    for edge, wanted in zip(edges, curves, strict=True):
        kept = {"margin": 0.8, "falloff": falloff, "edge": float(edge)}
        assert tolerance(x, -0.5, 0.7, **kept) == pytest.approx(wanted, abs=1e-12)
        assert tolerance(torch.from_numpy(x), -0.5, 0.7, **kept).numpy() == pytest.approx(wanted)


def test_a_tolerance_without_margin_is_one_or_zero_and_may_be_unbounded():
    x = np.array([-1.0, 0.0, 0.5, 1.0, 1.5])
    assert tolerance(x, 0.0, 1.0).tolist() == [0, 1, 1, 1, 0]
    assert tolerance(x, 0.5, np.inf).tolist() == [0, 0, 1, 1, 1]
    assert tolerance(x, 1.0, np.inf, margin=1.0, falloff="linear", edge=0.0).tolist() == [
        0, 0, 0.5, 1, 1,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="0 < edge < 1 for gaussian"):
        tolerance(x, margin=1.0, edge=0.0)
    with pytest.raises(ValueError, match="margin >= 0"):
        tolerance(x, margin=-1.0)


def test_a_termination_gets_the_observation_without_the_features():
    """In the environment and in the simulator, on a task with a feature."""

    def fallen(next_obs):
        assert next_obs.shape[-1] == 24
        return next_obs[..., 14] < 1.25

    task = replace(envs.SUITE["dmc-walker-walk"], terminated=fallen)
    env = envs.MujocoEnv(task)
    env.reset(seed=0)
    start = torch.from_numpy(get_state(env.model, env.data))
    actions, sim = torch.zeros(2, 8, 6), Simulator(task)
    native = sim.unroll(start, actions)
    step = sim.step(start[None, None], actions[None, :1, 0], noise=None)
    ends = [env.step(np.zeros(6))[2] for _ in range(8)]
    assert native.terminated[0, 1].tolist() == ends
    assert bool(step.terminated[0, 0]) == ends[0] and len(set(ends)) == 2
