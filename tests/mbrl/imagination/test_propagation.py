"""Propagation of particles through the members, and their termination."""

import math

import numpy as np
import pytest
import torch

from mbrl.imagination import rollout, score_fn
from mbrl.types import Gaussian
from tests.lines import PROPAGATIONS, Bad, Line, plans, seeded, spring, start

# Particles without noise, against hand-computed numbers


def test_each_member_rolls_out_its_own_particles():
    """From 8 with actions (1, 2): s + u gives 9, 11 and s/2 + u gives 5, 4.5."""
    model = Line([1.0, 0.5])
    imagined = rollout(model, start(8.0), plans([1.0, 2.0]), particles=4, generator=seeded())
    states = [[8.0, 9.0, 11.0], [8.0, 5.0, 4.5]]
    assert imagined.state.squeeze(-1)[:, 0].tolist() == [states[0]] * 2 + [states[1]] * 2
    assert imagined.reward[:, 0].tolist() == [[9.0, 11.0]] * 2 + [[5.0, 4.5]] * 2
    assert imagined.returns().flatten().tolist() == [20.0, 20.0, 9.5, 9.5]
    assert imagined.returns(0.5).flatten().tolist() == [14.5, 14.5, 7.25, 7.25]
    assert imagined.action.shape == (4, 1, 2, 1)
    assert imagined.alive.all() and not imagined.terminated.any()
    for name, value in (("mean", 14.75), ("worst", 9.5), ("cvar:0.75", (2 * 9.5 + 20) / 3)):
        score = score_fn(model, start(8.0), particles=4, horizon=2, objective=name,
                         generator=seeded())  # fmt: skip
        assert score(plans([1.0, 2.0])).item() == pytest.approx(value)
    discounted = score_fn(model, start(8.0), particles=2, horizon=2, discount=0.5,
                          generator=seeded())  # fmt: skip
    assert discounted(plans([1.0, 2.0])).item() == pytest.approx((14.5 + 7.25) / 2)


def test_a_given_reward_replaces_the_models_own():
    score = score_fn(Line([1.0]), start(2.0), particles=1, horizon=2, reward=spring,
                     generator=seeded())  # fmt: skip
    # states 1, 3
    assert score(plans([-1.0, 2.0])).item() == pytest.approx(-1 - 9 - 0.1 - 0.4)


def test_plans_shorter_than_the_horizon_are_scored_over_their_own_length():
    score = score_fn(Line([1.0]), start(), particles=1, horizon=5, generator=seeded())
    assert score(plans([1.0, 1.0])).item() == 3.0


def test_expectation_takes_the_mean_of_the_members_means():
    """Two steps by a factor of three quarters from 8, for any noise and number of particles."""
    model = Line([1.0, 0.5], sigma=3.0)
    imagined = rollout(model, start(8.0), plans([0.0, 0.0]), particles=7,
                       propagation="expectation", generator=seeded())  # fmt: skip
    assert imagined.state.flatten().tolist() == [8.0, 6.0, 4.5]
    assert imagined.reward.flatten().tolist() == [6.0, 4.5]


def test_ts1_reassigns_members_at_each_step_and_tsinf_never():
    """Members add 1, 10 or 100, so the digits of a state count the steps by each member."""
    model = Line([1.0] * 3, b=[1.0, 10.0, 100.0])
    walk = plans([1.0] * 4)
    fixed = rollout(model, start(), walk, particles=300, generator=seeded()).state.flatten(1)
    assert fixed[:, -1].tolist() == [4.0] * 100 + [40.0] * 100 + [400.0] * 100
    dealt = rollout(model, start(), walk, particles=300, propagation="ts1", generator=seeded())
    moves = dealt.state.flatten(1).diff(dim=1)
    for t in range(4):  # members are used equally often at every step
        assert moves[:, t].unique(return_counts=True)[1].tolist() == [100, 100, 100]
    pairs = (moves[:, 0] + 1000 * moves[:, 1]).unique(return_counts=True)[1]
    # each of nine pairs of members occurs 300/9 times, within three std of 5
    assert len(pairs) == 9 and (pairs - 300 / 9).abs().max() < 15


