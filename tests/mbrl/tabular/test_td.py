"""Temporal-difference learning against hand-computed values and limits."""

import bisect
import itertools
import math
import random

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

from envs.tabular import FiniteMDP
from envs.worlds import garnet
from mbrl.agents.tabular import Tabular
from mbrl.tabular import TabularConfig, TabularLearner
from tests.tables import learn, learned


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def corridor(discount=1.0):
    """States 0 - 1 - 2 - 3 with deterministic moves left and right, -1 a step; 3 is terminal."""
    rows = np.zeros((4, 2, 4))
    for s in range(4):
        rows[s, 0, max(s - 1, 0)] = rows[s, 1, min(s + 1, 3)] = 1
    return FiniteMDP(rows, -np.ones((4, 2)), discount, 0, [3])


class Walk(gymnasium.Env):
    """An environment of an MDP; `gain` (S, S) replaces its rewards by rewards of arrival."""

    def __init__(self, mdp, gain=None):
        self.observation_space = gymnasium.spaces.Discrete(mdp.states)
        self.action_space = gymnasium.spaces.Discrete(mdp.actions)
        self.mdp, self.gain, self.rng = mdp, gain, None
        starts, self.after = mdp.transitions.indptr.tolist(), mdp.transitions.indices.tolist()
        self.spans = list(itertools.pairwise(starts))
        self.reached = [
            chance for span in self.spans for chance in mdp.transitions.data[slice(*span)].cumsum()
        ]
        self.first = int(mdp.start.argmax())

    def reset(self, *, seed=None, options=None):
        self.rng = random.Random(seed)
        self.state = self.first
        return self.state, {}

    def step(self, action):
        before, (first, last) = self.state, self.spans[self.state * self.mdp.actions + action]
        entry = bisect.bisect_right(self.reached, self.rng.random(), first, last - 1)
        self.state = self.after[entry]
        reward = self.mdp.rewards[before, action] if self.gain is None else (
            self.gain[before, self.state]
        )  # fmt: skip
        return self.state, float(reward), bool(self.mdp.terminal[self.state]), False, {}


def learner(states=4, actions=1, **settings):
    return TabularLearner(states, actions, TabularConfig(**settings))


def feed(learner, steps, *, terminated=True, generator=None):
    """Feed one episode of (state, action, reward) and its last state."""
    *steps, last = steps
    ahead = [*(state for state, *_ in steps[1:]), last]
    for t, ((state, action, reward), following) in enumerate(zip(steps, ahead, strict=True)):
        over = t == len(steps) - 1
        learner.observe(
            state, action, reward, following, over and terminated, over and not terminated,
            generator=generator,
        )  # fmt: skip
    return learner


