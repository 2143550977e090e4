"""The studies of calibration ahead and of inputs out of distribution, and what both share."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import envs
from experiments.studies import STUDIES, calibration, learned, ood
from experiments.studies.lab import Lab
from mbrl.dynamics import Analytic
from mbrl.dynamics.table import MODELS
from mbrl.types import Transition


def silent(_: str) -> None:
    pass


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# Data and models.


def test_every_model_of_the_library_has_settings_and_is_that_model():
    assert {name: type(learned.settings(name)) for name in learned.OWN} == dict(MODELS)
    for name in learned.OWN:
        config = learned.settings(name)
        assert calibration.FULL.particles % config.members == 0
        assert calibration.TINY.particles % learned.settings(name, fast=True).members == 0


def test_episodes_are_those_of_the_environment_and_actions_are_held():
    played = learned.play("cartpole-swingup", 4, seed=3, steps=20, size=0.5)
    assert played.obs.shape == (4, 21, 5) and played.action.shape == (4, 20, 1)
    assert played.action.abs().max() <= 0.5
    env = envs.make("cartpole-swingup")
    for episode, hold in enumerate(learned.HOLDS):
        obs, _ = env.reset(seed=300_000 + episode)
        assert np.array_equal(played.obs[episode, 0].numpy(), obs)
        for t in range(20):
            assert played.action[episode, t] == played.action[episode, t - t % hold]
            obs = env.step(played.action[episode, t].numpy())[0]
            assert np.array_equal(played.obs[episode, t + 1].numpy(), obs)
    corners = learned.play("cartpole-swingup", 1, seed=3, steps=20, corners=True)
    assert (corners.action.abs() == 1).all()


def test_pieces_are_parts_of_episodes_and_transitions_all_of_their_steps():
    played = learned.Played(torch.arange(22.0).view(2, 11, 1), torch.arange(20.0).view(2, 10, 1))
    pieces = played.pieces(4, 3)
    assert pieces.obs[:, 0, 0].tolist() == [0, 11, 3, 14, 6, 17]
    assert (pieces.obs.diff(dim=1) == 1).all() and pieces.obs.shape == (6, 5, 1)
    assert pieces.action[:, 0, 0].tolist() == [0, 10, 3, 13, 6, 16]
    rows = played.transitions()
    assert torch.equal(rows.next_obs - rows.obs, torch.ones(20, 1))
    assert torch.equal(rows.action[:, 0], torch.arange(20.0))


def test_another_gravity_does_not_stay():
    one, other = (learned.play("cartpole-swingup", 1, seed=1, steps=5) for _ in range(2))
    heavy = learned.play("cartpole-swingup", 1, seed=1, steps=5, gravity=2.0)
    again = learned.play("cartpole-swingup", 1, seed=1, steps=5)
    assert torch.equal(one.obs, other.obs) and torch.equal(one.obs, again.obs)
    assert torch.equal(one.obs[:, 0], heavy.obs[:, 0])
    assert not torch.equal(one.obs[:, -1], heavy.obs[:, -1])


# Calibration.


def particles(std, seed=0, count=100, rows=1500):
    return std * normal(count, rows, 1, 1, seed=seed)


def scored(predicted):
    """Particles have this std, and targets a std of 1."""
    return calibration.scores(particles(predicted), normal(1500, 1, 1, seed=5), seeded())


def test_scores_of_normal_particles_are_their_closed_forms():
    """Within four standard errors of 1,500 targets (188 for the energy score) or 100 particles."""
    found = {name: value[0] for name, value in scored(2.0).items()}
    levels = np.linspace(0.05, 0.95, 19)
    share = 2 * stats.norm.cdf(2 * stats.norm.ppf(0.5 + levels / 2)) - 1
    assert found["calibration"] == pytest.approx(np.abs(share - levels).mean(), abs=0.02)
    assert found["curve"] == pytest.approx(share, abs=0.05)
    assert found["sharpness"] == pytest.approx(2.0, rel=0.02)
    assert found["nll"] == pytest.approx(np.log(2 * np.sqrt(2 * np.pi)) + 0.5 / 4, abs=0.03)
    # E|X - y| - E|X - X'| / 2, which is the energy score in one dimension, too
    exact = np.sqrt(5) * np.sqrt(2 / np.pi) - 2 / np.sqrt(np.pi)
    assert found["crps"] == pytest.approx(exact, abs=0.05)
    assert found["energy"] == pytest.approx(exact, abs=0.15)
    assert found["coverage"] == pytest.approx(2 * stats.norm.cdf(2 * 1.645) - 1, abs=0.02)
    assert found["error"] == pytest.approx(1.0, rel=0.08)
    density = 10 * np.diff(stats.norm.cdf(2 * stats.norm.ppf(np.linspace(0, 1, 11))))
    assert 10 * np.array(found["pit"]) == pytest.approx(density, abs=0.3)


def test_conformal_intervals_have_their_coverage_whatever_the_particles_std():
    """Within four standard errors of 1,500 targets for the fit and as many for the test."""
    pair = normal(1500, 1, 1, seed=5), normal(1500, 1, 1, seed=6)
    for std in (0.3, 2.0):
        found = calibration.conformal(particles(std, 1), pair[0], particles(std), pair[1])
        assert found["conformal"] == pytest.approx([0.9], abs=4 * np.sqrt(2 * 0.09 / 1500))
        assert found["width"] == pytest.approx([1.645], rel=0.1)


def test_a_calibrated_prediction_has_almost_no_calibration_error():
    found = scored(1.0)
    assert found["calibration"][0] < 0.02
    assert scored(0.5)["calibration"][0] > 0.15


def test_recalibration_of_a_small_ensemble_reaches_fresh_episodes():
    """On the cart-pole, by a short fit: raw errors are more than twice the recalibrated."""
    budget = calibration.Budget({"cartpole-swingup": 4}, 40, 40, 20, 20, 3)
    config = learned.settings("ensemble", fast=True)
    found = calibration.measure("cartpole-swingup", config, budget, 0)
    assert set(found) == set(calibration.PROPAGATIONS)
    own = found["tsinf"]
    assert max(own["isotonic"]["calibration"]) < 0.06
    assert np.mean(own["raw"]["calibration"]) > 2 * np.mean(own["isotonic"]["calibration"])


@pytest.mark.parametrize(
    "model, kinds",
    [
        ("dropout", calibration.KINDS),
        ("conditional-vae", [kind for kind in calibration.KINDS if kind != calibration.ONE]),
    ],
)
def test_the_study_of_calibration_writes_its_page_its_table_and_its_figures(tmp_path, model, kinds):
    only = (f"cartpole-swingup {model}",)
    folder = STUDIES["calibration"](tmp_path, fast=True, workers=1, only=only, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert set(numbers["found"]) == set(only)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(kinds) * calibration.TINY.steps
    assert {row["recalibration"] for row in rows} == set(kinds)
    page = (folder / "table.md").read_text()
    assert f"| {model} | distribution |" in page and "(reliability.png)" in page
    for name in ("calibration", "reliability"):
        assert Image.open(folder / f"{name}.png").size[0] > 1000


# Out of distribution.


def test_doubts_of_two_gaussians_are_their_closed_forms():
    """Members at ±x with a std of 0.5, for a target of 0: errors of 0 and a spread of x."""
    model = Analytic(
        lambda state, action, value: value.unsqueeze(-1) * state,
        torch.tensor([0.5]), torch.tensor([-1.0, 1.0]),
    )  # fmt: skip
    x = torch.tensor([[0.0], [0.2], [50.0]])
    rows = Transition(x, torch.zeros(3, 1), x[:, 0], x + 0.7, x[:, 0] > 99, x[:, 0] > 99)
    found = ood.doubts(model, rows, torch.tensor([0.5]), seeded())
    assert found["disagreement"] == pytest.approx([0, 0.4, 100])
    assert found["aleatoric std"] == pytest.approx([1, 1, 1])
    assert found["predictive std"] == pytest.approx(np.sqrt(1 + np.square([0, 0.4, 100])))
    assert found["error"] == pytest.approx([1.4, 1.8, 101.4], rel=1e-5)
    one = 0.5 * np.log(2 * np.pi * np.e)
    assert found["predictive entropy"][::2] == pytest.approx([one, one + np.log(2)], abs=1e-6)
    assert found["BALD"][::2] == pytest.approx([0, np.log(2)], abs=1e-6)
    assert found["Jensen-Rényi"][::2] == pytest.approx([0, np.log(2)], abs=1e-6)


def test_areas_and_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    kinds = (ood.FAMILIAR, *ood.SHIFTS)
    found = {
        kind: {name: rng.normal(i, 1, 50).tolist() for name in (*ood.SCORES, "error")}
        for i, kind in enumerate(kinds)
    }
    got = ood.compared(found)
    own, far = (found[kind]["BALD"] for kind in (ood.FAMILIAR, "actions"))
    area = stats.mannwhitneyu(far, own).statistic / 2500
    assert got["BALD"]["auroc"]["actions"] == pytest.approx(area)
    pairs = [
        np.concatenate([found[kind][name] for kind in kinds[:3]]) for name in ("BALD", "error")
    ]
    assert got["BALD"]["spearman"]["all"] == pytest.approx(stats.spearmanr(*pairs).statistic)
    assert got["BALD"]["pearson"]["all"] == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert got["error"]["states"] == pytest.approx(np.median(found["states"]["error"]))


def test_rows_of_each_shift_are_what_they_say():
    budget = ood.Budget({"cartpole-swingup": 4}, 8, 200)
    data = learned.play("cartpole-swingup", 4, seed=0, size=ood.SIZE).transitions()
    found = ood.shifted("cartpole-swingup", data, budget, 0)
    low, high = data.obs.amin(0), data.obs.amax(0)

    def beyond(obs):
        return ((obs < low) | (obs > high)).any(-1)

    assert all(2 < len(rows.reward) <= 200 for rows in found.values())
    assert beyond(found["states"].obs).all()
    assert found["states"].action.abs().max() <= 0.5
    assert not beyond(found["actions"].obs).any()
    assert found["actions"].action.abs().min() > data.action.abs().max()
    assert not beyond(found["physics"].obs).any()


def test_the_study_of_shifted_inputs_writes_its_page_its_table_and_its_figure(tmp_path):
    only = ("cartpole-swingup laplace",)
    folder = STUDIES["ood"](tmp_path, fast=True, workers=1, only=only, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert set(numbers["found"]) == set(only)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ood.SCORES)
    assert all(0 <= float(row["auroc_states"]) <= 1 for row in rows)
    page = (folder / "table.md").read_text()
    assert "| laplace | BALD |" in page and "(ood.png)" in page
    assert Image.open(folder / "ood.png").size[0] > 1000


@pytest.mark.parametrize("name", ["calibration", "ood"])
def test_a_run_that_no_name_has_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(ValueError, match="no run has 'gauss' in its name") as error:
        STUDIES[name](tmp_path, fast=True, only=["gauss"], say=silent)
    assert "\n" not in str(error.value)


def test_fits_that_diverge_are_named_and_without_any_other_the_study_ends_in_one_line(
    tmp_path, monkeypatch
):
    wild = replace(learned.settings("swag", fast=True), swag_learning_rate=1e6)
    answer = calibration.measure("cartpole-swingup", wild, calibration.TINY, 0)
    assert "swag_learning_rate 1e+06" in answer["failed"]
    monkeypatch.setattr(Lab, "answers", lambda _, asked: dict.fromkeys(asked, answer))
    for name in ("calibration", "ood"):
        with pytest.raises(ValueError, match="no model could be fitted: The fit of half-cheetah"):
            STUDIES[name](tmp_path, fast=True, only=["half-cheetah swag"], say=silent)
