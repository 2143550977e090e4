"""Bayesian networks against closed forms, where there are any."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.controllers import Controller
from mbrl.agents.pets import Config as PETSConfig
from mbrl.dynamics import EnsembleConfig
from mbrl.dynamics.bayes_by_backprop import VariationalMLP
from mbrl.dynamics.bayesian_configs import (
    AnchoredConfig,
    BayesByBackpropConfig,
    DropoutConfig,
    LangevinConfig,
    LaplaceConfig,
    SgmcmcConfig,
    SwagConfig,
)
from mbrl.dynamics.dropout import DropoutMLP
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.laplace import LaplaceMLP, linear
from mbrl.dynamics.prior import PriorMLP
from mbrl.dynamics.regression import Regression
from mbrl.dynamics.samples import flat
from mbrl.dynamics.swag import SwagMLP
from mbrl.dynamics.table import MODELS, model_config
from mbrl.training import RunConfig
from tests.posteriors import SMALL, close, quadratic, seeded, wave

CONFIGS = {
    "bayes by backprop": BayesByBackpropConfig(**SMALL),
    "with a mixture": BayesByBackpropConfig(prior="mixture", **SMALL),
    "dropout": DropoutConfig(**SMALL),
    "concrete dropout": DropoutConfig(concrete=True, input_dropout=0.05, **SMALL),
    "anchored": AnchoredConfig(**SMALL),
    "SWAG": SwagConfig(swag_epochs=10, rank=5, **SMALL),
    "MultiSWAG": SwagConfig(networks=5, swag_epochs=10, rank=5, **SMALL),
    "Laplace": LaplaceConfig(**SMALL),
    "SG-MCMC": SgmcmcConfig(cycle_steps=100, **SMALL),
    "Langevin": LangevinConfig(tuning_steps=100, samples=5, thin=2, **SMALL),
}


def regression():
    """Rows of a linear regression with noise of std 1, prior N(0, s²), and their posterior."""
    draw, s = seeded(5), 0.7
    x = torch.randn(40, 3, generator=draw, dtype=torch.double) @ torch.tensor(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]], dtype=torch.double
    )
    y = x @ torch.tensor([0.5, -1.0, 0.2], dtype=torch.double)
    y = y + torch.randn(40, generator=draw, dtype=torch.double)
    precision = x.T @ x + torch.eye(3, dtype=torch.double) / s**2
    return x, y, s, precision, torch.linalg.solve(precision, x.T @ y)


@pytest.fixture(scope="module")
def fitted():
    """Every kind of network, fitted to the same wave."""
    found = {}
    for name, config in CONFIGS.items():
        model = Regression(1, 1, config, generator=seeded(1))
        model.fit(*wave(), generator=seeded(2))
        found[name] = model
    return found


@pytest.mark.parametrize("name", [*CONFIGS])
def test_every_kind_learns_and_its_members_are_samples(fitted, name):
    model, (x, y) = fitted[name], wave(300, seed=9)
    with torch.no_grad():
        mean, std = model.predict(x)
    assert mean.shape == std.shape == (5, 300, 1)
    assert (mean.mean(0) - y).square().mean() < 0.6 * y.var()
    assert len(torch.unique(mean[:, 0, 0])) > 1
    again, _ = model.predict(x)
    assert torch.equal(mean, again)  # samples stay until they are drawn anew
    model.resample(generator=seeded(3))
    first, _ = model.predict(x)
    model.resample(generator=seeded(3))
    assert torch.equal(first, model.predict(x).mean)
    assert name == "anchored" or not torch.equal(first, mean)
    other = Regression(1, 1, CONFIGS[name], generator=seeded(8))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.predict(x).mean, model.predict(x).mean)
    for both in (model, other):
        both.resample(generator=seeded(4))
    assert torch.equal(other.predict(x).mean, model.predict(x).mean)


@pytest.mark.parametrize(
    "kind, draws", [(BayesByBackpropConfig, "noise"), (DropoutConfig, "uniform")]
)
def test_the_held_out_loss_of_a_first_fit_is_that_of_samples_of_the_weights(kind, draws):
    """Not of the mean weights, or with no unit dropped: nothing is predicted with these."""
    config = kind(**{**SMALL, "holdout": 0.5, "members": 50, "hidden": (16,), "epochs": 1})
    model, (x, y) = Regression(1, 1, config, generator=seeded(1)), wave()
    samples = model.net.state_dict()[draws].clone()
    assert len(torch.unique(model.predict(x[:1]).mean)) > 2
    found = model.fit(x, y, generator=seeded(2))
    model.net.load_state_dict({**model.net.state_dict(), draws: samples})
    held = torch.randperm(200, generator=seeded(2))[:100]
    with torch.no_grad():
        mean, std = model.predict(x[held])
        z, scaled = (mean - y[held]) / std, std / model.targets.std
    loss = (0.5 * z.square() + scaled.log()).mean().item()
    assert found["holdout_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", [*CONFIGS])
def test_the_folded_network_is_the_network(fitted, name):
    model = fitted[name]
    x = torch.linspace(-2, 2, 7).unsqueeze(1)
    out = model.net(model.inputs.scale(x).float().expand(5, -1, -1))
    mean = model.heads.split(out)[0] * model.targets.std + model.targets.mean
    assert torch.allclose(model.predict(x).mean, mean.float(), atol=1e-5)


@pytest.mark.parametrize("name", [*CONFIGS])
def test_a_fit_is_the_same_for_the_same_seed_and_a_failed_one_changes_nothing(name):
    config, (x, y) = replace(CONFIGS[name], epochs=3), wave(60)
    models = [Regression(1, 1, config, generator=seeded(1)) for _ in range(2)]
    for model in models:
        model.fit(x, y, generator=seeded(2))
    assert torch.equal(models[0].predict(x).mean, models[1].predict(x).mean)
    wild = Regression(1, 1, replace(config, learning_rate=1e30), generator=seeded(1))
    before = {name: value.clone() for name, value in wild.state_dict().items()}
    with pytest.raises(FitDiverged, match="not finite|far above"):
        wild.fit(x, y, generator=seeded(2))
    for part, value in wild.state_dict().items():
        assert torch.allclose(value, before[part], atol=0, rtol=0, equal_nan=True)


def variational(count, x, y, s, precision, posterior):
    """A linear network at the best independent Gaussian, and x and y as its rows."""
    config = BayesByBackpropConfig(members=count, prior_std=s * math.sqrt(3))
    net = VariationalMLP(config, (3, 1), generator=seeded()).double()
    with torch.no_grad():
        net.means[0].copy_(posterior.unsqueeze(1))
        net.raw[0].copy_(precision.diagonal().rsqrt().expm1().log().unsqueeze(1))
        for part, value in ((net.means[1], 0.0), (net.raw[1], -60.0)):  # no bias
            part.fill_(value)
    return net, x.expand(count, -1, -1), y.unsqueeze(1).expand(count, -1, -1)


def test_bayes_by_backprop_of_a_linear_network_is_best_at_the_exact_means_and_variances():
    net, x, y = variational(4000, *regression())
    net.train()
    net.resample(generator=seeded(1))
    out = net(x)
    losses = 0.5 * (y - out).square().sum((1, 2))
    gradients = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(
                losses[i : i + 100].mean(), [net.means[0], net.raw[0]], retain_graph=True
            )])
            for i in range(0, 4000, 100)
        ]
    )  # fmt: skip
    penalty = torch.autograd.grad(net.divergence(), [net.means[0], net.raw[0]])
    assert close(gradients + torch.cat([g.flatten() for g in penalty]), 0.0)


def test_the_bound_of_bayes_by_backprop_misses_the_evidence_by_the_correlations_left_out():
    x, y, s, precision, posterior = regression()
    net, rows, target = variational(4000, x, y, s, precision, posterior)
    net.eval()
    net.resample(generator=seeded(1))
    likelihood = -0.5 * (target - net(rows)).square().sum((1, 2)) - 20 * math.log(2 * math.pi)
    bias = (net.raw[1] * 0).sum()  # its divergence from the prior is no part of the evidence
    ratio = net.stds()[1] / net._prior[1]
    bias = bias + 0.5 * (ratio.square() - 1).sum() - ratio.log().sum()
    bound = (likelihood - (net.divergence() - bias)).detach()
    covariance = s**2 * x @ x.T + torch.eye(40, dtype=torch.double)
    evidence = multivariate_normal(np.zeros(40), covariance.numpy()).logpdf(y.numpy())
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert gap > 0.1
    assert close(bound, evidence - gap)


def test_the_divergence_from_a_mixture_of_equal_gaussians_is_that_from_one():
    config = BayesByBackpropConfig(members=3000, prior="mixture", narrow_std=1.0)
    net = VariationalMLP(config, (3, 2), generator=seeded())
    net.eval()
    net.resample(generator=seeded(1))
    each = torch.stack([
        _with_noise(net, net.noise[i : i + 100])._estimate() for i in range(0, 3000, 100)
    ])  # fmt: skip
    assert close(each.detach(), net.divergence().detach())


def _with_noise(net, noise):
    net = VariationalMLP(replace(net.config, members=len(noise)), net.sizes, generator=seeded())
    net.noise.copy_(noise)
    return net


def test_the_weight_of_the_divergence_warms_up():
    config = BayesByBackpropConfig(kl_warmup=4, kl_weight=0.5)
    net = VariationalMLP(config, (2, 1), generator=seeded()).train()
    shares = []
    for _ in range(6):
        net.resample(generator=seeded())
        shares.append((net.penalty() / net.divergence()).item())
    assert shares == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("training", [False, True])
def test_dropout_on_a_linear_layer_has_the_variance_of_its_formula(training):
    share, x = 0.3, torch.tensor([0.5, -1.0, 2.0])
    net = DropoutMLP(
        DropoutConfig(members=40_000, input_dropout=share), (3, 1), generator=seeded()
    ).train(training)
    net.resample(generator=seeded(1))
    out = net(x.expand(40_000, 1, 3)).flatten().detach()
    weight = net.weights[0].detach().flatten()
    mean = (weight * x).sum() + net.biases[0].item()
    assert close(out, mean)
    exact = share / (1 - share) * (weight * x).square().sum()
    assert close((out - mean).square(), exact.double())


def test_concrete_dropout_keeps_units_for_rows_that_are_many_and_exact():
    x = torch.randn(2000, 1, generator=seeded())
    config = DropoutConfig(
        concrete=True, hidden=(16, 16), epochs=60, holdout=0.0, learning_rate=1e-2
    )
    model = Regression(1, 1, config, generator=seeded(1))
    model.fit(x, torch.sin(x), generator=seeded(2))
    (first, second) = model.net.logits.sigmoid().tolist()
    assert first < 0.05 and second < 0.05


def test_swag_finds_the_stationary_covariance_of_gradient_descent():
    curvature, noise = torch.tensor([1.0, 4.0, 0.5]), torch.tensor([1.0, 2.0, 0.5])
    rate = 0.1
    config = SwagConfig(
        members=60, networks=60, swag_epochs=4000, swag_learning_rate=10 * rate, swag_momentum=0.0,
        rank=20,
    )  # fmt: skip
    net = SwagMLP(config, (2, 1), generator=seeded())
    potential = quadratic(curvature, noise, 1)
    potential.start, potential.rows = torch.zeros(60, 3), 10  # whose mean gradient it follows
    net.explore(potential, generator=seeded(2))
    # v = (1 - ηλ)² v + η² q
    exact = rate * noise / (curvature * (2 - rate * curvature))
    # of 4,000 dependent iterates the variance is a little small
    assert torch.allclose(net.std.square().mean(0), exact, rtol=0.02)
    assert close(net.deviations[:, -1].square(), exact)


def test_a_descent_of_swag_that_diverges_is_an_error():
    x, y = wave(60)
    model = Regression(1, 1, SwagConfig(swag_learning_rate=1e12, **SMALL), generator=seeded(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FitDiverged, match=r"swag_learning_rate 1e\+12: .* diverged"):
        model.fit(x, y, generator=seeded(2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("rate", [3e-3, 0.3])
def test_swag_stays_near_the_fit_whatever_step_size_it_begins_with(rate):
    """Without noise the likelihood is so steep that both are too large."""
    x = torch.linspace(-1, 1, 100).unsqueeze(-1)
    y = torch.cat((torch.sin(3 * x), x.square()), -1)
    config = SwagConfig(
        hidden=(32,), epochs=300, batch=20, learning_rate=1e-2, holdout=0.0, members=10,
        swag_learning_rate=rate,
    )  # fmt: skip
    model = Regression(1, 2, config, generator=seeded(1))
    said = model.fit(x, y, generator=seeded(2))
    assert 0 < said["swag_learning_rate"] < rate
    mean, std = model.predict(x)
    nll = ((y - mean) / std).square() / 2 + std.log()
    assert nll.sum(-1).mean().item() < -4.0  # 2 log 0.05 = -6
    assert (mean - y).square().mean().sqrt().item() < 0.1


def test_fewer_passes_than_the_rank_have_the_covariance_of_their_own_deviations():
    found = []
    for rank in (4, 20):
        config = SwagConfig(swag_epochs=4, rank=rank, swag_learning_rate=1e-3, **SMALL)
        model = Regression(1, 1, config, generator=seeded(1))
        for _ in range(2):  # of a refit nothing of the first fit is left
            model.fit(*wave(60), generator=seeded(2))
        deviations = model.net.deviations[0].double()
        found.append(deviations.mT @ deviations / (rank - 1))
    assert torch.allclose(*found, rtol=1e-5)


def test_a_swag_fit_without_an_iterate_is_refused():
    model = Regression(1, 1, SwagConfig(swag_every=1000, **SMALL), generator=seeded(1))
    with pytest.raises(ValueError, match="swag_every 1000: the 80 updates after the fit have no"):
        model.fit(*wave(60), generator=seeded(2))


def test_samples_of_swag_have_its_covariance():
    net = SwagMLP(SwagConfig(members=40_000, rank=3), (2, 1), generator=seeded())
    with torch.no_grad():
        net.mean.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
        net.std.copy_(torch.tensor([[0.5, 1.0, 2.0]]))
        net.deviations.copy_(torch.randn(1, 3, 3, generator=seeded(1)))
    net.resample(generator=seeded(2))
    away = flat(net.drawn) - net.mean
    deep = net.deviations[0]
    exact = 0.5 * (net.std[0].square().diag() + deep.T @ deep / 2)
    assert close(away, torch.zeros(3))
    assert close(away.unsqueeze(2) * away.unsqueeze(1), exact.double())


def test_the_last_layer_is_bayesian_linear_regression_with_its_evidence():
    x, y, s, precision, posterior = regression()
    found = linear(x, y, torch.ones(40).double(), prior=1 / s**2, tune_prior=False)
    assert torch.allclose(found.mean, posterior)
    assert torch.allclose(found.root @ found.root.T, torch.linalg.inv(precision))
    covariance = s**2 * x @ x.T + torch.eye(40, dtype=torch.double)
    evidence = multivariate_normal(np.zeros(40), covariance.numpy()).logpdf(y.numpy())
    assert found.evidence == pytest.approx(evidence)


def test_prior_and_noise_of_the_last_layer_have_the_greatest_evidence():
    x, y, *_ = regression()
    own = 0.5 + torch.rand(40, generator=seeded(3), dtype=torch.double)  # precision by row

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = (x @ x.T).numpy() / alpha + np.diag(1 / (beta * own.numpy()))
        return -multivariate_normal(np.zeros(40), covariance).logpdf(y.numpy())

    best = minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6})
    found = linear(x, y, own, tune_noise=True, rounds=1000)
    assert [math.log(found.prior), math.log(found.noise)] == pytest.approx(best.x, abs=1e-3)
    assert found.evidence == pytest.approx(-best.fun, abs=1e-5)


def test_weights_of_whole_numbers_repeat_rows_of_the_last_layer():
    x, y, *_ = regression()
    own = 0.5 + torch.rand(40, generator=seeded(3), dtype=torch.double)
    counts = torch.randint(0, 4, (40,), generator=seeded(4))
    rows = torch.arange(40).repeat_interleave(counts)
    found = linear(x, y, own, weights=counts.double(), tune_noise=True)
    repeated = linear(x[rows], y[rows], own[rows], tune_noise=True)
    for one, other in zip(found[:1] + found[2:], repeated[:1] + repeated[2:], strict=True):
        assert torch.as_tensor(one).tolist() == pytest.approx(torch.as_tensor(other).tolist())


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("count, features", [(2, 200), (5, 400), (20, 200), (3, 51)])
def test_noise_tuned_on_fewer_rows_than_features_is_positive(count, features, scale):
    """Of 5 rows and 400 features rounding errors seemed to determine more than 5 weights."""
    draw = seeded()
    x = scale * torch.randn(count, features, generator=draw, dtype=torch.double)
    y = torch.randn(count, generator=draw, dtype=torch.double)
    equal = x[:1].expand(count, -1), y[:1].expand(count)
    for rows, target in ((x, y), equal):
        found = linear(rows, target, torch.ones_like(target), tune_prior=False, tune_noise=True)
        assert found.noise > 0 and math.isfinite(found.evidence)


def test_a_laplace_model_is_linear_regression_on_its_features():
    x, y = wave()
    config = LaplaceConfig(members=2000, homoscedastic=True, tune_noise=False, **SMALL)
    model = Regression(1, 1, config, generator=seeded(1))
    model.fit(x, y, generator=seeded(2))
    rows, target = model.inputs.scale(x), model.targets.scale(y).double().flatten()
    hidden = model.net.base.features(rows.float().unsqueeze(0))[0].detach().double()
    features = torch.cat((hidden / 2, 2 * torch.ones(200, 1)), 1)  # std 2 / √16, and 2
    noise = model.heads.log_var.detach().double().exp().item()
    found = linear(features, target, torch.full((200,), 1 / noise).double())
    mean = features[:5] @ found.mean
    variance = (features[:5] @ found.root).square().sum(1)
    drawn = model.targets.scale(model.predict(x[:5]).mean).squeeze(-1).double()
    assert close(drawn, mean)
    assert close((drawn - mean).square(), variance)
    assert model.net.evidence.item() == pytest.approx(found.evidence, rel=1e-4)


@pytest.mark.parametrize("homoscedastic", [False, True])
def test_constant_targets_and_fewer_rows_than_features_have_a_posterior_of_the_last_layer(
    homoscedastic,
):
    x = torch.randn(5, 1, generator=seeded())
    config = LaplaceConfig(homoscedastic=homoscedastic, **SMALL)
    for target in (torch.full((5, 1), 3.0), torch.cat((x[:1], x[:1], x[:1], x[:1], x[:1]))):
        model = Regression(1, 1, config, generator=seeded(1))
        model.fit(x, target, generator=seeded(2))
        mean, std = model.predict(x)
        assert mean.isfinite().all() and std.isfinite().all()
        assert (mean - target[0]).abs().max() < 1e-3
        assert model.net.evidence.isfinite().all()


def test_anchored_members_are_map_estimates_whose_spread_is_the_posterior():
    # Pearce et al. 2020, equation 11: with these anchors, linear MAP estimates are exact samples
    x, y, s, precision, posterior = regression()
    prior = s**2 * torch.eye(3, dtype=torch.double)
    anchors = prior + prior @ (x.T @ x) @ prior
    root = torch.linalg.cholesky(anchors)
    draws = torch.randn(3000, 3, generator=seeded(1), dtype=torch.double) @ root.T
    net = PriorMLP(
        3000, (3, 1), prior_std=s * math.sqrt(3), activation="tanh", anchored=True,
        generator=seeded(),
    ).double()  # fmt: skip
    with torch.no_grad():
        net.centre[:, :3] = draws
        net.centre[:, 3] = 0.0
        net.biases[0].zero_()

    # Newton's step is exact for a quadratic
    def objective(weight):
        likelihood = 0.5 * (y.unsqueeze(1) - x @ weight).square().sum((1, 2))
        with torch.no_grad():
            net.weights[0].copy_(weight)
        net.zero_grad()
        penalty = torch.autograd.grad(net.penalty().sum(), net.weights[0])[0]
        return torch.autograd.grad(likelihood.sum(), weight)[0] + penalty

    weight = torch.zeros(3000, 3, 1, dtype=torch.double, requires_grad=True)
    found = -torch.linalg.solve(precision, objective(weight).squeeze(-1).T).T
    away = found - posterior
    assert torch.allclose(objective(found.unsqueeze(-1).detach().requires_grad_()).abs().max(),
                          torch.zeros(()).double(), atol=1e-9)  # fmt: skip
    assert close(away, torch.zeros(3).double())
    assert close(away.unsqueeze(2) * away.unsqueeze(1), torch.linalg.inv(precision))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="members: want a multiple of the 3 networks, got 5"):
        SwagConfig(networks=3)
    with pytest.raises(ValueError, match="members: there are 4 samples, got 6"):
        LangevinConfig(networks=2, members=6, samples=2)
    with pytest.raises(ValueError, match="cycle_samples: the sampling phase has 5 updates"):
        SgmcmcConfig(cycle_steps=10, cycle_samples=6)
    with pytest.raises(ValueError, match="elites must be unset: SwagMLP has no separate members"):
        Regression(1, 1, SwagConfig(elites=2), generator=seeded())
    model = Regression(1, 1, SwagConfig(**SMALL), generator=seeded())
    x, y = wave(20)
    with pytest.raises(ValueError, match="weights: samples of one posterior take"):
        model.fit(x, y, weights=torch.ones(5, 20), generator=seeded())


def test_a_laplace_network_has_no_posterior_before_a_fit():
    net = LaplaceMLP(LaplaceConfig(), (1, 4, 2), generator=seeded())
    before = flat(net.drawn).clone()
    net.resample(generator=seeded(1))
    assert torch.equal(flat(net.drawn), before)


@pytest.mark.parametrize("name", [*MODELS])
def test_a_run_knows_its_kind_of_model_again(name):
    agent = PETSConfig(model=model_config(name, EnsembleConfig(hidden=(7,), learn_reward=True)))
    config = RunConfig("pets", "Pendulum-v1", 0, 100, "cpu", agent)
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert type(again.agent.model) is MODELS[name]
    assert again.agent.model.learn_reward
    if name != "gp":  # which has no hidden layers
        assert (again.agent.model.hidden == (7,)) == (name != "langevin")


def test_a_plan_is_made_with_one_set_of_samples_and_the_next_with_another():
    model = DropoutConfig(members=2, hidden=(8,), learn_reward=True).make(2, 1, generator=seeded())
    seen = []
    step = model.step
    model.step = lambda *given, **named: (
        seen.append(model.net.uniform.clone()) or step(*given, **named)
    )
    config = MPCConfig(PlannerConfig(horizon=3, population=10, iterations=3, elites=2), particles=2)
    mpc = config.build(-torch.ones(1), torch.ones(1))
    controller = Controller(model, mpc, config, reward=None, terminated=None, generator=seeded(1))
    of_plans = []
    for _ in range(2):
        seen.clear()
        controller.act(np.zeros(2, np.float32))
        assert len(seen) > 3 and all(torch.equal(one, seen[0]) for one in seen)
        of_plans.append(seen[0])
    assert not torch.equal(*of_plans)


def test_a_refit_that_diverges_is_repeated_from_fresh_weights(monkeypatch):
    x, y = wave(60)
    config = EnsembleConfig(members=2, hidden=(8,), epochs=5, batch=20)
    model = Regression(1, 1, config, generator=seeded())
    model.fit(x, y, generator=seeded(1))
    with torch.no_grad():
        for weight in model.net.weights:
            weight.mul_(1e25)  # from here every fit diverges
    said = model.fit(x, y, generator=seeded(2))
    assert said["restarted"] == 1.0
    assert model.predict(x).mean.abs().max() < 10
    assert "restarted" not in model.fit(x, y, generator=seeded(3))
