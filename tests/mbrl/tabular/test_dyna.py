"""Dyna: each variant against the book and against exact solutions of its model."""

import math

import numpy as np
import pytest
import torch

from envs.tabular import FiniteMDP
from envs.worlds import blocking_maze, dyna_maze, frozen_lake, world_env
from mbrl.agents.tabular import Tabular
from mbrl.dynamics.finite import Counts, FiniteModel
from mbrl.tabular import Dyna, DynaConfig, TabularConfig, TabularLearner
from mbrl.training.collect import Episodes, collect, vector
from mbrl.types import Transition
from tests.tables import learn


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def walk(mdp, steps, seed=0):
    """Random steps (state, action, reward, next state, terminated), with a reset after each end."""
    env, rng = mdp.env(), np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    for _ in range(steps):
        action = int(rng.integers(mdp.actions))
        after, reward, over, _, _ = env.step(action)
        yield state, action, reward, after, over
        state = env.reset()[0] if over else after


def lengths(agent, env, episodes, seed=0, limit=10_000):
    """Steps of each episode."""
    generator, found = seeded(seed), []
    state, _ = env.reset(seed=seed)
    for _ in range(episodes):
        over, steps = False, 0
        while not over and steps < limit:
            action = agent.act(state, explore=True, generator=generator)
            after, reward, over, _, _ = env.step(action)
            steps += 1
            agent.observe(state, action, reward, after, over, steps == limit, generator=generator)
            state = after
        found.append(steps)
        state, _ = env.reset()
    return found


def best(mdp, policy):
    """Whether a policy is optimal from the start, by exact evaluation."""
    return mdp.start @ (mdp.optimum().values - mdp.evaluate(policy)) < 1e-9


