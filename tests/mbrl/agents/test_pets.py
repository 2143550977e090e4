import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import PETS, MPCConfig, PlannerConfig
from mbrl.agents.pets import Config, version
from mbrl.dynamics import EnsembleConfig
from mbrl.training.run_config import changed
from mbrl.types import Spec, Step, Transition
from planners import PLANNERS

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([1.0])
TINY = Config(
    mpc=MPCConfig(PlannerConfig(horizon=6, population=24, iterations=3, elites=4), particles=4),
    model=EnsembleConfig(members=2, hidden=(16,), epochs=10, batch=16),
    random_steps=20,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def home(obs, action, next_obs):
    """Rewards nearness to zero."""
    return -next_obs[..., 0].square()


def agent(config=TINY, seed=0, reward=home, model=None, episode_steps=10):
    spec = Spec(
        gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
        gymnasium.spaces.Box(-1.0, 1.0, (1,)),
        reward=reward, ends=False, episode_steps=episode_steps,
    )  # fmt: skip
    return PETS(spec, config, model=model, generator=seeded(seed))


class Slide:
    """A point that moves by half the action, in episodes of ten steps."""

    def __init__(self, seed=0):
        self.draw = np.random.default_rng(seed)
        self.reset()

    def reset(self):
        self.at, self.steps = self.draw.uniform(-2, 2, 1).astype(np.float32), 0

    def go(self, agent):
        """Take one step; returns (action, metrics, whether the episode ended)."""
        action = agent.act(self.at[None], explore=True)[0]
        after = (self.at + 0.5 * action).astype(np.float32)
        self.steps += 1
        over = self.steps == 10
        agent.observe(
            Transition(*(torch.as_tensor(part)[None] for part in (
                self.at, action, -float(after[0]) ** 2, after, False, over)))
        )  # fmt: skip
        self.at = after
        if over:
            self.reset()
        return action, agent.update(), over


def play(agent, steps, seed=0):
    world = Slide(seed)
    return [world.go(agent) for _ in range(steps)]


def test_pets_learns_to_reach_a_target():
    """After training on 40 steps, an episode ends within 0.15 of the target; random ones do not."""
    learner = agent(replace(TINY, model=replace(TINY.model, hidden=(32, 32), epochs=100)))
    play(learner, 40)
    errors = []
    for place in (-1.5, -0.5, 1.0, 1.9):
        player, at = learner.controller(generator=seeded(9)), np.array([place], np.float32)
        for _ in range(10):
            at = at + 0.5 * player.act(at)
        errors.append(abs(float(at[0])))
    assert max(errors) < 0.15


def test_the_first_actions_are_uniform_and_are_planned_after_the_first_fit():
    learner = agent(replace(TINY, random_steps=20))
    history = play(learner, 40)
    fits = [k for k, (_, metrics, _) in enumerate(history, 1) if "model_loss" in metrics]
    assert fits == [20, 30, 40]
    plans = {k: metrics["plans"] for k, (_, metrics, _) in enumerate(history, 1)
             if "plans" in metrics}  # fmt: skip
    assert plans == {30: 10, 40: 10}
    first = np.array([action[0] for action, _, _ in history[:20]])
    assert abs(first.mean()) < 4 * math.sqrt(1 / 3 / 20) and first.std() > 0.3


def test_versions_differ_in_their_data_and_in_when_they_plan():
    """0.5: one fit, a plan per episode. 1.0: a fit and a plan per episode. 1.5: a plan per step."""
    counts = {}
    for name in ("0.5", "1.0", "1.5"):
        learner = agent(version(name, TINY))
        metrics = [said for _, said, _ in play(learner, 50)]
        counts[name] = (
            sum("model_loss" in said for said in metrics),
            [said["plans"] for said in metrics if "plans" in said],
        )
        assert learner.mpc.planner.horizon == (6 if name == "1.5" else 10)
    assert counts == {"0.5": (1, [1] * 3), "1.0": (4, [1] * 3), "1.5": (4, [10] * 3)}
    assert version("1.5", version("0.5", TINY)) == TINY
    assert version("1.5", changed(TINY, replan_every=3)).mpc.replan_every == 3


def test_fit_every_refits_within_an_episode():
    history = play(agent(replace(TINY, fit_every=4)), 32)
    fits = [k for k, (_, metrics, _) in enumerate(history, 1) if "model_loss" in metrics]
    assert fits == [20, 24, 28, 30]


def test_action_repeat_holds_actions_and_plans_less_often():
    learner = agent(changed(TINY, action_repeat=3))
    history = play(learner, 30)
    actions = [float(action[0]) for action, _, _ in history[20:]]
    assert all(actions[k] == actions[k - k % 3] for k in range(10))
    assert len(set(actions)) > 1
    assert history[-1][1]["plans"] == 4


def test_rejected_candidates_are_counted():
    """The reward is not finite beyond 0.5, so plans that go there are rejected."""

    def edge(obs, action, next_obs):
        return torch.where(action[..., 0] > 0.5, math.nan, action[..., 0])

    history = play(agent(reward=edge), 30)
    said = history[-1][1]
    assert 0 < said["rejected"] < said["evaluated"]
    assert math.isfinite(said["expected_score"])
    assert max(float(action[0]) for action, _, _ in history[20:]) <= 0.5


def test_the_known_reward_is_used_unless_it_is_to_be_learned():
    """The known reward, for moving right, differs from the rewards in the data."""

    def right(obs, action, next_obs):
        return next_obs[..., 0]

    ends = []
    for learn, reward in ((True, None), (True, right), (False, right)):
        model = replace(TINY.model, learn_reward=learn, epochs=100)
        learner = agent(replace(TINY, model=model), reward=reward)
        play(learner, 60)
        player, at = learner.controller(generator=seeded(9)), np.array([-1.0], np.float32)
        for _ in range(8):
            at = at + 0.5 * player.act(at)
        ends.append(float(at[0]))
    assert abs(ends[0]) < 0.7 and ends[1] == ends[0] and ends[2] > 2


def test_resuming_within_an_episode_continues_the_same_plan():
    whole, other = Slide(), Slide()
    learner = agent(changed(TINY, replan_every=3))
    for world in (whole, other):  # both environments are at the same step
        for _ in range(0 if world is other else 34):
            whole.go(learner)
    twin = agent(changed(TINY, replan_every=3), seed=99)
    twin.load_state_dict(learner.state_dict())
    other.at, other.steps = whole.at.copy(), whole.steps
    other.draw.bit_generator.state = whole.draw.bit_generator.state
    for _ in range(20):
        mine, said, _ = whole.go(learner)
        yours, says, _ = other.go(twin)
        assert np.array_equal(mine, yours) and said == says


def test_the_penalty_and_the_objective_reach_the_score():
    learner = agent()
    play(learner, 20)
    obs = np.array([0.5], np.float32)
    actions = torch.linspace(-1, 1, 5).view(5, 1, 1).expand(5, 6, 1)
    scores = {}
    for name, change in {"plain": {}, "worst": {"objective": "worst"}, "λ": {"penalty": 3.0},
                         "discount": {"discount": 0.5}}.items():  # fmt: skip
        player = learner.controller(generator=seeded(4))
        player.config = replace(TINY.mpc, **change)
        scores[name] = player.score(player.state_of(obs))(actions)
    assert (scores["worst"] <= scores["plain"]).all()
    assert (scores["λ"] < scores["plain"]).all()
    assert (scores["discount"] > scores["plain"]).all()  # all rewards are negative


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_steps": 1}, "random_steps must be an integer of at least 2, got 1"),
        ({"fit_every": 0}, "fit_every must be an integer of at least 1 or None, got 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"particles": 3}, "particles must be a positive multiple of the 2 members that step"),
        ({"particles": 0}, "particles must be an integer of at least 1, got 0"),
        ({"replan_every": 7}, r"replan_every must lie in 0\.\.horizon = 0\.\.6"),
        ({"planner": PlannerConfig("random", beta=2.0)}, "planner 'random' has no setting 'beta'"),
    ],
)
def test_settings_that_do_not_match_one_another_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        agent(changed(TINY, **change))


