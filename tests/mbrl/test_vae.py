"""Variational autoencoders against what is known in closed form."""

import math

import pytest
import torch

from mbrl.encoders.autoencoder import Autoencoder
from mbrl.encoders.configs import AutoencoderConfig, VAEConfig
from mbrl.encoders.losses import importance_weighted_bound, negative_elbo
from mbrl.encoders.vae import VAE
from mbrl.nn import Block

LINEAR = VAEConfig(latent=2, hidden=(), noise=0.7)
IMAGE = VAEConfig(latent=4, channels=8, layers=3, noise=0.1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """x = W z + b + s ε with 3 numbers and a posterior that is not the true one."""
    vae = VAE((3,), LINEAR, generator=seeded()).double()
    obs = torch.randn(50, 3, generator=seeded(1)).double()
    vae.rescale(obs)
    return vae, obs, vae.scaled(obs)


def truth(vae, x):
    """log p(x), and the mean (B, Z) and the covariance (Z, Z) of p(z|x)."""
    weight, bias = vae.decoder.stack.weights[0][0].T, vae.decoder.stack.biases[0][0, 0]
    variance = math.exp(2 * vae.log_noise.item())
    marginal = torch.distributions.MultivariateNormal(
        bias, weight @ weight.T + variance * torch.eye(3).double()
    )
    covariance = torch.linalg.inv(torch.eye(2).double() + weight.T @ weight / variance)
    return marginal.log_prob(x), (x - bias) @ weight @ covariance / variance, covariance


def test_the_log_density_is_the_bound_plus_the_divergence_from_the_true_posterior(linear):
    vae, obs, x = linear
    log_p, mean, covariance = truth(vae, x)
    q = vae.posterior(obs)
    gap = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.std.square())),
        torch.distributions.MultivariateNormal(mean, covariance),
    )
    assert gap.min() > 0.05
    torch.testing.assert_close(vae.exact_bound(obs) + gap, log_p, atol=1e-10, rtol=0)


def test_a_sample_of_the_bound_is_unbiased(linear):
    vae, obs, _ = linear
    noise = torch.randn(4000, 50, 2, generator=seeded(2)).double()
    with torch.no_grad():
        fit, kl = vae.bound(obs.repeat(4000, 1), noise.flatten(0, 1))
        drawn = (fit - kl.sum(-1)).view(4000, 50)
        exact = vae.exact_bound(obs)
    error = (drawn.mean(0) - exact) / (drawn.std(0) / math.sqrt(len(drawn)))
    assert error.abs().max() < 4.5


