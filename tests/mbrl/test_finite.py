"""Finite MDPs as a model: draws against the rows, scores against exact returns."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from envs.tabular import FiniteMDP
from envs.worlds import garnet
from mbrl.dynamics import Counts, FiniteModel
from mbrl.imagination import rollout, score_fn
from mbrl.types import Dynamics, Transition


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_world(seed=0, *, ends=1):
    """6 states, 3 actions, 3 outcomes each."""
    return garnet(6, 3, 3, rng=np.random.default_rng(seed), ends=ends, discount=0.9)


def corridor():
    """States 0 - 1 - 2 - 3 with deterministic moves left and right, -1 a step; 3 is terminal."""
    rows = np.zeros((4, 2, 4))
    for s in range(4):
        rows[s, 0, max(s - 1, 0)] = rows[s, 1, min(s + 1, 3)] = 1
    return FiniteMDP(rows, -np.ones((4, 2)), 1.0, 0, [3])


def open_loop(mdp, plan, start=0):
    """The expected discounted return of a plan, from the distribution of the state at each step."""
    where, total = np.eye(mdp.states)[start], 0.0
    for t, action in enumerate(plan):
        total += mdp.discount**t * where @ mdp.rewards[:, action]
        where = where @ mdp.transitions[np.arange(mdp.states) * mdp.actions + action].toarray()
    return total


def everywhere(mdp, members=1):
    """All pairs of state and action, (E, S · A, 1)."""
    pairs = np.indices((mdp.states, mdp.actions)).reshape(2, 1, -1, 1)
    return [torch.tensor(part, dtype=torch.float32).expand(members, -1, -1) for part in pairs]


def test_every_model_satisfies_the_protocol():
    model = FiniteModel.of(random_world())
    assert isinstance(model, Dynamics) and model.members == 1
    obs = torch.rand(2, 3, 1)
    assert model.encode(obs) is obs and model.decode(obs) is obs


def test_draws_have_the_probabilities_of_the_rows():
    """A χ² test of each row at 10⁻⁴, with 20 000 draws."""
    mdp, count = random_world(), 20_000
    model, generator = FiniteModel.of(mdp), seeded()
    rows = mdp.transitions.toarray()
    for s in range(mdp.states - 1):
        for a in range(mdp.actions):
            state, action = torch.full((1, count, 1), float(s)), torch.full((1, count, 1), float(a))
            noise = torch.randn(1, count, 1, generator=generator)
            step = model.step(state, action, noise=noise)
            seen = np.bincount(step.state.long().flatten().numpy(), minlength=mdp.states)
            row = rows[s * mdp.actions + a]
            assert seen[row == 0].sum() == 0
            assert stats.chisquare(seen[row > 0], count * row[row > 0]).pvalue > 1e-4
            assert torch.equal(step.terminated, step.state[..., 0] == mdp.states - 1)
            assert (step.reward == np.float32(mdp.rewards[s, a])).all()


def test_noise_is_mapped_to_next_states_by_distribution_functions():
    """Rows (0.2, 0.5, 0.3): the normal quantiles at 0.2 and 0.7 separate the next states."""
    rows = np.tile([0.2, 0.5, 0.3], (3, 1, 1))
    model = FiniteModel.of(FiniteMDP(rows.reshape(3, 1, 3), np.zeros((3, 1)), 0.9, 0, []))
    edges = stats.norm.ppf([0.2, 0.7])
    noise = torch.tensor(
        [-9, edges[0] - 1e-6, edges[0] + 1e-6, edges[1] - 1e-6, edges[1] + 1e-6, 9]
    )
    zeros = torch.zeros(1, 6, 1, dtype=torch.double)
    step = model.step(zeros, zeros, noise=noise.double().view(1, 6, 1))
    assert step.state.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert step.state.dtype == torch.double
    certain = model.step(zeros, zeros, noise=torch.full((1, 6, 1), 40.0))  # a uniform of 1
    assert (certain.state == 2).all()
    assert (model.step(zeros, zeros, noise=torch.full((1, 6, 1), -40.0)).state == 0).all()


def test_without_noise_the_most_probable_state_follows():
    mdp = random_world(3)
    step = FiniteModel.of(mdp).step(*everywhere(mdp), noise=None)
    live = np.repeat(~mdp.terminal, mdp.actions)
    best = mdp.transitions.toarray().argmax(1)
    assert (step.state.flatten().numpy()[live] == best[live]).all()


def test_terminal_states_stay_and_have_reward_0():
    mdp = random_world()
    model = FiniteModel.of(mdp)
    ended = torch.full((1, 5, 1), mdp.states - 1.0)
    for noise in (None, torch.randn(1, 5, 1, generator=seeded())):
        step = model.step(ended, torch.zeros(1, 5, 1), noise=noise)
        assert torch.equal(step.state, ended)
        assert (step.reward == 0).all() and step.terminated.all()


def test_scores_of_a_deterministic_mdp_are_exact():
    mdp = corridor()
    plans = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5).unsqueeze(-1)
    for propagation, particles in (("tsinf", 3), ("expectation", 1)):
        score = score_fn(
            FiniteModel.of(mdp), torch.zeros(1), particles=particles, propagation=propagation,
            horizon=5, generator=seeded(),
        )  # fmt: skip
        wanted = [open_loop(mdp, plan.long().flatten().tolist()) for plan in plans]
        assert score(plans).tolist() == wanted
    assert max(wanted) == -3


def test_scores_are_expected_returns_within_monte_carlo_error():
    """20 000 particles of plans in a random MDP; four standard errors."""
    mdp, count = random_world(1), 20_000
    model = FiniteModel.of(mdp)
    plans = torch.randint(mdp.actions, (8, 6, 1), generator=seeded()).float()
    score = score_fn(
        model, torch.zeros(1), particles=count, horizon=6, discount=mdp.discount,
        generator=seeded(1),
    )  # fmt: skip
    imagined = rollout(model, torch.zeros(1), plans, particles=count, generator=seeded(2))
    returns = imagined.returns(mdp.discount)
    error = returns.std(0) / math.sqrt(count)
    wanted = torch.tensor([open_loop(mdp, plan.long().flatten().tolist()) for plan in plans])
    assert ((returns.mean(0) - wanted).abs() < 4 * error).all()
    assert ((score(plans) - wanted).abs() < 4 * error).all()


def test_the_return_of_a_policy_in_a_rollout_is_its_value():
    """200 steps of discount 0.9 leave 10⁻⁹ of the value; four standard errors."""
    mdp, count = random_world(2, ends=0), 4000
    policy = np.arange(mdp.states) % mdp.actions
    table = torch.tensor(policy, dtype=torch.float32)

    def act(state, *, generator, explore):
        return table[state.long()]

    imagined = rollout(
        FiniteModel.of(mdp), torch.zeros(1), act, horizon=200,
        particles=count, generator=seeded(),
    )  # fmt: skip
    returns = imagined.returns(mdp.discount)[:, 0]
    error = returns.std() / math.sqrt(count)
    assert abs(returns.mean() - mdp.evaluate(policy)[0]) < 4 * error


def test_each_member_steps_by_its_own_rows():
    mdps = [random_world(seed) for seed in (4, 5)]
    model, (state, action) = FiniteModel.of(*mdps), everywhere(mdps[0], 2)
    noise = torch.randn(state.shape, generator=seeded())
    both = model.step(state, action, noise=noise)
    for member, mdp in enumerate(mdps):
        own = slice(member, member + 1)
        alone = FiniteModel.of(mdp).step(state[own], action[own], noise=noise[own])
        for part, whole in zip(alone, both, strict=True):
            assert torch.equal(part, whole[own])
    assert not torch.equal(both.reward[0], both.reward[1])


def walk(mdp, count, seed=0):
    """Transitions from pairs drawn at random."""
    g = seeded(seed)
    state = torch.randint(mdp.states - 1, (1, count, 1), generator=g).float()
    action = torch.randint(mdp.actions, (1, count, 1), generator=g).float()
    noise = torch.randn(state.shape, generator=g)
    step = FiniteModel.of(mdp).step(state, action, noise=noise)
    over = step.terminated[0]
    return Transition(state[0], action[0], step.reward[0], step.state[0], over, over)


def test_counts_equal_hand_computed_values_and_add_up():
    batch = Transition(
        torch.tensor([[0.0], [0.0], [0.0], [1.0]]), torch.tensor([[1.0], [1.0], [1.0], [0.0]]),
        torch.tensor([1.0, 2.0, 6.0, 4.0]), torch.tensor([[1.0], [1.0], [0.0], [2.0]]),
        torch.tensor([False, False, False, True]), torch.zeros(4) > 0,
    )  # fmt: skip
    counts = Counts.of(batch, states=3, actions=2)
    model = FiniteModel.likeliest(counts, unknown=7.0)
    rows = model.kernels[0].toarray().reshape(3, 2, 3)
    np.testing.assert_allclose(rows[0, 1], [1 / 3, 2 / 3, 0], atol=1e-15)
    assert rows[1, 0].tolist() == [0, 0, 1] and rows[0, 0].tolist() == [1, 0, 0]
    np.testing.assert_allclose(model.rewards[0], [[7, 3], [4, 7], [0, 0]])
    assert model.terminal.tolist() == [False, False, True]
    strict = FiniteModel.likeliest(counts, known=2, unknown=7.0)
    assert strict.rewards[0, 1, 0] == 7 and strict.kernels[0].toarray()[2].tolist() == [0, 1, 0]
    halves = [
        Counts.of(Transition(*(part[s] for part in batch)), states=3, actions=2)
        for s in (slice(0, 2), slice(2, 4))
    ]
    total = halves[0] + halves[1]
    assert (total.visits == counts.visits).all() and (total.rewards == counts.rewards).all()
    assert (total.next_states != counts.next_states).nnz == 0
    assert (total.terminal == counts.terminal).all()


def test_a_model_counted_from_many_steps_is_close_to_the_true_one():
    """The frequencies of 300 000 steps within five standard deviations."""
    mdp = random_world(6)
    counts = Counts.of(walk(mdp, 300_000), states=mdp.states, actions=mdp.actions)
    model, rows = FiniteModel.likeliest(counts), mdp.transitions.toarray()
    spread = np.sqrt(rows * (1 - rows) / np.maximum(counts.visits, 1).reshape(-1, 1))
    assert (abs(model.kernels[0].toarray() - rows) <= 5 * spread + 1e-12).all()
    np.testing.assert_allclose(model.rewards[0], mdp.rewards, rtol=1e-5)
    assert (model.terminal == mdp.terminal).all()


def test_posterior_draws_have_the_dirichlet_moments():
    """Mean α / Σα and variance of 2000 members, within five standard errors."""
    counts = Counts(
        sparse.csr_array(np.array([[3.0, 0, 1], [0, 0, 0], [0, 0, 0]])),
        np.array([[8.0], [0], [0]]), np.array([False, False, True]),
    )  # fmt: skip
    model = FiniteModel.posterior(counts, members=2_000, prior=0.5, generator=seeded())
    drawn = np.stack([rows.toarray() for rows in model.kernels])
    for row, alpha in ((0, [3.5, 0.5, 1.5]), (1, [0.5, 0.5, 0.5])):
        wanted = stats.dirichlet(alpha)
        spread = np.sqrt(wanted.var() / len(drawn))
        assert (abs(drawn[:, row].mean(0) - wanted.mean()) < 5 * spread).all()
        np.testing.assert_allclose(drawn[:, row].var(0), wanted.var(), rtol=0.15)
    assert (drawn[:, 2] == 0).all()
    assert (model.rewards[:, 0, 0] == 2).all() and (model.rewards[:, 1, 0] == 0).all()


def test_the_posterior_depends_on_its_generator_and_respects_a_sparse_prior():
    mdp = random_world(7)
    counts = Counts.of(walk(mdp, 50), states=mdp.states, actions=mdp.actions)
    support = (mdp.transitions.toarray() > 0).reshape(mdp.states, mdp.actions, -1)

    def draw(seed):
        before = torch.get_rng_state()
        model = FiniteModel.posterior(
            counts, members=3, prior=1e-3 * support, rewards=mdp.rewards, generator=seeded(seed)
        )
        assert torch.equal(before, torch.get_rng_state())
        return np.stack([rows.toarray() for rows in model.kernels])

    assert (draw(1) == draw(1)).all() and (draw(1) != draw(2)).any()
    assert (draw(1)[:, ~support.reshape(-1, mdp.states)] == 0).all()


def test_the_posterior_converges_to_the_mdp():
    """The mean of the members' scores approaches the truth, their std decreases as 1 / √n."""
    mdp = random_world(8)
    plan = torch.tensor([0.0, 1, 2, 1]).view(1, 4, 1)
    spread = []
    for count in (1_000, 100_000):
        counts = Counts.of(walk(mdp, count), states=mdp.states, actions=mdp.actions)
        model = FiniteModel.posterior(
            counts, members=30, prior=0.1, rewards=mdp.rewards, generator=seeded()
        )
        members = [
            FiniteMDP(rows, mdp.rewards, mdp.discount, 0, mdp.terminal) for rows in model.kernels
        ]
        returns = [open_loop(member, plan.long().flatten().tolist()) for member in members]
        spread.append(np.std(returns))
    assert spread[1] < spread[0] / 5
    assert abs(np.mean(returns) - open_loop(mdp, [0, 1, 2, 1])) < 3 * spread[1]