@pytest.mark.parametrize("propagation", ["moment", "distribution"])
def test_refitting_keeps_the_mean_and_variance_of_the_mixture(propagation):
    """From 8, members predict 8 and 4 with std 1.5: mean 6, variance 1.5² + 2²."""
    model = Line([1.0, 0.5], sigma=1.5)
    imagined = rollout(model, start(8.0), plans([0.0]), particles=40_000,
                       propagation=propagation, generator=seeded())  # fmt: skip
    after = imagined.state[:, 0, 1, 0]
    assert after.mean().item() == pytest.approx(6.0, abs=4 * 2.5 / 200)
    assert after.std().item() == pytest.approx(2.5, rel=0.02)
    # a Gaussian, not a mixture: its fourth moment is three times its squared variance
    assert ((after - 6) / 2.5).pow(4).mean().item() == pytest.approx(3.0, rel=0.06)
    assert imagined.reward.flatten().unique().tolist() == [6.0]


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_a_std_that_is_expanded_over_rows_is_propagated_as_one_of_each_row(propagation):
    class Constant(Line):
        def predict(self, state, action):
            mean, std = super().predict(state, action)
            return Gaussian(mean, std[:, :1].expand_as(mean))

    found = [
        rollout(kind([1.0, 0.5], sigma=1.5), start(8.0), plans([0.0, 1.0]), particles=6,
                propagation=propagation, generator=seeded())
        for kind in (Constant, Line)
    ]  # fmt: skip
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_only_moment_matching_makes_particles_independent_of_their_last_states():
    model = Line([1.0], sigma=1.0)
    correlations = []
    for propagation in ("moment", "distribution"):
        state = rollout(model, start(), plans([0.0, 0.0]), particles=20_000,
                        propagation=propagation, generator=seeded()).state[:, 0, :, 0]  # fmt: skip
        correlations.append(torch.corrcoef(state[:, 1:].T)[0, 1].item())
        assert state[:, 2].var().item() == pytest.approx(2.0, rel=0.05)
    assert abs(correlations[0]) < 4 / math.sqrt(20_000)
    assert correlations[1] == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_each_particle_draws_its_own_noise_of_the_models_size():
    model = Line([1.0, 1.0], sigma=0.5)
    imagined = rollout(model, start(), torch.zeros(50, 20, 1).double(), particles=200,
                       generator=seeded())  # fmt: skip
    steps = imagined.state.squeeze(-1).diff(dim=-1)
    assert steps.std().item() == pytest.approx(0.5, rel=0.01)
    assert steps.mean().item() == pytest.approx(0.0, abs=0.5 * 4 / math.sqrt(steps.numel()))
    flat = steps.flatten()
    assert len(flat.unique()) == len(flat)


# Termination


def test_rewards_after_a_termination_do_not_count():
    """Both move by 1 and terminate beyond 2.5; the rewards are 1, 2, 3 and then 0."""
    model = Line([1.0, 1.0], ends_above=2.5)
    walk = plans([1.0] * 6)
    imagined = rollout(model, start(), walk, particles=2, generator=seeded())
    assert imagined.state[0].flatten().tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert imagined.alive[0, 0].tolist() == [True] * 3 + [False] * 3
    assert imagined.terminated[0, 0].tolist() == [False, False, True, False, False, False]
    assert imagined.returns().flatten().tolist() == [6.0, 6.0]
    score = score_fn(model, start(), particles=2, horizon=6, generator=seeded())
    assert score(walk).item() == 6.0
    known = score_fn(Line([1.0]), start(), particles=1, horizon=6, generator=seeded(),
                     terminated=lambda obs: obs[..., 0] > 1.5)  # fmt: skip
    assert known(walk).item() == 3.0
    never = score_fn(model, start(), particles=2, horizon=6, generator=seeded(),
                     terminated=lambda obs: obs[..., 0] > 99)  # fmt: skip
    assert never(walk).item() == 21.0