def test_the_importance_weighted_bound_rises_from_the_bound_to_the_log_density(linear):
    vae, obs, x = linear
    with torch.no_grad():
        log_p, exact = truth(vae, x)[0].mean(), vae.exact_bound(obs).mean()
        noise = torch.randn(4096, 50, 2, generator=seeded(3)).double()
        found = []
        for k in (1, 4, 16, 64, 256):
            each = noise.view(k, -1, 2)  # k samples for 4096 / k copies of the observations
            found.append(vae.importance_bound(obs.repeat(4096 // k, 1), each).mean())
    assert found[0] == pytest.approx(float(exact), abs=0.1)
    steps = torch.stack([*found, log_p]).diff()
    assert (steps > 0.02).all() and steps[-1] < 0.3


def test_pathwise_gradients_vary_less_than_those_of_the_score_function(linear):
    """Both are unbiased estimates of dL/dμ; Kingma & Welling 2014, section 2.2."""
    vae, obs, x = linear
    one, row = obs[:1], x[:1]
    with torch.no_grad():
        q = vae.posterior(one)
    count = 20_000
    mean = q.mean.expand(count, 2).clone().requires_grad_(True)
    noise = torch.randn(count, 2, generator=seeded(4)).double()
    z = mean + q.std * noise
    fit = vae.log_likelihood(row.expand(count, 3), z)
    (pathwise,) = torch.autograd.grad(fit.sum(), mean)
    score = fit.detach().unsqueeze(-1) * noise / q.std  # log p(x|z) · d log q / dμ
    weight, bias = vae.decoder.stack.weights[0][0], vae.decoder.stack.biases[0][0, 0]
    exact = (row - q.mean @ weight - bias) @ weight.T / math.exp(2 * vae.log_noise.item())
    for estimate in (pathwise, score):
        error = (estimate.mean(0) - exact[0]) / (estimate.std(0) / math.sqrt(count))
        assert error.abs().max() < 4
    assert (score.var(0) > 4 * pathwise.var(0)).all()


def test_a_fit_finds_probabilistic_pca():
    """The best linear VAE explains as much as the closed form of Tipping & Bishop (1999)."""
    x = torch.randn(2000, 2, generator=seeded()) @ torch.tensor(
        [[2.0, 0.0, 1.0, 0.5], [0.0, 1.0, -1.0, 0.5]]
    )
    x = (x + 0.3 * torch.randn(2000, 4, generator=seeded(1))).double()
    vae = VAE((4,), VAEConfig(latent=2, hidden=()), generator=seeded(2)).double()
    vae.rescale(x)
    block = Block(vae, learning_rate=0.02)
    for step in range(1500):
        block.learning_rate = 0.02 * 0.998**step
        block.minimise(-vae.exact_bound(x).mean())
    scaled = vae.scaled(x).detach()
    values = torch.linalg.eigvalsh(scaled.T @ scaled / len(x)).flip(0)
    noise = values[2:].mean()
    best = -0.5 * (4 * math.log(2 * math.pi) + values[:2].log().sum() + 2 * noise.log() + 4)
    assert float(vae.exact_bound(x).mean().detach()) == pytest.approx(float(best), abs=2e-3)
    assert float((2 * vae.log_noise.detach()).exp()) == pytest.approx(float(noise), rel=0.02)


def dots(count, size=(17, 20), seed=0):
    """Images (H, W, 1) with one bright square, whose centre is drawn."""
    rows = torch.randint(2, size[0] - 2, (count, 1, 1, 1), generator=seeded(seed))
    columns = torch.randint(2, size[1] - 2, (count, 1, 1, 1), generator=seeded(seed + 1))
    y, x = torch.arange(size[0])[:, None, None], torch.arange(size[1])[None, :, None]
    lit = ((y - rows).abs() <= 1) & ((x - columns).abs() <= 1)
    return torch.where(lit, 230, 20).to(torch.uint8)


def test_images_are_learned():
    vae, images = VAE((17, 20, 1), IMAGE, generator=seeded()), dots(256)
    block = Block(vae, learning_rate=3e-3)
    for step in range(300):
        rows = images[torch.randint(256, (64,), generator=seeded(step))]
        block.minimise(vae.loss(rows, generator=seeded(1000 + step))[0])
    with torch.no_grad():
        shown = vae.reconstruct(vae(images))
    truth = images / 255
    error = (shown - truth).square().mean()
    assert error < 0.4 * (truth.mean(0) - truth).square().mean()


def test_a_bernoulli_likelihood_is_the_chance_of_black_and_white_images():
    config = VAEConfig(latent=4, channels=8, layers=3, likelihood="bernoulli")
    vae = VAE((16, 16, 1), config, generator=seeded())
    images = 255 * torch.randint(0, 2, (5, 16, 16, 1), generator=seeded(1), dtype=torch.uint8)
    z = torch.randn(5, 4, generator=seeded(2))
    white = vae.reconstruct(z)
    assert (white > 0).all() and (white < 1).all()
    chance = torch.where(images == 255, white, 1 - white).log().sum((1, 2, 3))
    torch.testing.assert_close(vae.log_likelihood(vae.scaled(images), z), chance)


@pytest.mark.parametrize("shape", [(84, 84, 3), (9, 48, 48), (65, 65, 3), (16, 16, 1)])
def test_codes_and_reconstructions_have_the_shapes_of_observations(shape):
    vae = VAE(shape, VAEConfig(latent=5, channels=4), generator=seeded())
    images = torch.randint(0, 256, (2, 3, *shape), generator=seeded(1), dtype=torch.uint8)
    codes = vae(images)
    assert codes.shape == (2, 3, 5) and vae.reconstruct(codes).shape == images.shape
    flat = vae.scaled(images)
    torch.testing.assert_close(
        vae.scaling.back(flat.view(6, *vae.scaling.size)).reshape(images.shape), images / 255
    )


def test_free_nats_cost_nothing_and_have_no_gradient():
    fit, kl = torch.tensor([-1.0, -3.0]), torch.tensor([[0.2, 2.0], [0.4, 4.0]])
    assert float(negative_elbo(fit, kl)) == pytest.approx(2.0 + 0.3 + 3.0)
    assert float(negative_elbo(fit, kl, beta=2.0)) == pytest.approx(2.0 + 0.6 + 6.0)
    kl.requires_grad_(True)
    loss = negative_elbo(fit, kl, free_bits=0.5)
    assert float(loss.detach()) == pytest.approx(2.0 + 0.5 + 3.0)
    loss.backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_the_mean_of_importance_weights_is_taken_before_the_logarithm():
    weights = torch.tensor([[1.0], [3.0]]).log()
    assert float(importance_weighted_bound(weights)) == pytest.approx(math.log(2.0))


def test_an_autoencoder_of_a_plane_in_space_loses_nothing():
    obs = torch.randn(500, 2, generator=seeded()) @ torch.randn(2, 5, generator=seeded(1)) + 3
    coder = Autoencoder((5,), AutoencoderConfig(latent=2, hidden=(32,)), generator=seeded(2))
    coder.rescale(obs)
    block = Block(coder, learning_rate=1e-2)
    for step in range(400):
        block.learning_rate = 1e-2 * 0.99**step
        loss, said = coder.loss(obs, generator=seeded())
        block.minimise(loss)
    assert said["error"] < 1e-3
    torch.testing.assert_close(coder.reconstruct(coder(obs)), obs, atol=0.3, rtol=0)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_decoder_that_has_learned_nothing_draws_the_mean_image(likelihood):
    config = VAEConfig(latent=4, channels=8, layers=3, likelihood=likelihood)
    vae = VAE((16, 12, 3), config, generator=seeded())
    for part in vae.decoder.parameters():
        part.data.zero_()
    obs = torch.randint(256, (300, 16, 12, 3), generator=seeded(), dtype=torch.uint8)
    vae.rescale(obs)
    drawn = vae.reconstruct(torch.randn(2, 4, generator=seeded(1))).double()
    wanted = (obs.double().mean(0) / 255).expand(2, -1, -1, -1)
    torch.testing.assert_close(drawn, wanted, atol=1e-5, rtol=0)


def test_an_autoencoders_error_is_in_units_of_the_variance_of_pixels():
    """That of the mean image is half of 1."""
    config = AutoencoderConfig(latent=4, channels=8, layers=3, code_penalty=0, decoder_penalty=0)
    coder = Autoencoder((16, 12, 3), config, generator=seeded())
    obs = torch.randint(100, 120, (50, 16, 12, 3), generator=seeded(), dtype=torch.uint8)
    coder.rescale(obs)
    for part in coder.decoder.parameters():
        part.data.zero_()
    loss, said = coder.loss(obs, generator=seeded())
    assert float(loss.detach()) == pytest.approx(0.5, rel=1e-4)
    wanted = float((obs.double() / 255).var(0, correction=0).mean())
    assert float(said["error"]) == pytest.approx(wanted, rel=1e-4)


def test_the_penalties_of_an_autoencoder_are_those_of_the_paper():
    config = AutoencoderConfig(latent=2, hidden=(3,), code_penalty=0.1, decoder_penalty=0.01)
    coder = Autoencoder((4,), config, generator=seeded())
    obs = torch.randn(6, 4, generator=seeded(1))
    loss, said = coder.loss(obs, generator=seeded())
    weights = sum(part.square().sum().item() for part in coder.decoder.parameters())
    wanted = 0.5 * (float(said["error"]) + 0.1 * float(said["code"]) + 0.01 * weights)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        ((3,), VAEConfig(likelihood="bernoulli"), "bernoulli is for images"),
        ((4, 4), VAEConfig(), r"shape: want that of a vector or an image, got \(4, 4\)"),
        ((10, 10, 3), VAEConfig(), "layers: 4 halvings need images of at least 16 x 16 .* 10 x 10"),
    ],
)
def test_observations_that_cannot_be_encoded_are_refused(shape, config, message):
    with pytest.raises(ValueError, match=message):
        VAE(shape, config, generator=seeded())


def test_wrong_observations_and_codes_are_refused():
    vae = VAE((16, 16, 1), IMAGE, generator=seeded())
    with pytest.raises(ValueError, match="images: want uint8, got torch.float32"):
        vae(torch.zeros(2, 16, 16, 1))
    with pytest.raises(ValueError, match=r"want shape \(\*lead, 16, 16, 1\), got \(2, 16, 16, 3\)"):
        vae(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"z: want codes of 4 numbers, got \(2, 3\)"):
        vae.reconstruct(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="exact_bound: wants a Gaussian likelihood and hidden"):
        vae.exact_bound(torch.zeros(2, 16, 16, 1, dtype=torch.uint8))
