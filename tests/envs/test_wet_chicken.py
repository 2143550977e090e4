import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scipy import stats

import envs
from envs import WetChicken


def test_the_continuous_wet_chicken_follows_its_equations():
    env = envs.make("wet-chicken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    obs, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    gusts, falls = [], 0
    for _ in range(100):
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        assert reward == float(WetChicken.reward(obs, action, after)) == after[1]
        assert not terminated and not WetChicken.terminated(after)
        speed = 3 * obs[0] / 5
        gust = (after[1] - (obs[1] + action[1] - 1 + speed)) / (3.5 - speed)
        if after[1] > 0:  # neither after a fall nor at the upper end
            gusts.append(float(gust))
            assert after[0] == pytest.approx(np.clip(obs[0] + action[0], 0, 5), abs=1e-6)
        falls += bool((after == 0).all())
        obs = after
    assert truncated and falls and len(gusts) > 30
    assert min(gusts) >= -1 - 1e-5 and max(gusts) <= 1 + 1e-5
    batch = torch.rand(3, 4, 2)
    assert WetChicken.reward(None, None, batch).shape == (3, 4)
    assert WetChicken.terminated(batch).dtype == torch.bool
    assert not WetChicken.terminated(np.array([1.0, -0.1]))  # as a model may predict


def test_the_turbulence_of_the_wet_chicken_is_uniform():
    env = WetChicken()
    env.reset(seed=1)
    gusts = []
    for _ in range(4000):
        env._position = np.array([2.5, 2.5], np.float32)
        after, *_ = env.step(np.array([0.0, 1.0]))  # y = 2.5 + 1.5 + 2 τ, in [2, 6]
        gusts.append((after[1] - 4) / 2 if after[1] else 1.0)
    below = [gust for gust in gusts if gust < 0.5]  # above 0.5 the boat falls
    assert stats.kstest(below, stats.uniform(-1, 1.5).cdf).pvalue > 0.01
    assert stats.binomtest(len(gusts) - len(below), len(gusts), 0.25).pvalue > 0.01


def test_the_wet_chicken_refuses_bad_actions_by_name():
    env = WetChicken()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2))
    env.reset(seed=0)
    for wrong in (np.zeros(3), np.array([np.nan, 0])):
        with pytest.raises(ValueError, match=r"wet-chicken: an action is finite and of shape \(2,"):
            env.step(wrong)
    with pytest.raises(ValueError, match="no render mode 'human'"):
        WetChicken(render_mode="human")