def wander(learner, steps=300, *, seed=0, truncates=True):
    """Random steps in episodes of 12; half of the episodes are truncated, or none."""
    rng = np.random.default_rng(seed)
    for _ in range(steps // 12):
        states = rng.integers(4, size=13)
        path = [(int(s), int(rng.integers(2)), float(rng.normal())) for s in states[:12]]
        feed(learner, [*path, int(states[12])], terminated=bool(rng.integers(2)) or not truncates)
    return learner.action_values


def test_two_step_td_equals_hand_computed_values():
    """γ = α = ½. First episode: 1 + ½ · 2 + ¼ · 0, 2 + ½ · 4 and 4, halved. Second: V₀ goes
    half-way from 1 to 1 + 1 + ¼ · 2."""
    made = learner(n_step=2, discount=0.5, step_size=0.5, target="sarsa")
    path = [(0, 0, 1.0), (1, 0, 2.0), (2, 0, 4.0), 3]
    assert feed(made, path).values.tolist() == [1, 2, 2, 0]
    made.observe(0, 0, 1.0, 1, False)
    assert made.values.tolist() == [1, 2, 2, 0]
    made.observe(1, 0, 2.0, 2, False)
    assert made.values.tolist() == [1.75, 2, 2, 0]
    made.observe(2, 0, 4.0, 3, True)
    assert made.values.tolist() == [1.75, 3, 3, 0]


def test_truncation_bootstraps_and_termination_does_not():
    """V = 8 everywhere, γ = ½, α = 1: the last reward plus 4, or only the last reward."""
    for steps in (1, 2, None):
        for decay in (0.0, 1.0) if steps == 1 else (0.0,):
            values = [
                feed(
                    learner(
                        n_step=steps, trace_decay=decay, discount=0.5, step_size=1.0, initial=8
                    ),
                    [(0, 0, 1.0), (1, 0, 2.0), 2],
                    terminated=terminated,
                ).values.tolist()
                for terminated in (True, False)
            ]
            through = [2, 2, 8, 8], [4, 6, 8, 8]
            one_step = [5, 2, 8, 8], [5, 6, 8, 8]
            assert values == list(one_step if (steps, decay) == (1, 0.0) else through)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_step": 3},
        {"n_step": None},
        {"n_step": None, "first_visit": True},
        {"target": "sarsa"},
        {"trace_decay": 0.9},
        {"trace_decay": 0.9, "target": "sarsa", "traces": "dutch"},
    ],
    ids=str,
)
def test_an_episode_that_is_given_up_leaves_nothing_to_learn_from(settings):
    """The next one changes the values as those of a learner that has seen no part of it."""
    made, other = (learner(actions=2, step_size=0.5, discount=0.5, **settings) for _ in range(2))
    agent = Tabular(made, acting=seeded(), learning=seeded())
    made.observe(0, 1, 1.0, 1, False)
    made.observe(1, 0, 4.0, 2, False)
    agent.give_up(np.array([False]))
    with pytest.raises(ValueError, match="does not follow"):
        made.observe(0, 1, 1.0, 1, False)
    agent.give_up(np.array([True]))
    known = {name: made.state_dict()[name] for name in ("tables", "visits", "means")}
    other.load_state_dict(other.state_dict() | known)
    for each in (made, other):
        feed(each, [(0, 1, 1.0), (1, 0, 2.0), 3])
    assert np.array_equal(made.action_values, other.action_values)
    assert made.action_values[0, 1] > 0 and made.action_values[1, 0] > 0


def test_sarsa_waits_for_the_next_action():
    """γ = ½, α = 1, Q(1) = (4, 8): by the action taken, 1 + ½ · 4, not by the better one."""
    made = learner(actions=2, target="sarsa", discount=0.5, step_size=1.0, epsilon=0.5)
    feed(made, [(1, 0, 4.0), 3])
    feed(made, [(1, 1, 8.0), 3])
    made.observe(0, 0, 1.0, 1, False)
    assert made.action_values[0, 0] == 0
    made.observe(1, 0, 4.0, 3, True)
    assert made.action_values[0, 0] == 3
    feed(made, [(0, 1, 1.0), 1], terminated=False)  # then its expectation, ¼ · 4 + ¾ · 8
    assert made.action_values[0, 1] == 1 + 0.5 * 7


def test_one_step_targets_equal_hand_computed_values():
    """Q(1) = (4, 8), γ = ½, ε = ½: the best is 8, the expectation ¾ · 8 + ¼ · 4 = 7."""
    for target, wanted in (("q", 5.0), ("expected", 4.5), ("tree", 4.5)):
        made = learner(actions=2, target=target, discount=0.5, step_size=1.0, epsilon=0.5)
        feed(made, [(1, 0, 4.0), 3])
        feed(made, [(1, 1, 8.0), 3])
        made.observe(0, 0, 1.0, 1, False)
        assert made.action_values[0, 0] == wanted


