"""`check_model` accepts models of all kinds and names each breach of the contract in one line."""

from typing import Any

import pytest
import torch

from mbrl import check_model
from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.types import Gaussian, Step, Transition
from tests.own_parts.parts import Linear

OBS, ACTION = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))[..., :2].unbind()
ACTION = ACTION[:, :1]


def seeded():
    return torch.Generator().manual_seed(0)


def data(count=40):
    g = seeded()
    obs, action = torch.randn(count, 2, generator=g), torch.randn(count, 1, generator=g)
    over = torch.zeros(count) > 0
    return Transition(obs, action, -obs[:, 0].abs(), obs + 0.1 * action, over, over)


def test_a_users_model_passes_fitted_or_not():
    model = Linear(2, 1, generator=seeded())
    check_model(model, OBS, ACTION)
    check_model(model, OBS, ACTION, data=data())


def test_an_ensemble_passes_and_is_fitted():
    config = EnsembleConfig(members=2, hidden=(8,), epochs=1)
    model = Ensemble(2, 1, config, generator=seeded())
    before = model.predict(OBS.expand(2, -1, -1), ACTION.expand(2, -1, -1)).mean
    check_model(model, OBS, ACTION, data=data())
    after = model.predict(OBS.expand(2, -1, -1), ACTION.expand(2, -1, -1)).mean
    assert not torch.equal(before, after)


class Flat(Linear):
    def step(self, state, action, *, noise):
        return Step(*(x[0] for x in super().step(state, action, noise=noise)))


class Column(Linear):
    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        return step._replace(reward=step.reward[..., None])


class Numbers(Linear):
    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        return step._replace(terminated=step.reward)


class Pair(Linear):
    def step(self, state, action, *, noise):
        return tuple(super().step(state, action, noise=noise))


class Noisy(Linear):
    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        return step._replace(state=step.state + torch.randn(step.state.shape))


class Writes(Linear):
    def step(self, state, action, *, noise):
        found = super().step(state, action, noise=noise)
        state.zero_()
        return found


class Mixes(Linear):
    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        return step._replace(state=step.state - state.mean(1, keepdim=True))


class Blows(Linear):
    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        return step._replace(state=step.state / 0)


class Forgets(Linear):
    def encode(self, obs):
        return obs


class Uncountable(Linear):
    members = None


class Unshaped(Linear):
    noise_shape = 0


class Blurry(Linear):
    def predict(self, state, action):
        return Gaussian(state, torch.ones_like(state))


class Talks(Linear):
    def fit(self, data, *, generator):
        return {"said": "well"}


class Stuck:
    members, noise_shape = 1, (0,)


BROKEN = [
    (Flat, r"step: wanted state of shape \(1, 4, 2\), got \(4, 2\)"),
    (Column, r"step: wanted reward of shape \(1, 4\), got \(1, 4, 1\)"),
    (Numbers, "step: wanted terminated to be booleans, got torch.float32"),
    (Pair, "step: wanted a mbrl.types.Step, got a tuple"),
    (Noisy, "step: the same state, action and noise give another step"),
    (Writes, "step: .*(another step|writes to the state)"),
    (Mixes, "step: a row among others gives another state"),
    (Blows, "step: state holds a number that is not finite"),
    (Forgets, "encode: raised TypeError: .*state"),
    (Uncountable, "members must be an integer of at least 1, got None"),
    (Unshaped, r"noise_shape must be a tuple of integers, \(0,\) for no noise, got 0"),
    (Blurry, r"predict: wanted mean of shape \(1, 4, 3\), got \(1, 4, 2\)"),
    (Talks, "fit: wanted a number for 'said', got a str"),
    (Stuck, "has no encode; a model has members, noise_shape, encode, decode, step"),
]


@pytest.mark.parametrize(("kind", "line"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_each_breach_of_the_contract_is_named_in_one_line(kind, line):
    model: Any = kind() if kind is Stuck else kind(2, 1, generator=seeded())
    with pytest.raises(ValueError, match=f"model {kind.__name__}: {line}") as error:
        check_model(model, OBS, ACTION, data=data())
    assert "\n" not in str(error.value)
