"""Particles that are recalibrated at every step ahead."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from mbrl import Controller, check_model
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.dynamics import Analytic, Ensemble, EnsembleConfig, recalibrate
from mbrl.imagination import (
    RecalibratedAhead,
    particles_ahead,
    recalibrate_ahead,
    rollout,
    score_fn,
)
from mbrl.types import Fittable, GaussianDynamics, Postprocessed, Transition
from mbrl.uncertainty import Temperature, calibration_curve, calibration_error
from tests.models import LinearGaussian, Remembering

F, G, STD = [[1.0, 0.1], [-0.2, 0.9]], [[0.0], [0.3]], [0.05, 0.1]
LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
STEPS = 10


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def model(factor=1.0):
    """The linear world below with its std times a factor."""
    return LinearGaussian(F, G, [factor * std for std in STD])


def pieces(count, steps=5, seed=0):
    """Pieces of episodes of the linear world: observations and actions."""
    action = normal(count, steps, 1, seed=seed + 1)
    played = rollout(model(), normal(count, 2, seed=seed), action, particles=1,
                     generator=seeded(seed + 2))  # fmt: skip
    return played.state[0], action


def temperatures(scale, dims=2, steps=1):
    return [Temperature(torch.full((dims,), scale, dtype=torch.float64))] * steps


def drifting(count, seed=0, drift=0.3, noise=0.4):
    """A walk whose drift is normal and stays the same along a piece: (count, STEPS + 1, 1).

    After k steps its exact std is sqrt(k noise² + k² drift²).
    """
    moves = drift * normal(count, 1, seed=seed) + noise * normal(count, STEPS, seed=seed + 1)
    start = torch.zeros(count, 1, dtype=torch.float64)
    return torch.cat((start, moves.cumsum(1)), 1).unsqueeze(-1), torch.zeros(
        count, STEPS, 1
    ).double()


def walk(std=0.4):
    """A model of the walk that knows the noise and not the drift."""
    return LinearGaussian([[1.0]], [[0.0]], [std])


def stds(model, particles=2000):
    """Of the particles of one start, after each step."""
    found = rollout(
        model, torch.zeros(1).double(), torch.zeros(1, STEPS, 1).double(), particles=particles,
        generator=seeded(9),
    )  # fmt: skip
    return found.state[:, 0, 1:, 0].std(0)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "moment", "distribution"])
def test_particles_have_the_moments_of_the_world_at_every_step(kind, propagation):
    """Exact means and covariances by the Kalman filter's prediction, for a model of half the std.

    1,000 pieces fit a std to 2.2 % (standard error), as 1,000 particles do, and their mean is
    known to 3 % of the std.
    """
    fitted = recalibrate_ahead(
        model(0.5), *pieces(1000), kind, particles=60, propagation=propagation, generator=seeded()
    )
    start, actions = torch.tensor([1.0, -0.5]).double(), normal(5, 1)
    means, covariances = model().forecast(start, actions)
    imagined = rollout(
        fitted, start, actions[None], particles=1000, propagation=propagation, generator=seeded(3)
    )
    for t in range(5):
        after, std = imagined.state[:, 0, t + 1], covariances[t].diagonal().sqrt()
        assert ((after.mean(0) - means[t]).abs() < 0.12 * std).all()
        torch.testing.assert_close(after.std(0), std, rtol=0.12, atol=0)


def test_errors_that_last_are_calibrated_at_every_step_and_by_one_step_alone_they_are_not():
    """Exact stds of a walk with a lasting drift; by noise alone they grow as sqrt(k)."""
    obs, action = drifting(3000)
    k = torch.arange(1, STEPS + 1).double()
    exact = (k * 0.4**2 + k.square() * 0.3**2).sqrt()
    fitted = recalibrate_ahead(walk(), obs, action, particles=60, generator=seeded())
    torch.testing.assert_close(stds(fitted), exact, rtol=0.06, atol=0)
    nothing = torch.zeros(3000, dtype=torch.bool)
    first = Transition(obs[:, 0], action[:, 0], obs[:, 0, 0], obs[:, 1], nothing, nothing)
    noise = recalibrate(walk(), first)
    torch.testing.assert_close(stds(noise), k.sqrt() * 0.5, rtol=0.06, atol=0)
    assert stds(noise)[-1] < 0.5 * exact[-1]

    fresh, _ = drifting(3000, seed=50)
    errors = {}
    for name, each in (("all", fitted), ("one", noise)):
        particles = rollout(
            each, fresh[:, 0], action, particles=60, generator=seeded(7)
        ).state  # fmt: skip
        errors[name] = [
            calibration_error(
                LEVELS,
                calibration_curve(
                    particles[:, :, t], 0 * particles[:, :, t], fresh[:, t], LEVELS
                ),
            ).item()
            for t in range(1, STEPS + 1)
        ]  # fmt: skip
    assert max(errors["all"]) < 0.03
    assert errors["one"][0] < 0.03 and errors["one"][-1] > 0.15


def test_members_that_disagree_too_much_are_narrowed_which_noise_alone_cannot():
    """Members go to ±1 and the world to N(0, 0.1²): the std of the particles becomes 0.1."""
    apart = Analytic(
        lambda state, action, value: value.unsqueeze(-1).expand_as(state),
        torch.tensor([0.05]), torch.tensor([-1.0, 1.0]),
    )  # fmt: skip
    count = 2000
    obs = torch.stack((torch.zeros(count, 1), 0.1 * normal(count, 1).float()), 1)
    action = torch.zeros(count, 1, 1)
    fitted = recalibrate_ahead(apart, obs, action, particles=40, generator=seeded())
    start = torch.zeros(1), torch.zeros(1, 1, 1)
    after = rollout(fitted, *start, particles=1000, generator=seeded(1)).state[:, 0, 1, 0]
    assert after.std().item() == pytest.approx(0.1, rel=0.08)
    nothing = torch.zeros(count, dtype=torch.bool)
    first = Transition(obs[:, 0], action[:, 0], obs[:, 0, 0], obs[:, 1], nothing, nothing)
    noise = recalibrate(apart, first, "isotonic")
    after = rollout(noise, *start, particles=1000, generator=seeded(1)).state[:, 0, 1, 0]
    assert after.std() > 0.9


@pytest.mark.parametrize("kind", ["temperature", "isotonic", "logistic"])
def test_a_calibrated_model_stays_as_it_is(kind):
    """Its maps are the identity, within four standard errors of 1,000 pieces."""
    fitted = recalibrate_ahead(model(), *pieces(1000, 3), kind, particles=400, generator=seeded())
    level = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()
    for level_map in fitted.level_maps:
        found = level_map.cdf(level.unsqueeze(-1).expand(-1, 2))
        error = (level * (1 - level) / 1000).sqrt()
        assert ((found - level.unsqueeze(-1)).abs() < 4 * error.unsqueeze(-1) + 0.003).all()


def test_particles_become_quantiles_and_keep_their_ranks():
    fitted = RecalibratedAhead(model(), [*temperatures(3.0), *temperatures(0.5)])
    state = normal(9, 4, 2)
    for steps, factor in ((1, 3.0), (2, 0.5), (7, 0.5)):
        found = fitted.postprocess(steps, state)
        assert torch.equal(found.argsort(0), state.argsort(0))
        for n in range(4):
            for d in range(2):
                own = state[:, n, d].numpy()
                wanted = stats.norm.ppf((torch.arange(9).numpy() + 0.5) / 9) * factor
                assert found[:, n, d].sort().values.numpy() == pytest.approx(
                    own.mean() + own.std() * wanted
                )
    assert torch.equal(fitted.postprocess(1, state[:1]), state[:1])


def test_steps_go_on_from_the_states_that_are_not_corrected():
    inner = model()
    fitted = RecalibratedAhead(inner, temperatures(2.0, steps=4))
    start, actions = normal(3, 2), normal(3, 4, 1)
    ways = {"particles": 50, "propagation": "ts1"}
    plain, seen = (
        rollout(each, start, actions, **ways, generator=seeded(2)) for each in (inner, fitted)
    )
    for t in range(1, 5):
        torch.testing.assert_close(seen.state[:, :, t], fitted.postprocess(t, plain.state[:, :, t]))
    quiet, wanted = (
        rollout(each, start, actions, **ways, sample=False, generator=seeded(2)).state
        for each in (fitted, inner)
    )
    assert torch.equal(quiet, wanted)


def test_trajectories_that_end_stay_in_their_last_state():
    fitted = RecalibratedAhead(walk(), temperatures(2.0, 1, steps=6))
    found = rollout(
        fitted, torch.zeros(5, 1).double(), torch.zeros(5, 6, 1).double(), particles=20,
        reward=lambda obs, action, after: after[..., 0],
        terminated=lambda after: after[..., 0] > 0.5, generator=seeded(),
    )  # fmt: skip
    ended = (found.state[..., 1:, 0] > 0.5).cummax(-1).values
    assert ended.any() and not ended.all()
    after = ended[..., :-1]
    assert torch.equal(found.state[:, :, 2:, 0][after], found.state[:, :, 1:-1, 0][after])
    assert (found.reward[..., 1:][after] == 0).all()
    assert torch.equal(found.alive[..., 1:], ~after)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_planner_keeps_away_from_a_cliff_four_steps_ahead(kind):
    """The last of four steps is worth x up to 3 and -10 beyond: E[score] in closed form.

    The drift lasts, so x after four steps has the std sqrt(4 · 0.4² + 16 · 0.3²) = 1.44.
    """
    obs, action = drifting(3000)
    fitted = recalibrate_ahead(
        LinearGaussian([[1.0]], [[1.0]], [0.4]), obs, action, kind, particles=100,
        generator=seeded(),
    )  # fmt: skip
    plans = torch.tensor([0.45, 0.1]).double().view(2, 1, 1).expand(2, 4, 1)

    def value(after):
        return torch.where(after < 3, after, -10.0)[..., 0]

    def scores(each):
        return score_fn(
            each, torch.zeros(1).double(), particles=2000, horizon=4, generator=seeded(),
            reward=lambda obs, action, after: 0 * after[..., 0], value=value,
        )(plans)  # fmt: skip

    def exact(u, std):
        edge = (3 - 4 * u) / std
        below = stats.norm.cdf(edge)
        return 4 * u * below - std * stats.norm.pdf(edge) - 10 * (1 - below)

    bold, safe = scores(fitted.model)
    assert bold > safe
    bold, safe = scores(fitted)
    assert safe > bold
    std = math.sqrt(4 * 0.4**2 + 16 * 0.3**2)
    # four standard errors of the fit and the particles' mean
    assert bold.item() == pytest.approx(exact(0.45, std), abs=0.5)
    assert safe.item() == pytest.approx(exact(0.1, std), abs=0.3)


def test_a_controller_plans_through_it():
    """Four steps towards a cliff at 3, in a world of four times the noise that the model predicts.

    Each x earns x and beyond the cliff -20. Plans are judged by what they earn there on average,
    in closed form.
    """
    inner = LinearGaussian([[1.0]], [[1.0]], [0.1])
    fitted = RecalibratedAhead(inner, temperatures(4.0, 1, steps=4))
    config = MPCConfig(
        PlannerConfig(horizon=4, population=100, iterations=6, elites=10), particles=40
    )
    earned = []
    for each in (inner, fitted):
        driven = Controller(
            each, config.build(-torch.ones(1), torch.ones(1)), config,
            reward=lambda obs, action, after: torch.where(after < 3, after, -20.0)[..., 0],
            terminated=None, generator=seeded(1),
        )  # fmt: skip
        driven.act(torch.zeros(1).numpy())
        x = driven.state.plan.actions[:, 0].double().cumsum(0).numpy()
        std = 0.4 * np.sqrt(np.arange(1, 5))
        edge = (3 - x) / std
        below = stats.norm.cdf(edge)
        earned.append((x * below - std * stats.norm.pdf(edge) - 20 * (1 - below)).sum())
    assert earned[1] > earned[0] + 2


def test_gradients_reach_actions_through_the_correction():
    fitted = RecalibratedAhead(model(), temperatures(2.0, steps=3))
    actions = torch.zeros(1, 3, 1, dtype=torch.float64, requires_grad=True)
    end = rollout(
        fitted, torch.zeros(2).double(), actions, particles=8, gradients=True, generator=seeded()
    ).state[..., -1, :].mean((0, 1))  # fmt: skip
    (slope,) = torch.autograd.grad(end[1], actions)
    f, g = torch.tensor(F).double(), torch.tensor(G).double()
    wanted = [(torch.linalg.matrix_power(f, 2 - t) @ g)[1, 0].item() for t in range(3)]
    assert slope[0, :, 0].tolist() == pytest.approx(wanted)


def test_it_is_a_model_for_planning_and_says_so():
    inner = Ensemble(2, 1, EnsembleConfig(members=3, hidden=(8,)), generator=seeded())
    fitted = RecalibratedAhead(inner, temperatures(2.0, steps=3))
    assert isinstance(fitted, GaussianDynamics) and isinstance(fitted, Postprocessed)
    assert not isinstance(fitted, Fittable)
    assert not isinstance(inner, Postprocessed)
    assert not isinstance(RecalibratedAhead(Remembering(), temperatures(1.0)), GaussianDynamics)
    check_model(fitted, torch.zeros(5, 2), torch.zeros(5, 1))
    other = RecalibratedAhead(inner, [Temperature(torch.ones(2))])
    assert other.postprocess(1, torch.randn(6, 4, 2, generator=seeded())).dtype == torch.float32


def test_a_model_with_memory_is_recalibrated_in_its_own_states():
    """Place and speed, with noise that the model takes for a hundredth of what it is."""
    count, steps = 600, 3
    action = torch.zeros(count, steps, 1)
    speed = (0.2 * torch.randn(count, steps, 1, generator=seeded())).cumsum(1)
    places = torch.cat((torch.zeros(count, 1, 1), speed.cumsum(1)), 1)
    fitted = recalibrate_ahead(
        Remembering(), places, action, "temperature", particles=200, generator=seeded(1)
    )
    for level_map in fitted.level_maps:  # 4 standard errors of a scale from 800 pieces
        assert level_map.noise(torch.ones(1, 2))[0].tolist() == pytest.approx(
            [20.0, 20.0], rel=0.12
        )


def test_weights_that_are_samples_are_drawn_anew_for_groups_of_starts():
    """A model that goes to its one weight: each draw is seen by a 25th of the starts."""

    class Drawn(LinearGaussian):
        weight = torch.zeros(1).double()

        def resample(self, *, generator):
            self.weight = torch.randn(1, generator=generator, dtype=torch.float64)

        def step(self, state, action, *, noise):
            step = super().step(state, action, noise=noise)
            return step._replace(state=self.weight.expand(step.state.shape))

    drawn = Drawn([[1.0]], [[0.0]], [0.1])
    found = particles_ahead(
        drawn, torch.zeros(60, 1).double(), torch.zeros(60, 2, 1).double(), particles=3,
        generator=seeded(),
    )  # fmt: skip
    assert found.shape == (3, 60, 2, 1)
    assert (found == found[:1, :, :1]).all()
    seen = found[0, :, 0, 0]
    assert len(seen.unique()) == 25
    assert torch.equal(seen[25:50], seen[:25]) and torch.equal(seen[50:], seen[:10])


def test_a_dimension_without_spread_stays_as_it_is():
    """As an observation that is constant; the other one is recalibrated."""
    still = LinearGaussian([[1.0, 0.0], [0.0, 1.0]], [[0.0], [0.0]], [0.5, 0.0])
    obs = torch.stack((normal(500, 4).cumsum(1), torch.full((500, 4), 3.0).double()), -1)
    for kind in ("temperature", "isotonic", "logistic"):
        fitted = recalibrate_ahead(still, obs, normal(500, 3, 1), kind, particles=40,
                                   generator=seeded())  # fmt: skip
        after = fitted.postprocess(3, torch.stack((normal(40, 1), 2 + 0 * normal(40, 1)), -1))
        assert (after[..., 1] == 2).all()
        if kind != "logistic":
            assert after[..., 0].std().item() == pytest.approx(
                2 * normal(40, 1).std().item(), rel=0.2
            )


def test_wrong_input_is_refused_in_one_line():
    obs, action = pieces(20)
    ways = {"particles": 10, "generator": seeded()}
    over = torch.zeros(5, dtype=torch.bool)
    seen = Transition(obs[3, :-1], action[3], obs[3, 1:, 0], obs[3, 1:], over, over)
    wild = LinearGaussian([[1e150, 0.0], [0.0, 1.0]], G, [1e145, 0.1])
    for call, culprit in (
        (lambda: recalibrate_ahead(model(), obs, action, "platt", **ways),  # type: ignore
         "kind: 'platt' is unkn"),
        (lambda: recalibrate_ahead(model(), obs[:, 1:], action, **ways),
         r"obs, action: want \(N, H \+ 1, O\).*got \(20, 5, 2\) and \(20, 5, 1\)"),
        (lambda: recalibrate_ahead(model(), obs[:1], action[:1], **ways), "obs: want two pieces"),
        (lambda: recalibrate_ahead(model(), math.nan * obs, action, **ways), "obs holds a number"),
        (lambda: recalibrate_ahead(model(), obs, action, propagation="expectation", **ways),
         "particles: want two or more that differ, got 10 with 'expectation'"),
        (lambda: recalibrate_ahead(model(), obs, action, particles=1, generator=seeded()),
         "particles: want two or more that differ, got 1"),
        (lambda: recalibrate_ahead(model(0.0), obs, action, **ways),
         "model: the LinearGaussian predicts a std of 0"),
        (lambda: recalibrate_ahead(wild, obs, action, **ways),
         "model: imagined states are not finite 2 steps ahead"),
        (lambda: recalibrate_ahead(model(), obs, action, trained_on=seen, **ways),
         "data: 5 of 100 transitions are in trained_on too"),
        (lambda: RecalibratedAhead.of_particles(model(), normal(9, 4, 3, 2), normal(4, 2, 2)),
         r"imagined, real: want \(P, N, H, S\).*got \(9, 4, 3, 2\) and \(4, 2, 2\)"),
        (lambda: recalibrate(RecalibratedAhead(model(), temperatures(1.0)), seen),
         "model: a RecalibratedAhead corrects the particles of a plan"),
        (lambda: recalibrate_ahead(RecalibratedAhead(model(), temperatures(1.0)), obs, action,
                                   **ways),
         "model: a RecalibratedAhead corrects the particles of a plan"),
        (lambda: RecalibratedAhead(model(), []), "level_maps: want one map or more"),
        (lambda: RecalibratedAhead(model(), [*temperatures(1.0), *temperatures(1.0, 3)]),
         r"level_maps: .* got \[2, 3\]"),
        (lambda: RecalibratedAhead(model(), temperatures(1.0, 3)).postprocess(1, normal(4, 5, 2)),
         r"state: want \(P, n, 3\)"),
        (lambda: rollout(RecalibratedAhead(model(), temperatures(1.0)), normal(10, 20, 2), action,
                         particles=10, generator=seeded()),
         r"state \(P, N, S\): the RecalibratedAhead corrects particles of one start"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=culprit) as error:
            call()
        assert "\n" not in str(error.value)


def test_the_example_of_the_page_runs_as_written(capsys):
    page = (Path(__file__).parents[3] / "docs" / "uncertainty.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    before, after = (
        [float(x) for x in re.findall(r"[\d.]+", line)]
        for line in capsys.readouterr().out.splitlines()
    )
    assert max(before) > 0.1 and max(after) < 0.05