def test_targets_of_each_policy_correction_equal_hand_computed_values():
    """Q(1) = (4, 8), γ = ½, ε = ½, π(0 | 1) = ¼. From 0 to 1, action 0 there, 20 and the end:
    sarsa and expected pass it on, 1 + ½ · 20. The tree mixes: 1 + ½ · (¾ · 8 + ¼ · 20). Greedy
    cuts: 1 + ½ · 8, but passes on what action 1 earned, 1 + ½ · 20. By traces, λ = 1, what comes
    after counts by the same shares; expected is then 1 + ½ · 7 + ½ · (20 - Q(1, action))."""
    wanted = {"sarsa": (11.0, 11.0), "expected": (11.0, 11.0), "tree": (6.5, 9.0), "q": (5.0, 11.0)}
    for target, worths in wanted.items():
        for action, worth in enumerate(worths):
            for steps in (2, None):
                made = learner(
                    actions=2, target=target, n_step=steps, discount=0.5, step_size=1.0, epsilon=0.5
                )
                feed(made, [(1, 0, 4.0), 3])
                feed(made, [(1, 1, 8.0), 3])
                feed(made, [(0, 0, 1.0), (1, action, 20.0), 3])
                assert made.action_values[0, 0] == worth, (target, action)
            made = learner(
                actions=2, target=target, trace_decay=1.0, discount=0.5, step_size=1.0, epsilon=0.5
            )
            feed(made, [(1, 0, 4.0), 3])
            feed(made, [(1, 1, 8.0), 3])
            feed(made, [(0, 0, 1.0), (1, action, 20.0), 3])
            if target == "expected":
                worth = 4.5 + 0.5 * (20 - (4, 8)[action])
            assert made.action_values[0, 0] == worth, (target, action)


@pytest.mark.parametrize(
    ("traces", "wanted"),
    [
        ("accumulating", [0.31, 0.1]),
        ("replacing", [0.24, 0.1]),
        ("dutch", [0.3075, 0.1]),
    ],
)
def test_traces_equal_hand_computed_values(traces, wanted):
    """0 → 0 → 1 → end, rewards 1, γ = 1, λ = ½, α = 0.1. After the first step V₀ = 0.1. At the
    second the trace, α in it, is 0.05 + 0.1, or 0.1, or 0.05 + 0.1 · 0.95; δ = 0.9, for dutch
    1 less 0.1 · 0.1 at the end. At the third it has halved, and δ = 1."""
    made = learner(traces=traces, trace_decay=0.5, discount=1.0, step_size=0.1, target="sarsa")
    feed(made, [(0, 0, 1.0), (0, 0, 1.0), (1, 0, 1.0), 3])
    np.testing.assert_allclose(made.values[:2], wanted, rtol=1e-12)


def test_double_q_updates_equal_hand_computed_values():
    """Each table is updated by the other's value of its own best action; γ = ½, α = ½."""
    made, generator = learner(actions=2, target="double", discount=0.5, step_size=0.5), seeded(3)
    coins, tables = seeded(3), np.zeros((2, 4, 2))
    rng = np.random.default_rng(0)
    for _ in range(40):
        s, a, after = int(rng.integers(3)), int(rng.integers(2)), int(rng.integers(3))
        reward, end = float(rng.normal()), bool(rng.random() < 0.2)
        made.observe(s, a, reward, after, end, generator=generator)
        one = int(torch.randint(2, (), generator=coins))
        ahead = 0 if end else tables[1 - one, after, tables[one, after].argmax()]
        tables[one, s, a] += 0.5 * (reward + 0.5 * ahead - tables[one, s, a])
    np.testing.assert_allclose(made.action_values, tables.mean(0), rtol=1e-12)
    assert (made.policy == tables.sum(0).argmax(1)).all()


