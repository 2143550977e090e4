"""Several latent models as one."""

import pytest
import torch

from mbrl.dynamics.joined import Joined
from mbrl.types import Step


class Scaled:
    """Codes are observations times a factor, to which actions and noise are added; x > 9 ends."""

    members = 1

    def __init__(self, factor, size):
        self.factor, self.noise_shape = factor, (size,)

    def encode(self, obs, *, state=None, action=None):
        extra = 0 if state is None else state + action
        return self.factor * obs[..., : self.noise_shape[0]] + extra

    def step(self, state, action, *, noise):
        after = state + action + (0 if noise is None else noise)
        return Step(after, after.sum(-1), after[..., 0] > 9)


def test_codes_steps_and_noise_are_those_of_the_models_one_after_another():
    both = Joined([Scaled(1.0, 2), Scaled(10.0, 1)])
    state = both.encode(torch.tensor([[1.0, 2.0], [0.5, 0.0]]))
    assert state.tolist() == [[1.0, 2.0, 10.0], [0.5, 0.0, 5.0]]
    assert both.noise_shape == (3,)
    step = both.step(state[None], torch.ones(1, 2, 1), noise=torch.tensor([[[0.0, 1.0, 2.0]] * 2]))
    assert step.state.tolist() == [[[2.0, 4.0, 13.0], [1.5, 2.0, 8.0]]]
    assert step.reward.tolist() == [[(6 + 13) / 2, (3.5 + 8) / 2]]
    assert step.terminated.tolist() == [[True, False]]
    mean = both.step(state[None], torch.ones(1, 2, 1), noise=None)
    assert mean.state.tolist() == [[[2.0, 3.0, 11.0], [1.5, 1.0, 6.0]]]


def test_each_model_filters_by_its_own_state():
    both = Joined([Scaled(1.0, 2), Scaled(10.0, 1)])
    before = both.encode(torch.zeros(2))
    found = both.encode(torch.ones(2), state=before + torch.tensor([1.0, 2.0, 3.0]), action=0.5)
    assert found.tolist() == [1 + 1.5, 1 + 2.5, 10 + 3.5]


def test_what_cannot_be_joined_is_refused():
    several = Scaled(1.0, 1)
    several.members = 2
    for models in ([], [several]):
        with pytest.raises(ValueError, match="want one or more, of one member each"):
            Joined(models)
    both = Joined([Scaled(1.0, 1), Scaled(2.0, 1)])
    with pytest.raises(ValueError, match="state: want an encoded one"):
        both.step(torch.zeros(1, 3, 2), torch.zeros(1, 3, 1), noise=None)
    both.encode(torch.zeros(1))
    with pytest.raises(ValueError, match=r"state: want size 2, got \(1, 3, 4\)"):
        both.step(torch.zeros(1, 3, 4), torch.zeros(1, 3, 1), noise=None)
    with pytest.raises(NotImplementedError, match="no one observation"):
        both.decode(torch.zeros(2))
