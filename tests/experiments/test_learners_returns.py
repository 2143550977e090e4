"""The study of learners' returns."""

import json

from PIL import Image

from experiments.studies import STUDIES, learners_returns
from mbrl.agents import AGENTS


def test_the_study_trains_evaluates_and_draws_every_quick_learner(tmp_path):
    folder = STUDIES["learners-returns"](tmp_path, fast=True, workers=2, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    page = (folder / "table.md").read_text()
    for algo in ("dqn", "ppo", "trpo", "a2c", "reinforce"):
        found = numbers[f"{algo} CartPole-v1"]
        assert 1 <= found["final"]["estimate"] <= 500 and len(found["curves"]) == 1
        assert f"| {algo} | CartPole-v1 | 1,100 |" in page
    assert -2000 < numbers["sac Pendulum-v1"]["final"]["estimate"] < 0
    for env in ("CartPole-v1", "Pendulum-v1"):
        assert Image.open(folder / f"{env}.png").size[0] > 1000


def test_every_row_names_an_algorithm_and_a_published_return():
    for row in learners_returns.ROWS:
        assert row.algo in AGENTS and row.steps >= 5000 and row.source
