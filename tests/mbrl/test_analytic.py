"""A model in closed form whose members have different values of an unknown parameter."""

import pytest
import torch

from mbrl.dynamics import Analytic
from mbrl.imagination import rollout
from mbrl.types import GaussianDynamics


def pushed(state, action, value):
    return state + value.unsqueeze(-1) * action


def test_each_member_uses_its_own_value_of_the_parameter():
    model = Analytic(pushed, torch.tensor([0.0]), torch.tensor([1.0, 3.0]))
    assert isinstance(model, GaussianDynamics)
    found = rollout(
        model,
        torch.zeros(1),
        torch.ones(1, 2, 1),
        particles=2,
        reward=lambda obs, action, next_obs: next_obs[..., 0],
        generator=torch.Generator().manual_seed(0),
    )
    assert found.returns().flatten().tolist() == [1 + 2, 3 + 6]


def test_steps_are_drawn_from_the_prediction():
    model = Analytic(pushed, torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]))
    state, action = torch.zeros(2, 20_000, 2), torch.ones(2, 20_000, 2)
    predicted = model.predict(state, action)
    assert predicted.mean.shape == predicted.std.shape == (2, 20_000, 3)
    assert torch.equal(model.step(state, action, noise=None).state, predicted.mean[..., :2])
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(0))
    drawn = model.step(state, action, noise=noise)
    assert drawn.state.mean(1).flatten().tolist() == pytest.approx([1, 1, -1, -1], abs=0.06)
    assert drawn.state.std(1).flatten().tolist() == pytest.approx([0.5, 2.0] * 2, rel=0.03)
    assert not predicted.mean[..., 2].any() and not predicted.std[..., 2].any()
    assert not drawn.reward.any() and not drawn.terminated.any()
