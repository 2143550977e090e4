"""The study of goals in another room, from pictures."""

import json

import numpy as np
import torch
from PIL import Image

import envs
from experiments.studies import STUDIES, two_rooms
from mbrl.dynamics.stored_paths import StoredPaths


def test_the_study_writes_its_page_and_its_figure(tmp_path):
    folder = STUDIES["two-rooms"](tmp_path, fast=True, workers=1, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert [*numbers["reached"]] == [two_rooms.CEILING, *two_rooms.COSTS]
    (model,) = numbers["models"]
    for found in model["episodes"].values():
        assert len(found) == two_rooms.TINY.starts
        assert all(len(one["path"]) == 5 and not one["reached"] for one in found)
    assert np.array(model["map"]).shape == (two_rooms.GRID, two_rooms.GRID)
    assert "| steps of stored paths | 0.0 [0.0, 0.0] |" in (folder / "table.md").read_text()
    assert Image.open(folder / "two_rooms.png").size[0] > 1000


def test_from_true_states_paths_lead_through_the_door():
    budget = two_rooms.FULL._replace(walks=300, stored=5000, starts=4)
    found = two_rooms.ceiling(budget)["episodes"]
    assert all(one["reached"] for one in found)
    shortest = [np.abs(np.subtract(one["path"][0], one["goal"])).max() / 2.45 for one in found]
    assert all(len(one["path"]) > way for one, way in zip(found, shortest, strict=True))
    assert np.mean([len(one["path"]) for one in found]) < 40


def test_steps_are_more_for_places_behind_the_wall_than_for_those_before_it():
    task = envs.PLANAR["two-rooms"]
    data = two_rooms.walks(two_rooms.FULL._replace(walks=200), 0)
    state, after = (torch.as_tensor(part) for part in (data.state, data.next_state))
    paths = StoredPaths(two_rooms.TrueModel(task), state, after)
    paths.set_goal(torch.tensor([40.0, 50.0]))
    before, behind = paths.steps(torch.tensor([[50.0, 50.0], [28.0, 50.0]])).tolist()
    # 10 pixels, and 70 up to the door and down again, by random actions of up to 2.45
    assert 10 / 2.45 < before < 10
    assert 70 / 2.45 < behind < 70
