"""Rules of trust compared with loops over single trajectories, and with closed forms."""

import math

import numpy as np
import pytest
import torch

from mbrl.imagination import branched
from mbrl.imagination.trust import Infoprop, InformationLimits, Macura, predicted
from mbrl.types import Dynamics, Gaussian, Step


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Apart:
    """Two members, x' = 1.5 x + u ± gap(x) with a std; the reward, where asked for, is x' / 2.

    Without noise both take the mean of the two, so that trajectories are known.
    """

    members, noise_shape = 2, (1,)

    def __init__(self, std=1.0, gap=lambda x: x):
        self.std, self.gap = std, gap

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def predict(self, state, action):
        signs = torch.tensor([1.0, -1.0])[:, None, None]
        mean = 1.5 * state + action + signs * self.gap(state)
        mean = torch.cat((mean, mean / 2), -1)
        return Gaussian(mean, torch.full_like(mean, self.std))

    def step(self, state, action, *, noise):
        after = 1.5 * state + action
        return Step(after, state[..., 0] * 0, after[..., 0] > 50)


def policy(state, *, generator, explore):
    return 0.1 - 0.2 * state


def path(x, steps):
    states = []
    for _ in range(steps):
        states.append(x)
        x = 1.5 * x + 0.1 - 0.2 * x
    return states


STARTS = torch.linspace(0.05, 3.0, 200)[:, None]


def test_kappa_is_the_mean_of_the_limits_of_all_bursts():
    """u = (2x)² / (4 · 2) = x² / 2 for means x apart on each side, with a std of 1."""
    rule, model = Macura(factor=3.0, quantile=0.9), Apart()
    assert rule.kappa == 0
    limits = []
    for seed in range(3):
        x = torch.rand(37, 1, generator=seeded(seed)) * (seed + 1)
        rule.begin(model, x, 0 * x)
        limits.append(3 * np.quantile((x**2 / 2).numpy(), 0.9))
        assert rule.kappa == pytest.approx(np.mean(limits), rel=1e-5)
    other = Macura(factor=3.0, quantile=0.9)
    other.load_state_dict(rule.state_dict())
    x = torch.ones(5, 1)
    rule.begin(model, x, x)
    other.begin(model, x, x)
    assert other.kappa == rule.kappa
    with pytest.raises(ValueError, match="kappa and bursts must be >= 0"):
        rule.load_state_dict({"kappa": math.nan, "bursts": 1})


def test_a_learned_reward_counts_too():
    x = torch.tensor([[2.0]])
    with_reward, without = (
        Macura(factor=1.0, quantile=0.5, reward=reward) for reward in (True, False)
    )
    # means of the reward are half as far apart
    assert without.divergence(Apart(), x, x).item() == pytest.approx(2.0)
    assert with_reward.divergence(Apart(), x, x).item() == pytest.approx(2.0 + 0.5)


def test_a_rollout_of_macura_goes_on_while_its_members_agree():
    rule = Macura(factor=1.0, quantile=1.0)
    rule.kappa = 5.0
    found = branched(
        Apart(), STARTS, policy, horizon=6, halt=rule.halt(Apart()), generator=seeded()
    )
    lengths = []
    for start in STARTS[:, 0].tolist():
        inside = [x**2 / 2 < 5 for x in path(start, 6)]
        lengths.append(inside.index(False) if False in inside else 6)
    assert len({*lengths}) > 3
    assert len(found.transitions.reward) == sum(lengths)
    assert found.steps == pytest.approx(np.mean(lengths))
    assert found.halted == pytest.approx(np.mean([length < 6 for length in lengths]))


def test_states_that_are_not_numbers_end_a_rollout():
    rule = Macura(factor=1.0, quantile=0.5)
    rule.kappa = 1.0
    x = torch.tensor([[[math.nan], [0.1]], [[0.1], [math.inf]]])
    ends = rule.halt(Apart())()(0, x, x, None)
    assert ends.tolist() == [[True, False], [False, True]]


