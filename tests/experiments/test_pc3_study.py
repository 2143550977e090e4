"""The study of locally linear control from pictures."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import envs
from experiments.studies import STUDIES, pc3
from mbrl.dynamics.quadratic import SmoothQuadratic


def test_starts_are_the_same_for_all_models_and_those_of_the_protocol():
    task = envs.PLANAR["pc3-planar"]
    found = pc3.starts(task, 10)
    for one, other in zip(found, pc3.starts(task, 12), strict=False):
        assert np.array_equal(one.state, other.state) and np.array_equal(one.goal, other.goal)
    assert all(3 <= x <= 7 for one in found for x in one.state)
    assert len({tuple(one.goal) for one in found}) == 3


def test_triples_of_a_seed_are_the_same_and_actions_are_in_the_box():
    task = envs.PLANAR["pc3-pendulum-swingup"]
    one, same, other = (pc3.triples(task, 5, seed) for seed in (0, 0, 1))
    assert one.obs.shape == (5, 48, 48, 2) and one.obs.dtype == torch.uint8
    assert torch.equal(one.next_obs, same.next_obs) and not torch.equal(one.obs, other.obs)
    assert one.action.abs().max() <= 1


def test_a_planner_that_moves_straight_needs_the_steps_of_the_distance():
    """From (5, 5) to within 2 of (37, 37) by 3 a step along each axis: after 11 of 14 steps."""
    task, budget = envs.PLANAR["pc3-planar"], pc3.FULL._replace(steps=14)
    episode = pc3.Episode(np.array([5.0, 5.0]), np.array([37.0, 37.0]))

    def true(_, state):
        return SmoothQuadratic(
            lambda z, u: z + 3 * u,
            torch.as_tensor(state),
            torch.as_tensor(episode.goal),
            torch.eye(2),
            1e-6,
        )

    assert pc3.share(task, true, episode, budget, 0) == pytest.approx(4 / 14)


def test_resting_upright_is_in_the_goal_region_at_all_steps_and_resting_below_at_none():
    for name, wanted in (("balance", 1.0), ("swing-up", 0.0)):
        task = envs.PLANAR[pc3.WORLDS["pendulum"].tasks[name]]
        episode = pc3.starts(task, 1)[0]

        def still(_, state):  # every action costs
            now = torch.as_tensor(state)
            return SmoothQuadratic(lambda z, u: z, now, torch.zeros_like(now), torch.eye(2), 1.0)

        assert pc3.share(task, still, episode, pc3.TINY, 0) == wanted


def test_the_study_writes_its_page_its_table_and_its_figures(tmp_path):
    only = ("planar pc3", "pendulum e2c")
    folder = STUDIES["pc3"](tmp_path, fast=True, workers=1, only=only, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert set(numbers["found"]) == {"planar", "balance", "swing-up"}
    assert numbers["found"]["balance"]["e2c, euclidean"]["seeds"] == [100.0]
    assert len(numbers["models"]["planar pc3 0"]["map"]["codes"]) == pc3.MAP
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["method"]) for row in rows[::2]] == [
        ("planar", "pc3"), ("balance", "e2c"), ("swing-up", "e2c"),
    ]  # fmt: skip
    assert [row["metric"] for row in rows] == 3 * ["euclidean", "mahalanobis"]
    page = (folder / "table.md").read_text()
    assert "| planar | " in page and "(codes.png)" in page and " 74.4 " in page
    for name in ("pc3", "codes"):
        assert Image.open(folder / f"{name}.png").size[0] > 1000


def test_a_name_that_no_run_has_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="no run has 'solar' in its name"):
        STUDIES["pc3"](tmp_path, fast=True, only=["solar"], say=lambda _: None)
