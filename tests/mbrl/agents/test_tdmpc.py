"""The agent of TD-MPC2: when it learns, how it plans, and which observations it takes."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import MPCConfig, PlannerConfig, tdmpc
from mbrl.agents.world_config import planning
from mbrl.agents.world_planning import WorldPlanning
from mbrl.encoders.configs import ImageConfig
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.types import Spec, Step, Transition
from planners import stationary_lqr

BOX = gymnasium.spaces.Box(-1, 1, (1,))
SPEC = Spec(gymnasium.spaces.Box(-np.inf, np.inf, (2,)), BOX, ends=False, episode_steps=8)
IMAGES = SPEC._replace(obs=gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8))
SMALL = TDMPCConfig(latent=8, group=4, hidden=(8,), encoder_hidden=(8,), horizon=2)
PLAN = planning(population=12, iterations=2, elites=4, proposals=3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(spec=SPEC, learner=SMALL, **settings):
    chosen = {"plan": PLAN, "random_steps": 10, "batch": 4, "log_every": 10} | settings
    config = tdmpc.Config(learner=learner, **chosen)
    return tdmpc.make(spec, config, generator=seeded())


def transition(count, last=False, spec=SPEC):
    obs = torch.as_tensor(np.stack([spec.obs.sample() for _ in range(count)]))
    no = torch.zeros(count, dtype=torch.bool)
    return Transition(obs, torch.zeros(count, 1), torch.ones(count), obs, no, no | last)


def updates_by(agent, steps, count=1):
    found = []
    for step in range(1, steps + 1):
        agent.observe(transition(count, last=step % 8 == 0))
        agent.update()
        found.append(agent.updates)
    return found


def test_updates_fall_due_for_the_random_steps_at_once_then_on_schedule():
    found = updates_by(made(), 13)
    assert found == [0] * 9 + [10, 11, 12, 13]
    found = updates_by(made(train_every=2, updates=3), 14)
    assert found == [0] * 9 + [15, 15, 18, 18, 21]
    found = updates_by(made(first_updates=0, train_every=2), 14)
    assert found == [0] * 9 + [0, 0, 1, 1, 2]


def test_steps_of_all_environments_count():
    agent = made(first_updates=0)
    assert updates_by(agent, 6, count=4) == [0, 0, 2, 6, 10, 14]
    assert len(agent.replay) == 24 and agent.replay.environments == 4


def test_learning_waits_until_episodes_are_as_long_as_a_sequence():
    """Of two steps; the random steps are one of each of ten environments."""
    assert updates_by(made(first_updates=3), 2, count=10) == [0, 13]


def test_random_steps_are_five_episodes_and_at_least_a_thousand():
    for steps, want in ((500, 2500), (8, 1000), (None, 1000)):
        agent = made(SPEC._replace(episode_steps=steps), random_steps=None)
        assert agent.random_steps == want


def test_the_discount_is_that_of_the_settings_the_environment_or_the_episodes():
    own = dataclasses.replace(SMALL, discount=0.7)
    assert made(learner=own).learner.discount == 0.7
    assert made(SPEC._replace(discount=0.8)).learner.discount == 0.8
    assert made(SPEC._replace(episode_steps=200)).learner.discount == pytest.approx(0.975)
    assert made(SPEC._replace(episode_steps=None)).learner.discount == 0.99


@pytest.mark.parametrize(
    ("change", "learned"),
    [({"ends": False}, False), ({"ends": True}, True),
     ({"ends": False, "terminated": lambda obs: obs[..., 0] > 1}, True)],
)  # fmt: skip
def test_terminations_are_learned_where_episodes_may_end(change, learned):
    assert (made(SPEC._replace(**change)).learner.world.nets.termination is not None) == learned


class Linear:
    """A world that is s' = 1.2 s + u with reward -s² - u²/2, and value and policy of its LQR."""

    members, noise_shape = 1, (0,)
    gain, curvature = None, None

    def __init__(self, discount):
        a, b = np.array([[1.2]]), np.array([[1.0]])
        root = math.sqrt(discount)
        found = stationary_lqr(root * a, root * b, np.array([[2.0]]), np.array([[1.0]]))
        self.gain, self.curvature = (float(part.item()) for part in found)

    def resample(self, *, generator):
        pass

    def encode(self, obs, *, state=None, action=None):
        return obs[..., :1]

    def decode(self, state):
        raise ValueError("there is no decoder")

    def step(self, state, action, *, noise):
        reward = -state.square().sum(-1) - 0.5 * action.square().sum(-1)
        return Step(1.2 * state + action, reward, torch.zeros_like(reward, dtype=torch.bool))

    def value(self, state):
        return -0.5 * self.curvature * state.square().sum(-1)

    def policy(self, state, *, generator, explore):
        noise = torch.randn(state.shape, generator=generator) if explore else 0.0
        return (self.gain * state + 0.3 * noise).clamp(-1, 1)