CORRIDOR = FiniteMDP(  # 0 → 1 → 2 → 3, the end, which pays 1; action 1 stays
    np.array([[[0, 1, 0, 0], [1, 0, 0, 0]], [[0, 0, 1, 0], [0, 1, 0, 0]],
              [[0, 0, 0, 1], [0, 0, 1, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], dtype=float),
    np.array([[0.0, 0], [0, 0], [1, 0], [0, 0]]), 0.5, 0, [3],
)  # fmt: skip


# By hand.


def test_without_planning_it_is_q_learning():
    mdp = frozen_lake()
    agent = Dyna(16, 4, DynaConfig(planning=0, step_size=0.3, discount=0.9))
    other = TabularLearner(16, 4, TabularConfig(step_size=0.3, discount=0.9))
    for step in walk(mdp, 3000):
        agent.observe(*step, generator=seeded())
        other.observe(*step)
    assert agent.action_values.max() > 0.01
    np.testing.assert_array_equal(agent.action_values, other.action_values)


def test_prioritised_sweeping_updates_backwards_from_the_reward():
    """As many updates as there are steps to the end, each of them to the final value: γ², γ, 1."""
    agent = Dyna(4, 2, DynaConfig(planning=3, states="priority", discount=0.5, step_size=1.0))
    for state in (0, 1):
        agent.observe(state, 0, 0.0, state + 1, False, generator=seeded())
    assert (agent.action_values == 0).all()
    agent.observe(2, 0, 1.0, 3, True, generator=seeded())
    assert agent.action_values[:, 0].tolist() == [0.25, 0.5, 1.0, 0.0]
    short = Dyna(4, 2, DynaConfig(planning=2, states="priority", discount=0.5, step_size=1.0))
    for state in (0, 1, 2):
        short.observe(state, 0, float(state == 2), state + 1, state == 2, generator=seeded())
    assert short.action_values[:, 0].tolist() == [0.0, 0.5, 1.0, 0.0]  # two updates only
    high = DynaConfig(planning=9, states="priority", discount=0.5, step_size=1.0, threshold=0.6)
    far = Dyna(4, 2, high)
    for state in (0, 1, 2):
        far.observe(state, 0, float(state == 2), state + 1, state == 2, generator=seeded())
    assert far.action_values[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]  # ½ is not worth an update


def test_the_exploration_bonus_equals_hand_computed_values():
    """One state, two actions, the first tried at each of two steps: after the second step its
    bonus is κ √0, that of the other κ √2, which is assumed to stay and earn nothing."""
    config = DynaConfig(planning=400, actions="any", bonus=0.1, discount=0.0, step_size=1.0)
    agent = Dyna(2, 2, config)
    for _ in range(2):
        agent.observe(0, 0, 5.0, 1, True, generator=seeded())
    assert agent.action_values[0].tolist() == pytest.approx([5.0, 0.1 * math.sqrt(2)])
    # a third step takes the other action
    agent.observe(0, 1, 1.0, 1, True, generator=seeded())
    assert agent.action_values[0].tolist() == pytest.approx([5.0 + 0.1, 1.0])
    plain = Dyna(2, 2, DynaConfig(planning=400, actions="any", discount=0.0, step_size=1.0))
    plain.observe(0, 0, 5.0, 1, True, generator=seeded())
    assert plain.action_values[0].tolist() == [5.0, 0.0]  # untried actions are not imagined


def test_imagination_follows_the_policy_from_the_start():
    """With three more steps an imagined start at 0 reaches the end, and each that does carries the
    reward a state further back."""
    config = DynaConfig(
        planning=1, states="start", actions="policy", further=3, epsilon=0.0, discount=0.5,
        step_size=1.0,
    )  # fmt: skip
    agent = Dyna(4, 2, config)
    for state in (0, 1, 2):
        agent.observe(state, 0, float(state == 2), state + 1, state == 2, generator=seeded())
    agent.observe(2, 0, 1.0, 3, True, generator=seeded())
    assert agent.action_values[2, 0] == 1.0
    for i in range(30):
        agent.observe(2, 0, 1.0, 3, True, generator=seeded(i))
    assert agent.action_values[:, 0].tolist() == [0.25, 0.5, 1.0, 0.0]
    # a start at 2, where the fourth step began an episode, does not change the others
    first = DynaConfig(planning=50, states="start", actions="taken", discount=0.5, step_size=1.0)
    agent = Dyna(4, 2, first)
    for state in (0, 1, 2):
        agent.observe(state, 0, float(state == 2), state + 1, state == 2, generator=seeded())
    assert agent.action_values[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
    # an episode that does not go on is followed by another
    agent.observe(0, 0, 0.0, 1, False, generator=seeded())
    agent.give_up()
    agent.observe(1, 0, 0.0, 2, False, generator=seeded())
    assert agent.state_dict()["arrays"]["starts"].tolist() == [2, 1, 0, 0]


# The model.


def test_the_maximum_likelihood_model_has_the_frequencies_of_the_counts():
    mdp = frozen_lake()
    steps = list(walk(mdp, 2000))
    agent = Dyna(16, 4, DynaConfig(planning=0, memory="all"))
    for step in steps:
        agent.observe(*step, generator=seeded())
    columns = [torch.tensor(column) for column in zip(*steps, strict=True)]
    state, action, reward, after, over = columns
    batch = Transition(state[:, None], action[:, None], reward, after[:, None], over, over)
    model = FiniteModel.likeliest(Counts.of(batch, states=16, actions=4))
    transitions, rewards, ends = agent.model
    live = ~model.terminal
    expected = model.kernels[0].toarray().reshape(16, 4, 16)
    tried = transitions.sum(-1) > 0
    np.testing.assert_allclose(transitions[tried], expected[tried])
    np.testing.assert_allclose(rewards[live], model.rewards[0][live])
    np.testing.assert_array_equal(ends, model.terminal)


def test_a_memory_of_last_steps_keeps_one_step_of_each_pair():
    agent = Dyna(3, 1, DynaConfig(planning=0))
    agent.observe(0, 0, 1.0, 1, False, generator=seeded())
    agent.observe(0, 0, 5.0, 2, True, generator=seeded())
    transitions, rewards, ends = agent.model
    assert transitions[0, 0].tolist() == [0, 0, 1]
    assert rewards[0, 0] == 5.0
    assert ends.tolist() == [False, False, True]


# Against the exact solution of what was learned.


def solution_of(agent):
    """Q* of an agent's model by linear programming; untried pairs stay and earn 0."""
    transitions, rewards, ends = agent.model
    untried = transitions.sum(-1) == 0
    stay = np.broadcast_to(np.eye(agent.states)[:, None], transitions.shape)
    transitions = np.where(untried[..., None], stay, transitions)
    return FiniteMDP(transitions, rewards, agent.config.discount, 0, ends).optimum().action_values


def test_prioritised_sweeping_solves_its_model():
    """A slippery lake: 2000 random steps, then sweeps until all priorities are small."""
    config = DynaConfig(
        planning=300, states="priority", memory="all", step_size=1.0, threshold=1e-9, discount=0.9
    )
    agent = Dyna(16, 4, config)
    for step in walk(frozen_lake(), 2000):
        agent.observe(*step, generator=seeded())
    exact = solution_of(agent)
    assert exact.max() > 0.3
    np.testing.assert_allclose(agent.action_values, exact, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"actions": "any"},
        {"actions": "policy", "epsilon": 0.5},
        {"further": 4, "epsilon": 0.5},
        {"states": "start", "actions": "any", "further": 40, "epsilon": 0.5},
    ],
)
def test_every_config_solves_a_deterministic_maze(change):
    """After 6000 random steps the values of tried pairs are those of the maze."""
    mdp = dyna_maze()
    settings = {"planning": 100, "step_size": 1.0, "discount": 0.95} | change
    agent = Dyna(mdp.states, 4, DynaConfig(**settings))
    generator = seeded()
    for step in walk(mdp, 6000, seed=1):
        agent.observe(*step, generator=generator)
    assert best(mdp, agent.policy)
    start = mdp.optimum().action_values[mdp.start.argmax()]
    np.testing.assert_allclose(agent.action_values[mdp.start.argmax()], start, atol=1e-6)


def test_sampled_updates_converge_to_the_expectation_of_a_stochastic_model():
    """Two terminal states with reward 0 and one that continues: E = p · γ · 1, by small steps."""
    agent = Dyna(4, 1, DynaConfig(planning=300, memory="all", step_size=0.01, discount=0.5))
    agent.observe(1, 0, 1.0, 3, True, generator=seeded())
    generator = seeded()
    for i in range(120):
        after = 1 if i % 3 == 0 else 2
        agent.observe(0, 0, 0.0, after, after == 2, generator=generator)
    assert agent.action_values[1, 0] == pytest.approx(1, abs=1e-3)
    assert agent.action_values[0, 0] == pytest.approx(0.5 / 3, abs=0.05)
    assert agent.model[0][0, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0])


