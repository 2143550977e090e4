"""Estimates of REINFORCE and the off-policy gradient, against exact gradients of a small MDP."""

import math

import numpy as np
import pytest
import torch

from mbrl.learners.episodes import episodes, one_column, step_of
from mbrl.learners.off_policy_pg import OffPolicyPG, in_columns
from mbrl.learners.on_policy_configs import OffPolicyPGConfig, ReinforceConfig
from mbrl.learners.reinforce import Reinforce
from mbrl.parallel import single_thread
from mbrl.types import Transition

STATES, ACTIONS, HORIZON, DISCOUNT = 3, 2, 4, 0.8
START = np.array([0.6, 0.4, 0.0])
NEXT = np.array([
    [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]],
    [[0.7, 0.1, 0.2], [0.2, 0.2, 0.6]],
    [[0.3, 0.3, 0.4], [0.1, 0.8, 0.1]],
])  # fmt: skip
REWARD = np.array([[1.0, 0.2], [-0.5, 2.0], [0.7, 1.5]])
ENDS = np.array([0.0, 0.1, 0.4])  # probability that a step from this state terminates
OTHER = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])  # another policy's probabilities


@pytest.fixture(autouse=True)
def one_thread():
    """Threads make thousands of small products slow."""
    with single_thread():
        yield


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learner(kind, config, seed=3, **settings):
    """A linear policy of one-hot states, not near uniform, whose settings are exact ones."""
    own = config(hidden=(), orthogonal=False, discount=DISCOUNT, from_start=True, **settings)
    return kind(STATES, ACTIONS, own, generator=seeded(seed))


def plain(**settings):
    return learner(Reinforce, ReinforceConfig, normalise=False, **settings)


def probabilities(made):
    """π (S, A) as a differentiable function of the parameters, in float64."""
    (weight,), (bias,) = made.actor.module.net.weights, made.actor.module.net.biases
    return (torch.eye(STATES).double() @ weight[0].double() + bias[0].double()).softmax(-1)


def exact(made, *, from_start=True, visits=None, values=None):
    """Σ_t Σ_s γ^t d_t(s) Σ_a ∇π(a | s) Q_t(s, a), by dynamic programming, as one vector.

    Without `from_start` γ^t is left out. `visits` and `values` are policies (S, A) whose states are
    visited and whose Q is taken, both π if None.
    """
    policy = probabilities(made)
    pi = policy.detach().numpy()
    visiting, valuing = (pi if other is None else other for other in (visits, values))
    moves = NEXT * (1 - ENDS)[:, None, None]
    q, later = [], np.zeros(STATES)
    for _ in range(HORIZON):
        q.insert(0, REWARD + DISCOUNT * moves @ later)
        later = (valuing * q[0]).sum(-1)
    total, at = torch.zeros(()).double(), START
    for t in range(HORIZON):
        weight = torch.from_numpy(at[:, None] * q[t] * (DISCOUNT**t if from_start else 1.0))
        total = total + (policy * weight).sum()
        at = np.einsum("s,sa,sap->p", at, visiting, moves)
    parameters = [*made.actor.module.parameters()]
    return torch.cat([x.flatten() for x in torch.autograd.grad(total, parameters)]).numpy()


def sampled(policy, count, rng):
    """`count` episodes of a policy (S, A), one after another, and the log-probabilities."""
    cut = policy.cumsum(-1)
    rows, log_probs = [], []
    state = rng.choice(STATES, count, p=START)
    running = np.ones(count, bool)
    for t in range(HORIZON):
        action = (rng.random(count) > cut[state, 0]).astype(int)
        after = (rng.random((count, 1)) > NEXT[state, action].cumsum(-1)[:, :2]).sum(-1)
        ends = rng.random(count) < ENDS[state]
        cutoff = np.full(count, t == HORIZON - 1)
        rows.append((state, action, REWARD[state, action], after, ends, cutoff & ~ends, running))
        log_probs.append(np.log(policy[state, action]))
        running, state = running & ~ends, after
    # (T, count) -> episodes one after another, without what lies behind their ends
    columns = [np.stack(column).T for column in zip(*rows, strict=True)]
    there = columns.pop()
    state, action, reward, after, ends, cutoff = (torch.from_numpy(x[there]) for x in columns)
    eye = torch.eye(STATES)
    batch = Transition(eye[state], action, reward.float(), eye[after], ends, cutoff)
    return batch, torch.from_numpy(np.stack(log_probs).T[there]).float()


def on_policy(made, batches, size, seed=0):
    """Gradient estimates (batches, D) from `size` episodes each."""
    rng, pi = np.random.default_rng(seed), probabilities(made).detach().numpy()
    found = []
    for _ in range(batches):
        batch = one_column(sampled(pi, size, rng)[0])
        episode = episodes(batch.terminated | batch.truncated)
        psi = made.returns(batch)
        if made.config.baseline == "optimal":
            found.append(made.optimal_gradient(batch, psi, episode).numpy().copy())
        else:
            found.append(-made.actor.gradient(made.loss(batch, psi, episode)).numpy())
    return np.stack(found)


