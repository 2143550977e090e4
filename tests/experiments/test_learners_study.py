"""The study of tabular learners: what it measures by hand, and what it leaves."""

import json

import numpy as np
import pytest
from PIL import Image

from envs.tabular import FiniteMDP
from envs.worlds import WORLDS
from experiments.studies import STUDIES, learners


def test_every_named_world_is_there_at_one_discount():
    mdps = [build() for build in learners.WORLDS.values()]
    assert {mdp.name for mdp in mdps} == {*WORLDS, "garnet"}
    assert {mdp.discount for mdp in mdps} == {learners.DISCOUNT}
    chance = [learners.by_chance(mdp) for mdp in mdps]
    assert chance == sorted(chance) and sum(chance) == 8


def test_a_counted_model_is_as_far_off_as_a_mean():
    """A state that leads with chance ½ to one that pays 1, else ends: V is γ times the share."""
    rows = np.zeros((3, 1, 3))
    rows[0, 0, 1:] = 0.5
    rows[1, 0, 2] = 1.0
    coin = FiniteMDP(rows, np.array([[0.0], [1.0], [0.0]]), 0.8, 0, [2])
    n = 2000  # half of the draws are of the other state's pair
    found = [learners.counted(coin, [n, 100 * n], seed) for seed in range(60)]
    want = 0.8 * 0.5 / np.sqrt([n / 2, 50 * n])  # γ σ / √visits
    assert np.sqrt(np.square(found).mean(0)) == pytest.approx(want, rel=0.25)


@pytest.mark.parametrize("kind", learners.KINDS)
def test_in_deterministic_worlds_every_kind_comes_close(kind):
    early, late = learners.measured("frozen lake", kind, [40, 100_000], 0)
    assert late < 4e-4 < early  # a thousandth of the range, which is 0.41
    if learners.KINDS[kind].given["target"] in ("q", "double"):
        assert late < 1e-12


@pytest.mark.parametrize("kind", ["Q-learning", "double Q", "Sarsa", "MC, every visit", "Sarsa(λ)"])
def test_in_a_stochastic_world_errors_fall_to_those_of_counted_models(kind):
    name, counts = "frozen lake, slippery", [10**4, 3 * 10**5]
    early, late = learners.measured(name, kind, counts, 0)
    allowed = np.mean([learners.counted(learners.WORLDS[name](), counts, s)[-1] for s in range(9)])
    assert late < early / 2 and late < 3 * allowed


def test_errors_below_a_thousandth_are_bold():
    assert [*map(learners.shown, (0.002, 0.0009, 0.0))] == ["2.0e-03", "**9.0e-04**", "**0**"]


def test_q_learning_takes_most_steps_where_there_is_chance():
    chance = {name for name, build in learners.WORLDS.items() if learners.by_chance(build())}
    assert chance == {*learners.LONGEST}
    slow = learners.taken("four rooms", "Q-learning", False)
    assert slow[-1] == 10**8 and learners.taken("four rooms", "Sarsa", False) == slow[:4]
    assert learners.taken("chain", "Q-learning", False) == slow[:3]


def test_the_fast_study_leaves_a_page_a_picture_and_its_numbers(tmp_path, inline):
    folder = STUDIES["learners"](tmp_path, fast=True, say=lambda _: None)
    found = json.loads((folder / "results.json").read_text())["numbers"]["found"]
    assert [*found] == ["frozen lake", "frozen lake, slippery"]
    for each in found.values():
        assert [*each["errors"]] == [*learners.KINDS]
        assert all([n for n, _ in curve] == [1000, 10_000] for curve in each["errors"].values())
        assert max(each["solved"]) < 1e-11
    page = (folder / "table.md").read_text()
    assert all(f"| {name} |" in page for name in found)
    assert "| double Q | 1 of 1 | **0** (frozen lake) |" in page
    assert Image.open(folder / "learners.png").size[0] > 1000
