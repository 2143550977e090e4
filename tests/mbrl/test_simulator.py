"""The simulator as a model: the numbers of the environment, in batches."""

import dataclasses

import mujoco
import numpy as np
import pytest
import torch

import envs
from envs.gymnasium_tasks import DESCRIBED
from envs.mujoco_env import get_state
from mbrl.dynamics import Randomisation, Simulator
from mbrl.imagination import rollout, score_fn
from mbrl.types import Dynamics, NativeDynamics
from planners import ICEM

CARTPOLE = envs.TASKS["cartpole-swingup"]
EXACT = 1e-9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def calm(name):
    """The task without gusts and without a goal that changes within the horizon."""
    return dataclasses.replace(envs.simulated(name), process_noise=(), goal_steps=0)


def started(name, steps, seed=0):
    """An environment some random steps into an episode, and a stream for more actions."""
    env, rng = envs.make(name), np.random.default_rng(seed)
    if name in envs.TASKS:
        env = envs.MujocoEnv(calm(name))
    env.reset(seed=seed)
    for _ in range(steps):
        env.step(uniform(env, rng))
    return env, rng


def uniform(env, rng):
    return rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)


def physics_state(env):
    return torch.from_numpy(get_state(env.unwrapped.model, env.unwrapped.data))


def some_state(sim, seed=0):
    qpos, qvel = sim.task.initial(np.random.default_rng(seed))
    return sim.state(qpos, qvel)


@pytest.mark.parametrize("name", [*envs.TASKS, *DESCRIBED])
@pytest.mark.parametrize("steps, horizon", [(0, 12), (9, 5)])
def test_the_simulator_equals_the_environment(name, steps, horizon):
    env, rng = started(name, steps, seed=steps)
    sim = Simulator(calm(name))
    start = physics_state(env)
    actions = torch.from_numpy(
        np.array([[uniform(env, rng) for _ in range(horizon)] for _ in range(3)])
    )
    native = sim.unroll(start, actions)
    ended = native.terminated
    state = start[None, None]
    for t in range(horizon):
        obs, reward, terminated, *_ = env.step(actions[1, t].numpy())
        step = sim.step(state, actions[1, t][None, None], noise=None)
        state = step.state
        assert np.abs(state[0, 0].numpy() - physics_state(env).numpy()).max() <= EXACT
        assert abs(float(step.reward) - reward) <= EXACT
        assert abs(float(native.reward[0, 1, t]) - reward) <= EXACT
        assert bool(step.terminated) == terminated
        assert (False if ended is None else bool(ended[0, 1, t])) == terminated
        if name in envs.TASKS:
            assert np.abs(sim.decode(state)[0, 0].numpy() - obs).max() <= EXACT
        if terminated:
            break
    assert native.finite is None


def test_results_do_not_depend_on_the_number_of_threads():
    actions = 2 * torch.rand(24, 15, 6, generator=seeded()) - 1
    found = []
    for threads in (1, 2, 3):
        sim = Simulator(envs.TASKS["half-cheetah"], threads=threads)
        found.append(sim.unroll(some_state(sim), actions).reward)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_every_model_satisfies_the_protocol():
    sim = Simulator(CARTPOLE)
    assert isinstance(sim, Dynamics) and isinstance(sim, NativeDynamics)
    assert sim.members == 1 and sim.noise_shape == (0,)
    assert sim.control_step == pytest.approx(0.04)
    assert some_state(sim).shape == (sim.state_size,)


def test_native_and_stepwise_scores_agree():
    sim = Simulator(CARTPOLE)
    actions = 2 * torch.rand(7, 12, 1, generator=seeded()) - 1
    state = some_state(sim)
    settings = {"particles": 1, "horizon": 12, "discount": 0.9}
    native = score_fn(sim, state, **settings, generator=seeded())(actions)
    imagined = rollout(sim, state, actions, particles=1, generator=seeded())
    assert native.numpy() == pytest.approx(imagined.returns(0.9)[0].numpy(), abs=1e-6)