def off_policy(made, batches, size, seed=0):
    rng, found = np.random.default_rng(seed), []
    for _ in range(batches):
        batch, log_prob = sampled(OTHER, size, rng)
        loss, _ = made.loss(*in_columns(batch, log_prob))
        found.append(-made.actor.gradient(loss).numpy())
    return np.stack(found)


def agrees(estimates, truth):
    """Within 4 standard errors in each parameter, and these are small enough to tell."""
    error = estimates.std(0, ddof=1) / math.sqrt(len(estimates))
    assert np.abs(truth).max() > 10 * error.max()
    assert (np.abs(estimates.mean(0) - truth) < 4 * error + 1e-7).all()


PSI = {
    "whole return": {"to_go": False, "baseline": "none"},
    "reward to go": {"baseline": "none"},
    "mean baseline": {"baseline": "mean"},
    "mean baseline of whole returns": {"to_go": False, "baseline": "mean"},
    "optimal baseline": {"baseline": "optimal"},
    "optimal baseline of whole returns": {"to_go": False, "baseline": "optimal"},
    "value": {"baseline": "value"},
}


@pytest.mark.parametrize("name", PSI)
def test_the_gradient_of_each_weight_is_unbiased(name):
    made = plain(**PSI[name])
    agrees(on_policy(made, 400, 10), exact(made))


def test_without_discounts_from_the_start_states_are_not_discounted():
    made = plain(baseline="mean")
    object.__setattr__(made.config, "from_start", False)
    truth = exact(made, from_start=False)
    agrees(on_policy(made, 400, 10), truth)
    assert np.abs(truth - exact(made)).max() > 0.1 * np.abs(truth).max()


def test_each_choice_of_weight_has_less_variance_than_the_one_before():
    """Rewards-to-go, then the mean and the optimal baseline; traces of the covariance."""

    def trace(name):
        return on_policy(plain(**PSI[name]), 400, 10).var(0).sum()

    whole, to_go, mean = map(trace, ("whole return", "reward to go", "mean baseline"))
    best, best_whole = trace("optimal baseline"), trace("optimal baseline of whole returns")
    assert whole > 1.2 * to_go > 1.2 * 1.2 * mean
    assert whole > 1.2 * best_whole and to_go > 1.2 * best


@pytest.mark.parametrize("over", ["trajectory", "causal"])
def test_the_off_policy_gradient_is_unbiased(over):
    made = learner(OffPolicyPG, OffPolicyPGConfig, over=over)
    agrees(off_policy(made, 500, 40), exact(made))


def test_ratios_of_single_steps_take_states_and_values_of_the_other_policy():
    made = learner(OffPolicyPG, OffPolicyPGConfig, over="step")
    truth = exact(made, visits=OTHER, values=OTHER)
    agrees(off_policy(made, 500, 40), truth)
    assert np.abs(truth - exact(made)).max() > 0.05 * np.abs(truth).max()


@pytest.mark.parametrize("length", [2, 4, 8])
def test_the_variance_of_ratios_grows_geometrically_with_the_length_of_episodes(length):
    """In one state it is (Σ π² / μ)^T - 1; that of single steps stays the same."""
    rng, count = np.random.default_rng(1), 40_000
    made = {
        over: learner(OffPolicyPG, OffPolicyPGConfig, over=over) for over in ("trajectory", "step")
    }
    pi, mu = probabilities(made["step"]).detach().numpy()[0], np.array([0.65, 0.35])
    action = torch.from_numpy(rng.choice(2, size=length * count, p=mu))
    obs = torch.eye(STATES)[:1].expand(length * count, -1)
    ends = (torch.arange(length * count) + 1) % length == 0
    batch = Transition(obs, action, torch.ones(length * count), obs, ends, torch.zeros_like(ends))
    log_prob = torch.from_numpy(np.log(mu)).float()[action]
    second = float((pi**2 / mu).sum())
    assert second > 1.05
    for over, wanted in (("trajectory", second**length - 1), ("step", second - 1)):
        _, ratio = made[over].loss(*in_columns(batch, log_prob))
        assert ratio.shape == (length, count)
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
        assert float(ratio[-1].var()) == pytest.approx(wanted, rel=0.1)


def test_episodes_are_numbered_and_their_steps_counted():
    ends = torch.tensor([0, 1, 1, 0, 0, 1]).bool()
    assert episodes(ends).tolist() == [0, 0, 1, 2, 2, 2]
    assert step_of(episodes(ends)).tolist() == [0, 1, 0, 0, 1, 2]


def test_columns_are_put_one_after_another_and_end_at_their_last_row():
    time = torch.arange(3.0)[:, None] + torch.tensor([0.0, 10.0])
    none = torch.zeros(3, 2, dtype=torch.bool)
    batch = Transition(time[..., None], time, time, time[..., None], none, none)
    made = one_column(batch)
    assert made.reward.tolist() == [0, 1, 2, 10, 11, 12]
    assert made.truncated.tolist() == [False, False, True] * 2
    assert not batch.truncated.any()
