"""The study of bandits."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from experiments.studies import STUDIES, bandits
from mbrl.tabular.bandits import lai_robbins


def silent(_: str) -> None:
    pass


def test_a_curve_in_parts_continues_from_the_last_part():
    """The schedule begins with ε = 1, uniform play, which costs the mean gap, 0.15 a play."""
    found = bandits.lost("fixed", "ε-greedy, decaying", 400, 75, 0)
    assert found["plays"][-1] == 75
    # ε is 1 until c K / d² = 80 plays
    assert found["mean"][-1] == pytest.approx(75 * 0.15, rel=0.03)
    longer = bandits.lost("fixed", "UCB1", 100, 250, 0)
    assert (np.diff(longer["mean"]) >= 0).all()
    assert 15 < longer["mean"][-1] < 250 * 0.15


def test_the_study_writes_a_page_a_picture_and_numbers(tmp_path):
    folder = STUDIES["bandits"](tmp_path, fast=True, workers=1, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert numbers["Lai-Robbins slope"] == pytest.approx(lai_robbins(bandits.MEANS))
    last = {
        problem: {name: curve["mean"][-1] for name, curve in curves.items()}
        for problem, curves in numbers["regret"].items()
    }
    assert set(last["drawn"]) == {"UCB1", "KL-UCB", "Thompson", "IDS, variance", "IDS"}
    assert last["drawn"]["UCB1"] > 1.5 * last["drawn"]["Thompson"]
    assert last["linear"]["UCB1"] > 2 * last["linear"]["LinUCB"]
    assert not any(math.isnan(value) for each in last.values() for value in each.values())
    page = (folder / "table.md").read_text()
    assert all(name in page for name in (*bandits.ALGORITHMS, *bandits.LINEAR))
    assert Image.open(folder / "bandits.png").size[0] > 1000