def test_open_loop_planning_needs_the_length_of_an_episode():
    with pytest.raises(ValueError, match="replan_every 0 needs an episode of bounded length"):
        agent(changed(TINY, replan_every=0), episode_steps=None)


def test_a_reward_must_be_known_or_learned():
    with pytest.raises(ValueError, match="give it, or set model.learn_reward"):
        agent(reward=None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("objective", "objective 'nonsense' is unknown"),
        ("propagation", "propagation must be one of"),
    ],
)
def test_unknown_names_are_refused_before_any_step(name, message):
    with pytest.raises(ValueError, match=message):
        agent(changed(TINY, **{name: "nonsense"}))


@pytest.mark.parametrize("name", list(PLANNERS))
def test_every_planner_can_be_named_and_set(name):
    built = PlannerConfig(name, horizon=5, population=70, knots=3, interpolation="linear").build(
        LOW, HIGH
    )
    assert isinstance(built, PLANNERS[name])
    assert (built.horizon, built.population, built.knots) == (5, 70, 3)
    assert PlannerConfig(name).build(LOW, HIGH, horizon=9).horizon == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": torch.tensor([[math.nan]])}, "obs holds a number that is not finite"),
        ({"action": torch.zeros(1, 2)}, r"action has shape \(1, 2\), not \(1, 1\)"),
    ],
)
def test_invalid_transitions_are_refused(change, message):
    step = Transition(
        *torch.zeros(2, 1, 1), torch.zeros(1), torch.zeros(1, 1), *torch.zeros(2, 1) > 0
    )
    with pytest.raises(ValueError, match=message):
        agent().observe(step._replace(**change))


