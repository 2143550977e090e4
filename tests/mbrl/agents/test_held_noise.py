"""Noise that is held, compared with Zeta's law and with the policy's own formula."""

from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import sac
from mbrl.agents.held_noise import HeldNoise
from mbrl.learners.configs import SACConfig
from mbrl.types import Spec

SPEC = Spec(
    gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
    gymnasium.spaces.Box(np.float32([-1, -3]), np.float32([1, 0.5])),
    ends=False,
    episode_steps=6,
)
OBS = np.float32([[0.1, -0.2], [0.1, -0.2], [1.0, 2.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def agent(most=16, seed=0, **settings):
    config = sac.Config(
        hold_noise=most, random_steps=0, learner=SACConfig(hidden=(8,), discount=0.9), **settings
    )
    return sac.make(SPEC, config, generator=seeded(seed))


def times(seeds):
    """Lengths of the runs of equal numbers, without the last one."""
    lengths, last = [0], seeds[0]
    for seed in seeds:
        if seed != last:
            lengths.append(0)
        lengths[-1] += 1
        last = seed
    return lengths[:-1]


def test_times_follow_zetas_law():
    """Chi-squared against n^-2 / Σ n^-2 up to 16; its 0.999 quantile for 15 degrees is 37.7."""
    held, generator = HeldNoise(16), seeded(3)
    seen = times([held.next(generator).initial_seed() for _ in range(60_000)])
    chances = 1 / np.arange(1, 17) ** 2
    expected = len(seen) * chances / chances.sum()
    counts = np.bincount(seen, minlength=17)[1:]
    assert len(counts) == 16 and len(seen) > 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 37.7


def test_a_time_of_one_draws_fresh_noise_in_each_step():
    held, generator = HeldNoise(1), seeded(3)
    assert times([held.next(generator).initial_seed() for _ in range(100)]) == [1] * 99


def test_the_noise_stays_while_the_state_changes():
    """Actions are centre + half · tanh(mean + std · noise), with one noise for each time."""
    made, noises = agent(), []
    half, centre = np.float32([1, 1.75]), np.float32([0, -1.25])
    for k in range(200):
        obs = OBS + 0.005 * k
        action = made.act(obs, explore=True)
        policy = made.learner.policy.distribution(torch.as_tensor(obs))
        raw = np.arctanh(((action - centre) / half).astype(np.float64))
        noises.append((raw - policy.mean.numpy()) / policy.log_std.exp().numpy())
    steps = [np.abs(b - a).max() < 1e-2 for a, b in pairwise(noises)]
    assert 40 < sum(steps) < 160
    for same, (before, after) in zip(steps, pairwise(noises), strict=True):
        apart = np.abs(after - before).max(1)
        assert (apart < 1e-2).tolist() == 3 * [same]  # all environments at once
    assert np.abs(noises[0][0] - noises[0][1]).min() > 1e-2  # each its own


def test_fresh_noise_by_default():
    made = agent(most=1)
    actions = np.stack([made.act(OBS, explore=True) for _ in range(50)])
    assert np.abs(np.diff(actions, axis=0)).min(axis=(1, 2)).min() > 0


def test_playing_without_exploration_neither_uses_nor_ends_a_time():
    one, other = agent(), agent()
    best = one.act(OBS, explore=False)
    for _ in range(30):
        assert np.array_equal(one.act(OBS, explore=False), best)
        assert np.array_equal(one.act(OBS, explore=True), other.act(OBS, explore=True))
    player = one.player(generator=seeded(5))
    for _ in range(30):
        player.act(OBS, explore=True)
        assert np.array_equal(one.act(OBS, explore=True), other.act(OBS, explore=True))


def test_a_time_goes_on_after_a_resume():
    one = agent()
    for k in range(40):
        again = agent(seed=9)
        again.load_state_dict(one.state_dict())
        action = one.act(OBS, explore=True)
        assert np.array_equal(again.act(OBS, explore=True), action), k


@pytest.mark.parametrize("state", [{"seed": -1, "left": 0}, {"seed": 1, "left": -1}])
def test_a_state_out_of_range_is_refused(state):
    with pytest.raises(ValueError, match="held: seed and left must be >= 0"):
        HeldNoise(16).load_state_dict(state)


@pytest.mark.parametrize("most", [0, 1001])
def test_times_out_of_range_are_refused(most):
    with pytest.raises(ValueError, match="hold_noise"):
        agent(most=most)
