"""The study of STEVE's chain, compared with exact expectations."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.studies import STUDIES, steve_chain

S, END = steve_chain.STATES, steve_chain.END


def exact_q(runs):
    """Critics that are all exact: the value of state s is s, that of the end 0."""
    return torch.tensor([*range(S), 0]).double().expand(runs, steve_chain.CRITICS, -1).clone()


def dynamics(noise):
    """Matrix of the noisy model and expected rewards, by the description of the chain."""
    p, r = np.zeros((S + 1, S + 1)), np.full(S + 1, -1.0)
    for s in range(S):
        p[s, :S] += noise / S
        p[s, s + 1] += 1 - noise
    p[END, END], r[END], r[S - 1] = 1, 0, 100
    return p, r


def test_the_value_of_a_state_of_the_chain_is_its_number():
    p, r = dynamics(0.0)
    assert np.allclose(np.linalg.solve(np.eye(S) - p[:S, :S], r[:S]), np.arange(S))


@pytest.mark.parametrize("method", steve_chain.METHODS)
@pytest.mark.parametrize("model", ["right", "noisy"])
def test_exact_critics_stay_exact_only_without_noise(method, model):
    state = torch.arange(S)[: 5 * 8].view(5, 8)
    g = torch.Generator().manual_seed(0)
    got = steve_chain.target(method, model, exact_q(5), state, g)
    error = (got - state).abs().max()
    if method == "TD" or model == "right":
        assert error < 1e-6
    elif method == "MVE":
        assert error > 1


def test_the_expected_target_of_mve_with_noise_is_that_of_the_markov_chain():
    """-1 + Σ_k (P^k r)(s + 1) + (P^5 V)(s + 1)."""
    p, r = dynamics(steve_chain.NOISE)
    value, total = np.array([*range(S), 0.0]), np.zeros(S + 1)
    for _ in range(steve_chain.HORIZON):
        total = r + p @ total
    total += np.linalg.matrix_power(p, steve_chain.HORIZON) @ value
    g = torch.Generator().manual_seed(0)
    for state in (10, 50, 97):
        states = torch.full((1000, 8), state)
        got = steve_chain.target("MVE", "noisy", exact_q(1000), states, g).mean()
        assert float(got) == pytest.approx(-1 + total[state + 1], abs=0.5)


def test_the_wrong_model_skips_states_and_the_last_reward():
    state = torch.tensor([[97, 98, 10, 10, 10, 10, 10, 10]])
    got = steve_chain.target("MVE", "wrong", exact_q(1), state, torch.Generator())
    # 97: -1 to 98, -1 to 100, 100 to the end; 98: -1 to 99, -1 past the end
    # 10: -1 to 11, then five steps of two to 21
    assert got[0, :3].tolist() == [98, -2, 15]


def test_the_study_writes_a_page_a_picture_and_numbers(tmp_path):
    folder = STUDIES["steve-chain"](tmp_path, fast=True, seeds=2, workers=1, say=lambda _: None)
    errors = json.loads((folder / "results.json").read_text())["numbers"]["errors"]
    assert len(errors) == 9 and len(errors["TD, noisy"]["curves"]["target"]) == 2
    last = {name: each["last target"]["estimate"] for name, each in errors.items()}
    assert last["MVE, right"] < last["TD, right"]
    assert last["MVE, wrong"] > last["STEVE, wrong"]
    assert "| noisy | STEVE |" in (folder / "table.md").read_text()
    assert Image.open(folder / "steve_chain.png").size[0] > 1000
