"""Figures of search trees, and searches of environments by name."""

import re

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from PIL import Image

import envs
from envs import WORLDS
from envs.catalogue import ACTION_NAMES, CLASSICS
from experiments import plots
from experiments.cli.tree import searched
from experiments.plots.tree import draw
from mbrl.tree import SearchConfig
from planners.mcts.export import Node
from tests.own_parts import parts


def node(number, parent, action, visits, value, reward, *state, discount=0.9):
    return Node(number, parent, action, None, visits, value, reward, discount, list(state))


NODES = [
    node(0, -1, -1, 51, 0.9, 0.0, 3.0),
    node(1, 0, 0, 40, 1.0, 0.0, 4.0),
    node(2, 0, 1, 10, 0.0, 0.375, 4.0, discount=0.0),
    node(3, 1, 0, 25, 1.1, 0.0, 5.0),
    node(4, 1, 1, 14, 0.0, 0.5, 5.0, discount=0.0),
    node(5, 3, 0, 16, 1.2, 0.0, 6.0),
    node(6, 3, 1, 8, 0.0, 0.625, 6.0, discount=0.0),
    node(7, 5, 1, 9, 0.0, 0.75, 7.0, discount=0.0),
    node(8, 5, 0, 6, 0.3, 0.0, 7.0),
]


def test_the_picture_shows_every_node_and_edge(tmp_path):
    figure = draw(NODES, actions=("on", "end"))
    assert Image.open(plots.save(figure, tmp_path / "tree.png")).format == "PNG"
    ax = figure.axes[0]
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    placed = {tuple(x): (s, v) for c in dots for x, s, v in zip(*_drawn(c), strict=True)}
    assert len(placed) == 9  # no two in the same place
    by_size = sorted(size for size, _ in placed.values())
    assert len(set(by_size)) == len({node.visits for node in NODES})
    assert sorted(v for _, v in placed.values()) == pytest.approx(sorted(n.worth for n in NODES))
    assert placed[max(placed, key=lambda at: at[1])][0] == by_size[-1]  # the root is at the top
    depths = sorted(-y for _, y in placed)
    assert depths[0] == 0 and max(np.diff(depths)) == 1
    assert len(ax.lines) == 8
    words = [text.get_text() for text in ax.texts]
    assert words.count("on") + words.count("end") == 8
    assert str(NODES[0].visits) in words


def _drawn(dots: PathCollection):
    values = dots.get_array()
    assert values is not None
    return np.round(np.asarray(dots.get_offsets()), 6), dots.get_sizes(), values


def test_a_picture_of_no_nodes_or_without_parents_is_refused():
    with pytest.raises(ValueError, match="nodes: is empty"):
        draw([])
    with pytest.raises(ValueError, match="want the parent of every node"):
        draw(NODES[1:])
    with pytest.raises(ValueError, match="nodes: have NaN"):
        draw([NODES[0]._replace(value=np.nan)])


def test_a_tree_of_one_node_is_drawn(tmp_path):
    assert plots.save(draw(NODES[:1]), tmp_path / "one.png").exists()


def test_the_chosen_action_is_orange_and_labels_do_not_overlap():
    actions = [f"go {k}" for k in range(30)]
    tree = [node(0, -1, -1, 100, 0.0, 0.0, 0.0)]
    tree += [node(k + 1, 0, k, 3, k / 30, 0.0, 1.0) for k in range(30)]
    figure = draw(tree, actions=actions, chosen=4)
    ax = figure.axes[0]
    assert [line.get_color() for line in ax.lines].count(plots.COLOURS[1]) == 1
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().startswith("go")]
    assert len(boxes) == 30
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_every_world_has_a_name_for_each_action():
    assert set(ACTION_NAMES) == {*WORLDS, *CLASSICS}
    for name, build in WORLDS.items():
        assert len(ACTION_NAMES[name]) == build().actions, name


