"""The studies of returns beside published ones: of agents that imagine, and of those that see."""

import json

import pytest
from PIL import Image

from experiments.presets import preset
from experiments.studies import STUDIES, agent_returns, dyna_returns, pixel_returns


def silent(_):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "env", "algos", "steps"),
    [
        ("dyna-returns", "Pendulum-v1", ("sac", "mbpo", "dyna"), 800),
        ("pixel-returns", "pendulum-swingup-pixels-16", ("sac", "sac-ae"), 300),
    ],
)
def test_the_study_trains_evaluates_draws_and_says_the_time(study, env, algos, steps, tmp_path):
    folder = STUDIES[study](tmp_path, fast=True, workers=1, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    page = (folder / "table.md").read_text()
    for algo in algos:
        own = numbers[f"{algo} {env}"]
        assert -2000 < own["final"]["estimate"] < 301 and own["minutes"]["estimate"] > 0
        assert f"| {algo} | {env} | {steps} |" in page
    assert Image.open(folder / f"{env}.png").size[0] > 1000


@pytest.mark.parametrize(
    ("study", "row"),
    [(study, row) for study in (dyna_returns, pixel_returns) for row in study.ROWS],
)
def test_every_row_has_a_preset_and_a_published_return_if_it_is_published(study, row):
    assert preset(row.algo, row.env, lambda: None, known=(True, True))[0] > 0
    points = study.PUBLISHED.get(row.env, ())
    assert not points or row.steps in {point.steps for point in points}


@pytest.mark.parametrize("row", pixel_returns.ROWS)
def test_rows_of_frames_are_the_presets_and_as_long_as_the_published_runs(row):
    assert preset(row.algo, row.env, lambda: None, known=(True, True))[0] == row.steps
    assert row.steps * row.action_repeat == 100_000


def test_a_model_learns_the_reward_of_a_row_that_repeats_actions():
    """The reward of one step of Pendulum-v1 is known, the sum of two is no function."""
    for repeat in (1, 2):
        row = agent_returns.Row("mbpo", "Pendulum-v1", 100, repeat)
        assert agent_returns.config(row, None).agent.model.learn_reward is (repeat == 2)


def test_a_published_return_has_the_time_it_took_where_that_is_known():
    assert str(agent_returns.Published("SAC", 10, 536.0)) == "SAC 536"
    with_time = agent_returns.Published("DHMBPO", 10, 3171.0, 15)
    assert str(with_time) == "DHMBPO 3171 in 15 minutes on a GPU"


def test_the_time_of_a_run_is_the_sum_over_its_processes(tmp_path):
    (tmp_path / "timings.jsonl").write_text('{"seconds": 1.5}\n{"seconds": 2.25}\n')
    assert agent_returns.seconds(tmp_path) == 3.75
