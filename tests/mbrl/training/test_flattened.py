"""Environments whose observations are a dict or a tuple."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Sequence, Tuple

import envs
import mbrl
from mbrl.agents import ppo, sac
from mbrl.learners.configs import SACConfig
from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.spaces import flattened, spec_of
from mbrl.training import EnvironmentError, RunConfig, evaluate, load_run, vector
from mbrl.training.metrics import METRICS, read_metrics
from mbrl.training.runs import train_run


class Signal(gymnasium.Env):
    """Ten steps towards the place that a signal says: an index from 1 to 3."""

    observation_space: gymnasium.Space = Dict(
        {"place": Box(-np.inf, np.inf, (2,), np.float32), "again": Discrete(3, start=1)}
    )
    action_space = Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.standard_normal(2).astype(np.float32)
        self.signal, self.steps = int(self.np_random.integers(1, 4)), 0
        return self.seen(), {}

    def seen(self):
        return {"place": self.place, "again": self.signal}

    def step(self, action):
        self.place = (self.place + action).astype(np.float32)
        self.steps += 1
        return self.seen(), -float(abs(self.place - self.signal).sum()), False, self.steps >= 10, {}


class Pair(Signal):
    observation_space = Tuple((Signal.observation_space["place"], MultiBinary(2)))  # type: ignore[index]

    def seen(self):
        return self.place, np.array([self.signal > 1, self.signal > 2], np.int8)


class Unsized(Signal):
    observation_space = Dict(place=Signal.observation_space["place"], words=Sequence(Discrete(2)))  # type: ignore[index]


CONFIGS = {
    "sac": sac.Config(learning_starts=10, batch=8, log_every=10, learner=SACConfig(hidden=(8,))),
    "ppo": ppo.Config(
        rollout=10, learner=PPOConfig(hidden=(8,), epochs=2)
    ),
}  # fmt: skip


def test_a_dict_becomes_its_parts_one_after_the_other_in_the_order_of_its_space():
    for env in (vector(Signal()), vector([Signal, Signal])):
        obs, _ = env.reset(seed=3)
        raw, _ = Signal().reset(seed=3)
        hot = [float(raw["again"] == i) for i in (1, 2, 3)]
        np.testing.assert_allclose(obs[0], [*hot, *raw["place"]])
        assert env.single_observation_space.shape == (5,) == spec_of(Signal()).obs.shape
        after = env.step(np.ones((env.num_envs, 2), np.float32))[0]
        np.testing.assert_allclose(after[0], [*hot, *(raw["place"] + 1)])


def test_a_tuple_becomes_its_parts_one_after_the_other():
    env = vector(Pair())
    raw, _ = Pair().reset(seed=5)
    np.testing.assert_allclose(env.reset(seed=5)[0][0], np.concatenate([*raw]))


def test_other_environments_are_left_as_they_are():
    env = gymnasium.make("Pendulum-v1")
    assert flattened(env) is env
    unsized = Unsized()
    assert flattened(unsized) is unsized


def test_what_is_known_of_an_environment_and_its_limit_are_kept():
    def reward(obs, action, next_obs):
        signal = next_obs[..., :3] @ np.array([1, 2, 3])
        return -abs(next_obs[..., 3:] - signal[..., None]).sum(-1)

    name = envs.register(Signal, name="signal-of-a-test", reward=reward, terminated=envs.never)
    try:
        for env in (envs.make(name), vector([lambda: envs.make(name)])):
            spec = spec_of(env)
            assert spec.reward is reward and not spec.ends and spec.obs.shape == (5,)
    finally:
        envs.unregister(name)
    limited = gymnasium.wrappers.TimeLimit(Signal(), 4)
    assert spec_of(limited).obs.shape == (5,)
    assert spec_of(vector(envs.make("Pendulum-v1"))).episode_steps == 200


@pytest.mark.parametrize("kind", [Signal, Pair])
@pytest.mark.parametrize("algo", CONFIGS)
def test_agents_train_are_evaluated_and_resume_to_the_byte(tmp_path, algo, kind):
    def go(name, **how):
        config = RunConfig(
            algo, "signal", 0, 60, "cpu", CONFIGS[algo], 2, evaluate_every=20, evaluation_episodes=2
        )  # fmt: skip
        return train_run(config, tmp_path / name, make_env=lambda _: kind(), **how)

    go("whole", checkpoint_every=7)
    seen = []
    go("parts", checkpoint_every=7, callback=lambda now: seen.append(now.env_steps),
       stop=lambda: seen[-1] >= 26)  # fmt: skip
    assert seen[-1] < 60
    go("parts", resume=True, checkpoint_every=7)
    whole, parts = ((tmp_path / name / METRICS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    kinds = {line["kind"] for line in read_metrics(tmp_path / "whole" / METRICS)}
    assert {"evaluation", "episode"} <= kinds
    loaded = load_run(tmp_path / "parts", make_env=lambda _: kind())
    player = loaded.agent.player(generator=torch.Generator().manual_seed(0))
    for env in (loaded.env, kind()):
        assert len(evaluate(player, env, episodes=2, seed=1)) == 2


@pytest.mark.parametrize("algo", CONFIGS)
def test_parts_without_a_fixed_size_are_refused_in_one_line(algo):
    with pytest.raises(ValueError, match="a box or indices, or a dict or tuple of these") as error:
        mbrl.make(algo, Unsized(), config=CONFIGS[algo])
    assert "\n" not in str(error.value)


def test_a_part_that_is_missing_ends_in_the_line_of_an_environment():
    class Missing(Signal):
        def seen(self):
            return {"place": self.place}

    with pytest.raises(EnvironmentError, match="reset raised KeyError: 'again'"):
        evaluate(mbrl.make("random", Missing()).player(generator=torch.Generator()), Missing(),
                 episodes=1, seed=0)  # fmt: skip
