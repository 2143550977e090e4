"""The audit of a model, on worlds whose answers are known."""

import json

import pytest
import torch
from PIL import Image

from experiments.cli.command import run
from mbrl.audit import ahead, drives, steps_of
from mbrl.dynamics import recalibrate
from mbrl.evaluation import Episode
from tests.models import LinearGaussian

A, B, STD = [[0.9, 0.2], [0.0, 0.8]], [[0.0], [0.5]], [0.1, 0.3]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def world(std=1.0):
    """The linear world with its noise, or a model of it whose noise is wrong by a factor."""
    return LinearGaussian(A, B, [std * each for each in STD])


def episodes(count, steps=200):
    """Episodes of the world under random actions; the reward is the next first observation."""
    draw, matrix, gain, std = seeded(1), torch.tensor(A), torch.tensor(B), torch.tensor(STD)
    found = []
    for _ in range(count):
        obs = torch.randn(2, generator=draw, dtype=torch.double)
        rows = []
        for _ in range(steps):
            action = 2 * torch.rand(1, generator=draw, dtype=torch.double) - 1
            noise = std.double() * torch.randn(2, generator=draw, dtype=torch.double)
            after = matrix.double() @ obs + gain.double() @ action + noise
            rows.append((obs, action, after[0], after))
            obs = after
        found.append(
            Episode(*(torch.stack(column) for column in zip(*rows, strict=True)), plan_scores=[])
        )
    return found


def reward(obs, action, next_obs):
    return next_obs[..., 0]


def test_a_model_with_the_true_noise_is_calibrated_at_every_step():
    found = ahead(world(), episodes(12), horizon=8, reward=reward, generator=seeded())
    assert found.calibration.max() < 0.05
    assert found.epistemic.max() < 0.1 * found.aleatoric.max()
    # the error is the noise that has come in, whose variance the model predicts
    assert torch.allclose(found.error.square(), found.aleatoric, rtol=0.25)
    assert (found.predicted - found.realised).mean() == pytest.approx(0.0, abs=0.15)


def test_too_little_noise_is_found_and_recalibration_mends_it():
    played = episodes(8)
    narrow = world(0.3)
    before = ahead(narrow, played[1::2], horizon=5, reward=reward, generator=seeded())
    assert before.calibration.min() > 0.2
    mended = recalibrate(narrow, steps_of(played[::2]), "temperature")
    after = ahead(mended, played[1::2], horizon=5, reward=reward, generator=seeded())
    assert after.calibration.max() < 0.06


def test_a_model_that_promises_more_is_found():
    found = ahead(
        world(), episodes(3), horizon=4, generator=seeded(),
        reward=lambda obs, action, next_obs: next_obs[..., 0] + 0.5,
    )  # fmt: skip
    assert (found.predicted - found.realised).mean() == pytest.approx(4 * 0.5, abs=0.2)


def test_an_observation_drives_predictions_by_the_size_of_its_effect():
    played = episodes(4)
    found = drives(world(), played, generator=seeded())
    obs = torch.cat([episode.obs for episode in played])
    change = torch.cat([episode.next_obs - episode.obs for episode in played]).std(0)
    # exchanged values differ by √2 std; the change is (A - I) obs
    effect = (torch.tensor(A) - torch.eye(2)).double() * obs.std(0) / change.unsqueeze(1)
    exact = 2**0.5 * effect.square().mean(0).sqrt()
    assert found.numpy() == pytest.approx(exact.numpy(), rel=0.1)


def test_a_horizon_beyond_every_episode_is_refused():
    with pytest.raises(ValueError, match="horizon: the longest episode has 5 steps, got 6"):
        ahead(world(), episodes(2, steps=5), horizon=6, generator=seeded())


def test_a_model_that_leaves_all_bounds_and_actions_that_are_indices_are_refused():
    wild = LinearGaussian([[1e80, 0.0], [0.0, 1.0]], B, STD)
    with pytest.raises(ValueError, match=r"imagined states are not finite from step \d on; take"):
        ahead(wild, episodes(2), horizon=8, generator=seeded())
    index = [one._replace(action=one.action[:, 0]) for one in episodes(2)]
    with pytest.raises(ValueError, match="actions that are vectors, and these are indices"):
        ahead(world(), index, horizon=3, generator=seeded())


def test_the_command_writes_a_page_and_five_pictures(tmp_path, capsys):
    path = tmp_path / "run"
    train = (
        "train pets --env cartpole-swingup --steps 300 --random-steps 150 --model.epochs 5 "
        f"--model.hidden 16 --planner.population 8 --planner.horizon 5 --run {path}"
    )
    assert run(train.split()) == 0
    assert run(f"audit {path} --episodes 2 --horizon 5".split()) == 0
    page = (path / "audit" / "audit.md").read_text()
    assert "## Does the planner exploit its errors?" in page
    assert "takes the calibration error" in page
    for name in ("calibration", "spread", "exploitation", "observations", "reliability"):
        assert f"({name}.png)" in page
        assert min(Image.open(path / "audit" / f"{name}.png").size) > 300
    numbers = json.loads((path / "audit" / "numbers.json").read_text())
    assert len(numbers["own"]["calibration"]) == 5 and len(numbers["drives"]) == 5
    capsys.readouterr()
    assert run(f"audit {path} --episodes 1 --horizon 3".split()) == 0
    said = capsys.readouterr()
    assert "that takes two episodes" in said.out + said.err
    # plans have 5 steps, over however many the model is audited, and every second step has one
    first = json.loads((path / "audit" / "numbers.json").read_text())["promised"]
    assert [len(part) for part in first] == [(150 - 4) // 2] * 2
    assert first == [part[: (150 - 4) // 2] for part in numbers["promised"]]


def test_a_run_without_a_model_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "run"
    assert run(f"train random --env CartPole-v1 --steps 30 --run {path}".split()) == 0
    capsys.readouterr()
    assert run(["audit", str(path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "random has no model to audit" in said[0]


def test_a_model_of_latent_states_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "run"
    train = (
        "train latent-pets --env pendulum-swingup --steps 160 --random-steps 150 --model.hidden 8 "
        "--model.width 8 --model.deterministic 8 --model.latent 2 --model.updates 2 "
        f"--planner.population 8 --planner.elites 2 --planner.horizon 3 --run {path}"
    )
    assert run(train.split()) == 0
    capsys.readouterr()
    assert run(["audit", str(path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "a RecurrentDynamics are not observations" in said[0]
