"""The study of gradients through models."""

import json

import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, gradient_norm


@pytest.mark.parametrize(("name", "rho"), gradient_norm.LINES.items())
def test_the_gradients_in_a_line_are_powers_and_their_sums(name, rho):
    """To the first action: ρ^(H - 1). To the policy a = tanh(w s + b) at 0: by hand, below."""
    horizons = [1, 2, 5, 9]
    found = gradient_norm.norms(name, 0, horizons, fast=True)
    assert found["action"] == pytest.approx([rho ** (h - 1) for h in horizons], rel=1e-4)
    # da_t/db = 1 and da_t/dw = s_t = ρ^t s_0; reward k = s_{k+1} has slope ρ^(k - t) to a_t
    _, starts = gradient_norm.line(rho, torch.Generator().manual_seed(0))
    mean = float(starts.mean())
    for h, norm in zip(horizons, found["policy"], strict=True):
        pairs = [(k, t) for k in range(h) for t in range(k + 1)]
        bias = sum(rho ** (k - t) for k, t in pairs)
        weight = sum(rho ** (k - t) * rho**t * mean for k, t in pairs)
        assert norm == pytest.approx((bias**2 + weight**2) ** 0.5, rel=1e-3)


def test_the_study_writes_a_page_a_picture_and_numbers(tmp_path):
    folder = STUDIES["gradient-norm"](tmp_path, fast=True, seeds=2, workers=1, say=lambda _: None)
    norms = json.loads((folder / "results.json").read_text())["numbers"]["norms"]
    assert len(norms) == 5
    for each in norms.values():
        for which in gradient_norm.GRADIENTS:
            assert len(each[which]) == 2 and all(x > 0 for seed in each[which] for x in seed)
    assert "| line, ρ 1.1 | action | 1 |" in (folder / "table.md").read_text()
    assert Image.open(folder / "gradient_norm.png").size[0] > 1000
