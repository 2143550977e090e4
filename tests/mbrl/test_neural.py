"""What all neural models share, also with nets that are not ensembles."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mbrl.dynamics import Ensemble, EnsembleConfig, NeuralDynamics, Regression, fitting
from mbrl.imagination import rollout
from mbrl.nn import Net
from mbrl.types import Dynamics, Fittable, GaussianDynamics, Resampled, Transition
from tests.worlds import BayesianLinearConfig, linear_posterior

CONFIG = EnsembleConfig(members=4, hidden=(48, 48), batch=128, epochs=40, patience=15)
FINE = replace(CONFIG, batch=32, epochs=100, patience=30, learning_rate=5e-3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transitions(count=300, seed=0):
    """A damped point in a plane that is pushed along its first axis."""
    g = seeded(seed)
    obs, action = torch.randn(count, 2, generator=g), torch.randn(count, 1, generator=g)
    after = obs @ torch.tensor([[0.9, 0.2], [-0.3, 0.8]]) + action * torch.tensor([0.5, 0.0])
    after = after + 0.1 * torch.randn(count, 2, generator=g)
    none = torch.zeros(count) > 0
    return Transition(obs, action, -after.square().sum(-1), after, after[:, 0] > 1, none)


def test_raw_targets_leave_small_outputs_to_the_large_ones():
    """With a squared error an output a thousandth of another's size has a millionth of its loss."""
    g = seeded(5)
    x = torch.randn(400, 2, generator=g)
    y = torch.stack((x[:, 0].sin() * 10, x[:, 1].sin() * 0.01), -1)
    share = {}
    for scaled in (True, False):
        config = replace(FINE, members=2, probabilistic=False, normalise_targets=scaled)
        model = Regression(2, 2, config, generator=seeded())
        model.fit(x, y, generator=seeded(6))
        with torch.no_grad():
            off = model.predict(x).mean.mean(0) - y
        share[scaled] = off.square().mean(0).sqrt() / y.std(0)
        values = model.state_dict()
        assert not torch.equal(values["inputs.std"], torch.ones(2))
        assert torch.equal(values["targets.mean"], torch.zeros(2)) != scaled
        assert torch.equal(values["targets.std"], torch.ones(2)) != scaled
    assert (share[True] < 0.2).all()
    assert share[False][0] < 0.2 and share[False][1] > 5 * share[True][1]


# Bayesian linear regression, in closed form


@pytest.fixture(scope="module")
def bayesian():
    """A variational linear regression of correlated inputs, and the exact posterior."""
    noise, prior, g = 0.3, 0.7, seeded(1)
    x = torch.randn(40, 3, generator=g) @ torch.tensor([[1, 0.6, 0], [0, 1, 0.4], [0, 0, 1.0]])
    y = x @ torch.tensor([[0.5, -1.0], [0.2, 0.3], [-0.4, 0.0]])
    y = y + noise * torch.randn(40, 2, generator=g)
    config = BayesianLinearConfig(
        members=64, prior=prior, normalise=False, holdout=0.0, bootstrap=False, batch=40,
        learning_rate=2e-3, epochs=2500,
    )  # fmt: skip
    model = Regression(3, 2, config, generator=seeded())
    with torch.no_grad():  # the noise is known
        model.heads.log_var.fill_(2 * math.log(noise)).requires_grad_(False)
    model.fit(x, y, generator=seeded(2))
    return model, *linear_posterior(x, y, noise=noise, prior=prior)


def test_a_variational_posterior_equals_the_closed_form(bayesian):
    """Means are exact, variances are 1 / Λᵢᵢ (smaller than the marginals of Λ⁻¹)."""
    model, mean, precision = bayesian
    std = precision.diagonal().rsqrt().unsqueeze(-1)
    error = (model.net.mean - mean) / std
    assert error.abs().max() < 0.15
    assert (model.net.log_std.exp() / std - 1).abs().max() < 0.05
    marginal = precision.inverse().diagonal().sqrt().unsqueeze(-1)
    assert (marginal / std).max() > 1.2  # so that the two differ


