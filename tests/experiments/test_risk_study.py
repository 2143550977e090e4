"""The study of objectives on risky tasks."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import erfinv

import envs
from experiments.studies import STUDIES, risk
from experiments.studies.lab import Lab
from experiments.studies.risk_worlds import CartPole, River


@pytest.mark.parametrize("name", ["cartpole-cliff", "cartpole-swingup-noisy"])
def test_the_closed_form_of_the_cart_pole_is_what_mujoco_steps(name):
    task = envs.TASKS[name]
    model = risk.TASKS[name].true()  # pyright: ignore[reportOptionalCall]
    assert isinstance(model, CartPole)
    env, rng = envs.make(name).unwrapped, np.random.default_rng(0)
    assert isinstance(env, envs.MujocoEnv)
    obs, _ = env.reset(seed=0)
    for _ in range(25):
        action = rng.uniform(-1, 1, 1)
        before = torch.tensor(obs, dtype=torch.float64)[None, None]
        obs, *_ = env.step(action)
        gust = torch.tensor(env.data.qfrc_applied[:1] / task.process_noise[0])[None, None]
        step = model.step(before, torch.tensor(action)[None, None], noise=gust)
        np.testing.assert_allclose(step.state[0, 0], obs, atol=2e-6)


def test_the_closed_form_of_the_river_is_that_of_the_wet_chicken():
    env, rng = envs.WetChicken(), np.random.default_rng(0)
    obs, _ = env.reset(seed=3)
    draws, falls = np.random.default_rng(3), 0
    assert env.np_random.bit_generator.state == draws.bit_generator.state
    for _ in range(200):
        action = rng.uniform(-1, 1, 2)
        before, level = torch.tensor(obs, dtype=torch.float64), draws.uniform(-1, 1)
        obs, *_ = env.step(action)
        noise = torch.tensor([2**0.5 * erfinv(level)])
        step = River().step(
            before[None, None], torch.tensor(action)[None, None], noise=noise[None, None]
        )
        np.testing.assert_allclose(step.state[0, 0], obs, atol=1e-5)
        ahead = before[1] + action[1] - 1 + 0.6 * before[0]
        falls += bool(ahead + (3.5 - 0.6 * before[0]) * level > 5)
    assert env.falls == falls > 5
    env.reset()
    assert env.falls == 0


def test_a_share_of_failures_is_that_of_the_mean_objective():
    ours = [{"returns": [8.0, 10.0], "failures": [0.0, 1.0]}] * 3
    theirs = [{"returns": [10.0, 10.0], "failures": [1.0, 1.0]}] * 3
    found = risk.compared(ours, theirs)
    for name, value in (("failures ratio", 0.5), ("return lost", 0.1)):
        assert list(found[name].values()) == pytest.approx([value] * 3)
    below = [{"returns": [-10.0], "failures": [0.0]}]
    again = risk.compared([{"returns": [-12.0], "failures": [1.0]}], below)
    assert again["return lost"]["estimate"] == pytest.approx(0.2)
    assert set(again["failures ratio"].values()) == {None}


def test_the_worst_tenth_is_of_all_episodes_and_failures_are_means():
    seeds = [
        {"returns": [float(5 * seed + k) for k in range(5)], "failures": [0.0, 0.0, 0.0, 1.0, 3.0]}
        for seed in range(4)
    ]
    found = risk._measures(seeds)
    assert found["worst tenth"]["estimate"] == 0.5  # of 0, ..., 19
    assert found["worst tenth"]["low"] == 0.0  # more than one copy of the first seed
    assert list(found["failures"].values()) == pytest.approx([0.8] * 3)  # the same in all seeds
    assert found["return"]["seeds"] == [2.0, 7.0, 12.0, 17.0]


def test_a_fit_that_diverges_is_named_instead_of_a_row(tmp_path, monkeypatch):
    answers = {"returns": [1.0, 2.0], "failures": [0.0, 1.0]}

    def answered(self, asked):
        return {key: {"failed": "not finite"} if key[0][3] == "worst" else answers for key in asked}

    monkeypatch.setattr(Lab, "answers", answered)
    only = ("cartpole-cliff, swag, ts1",)
    folder = STUDIES["risk"](tmp_path, fast=True, only=only, say=lambda _: None)
    page = (folder / "table.md").read_text()
    assert "| swag | ts1 | mean |" in page and "| swag | ts1 | worst |" not in page
    assert "The fit of cartpole-cliff, swag, ts1, worst, seed 0 diverged" in page


def test_intervals_of_the_comparison_draw_seeds_together():
    """A model that is worse in one seed is so for both objectives, so the ratio does not vary."""
    ours = [{"returns": [2.0 * n], "failures": [1.0 * n]} for n in (1, 2, 5, 9)]
    theirs = [{"returns": [4.0 * n], "failures": [4.0 * n]} for n in (1, 2, 5, 9)]
    found = risk.compared(ours, theirs)
    assert list(found["failures ratio"].values()) == pytest.approx([0.25] * 3)
    assert list(found["return lost"].values()) == pytest.approx([0.5] * 3)


def test_each_cell_is_one_that_differs_from_the_others():
    cells = [
        (task, model, way, goal)
        for task in risk.TASKS
        for model in (risk.TRUE, *risk.MODELS)
        for way in risk.PROPAGATIONS
        for goal in risk.OBJECTIVES
        if risk._makes_sense((task, model, way, goal))
    ]
    # models with 4 propagations of 4 objectives and one of 2; 3 true models of 3 objectives
    assert len(cells) == 4 * len(risk.MODELS) * (4 * 4 + 2) + 3 * 3


def test_the_study_writes_its_page_table_and_figure_and_continues(tmp_path):
    only = ("cartpole-cliff, ensemble, ts1", "wet-chicken, laplace, expectation")
    lines: list[str] = []
    settings = {"fast": True, "workers": 1, "only": only, "say": lines.append}
    STUDIES["risk"](tmp_path, **settings)
    folder = STUDIES["risk"](tmp_path, **settings)
    assert sum(line.endswith("done") for line in lines) == 4 + 2  # the second call computes nothing
    found = json.loads((folder / "results.json").read_text())["numbers"]["results"]
    assert len(found) == 6
    one = found["cartpole-cliff, ensemble, ts1, CVaR α"]
    assert len(one["each"]) == 1 and len(one["each"][0]["returns"]) == 2
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["objective"] for row in rows[:2]] == ["mean", "mean - λ epistemic"]
    assert len(rows) == 6
    assert "| cartpole-cliff | ensemble | ts1 | worst |" in (folder / "table.md").read_text()
    assert Image.open(folder / "risk.png").size[0] > 1000
