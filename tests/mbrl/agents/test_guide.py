"""A learner's critic and policy in a plan, compared with the Riccati solution."""

import math

import gymnasium
import numpy as np
import pytest
import torch

import envs
from mbrl.agents import Controller, MPCConfig, PlannerConfig, dqn, pets, random, sac
from mbrl.agents.guide import Guide, proposals
from mbrl.control import build_driver
from mbrl.imagination import score_fn
from mbrl.learners.configs import SACConfig
from mbrl.settings import DriveConfig
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import train_run
from mbrl.types import Spec, Step
from planners import ILQR
from tests.lines import Seen


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


A, B, R, GAMMA = 1.2, 1.0, 0.5, 0.9


def riccati():
    """P of the value -P s² and K of the optimal action -K s, for reward -s² - R u²."""
    p = 1.0
    for _ in range(500):
        k = GAMMA * A * B * p / (R + GAMMA * B * B * p)
        p = 1.0 + R * k * k + GAMMA * p * (A - B * k) ** 2
    return p, k


class Unstable(Seen):
    """s' = 1.2 s + u, reward -s² - R u²; it ends where s' is above a limit."""

    members, noise_shape = 1, (0,)

    def __init__(self, limit=math.inf):
        self.limit = limit

    def step(self, state, action, *, noise):
        after = A * state + B * action
        reward = -state.square().sum(-1) - R * action.square().sum(-1)
        return Step(after, reward, after[..., 0] > self.limit)


def optimal():
    p, k = riccati()
    return Guide(
        value=lambda obs: -p * obs.square().sum(-1),
        policy=lambda obs, *, generator, explore: -k * obs,
        discount=GAMMA,
    )


def test_one_step_with_the_true_value_is_the_optimal_controller():
    planner = PlannerConfig(name="cem", horizon=1, population=200, iterations=12, elites=20)
    k = riccati()[1]
    for terminal_value in (True, False):
        config = MPCConfig(planner, terminal_value=terminal_value, proposals=0)
        mpc = config.build(torch.tensor([-3.0]), torch.tensor([3.0]))
        controller = Controller(
            Unstable(), mpc, config, reward=None, terminated=None, guide=optimal(),
            generator=seeded(),
        )  # fmt: skip
        action = controller.act(np.array([1.5], np.float32))
        # without a value the reward of one step alone is best without any action
        expected = -k * 1.5 if terminal_value else 0.0
        assert action.item() == pytest.approx(expected, abs=0.02)


def test_the_value_counts_where_a_plan_has_not_ended_with_its_discount():
    actions = torch.tensor([[[0.5], [0.5]], [[3.0], [0.0]]])  # the second ends at once
    score = score_fn(
        Unstable(3), torch.tensor([1.0]), particles=1, horizon=2, discount=0.5,
        value=lambda obs: 100 * obs[..., 0], generator=seeded(),
    )(actions)  # fmt: skip
    first, second = 1.2 + 0.5, 1.2 * 1.7 + 0.5
    stays = -1 - R * 0.25 + 0.5 * (-(first**2) - R * 0.25) + 0.25 * 100 * second
    assert score.tolist() == pytest.approx([stays, -1 - R * 9])


def test_proposals_are_what_the_policy_does_in_the_model():
    k = riccati()[1]
    guide = optimal()._replace(
        policy=lambda obs, *, generator, explore: (
            -k * obs + 0.1 * explore * torch.randn(obs.shape, generator=generator)
        )
    )
    state = torch.tensor([1.5])
    found = proposals(guide, Unstable(), state, count=4, horizon=5, generator=seeded())
    expected, s = [], 1.5
    for _ in range(5):
        expected.append(-k * s)
        s = A * s - k * s
    assert found.shape == (4, 5, 1)
    assert found[0, :, 0].tolist() == pytest.approx(expected, rel=1e-5)
    assert (found[1:] != found[:1]).any(1).all()


