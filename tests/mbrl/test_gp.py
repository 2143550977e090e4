"""Gaussian processes against GPyTorch, scikit-learn, quadrature and Monte Carlo."""

import importlib.util
import math

import gpytorch
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from experiments.cli import command
from mbrl.dynamics import EnsembleConfig, GPConfig, GPDynamics, GPRegression, gaussian_processes
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.table import model_config
from mbrl.imagination import rollout
from mbrl.types import Resampled, Transition

SMALL = {"points": 60, "tuning_points": 60, "iterations": 20}
DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def wave(count=40, inputs=2, seed=0):
    """Two functions of the first two inputs, with noise."""
    draw = seeded(seed)
    x = torch.randn(count, inputs, generator=draw)
    y = torch.stack((torch.sin(2 * x[:, 0]), x[:, 0] * x[:, -1]), -1)
    return x, y + 0.1 * torch.randn(count, 2, generator=draw)


def fitted(x, y, **settings):
    config = GPConfig(**SMALL | settings)
    model = GPRegression(x.shape[1], y.shape[1], config, generator=seeded(1))
    model.fit(x, y, generator=seeded(2))
    return model


@pytest.fixture(scope="module")
def waves():
    """Processes of moderate hyperparameters, by kernel, of whom 4,000 functions are drawn."""
    found = {}
    for kernel in ("se", "matern52"):
        model = fitted(*wave(), kernel=kernel, members=4000, frequencies=16, iterations=1)
        model.net.length.copy_(torch.tensor([[1.0, 1.5], [0.7, 2.0]]))
        model.net.scale.copy_(torch.tensor([1.0, 1.5]))
        model.net.noise.fill_(0.3)
        model.resample(generator=seeded(3))
        found[kernel] = model
    return found


def close(estimates, exact, errors=4.5):
    """Whether the mean of estimates (N, ...) is the exact value, within standard errors."""
    error = estimates.std(0) / len(estimates) ** 0.5
    return bool(((estimates.mean(0) - exact).abs() <= errors * error + 1e-9).all())


