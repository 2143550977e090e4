"""The study of learners' returns."""

import json
from pathlib import Path

import pytest
from PIL import Image

from experiments.studies import STUDIES, learners_returns
from experiments.studies.lab import Lab
from mbrl.agents import AGENTS


@pytest.mark.slow
def test_the_study_trains_evaluates_and_draws_every_quick_learner(tmp_path):
    folder = STUDIES["learners-returns"](tmp_path, fast=True, workers=2, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    page = (folder / "table.md").read_text()
    for algo in ("dqn", "ppo", "trpo", "a2c", "reinforce"):
        found = numbers[f"{algo} CartPole-v1"]
        assert 1 <= found["final"]["estimate"] <= 500 and len(found["curves"]) == 1
        assert f"| {algo} | CartPole-v1 | 1,100 |" in page
    assert -2000 < numbers["sac Pendulum-v1"]["final"]["estimate"] < 0
    for env in ("CartPole-v1", "Pendulum-v1"):
        assert Image.open(folder / f"{env}.png").size[0] > 1000
    assert Image.open(folder / "family.png").size[0] > 1000


def test_a_row_may_change_settings_of_its_variant():
    """C51 on the cart-pole needs atoms up to the greatest discounted return, 100."""
    lab = Lab(Path(), 1, 1, False, print)
    (row,) = (row for row in learners_returns.ROWS if row.label == "c51")
    found = learners_returns.config(lab, row)
    assert found.agent.learner.atoms == 51 and found.agent.learner.value_range == (0.0, 100.0)
    assert found.steps == 50_000 and found.agent.learner.double  # the preset's, as before


def test_every_row_names_an_algorithm_and_where_its_published_return_is_from():
    for row in learners_returns.ROWS:
        assert row.algo in AGENTS and row.steps >= 5000
        assert bool(row.source) == (row.published is not None)


def test_every_learner_has_a_row_and_a_colour_in_the_figure_of_all():
    labels = {row.label for row in learners_returns.ROWS if row.env in learners_returns.FAMILY}
    assert labels == set(learners_returns.COLOURS)
    with_model = {
        "dhmbpo", "dyna", "dyna-q", "latent-mbpo", "latent-pets", "mb-pg", "mbpo", "mve", "pets",
        "svg", "tdmpc",
    }  # fmt: skip
    assert set(AGENTS) - labels == {"random", "sac-ae", "tabular"} | with_model
    assert len(set(learners_returns.COLOURS.values())) == len(labels)


def test_a_missing_extra_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(learners_returns, "EXTRAS", {"LunarLander-v3": ("box2d", "no_module")})
    (line,) = learners_returns.left_out(["CartPole-v1", "LunarLander-v3"]).values()
    assert line.startswith("LunarLander-v3 is left out") and "'rolloutlab[box2d]'" in line
    assert "\n" not in line and not learners_returns.left_out(["CartPole-v1"])


def test_curves_are_means_of_the_episodes_in_each_bin_of_steps(monkeypatch):
    """Bins end at 1,000 and at 10,000 steps; the second run has no episode in the first."""
    monkeypatch.setattr(learners_returns, "BINS", 2)
    runs = [([200, 500, 10_000], [1.0, 3.0, 5.0]), ([2000, 3000], [7.0, 9.0])]
    steps, returns = learners_returns.smoothed(runs)
    assert steps.tolist() == pytest.approx([1000, 10_000]) and returns.tolist() == [2.0, 6.5]