def test_resampling_draws_from_the_posterior(bayesian):
    """Predictions of many samples have the mean and variance of x w over the factorised w."""
    model, mean, precision = bayesian
    x, draws = torch.randn(5, 3, generator=seeded(3)), []
    for seed in range(100):
        model.resample(generator=seeded(seed))
        with torch.no_grad():
            draws.append(model.predict(x).mean)
    assert torch.equal(model.predict(x).mean, draws[-1])  # it is constant until the next call
    every = torch.cat(draws)
    assert len(every.unique(dim=0)) == 6400
    model.resample(generator=seeded(0))
    with torch.no_grad():
        assert torch.equal(model.predict(x).mean, draws[0])
    std = (x.square() @ (1 / precision.diagonal())).sqrt().unsqueeze(-1)
    # 6400 draws give a std to 1 %; the error of the fit is added
    assert (every.std(0) / std - 1).abs().max() < 0.07
    assert ((every.mean(0) - x @ mean) / std).abs().max() < 0.2


def test_a_bayesian_net_is_used_as_a_dynamics_model():
    """Fitted to a linear world, its error in the change is near the noise of 0.1."""
    config = BayesianLinearConfig(
        members=5, prior=10.0, learning_rate=1e-2, batch=64, epochs=400, patience=40
    )
    model, data = NeuralDynamics(2, 1, config, generator=seeded()), transitions()
    assert all(
        isinstance(model, kind) for kind in (Dynamics, GaussianDynamics, Fittable, Resampled)
    )
    metrics = model.fit(data, generator=seeded(1))
    assert metrics["epochs"] < 400
    state, action = (part.expand(5, -1, -1) for part in (data.obs, data.action))
    with torch.no_grad():
        mean, std = model.predict(state, action)
        error = (mean.mean(0)[:, :2] - data.next_obs).square().mean().sqrt()
        assert 0.09 < error < 0.12
        assert (std[..., :2].mean((0, 1)) / 0.1 - 1).abs().max() < 0.15
        noise = torch.randn(state.shape, generator=seeded(2))
        step = model.step(state, action, noise=noise)
        torch.testing.assert_close(step.state, mean[..., :2] + std[..., :2] * noise)
        before = step.state.clone()
        model.resample(generator=seeded(9))
        again = model.step(state, action, noise=noise).state
    assert not torch.equal(before, again)
    imagined = rollout(
        model, torch.zeros(2), torch.zeros(3, 6, 1), particles=10, generator=seeded(4)
    )
    assert imagined.state.shape == (10, 3, 7, 2) and imagined.state.isfinite().all()
    other = NeuralDynamics(2, 1, config, generator=seeded(7))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other.step(state, action, noise=noise).state, again)


# Any module


class Averaged(Net):
    """E networks that use the outputs of one another, so members are not separable."""

    def __init__(self, members, inputs, outputs):
        super().__init__()
        self.nets = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(members))
        self.share = nn.Parameter(torch.tensor(0.5))

    @property
    def members(self):
        return len(self.nets)

    def forward(self, x):
        own = torch.stack([net(rows) for net, rows in zip(self.nets, x, strict=True)])
        return own + self.share * own.mean(0)


class Gated(Net):
    """E networks with a parameter of another shape and a frozen one; members are separable."""

    separable = True

    def __init__(self, members, inputs, outputs):
        super().__init__()
        g = seeded()
        self.weight = nn.Parameter(0.1 * torch.randn(members, inputs, 16, generator=g))
        self.gate = nn.Parameter(torch.ones(members))
        self.last = nn.Parameter(0.1 * torch.randn(members, 16, outputs, generator=g))
        self.register_buffer("offset", torch.arange(float(members)).view(-1, 1, 1))
        self.frozen = nn.Parameter(torch.ones(members, 1, 16), requires_grad=False)

    @property
    def members(self):
        return len(self.gate)

    def forward(self, x):
        hidden = torch.tanh(x @ self.weight + self.offset) * self.frozen
        return (hidden * self.gate.view(-1, 1, 1)) @ self.last


