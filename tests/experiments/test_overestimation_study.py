"""The study of overestimation."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.studies import STUDIES, overestimation


def test_values_are_exact_without_noise(monkeypatch):
    """Where rewards have no noise and every action does the same, there is nothing to exceed."""
    monkeypatch.setattr(overestimation, "NOISE", 0.0)
    found = overestimation.errors("ten equal actions, twice", "DQN", 1500, 0)
    assert found["errors"][-1] == pytest.approx(0.0, abs=0.01) and found["lost"] == 0


def test_the_truth_of_the_equal_actions_is_zero_and_single_learning_exceeds_it():
    world = "ten equal actions, twice"
    assert overestimation._truth(overestimation.choice()) == 0
    single, double = (
        np.mean(overestimation.errors(world, kind, 1000, 0)["errors"][3:])
        for kind in overestimation.KINDS
    )
    assert single > 0.3 and double < 0.75 * single


def test_the_study_writes_a_page_a_picture_and_numbers(tmp_path):
    folder = STUDIES["overestimation"](tmp_path, fast=True, workers=1, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert set(numbers["error"]) == set(overestimation.WORLDS)
    for each in numbers["error"].values():
        assert set(each) == {"DQN", "double DQN"}
    page = (folder / "table.md").read_text()
    assert all(world in page for world in overestimation.WORLDS)
    assert Image.open(folder / "overestimation.png").size[0] > 1000
