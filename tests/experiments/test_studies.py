"""The studies: their measures, and their pages, pictures and numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, objectives, propagation
from experiments.studies.lab import Lab
from experiments.studies.versions import config
from mbrl.dynamics import Analytic


def silent(_: str) -> None:
    pass


def test_versions_differ_only_in_data_and_planning():
    at = Lab(Path("nowhere"), 1, 1, False, silent)
    old, middle, new = (config(at, "cartpole-swingup", name) for name in ("0.5", "1.0", "1.5"))
    assert old.steps == middle.steps == new.steps
    agents = [run.agent for run in (old, middle, new)]
    assert agents[0].random_steps == old.steps
    assert [agent.aggregate for agent in agents] == [False, True, True]
    assert [agent.mpc.replan_every for agent in agents] == [0, 0, 2]
    assert agents[0].mpc.planner == agents[1].mpc.planner


# The experiments that need no training.


def test_brute_force_and_statistics_equal_hand_computed_values():
    # At rest on the top with a noise of 1e-6 the ball stays there: h steps return h.
    rng = np.random.default_rng(0)
    near = propagation.brute_force(np.array([[0.0, 0.0]]), 50, rng)
    assert near.shape == (1, 50, propagation.HORIZON)
    assert near[0, :, 0] == pytest.approx(1.0, abs=0.01)
    returns = np.arange(20.0).reshape(1, 20, 1)
    mean, std, cvar = propagation.statistics(returns)[0, 0]
    assert (mean, cvar) == (9.5, 0.5)  # the worst tenth of 0..19 is 0 and 1
    assert std == pytest.approx(np.sqrt((20**2 - 1) / 12))


def test_propagation_that_keeps_its_members_ranks_first(tmp_path):
    folder = STUDIES["propagation"](tmp_path, fast=True, seeds=4, workers=1, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert numbers["ranked"][0] == "tsinf"
    assert numbers["ranked"][-1] == "expectation"
    last = {name: errors["std"][-1] for name, errors in numbers["median error by horizon"].items()}
    assert last["expectation"] == pytest.approx(1.0)  # it predicts no spread
    assert last["tsinf"] < 0.6 * last["ts1"]
    assert Image.open(folder / "propagation.png").size[0] > 1000
    assert set(numbers["models"]) == {"ensemble", "laplace"} and not numbers["failed"]
    assert len((folder / "table.csv").read_text().splitlines()) == 1 + 2 * 5
    assert Image.open(folder / "models.png").size[0] > 1000


def test_learned_models_are_compared_with_a_ball_on_one_ridge():
    """A model that is the ball's formula has only the sampling error: of a mean 1 / sqrt(300)."""

    class Exact(Analytic):
        def __init__(self):
            def mean(state, action, theta):
                x, v = state.unbind(-1)
                pull = theta * x.sin() - 0.5 * v
                return torch.stack((x + propagation.DT * v, v + propagation.DT * pull), -1)

            super().__init__(mean, torch.tensor(propagation.NOISE), torch.tensor([1.5]))

        def fit(self, data, *, generator):
            assert len(data.reward) == propagation.ROWS
            change = data.next_obs - self.mean(data.obs[None], None, torch.tensor([[1.5]]))[0]
            assert change.std(0).tolist() == pytest.approx(propagation.NOISE, rel=0.15)

    class Config:
        def make(self, obs_size, action_size, *, generator):
            return Exact()

    found = propagation.learned_errors(Config(), 6, 300, 3000, 0)
    error = {name: np.median(np.array(part)[:, -1], 0) for name, part in found.items()}
    assert (error["tsinf"] < 4 / np.sqrt(300)).all()
    assert error["expectation"][1] == pytest.approx(1.0)


def test_pessimistic_objectives_improve_the_tail_and_optimistic_ones_do_not():
    budget = objectives.Budget(100, 8, 50, 4000)
    found = {
        name: objectives.outcome(*objectives.OBJECTIVES[name], 0, budget)
        for name in ("optimism", "mean", "penalty")
    }
    assert found["optimism"]["worst tenth"] < found["mean"]["worst tenth"] - 1
    assert found["optimism"]["falls"] > 2 * found["mean"]["falls"]
    assert found["penalty"]["clearance"] > found["mean"]["clearance"] + 0.1


def test_the_robot_study_writes_pages_pictures_and_numbers(tmp_path):
    folder = STUDIES["robots"](tmp_path, fast=True, workers=1, say=silent)
    page = (folder / "table.md").read_text()
    found = json.loads((folder / "results.json").read_text())["numbers"]
    for name in ("cartpole-swingup", "cartpole-servo"):
        assert f"## {name}" in page and f"({name}.png)" in page
        assert found[name]["plan_ms"] > 0 and len(found[name]["planned each"]) == 1
    assert found["cartpole-swingup"]["motion error"] is None