@dataclass(frozen=True)
class AnyConfig(EnsembleConfig):
    net: type = Averaged

    def build(self, inputs, outputs, *, generator):
        return self.net(self.members, inputs, outputs)

    def decay(self, net):
        return {}


@pytest.mark.parametrize("net", [Averaged, Gated])
@pytest.mark.parametrize("stacked", [True, False])
def test_any_module_can_be_the_net(monkeypatch, net, stacked):
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)
    elites = 2 if net is Gated else None
    config = AnyConfig(members=3, net=net, epochs=60, batch=64, learning_rate=1e-2, elites=elites)
    model = NeuralDynamics(2, 1, config, generator=seeded())
    before, frozen = model.state_dict()["heads.max_log_var"].clone(), transitions(50, seed=5)
    model.fit(transitions(), generator=seeded(1))
    assert before.shape[0] == (3 if net is Gated else 1)
    state, action = (part.expand(elites or 3, -1, -1) for part in (frozen.obs, frozen.action))
    with torch.no_grad():
        after = model.step(state, action, noise=None).state.mean(0)
    error = (after - frozen.next_obs).square().mean()
    assert error < 0.2 * (frozen.obs - frozen.next_obs).square().mean()
    if net is Gated:
        assert sorted(model.net.offset.flatten().tolist()) == [0, 1, 2]
        assert (model.net.frozen == 1).all() and (model.net.gate != 1).all()


def test_elites_are_refused_for_nets_whose_members_are_not_separable():
    with pytest.raises(ValueError, match="elites must be unset: Averaged"):
        NeuralDynamics(2, 1, AnyConfig(members=3, elites=2), generator=seeded())


# Gradients in the weights