def planning_through(world, plan, discount=0.9):
    agent = made(learner=dataclasses.replace(SMALL, discount=discount), plan=plan)
    learner = agent.learner
    learner.world, learner.policy = world, world.policy
    return WorldPlanning(SPEC, learner, agent.config, generator=seeded())


@pytest.mark.parametrize("proposals", [0, 24])
def test_plans_through_the_true_world_come_near_the_riccati_controller(proposals):
    """Three steps and the exact value of the last state are as good as an endless horizon."""
    world = Linear(0.9)
    planner = PlannerConfig(
        "elite-mppi", horizon=3, iterations=20, floor=0.001, temperature=0.2, answer="mean"
    )
    agent = planning_through(world, MPCConfig(planner, proposals=proposals))
    player = agent.player(generator=seeded(1))
    for start in (0.6, -0.4):
        obs = np.array([[start, 7.0]], np.float32)
        action = player.act(obs, explore=False)
        assert action.item() == pytest.approx(world.gain * start, abs=0.02)
        player.reset(np.array([True]))


def test_actions_in_training_have_the_noise_of_the_search_and_those_in_evaluation_none():
    world = Linear(0.9)
    planner = PlannerConfig("elite-mppi", horizon=3, iterations=1, floor=0.1, sigma=0.1)
    agent = planning_through(world, MPCConfig(planner, noise="search"))
    obs = np.array([[0.1, 0.0]], np.float32)
    drawn = {True: [], False: []}
    for explore, actions in drawn.items():
        for seed in range(200):
            player = agent.player(generator=seeded(seed))
            actions.append(player.act(obs, explore=explore).item())
            elites = player.each[0].state.plan.elites[:, 0]
            if not explore:
                assert (elites == actions[-1]).any()
    # the plan that is drawn is the same, so what differs is the noise: of std 0.1 · 2
    noise = np.subtract(drawn[True], drawn[False])
    assert np.std(noise) == pytest.approx(0.2, rel=0.15)  # 3 standard errors
    assert abs(np.mean(noise)) < 0.045


def test_images_are_learned_from_and_planned_through():
    agent = made(IMAGES, images=ImageConfig(network="nature", features=8, channels=4, shift=2))
    for step in range(1, 13):
        obs = np.stack([IMAGES.obs.sample()])
        assert agent.act(obs, explore=True).shape == (1, 1)
        agent.observe(transition(1, last=step % 8 == 0, spec=IMAGES))
        said = agent.update()
    assert agent.updates == 12 and agent.replay.all().obs.dtype == torch.uint8
    assert agent.steps == 12 and isinstance(said, dict)


def test_the_images_of_a_batch_are_shifted_as_the_settings_say():
    for shift in (0, 3):
        agent = made(IMAGES, images=ImageConfig(network="nature", features=8, shift=shift))
        for step in range(1, 9):
            agent.observe(transition(1, last=step == 8, spec=IMAGES))
        drawn, stored = agent._drawn(), agent.replay.all().obs
        same = [(stored == image).flatten(1).all(1).any() for image in drawn.obs.flatten(0, 1)]
        assert all(same) == (shift == 0)


def test_what_it_logs_are_means_with_the_updates_and_numbers_of_plans():
    agent, said = made(random_steps=4, first_updates=0), []
    obs = np.zeros((1, 2), np.float32)
    for step in range(1, 21):
        agent.act(obs, explore=True)
        agent.observe(transition(1, last=step % 8 == 0))
        said.append(agent.update())
    assert said[9]["updates"] == 6 and said[19]["updates"] == 16
    assert said[15]["plans"] == 8  # one a step of the second episode
    assert {"consistency_loss", "reward_loss", "value_loss", "q", "scale"} <= said[9].keys()
    assert all(math.isfinite(value) for line in said for value in line.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plan": MPCConfig(particles=2)}, "plan.particles: one latent model; want 1, got 2"),
        ({"plan": MPCConfig(replan_every=0)}, "plan.replan_every: 0 plans a whole episode once"),
        ({"capacity": 1}, "capacity: want 2 or more, for one sequence, got 1"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        made(**settings)


def test_actions_that_are_indices_are_refused():
    with pytest.raises(ValueError, match="tdmpc: needs actions that are in a bounded box"):
        made(SPEC._replace(action=gymnasium.spaces.Discrete(3)))


def test_another_number_of_environments_is_refused_in_the_middle_of_a_run():
    agent = made()
    agent.observe(transition(2))
    with pytest.raises(ValueError, match="want transitions of 2 environments, got 4"):
        agent.observe(transition(4))
