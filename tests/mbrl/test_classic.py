"""Gymnasium's classic control as models, against the environments."""

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.dynamics import Classic
from mbrl.types import Dynamics


@pytest.mark.parametrize("id", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1"])
def test_a_classic_model_equals_its_environment(id):
    env, model = gymnasium.make(id), Classic(gymnasium.make(id))
    rng = np.random.default_rng(0)
    assert isinstance(model, Dynamics)
    inner = env.unwrapped
    for seed in range(3):
        env.reset(seed=seed)
        over = False
        for _ in range(60):
            state = torch.tensor(np.array(inner.state, dtype=float))[None, None]
            action = int(rng.integers(env.action_space.n))
            _, reward, over, *_ = env.step(action)
            step = model.step(state, torch.full((1, 1, 1), float(action)))
            assert step.state[0, 0].tolist() == pytest.approx(list(inner.state), abs=1e-6)
            assert (float(step.reward), bool(step.terminated)) == (reward, over)
            if over:
                break
