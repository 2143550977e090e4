"""Learning in known MDPs: against `observe` step by step, and against exact values."""

import math

import numpy as np
import pytest
import torch

from envs.tabular import FiniteMDP
from envs.worlds import cliff_walk, dyna_maze, frozen_lake, garnet, windy_grid
from mbrl.tabular import TabularConfig, TabularLearner, run_known
from mbrl.tabular.config import ALGORITHMS, convergent
from mbrl.tabular.known import errors_by_steps

KINDS = {**ALGORITHMS, "Q(λ), accumulating": {"target": "q", "trace_decay": 0.5}}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learner(mdp, **settings):
    config = TabularConfig(discount=mdp.discount, **settings)
    return TabularLearner(mdp.states, mdp.actions, config)


def by_hand(mdp, made, *, steps, limit, policy, generator):
    """`run_known` in plain Python, by the rule of `act` and by `observe`."""
    seed = int(torch.randint(2**62, (), generator=generator))
    rng = np.random.default_rng(seed)

    def drawn(chances):
        chances = np.asarray(chances).ravel().cumsum()
        return int(np.searchsorted(chances / chances[-1], rng.random(), side="right"))

    state, age = None, 0
    for step in range(steps):
        if age == 0:
            state = drawn(~mdp.terminal / (~mdp.terminal).sum())
        if policy is None:
            action = drawn_greedy(made, state, rng.random())
        else:
            action = drawn(policy[state])
        row = mdp.transitions[[state * mdp.actions + action]].toarray()
        following, age = drawn(row), age + 1
        ended = bool(mdp.terminal[following])
        over = age == limit or step == steps - 1
        toss = int(rng.random() < 0.5) if made.config.target == "double" else 0
        step = (state, action, mdp.rewards[state, action], following, ended, over)
        made.observe(*step, generator=seeded(TOSSES[toss]))
        state, age = following, 0 if ended or over else age


def drawn_greedy(made, state, uniform):
    values = made.tables[:, state].sum(0)
    visits = max(made.state_dict()["visits"][:, state].sum().item(), 1)
    epsilon = made.config.epsilon / visits**made.config.epsilon_decay
    if uniform < epsilon:
        return min(int(uniform / epsilon * len(values)), len(values) - 1)
    best = np.flatnonzero(values == values.max())
    return int(best[min(int((uniform - epsilon) / (1 - epsilon) * len(best)), len(best) - 1)])


TOSSES = {int(torch.randint(2, (), generator=seeded(seed))): seed for seed in range(20)}
"""Seeds of generators whose first coin falls on either side."""


@kinds
@pytest.mark.parametrize("follows", [True, False])
def test_run_known_equals_observe_step_by_step(kind, follows):
    """Bit for bit, with episodes longer than the first buffer."""
    mdp = frozen_lake(discount=0.9)
    policy = None if follows else np.random.default_rng(0).dirichlet(np.ones(4), 16)
    settings = {"step_size": 0.9, "step_decay": 0.6, "epsilon": 0.9, "epsilon_decay": 0.1} | kind
    made, slow = learner(mdp, **settings), learner(mdp, **settings, averaging=True)
    given = {"steps": 600, "limit": None, "policy": policy}
    episodes = run_known(mdp, made, **given, generator=seeded(3))
    by_hand(mdp, slow, **given, generator=seeded(3))
    assert episodes > 5 and abs(made.tables).max() > 0.1
    np.testing.assert_array_equal(made.tables, slow.tables)
    assert not np.array_equal(made.action_values, slow.action_values)  # only one of them averages


def test_the_buffer_of_an_episode_grows_with_it():
    """Monte Carlo over one episode that is cut after 300 steps: -(1 - γⁿ) / (1 - γ)."""
    loop = FiniteMDP(np.ones((1, 1, 1)), -np.ones((1, 1)), 0.99, 0, [])
    made = learner(loop, target="sarsa", n_step=None, first_visit=True, step_size=1.0)
    assert run_known(loop, made, steps=300, generator=seeded()) == 1
    assert made.values[0] == pytest.approx(-(1 - 0.99**300) / 0.01)