@pytest.mark.parametrize("target", ["sarsa", "expected", "q"])
@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_one_step_learners_equal_the_textbooks_algorithms(target, decay):
    """The algorithms of S&B's sections 6.4 to 6.6, one episode at a time."""
    made = learner(
        actions=2, target=target, discount=0.9, step_size=0.3, step_decay=decay, epsilon=0.2
    )
    wander(made)
    q, visits = np.zeros((4, 2)), np.zeros((4, 2))
    rng = np.random.default_rng(0)
    for _ in range(300 // 12):
        states = rng.integers(4, size=13)
        path = [(int(s), int(rng.integers(2)), float(rng.normal())) for s in states[:12]]
        terminated = bool(rng.integers(2))
        for t, (s, a, reward) in enumerate(path):
            after = q[states[t + 1]]
            ahead = 0.2 * after.mean() + 0.8 * after.max()
            if target == "q":
                ahead = after.max()
            elif target == "sarsa" and t < 11:
                ahead = after[path[t + 1][1]]
            if t == 11 and terminated:
                ahead = 0.0
            visits[s, a] += 1
            q[s, a] += 0.3 / visits[s, a] ** decay * (reward + 0.9 * ahead - q[s, a])
    np.testing.assert_allclose(made.action_values, q, rtol=1e-12)


@pytest.mark.parametrize("traces", ["accumulating", "replacing", "dutch"])
@pytest.mark.parametrize("target", ["sarsa", "expected", "tree", "q"])
def test_a_trace_decay_near_0_equals_one_step_learning(target, traces):
    if traces == "dutch" and target != "sarsa":
        return
    settings = {"actions": 2, "target": target, "step_size": 0.3}
    one, traced = (
        wander(learner(**settings, traces=traces, trace_decay=decay)) for decay in (0.0, 1e-30)
    )
    np.testing.assert_allclose(traced, one, rtol=1e-12)


@pytest.mark.parametrize("target", ["sarsa", "expected"])
def test_n_of_the_episodes_length_is_monte_carlo(target):
    """n = 12 is every-visit Monte Carlo with constant α (S&B, section 5.4), computed here."""
    settings = {"actions": 2, "target": target, "discount": 0.9, "step_size": 0.3}
    long, whole = (wander(learner(**settings, n_step=steps)) for steps in (12, None))
    np.testing.assert_allclose(long, whole, rtol=1e-12)
    made = learner(
        actions=2, n_step=None, target=target, discount=0.9, step_size=1.0, step_decay=1.0
    )
    path = [(0, 0, 1.0), (1, 1, 2.0), (0, 0, 3.0), (2, 0, 4.0), 3]
    feed(made, path)
    returns = [1 + 0.9 * (2 + 0.9 * (3 + 0.9 * 4)), 2 + 0.9 * (3 + 0.9 * 4), 3 + 0.9 * 4, 4]
    wanted = [(returns[0] + returns[2]) / 2, returns[1], returns[3]]
    found = made.action_values
    np.testing.assert_allclose([found[0, 0], found[1, 1], found[2, 0]], wanted)
    first = learner(
        actions=2, n_step=None, first_visit=True, target=target, discount=0.9, step_size=1.0,
        step_decay=1.0,
    )  # fmt: skip
    for _ in range(2):  # the first visit of each episode
        feed(first, path)
        assert first.action_values[0, 0] == pytest.approx(returns[0])


def test_true_online_with_lambda_one_is_monte_carlo():
    """Exactly, also with revisits (van Seijen et al. 2016, section 4)."""
    settings = {"actions": 2, "target": "sarsa", "discount": 0.9, "step_size": 0.3}
    for decay in (0.0, 0.6):
        settings["step_decay"] = decay
        traced = wander(learner(**settings, traces="dutch", trace_decay=1.0), truncates=False)
        whole = wander(learner(**settings, n_step=None), truncates=False)
        np.testing.assert_allclose(traced, whole, rtol=1e-9)


def test_accumulating_traces_with_lambda_one_are_monte_carlo_if_no_state_repeats():
    path = [(2, 0, 1.0), (0, 0, -2.0), (1, 0, 5.0), 3]
    found = [
        feed(feed(learner(discount=0.9, **settings), path), path).values
        for settings in ({"trace_decay": 1.0}, {"n_step": None})
    ]
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_true_online_td_equals_the_online_lambda_return_algorithm():
    """The forward view of S&B's section 12.3: for each horizon h all updates up to h are repeated,
    with λ-returns truncated at h."""
    rng, alpha, discount, decay = np.random.default_rng(1), 0.4, 0.9, 0.7
    made = learner(
        traces="dutch", trace_decay=decay, discount=discount, step_size=alpha, target="sarsa"
    )
    start = np.zeros(4)
    for _ in range(3):
        states, rewards = [int(s) for s in rng.integers(4, size=9)], rng.normal(size=8)
        latest = [start]  # the weights at horizon h
        for h in range(1, 9):
            weights = start.copy()
            for t in range(h):
                returns, total = [], 0.0
                for n in range(1, h - t + 1):
                    total += discount ** (n - 1) * rewards[t + n - 1]
                    ahead = 0.0 if t + n == 8 else latest[t + n - 1][states[t + n]]
                    returns.append(total + discount**n * ahead)
                shares = [(1 - decay) * decay**n for n in range(h - t - 1)] + [decay ** (h - t - 1)]
                target = np.dot(shares, returns)
                weights[states[t]] += alpha * (target - weights[states[t]])
            latest.append(weights)
        start = latest[-1]
        feed(made, [*((s, 0, float(r)) for s, r in zip(states, rewards, strict=False)), states[8]])
        np.testing.assert_allclose(made.values, start, rtol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "q"},
        {"target": "q", "n_step": 3},
        {"target": "q", "n_step": None},
        {"target": "q", "trace_decay": 0.8, "traces": "replacing"},
        {"target": "double"},
    ],
    ids=str,
)
def test_off_policy_targets_find_the_optimum_for_any_behaviour_policy(settings):
    """The MDP is deterministic, so α = 1 is exact; actions are uniform."""
    mdp = corridor(0.9)
    made = learner(actions=2, discount=0.9, step_size=1.0, epsilon=1.0, **settings)
    learn(TimeLimit(Walk(mdp), 50), made, episodes=300)
    np.testing.assert_allclose(made.values, mdp.optimum().values, atol=1e-9)
    assert (made.policy[:3] == 1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "expected"},
        {"target": "tree", "n_step": 3},
        {"target": "tree", "trace_decay": 0.5, "traces": "replacing"},
    ],
    ids=str,
)
def test_on_policy_targets_find_the_values_of_their_policy(settings):
    """The values of the ε-greedy policy, ε = 0.3, in the MDP."""
    mdp = corridor(0.9)
    made = learner(actions=2, discount=0.9, step_size=1.0, epsilon=0.3, **settings)
    learn(Walk(mdp), made, episodes=500)
    wanted = mdp.action_values(mdp.evaluate(made.probabilities))
    np.testing.assert_allclose(made.action_values[:3], wanted[:3], atol=1e-6)