def by_differences(model, value):
    """Compare each parameter's gradient along a random direction with central differences."""
    model.to(torch.float64)
    gradients = torch.autograd.grad(value(), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        along = torch.randn(parameter.shape, generator=seeded(5), dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():  # so that these use the cache
                parameter.add_(along, alpha=sign * 1e-5)
                ends.append(value())
                parameter.sub_(along, alpha=sign * 1e-5)
        wanted = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((gradient * along).sum(), wanted, rtol=1e-6, atol=1e-9)
        assert wanted != 0


def fitted(**settings):
    config = replace(CONFIG, hidden=(16, 16), epochs=2, learn_reward=True, **settings)
    model = Ensemble(2, 1, config, generator=seeded())
    model.fit(transitions(), generator=seeded(1))
    return model


@pytest.mark.parametrize("settings", [{}, {"homoscedastic": True}, {"elites": 4}])
def test_gradients_reach_the_weights_through_a_step(settings):
    model = fitted(**settings)
    g = seeded(3)
    state, action, noise = (
        torch.randn(4, 6, size, generator=g, dtype=torch.float64) for size in (2, 1, 2)
    )

    def value():
        step = model.step(state, action, noise=noise)
        return step.state.sin().sum() + step.reward.square().sum()

    by_differences(model, value)


def test_gradients_reach_the_weights_through_a_rollout():
    model = fitted()
    start = torch.randn(3, 2, generator=seeded(3), dtype=torch.float64)
    actions = torch.randn(3, 4, 1, generator=seeded(4), dtype=torch.float64)

    def value():
        imagined = rollout(
            model, start, actions, particles=4, gradients=torch.is_grad_enabled(),
            generator=seeded(6),
        )  # fmt: skip
        return imagined.reward.sum() + imagined.state[:, :, -1].sin().sum()

    by_differences(model, value)


def test_cached_and_current_weights_predict_the_same_to_the_bit():
    """The cache is used if the weights need no gradient or gradients are off."""
    model = fitted(learn_termination=True)
    state, action = torch.randn(4, 9, 2, generator=seeded(3)), torch.randn(4, 9, 1)
    live = model.predict(state, action)
    assert live.mean.requires_grad and live.std.requires_grad
    with torch.no_grad():
        cached = model.predict(state, action)
    with torch.inference_mode():
        assert torch.equal(model.predict(state, action).mean, cached.mean)
    assert not cached.mean.requires_grad
    assert torch.equal(live.mean, cached.mean) and torch.equal(live.std, cached.std)
    model.requires_grad_(False)
    frozen = model.predict(state.requires_grad_(), action).mean
    (gradient,) = torch.autograd.grad(frozen.sum(), state)
    assert gradient.isfinite().all() and gradient.any()
    model.requires_grad_(True)
    (again,) = torch.autograd.grad(model.predict(state, action).mean.sum(), state)
    assert torch.equal(gradient, again)


# A regression


def waves(count, seed):
    g = seeded(seed)
    x = 4 * torch.rand(count, 1, generator=g) - 2
    return x, torch.sin(3 * x) + (0.05 + 0.1 * (x > 0)) * torch.randn(count, 1, generator=g)


@pytest.mark.parametrize("homoscedastic", [False, True])
def test_a_regression_beats_a_straight_line(homoscedastic):
    """The log-likelihood per point exceeds that of least squares by 1.2 nats (the truth by 2.0)."""
    model = Regression(1, 1, replace(FINE, homoscedastic=homoscedastic),
                       generator=seeded())  # fmt: skip
    x, y = waves(1000, 1)
    model.fit(x, y, generator=seeded(2))
    fresh, wanted = waves(2000, 3)
    with torch.no_grad():
        mean, std = model.predict(fresh)
    assert mean.shape == std.shape == (4, 2000, 1)

    def likelihood(mean, std):
        return torch.distributions.Normal(mean, std).log_prob(wanted)

    mixture = likelihood(mean, std).logsumexp(0) - math.log(4)
    line = torch.linalg.lstsq(torch.cat((x, torch.ones_like(x)), -1), y).solution
    straight = fresh * line[0] + line[1]
    baseline = likelihood(straight, (straight - wanted).std())
    gain = (mixture - baseline).mean()
    assert gain > 1.2
    louder = std[:, fresh[:, 0] > 0.3].mean() / std[:, fresh[:, 0] < -0.3].mean()
    assert abs(louder - 1) < 1e-6 if homoscedastic else louder > 2


def test_rows_of_weight_zero_are_not_learned():
    """Half of the rows are outliers of weight 0, for all members or for one."""
    x, y = waves(1000, 1)
    wrong = torch.arange(1000) % 2 == 0
    spoilt = torch.where(wrong.unsqueeze(-1), y + 3, y)
    weights = torch.where(wrong, 0.0, 2.0)
    each = torch.stack([weights] * 3 + [torch.ones(1000)])
    config = replace(FINE, holdout=0.0, epochs=60)
    fresh, wanted = waves(500, 3)
    errors = []
    for given in (weights, each):
        model = Regression(1, 1, config, generator=seeded())
        model.fit(x, spoilt, weights=given, generator=seeded(2))
        with torch.no_grad():
            errors.append((model.predict(fresh).mean - wanted).square().mean((1, 2)).sqrt())
    assert errors[0].max() < 0.3
    assert errors[1][:3].max() < 0.3 and 1.2 < errors[1][3] < 1.8


@pytest.mark.parametrize("learn_termination", [True, False])
def test_constants_stay_as_they_are_and_their_jumps_are_left_out_of_the_fit(learn_termination):
    """The third dimension is a goal, which jumps in every tenth step."""
    config = replace(
        CONFIG, epochs=2, learn_reward=True, learn_termination=learn_termination, constants=(2,)
    )
    rows = transitions()
    goal = torch.randn(300, 1, generator=seeded(1))
    jumps = torch.arange(300) % 10 == 3
    then = torch.where(jumps.unsqueeze(-1), goal + 1, goal)
    data = rows._replace(
        obs=torch.cat((rows.obs, goal), 1), next_obs=torch.cat((rows.next_obs, then), 1)
    )
    weights = torch.rand(300, generator=seeded(2))
    models = [NeuralDynamics(3, 1, config, generator=seeded()) for _ in range(2)]
    models[0].fit(data, weights=weights, generator=seeded(3))
    kept = Transition._make(column[~jumps] for column in data)
    models[1].fit(kept, weights=weights[~jumps], generator=seeded(3))
    state, action = torch.randn(4, 50, 3), torch.randn(4, 50, 1)
    steps = [model.step(state, action, noise=torch.randn(4, 50, 3)) for model in models]
    assert torch.equal(steps[0].state[..., 2], state[..., 2])
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)


def test_constants_that_are_no_dimensions_or_change_in_all_steps_are_refused():
    config = replace(CONFIG, epochs=1)
    with pytest.raises(ValueError, match="constants: 2 is no dimension of an observation of 2"):
        NeuralDynamics(2, 1, replace(config, constants=(0, 2)), generator=seeded())
    model = NeuralDynamics(2, 1, replace(config, constants=(0,)), generator=seeded())
    with pytest.raises(ValueError, match=r"constants: .* change in all but 0 of 300 transitions"):
        model.fit(transitions(), generator=seeded())


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 1), None, r"x must have shape \(5, 1\), got \(5, 2\)"),
        (torch.zeros(5, 1), torch.zeros(4, 1), None, r"y must have shape \(5, 1\), got \(4, 1\)"),
        (torch.zeros(1, 1), torch.zeros(1, 1), None, "a fit needs at least 2 rows, got 1"),
        (torch.zeros(5, 1), torch.full((5, 1), math.nan), None, "y holds a number that is not"),
        (torch.zeros(5, 1), torch.zeros(5, 1), torch.ones(4), r"weights must have .* got \(4,\)"),
        (torch.zeros(5, 1), torch.zeros(5, 1), -torch.ones(5), "weights holds a number that is"),
        (torch.zeros(5, 1), torch.zeros(5, 1), torch.ones(5) / 0, "weights holds a number that"),
    ],
)
def test_bad_rows_are_refused(x, y, weights, message):
    model = Regression(1, 1, CONFIG, generator=seeded())
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, weights=weights, generator=seeded())


