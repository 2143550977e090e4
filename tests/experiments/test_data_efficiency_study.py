"""The study of how soon PETS learns with each model."""

import json
from pathlib import Path

import pytest
from PIL import Image

from experiments.studies import STUDIES, data_efficiency
from experiments.studies.lab import Lab
from mbrl.dynamics.table import MODELS


def test_the_fast_version_compares_two_models(tmp_path):
    folder = STUDIES["data-efficiency"](tmp_path, fast=True, workers=1, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert [*numbers] == ["ensemble", "laplace"]
    for found in numbers.values():
        ((steps, returns),) = found["curves"]
        assert steps == [150, 300] and found["episodes"] == [0]
        assert found["returns"]["300"]["estimate"] == returns[1]
    page = (folder / "table.md").read_text()
    assert "| laplace |" in page and "not in 2" in page
    assert Image.open(folder / "data_efficiency.png").size[0] > 500


def test_every_model_of_the_library_has_a_run():
    lab = Lab(Path(), 1, 1, False, print)
    for model, kind in MODELS.items():
        run = data_efficiency.config(lab, model, 900)
        assert type(run.agent.model) is kind and run.steps == 900


@pytest.mark.parametrize(("wanted", "first"), [(10.0, 2), (20.0, 3), (21.0, 0)])
def test_episodes_count_from_one_to_the_first_that_is_good_enough(wanted, first):
    curve = ([150, 300, 450], [1.0, 10.0, 20.0])
    assert data_efficiency.episodes(curve, wanted) == first
    assert data_efficiency.at(curve, 300) == 10.0
