"""Markov chains over weights against closed forms and integrated differential equations."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from mbrl.dynamics.bayesian_configs import LangevinConfig, SgmcmcConfig
from mbrl.dynamics.langevin import LangevinMLP, refreshed, turned
from mbrl.dynamics.regression import Regression
from mbrl.dynamics.samples import flat
from mbrl.dynamics.sgmcmc import SgmcmcMLP, hamiltonian_step
from tests.posteriors import SMALL, close, quadratic, seeded, wave


def test_langevin_dynamics_has_the_variance_that_its_step_size_implies():
    precision, size = 2.0, 0.3
    draw = seeded()
    here = torch.zeros(4000, 5)
    for _ in range(60):
        noise = torch.randn(here.shape, generator=draw)
        here, _ = hamiltonian_step(
            here, here, precision * here, noise, step_size=size, friction=1.0
        )
    exact = 1 / (precision * (1 - size * precision / 2))
    assert close(here.square().flatten(), exact)


def test_a_direction_turns_as_its_differential_equation_says():
    draw = seeded()
    start = torch.randn(4, 6, generator=draw).double()
    start = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    gradient = 10 * torch.randn(4, 6, generator=draw).double()
    after, gained = turned(start, gradient, torch.full((4, 1), 0.8).double())
    for k in range(4):
        g = gradient[k].numpy()

        def flow(_, state, g=g):
            u = state[:-1]
            # kinetic energy (P - 1) log |momentum| grows by -g · u
            return np.append(-(g - u * (u @ g)) / 5, -g @ u)

        solved = solve_ivp(flow, (0, 0.8), np.append(start[k].numpy(), 0.0), rtol=1e-10, atol=1e-12)
        assert after[k].numpy() == pytest.approx(solved.y[:-1, -1], abs=1e-7)
        assert float(gained[k]) == pytest.approx(solved.y[-1, -1], abs=1e-6)


def test_a_steep_place_turns_the_direction_downhill_and_nothing_overflows():
    direction = torch.tensor([[1.0, 0.0]])
    after, gained = turned(direction, torch.tensor([[1e9, 1e9]]), torch.ones(1, 1))
    assert torch.allclose(after, -torch.full((1, 2), 0.5).sqrt())
    assert bool(gained.isfinite())


def test_a_refreshed_direction_has_length_one_and_forgets_as_fast_as_it_should():
    direction = torch.zeros(2000, 50)
    direction[:, 0] = 1.0
    share = torch.full((2000, 1), 0.5)
    fresh = refreshed(direction, share, seeded())
    assert torch.allclose(torch.linalg.vector_norm(fresh, dim=1), torch.ones(2000), atol=1e-5)
    assert fresh[:, 0].mean() == pytest.approx(math.exp(-0.5), abs=0.01)


def chains(kind, config, potential, start):
    net = kind(config, (2, 2), generator=seeded())
    potential.start, potential.rows = start, 1
    return net.samples(potential, generator=seeded(1))


def test_microcanonical_chains_sample_a_gaussian_of_unequal_widths():
    precision = torch.tensor([1.0, 4.0, 0.25, 1.0, 9.0, 2.0])
    potential = quadratic(precision, torch.zeros(6), 0)
    config = LangevinConfig(
        networks=40, members=40, tuning_steps=1500, samples=200, thin=10, first_length=1.0
    )
    bank, restarts = chains(LangevinMLP, config, potential, torch.randn(40, 6, generator=seeded()))
    each = (bank.square().mean(1) * precision).double()  # a chain's estimate of 1
    assert restarts.sum() == 0
    assert close(each, 1.0)
    assert close(bank.mean(1), 0.0)


def test_a_chain_that_leaves_all_bounds_goes_on_from_its_last_sample():
    def potential(position, index=None):
        value = 0.5 * position.square().sum(1)
        wild = torch.zeros_like(value, dtype=torch.bool)
        wild[0] = len(calls) % 40 == 39  # chain 0 fails now and then
        calls.append(0)
        gradient = torch.where(wild.unsqueeze(1), math.nan, position)
        return torch.where(wild, math.nan, value), gradient

    for kind, config in (
        (LangevinMLP, LangevinConfig(networks=2, members=2, tuning_steps=50, samples=20, thin=5)),
        (SgmcmcMLP, SgmcmcConfig(networks=2, members=2, cycle_steps=100, cycle_samples=5)),
    ):
        calls, own = [], SimpleNamespace()
        own = _Callable(potential)
        bank, restarts = chains(kind, config, own, torch.zeros(2, 6))
        assert bank.isfinite().all()
        assert restarts[0] > 0 and restarts[1] == 0
        assert len(torch.unique(bank[1, :, 0])) == bank.shape[1]


class _Callable:
    def __init__(self, function):
        self.function = function

    def __call__(self, position, index=None):
        return self.function(position, index)


def test_samples_of_a_chain_that_fits_no_longer_are_not_used_and_said():
    """With steps ten thousand times too large weights stay below all bounds, and errors do not."""
    config = SgmcmcConfig(
        members=1, cycles=1, cycle_steps=100, cycle_samples=10, step_size=1.0, **SMALL
    )
    model, (x, y) = Regression(1, 1, config, generator=seeded(1)), wave()
    found = model.fit(x, y, generator=seeded(2))
    assert found["chain_restarts"] == model.net.restarts.sum() > 0

    def loss(weights):
        model.net.take(weights)
        with torch.no_grad():
            mean, std = model.predict(x)
        return (0.5 * ((mean - y) / std).square() + (std / model.targets.std).log()).mean().item()

    first = loss(flat(model.net.base))
    limit = first + 10 * max(abs(first), 1) + 1e-3
    assert all(loss(sample) < limit for sample in model.net.bank.unbind(1))
