"""The study of the bias of policy gradients in learned models."""

import json

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, rollout_bias


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_expected_returns_on_the_carts_are_those_of_simulated_ones():
    world, draw, count = rollout_bias.carts(), seeded(), 200_000
    state = torch.randn(count, 4, dtype=torch.double, generator=draw)
    total, found = torch.zeros(count, dtype=torch.double), []
    for _ in range(5):
        noise = torch.randn(count, 6, dtype=torch.double, generator=draw)
        action = state @ rollout_bias.GAIN.T + rollout_bias.EXPLORATION * noise[:, :2]
        state = state @ world.state.T + action @ world.action.T + 0.05 * noise[:, 2:]
        total = total - state.square().sum(-1) - 0.1 * action.square().sum(-1)
        found.append(float(total.mean()))
    exact = [float(x) for x in rollout_bias.returns(world, rollout_bias.GAIN, 5)]
    assert found == pytest.approx(exact, rel=0.01)


def test_the_pendulum_moves_and_is_rewarded_as_gymnasiums():
    env: gymnasium.Env = gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=3)
    model, draw = rollout_bias.pendulum(), np.random.default_rng(0)
    for _ in range(60):
        action = draw.uniform(-2, 2, 1).astype(np.float32)
        state, given = torch.as_tensor(obs).view(1, 1, 3), torch.as_tensor(action).view(1, 1, 1)
        after = model.step(state, given, noise=None).state
        reward = rollout_bias.swing_reward(state, given, after)
        obs, gained, _, _, _ = env.step(action)
        assert np.allclose(after[0, 0].numpy(), obs, atol=2e-5)
        assert float(reward) == pytest.approx(float(gained), abs=2e-5)


def test_a_model_that_is_the_truth_has_no_bias():
    horizons = (1, 5, 20)
    exact = rollout_bias.biases(
        lambda gain: rollout_bias.returns(rollout_bias.carts(), gain, 20), horizons
    )
    assert np.allclose(exact, [(1.0, 0.0)] * 3)


def test_cosine_and_relative_error_are_those_worked_out_by_hand():
    one, other = [torch.tensor([3.0]), torch.tensor([[0.0]])], [torch.tensor([4.0, 3.0])]
    assert rollout_bias.compared(one, other) == pytest.approx((0.8, 10**0.5 / 5))


def test_bias_grows_with_the_horizon_and_falls_with_data():
    few, many = (
        np.mean([rollout_bias.carts_bias(n, seed, (1, 100), True) for seed in range(20)], 0)
        for n in (50, 1000)
    )
    assert few[1, 1] > 1.5 * few[0, 1] and many[1, 1] > 1.5 * many[0, 1]
    assert many[1, 1] < 0.5 * few[1, 1]


def test_the_study_writes_numbers_a_page_and_a_figure(tmp_path):
    folder = STUDIES["rollout-bias"](tmp_path, fast=True, workers=1, say=lambda _: None)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert numbers["horizons"] == [1, 2, 3, 5, 7, 10]
    for world, counts in (("two carts", ("50", "200")), ("pendulum", ("300", "3000"))):
        for count in counts:
            own = numbers[world][count]
            assert len(own["cosine"]) == len(own["relative error"]) == 6
            assert all(-1 <= one["estimate"] <= 1 for one in own["cosine"])
    page = (folder / "table.md").read_text()
    assert "| world | real steps | H = 1 | H = 10 |" in page and "| pendulum | 3000 |" in page
    assert Image.open(folder / "rollout_bias.png").size[0] > 1000
