"""Models that plan with recalibrated noise."""

import math
import re
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box
from scipy import stats

from mbrl import check_model
from mbrl.agents.pets import PETS, Config
from mbrl.dynamics import DropoutConfig, Ensemble, EnsembleConfig, Recalibrated, recalibrate
from mbrl.dynamics.configs import ConditionalConfig
from mbrl.imagination import disagreement, rollout, score_fn
from mbrl.types import (
    Fittable,
    GaussianDynamics,
    NativeDynamics,
    OwnThreads,
    Resampled,
    Scaled,
    Spec,
    Transition,
)
from mbrl.uncertainty import Isotonic, Logistic, Temperature, recalibration_scale
from tests.models import LinearGaussian, Remembering

F, G, STD = [[1.0, 0.1], [-0.2, 0.9]], [[0.0], [0.3]], [0.05, 0.1]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def model(factor=1.0):
    """The world below with its std times a factor."""
    return LinearGaussian(F, G, [factor * std for std in STD])


def world(count, noise=None, seed=0):
    """Transitions of the world: linear, with Gaussian noise unless other noise is given."""
    obs, action = normal(count, 2, seed=seed), normal(count, 1, seed=seed + 100)
    noise = normal(count, 2, seed=seed + 200) if noise is None else noise
    step = model().step(obs[None], action[None], noise=noise[None])
    over = torch.zeros(count, dtype=torch.bool)
    return Transition(obs, action, step.reward[0], step.state[0], over, over)


def skewed(count, seed=0):
    return normal(count, 2, seed=seed).exp() - 1.5


def level_maps():
    target = 2 * skewed(400)
    rows = torch.zeros_like(target)[None], torch.ones_like(target)[None], target
    return {"isotonic": Isotonic.fit(*rows), "logistic": Logistic.fit(*rows)}


def inputs(members=1, rows=6):
    return normal(members, rows, 2), normal(members, rows, 1, seed=1)


def test_the_temperature_restores_the_std_of_the_world():
    fitted = recalibrate(model(0.5), world(20_000))
    assert isinstance(fitted.level_map, Temperature)
    torch.testing.assert_close(fitted.level_map.scale, torch.full((2,), 2.0).double(), rtol=0.03,
                               atol=0)  # fmt: skip
    found, wanted = (m.predict(*inputs()) for m in (fitted, model()))
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.std, wanted.std, rtol=0.03, atol=0)


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "distribution", "moment"])
def test_imagined_particles_have_the_moments_of_the_world(propagation):
    """Exact means and covariances by the Kalman filter's prediction, for a model of half the std.

    Within four standard errors of 20,000 particles and 2 % for the fit of the factors.
    """
    count = 20_000
    fitted = recalibrate(model(0.5), world(40_000))
    start, actions = torch.tensor([1.0, -0.5]).double(), normal(6, 1)
    means, covariances = model().forecast(start, actions)
    imagined = rollout(
        fitted, start, actions[None], particles=count, propagation=propagation,
        generator=seeded(3),
    )  # fmt: skip
    for t in range(6):
        after = imagined.state[:, 0, t + 1]
        std = covariances[t].diagonal().sqrt()
        assert ((after.mean(0) - means[t]).abs() < 4 * std / math.sqrt(count)).all()
        error = (after.std(0) / std - 1).abs()
        assert (error < 0.02 + 4 / math.sqrt(2 * count)).all()


@pytest.mark.parametrize("kind", ["isotonic", "logistic", "temperature"])
def test_steps_have_the_distribution_of_skewed_errors_only_by_an_isotonic_map(kind):
    """Real and drawn errors, 20,000 each, by the distance of Kolmogorov and Smirnov.

    That exceeds 0.0136 by chance in one case of 20, and the fit of the map adds as much.
    """
    count = 20_000
    fitted = recalibrate(model(), world(count, skewed(count)), kind)
    fresh = world(count, skewed(count, seed=5), seed=5)
    rows = fresh.obs[None], fresh.action[None]
    step = fitted.step(*rows, noise=normal(1, count, 2, seed=9))
    for d in range(2):
        mean = fitted.model.predict(*rows).mean[0, :, d]
        real, drawn = (x[:, d] - mean for x in (fresh.next_obs, step.state[0]))
        distance = stats.ks_2samp(real.numpy(), drawn.numpy()).statistic
        assert distance < 0.02 if kind == "isotonic" else distance > 0.05


