"""Models of outcomes with several modes."""

import math
from dataclasses import replace

import pytest
import torch

from mbrl.dynamics import Ensemble, EnsembleConfig, Regression
from mbrl.dynamics.conditional import ConditionalDynamics, conditional_loss
from mbrl.dynamics.configs import ConditionalConfig
from mbrl.dynamics.heads import Trained
from mbrl.imagination import rollout
from mbrl.types import GaussianDynamics, Transition

CONFIG = ConditionalConfig(
    members=2, hidden=(32, 32), batch=64, epochs=100, learning_rate=3e-3, patience=40
)
UP, WIDTH = 0.7, 0.05
"""Chance of the upper mode, and the std of each."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def forks(count=1500, seed=0, *, learn_ends=False):
    """Right of 0 a step goes 1 up or down, left of 0 a half up; the reward is the step."""
    g = seeded(seed)
    obs = 2 * torch.rand(count, 1, generator=g) - 1
    up = torch.rand(count, 1, generator=g) < UP
    change = torch.where(up, 1.0, -1.0) + WIDTH * torch.randn(count, 1, generator=g)
    change = torch.where(obs > 0, change, 0.5)
    none = torch.zeros(count, dtype=torch.bool)
    ends = (change[:, 0] < -0.5) if learn_ends else none
    return Transition(obs, torch.zeros(count, 1), change[:, 0], obs + change, ends, none)


@pytest.fixture(scope="module")
def fitted():
    config = replace(CONFIG, learn_reward=True, learn_termination=True)
    model = ConditionalDynamics(1, 1, config, generator=seeded())
    model.fit(forks(learn_ends=True), generator=seeded(1))
    return model


def steps_from(model, place, count=4000, noise=True):
    state = torch.full((model.members, count, 1), place)
    draws = torch.randn(model.members, count, *model.noise_shape, generator=seeded(2))
    with torch.no_grad():
        return model.step(state, torch.zeros_like(state), noise=draws if noise else None)


def test_both_modes_keep_their_mass(fitted):
    for place in (0.3, 0.7):
        change = steps_from(fitted, place).state[..., 0] - place
        for member in change:
            assert float(((member - 1).abs() < 0.3).float().mean()) == pytest.approx(UP, abs=0.1)
            assert float(((member + 1).abs() < 0.3).float().mean()) == pytest.approx(
                1 - UP, abs=0.1
            )
            assert float(member[(member - 1).abs() < 0.3].std()) < 2 * WIDTH


def test_a_gaussian_model_predicts_what_never_happens(fitted):
    config = EnsembleConfig(members=2, hidden=(32, 32), batch=64, epochs=60)
    model = Ensemble(1, 1, config, generator=seeded())
    model.fit(forks(), generator=seeded(1))
    never = [
        float(((steps_from(one, 0.5).state[..., 0] - 0.5).abs() < 0.5).float().mean())
        for one in (model, fitted)
    ]
    assert never[0] > 0.25 and never[1] < 0.1


def test_bounds_lie_below_the_density_and_more_samples_come_close_to_it():
    """The density is integrated over the one latent variable numerically."""
    found = {}
    x, y = torch.randn(1, 40, 3, generator=seeded()), torch.randn(1, 40, 2, generator=seeded(1))
    many = [part.repeat_interleave(200, 1) for part in (x, y)]
    for samples in (1, 10, 100):
        config = replace(CONFIG, members=1, latent=1, samples=samples)
        model = ConditionalDynamics(1, 1, replace(config, learn_reward=True), generator=seeded(2))
        with torch.no_grad():
            model.net.decoder.weights[-1].mul_(3)
            model.net.posterior.weights[-1].mul_(4)  # far from the true one
            model.heads.log_var.fill_(-1.0)
            trained = Trained(model.net, model.heads, 1.0)
            loss = conditional_loss(model.config)(trained, *many, per_row=True)
        found[samples] = -2 * loss.view(40, 200).mean(1) - math.log(2 * math.pi)  # nats of both
    nodes = torch.linspace(-8, 8, 4001)
    prior = torch.exp(-0.5 * nodes.square()) / math.sqrt(2 * math.pi) * (nodes[1] - nodes[0])
    with torch.no_grad():
        rows = x[0, :, None, :].repeat(1, len(nodes), 1)
        rows[..., 2] = nodes
        out = model.net(rows.view(1, -1, 3)).view(40, -1, 2)
    std = math.exp(-0.5)
    density = torch.distributions.Normal(out, std).log_prob(y[0, :, None]).sum(-1).exp() @ prior
    means = torch.stack([*(found[m].mean() for m in (1, 10, 100)), density.log().mean()])
    assert (means.diff() > 0).all() and means[1] > means[0] + 0.01
    torch.testing.assert_close(found[100], density.log(), atol=0.2, rtol=0)


def test_no_noise_is_added_where_the_world_has_none(fitted):
    change = steps_from(fitted, -0.5).state[..., 0] + 0.5
    assert float(change.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(change.std(-1).max()) < 0.1  # a Gaussian of both regions would have 0.9


def test_reward_and_termination_are_those_of_the_same_outcome(fitted):
    step = steps_from(fitted, 0.5)
    change = step.state[..., 0] - 0.5
    assert (step.reward - change).abs().mean() < 0.1
    down = change < 0
    assert float((step.terminated == down).float().mean()) > 0.98
    assert not steps_from(fitted, 0.5, noise=False).terminated.any()  # the likelier outcome


def test_mean_and_std_are_those_of_the_samples(fitted):
    drawn = steps_from(fitted, 0.5)
    state = torch.full((2, 1, 1), 0.5)
    with torch.no_grad():
        mean, std = fitted.predict(state, torch.zeros_like(state))
    assert isinstance(fitted, GaussianDynamics)
    samples = torch.stack((drawn.state[..., 0], drawn.reward), -1)
    torch.testing.assert_close(mean[:, 0], samples.mean(1), atol=0.15, rtol=0)
    torch.testing.assert_close(std[:, 0], samples.std(1), atol=0.15, rtol=0)
    exact = 2 * UP - 1, math.sqrt(1 - (2 * UP - 1) ** 2 + WIDTH**2)
    assert float(mean[:, 0, 0].mean()) - 0.5 == pytest.approx(exact[0], abs=0.2)
    assert float(std[:, 0, 0].mean()) == pytest.approx(exact[1], abs=0.2)
    mean_step = steps_from(fitted, 0.5, 1, noise=False)
    torch.testing.assert_close(mean_step.state[:, 0, 0], mean[:, 0, 0])


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation", "moment", "distribution"])
def test_it_can_be_propagated_in_every_way(fitted, propagation):
    imagined = rollout(
        fitted, torch.tensor([[0.5], [-0.5]]), torch.zeros(2, 3, 1), particles=10,
        propagation=propagation, generator=seeded(),
    )  # fmt: skip
    assert imagined.state.isfinite().all() and imagined.state.shape[1:] == (2, 4, 1)


def test_a_refit_after_loading_is_the_same_to_the_bit():
    models = [
        ConditionalDynamics(1, 1, replace(CONFIG, epochs=2), generator=seeded(i)) for i in (0, 5)
    ]
    models[0].fit(forks(200), generator=seeded(1))
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model.fit(forks(200, 3), generator=seeded(2))
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)


def test_wrong_shapes_are_refused(fitted):
    with pytest.raises(ValueError, match=r"state must have shape \(2, 'B', 1\)"):
        fitted.step(torch.zeros(2, 3, 2), torch.zeros(2, 3, 1), noise=None)


def test_a_regression_is_refused():
    with pytest.raises(ValueError, match="ConditionalConfig: its net takes random numbers"):
        Regression(1, 1, CONFIG, generator=seeded())


@pytest.mark.parametrize("own", [{"beta": 0.5}, {"free_bits": 0.1}])
def test_weights_that_the_bound_of_several_samples_lacks_are_refused(own):
    with pytest.raises(ValueError, match="beta, free_bits: the bound of 8 samples has neither"):
        ConditionalConfig(**own)
    assert ConditionalConfig(samples=1, **own).samples == 1