@pytest.mark.parametrize("value", [math.nan, 0.5, -1.0, 99.0])
@pytest.mark.parametrize("where", ["state", "action"])
def test_an_invalid_index_gives_nan(where, value):
    mdp = random_world()
    model, parts = FiniteModel.of(mdp), everywhere(mdp)
    parts = [part.clone() for part in parts]
    parts[where == "action"][0, 1] = value
    step = model.step(*parts, noise=torch.zeros_like(parts[0]))
    wrong = torch.arange(parts[0].shape[1]) == 1
    assert torch.equal(step.state[0, :, 0].isnan(), wrong)
    assert torch.equal(step.reward[0].isnan(), wrong) and not step.terminated[0, 1]
    score = score_fn(model, torch.zeros(1), particles=2, horizon=2, generator=seeded())
    assert score(torch.tensor([0.0, math.nan, 1.5]).view(3, 1, 1)).isfinite().tolist() == [
        True, False, False,
    ]  # fmt: skip


def test_wrong_input_is_refused_by_name():
    mdp = random_world()
    model, (state, action) = FiniteModel.of(mdp), everywhere(mdp)
    with pytest.raises(ValueError, match=r"state must be \(E, B, 1\)"):
        model.step(state[..., 0], action, noise=None)
    with pytest.raises(ValueError, match="action must be"):
        model.step(state, action[:, 1:], noise=None)
    with pytest.raises(ValueError, match="noise must be"):
        model.step(state, action, noise=torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="state 2, action 1 are not a distribution"):
        rows = mdp.transitions.toarray()
        rows[2 * mdp.actions + 1] *= 0.9
        FiniteModel([sparse.csr_array(rows)], mdp.rewards, mdp.terminal)
    with pytest.raises(ValueError, match="member 0, state 1, action 2 is not finite"):
        rewards = mdp.rewards.copy()
        rewards[1, 2] = math.nan
        FiniteModel([mdp.transitions], rewards, mdp.terminal)
    with pytest.raises(ValueError, match="rewards of 2 members"):
        FiniteModel([mdp.transitions] * 2, mdp.rewards[None], mdp.terminal)
    with pytest.raises(ValueError, match="the same terminal states"):
        FiniteModel.of(mdp, random_world(ends=0))
    batch = walk(mdp, 10)
    sizes = {"states": mdp.states, "actions": mdp.actions}
    with pytest.raises(ValueError, match="reward holds"):
        Counts.of(batch._replace(reward=batch.reward * math.nan), **sizes)
    with pytest.raises(ValueError, match=r"obs must hold indices in 0\.\.5, got -1"):
        Counts.of(batch._replace(obs=batch.obs * 0 - 1), **sizes)
    with pytest.raises(ValueError, match=r"action must be \(\.\.\., 1\)"):
        Counts.of(batch._replace(action=batch.action.expand(-1, 2)), **sizes)
    counts = Counts.of(batch, **sizes)
    with pytest.raises(ValueError, match="never tried"):
        FiniteModel.posterior(counts, members=2, prior=0.0, generator=seeded())
    with pytest.raises(ValueError, match="prior must be a number"):
        FiniteModel.posterior(counts, members=2, prior=np.ones(3), generator=seeded())
    with pytest.raises(ValueError, match="members must be"):
        FiniteModel.posterior(counts, members=0, generator=seeded())
    with pytest.raises(ValueError, match="known must be"):
        FiniteModel.likeliest(counts, known=0)