def test_rewards_stop_at_termination():
    name = "InvertedPendulum-v5"
    sim = Simulator(DESCRIBED[name])
    state = sim.state(np.array([0.0, 0.19]), np.array([0.0, 1.0]))
    actions = torch.zeros(1, 20, 1)
    out = sim.unroll(state, actions)
    assert out.terminated is not None
    alive = int(out.terminated[0, 0].to(torch.int).argmax())
    score = score_fn(sim, state, particles=1, horizon=20, generator=seeded())(actions)
    assert alive < 10 and float(score) == alive  # the step that falls has no reward


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_a_terminal_weight_counts_the_last_reward_more(discount):
    """Both natively and step by step, as with `ts1`."""
    sim, actions = Simulator(CARTPOLE), torch.ones(1, 6, 1)
    state = some_state(sim)
    rewards = sim.unroll(state, actions).reward[0, 0].double()
    wanted = (rewards * discount ** torch.arange(6)).sum() + 3 * discount**5 * rewards[-1]
    for propagation in ("tsinf", "ts1"):
        score = score_fn(
            sim,
            state,
            particles=1,
            propagation=propagation,
            horizon=6,
            discount=discount,
            terminal=3.0,
            generator=seeded(),
        )
        assert float(score(actions)) == pytest.approx(float(wanted), rel=1e-6)


def test_given_rewards_and_terminations_replace_those_of_the_task():
    sim = Simulator(CARTPOLE)
    score = score_fn(
        sim,
        some_state(sim),
        particles=1,
        horizon=5,
        reward=lambda obs, action, next_obs: action[..., 0] * 2,
        terminated=lambda next_obs: next_obs[..., 0] > 1e9,
        generator=seeded(),
    )
    assert score(torch.full((1, 5, 1), 0.5)).tolist() == pytest.approx([5.0])


def test_a_termination_set_on_the_model_is_used():
    sim = Simulator(CARTPOLE)
    assert sim.unroll(some_state(sim), torch.zeros(1, 4, 1)).terminated is None
    sim.terminated = lambda next_obs: next_obs[..., 0] > -1e9
    assert sim.unroll(some_state(sim), torch.zeros(1, 4, 1)).terminated.all()


def test_gusts_are_drawn_once_for_all_candidates():
    sim = Simulator(envs.TASKS["cartpole-swingup-noisy"])
    state, actions = some_state(sim), torch.zeros(3, 10, 1)
    noisy = score_fn(sim, state, particles=4, horizon=10, generator=seeded())(actions)
    assert len(set(noisy.tolist())) == 1
    other = score_fn(sim, state, particles=4, horizon=10, generator=seeded(1))(actions)
    calm = score_fn(
        sim, state, particles=1, propagation="expectation", horizon=10, generator=seeded()
    )(actions)
    assert noisy[0] != other[0] and noisy[0] != calm[0]


def test_gusts_of_the_environment_do_not_continue_in_the_model():
    env = envs.make("cartpole-swingup-noisy")
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    sim = Simulator(envs.TASKS["cartpole-swingup-noisy"])
    gone = physics_state(env)
    still = sim.state(env.unwrapped.data.qpos, env.unwrapped.data.qvel)
    actions = torch.zeros(1, 5, 1)
    assert torch.equal(sim.unroll(gone, actions).reward, sim.unroll(still, actions).reward)
    ahead = [sim.step(s[None, None], actions[:, :1], noise=None).reward for s in (gone, still)]
    assert torch.equal(*ahead)


def test_members_are_randomised_robots_and_the_first_is_the_tasks():
    sim = Simulator(CARTPOLE, members=4, rng=np.random.default_rng(0))
    actions = 2 * torch.rand(5, 20, 1, generator=seeded()) - 1
    state = some_state(sim)
    rewards = sim.unroll(state, actions, particles=4).reward
    assert torch.equal(rewards[:1], Simulator(CARTPOLE).unroll(state, actions).reward)
    assert all(not torch.equal(rewards[0], other) for other in rewards[1:])
    twice = sim.unroll(state, actions, particles=8).reward
    assert torch.equal(twice[::2], rewards) and torch.equal(twice[1::2], rewards)
    step = sim.step(state.expand(4, 5, -1), actions[:, 0].expand(4, 5, 1), noise=None)
    assert torch.equal(step.reward, rewards[:, :, 0])


