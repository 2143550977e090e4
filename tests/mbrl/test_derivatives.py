"""A simulator's derivatives against MuJoCo's, and iLQR with them."""

import dataclasses

import mujoco
import numpy as np
import pytest
import torch

import envs
from mbrl.agents import Controller, MPCConfig, PlannerConfig
from mbrl.dynamics import Ensemble, EnsembleConfig, Simulator, SmoothSimulator
from mbrl.imagination import score_fn
from planners import ILQR, lqr

STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def smooth(name, seed=0, **settings):
    task = envs.TASKS[name]
    sim = Simulator(task)
    state = sim.state(*task.initial(np.random.default_rng(seed)))
    return sim, state, SmoothSimulator(sim, state, **settings)


def rolled(model, actions):
    states, cost = model.rollout(
        lambda t, states: actions[t].expand(len(states), -1), 1, len(actions)
    )
    return states[0], cost[0]


def some_actions(sim, horizon, scale=0.5):
    g = torch.Generator().manual_seed(0)
    return scale * (2 * torch.rand(horizon, sim.model.nu, generator=g, dtype=torch.float64) - 1)


@pytest.mark.parametrize("name", ["cartpole-swingup", "pendulum-swingup", "quadruped-walk"])
def test_derivatives_of_the_dynamics_are_mujocos_chained_over_substeps(name):
    """`mjd_transitionFD` differentiates one MuJoCo step; a control step is several."""
    sim, _, model = smooth(name)
    actions = some_actions(sim, 3, 0.2)
    states, _ = rolled(model, actions)
    found = model.expand(states, actions)
    m, data = sim.model, mujoco.MjData(sim.model)
    size = 2 * m.nv + m.na
    low, high = m.actuator_ctrlrange.T
    for t in range(3):
        mujoco.mj_setState(m, data, states[t].numpy(), STATE)
        data.ctrl[:] = (low + high) / 2 + (high - low) / 2 * actions[t].numpy()
        fx, fu = np.eye(size), np.zeros((size, m.nu))
        for _ in range(sim.frame_skip):
            a, b = np.zeros((size, size)), np.zeros((size, m.nu))
            mujoco.mjd_transitionFD(m, data, 1e-6, True, a, b, None, None)
            fx, fu = a @ fx, a @ fu + b
            mujoco.mj_step(m, data)
        fu = fu * (high - low) / 2
        # contacts are stiff: there both differences are accurate relative to the largest entry
        for mine, theirs in ((found.fx[t], fx), (found.fu[t], fu)):
            scale = max(1.0, np.abs(theirs).max())
            assert np.abs(mine.numpy() - theirs).max() <= 1e-3 * scale
            if name != "quadruped-walk":
                assert np.abs(mine.numpy() - theirs).max() <= 1e-7


@pytest.mark.parametrize("name", ["cartpole-swingup", "pendulum-swingup", "half-cheetah"])
def test_actions_on_a_bound_are_differentiated_inside_it(name):
    """Against one-sided differences of `mj_step`; MuJoCo clamps values outside the bounds."""
    sim, state, model = smooth(name)
    size, h = sim.model.nu, 1e-7
    signs = torch.from_numpy(np.where(np.arange(size) % 2, -1.0, 1.0))
    states, _ = rolled(model, signs[None])
    found = model.expand(states, signs[None])
    m, data = sim.model, mujoco.MjData(sim.model)
    low, high = m.actuator_ctrlrange.T

    def velocities(action):
        mujoco.mj_setState(m, data, state.numpy(), STATE)
        data.ctrl[:] = (low + high) / 2 + (high - low) / 2 * action
        mujoco.mj_step(m, data, nstep=sim.frame_skip)
        return data.qvel.copy()

    for i in range(size):
        inside = signs.numpy().copy()
        inside[i] *= 1 - h
        slope = (velocities(signs.numpy()) - velocities(inside)) / (h * float(signs[i]))
        mine = found.fu[0, m.nv : 2 * m.nv, i].numpy()
        assert np.abs(mine - slope).max() <= 1e-4 * np.abs(slope).max()
    # beyond the bound, where the control is constant, the derivative is zero
    beyond = model.expand(states, 1.5 * signs[None])
    assert beyond.fu[0, m.nv : 2 * m.nv].abs().max() == 0


def test_activations_on_a_bound_are_differentiated_inside_it():
    """An integrator at the end of its range: act' = act + dt u, which MuJoCo clamps."""

    def prepare(spec):
        motor = spec.actuators[0]
        motor.dyntype = mujoco.mjtDyn.mjDYN_INTEGRATOR
        motor.actlimited, motor.actrange = 1, [-0.5, 0.5]

    task = dataclasses.replace(envs.TASKS["cartpole-swingup"], prepare=prepare)
    sim = Simulator(task)
    model = sim.model
    place = 1 + model.nq + model.nv
    slopes = []
    for act in (0.3, 0.5, -0.5):
        state = sim.state(np.array([0.1, 0.2]), np.zeros(2))
        state[place] = act
        smooth_model = SmoothSimulator(sim, state)
        actions = torch.zeros(1, 1, dtype=torch.float64)
        states, _ = rolled(smooth_model, actions)
        slopes.append(smooth_model.expand(states, actions).fx[0, :, -1].numpy())
    assert slopes[0][-1] == pytest.approx(1.0, rel=1e-6)
    for slope in slopes[1:]:
        assert slope[-1] == pytest.approx(1.0, rel=1e-6)
        np.testing.assert_allclose(slope, slopes[0], rtol=1e-2, atol=1e-8)