# Learning.


def test_planning_shortens_the_third_episode():
    """A small version of figure 8.2 of Sutton and Barto: the third episode of five runs."""
    env = dyna_maze().env()

    def third(planning):
        made = [Dyna(47, 4, DynaConfig(planning=planning)) for _ in range(5)]
        return np.mean([lengths(agent, env, 3, seed)[-1] for seed, agent in enumerate(made)])

    none, some, many = third(0), third(5), third(50)
    assert many < 40 and 2 * many < some < none / 2, (none, some, many)


def test_only_an_exploration_bonus_finds_a_changed_way_soon():
    """Rewards of ten runs in the blocking maze, which changes after 1000 of 2000 steps."""

    def earned(config, seed):
        env, generator = world_env("blocking-maze"), seeded(seed)
        agent = Dyna(blocking_maze().states, 4, config)
        state, _ = env.reset(seed=seed)
        total = 0.0
        for step in range(2000):
            action = agent.act(state, explore=True, generator=generator)
            after, reward, over, _, _ = env.step(action)
            agent.observe(state, action, reward, after, over, generator=generator)
            total += reward * (step >= 1000)
            state = env.reset()[0] if over else after
        return total

    common = {"planning": 10, "step_size": 1.0}
    plain = [earned(DynaConfig(**common), seed) for seed in range(10)]
    curious = DynaConfig(actions="any", bonus=1e-3, **common)
    bonus = [earned(curious, seed) for seed in range(10)]
    assert np.mean(bonus) > np.mean(plain) + 10