def test_averaged_values_equal_hand_computed_values():
    """α = ½ and rewards 4, 8: values 2, 5, and their mean with weights 1 and 2."""
    made = TabularLearner(2, 1, TabularConfig(step_size=0.5, averaging=True, initial=0.0))
    for reward in (4.0, 8.0):
        made.observe(0, 0, reward, 1, True)
    assert made.tables[0, 0, 0] == 5 and made.values[0] == pytest.approx((2 + 2 * 5) / 3)


@kinds
def test_a_learner_loaded_within_an_episode_continues_bit_for_bit(kind):
    rng = np.random.default_rng(0)
    steps = [(*rng.integers((6, 3)), rng.normal(), rng.random() < 0.05) for _ in range(400)]

    def feed(made, span):
        for t in range(*span):
            (state, action, reward, ended), after = steps[t], steps[t + 1][0]
            made.observe(state, action, reward, after, ended, generator=seeded(t))
        return made.tables

    config = TabularConfig(**kind, step_decay=0.5, averaging=True)
    whole, first, second = (TabularLearner(6, 3, config) for _ in range(3))
    wanted = feed(whole, (0, 399))
    feed(first, (0, 201))
    saved = first.state_dict()
    feed(first, (201, 300))  # the saved state is a copy
    second.load_state_dict(saved)
    np.testing.assert_array_equal(feed(second, (201, 399)), wanted)
    np.testing.assert_array_equal(second.action_values, whole.action_values)
    assert all(torch.equal(a, b) for a, b in zip(
        second.state_dict().values(), whole.state_dict().values(), strict=True
    ) if a.shape[:1] != (64,))  # fmt: skip


def test_states_of_other_learners_are_refused_by_name():
    made = TabularLearner(6, 3)
    with pytest.raises(ValueError, match=r"tables of shape \(1, 5, 3\) does not fit"):
        made.load_state_dict(TabularLearner(5, 3).state_dict())
    with pytest.raises(ValueError, match="traces of shape"):
        made.load_state_dict(TabularLearner(6, 3, TabularConfig(trace_decay=0.5)).state_dict())
    saved = made.state_dict()
    with pytest.raises(ValueError, match="counters"):
        made.load_state_dict(saved | {"counters": torch.full_like(saved["counters"], 99)})
    with pytest.raises(ValueError, match="a learner's state holds"):
        made.load_state_dict({"tables": saved["tables"]})


def test_run_known_refuses_bad_arguments_by_name():
    mdp, uniform = frozen_lake(), np.full((16, 4), 0.25)

    def refused(match, made=None, **given):
        with pytest.raises(ValueError, match=match):
            run_known(mdp, made or learner(mdp), **{"steps": 9} | given, generator=seeded())

    refused("learner's states", TabularLearner(9, 4))
    refused("learner's actions", TabularLearner(16, 1))
    refused("steps", steps=0)
    refused("limit", limit=0)
    refused("policy must be of shape", policy=uniform[:3])
    refused("policy must be a distribution", policy=2 * uniform)
    refused("policy must be a distribution", policy=uniform * math.nan)
    refused("start must be 0 where terminal", start=np.eye(16)[15])
    waiting = learner(mdp, target="sarsa")
    waiting.observe(0, 0, 0.0, 1, False)
    refused("middle of an episode", waiting)


# ------------------------------------------------------------------------ near to the exact values


def truth(mdp, made):
    """The limit Q (S, A) of a target: Q*, or that of the best ε-greedy policy (Sutton and
    Barto, section 5.4), by its Bellman equation."""
    if made.config.target in ("q", "double"):
        return mdp.optimum().action_values
    epsilon, q = made.config.epsilon, np.zeros((mdp.states, mdp.actions))
    for _ in range(math.ceil(math.log(1e-14) / math.log(mdp.discount))):
        q = mdp.action_values(epsilon * q.mean(1) + (1 - epsilon) * q.max(1))
    return q