def test_bad_inputs_are_refused():
    model = Regression(2, 1, CONFIG, generator=seeded())
    for shape in ((3, 1), (3, 3, 2), (2,)):
        with pytest.raises(ValueError, match=r"x must have shape \('B', 2\) or \(4, 'B', 2\), got"):
            model.predict(torch.zeros(shape))


# Units


@pytest.mark.parametrize("unit", [1e-9, 1e-12, 1e9])
def test_fits_do_not_depend_on_the_units(unit):
    """Data in other units, with tiny or huge numbers, are fitted alike."""
    steps, errors = transitions(), []
    for scale in (1.0, unit):
        model = Ensemble(2, 1, replace(CONFIG, epochs=5), generator=seeded())
        obs, after = (scale * part.double() for part in (steps.obs, steps.next_obs))
        model.fit(steps._replace(obs=obs, next_obs=after), generator=seeded(1))
        state, action = obs.float().expand(4, -1, -1), steps.action.expand(4, -1, -1)
        with torch.no_grad():
            mean, std = model.predict(state, action)
        errors.append((mean[..., :2].double() - after).square().mean().sqrt() / scale)
        assert 0.02 < (std[..., :2].double() / scale).min() < 1
    torch.testing.assert_close(errors[0], errors[1], rtol=1e-3, atol=0)