def test_without_a_time_limit_pets_refits_at_intervals():
    class Endless(Slide):
        def reset(self):
            super().reset()
            self.steps = -1_000_000

    learner, world = agent(episode_steps=None), Endless()
    said = [world.go(learner)[1] for _ in range(45)]
    fits = [k for k, metrics in enumerate(said, 1) if "model_loss" in metrics]
    assert fits == [20, 40]


class Halves:
    """The exact model of the point, which fitting does not change."""

    members, noise_shape = 2, (0,)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def step(self, state, action, *, noise):
        nothing = torch.zeros(state.shape[:-1])
        return Step(state + 0.5 * action, nothing, nothing > 0)

    def fit(self, data, *, generator):
        return {"loss": 0.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


def goes_home(learner, place=-1.5):
    player, at = learner.controller(generator=seeded(9)), np.array([place], np.float32)
    for _ in range(10):
        at = at + 0.5 * player.act(at)
    return abs(float(at[0])) < 0.15


def test_pets_plans_with_any_fittable_model():
    learner = agent(model=Halves())
    play(learner, 40)
    assert learner.fits == 3 and goes_home(learner)


def test_after_a_model_is_replaced_the_next_action_is_planned_with_it():
    learner = agent(changed(TINY, replan_every=6))
    play(learner, 23)  # within an episode, in the middle of a plan
    learner.model = Halves()
    plans = play(learner, 1)
    assert learner.playing.each[0].model is learner.model and len(plans) == 1
    assert goes_home(learner)


@pytest.mark.parametrize("members", [3, 8])
def test_a_model_of_other_sizes_is_refused_and_the_old_one_kept(members):
    learner = agent()
    before, other = learner.model, Halves()
    other.members = members
    with pytest.raises(ValueError, match=f"multiple of the {members} members"):
        learner.model = other
    with pytest.raises(ValueError, match="can step and be fitted .* not a Linear"):
        learner.model = torch.nn.Linear(2, 2)
    assert learner.model is before


def test_parallel_environments_have_separate_plans():
    """Two points at different places; the reset of one does not affect the other."""
    learner = agent(changed(TINY, replan_every=4))
    play(learner, 20)
    obs = np.array([[-1.5], [1.5]], np.float32)
    first = learner.act(obs, explore=True)
    assert first.shape == (2, 1) and first[0] > 0 > first[1]
    second = learner.playing.each[1].state.plan
    ends = torch.tensor([True, False])
    learner.observe(Transition(*(torch.as_tensor(x) for x in (obs, first, np.zeros(2), obs)),
                               ends & False, ends))  # fmt: skip
    said = learner.update()
    assert said["plans"] == 1 and "model_loss" in said
    assert learner.playing.each[0].state.plan is None
    assert learner.playing.each[1].state.plan is second
    twin = agent(changed(TINY, replan_every=4), seed=5)
    twin.load_state_dict(learner.state_dict())
    for _ in range(5):
        assert np.array_equal(learner.act(obs, explore=True), twin.act(obs, explore=True))
