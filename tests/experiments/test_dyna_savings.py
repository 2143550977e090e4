"""The studies of what imagined steps save, and of planning while acting."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from experiments.presets import preset
from experiments.studies import STUDIES, acting, dyna_savings


def silent(_):
    pass


def test_the_steps_to_a_return_are_those_of_the_last_of_three_episodes():
    steps, returns = [10, 20, 30, 40, 50], [0.0, 0.0, 9.0, 3.0, 6.0]
    assert dyna_savings.steps_to(steps, returns, 3.0) == 30
    assert dyna_savings.steps_to(steps, returns, 4.0) == 40
    assert dyna_savings.steps_to(steps, returns, 6.0) == 50
    assert dyna_savings.steps_to(steps, returns, 6.5) is None
    assert dyna_savings.steps_to(steps[:2], returns[:2], -1.0) is None


@pytest.mark.slow
def test_the_study_of_savings_trains_counts_and_draws(tmp_path):
    folder = STUDIES["dyna-savings"](tmp_path, fast=True, workers=1, say=silent)
    found = json.loads((folder / "results.json").read_text())["numbers"]["steps to the return"]
    assert len(found) == 3 and all(0 < one["estimate"] <= 800 for one in found.values())
    page = (folder / "table.md").read_text()
    assert "| sac alone |  | 1 | 5 |" in page and "| dyna | 3 | 0.25 | 5 |" in page
    assert Image.open(folder / "dyna_savings.png").size[0] > 1000


def test_savings_are_compared_with_the_same_learner_and_as_many_updates(tmp_path):
    class Slow:
        fast = False

    task = dyna_savings.TASKS["Pendulum-v1"]
    with_model = dyna_savings.with_model(Slow(), "Pendulum-v1", task, dyna_savings.CENTRE)
    alone = dyna_savings.without(Slow(), "Pendulum-v1", task, 5)
    assert with_model.agent.sac == alone.agent.learner
    for name in ("updates", "batch", "learning_starts", "train_every"):
        assert getattr(with_model.agent, name) == getattr(alone.agent, name)
    assert with_model.steps == alone.steps and with_model.agent.real == 0.25


def test_the_study_of_planning_while_acting_trains_both_ways_and_draws(tmp_path):
    folder = STUDIES["acting"](tmp_path, fast=True, workers=1, say=silent)
    found = json.loads((folder / "results.json").read_text())
    assert [*found["numbers"]["returns"]] == ["dyna, policy", "dyna, planning"]
    for name, returns in found["numbers"]["returns"].items():
        assert [*returns] == ["120", "240"]
        assert all(-2000 < one["estimate"] < 0 for one in returns.values())
        assert found["configs"][name]["agent"]["planning"] is name.endswith("planning")
    assert "| dyna, planning |" in (folder / "table.md").read_text()
    assert Image.open(folder / "acting.png").size[0] > 500


@pytest.mark.parametrize("algo", acting.AGENTS)
@pytest.mark.parametrize("planning", [False, True])
def test_each_agent_is_compared_with_itself(algo, planning):
    class Slow:
        fast = False

    run = acting.config(Slow(), algo, planning=planning)
    settings = preset(algo, acting.ENVIRONMENT, None)[1]
    assert run.agent == replace(settings, planning=planning)
    assert (run.steps, run.evaluate_every) == (acting.STEPS, acting.EVERY)