def test_dyna_runs_in_the_common_loop_and_repeats_for_a_seed():
    def played(seed):
        agent = Dyna(4, 2, DynaConfig(planning=3, epsilon=0.3))
        returns = learn(CORRIDOR.env(), agent, episodes=30, seed=seed)
        assert returns == [1.0] * 30
        return agent

    first = played(0)
    np.testing.assert_array_equal(first.action_values, played(0).action_values)
    assert (first.action_values != played(1).action_values).any()
    assert best(CORRIDOR, first.policy)
    assert first.act(0, explore=False, generator=seeded()) == 0


def test_the_policy_explores_with_the_stated_probability():
    agent = Dyna(1, 4, DynaConfig(epsilon=0.2, planning=0))
    generator = seeded()
    drawn = [agent.act(0, explore=True, generator=generator) for _ in range(4000)]
    assert np.bincount(drawn) / 4000 == pytest.approx([0.25] * 4, abs=0.03)  # all equal
    agent.observe(0, 2, 1.0, 0, False, generator=generator)
    drawn = [agent.act(0, explore=True, generator=generator) for _ in range(4000)]
    assert np.bincount(drawn) / 4000 == pytest.approx([0.05, 0.05, 0.85, 0.05], abs=0.02)


# Bad input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planning": -1}, "planning must be an integer in 0..1000000, got -1"),
        ({"further": 1.5}, "further must be an integer in 0..1000000, got 1.5"),
        ({"states": "all"}, r"states must be one of visited, start, priority, got 'all'"),
        ({"actions": "best"}, r"actions must be one of taken, any, policy, got 'best'"),
        ({"memory": "none"}, r"memory must be one of last, all, got 'none'"),
        ({"discount": 1.1}, r"discount must be in \[0, 1\], got 1.1"),
        ({"epsilon": math.nan}, r"epsilon must be in \[0, 1\], got nan"),
        ({"step_size": 0.0}, r"step_size must be in \(0, 1\], got 0.0"),
        ({"initial": math.inf}, "initial must be finite, got inf"),
        ({"bonus": -1.0}, "bonus must be finite and >= 0, got -1.0"),
        ({"states": "priority", "bonus": 0.1}, "bonus must be 0 with states priority, got 0.1"),
        ({"states": "priority", "further": 2}, "further must be 0 with states priority, got 2"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        DynaConfig(**change)


def test_bad_steps_are_refused_by_name():
    with pytest.raises(ValueError, match="states must be an integer >= 1, got 0"):
        Dyna(0, 2)
    agent = Dyna(3, 2)
    for step, message in [
        ((3, 0, 0.0, 1), r"state must be an integer in 0..2, got 3"),
        ((0, 2, 0.0, 1), r"action must be an integer in 0..1, got 2"),
        ((0, 0, 0.0, -1), r"next_state must be an integer in 0..2, got -1"),
        ((0, 1, math.nan, 1), "the reward of state 0, action 1 is not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            agent.observe(*step, False, generator=seeded())
    with pytest.raises(ValueError, match=r"state must be an integer in 0..2, got 0.5"):
        agent.act(0.5, explore=True, generator=seeded())
    assert (agent.action_values == 0).all() and (agent.model[0] == 0).all()


def test_an_actor_takes_the_same_steps_as_the_agents_own_loop():
    """Steps and values equal those of the agent in a loop over the environment."""
    states = dyna_maze().states
    made = [Dyna(states, 4, DynaConfig(planning=3)) for _ in range(2)]
    actor = Tabular(made[0], acting=seeded(1), learning=seeded(2))
    taken = []
    for step in collect(actor, vector(dyna_maze().env()), Episodes(0), steps=400):
        actor.observe(step)
        taken.append(int(step.action))
    env, acting, imagining, again = dyna_maze().env(), seeded(1), seeded(2), []
    state, _ = env.reset()
    for _ in range(400):
        action = made[1].act(int(state), explore=True, generator=acting)
        after, reward, ended, _, _ = env.step(action)
        made[1].observe(int(state), action, reward, int(after), ended, generator=imagining)
        again.append(action)
        state = env.reset()[0] if ended else after
    assert taken == again
    assert np.array_equal(made[0].action_values, made[1].action_values)