@pytest.mark.parametrize("rule", ["uct", "puct", "gumbel"])
def test_a_search_by_each_rule_reports_its_result_and_is_reproducible(rule):
    config = SearchConfig("dyna-maze", rule, simulations=40, steps=2, rollouts=2, depth=20)
    _, found = searched(config)
    assert [c.action for c in found.choices] == ["up", "right", "down", "left"]
    assert sum(c.visits for c in found.choices) == 40
    assert sum(c.chosen for c in found.choices) == 1
    assert found.optimum == pytest.approx(max(c.optimum for c in found.choices if c.optimum))
    _, again = searched(config)
    assert (again.choices, again.nodes) == (found.choices, found.nodes)


def test_continuous_actions_are_sampled_in_a_search_with_the_simulator():
    config = SearchConfig("cartpole-swingup", simulations=12, samples=3, rollouts=1, depth=2)
    _, found = searched(config)
    assert len(found.choices) == 3 and found.optimum is None
    assert all(-1 <= float(choice.action) <= 1 for choice in found.choices)
    assert found.nodes[0].visits == 13 and all(node.sample for node in found.nodes[1:])


def test_an_action_of_many_numbers_is_labelled_by_its_index():
    """An action of seven numbers is written in the table, because an edge has no room for it."""
    _, found = searched(SearchConfig("panda-reach", simulations=4, samples=2, rollouts=1, depth=1))
    assert found.names == ("#0", "#1")
    assert all(
        re.fullmatch(rf"#{k}: -?[\d.e-]+(, -?[\d.e-]+){{6}}", choice.action)
        for k, choice in enumerate(found.choices)
    )


def test_tree_search_keeps_a_pole_upright_for_some_steps():
    _, found = searched(SearchConfig("CartPole-v1", simulations=10, steps=25, rollouts=1, depth=12))
    assert abs(found.nodes[0].state[2]) < 0.2 and len(found.nodes[0].state) == 4


def rooms(model, **settings):
    """A search of a user's corridor through a model of their own."""
    config = SearchConfig("tests.own_parts.parts:corridor", simulations=120, backup="max")
    return searched(config, model=f"tests.own_parts.parts:{model}", settings=settings)


@pytest.fixture
def corridor():
    yield parts.corridor()
    envs.unregister("tests.own_parts.parts:corridor")


def test_a_right_model_of_ones_own_finds_the_exact_values(corridor):
    game, found = rooms("Rooms")
    assert found.optimum == pytest.approx(corridor.optimum().values[0])
    for choice in found.choices:
        assert choice.value == pytest.approx(choice.optimum)
    assert game.place is not None and game.place[0] == "state"
    assert {game.place[1](node) for node in found.nodes} == set("01234")
    _, twice = rooms("Rooms", pay=2.0)
    assert twice.value == pytest.approx(2 * found.value)


@pytest.mark.parametrize("name", ["Listed", "Slippery"])
def test_outcomes_of_ones_own_model_are_listed_or_drawn(name, corridor):
    moves = corridor.transitions.toarray().reshape(5, 2, 5)
    slips = moves / 2 + np.eye(5)[:, None] / 2
    truth = envs.FiniteMDP(slips, corridor.rewards / 2, 0.9, 0, [4], name="slips").optimum()
    game, found = rooms(name)
    assert (game.stochastic, game.drawn) == (name == "Listed", name == "Slippery")
    if game.stochastic:  # every outcome by its chance, so the values are exact
        assert found.value == pytest.approx(truth.values[0], abs=1e-3)
    assert found.optimum == pytest.approx(0.9**3) and 0 < found.value < 0.9**3


def test_members_of_ones_own_model_are_averaged(corridor):
    game, found = rooms("Doubting")
    assert game.model.members == 2 and found.optimum is not None
    assert found.value == pytest.approx(2 * found.optimum)
    assert found.nodes[0].state == [0, 0] and all(len(node.state) == 2 for node in found.nodes)


def test_ones_own_model_of_a_task_takes_the_tasks_reward():
    config = SearchConfig("cartpole-swingup", simulations=6, samples=3, rollouts=2, depth=2)
    game, found = searched(config, model="tests.own_parts.parts:Linear")
    assert game.reward is not None and len(found.nodes[0].state) == 5
    assert len(found.choices) == 3 and any(choice.value for choice in found.choices)