def test_each_particle_terminates_at_its_own_time():
    """The second member is half as fast: 1 + 2 + 3, and 0.5 + 1 + ... + 3."""
    model = Line([1.0, 1.0], b=[1.0, 0.5], ends_above=2.75)
    score = score_fn(model, start(), particles=2, horizon=9, generator=seeded())
    assert score(plans([1.0] * 9, [-1.0] * 9)).tolist() == [(6 + 10.5) / 2, -0.75 * 45]


@pytest.mark.parametrize("propagation", ["expectation", "distribution"])
def test_a_majority_of_the_members_decides_termination_if_all_predict_each_particle(propagation):
    model = Line([1.0] * 3, b=[1.0, 1.0, -8.0], ends_above=0.5)
    imagined = rollout(model, start(), plans([1.0, 1.0]), particles=3, propagation=propagation,
                       generator=seeded())  # fmt: skip
    assert imagined.terminated[:, 0, 0].all()
    assert not imagined.alive[:, 0, 1].any()


@pytest.mark.parametrize("what", ["state", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
def test_a_divergence_after_the_termination_rejects_no_plan(what, value, propagation):
    """The model diverges beyond 2.5, where every trajectory has terminated."""
    model = Bad(wall=3.5, value=value, what=what, ends_above=2.5)
    walk = plans([1.0] * 6)
    score = score_fn(model, start(), particles=2, horizon=6, propagation=propagation,
                     generator=seeded())  # fmt: skip
    assert score(walk).item() == 6.0
    imagined = rollout(model, start(), walk, particles=2, propagation=propagation,
                       generator=seeded())  # fmt: skip
    assert (imagined.returns() == 6.0).all()
    endless = score_fn(model, start(), particles=2, horizon=6, propagation=propagation,
                       terminated=lambda obs: obs[..., 0] > 100, generator=seeded())  # fmt: skip
    assert endless(walk).item() == -math.inf


# Propagations against the true distribution of returns


STRIDES, SIGMA, HORIZON, EDGE = (0.06, 0.08, 0.10, 0.12, 0.14), 0.03, 12, 1.4
"""A walker whose stride is unknown, one of five values, with a little noise."""


def along_the_cliff(obs, action, next_obs):
    """Rewards nearness to the edge; beyond it, -3."""
    at = next_obs[..., 0]
    return torch.where(at > EDGE, -3.0, at.square())


def true_returns(count=200_000):
    """Returns by simulation without the library, with a constant unknown stride per trajectory."""
    rng = np.random.default_rng(0)
    stride = rng.choice(STRIDES, count)
    at, total = np.zeros(count), np.zeros(count)
    for _ in range(HORIZON):
        at += stride + SIGMA * rng.standard_normal(count)
        total += np.where(at > EDGE, -3.0, at**2)
    return total


def worst_tenth(returns):
    return np.sort(returns)[: -(-len(returns) // 10)].mean()


def test_only_tsinf_gives_the_true_distribution_of_returns_with_an_unknown_parameter():
    """TS∞ is unbiased. The others average over the parameter and underestimate the risk.

    Truth: 200 000 walks in numpy. Margins: TS∞ within four standard errors in the mean and 3 % in
    std and CVaR; the others' std of the return below 0.75 of the truth and their CVaR too high by
    more than 20 % of the true std; the expectation's mean is wrong by more than ten times TS∞'s
    tolerance.
    """
    truth = true_returns()
    mean, std, tail = truth.mean(), truth.std(), worst_tenth(truth)
    model = Line([1.0] * 5, b=STRIDES, sigma=SIGMA)
    walk = torch.ones(1, HORIZON, 1, dtype=torch.float64)
    count = 50_000
    found, ends = {}, {}
    for propagation in PROPAGATIONS:
        imagined = rollout(model, start(), walk, particles=count, propagation=propagation,
                           reward=along_the_cliff, generator=seeded())  # fmt: skip
        returns = imagined.returns().flatten().numpy()
        found[propagation] = returns.mean(), returns.std(), worst_tenth(returns)
        ends[propagation] = imagined.state[:, 0, -1, 0].var(correction=0).item()
    print(f"\n{'':14}{'mean':>8}{'std':>8}{'CVaR 0.1':>10}")
    for name, row in {"truth": (mean, std, tail), **found}.items():
        print(f"{name:14}" + "".join(f"{value:9.3f}" for value in row))

    tolerance = 4 * std * math.sqrt(1 / count + 1 / len(truth))
    assert abs(found["tsinf"][0] - mean) < tolerance
    assert found["tsinf"][1] == pytest.approx(std, rel=0.03)
    assert found["tsinf"][2] == pytest.approx(tail, rel=0.03)
    for name in ("ts1", "moment", "distribution"):
        assert found[name][1] < 0.75 * std
        assert found[name][2] > tail + 0.2 * std
    assert abs(found["expectation"][0] - mean) > 10 * tolerance

    # In closed form the place after H steps has variance H² Var θ + H σ² if strides are constant,
    # and H (Var θ + σ²) if they are redrawn.
    doubt = np.var(STRIDES)
    assert ends["tsinf"] == pytest.approx(HORIZON**2 * doubt + HORIZON * SIGMA**2, rel=0.03)
    for name in ("ts1", "moment", "distribution"):
        assert ends[name] == pytest.approx(HORIZON * (doubt + SIGMA**2), rel=0.03)
    assert ends["expectation"] == 0.0


def test_scores_with_few_particles_are_unbiased():
    """The mean over 400 scores with TS∞ and 20 particles is the true mean return."""
    truth = true_returns()
    model = Line([1.0] * 5, b=STRIDES, sigma=SIGMA)
    walk = torch.ones(1, HORIZON, 1, dtype=torch.float64)
    scores = [
        score_fn(model, start(), particles=20, horizon=HORIZON, reward=along_the_cliff,
                 generator=seeded(seed))(walk).item()
        for seed in range(400)
    ]  # fmt: skip
    assert np.mean(scores) == pytest.approx(truth.mean(), abs=4 * np.std(scores) / 20)


def test_moment_matching_leaves_out_particles_that_have_ended():
    """Steps keep the mean and add std 2; below 6, one std lower, they terminate.

    The others continue from the mean of a normal truncated at -1 std, 8 + 2 φ(1) / Φ(1).
    """

    class Cliff(Line):
        def predict(self, state, action):
            mean, std = super().predict(state, action)
            return Gaussian(torch.where(state < 6.0, torch.nan, mean), std)

    imagined = rollout(
        Cliff([1.0], sigma=2.0), start(8.0), plans([0.0, 0.0]), particles=40_000,
        propagation="moment", terminated=lambda obs: obs[..., 0] < 6.0, generator=seeded(),
    )  # fmt: skip
    ended = imagined.terminated[:, 0, 0]
    assert ended.double().mean().item() == pytest.approx(0.1587, abs=0.01)
    after = imagined.state[~ended, 0, 2, 0]
    assert after.mean().item() == pytest.approx(8 + 2 * 0.2420 / 0.8413, abs=0.06)
    assert torch.equal(imagined.state[ended, 0, 2], imagined.state[ended, 0, 1])


@pytest.mark.parametrize("settings", [{"propagation": "moment"}, {"penalty": 1.0}])
def test_a_model_without_predict_is_refused_by_propagations_that_need_a_gaussian(settings):
    class Bare:
        members, noise_shape = 1, (1,)

        def encode(self, obs, *, state=None, action=None):
            return obs

        def decode(self, state):
            return state

        def step(self, state, action, *, noise):
            raise AssertionError("not reached")

    with pytest.raises(ValueError, match="predicts a Gaussian, which Bare does not"):
        score_fn(Bare(), start(0.0), particles=1, horizon=1, generator=seeded(), **settings)
