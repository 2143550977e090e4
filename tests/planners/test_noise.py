"""The spectrum and variance of coloured noise."""

import math

import pytest
import torch

from planners.noise import coloured_noise, truncated_normal


def draw(steps, beta, *, count=20_000, size=1, seed=0, dtype=torch.float32):
    like = torch.empty(steps, size, dtype=dtype)
    return coloured_noise(like, count, beta, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("steps", [255, 256])
def test_spectrum_falls_as_the_power_law_says(beta, steps):
    noise = draw(steps, beta, count=2000, dtype=torch.float64)[..., 0]
    power = torch.fft.rfft(noise).abs().square().mean(0)[1:127]
    frequency = torch.fft.rfftfreq(steps, dtype=torch.float64)[1:127]
    x, y = frequency.log(), power.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    # A bin's mean power over 2000 draws has a relative error of 2 %; 126 bins average that out.
    assert slope.item() == pytest.approx(-beta, abs=0.02)


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 30])
def test_every_step_has_mean_zero_and_variance_one(beta, steps):
    noise = draw(steps, beta)
    assert noise.shape == (20_000, steps, 1)
    # Standard errors over 20,000 draws: 0.007 for the mean, 0.010 for the variance.
    assert noise.mean(0).abs().max() < 0.035
    assert (noise.var(0) - 1).abs().max() < 0.05


def test_white_noise_through_the_spectrum_is_white():
    """A tiny exponent takes the FFT path and must agree with plain normals."""
    noise = draw(6, 1e-9)[..., 0]
    assert (torch.cov(noise.T) - torch.eye(6)).abs().max() < 0.05


def test_no_exponent_overflows():
    """For a large exponent only the constant and the lowest frequency remain."""
    noise = draw(8, 500.0)[..., 0]
    assert noise.isfinite().all()
    power = torch.fft.rfft(noise).abs().square().mean(0)
    assert power[2:].max() < 1e-6 * power[1]
    # Two conjugate bins share the wave's power with one bin of the constant: 1/3 of 8² each.
    torch.testing.assert_close(power[:2], torch.full((2,), 64 / 3), rtol=0.05, atol=0)


def test_action_dimensions_are_independent():
    noise = draw(8, 2.0, size=2)
    corr = (noise[..., 0] * noise[..., 1]).mean(0)
    assert corr.abs().max() < 0.035


def test_red_noise_is_smoother_than_white():
    """Lag-one correlation of the circular process: sum_k s_k² cos(2πk/n) / sum_k s_k²."""
    n, beta = 16, 2.0
    k = torch.arange(n)
    frequency = torch.minimum(k, n - k).clamp_min(1) / n
    power = frequency**-beta
    expected = (power * torch.cos(2 * math.pi * k / n)).sum() / power.sum()
    noise = draw(n, beta)[..., 0]
    measured = (noise[:, 1:] * noise[:, :-1]).mean()
    assert measured.item() == pytest.approx(expected.item(), abs=0.02)
    assert expected > 0.75


def test_the_truncated_normal_has_the_closed_form_std():
    noise = truncated_normal(torch.empty(5, 2), 20_000, generator=torch.Generator().manual_seed(0))
    assert noise.abs().max() <= 2.0001
    assert noise.mean().abs() < 0.01
    # Var = 1 - 2 a φ(a) / (2 Φ(a) - 1) at a = 2.
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    variance = 1 - 4 * density / math.erf(math.sqrt(2))
    assert noise.var().item() == pytest.approx(variance, abs=0.01)