def by_gpytorch(net, k, x):
    """GPyTorch's mean and variance of output k, at the same hyperparameters."""
    base = gpytorch.kernels.RBFKernel(ard_num_dims=x.shape[1])
    if net.config.kernel == "matern52":
        base = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=x.shape[1])
    count = int(net.rows)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(
        noise_constraint=gpytorch.constraints.GreaterThan(1e-9)
    )
    likelihood = likelihood.double()

    class Exact(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(net.x[:count], net.y[:count, k], likelihood)
            self.mean = gpytorch.means.ZeroMean()
            self.kernel = gpytorch.kernels.ScaleKernel(base)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    model = Exact().double().eval()
    model.kernel.base_kernel.lengthscale = net.length[k]
    model.kernel.outputscale = net.scale[k] ** 2
    likelihood.noise = net.noise[k] ** 2
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        found = model(x)
    return found.mean, found.variance


@pytest.mark.parametrize("kernel", ["se", "matern52"])
@pytest.mark.parametrize("case", ["many rows", "fewer rows than inputs", "every row twice"])
def test_the_posterior_is_that_of_gpytorch(kernel, case):
    x, y = wave(4, inputs=6) if case == "fewer rows than inputs" else wave(30)
    if case == "every row twice":
        x, y = torch.cat((x, x)), torch.cat((y, y))
    model = fitted(x, y, kernel=kernel)
    new = torch.randn(20, x.shape[1], generator=seeded(3), dtype=DOUBLE)
    mean, variance = model.net.posterior(model.inputs.scale(new))
    std = model.targets.std.double()
    exact = model.posterior(new)
    for k in range(2):
        want, spread = by_gpytorch(model.net, k, model.inputs.scale(new))
        torch.testing.assert_close(mean[:, k], want, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(variance[:, k], spread, rtol=1e-6, atol=1e-6)
        moved = std[k] * want + model.targets.mean[k]
        torch.testing.assert_close(exact.mean[:, k], moved, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(exact.std[:, k], std[k] * spread.sqrt(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_hyperparameters_are_those_of_scikit_learn():
    x, y = wave(60)
    model = fitted(x, y, iterations=100)
    net = model.net
    for k in range(2):
        kernel = ConstantKernel(1.0) * RBF([1.0, 1.0], (1e-2, 1e4)) + WhiteKernel(0.01)
        best = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
        best.fit(net.x[:60].numpy(), net.y[:60, k].numpy())
        found = [
            2 * net.scale[k].log(),
            *net.length[k].log(),
            2 * net.noise[k].log(),
        ]
        value = best.log_marginal_likelihood(np.array(found))
        assert value == pytest.approx(best.log_marginal_likelihood_value_, abs=0.02)


def test_the_loss_is_the_marginal_likelihood():
    x, y = wave(30)
    model = GPRegression(2, 2, GPConfig(**SMALL), generator=seeded())
    loss = model.fit(x, y, generator=seeded())["loss"]
    net, total = model.net, 0.0
    for k in range(2):
        away = (net.x[:30].unsqueeze(1) - net.x[:30]) / net.length[k]
        gram = net.scale[k] ** 2 * (-0.5 * away.square().sum(-1)).exp()
        gram += net.noise[k] ** 2 * torch.eye(30)
        total -= multivariate_normal(np.zeros(30), gram.numpy()).logpdf(net.y[:30, k].numpy())
    assert loss == pytest.approx(total / 60 - 0.5 * math.log(2 * math.pi), abs=1e-9)


@pytest.mark.parametrize("kernel", ["se", "matern52"])
def test_functions_drawn_have_the_mean_and_covariance_of_the_posterior(waves, kernel):
    """Although each has 16 frequencies only."""
    model = waves[kernel]
    new = torch.tensor([[0.1, 0.2], [0.4, -0.3], [2.5, 2.5], [-6.0, 1.0]])
    values = model.predict(new).mean.double().detach()
    exact = model.posterior(new)
    away = values - exact.mean
    assert close(values, exact.mean)
    assert close(away.square(), exact.std.square())
    for k in range(2):
        rows = model.inputs.scale(new.double())
        joint = by_gpytorch_joint(model.net, k, rows) * model.targets.std[k].double() ** 2
        torch.testing.assert_close(joint.diagonal(), exact.std[:, k].square())
        assert close(away[..., None, k] * away[..., None, :, k], joint)


def by_gpytorch_joint(net, k, x):
    """The covariance of output k at several places, by its formula and GPyTorch's kernels."""
    if net.config.kernel == "se":
        base = gpytorch.kernels.RBFKernel(ard_num_dims=2).double()
    else:
        base = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=2).double()
    base.lengthscale = net.length[k]
    rows = net.x[: int(net.rows)]
    with torch.no_grad():
        prior, cross, gram = (
            net.scale[k] ** 2 * base(*pair).to_dense() for pair in ((x, x), (x, rows), (rows, rows))
        )
    gram = gram + net.noise[k] ** 2 * torch.eye(len(rows))
    return prior - cross @ torch.linalg.solve(gram, cross.mT)


def test_members_are_functions_that_stay_until_they_are_drawn_anew(waves):
    model, new = fitted(*wave()), torch.randn(7, 2, generator=seeded(4))
    assert isinstance(model, Resampled)
    with torch.no_grad():
        first = model.predict(new)
        assert torch.equal(first.mean, model.predict(new).mean)
        noise = model.targets.std * model.net.noise.float()
        torch.testing.assert_close(first.std, noise.expand(5, 7, 2))
        model.resample(generator=seeded(5))
        again = model.predict(new).mean
        assert not torch.equal(first.mean, again)
        # many rows go through in parts
        wide = new.repeat(2000, 1)
        torch.testing.assert_close(model.predict(wide).mean[:, -7:], again)


def moments_by_quadrature(model, mean, std):
    """Moments of the values for x ~ N(mean, std²), by sums over a fine grid of the posterior's."""
    places = torch.linspace(-9, 9, 20_001, dtype=DOUBLE)
    weights = (-0.5 * places.square()).exp()
    weights = weights / weights.sum()
    values, variances = model.net.posterior((mean + std * places).unsqueeze(1))
    middle = weights @ values
    away = values - middle
    cov = (weights.unsqueeze(1) * away).mT @ away + (weights @ variances).diag()
    return middle, cov, weights * std * places @ away


@pytest.mark.parametrize("std", [0.0, 1e-4, 0.3, 2.0])
def test_moments_for_a_gaussian_input_are_those_of_quadrature(std):
    x, y = wave(25)
    model = fitted(x[:, :1], y)
    for mean in (0.2, 3.0):
        found = model.net.moments(
            torch.tensor([mean], dtype=DOUBLE), torch.tensor([[std**2]], dtype=DOUBLE), outputs=2
        )
        middle, cov, cross = moments_by_quadrature(model, mean, std)
        torch.testing.assert_close(found.mean, middle, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(found.cov, cov, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found.cross[0], cross, rtol=1e-7, atol=1e-7)


def test_moments_for_a_gaussian_input_are_those_of_monte_carlo(waves):
    net = waves["se"].net
    mean = torch.tensor([0.3, -0.5], dtype=DOUBLE)
    root = torch.tensor([[0.6, 0.0], [-0.4, 0.3]], dtype=DOUBLE)
    found = net.moments(mean, root @ root.mT, outputs=2)
    drawn = torch.randn(100_000, 2, generator=seeded(7), dtype=DOUBLE)
    x = mean + drawn @ root.mT
    values, variances = net.posterior(x)
    values = values + variances.sqrt() * torch.randn(
        values.shape, generator=seeded(8), dtype=DOUBLE
    )
    away = values - found.mean
    assert close(values, found.mean)
    assert close(away.unsqueeze(1) * away.unsqueeze(2), found.cov)
    assert close((x - mean).unsqueeze(2) * away.unsqueeze(1), found.cross)


def steps(count=60, seed=0, noise=0.02):
    """Steps of a damped oscillator that is pushed; its reward is known, its end is far right."""
    draw = seeded(seed)
    obs = torch.randn(count, 2, generator=draw)
    action = 2 * torch.rand(count, 1, generator=draw) - 1
    change = torch.stack((obs[:, 1], -torch.sin(obs[:, 0]) - 0.2 * obs[:, 1] + action[:, 0]), -1)
    after = obs + 0.2 * change + noise * torch.randn(count, 2, generator=draw)
    return Transition(obs, action, after[:, 0], after, after[:, 0] > 0.8, torch.zeros(count) > 0)


@pytest.fixture(scope="module")
def pendulum():
    config = GPConfig(**SMALL, learn_reward=True, learn_termination=True)
    model = GPDynamics(2, 1, config, generator=seeded())
    model.fit(steps(), generator=seeded(1))
    return model


def test_moments_over_several_steps_are_those_of_monte_carlo(pendulum):
    """The state stays nearly Gaussian over five steps: within 3 % of 40,000 particles that are
    stepped by the exact posterior."""
    mean, cov = torch.tensor([0.3, 0.0]), torch.diag(torch.tensor([0.02, 0.01]))
    actions = torch.tensor([[1.0], [0.5], [-1.0], [0.0], [0.5]])
    means, covs = pendulum.moments(mean, cov, actions)
    assert means.shape == (6, 2) and covs.shape == (6, 2, 2)
    draw = seeded(2)
    state = mean + torch.randn(40_000, 2, generator=draw) * cov.diagonal().sqrt()
    state = state.double()
    for t, action in enumerate(actions, 1):
        found = pendulum.posterior(state, action.expand(len(state), 1), noise=True)
        drawn = torch.randn(state.shape, generator=draw, dtype=DOUBLE)
        state = found.mean[:, :2] + found.std[:, :2] * drawn
        std = covs[t].diagonal().sqrt()
        assert ((state.mean(0) - means[t]).abs() < 0.03 * std).all()
        assert ((state.mT.cov() - covs[t]).abs() < 0.03 * torch.outer(std, std)).all()


def test_moments_of_a_linear_system_are_those_of_the_kalman_filter():
    """With so many rows the function is known: within a tenth of the exact std."""
    draw, noise = seeded(3), 0.02
    a, b = torch.tensor([[1.0, 0.2], [-0.3, 0.9]]), torch.tensor([[0.0], [0.4]])
    obs, action = torch.randn(300, 2, generator=draw), torch.randn(300, 1, generator=draw)
    after = obs @ a.T + action @ b.T + noise * torch.randn(300, 2, generator=draw)
    ends = torch.zeros(300) > 0
    config = GPConfig(points=300, tuning_points=150, iterations=30)
    model = GPDynamics(2, 1, config, generator=draw)
    model.fit(Transition(obs, action, obs[:, 0], after, ends, ends), generator=draw)
    mean, cov = torch.tensor([0.5, -0.2]), torch.tensor([[0.04, 0.01], [0.01, 0.02]])
    actions = torch.tensor([[1.0], [-0.5], [0.3], [0.0]])
    means, covs = model.moments(mean, cov, actions)
    for t, action in enumerate(actions, 1):
        mean, cov = a @ mean + b @ action, a @ cov @ a.T + noise**2 * torch.eye(2)
        assert ((means[t] - mean).abs() < 0.1 * cov.diagonal().sqrt()).all()
        std = cov.diagonal().sqrt()
        assert ((covs[t] - cov).abs() < 0.1 * torch.outer(std, std)).all()


def test_moments_are_differentiable_and_take_a_known_state(pendulum):
    actions = torch.tensor([[0.5], [-0.5]], dtype=DOUBLE, requires_grad=True)
    start = torch.tensor([0.2, 0.1], dtype=DOUBLE), torch.zeros(2, 2, dtype=DOUBLE)
    means, covs = pendulum.moments(*start, actions)
    (slope,) = torch.autograd.grad(means[-1, 0] + covs[-1, 0, 0], actions)
    step = torch.tensor([[1e-2], [0.0]], dtype=DOUBLE)
    up, down = (pendulum.moments(*start, actions.detach() + sign * step) for sign in (1, -1))
    rise = (up[0][-1, 0] + up[1][-1, 0, 0] - down[0][-1, 0] - down[1][-1, 0, 0]) / 2e-2
    assert slope[0, 0].item() == pytest.approx(rise.item(), rel=1e-3)
    first = pendulum.posterior(start[0][None], actions[:1].detach(), noise=True)
    torch.testing.assert_close(means[1], first.mean[0, :2], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(covs[1].diagonal(), first.std[0, :2].square(), rtol=1e-5, atol=1e-9)


def test_moments_refuse_what_is_no_gaussian_and_other_kernels(pendulum):
    mean, cov, actions = torch.zeros(2), torch.eye(2), torch.zeros(3, 1)
    for given, said in (
        ((torch.zeros(3), cov, actions), r"mean must have shape \(2,\), got \(3,\)"),
        ((mean, cov, torch.zeros(3, 2)), r"actions must have shape \(3, 1\)"),
        ((mean, cov * math.nan, actions), "cov holds a number that is not finite"),
        ((mean, -cov, actions), "cov must be a covariance"),
        ((mean, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), actions), "cov must be a covariance"),
    ):
        with pytest.raises(ValueError, match=said):
            pendulum.moments(*given)
    model = GPDynamics(2, 1, GPConfig(kernel="matern52", **SMALL), generator=seeded())
    with pytest.raises(ValueError, match="kernel: .* squared exponential 'se', not 'matern52'"):
        model.moments(mean, cov, actions)


def test_a_termination_is_learned_and_what_never_ended_does_not(pendulum):
    new = steps(300, seed=5)
    with torch.no_grad():
        rows = (part.expand(5, -1, -1) for part in (new.obs, new.action))
        step = pendulum.step(*rows, noise=None)
        votes = step.terminated.float().mean(0) > 0.5
        assert (votes == new.terminated).float().mean() > 0.9
        assert 0.1 < new.terminated.float().mean() < 0.5
        endless = GPDynamics(2, 1, pendulum.config, generator=seeded())
        data = steps()._replace(terminated=torch.zeros(60) > 0)
        for _ in range(2):
            far = 100 * torch.ones(5, 3, 2)
            assert not endless.step(far, far[..., :1], noise=None).terminated.any()
            endless.fit(data, generator=seeded())


def test_constant_targets_are_predicted_exactly_and_without_noise():
    data = steps()
    obs = torch.stack((data.obs[:, 0], torch.arange(60) / 4), -1)  # whose sums are exact
    after = torch.stack((data.next_obs[:, 0], obs[:, 1] + 0.25), -1)
    data = data._replace(obs=obs, next_obs=after)
    model = GPDynamics(2, 1, GPConfig(**SMALL), generator=seeded())
    model.fit(data, generator=seeded(1))
    mean, std = model.predict(torch.zeros(5, 1, 2), torch.zeros(5, 1, 1))
    torch.testing.assert_close(mean[..., 1], torch.full((5, 1), 0.25))
    assert (std[..., 1] < 1e-10).all() and (std[..., 0] > 1e-3).all()
    still = data._replace(next_obs=data.obs)
    model.fit(still, generator=seeded(1))
    means, covs = model.moments(torch.zeros(2), torch.eye(2), torch.zeros(2, 1))
    torch.testing.assert_close(means, torch.zeros(3, 2, dtype=DOUBLE))
    torch.testing.assert_close(covs, torch.eye(2, dtype=DOUBLE).expand(3, 2, 2))


def test_a_refit_starts_from_the_last_hyperparameters_and_takes_up_all_rows():
    model = GPDynamics(2, 1, GPConfig(**SMALL | {"iterations": 100}), generator=seeded())
    first = model.fit(steps(40), generator=seeded(1))
    second = model.fit(steps(40), generator=seeded(1))
    assert second["epochs"] < 0.5 * first["epochs"]
    assert second["loss"] == pytest.approx(first["loss"], abs=0.02)
    model.fit(steps(300), generator=seeded(1))
    assert int(model.net.rows) == 60  # no more than `points`
    kept = model.inputs.scale(torch.cat((steps(300).obs, steps(300).action), -1)).double()
    nearest = torch.cdist(model.net.x[:60], kept).min(1)
    assert nearest.values.max() < 1e-6 and len(nearest.indices.unique()) == 60
    model.fit(steps(20), generator=seeded(1))
    assert int(model.net.rows) == 20 and not model.net.x[20:].any()


def test_a_model_that_is_saved_and_loaded_goes_on_to_the_byte(pendulum):
    other = GPDynamics(2, 1, pendulum.config, generator=seeded(9))
    other.load_state_dict({name: part.clone() for name, part in pendulum.state_dict().items()})
    rows = torch.randn(5, 4, 2, generator=seeded()), torch.zeros(5, 4, 1)
    for model in (pendulum, other):
        model.resample(generator=seeded(4))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            pendulum.step(*rows, noise=None), other.step(*rows, noise=None), strict=True
        )
    )
    losses = [model.fit(steps(50), generator=seeded(5))["loss"] for model in (pendulum, other)]
    assert losses[0] == losses[1]
    assert torch.equal(pendulum.predict(*rows).mean, other.predict(*rows).mean)


def test_bad_rows_are_refused_and_change_nothing(monkeypatch):
    model = GPDynamics(2, 1, GPConfig(**SMALL), generator=seeded())
    model.fit(steps(), generator=seeded(1))
    before = {name: part.clone() for name, part in model.state_dict().items()}
    data = steps()
    for change, said in (
        ({"obs": data.obs * math.nan}, "obs holds a number that is not finite"),
        ({"action": torch.zeros(60, 2)}, r"action must have shape \(60, 1\)"),
    ):
        with pytest.raises(ValueError, match=said):
            model.fit(data._replace(**change), generator=seeded())
    with pytest.raises(ValueError, match="weights must be None"):
        model.fit(data, weights=torch.ones(60), generator=seeded())

    def noiseless(x, y, starts, config):
        return [(one._replace(noise=0 * one.noise), 1.0, 1.0) for one in starts]

    rows = torch.zeros(60, dtype=torch.long)  # all of them the same
    twice = data._replace(obs=data.obs[rows], action=data.action[rows])
    monkeypatch.setattr(gaussian_processes, "tune", noiseless)
    with pytest.raises(FitDiverged, match="not positive definite; raise least_noise"):
        model.fit(twice, generator=seeded())
    monkeypatch.undo()
    for name, part in model.state_dict().items():
        assert torch.equal(part, before[name])
    with pytest.raises(ValueError, match=r"rows must have shape \('B', 3\), got \(4, 2\)"):
        model.posterior(torch.zeros(4, 1), torch.zeros(4, 1))


def test_every_propagation_goes_through_functions_drawn(pendulum):
    for propagation in ("ts1", "tsinf", "expectation", "moment", "distribution"):
        imagined = rollout(
            pendulum, torch.zeros(2), torch.zeros(3, 4, 1), particles=10, propagation=propagation,
            generator=seeded(),
        )  # fmt: skip
        assert imagined.state.isfinite().all()


def test_another_kind_of_model_gives_its_members_and_what_it_learns():
    like = EnsembleConfig(members=7, elites=5, learn_reward=True, warm=False)
    config = model_config("gp", like)
    assert config == GPConfig(members=7, learn_reward=True, warm=False)
    back = model_config("ensemble", config)
    assert (back.members, back.learn_reward, back.warm) == (7, True, False)


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gpytorch" else find(name, *a)
    )
    line = "train pets --env pendulum-swingup --model gp --steps 30"
    assert command.run(line.split()) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == ("mbrl: gpytorch is not installed: pip install 'rolloutlab[gp]'")
    assert list(tmp_path.iterdir()) == []