def error(mdp, made, *, steps, explores):
    """Largest error of V after so many steps, by uniform actions or the learner's own policy."""
    policy = np.full((mdp.states, mdp.actions), 1 / mdp.actions) if explores else None
    run_known(mdp, made, steps=steps, limit=50, policy=policy, generator=seeded())
    return abs(made.values - truth(mdp, made).max(1))[~mdp.terminal].max()


WORLDS = {
    "lake": frozen_lake(slippery=False, discount=0.9),
    "cliff": cliff_walk(discount=0.9),
    "windy": windy_grid(discount=0.9),
    "maze": dyna_maze(),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
@pytest.mark.parametrize(
    "kind", ["Q-learning", "3-step Q", "Q(λ)", "double Q", "expected Sarsa", "3-step tree"]
)
def test_learners_are_exact_in_a_deterministic_world(kind, world):
    """With α = 1, and targets that depend only on the next pair."""
    made = learner(world, **KINDS[kind], step_size=1.0, epsilon=0.3)
    assert error(world, made, steps=300_000, explores=True) < 1e-3


def slipping(kind, mdp, steps):
    """Error with α = visits^-0.7 and averaging; on-policy learners act by themselves, ε = 0.3."""
    settings = {"step_size": 1.0, "step_decay": 0.7, "averaging": True, "epsilon": 0.3}
    made = learner(mdp, **kind, **settings)
    return error(mdp, made, steps=steps, explores=kind["target"] in ("q", "double", "tree"))


@pytest.mark.parametrize(
    "kind", ["Q-learning", "double Q", "3-step tree", "Sarsa", "Sarsa(λ)", "MC, every visit"]
)
def test_learners_come_close_on_a_stochastic_world(kind):
    """The error of a mean of N visits is about σ / √N, with σ about 0.1 here."""
    assert slipping(KINDS[kind], frozen_lake(discount=0.5), 2_000_000) < 1e-3


@pytest.mark.slow
@kinds
def test_every_learner_has_an_error_below_a_thousandth(kind):
    """The slippery lake with γ = 0.7, and a random MDP with γ = 0.5, where the noise of a target is
    about 0.6."""
    random = garnet(6, 2, 3, rng=np.random.default_rng(0), ends=1, discount=0.5)
    errors = [
        slipping(kind, frozen_lake(discount=0.7), 2 * 10**7),
        slipping(kind, random, 2 * 10**7),
    ]
    assert max(errors) < 1e-3


def test_errors_by_steps_equal_those_of_separate_runs():
    """The ways alternate; an error is the largest over states that are not terminal."""
    mdp = frozen_lake(discount=0.9)
    best = mdp.optimum().values
    ways = [{"limit": 1, "policy": mdp.uniform_policy}, {"limit": 9}]
    one, two = (learner(mdp, target="q", epsilon=0.3) for _ in range(2))
    found = errors_by_steps(mdp, one, best, [400, 1000], ways=ways, turns=3, generator=seeded(2))
    generator, want = seeded(2), []
    for steps in (133, 200):
        for how in (ways[0], ways[1], ways[0]):
            run_known(mdp, two, steps=steps, generator=generator, **how)
        want.append(max(abs(two.values[s] - best[s]) for s in range(16) if not mdp.terminal[s]))
    assert found == want
    with pytest.raises(ValueError, match="ways must be one or more"):
        errors_by_steps(mdp, one, best, [400], ways=[], generator=seeded())


def test_the_settings_for_convergence_depend_on_the_algorithm_and_on_chance():
    still, slips = frozen_lake(slippery=False), frozen_lake()
    assert convergent("Q-learning", still) == TabularConfig(
        target="q", discount=still.discount, step_size=1.0, epsilon=0.3
    )
    sarsa = convergent("Sarsa", still)
    assert (sarsa.step_size, sarsa.epsilon, sarsa.epsilon_decay) == (0.2, 0.01, 1.0)
    for name in ALGORITHMS:
        found = convergent(name, slips)
        assert (found.step_size, found.step_decay, found.averaging) == (1.0, 0.6, True)
        assert found.epsilon == (0.3 if found.target in ("q", "double") else 1.0)