@pytest.mark.parametrize("name", ["isotonic", "logistic"])
def test_the_prediction_has_the_moments_of_the_steps(name):
    """Of 200,000 draws, within four standard errors."""
    count = 200_000
    fitted = Recalibrated(model(), level_maps()[name])
    state, action = (x[:, :1] for x in inputs())
    wide = state.expand(1, count, 2), action.expand(1, count, 1)
    drawn = fitted.step(*wide, noise=normal(1, count, 2, seed=4)).state[0]
    mean, std = (part[0, 0] for part in fitted.predict(state, action))
    assert ((drawn.mean(0) - mean[:2]).abs() < 4 * std[:2] / math.sqrt(count)).all()
    centred = (drawn - drawn.mean(0)).square()
    error = centred.std(0) / math.sqrt(count)
    assert ((centred.mean(0) - std[:2].square()).abs() < 4 * error).all()
    assert (mean[:2] - model().predict(state, action).mean[0, 0, :2]).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["isotonic", "logistic"])
def test_a_step_adds_mapped_noise_to_the_means_of_the_members(name):
    inner = ensemble()
    level_map = level_maps()[name]
    fitted = Recalibrated(inner, level_map)
    state, action = (x.float() for x in inputs(members=3))
    z = normal(3, 6, 2, seed=7).float()
    mean, std = (part[..., :2] for part in inner.predict(state, action))
    step, plain = fitted.step(state, action, noise=z), inner.step(state, action, noise=z)
    torch.testing.assert_close(step.state, mean + std * level_map.noise(z))
    assert torch.equal(step.reward, plain.reward)
    assert torch.equal(step.terminated, plain.terminated)
    quiet, wanted = (m.step(state, action, noise=None) for m in (fitted, inner))
    assert torch.equal(quiet.state, wanted.state)
    reward, wanted = (m.predict(state, action) for m in (fitted, inner))
    assert torch.equal(reward.mean[..., 2], wanted.mean[..., 2])
    assert torch.equal(reward.std[..., 2], wanted.std[..., 2])


def ensemble(**settings):
    config = EnsembleConfig(members=3, hidden=(8,), learn_reward=True, learn_termination=True,
                            **settings)  # fmt: skip
    return Ensemble(2, 1, config, generator=seeded())


def test_the_temperature_of_members_that_differ_is_fitted_to_their_mixture():
    inner, data = ensemble(), Transition(*(
        part.float() if part.is_floating_point() else part for part in world(60)
    ))  # fmt: skip
    fitted = recalibrate(inner, data)
    rows = (part.expand(3, -1, -1) for part in (data.obs, data.action))
    with torch.no_grad():
        mean, std = (part[..., :2].double() for part in inner.predict(*rows))
    wanted = recalibration_scale(mean, std, data.next_obs.double())
    assert isinstance(fitted.level_map, Temperature)
    torch.testing.assert_close(fitted.level_map.scale, wanted)


@pytest.mark.parametrize("kind", ["temperature", "isotonic", "logistic"])
def test_a_planner_keeps_away_from_a_cliff_only_with_the_right_noise(kind):
    """One step to x, worth x up to 1 and -10 beyond: E[score] in closed form for noise σ = 0.5."""

    def line(std):
        return LinearGaussian([[1.0]], [[1.0]], [std])

    obs, action = normal(20_000, 1), normal(20_000, 1, seed=1)
    after = obs + action + 0.5 * normal(20_000, 1, seed=2)
    over = torch.zeros(20_000, dtype=torch.bool)
    data = Transition(obs, action, torch.zeros(20_000).double(), after, over, over)
    fitted = recalibrate(line(0.1), data, kind)
    plans = torch.tensor([[[0.8]], [[0.0]]], dtype=torch.float64)

    def scores(model):
        return score_fn(
            model, torch.zeros(1).double(), particles=40_000, horizon=1, generator=seeded(),
            reward=lambda obs, action, after: torch.where(after < 1, after, -10.0)[..., 0],
        )(plans)  # fmt: skip

    def exact(u, std):
        edge = (1 - u) / std
        below = stats.norm.cdf(edge)
        return u * below - std * stats.norm.pdf(edge) - 10 * (1 - below)

    bold, safe = scores(line(0.1))
    assert bold > safe
    bold, safe = scores(fitted)
    assert safe > bold
    if kind != "logistic":  # for which no slope is a factor of the std
        # the standard error is 0.03; the fit of the map adds as much
        assert bold.item() == pytest.approx(exact(0.8, 0.5), abs=0.12)
        assert safe.item() == pytest.approx(exact(0.0, 0.5), abs=0.12)


def test_it_is_a_model_for_planning_and_says_so():
    fitted = Recalibrated(ensemble(), level_maps()["logistic"])
    assert isinstance(fitted, GaussianDynamics)
    for protocol in (Fittable, NativeDynamics, OwnThreads):
        assert not isinstance(fitted, protocol)
    assert isinstance(fitted, Scaled) and torch.equal(fitted.scale, fitted.model.scale)
    assert not isinstance(Recalibrated(model(), level_maps()["logistic"]), Scaled)
    state, action = (x[0].float() for x in inputs())
    wanted = disagreement(fitted.model, state, action)
    scaled = disagreement(Recalibrated(fitted.model, temperature(1.0)), state, action)
    torch.testing.assert_close(scaled, wanted)
    check_model(fitted, state, action)


