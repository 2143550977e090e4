"""The study of noise and ignorance."""

import json

import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, decomposition


def silent(_: str) -> None:
    pass


def test_the_data_have_the_noise_that_the_study_takes_for_true():
    x, y = decomposition.data(200_000, torch.Generator().manual_seed(0))
    away = y - torch.sin(2 * x)
    for low, high in ((-2.0, -1.0), (-0.1, 0.1), (1.0, 2.0)):
        here = (x > low) & (x < high)
        exact = decomposition.noise_std(x)[here].square().mean()
        assert away[here].square().mean() == pytest.approx(exact.item(), rel=0.03)


def test_a_slope_is_that_of_a_power_law():
    assert decomposition.slope((10, 100, 1000), [4.0, 0.4, 0.04]) == pytest.approx(-1.0)


def test_laplace_finds_the_noise_within_a_tenth_and_knows_less_with_fewer_rows():
    few, many = (decomposition.split("laplace", count, 0, False) for count in (50, 600))
    assert many["aleatoric"] == pytest.approx(1.0, abs=0.1)
    assert many["epistemic"] < 0.6 * few["epistemic"]


def test_the_study_writes_its_page_and_its_figure(tmp_path):
    only = ("laplace", "langevin", "anchored, bootstrap")
    folder = STUDIES["decomposition"](tmp_path, fast=True, workers=1, only=only, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert set(numbers) == set(only)
    assert numbers["laplace"]["aleatoric"]["100"]["estimate"] > 0
    page = (folder / "table.md").read_text()
    assert all(f"| {name} |" in page for name in only)
    assert Image.open(folder / "decomposition.png").size[0] > 1000
