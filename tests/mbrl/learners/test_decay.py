"""Step sizes over a run, with numbers worked out by hand."""

import math

import pytest
import torch

from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.ddpg import DDPG
from mbrl.learners.decay import Decay
from mbrl.learners.dqn import DQN
from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.learners.value_configs import DQNConfig, TD3Config
from mbrl.types import Transition


def test_a_line_from_the_first_to_the_last_step_size():
    decay = Decay(SACConfig(learning_rate=4e-4, last_learning_rate=1e-4, decay_steps=300))
    shares = [decay.share(steps) for steps in (0, 100, 200, 300, 900)]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.25])


def test_half_a_period_of_a_cosine():
    config = SACConfig(learning_rate=3e-4, last_learning_rate=1e-4, decay_steps=600)
    decay = Decay(config, "cosine")
    for steps, cosine in ((0, 1.0), (100, math.sqrt(0.75)), (200, 0.5), (300, 0.0), (600, -1.0)):
        rate = 1e-4 + 2e-4 * (1 + cosine) / 2
        assert 3e-4 * decay.share(steps) == pytest.approx(rate)


def test_the_length_of_the_run_counts_where_the_config_says_nothing():
    told, given = (
        Decay(PPOConfig(learning_rate=1e-3, last_learning_rate=0.0, decay_steps=steps))
        for steps in (None, 100)
    )
    with pytest.raises(ValueError, match="decay_steps: the length of the run is not known"):
        told.share(0)
    told.run_for(50)
    given.run_for(50)
    assert told.share(25) == pytest.approx(0.5) and given.share(25) == pytest.approx(0.75)
    assert told.share(50) == 0.0
    told.run_for(200)
    assert told.share(50) == pytest.approx(0.75)


def test_without_a_last_step_size_the_first_stays():
    decay = Decay(SACConfig())
    assert decay.share(0) == decay.share(10**9) == 1.0


@pytest.mark.parametrize("kind", [SACConfig, PPOConfig])
def test_steps_without_a_last_step_size_are_refused(kind):
    with pytest.raises(ValueError, match="decay_steps: needs last_learning_rate"):
        kind(decay_steps=10)


@pytest.mark.parametrize("kind", [DQNConfig, TD3Config])
def test_step_sizes_of_a_learner_change_over_the_run(kind):
    config = kind(discount=0.9, learning_rate=1e-3, last_learning_rate=2e-4)
    draw, rows, never = torch.Generator().manual_seed(0), torch.ones(4), torch.zeros(4) > 0
    box = Bounds(-torch.ones(1), torch.ones(1))
    learner, action = (
        (DQN(2, 3, config, generator=draw), torch.zeros(4, dtype=torch.int64))
        if kind is DQNConfig
        else (DDPG(2, box, config, generator=draw), torch.zeros(4, 1))
    )
    batch = Transition(torch.ones(4, 2), action, rows, torch.ones(4, 2), never, never)
    with pytest.raises(ValueError, match="the length of the run is not known"):
        learner.update(batch, generator=draw)
    learner.run_for(200)
    for steps, rate in ((0, 1e-3), (50, 8e-4), (200, 2e-4)):
        learner.progress(steps)
        learner.update(batch, generator=draw)
        assert learner.critic.learning_rate == pytest.approx(rate)