def test_information_adds_up_and_ends_a_rollout():
    """Brute force of both limits, with so many rollouts that ended ones are not stepped on."""
    model = Infoprop(Apart(), unit=0.01)
    limits = InformationLimits(model, torch.tensor([8.3]), torch.tensor([30.0]))
    found = branched(Apart(), STARTS, policy, horizon=8, halt=limits.halt, generator=seeded())
    lengths, reasons = [], set()
    for start in STARTS[:, 0].tolist():
        total = count = 0
        for x in path(start, 8):
            left = 1 * x**2 / (1 + x**2)  # (1 - K) Σ̄ with Var = x²
            lost = max(0.5 * math.log2(2 * math.pi * math.e * left) - math.log2(0.01), 0)
            total += lost
            if lost > 8.3 or total > 30:
                reasons.add((lost > 8.3, total > 30))
                break
            count += 1
        lengths.append(count)
    assert {(True, False), (False, True)} <= reasons and len({*lengths}) > 3
    assert len(found.transitions.reward) == sum(lengths)
    assert found.steps == pytest.approx(np.mean(lengths))


def test_limits_are_quantiles_of_what_real_steps_lose():
    model = Infoprop(Apart(), unit=0.01)
    x = torch.rand(5000, 1, generator=seeded())  # more than are measured at a time
    lost = model.lost(x, x).numpy()
    limits = InformationLimits.of(model, x, x, step=0.99, total=0.1, steps=20)
    assert limits.step.numpy() == pytest.approx(np.quantile(lost, 0.99, axis=0), rel=1e-5)
    assert limits.total.numpy() == pytest.approx(20 * np.quantile(lost, 0.1, axis=0), rel=1e-5)


def test_models_without_spread_are_refused():
    x = torch.ones(4, 1)
    with pytest.raises(ValueError, match="macura: needs a model whose predictions have a positive"):
        Macura(factor=1.0, quantile=0.5).begin(Apart(std=0.0), x, x)
    with pytest.raises(ValueError, match="infoprop: needs a model whose predictions have a pos"):
        InformationLimits.of(Infoprop(Apart(std=0.0)), x, x, step=0.9, total=0.1, steps=5)


def test_a_fused_step_by_hand():
    """Members at 3 ± 1 with a std of 2: Σ̄ = 4, Var = 1, K = 4/5."""
    model = Infoprop(Apart(std=2.0, gap=lambda x: 0 * x + 1), reward=True)
    assert isinstance(model, Dynamics) and model.members == 2 and model.noise_shape == (2,)
    state, action = torch.full((2, 1, 1), 2.0), torch.zeros(2, 1, 1)
    noise = torch.tensor([[[0.5, 1.0]], [[-1.0, 0.25]]])
    step = model.step(state, action, noise=noise)
    # samples 4 + 2 · 0.5 and 2 - 2; then √(4 · 1/5) times the second number
    left = math.sqrt(0.8)
    wanted = [3 + 0.8 * (5 - 3) + left, 3 + 0.8 * (0 - 3) + 0.25 * left]
    assert step.state[:, 0, 0].tolist() == pytest.approx(wanted)
    # of the reward: members at (3 ± 1) / 2, K = 4 / (4 + 1/4), without noise
    gain = 4 / 4.25
    assert step.reward[:, 0].tolist() == pytest.approx([1.5 + 0.5 * gain, 1.5 - 0.5 * gain])
    mean = model.step(state, action, noise=None)
    assert mean.state[:, 0, 0].tolist() == pytest.approx([3.8, 2.2])
    assert not step.terminated.any()


def test_fused_steps_have_the_variance_of_the_fused_noise():
    """However far the members are apart: K² (Σ̄ + Var) + (1 - K) Σ̄ = Σ̄."""
    model = Infoprop(Apart(std=0.5, gap=lambda x: 0 * x + 2))
    rows = torch.full((2, 100_000, 1), 2.0)
    noise = torch.randn(2, 100_000, 2, generator=seeded())
    after = model.step(rows, 0 * rows, noise=noise).state
    assert float(after.mean()) == pytest.approx(3.0, abs=0.01)
    assert float(after.var()) == pytest.approx(0.25, rel=0.02)


def test_terminations_are_decided_by_a_majority():
    model = Infoprop(Apart(), termination=True)
    rows = torch.tensor([[[10.0], [40.0]], [[40.0], [10.0]]])
    ended = model.step(rows, 0 * rows, noise=None).terminated
    assert ended.tolist() == [[False, True], [True, False]]


def test_predictions_of_any_leading_dimensions():
    x = torch.rand(2, 3, 1, generator=seeded())
    mean, std = predicted(Apart(), x, x, reward=True)
    assert mean.shape == std.shape == (2, 2, 3, 2)
    torch.testing.assert_close(mean[0, ..., :1], 2.5 * x + x)