@pytest.mark.parametrize("knots", [None, 3])
def test_a_search_begins_from_the_best_proposal(knots):
    """One round of a tiny search finds nothing better than the optimal policy's plan."""
    settings = {"name": "predictive", "horizon": 6, "population": 2, "sigma": 1e-3, "knots": knots}
    scores = []
    for count in (0, 4):
        config = MPCConfig(PlannerConfig(**settings), proposals=count, terminal_value=False)
        mpc = config.build(torch.tensor([-3.0]), torch.tensor([3.0]))
        controller = Controller(
            Unstable(), mpc, config, reward=None, terminated=None, guide=optimal(),
            generator=seeded(),
        )  # fmt: skip
        controller.act(np.array([1.5], np.float32))
        scores.append(controller.expected)
    assert scores[1] > scores[0] + 5


def test_a_planner_that_begins_from_nothing_refuses_proposals():
    config = MPCConfig(PlannerConfig(name="ilqr", horizon=3))
    mpc = config.build(torch.tensor([-3.0]), torch.tensor([3.0]))
    assert isinstance(mpc.planner, ILQR)
    with pytest.raises(ValueError, match="guesses: ILQR does not begin from given plans"):
        mpc.search(lambda: None, None, 0, guesses=lambda: torch.zeros(1, 3, 1),
                   generator=seeded())  # fmt: skip


TINY = sac.Config(learning_starts=20, batch=8, learner=SACConfig(hidden=(8,)))


def run(path, env="pendulum-swingup"):
    train_run(RunConfig("sac", env, 0, 40, "cpu", TINY), path, make_env=envs.make)
    return path


def test_a_run_of_a_learner_guides_the_plans_of_a_robot(tmp_path):
    path = run(tmp_path / "run")
    mpc = MPCConfig(PlannerConfig(name="cem", horizon=3, population=8, elites=2, iterations=1))
    config = DriveConfig(env="pendulum-swingup", mpc=mpc, learner=str(path))
    driver = build_driver(config, make_env=envs.make, seed=0)
    guide = driver.controller.guide
    obs, _ = driver.env.reset(seed=0)
    action = driver.controller.act(obs)
    assert driver.env.action_space.contains(action) and guide.discount == 0.99
    rows = torch.as_tensor(np.stack([obs, obs + 0.1]), dtype=torch.float32)
    assert guide.value(rows).shape == (2,)
    driver.env.close()


def test_runs_that_cannot_guide_are_refused(tmp_path):
    path = run(tmp_path / "run")
    with pytest.raises(ValueError, match="--learner .*: it was trained on pendulum-swingup, not"):
        config = DriveConfig(env="cartpole-swingup", learner=str(path))
        build_driver(config, make_env=envs.make, seed=0)
    config = RunConfig("random", "pendulum-swingup", 0, 20, "cpu", random.Config())
    train_run(config, tmp_path / "random", make_env=envs.make)
    with pytest.raises(ValueError, match="random has no critic and policy to plan with"):
        build_driver(
            DriveConfig(env="pendulum-swingup", learner=str(tmp_path / "random")),
            make_env=envs.make, seed=0,
        )  # fmt: skip


def test_a_learner_of_indices_cannot_guide_a_planner():
    spec = Spec(gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(3))
    for module in (sac, dqn):
        agent = module.make(spec, module.Config(), generator=seeded())
        with pytest.raises(ValueError, match="a planner needs a policy in a box of actions"):
            agent.guide()


@pytest.mark.parametrize("scaled", [False, True])
def test_values_are_in_units_of_the_reward(scaled):
    spec = Spec(gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1, (1,)))
    config = sac.Config(scale_reward=scaled, learner=SACConfig(hidden=(8,)))
    agent = sac.make(spec, config, generator=seeded())
    ends = torch.tensor([False])
    for reward in (1.0, 9.0, -4.0):
        agent.scale.update(torch.tensor([reward]), ends)
    obs = torch.randn(3, 2, generator=seeded())
    factor = agent.scale.value if scaled else 1.0
    torch.testing.assert_close(agent.value(obs), factor * agent.learner.value(obs))
    assert agent.scale.value > 1


def test_a_guide_with_step_sizes_that_change_is_refused():
    with pytest.raises(ValueError, match=r"sac\.last_learning_rate: step sizes of a guide are"):
        pets.Config(sac=SACConfig(last_learning_rate=1e-5))