def test_ilqr_does_not_stall_on_its_bounds():
    """Half of the actions end on a bound; with halved derivatives the search stopped at 10.8."""
    _, _, model = smooth("cartpole-swingup")
    box = torch.ones(1, dtype=torch.float64)
    plan = ILQR(-box, box, 40, iterations=60).plan(model, None, generator=torch.Generator())
    assert (plan.actions.abs() == 1).sum() > 10
    assert plan.score > 20


def test_gradients_of_the_cost_equal_minus_those_of_the_return():
    sim, state, model = smooth("cartpole-swingup", action_repeat=2)
    actions = some_actions(sim, 6)
    states, cost = rolled(model, actions)
    score = score_fn(sim, state, particles=1, horizon=12, generator=torch.Generator())
    assert float(cost) == pytest.approx(-float(score(actions.repeat_interleave(2, 0)[None])))
    found = model.expand(states, actions)
    slope = found.lx[-1]
    for t in reversed(range(6)):
        whole = found.lu[t] + found.fu[t].T @ slope
        slope = found.lx[t] + found.fx[t].T @ slope
        moved = actions.clone()
        moved[t] += 1e-3
        up = rolled(model, moved)[1]
        moved[t] -= 2e-3
        assert float(whole) == pytest.approx(float(up - rolled(model, moved)[1]) / 2e-3, abs=2e-4)


def linear_cart(**weights):
    """A cart on a rail without a pole: a double integrator, with a quadratic reward."""

    def prepare(spec):
        spec.delete(spec.body("pole"))
        spec.joints[0].range = [-1e3, 1e3]

    def observation(physics):
        return np.concatenate([physics.qpos, physics.qvel], -1)

    def reward(obs, action, next_obs):
        return -(next_obs[..., 0] ** 2 + 0.1 * next_obs[..., 1] ** 2 + 0.01 * action[..., 0] ** 2)

    return dataclasses.replace(
        envs.TASKS["cartpole-swingup"], prepare=prepare, observation=observation, reward=reward
    )


def test_ilqr_reaches_the_lqr_optimum_in_one_iteration():
    sim = Simulator(linear_cart())
    horizon, dt = 20, sim.control_step
    start = np.array([0.01, 0.0])
    model = SmoothSimulator(sim, sim.state(start[:1], start[1:]))
    box = torch.ones(1, dtype=torch.float64)
    plan = ILQR(-box, box, horizon, iterations=1).plan(model, None, generator=torch.Generator())
    # a force of 10 N on 1 kg, by MuJoCo's semi-implicit Euler over 4 substeps of dt / 4
    fx = np.array([[1.0, dt], [0.0, 1.0]])
    fu = 10 * np.array([[dt**2 * (1 + 1 / 4) / 2], [dt]])
    weight, effort = np.diag([1.0, 0.1]), np.array([[0.01]])
    # the reward is that of the next state, so its cost belongs to the state before
    law = lqr(
        fx,
        fu,
        np.concatenate([np.tile(2 * fx.T @ weight @ fx, (horizon, 1, 1)), np.zeros((1, 2, 2))]),
        2 * (effort + fu.T @ weight @ fu),
        lux=2 * fu.T @ weight @ fx,
        horizon=horizon,
    )
    x, best = start, []
    for t in range(horizon):
        best.append(law.gain[t] @ x + law.offset[t])
        x = fx @ x + fu @ best[-1]
    assert np.abs(plan.actions.numpy() - np.array(best)).max() < 1e-6


def test_ilqr_drives_a_robot():
    task = envs.TASKS["cartpole-swingup"]
    sim = Simulator(task)
    config = MPCConfig(PlannerConfig("ilqr", horizon=25, iterations=10))
    box = torch.ones(1)
    state = sim.state(np.array([0.0, 0.3]), np.zeros(2))
    controller = Controller(
        sim,
        config.build(-box, box),
        config,
        reward=None,
        terminated=None,
        state_of=lambda _: state,
        generator=torch.Generator(),
    )
    earned = []
    for _ in range(30):
        action = torch.as_tensor(controller.act(np.zeros(5)))
        step = sim.step(state[None, None], action[None, None], noise=None)
        state = step.state[0, 0]
        earned.append(float(step.reward))
    assert np.mean(earned[-5:]) > 0.97


def test_unsupported_requests_raise_an_error():
    several = Simulator(envs.TASKS["cartpole-swingup"], members=2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="a simulator of one member"):
        SmoothSimulator(several, torch.zeros(several.state_size))
    config, box = MPCConfig(PlannerConfig("ilqr")), torch.ones(1)
    net = Ensemble(5, 1, EnsembleConfig(hidden=(4,)), generator=torch.Generator())
    with pytest.raises(ValueError, match="^ILQR needs a model with deriv.* not a Ensemble$"):
        Controller(
            net,
            config.build(-box, box),
            config,
            reward=None,
            terminated=None,
            generator=torch.Generator(),
        )
