"""Studies of models: how wrong they are, and what that costs."""

import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, model_bias, raw_targets
from experiments.studies.pendulum import Pendulum
from mbrl.contract import check_model
from mbrl.types import Step


def silent(_: str) -> None:
    pass


def reward(obs, action, next_obs):
    return -obs[..., 2].square() - action[..., 0]


def policy(state, *, generator, explore):
    return -0.5 * state[..., 2:]


def test_the_pendulum_in_closed_form_is_that_of_gymnasium():
    env, model = gymnasium.make("Pendulum-v1"), Pendulum(3, 1)
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(200):
        action = 2 * env.action_space.sample()  # some are out of bounds
        after, _, _, _, _ = env.step(action)
        rows = (torch.as_tensor(x)[None, None] for x in (obs, action))
        found = model.step(*rows, noise=None).state[0, 0]
        assert found.numpy() == pytest.approx(after, abs=2e-5)
        obs = after
    states = torch.randn(4, 3)
    check_model(model, states, states[:, :1])


def test_friction_and_mass_change_the_pendulum_as_they_should():
    still, turning = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 2.0]]])
    push, none = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    heavy = Pendulum(3, 1, mass=2.0).step(still, push, noise=None).state
    assert heavy[..., 2].item() == pytest.approx(0.05 * 3 / 2)
    slowed = Pendulum(3, 1, friction=0.5).step(turning, none, noise=None).state
    assert slowed[..., 2].item() == pytest.approx(2 - 0.05 * 0.5 * 2)


class Two(Pendulum):
    """Two members, one of them with friction; the reward is that of the function."""

    members = 2

    def step(self, state, action, *, noise):
        each = [
            Pendulum(3, 1, friction=f).step(state[i : i + 1], action[i : i + 1], noise=None)
            for i, f in enumerate((0.0, 0.5))
        ]
        return Step(*(torch.cat(parts) for parts in zip(*each, strict=True)))


def test_the_exact_model_has_neither_bias_nor_spread():
    state = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    found = model_bias.compared(
        Pendulum(3, 1), policy, state, reward, length=7, generator=generator
    )
    for name in ("bias", "error", "spread"):
        assert found[name] == pytest.approx([0] * 7, abs=1e-5)
    assert found["return"][0] == pytest.approx(np.mean([-4 + 1, -1 - 0.5]))


def test_bias_and_spread_by_hand():
    """Returns of two steps: the first reward is known, the second differs between the members."""
    state = torch.tensor([[1.0, 0.0, 2.0]])
    found = model_bias.compared(
        Two(3, 1), policy, state, reward, length=2, generator=torch.Generator().manual_seed(0)
    )
    real, slow = 2 + 0.05 * 3 * -1, 2 + 0.05 * (3 * -1 - 0.5 * 2)
    gains = [-(v**2) + 0.5 * v for v in (real, slow)]
    assert found["bias"] == pytest.approx([0, (gains[1] - gains[0]) / 2], abs=1e-5)
    half = (model_bias.PARTICLES // 2) * ((gains[1] - gains[0]) / 2) ** 2 * 2
    spread = math.sqrt(half / (model_bias.PARTICLES - 1))
    assert found["spread"] == pytest.approx([0, spread], abs=1e-5)


def test_errors_are_means_over_the_last_half_of_the_fits(tmp_path):
    lines = [
        {"kind": "update", "env_steps": k, "model_error": 1.0, "model_error_0": k,
         "model_error_reward": 2 * k}
        for k in range(1, 5)
    ]  # fmt: skip
    lines.insert(1, {"kind": "episode", "env_steps": 1, "return": 0.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert raw_targets.unseen_errors(tmp_path) == {"0": 3.5, "reward": 7.0}


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("model-bias", ["model_bias.png"]),
        ("raw-targets", ["Pendulum-v1.png"]),
        ("wrong-model", ["wrong_model.png"]),
    ],
)
def test_the_studies_write_a_page_pictures_and_numbers(tmp_path, name, pictures):
    folder = STUDIES[name](tmp_path, fast=True, workers=1, say=silent)
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    page = (folder / "table.md").read_text()
    if name == "model-bias":
        found = numbers["200 steps"]
        assert found["error"]["5"]["estimate"] >= abs(found["bias"]["5"]["estimate"]) - 1e-9
        assert found["return"]["5"]["estimate"] < 0 < found["spread"]["5"]["estimate"]
    elif name == "raw-targets":
        assert set(numbers) == {"episodes", "Pendulum-v1, scaled", "Pendulum-v1, raw"}
        assert set(numbers["Pendulum-v1, raw"]["errors"]) == {"0", "1", "2", "reward"}
    else:
        names = {"mass 1, k 5", "mass 1.5, k 5", "friction 0.25, k 5", "learned model, k 5"}
        assert set(numbers["returns"]) == {*names, "no model"}
        assert all(-2000 < own["estimate"] < 0 for own in numbers["returns"].values())
    assert "| --- |" in page
    for picture in pictures:
        assert Image.open(folder / picture).size[0] > 700
