"""Repeated actions: rewards are summed, and an episode's end stops the repetition."""

import gymnasium
import numpy as np
import pytest

import envs
from mbrl.spaces import spec_of


class Counting(gymnasium.Env):
    """Pays 1, 2, 3, ... and terminates at step 5."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        done = self.count == 5
        return np.full(1, self.count, np.float32), float(self.count), done, False, {}


def test_rewards_are_summed_until_the_end():
    env = envs.ActionRepeat(Counting(), 3)
    env.reset()
    obs, reward, terminated, truncated, _ = env.step(np.zeros(1))
    assert (obs[0], reward, terminated, truncated) == (3, 1 + 2 + 3, False, False)
    obs, reward, terminated, truncated, _ = env.step(np.zeros(1))
    assert (obs[0], reward, terminated, truncated) == (5, 4 + 5, True, False)


def test_a_time_limit_counts_steps_and_its_spec_counts_actions():
    plain, repeated = envs.make("dmc-cartpole-swingup"), None
    repeated = envs.make("dmc-cartpole-swingup", action_repeat=3)
    assert spec_of(plain).episode_steps == 1000 and spec_of(repeated).episode_steps == 334
    plain.reset(seed=0), repeated.reset(seed=0)
    total, actions, truncated = 0.0, 0, False
    while not truncated:
        _, reward, terminated, truncated, _ = repeated.step(np.full(1, 0.1))
        total, actions = total + reward, actions + 1
        assert not terminated
    assert actions == 334
    assert total == pytest.approx(sum(plain.step(np.full(1, 0.1))[1] for _ in range(1000)))


def test_several_steps_reward_is_not_offered_as_a_function_of_observations():
    plain, repeated = (envs.make("dmc-cartpole-swingup", action_repeat=k) for k in (1, 2))
    assert spec_of(plain).reward is not None and spec_of(repeated).reward is None
    assert not spec_of(repeated).ends
    assert "sum over 2 steps" in repeated.metadata["known"]["why"]


def test_vectors_of_repeated_environments_have_its_spec():
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda: envs.make("dmc-cartpole-swingup", action_repeat=2)] * 2
    )
    assert spec_of(vector).episode_steps == 500


@pytest.mark.parametrize("times", [0, -1, 1.5, True])
def test_other_numbers_are_refused(times):
    with pytest.raises(ValueError, match=r"action_repeat must be an integer of at least 1"):
        envs.ActionRepeat(Counting(), times)
    if times is not True:
        with pytest.raises(ValueError, match="action_repeat"):
            envs.make("dmc-pendulum-swingup", action_repeat=times)