def corridor_of_six():
    """Deterministic moves forward, back and stay; the last state is terminal."""
    rows = np.zeros((6, 3, 6))
    for s in range(6):
        rows[s, range(3), [min(s + 1, 5), max(s - 1, 0), s]] = 1
    return FiniteMDP(rows, -np.ones((6, 3)), 0.9, 0, np.arange(6) == 5)


def test_outcomes_list_all_possible_next_states():
    worlds = [random_world(0), corridor_of_six(), random_world(2)]
    ends = np.arange(6) == 5
    model = FiniteModel.of(*worlds)
    assert model.most_outcomes == 3
    pairs = torch.cartesian_prod(torch.arange(6.0), torch.arange(3.0)).expand(3, -1, -1)
    found = model.outcomes(pairs[..., :1], pairs[..., 1:])
    assert found.state.shape == (3, 18, 3, 1) and found.chance.shape == (3, 18, 3)
    for m, world in enumerate(worlds):
        chances = np.zeros((18, 6))
        after = found.state[m, :, :, 0].long().numpy()
        np.add.at(chances, (np.arange(18)[:, None], after), found.chance[m].numpy())
        want = world.transitions.toarray()
        want[15:] = ends  # terminal states stay
        assert chances == pytest.approx(want, abs=1e-6)
        assert (found.terminated[m].numpy() == ends[after]).all()
        assert found.reward[m, :15].numpy() == pytest.approx(world.rewards.ravel()[:15], abs=1e-6)
        assert (found.reward[m, 15:] == 0).all()
    wrong = model.outcomes(pairs[..., :1] + 0.5, pairs[..., 1:])
    assert wrong.state.isnan().all() and wrong.reward.isnan().all()
    assert not wrong.terminated.any()
    with pytest.raises(
        ValueError, match=r"action must be \(E, B, 1\) with E = 3, got \(1, 18, 1\)"
    ):
        model.outcomes(pairs[..., :1], pairs[:1, :, 1:])