def test_randomised_masses_have_the_given_spread():
    model, rng = CARTPOLE.compile(), np.random.default_rng(0)
    drawn = [Randomisation(mass=0.2, friction=0.0, gain=0.0).draw(model, rng) for _ in range(300)]
    spread = np.log([m.body_mass[1] / model.body_mass[1] for m in drawn])
    assert np.std(spread) == pytest.approx(0.2, rel=0.15)
    assert all(np.array_equal(m.actuator_gainprm, model.actuator_gainprm) for m in drawn)
    weights = [m.body_subtreemass[0] for m in drawn]
    assert np.std(weights) > 0, "constants that follow from masses follow"


LIMB = """<mujoco><worldbody>
<body><joint name="b" type="ball"/><geom type="capsule" size=".03" fromto="0 0 0 .3 0 0"/></body>
<body name="limb" pos="1 0 0"><joint name="h" axis="0 1 0" range="-60 60"/>
<geom type="capsule" size=".03" fromto="0 0 0 .3 0 0"/><site name="s" pos=".15 0 .03"/></body>
<site name="a" pos=".8 0 .1"/></worldbody>
<tendon><spatial name="t"><site site="a"/><site site="s"/></spatial></tendon>
<actuator>{}</actuator></mujoco>"""
ACTUATORS = {
    "motor": '<motor joint="h" ctrlrange="-1 1" gear="3"/>',
    "position": '<position joint="h" kp="5" dampratio="1" ctrlrange="-1 1"/>',
    "velocity": '<velocity joint="h" kv="2" ctrlrange="-1 1"/>',
    "intvelocity": '<intvelocity joint="h" kp="3" actrange="-1 1" ctrlrange="-1 1"/>',
    "damper": '<damper joint="h" kv="2" ctrlrange="0 1"/>',
    "cylinder": '<cylinder joint="h" area="2" bias="1 2 3" timeconst=".1" ctrlrange="-1 1"/>',
    "adhesion": '<adhesion body="limb" gain="2" ctrlrange="0 1"/>',
    "muscle": '<muscle tendon="t" force="50" ctrlrange="0 1"/>',
    "muscle without force": '<muscle tendon="t" ctrlrange="0 1"/>',
    "dcmotor": '<dcmotor joint="h" motorconst="0.5" resistance="2" ctrlrange="-1 1"/>',
    "pid": '<pid joint="h" kp="5" kv="1" ki="2" ctrlrange="-1 1" velrange="-1 1"/>',
    "orientation": '<orientation joint="b" input="quat" kp="1" dampratio="1" ctrlrange="-1 1"/>',
}


def limb(folder, *actuators):
    """A task of a limb with these actuators."""
    path = folder / "limb.xml"
    path.write_text(LIMB.format("".join(actuators)))
    return dataclasses.replace(
        CARTPOLE,
        mjcf=path,
        prepare=None,
        observation=lambda physics: np.concatenate([physics.qpos, physics.qvel], -1),
        reward=lambda obs, action, next_obs: next_obs[..., 0],
        initial=lambda rng: (np.array([1.0, 0, 0, 0, rng.uniform(-0.3, 0.3)]), np.zeros(4)),
    )


def forces(model, seed):
    """MuJoCo's actuator forces in a random state with random controls."""
    rng, data = np.random.default_rng(seed), mujoco.MjData(model)
    data.qpos[-1], data.qvel[:] = rng.uniform(-0.5, 0.5), rng.uniform(-1, 1, model.nv)
    data.ctrl[:], data.act[:] = rng.uniform(0, 1, model.nu), rng.uniform(0, 1, model.na)
    mujoco.mj_forward(model, data)
    return data.actuator_force.copy()


@pytest.mark.parametrize("kind", ACTUATORS)
def test_a_gain_scales_the_force_of_every_kind_of_actuator(kind, tmp_path):
    """By the next factor of the generator, for any state and any masses."""
    model = limb(tmp_path, ACTUATORS[kind]).compile()
    for mass in (0.0, 0.5):
        rng, same = np.random.default_rng(3), np.random.default_rng(3)
        spread = Randomisation(mass=mass, friction=0.0, gain=0.3)
        drawn = spread.draw(model, rng)
        same.standard_normal(model.nbody + model.ngeom + model.nv)
        factor = np.exp(0.3 * same.standard_normal())
        for seed in range(5):
            np.testing.assert_allclose(forces(drawn, seed), factor * forces(model, seed), rtol=1e-9)


