"""The study of Dyna."""

import json

import numpy as np
from PIL import Image

from envs.worlds import dyna_maze
from experiments.studies import STUDIES, dyna


def silent(_: str) -> None:
    pass


def test_a_random_walk_takes_as_long_as_the_linear_solve_says():
    env, rng, found = dyna_maze().env(), np.random.default_rng(0), []
    for _ in range(120):
        env.reset()
        steps, over = 0, False
        while not over:
            _, _, over, _, _ = env.step(int(rng.integers(4)))
            steps += 1
        found.append(steps)
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - dyna.wandering()) < 3.5 * error


def test_the_first_short_episode_equals_a_hand_computed_value():
    array = np.array([[100, 30, 10, 19, 16, 16], [100, 10, 42, 19, 16, 16]])
    # means 100, 20, 26, 19, 16, 16: three average 21.7 from the second, 20.3 from the third
    assert dyna.soon(array) == "episode 4"
    assert dyna.soon(array[:, :4]) == "not reached"
    rewards = np.arange(12.0)[None]  # one point for each reward: the last sixth has two
    assert dyna.late(rewards).tolist() == [2.0]


def test_first_episodes_are_the_same_and_planning_shortens_the_next():
    none, many = (np.array(dyna.lengths(planning, 2, 3)) for planning in (0, 50))
    assert (none[:, 0] == many[:, 0]).all()
    assert many[:, 1].mean() < 0.2 * none[:, 1].mean()


def test_rewards_are_recorded_at_intervals():
    found = np.array(dyna.earned("blocking-maze", "Dyna-Q", 800, 700, 2))
    assert found.shape == (2, 800 // dyna.EVERY)
    assert (np.diff(found, axis=1) >= 0).all() and found[:, -1].min() > 5
    assert (found[:, -1] == found[:, 700 // dyna.EVERY]).all()  # blocked; no other way found


def test_the_study_writes_a_page_a_picture_and_numbers(tmp_path):
    folder = STUDIES["dyna"](tmp_path, fast=True, workers=1, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    steps = numbers["steps per episode"]
    assert steps["0"]["mean"][0] == steps["5"]["mean"][0] == steps["50"]["mean"][0]
    assert min(steps["50"]["mean"]) >= dyna.OPTIMAL
    assert steps["50"]["mean"][1] < steps["0"]["mean"][1]
    page = (folder / "table.md").read_text()
    assert "Dyna-Q+" in page and f"{dyna.wandering():.0f} in the mean" in page.replace("\n", " ")
    assert Image.open(folder / "dyna.png").size[0] > 1000
