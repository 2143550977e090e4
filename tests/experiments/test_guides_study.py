"""The study of planning with a learner."""

import json

from PIL import Image

from experiments.studies import STUDIES


def test_the_study_compares_planning_with_and_without_a_learner(tmp_path):
    folder = STUDIES["guides"](tmp_path, fast=True, workers=1, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert len(numbers["returns"]) == 8 and numbers["episodes"] == 1
    assert all(0 <= found["estimate"] <= 20 for found in numbers["returns"].values())
    assert "| and critic's value |" in (folder / "table.md").read_text()
    assert Image.open(folder / "guides.png").size[0] > 1000
