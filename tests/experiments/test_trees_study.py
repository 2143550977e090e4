"""The study of tree search: its model against exact values, its measures and its files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from envs.worlds import frozen_lake, garnet
from experiments.studies import STUDIES, trees
from planners.mcts.export import from_json


def worlds(problem, seeds=2):
    return trees.laboratory(problem, trees.ROUGH, seeds, 1)[0].mdps


def uniform_values(world):
    return world.evaluate(np.full(world.rewards.shape, 1 / world.actions))


@pytest.mark.parametrize("problem", trees.PROBLEMS)
def test_values_are_those_of_the_worlds_scaled_to_a_range_of_one(problem):
    model, start = trees.laboratory(problem, trees.ROUGH, 2, 5)
    assert len(start) == 10
    for w, world in enumerate(model.mdps):
        own = slice(w * world.states, (w + 1) * world.states)
        optimum = world.optimum()
        unit = optimum.values.max() - uniform_values(world).min()
        assert model.values[own] * unit == pytest.approx(optimum.values)
        assert model.action_values[own] * unit == pytest.approx(optimum.action_values)
        roots = start[5 * w : 5 * w + 5] - w * world.states
        assert (roots >= 0).all() and (roots < world.states).all()
        assert not world.terminal[roots].any()


def test_roots_are_states_that_can_be_reached():
    (world,) = worlds("cliff walk", 1)
    assert world.enterable.sum() == 48 - 10 - 1  # all but the cliff and the goal


@pytest.mark.parametrize("world", [frozen_lake(), garnet(6, 3, 2, rng=np.random.default_rng(3))])
def test_steps_are_possible_in_the_world(world):
    other = garnet(world.states, world.actions, 4, rng=np.random.default_rng(4))
    model = trees.modelled([other, world], trees.ROUGH, np.random.default_rng(0))
    unit = world.optimum().values.max() - uniform_values(world).min()
    transitions = world.transitions.toarray()
    for row in np.flatnonzero(transitions.sum(1)):
        state, action = divmod(int(row), world.actions)
        found = model.step(torch.tensor([[float(world.states + state)]]), torch.tensor([action]))
        chance, after = found.chance[0].numpy(), found.state[0, :, 0].long().numpy()
        there = chance > 0
        share = np.zeros(world.states)
        np.add.at(share, after[there] - world.states, chance[there])
        assert share == pytest.approx(transitions[row])
        mean = (chance * found.reward[0].numpy()).sum() * unit
        assert mean == pytest.approx(world.rewards[state, action])
        ends = world.terminal[after[there] - world.states]
        assert (found.terminated[0].numpy()[there] == ends).all()
        assert found.value[0].numpy()[there] == pytest.approx(model.guess[after[there]])


def test_rollouts_estimate_the_value_of_the_random_policy():
    model, _ = trees.laboratory("garnets", trees.ROLLOUTS, 2, 1)
    world, draws = model.mdps[1], 4000
    want = uniform_values(world) / (world.optimum().values.max() - uniform_values(world).min())
    for state in range(0, world.states, 5):
        returns = model.value(np.full(draws, world.states + state)).numpy()
        assert abs(returns.mean() - want[state]) < 5 * returns.std() / np.sqrt(draws)


def test_the_loss_of_each_action_equals_hand_computed_values():
    # On the chain with γ = 0.8 forward is best everywhere.
    unit = np.ptp([10 / 0.2, uniform_values(worlds("chain", 1)[0]).min()])
    _, start = trees.laboratory("chain", trees.ROUGH, 3, 4)
    on = [10 / 0.2 * 0.8 ** (4 - state % 5) for state in start]
    back = 2 + 0.8 * 10 / 0.2 * 0.8**4
    found = trees.at_stake("chain", 3, 4)
    assert found["by chance"] == 0.5
    assert found["gap"] == pytest.approx(np.median(np.array(on) - back) / unit)


def test_uct_converges_to_the_optimum_of_the_chain():
    found = trees.measured("chain", trees.ROLLOUTS, "UCT", 4, 2, [64, 4096])
    early, late = (
        dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True)
    )
    for name in (trees.CHOSEN, trees.MEAN):
        assert np.mean(late[name]) < np.mean(early[name]) / 4
    assert np.mean(late[trees.OPTIMAL]) == 1.0 > np.mean(early[trees.OPTIMAL])


def test_sequential_halving_keeps_exploring_at_the_root():
    found = trees.measured("chain", trees.ROUGH, "Gumbel", 4, 2, [1024])
    # Half of the visits go to the worse of two actions, so the mean is half-way between.
    assert np.mean(found[trees.CHOSEN]) < 0.01
    model, start = trees.laboratory("chain", trees.ROUGH, 4, 2)
    gap = np.ptp(model.action_values[start], axis=1).reshape(4, 2).mean(1)
    assert found[trees.MEAN][0] == pytest.approx(gap / 2, abs=0.03)


def test_the_fast_study_writes_pictures_and_numbers(tmp_path, inline):
    folder = STUDIES["trees"](tmp_path, fast=True, say=lambda _: None)
    assert folder == tmp_path / "trees"
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    found = numbers["found"]
    assert len(found) == len(trees.PROBLEMS) * len(trees.LEAVES) * len(trees.RULES)
    for kinds in found.values():
        for name in trees.MEASURES:
            assert np.shape(kinds[name]) == (len(numbers["settings"]["simulations"]), 2)
    page = (folder / "table.md").read_text()
    assert all(page.count(f"| {rule} |") == 20 for rule in trees.RULES)
    for name in ("error", "choice", "tree"):
        assert f"({name}.png)" in page
        assert Image.open(folder / f"{name}.png").size[0] > 1000
    assert len(from_json((folder / "tree.json").read_text())) == 32
    assert (folder / "tree.dot").read_text().count("->") == 31
