"""The study of tabular learners: its measures and its files."""

import json

import numpy as np
import pytest
from PIL import Image

from envs.worlds import WORLDS
from experiments.studies import STUDIES, learners
from mbrl.tabular.config import ALGORITHMS
from mbrl.tabular.counted import counted_errors


def test_every_named_world_exists_with_one_discount():
    mdps = [build() for build in learners.WORLDS.values()]
    assert {mdp.name for mdp in mdps} == {*WORLDS, "garnet"}
    assert {mdp.discount for mdp in mdps} == {learners.DISCOUNT}
    chance = [not mdp.deterministic for mdp in mdps]
    assert chance == sorted(chance) and sum(chance) == 8


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_learner_is_accurate_in_deterministic_worlds(kind):
    early, late = learners.measured("frozen lake", kind, [40, 100_000], 0)
    assert late < 4e-4 < early  # a thousandth of the range, which is 0.41
    if ALGORITHMS[kind]["target"] in ("q", "double"):
        assert late < 1e-12


@pytest.mark.parametrize("kind", ["Q-learning", "double Q", "Sarsa", "MC, every visit", "Sarsa(λ)"])
def test_errors_in_a_stochastic_world_decrease_to_those_of_counted_models(kind):
    name, counts = "frozen lake, slippery", [10**4, 3 * 10**5]
    early, late = learners.measured(name, kind, counts, 0)
    mdp = learners.WORLDS[name]()
    best, draws = mdp.optimum().values, [np.random.default_rng(seed) for seed in range(9)]
    allowed = np.mean([counted_errors(mdp, best, counts, rng=rng)[-1] for rng in draws])
    assert late < early / 2 and late < 3 * allowed


def test_errors_below_a_thousandth_are_bold():
    assert [*map(learners.shown, (0.002, 0.0009, 0.0))] == ["2.0e-03", "**9.0e-04**", "**0**"]


def test_q_learning_is_trained_longest_in_stochastic_worlds():
    chance = {name for name, build in learners.WORLDS.items() if not build().deterministic}
    assert chance == {*learners.LONGEST}
    slow = learners.taken("four rooms", "Q-learning", False)
    assert slow[-1] == 10**8 and learners.taken("four rooms", "Sarsa", False) == slow[:4]
    assert learners.taken("chain", "Q-learning", False) == slow[:3]


def test_the_fast_study_writes_a_page_a_picture_and_numbers(tmp_path, inline):
    folder = STUDIES["learners"](tmp_path, fast=True, say=lambda _: None)
    found = json.loads((folder / "results.json").read_text())["numbers"]["found"]
    assert [*found] == ["frozen lake", "frozen lake, slippery"]
    for each in found.values():
        assert [*each["errors"]] == [*ALGORITHMS]
        assert all([n for n, _ in curve] == [1000, 10_000] for curve in each["errors"].values())
        assert max(each["solved"]) < 1e-11
    page = (folder / "table.md").read_text()
    assert all(f"| {name} |" in page for name in found)
    assert "| double Q | 1 of 1 | **0** (frozen lake) |" in page
    assert Image.open(folder / "learners.png").size[0] > 1000


def test_lines_have_the_colours_of_their_families():
    of = {kind: learners.family(kind) for kind in ALGORITHMS}
    assert [kind for kind, family in of.items() if family == learners.ONE] == [
        "Q-learning", "double Q", "expected Sarsa", "Sarsa",
    ]  # fmt: skip
    assert [*of.values()].count(learners.WHOLE) == 2 and of["3-step tree"] == learners.SEVERAL
    assert of["true online"] == of["Q(λ)"] == learners.TRACES