def test_gains_scale_actuators_with_several_inputs(tmp_path):
    """MuJoCo 4 has actuators with several controls, also before and after others."""
    motor, quat = ACTUATORS["motor"], ACTUATORS["orientation"]
    task = limb(tmp_path, motor, quat, motor.replace("-1 1", "-2 2"))
    sim = Simulator(task, members=3, rng=np.random.default_rng(0))
    assert sim.model.nu == 6
    env = envs.MujocoEnv(task)
    assert env.action_space.shape == (6,)
    env.reset(seed=0)
    actions = 2 * torch.rand(2, 4, 6, generator=seeded()) - 1
    start = physics_state(env)
    out = sim.unroll(start, actions, particles=3)
    for t in range(4):
        _, reward, *_ = env.step(actions[1, t].numpy())
        assert float(out.reward[0, 1, t]) == pytest.approx(reward, abs=EXACT)
    assert env.data.ctrl[-1] == pytest.approx(2 * float(actions[1, -1, -1]))


def test_inputs_without_a_range_are_refused_by_name(tmp_path):
    text = '<pid name="p" joint="h" kp="5" kv="1" input="pos vel ff" ctrlrange="-1 1"/>'
    with pytest.raises(ValueError, match=r"p \(input 2 of 3\), p \(input 3 of 3\)") as error:
        limb(tmp_path, ACTUATORS["motor"], text).compile()
    assert "\n" not in str(error.value)


def test_a_gain_that_is_not_known_is_refused(tmp_path):
    task = limb(tmp_path, '<general name="own" joint="h" gaintype="user" ctrlrange="-1 1"/>')
    model, rng = task.compile(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="actuator own .* set gain to 0"):
        Randomisation().draw(model, rng)
    assert Randomisation(gain=0.0).draw(model, rng).nu == 1


def test_objectives_reduce_over_members():
    sim = Simulator(CARTPOLE, members=5, rng=np.random.default_rng(0))
    actions, state = torch.ones(2, 20, 1), some_state(sim)
    returns = sim.unroll(state, actions, particles=5).reward.sum(-1)
    for objective, expected in (("worst", returns.amin(0)), ("mean", returns.mean(0))):
        score = score_fn(
            sim, state, particles=5, objective=objective, horizon=20, generator=seeded()
        )
        assert score(actions).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_plans_made_over_members_are_better_on_unseen_robots():
    """From a leaning pole, over 100 new carts with other masses and motors."""
    far, box = Randomisation(mass=0.3, friction=0.3, gain=0.3), torch.ones(1)
    fresh = Simulator(CARTPOLE, members=101, randomisation=far, rng=np.random.default_rng(99))
    start = fresh.state(np.array([0.0, 0.3]), np.zeros(2))

    def outcome(members, objective):
        returns = []
        for seed in range(2):
            rng = np.random.default_rng(seed)
            sim = Simulator(CARTPOLE, members=members, randomisation=far, rng=rng)
            score = score_fn(
                sim, start, particles=members, objective=objective, horizon=25, generator=seeded()
            )
            planner = ICEM(-box, box, 25, population=48, iterations=5, elites=6)
            plan = planner.plan(score, None, generator=seeded(seed))
            played = fresh.unroll(start, plan.actions[None], particles=101)
            returns.append(played.reward.sum(-1)[1:])
        return torch.stack(returns)

    nominal, robust, average = outcome(1, "mean"), outcome(16, "worst"), outcome(16, "mean")
    assert robust.amin(1).mean() > nominal.amin(1).mean() + 1.5
    assert average.mean() > nominal.mean() + 0.2


def exploding():
    """A cart whose simulation diverges under the full force of its motor."""

    def prepare(spec):
        spec.actuators[0].gear[0] = 1e12

    return dataclasses.replace(CARTPOLE, prepare=prepare)