def test_learners_refuse_bad_arguments_by_name():
    made = learner(actions=2, target="sarsa", epsilon=0.1)
    for reward in (math.nan, math.inf):
        with pytest.raises(ValueError, match="reward of state 1, action 0 is not finite"):
            made.observe(1, 0, reward, 2, False)
    for step, name in (((4, 0, 0.0, 0), "state"), ((0, 2, 0.0, 0), "action"),
                       ((0, 0, 0.0, -1), "next_state"), ((0.5, 0, 0.0, 0), "state")):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must be an integer"):
            made.observe(*step, False)
    with pytest.raises(ValueError, match="^state must be"):
        made.act(4, explore=True, generator=seeded())
    assert (made.action_values == 0).all()
    made.observe(0, 0, 0.0, 1, False)
    with pytest.raises(ValueError, match="from state 2 does not follow the one to state 1"):
        made.observe(2, 0, 0.0, 1, False)
    with pytest.raises(ValueError, match="generator"):
        learner(actions=2, target="double").observe(0, 0, 0.0, 1, False)
    with pytest.raises(ValueError, match="states must be"):
        learner(states=0)
    for settings, name in [
        ({"target": "best"}, "target must be one of"), ({"traces": "none"}, "traces must be one"),
        ({"n_step": 0}, "n_step"), ({"n_step": 2, "trace_decay": 0.5}, "n_step must be 1 with"),
        ({"first_visit": True}, "n_step must be None with"), ({"step_size": 0.0}, "step_size"),
        ({"epsilon": 1.5}, "epsilon"), ({"discount": math.nan}, "discount"),
        ({"target": "double", "n_step": 2}, "other than double"),
        ({"traces": "dutch", "trace_decay": 0.5}, "sarsa with dutch"),
        ({"initial": math.inf}, "initial"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=name):
            TabularConfig(**settings)


def random_walk(states):
    """S&B's examples 6.2 and 7.1: left or right at random; 1 beyond the right end and 0 or, with
    19 states, -1 beyond the left. States 0 and states + 1 are the ends."""
    rows = np.zeros((states + 2, 1, states + 2))
    for s in range(1, states + 1):
        rows[s, 0, [s - 1, s + 1]] = 0.5
    gain = np.zeros_like(rows)
    gain[states, 0, -1] = 1
    gain[1, 0, 0] = -1 if states == 19 else 0
    ends = [0, states + 1]
    return FiniteMDP(rows, gain, 1.0, (states + 1) // 2, ends), gain[:, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"step_decay": 0.7},
        {"n_step": 3, "step_decay": 0.8},
        {"n_step": None, "step_decay": 1.0},
        {"n_step": None, "first_visit": True, "step_decay": 1.0},
        {"trace_decay": 0.5, "step_decay": 0.8},
        {"trace_decay": 0.5, "step_decay": 0.8, "traces": "replacing"},
        {"trace_decay": 0.5, "step_decay": 0.8, "traces": "dutch", "target": "sarsa"},
    ],
    ids=str,
)
def test_td_predicts_the_values_of_the_five_state_walk(settings):
    """1/6, ..., 5/6 (S&B, example 6.2) after 2000 episodes: five standard deviations of a mean of
    2000 outcomes of ±½."""
    mdp, gain = random_walk(5)
    np.testing.assert_allclose(mdp.evaluate(np.zeros(7, dtype=int))[1:6], np.arange(1, 6) / 6)
    made = learner(states=7, discount=1.0, step_size=1.0, **settings)
    learn(Walk(mdp, gain), made, episodes=2000)
    assert abs(made.values[1:6] - np.arange(1, 6) / 6).max() < 5 * 0.5 / math.sqrt(2000)