def temperature(scale, dims=2):
    return Temperature(torch.full((dims,), scale))


def test_an_agent_that_fits_its_model_refuses_it_in_one_line():
    box = Box(-1.0, 1.0, (1,))
    spec = Spec(Box(-10.0, 10.0, (2,)), box, reward=lambda s, a, n: n[..., 0], ends=False)
    agent = PETS(spec, Config(fit_every=10), generator=seeded())
    with pytest.raises(ValueError, match="step and be fitted.* not a Recalibrated") as error:
        agent.model = Recalibrated(ensemble(), temperature(2.0))
    assert "\n" not in str(error.value)


def test_models_and_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="^model: want one that predicts .* not a Remembering"):
        Recalibrated(Remembering(), temperature(1.0, 1))
    with pytest.raises(ValueError, match="^model: want one that predicts .* not a Remembering"):
        recalibrate(Remembering(), world(5))
    modes = ConditionalConfig(hidden=(8,)).make(2, 1, generator=seeded())
    with pytest.raises(ValueError, match=r"^model: a step of the ConditionalDynamics is not mean"):
        recalibrate(modes, world(5))
    with pytest.raises(ValueError, match=r"level_map: has 3 dimensions, .* has shape \(2,\)"):
        Recalibrated(model(), temperature(1.0, 3))


def test_data_that_the_model_was_trained_on_are_refused_with_their_number():
    seen, fresh = world(50), world(30, seed=7)
    mixed = Transition(*(torch.cat((a, b[:4])) for a, b in zip(fresh, seen, strict=True)))
    recalibrate(model(), fresh, trained_on=seen)
    with pytest.raises(ValueError, match=r"^data: 4 of 34 transitions are in trained_on too"):
        recalibrate(model(), mixed, trained_on=seen)
    single = Transition(*(x.float() if x.is_floating_point() else x for x in seen))
    with pytest.raises(ValueError, match=r"^data: 4 of 34 "):  # the same rows, kept in float32
        recalibrate(model(), mixed, trained_on=single)
    again = seen._replace(action=-seen.action)  # the same observations, but other transitions
    recalibrate(model(), again, trained_on=seen)


def test_bad_data_are_refused_by_name():
    data = world(20)
    for found, culprit in (
        (Transition(*(part[:1] for part in data)), "data: want two transitions or more, got 1"),
        (Transition(*(part[:0] for part in data)), "data: want two transitions or more, got 0"),
        (
            data._replace(next_obs=math.nan * data.obs),
            "data: next_obs holds a number that is not finite",
        ),
        (data._replace(next_obs=data.obs[:, :1]), r"data: next_obs must have shape \(20, 2\)"),
        (data._replace(reward=data.reward[:5]), r"data: .*must have shape \(5, 2\)"),
    ):
        for kind in ("temperature", "isotonic", "logistic"):
            with pytest.raises(ValueError, match=culprit) as error:
                recalibrate(model(), found, kind)
            assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="kind: 'platt' is unknown; take one of .*isotonic"):
        recalibrate(model(), data, "platt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^trained_on: obs must have shape"):
        recalibrate(model(), data, trained_on=data._replace(obs=data.obs[:, :1]))


def test_a_model_without_noise_is_refused():
    for kind in ("temperature", "isotonic", "logistic"):
        with pytest.raises(ValueError, match="^model: the LinearGaussian predicts a std of 0"):
            recalibrate(LinearGaussian(F, G, [0.1, 0.0]), world(20), kind)


def test_the_example_of_the_page_on_models_runs_as_written(capsys):
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "recalibrate" in block
    )
    exec(example, {})
    before, after = re.findall(r"\[(.*)\]", capsys.readouterr().out)
    assert min(map(float, before.split(","))) > 0.1 and max(map(float, after.split(","))) < 0.03


def test_a_recalibrated_model_of_weight_samples_draws_them_anew():
    draw = torch.Generator().manual_seed(0)
    model = DropoutConfig(members=2, hidden=(8,)).make(2, 1, generator=draw)
    ones = Temperature(torch.ones(2))
    wrapped = Recalibrated(model, ones)
    assert isinstance(wrapped, Resampled)
    before = model.net.uniform.clone()
    wrapped.resample(generator=draw)
    assert not torch.equal(model.net.uniform, before)
    plain = LinearGaussian([[1.0]], [[1.0]], [0.1])
    assert not isinstance(Recalibrated(plain, Temperature(torch.ones(1))), Resampled)