def test_a_diverged_candidate_is_rejected_and_does_not_change_the_others():
    sim = Simulator(exploding())
    actions = torch.tensor([0.0, 1.0, 1e-12])[:, None, None].expand(3, 20, 1)
    out = sim.unroll(some_state(sim), actions)
    assert out.finite is not None and out.finite.tolist() == [[True, False, True]]
    score = score_fn(sim, some_state(sim), particles=1, horizon=20, generator=seeded())(actions)
    assert score[1] == -torch.inf and torch.isfinite(score[[0, 2]]).all()
    still = sim.unroll(some_state(sim), actions[:1])
    assert torch.equal(still.reward[:, 0], out.reward[:, 0])
    for _ in range(5):
        step = sim.step(some_state(sim).expand(1, 3, -1), actions[None, :, 0], noise=None)
    assert torch.isnan(step.state[0, 1]).all() and torch.isfinite(step.state[0, ::2]).all()


def test_traces_follow_sensors():
    sim = Simulator(envs.TASKS["arm-pusher"])
    actions = torch.zeros(2, 4, 7)
    paths = sim.trace(some_state(sim), actions, ["tips_arm"])
    assert paths["tips_arm"].shape == (2, 5, 3)
    state, obs = some_state(sim)[None, None], []
    for _ in range(4):
        state = sim.step(state, actions[:1, :1], noise=None).state
        obs.append(sim.decode(state)[0, 0, 14:17].numpy())
    assert paths["tips_arm"][0, 1:] == pytest.approx(np.array(obs), abs=1e-6)
    with pytest.raises(ValueError, match="no sensor 'nose'; there are tips_arm, object"):
        sim.trace(some_state(sim), actions, ["nose"])


def test_a_planning_model_must_have_the_same_state_and_control_step():
    def coarse(spec):
        spec.option.timestep *= 2

    good = dataclasses.replace(CARTPOLE, planning=envs.Planning(coarse, 2))
    assert Simulator(good, planning=True).model.opt.timestep == pytest.approx(0.02)
    assert Simulator(good).model.opt.timestep == pytest.approx(0.01)
    bad = dataclasses.replace(CARTPOLE, planning=envs.Planning(coarse, 4))
    with pytest.raises(ValueError, match="same state and control step.*0.04 and 0.08 s"):
        Simulator(bad, planning=True)

    def fatter(spec):
        body = spec.worldbody.add_body(mass=1.0, inertia=[1, 1, 1], explicitinertial=True)
        body.add_freejoint()

    other = dataclasses.replace(CARTPOLE, planning=envs.Planning(fatter, 4))
    with pytest.raises(ValueError, match="same state and control step"):
        Simulator(other, planning=True)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
        ({"members": 0}, "members must be an integer of at least 1, got 0"),
        ({"members": 2}, "2 members need a rng"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Simulator(CARTPOLE, **settings)


def test_wrong_shapes_are_refused_by_name():
    sim = Simulator(CARTPOLE)
    state, actions = some_state(sim), torch.zeros(2, 3, 1)
    with pytest.raises(ValueError, match=r"actions \(N, H, 1\), got .*\(2, 3, 2\)"):
        sim.unroll(state, torch.zeros(2, 3, 2))
    with pytest.raises(ValueError, match=rf"state must be \({sim.state_size},\)"):
        sim.unroll(state[1:], actions)
    with pytest.raises(ValueError, match="particles must be a positive multiple of the 1 members"):
        sim.unroll(state, actions, particles=0)
    with pytest.raises(ValueError, match=r"state must be \(E, B, S\) with E = 1"):
        sim.step(state.expand(2, 3, -1), torch.zeros(2, 3, 1), noise=None)
    with pytest.raises(ValueError, match=r"qpos must be finite and of shape \(2,\), got \(3,\)"):
        sim.state(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="qvel must be finite"):
        sim.state(np.zeros(2), np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="whole physics, which an observation does not hold"):
        sim.encode(torch.zeros(5))
    with pytest.raises(ValueError, match="mass must be finite and >= 0"):
        Randomisation(mass=-1.0)