def walk_error(**settings):
    """RMS error of the 19-state walk, over states, 10 episodes and 50 runs, as in figure 7.2."""
    mdp, gain = random_walk(19)
    truth, errors = np.arange(-18, 20, 2) / 20, []
    for seed in range(50):
        made = learner(states=21, discount=1.0, **settings)
        for _ in learned(Walk(mdp, gain), made, episodes=10, seed=seed):
            errors.append(np.sqrt(((made.values[1:20] - truth) ** 2).mean()))
    return np.mean(errors)


def test_n_4_beats_n_1_on_the_nineteen_state_walk_as_in_figure_7_2():
    """At their best step sizes n = 4 has an error of about a quarter and n = 1 a larger one."""
    four, one = walk_error(n_step=4, step_size=0.4), walk_error(step_size=0.8)
    assert 0.22 < four < 0.28 and four < one - 0.02


def test_glie_sarsa_finds_the_optimum():
    """ε = 1 / visits and α = visits^-0.6 on the corridor: greedy in the limit."""
    mdp = corridor(0.9)
    made = learner(
        actions=2, target="sarsa", discount=0.9, step_size=1.0, step_decay=0.6, epsilon=1.0,
        epsilon_decay=1.0,
    )  # fmt: skip
    learn(Walk(mdp), made, episodes=2000)
    np.testing.assert_allclose(made.values, mdp.optimum().values, atol=1e-3)
    assert (made.probabilities[:3, 0] < 0.01).all() and (made.probabilities[:3, 0] > 0).all()


def test_stochastic_q_learning_finds_the_optimum():
    """A random MDP of 6 states with uniform pairs, α = visits^-0.8, finally 0.0013: four
    standard deviations √(α / 2) · σ, with σ = 0.6 of a target."""
    mdp = garnet(6, 2, 3, rng=np.random.default_rng(5), ends=1, discount=0.6)
    made = learner(states=6, actions=2, discount=0.6, step_size=1.0, step_decay=0.8)
    rng = np.random.default_rng(0)
    env = Walk(mdp)
    env.reset(seed=0)
    for _ in range(40_000):
        env.state, action = int(rng.integers(5)), int(rng.integers(2))
        state = env.state
        after, reward, ended, *_ = env.step(action)
        made.observe(state, action, reward, after, ended)
    np.testing.assert_allclose(made.values, mdp.optimum().values, atol=0.06)
