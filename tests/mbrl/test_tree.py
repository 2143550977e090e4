"""Searches of an environment through its true model, and their results."""

import json

import gymnasium
import pytest

import envs
from mbrl.settings import SearchConfig
from mbrl.tree import build_game, save_search, search_game
from planners.mcts.export import from_json

FEW = {"simulations": 30, "rollouts": 1, "depth": 10}


def test_a_finite_world_has_exact_values_and_names_its_states(tmp_path):
    world = envs.WORLDS["frozen-lake"](discount=0.9)
    config = SearchConfig("frozen-lake", **FEW)
    game = build_game(world.env(), config, names=("a", "b", "c", "d"), world=world)
    assert game.discount == 0.9 and game.stochastic
    best = world.optimum()
    assert game.exact is not None and (game.exact[1] == best.action_values).all()
    found = search_game(game, config)
    assert game.place is not None and game.place[0] == "row, column"
    assert game.place[1](found.nodes[0]) == "0, 0"
    said = save_search(tmp_path, config, game, found, nodes=5)
    assert said == json.loads((tmp_path / "search.json").read_text())
    assert said["config"]["discount"] == 0.9
    assert [choice["action"] for choice in said["actions"]] == ["a", "b", "c", "d"]
    assert said["optimum"] == pytest.approx(best.values[0])
    assert len(from_json((tmp_path / "tree.json").read_text())) == len(found.nodes)
    dot = (tmp_path / "tree.dot").read_text()
    assert dot.count("visits") == 5 and "0, 0" in dot


def test_a_world_without_a_map_names_states_by_number():
    import numpy as np

    world = envs.worlds.garnet(6, 2, 2, rng=np.random.default_rng(0), ends=1)
    config = SearchConfig("garnet", **FEW)
    game = build_game(world.env(), config, names=("0", "1"), world=world)
    root = search_game(game, config).nodes[0]
    assert game.place is not None
    assert game.place[0] == "state" and game.place[1](root) == str(int(root.state[0]))


@pytest.mark.parametrize("task", ["cartpole-swingup", None])
def test_without_a_world_the_discount_is_that_of_the_config(task):
    name, known = "CartPole-v1", {"names": ("left", "right")}
    env = gymnasium.make(name)
    if task is not None:
        name, env, known = task, envs.make(task), {"task": envs.simulated(task)}
    assert build_game(env, SearchConfig(name, **FEW), **known).discount == 0.99
    game = build_game(env, SearchConfig(name, discount=0.5, samples=3, **FEW), **known)
    assert game.discount == 0.5 and game.place is None and game.exact is None
    found = search_game(game, SearchConfig(name, discount=0.5, samples=3, **FEW))
    assert len(found.choices) == (2 if task is None else 3)
    env.close()
