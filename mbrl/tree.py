"""Search a tree in an environment through a model of it, and report on its root."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.agents.tree_search import (
    Sampler,
    TreeModel,
    TreeSearch,
    TreeSearchConfig,
    uniform_actions,
)
from mbrl.dynamics import Classic, FiniteModel, Simulator
from mbrl.dynamics.simulator import PhysicalTask, physics_state
from mbrl.rng import generator
from mbrl.settings import SearchConfig
from mbrl.training.checkpoint import write_json, written_whole
from mbrl.training.collect import Episodes, collect, vector
from mbrl.types import Dynamics
from planners.mcts import PUCT, UCT, Gumbel, Tree
from planners.mcts.export import Node, most_visited, sample_name, to_dot, to_json

_WRITTEN = 2
"""Numbers of a continuous action that an edge has room for."""


class Game(NamedTuple):
    """An environment and a model of it to search through."""

    env: gymnasium.Env
    model: Dynamics
    actions: int | Sampler
    discount: float
    names: tuple[str, ...] | None = None
    """Of the actions; None where they are continuous."""
    state_of: Callable[[Any], Tensor] | None = None
    """As for `TreeSearch`."""
    stochastic: bool = False
    """A `FiniteModel` whose actions have several outcomes."""
    exact: tuple[np.ndarray, np.ndarray] | None = None
    """V* (S,) and Q* (S, A) of a finite world."""
    place: tuple[str, Callable[[Node], str]] | None = None
    """What names a node's state in a finite world, such as "row, column", and that name."""


def build_game(
    env: gymnasium.Env,
    config: SearchConfig,
    *,
    names: tuple[str, ...] | None = None,
    world: Any = None,
    task: PhysicalTask | None = None,
) -> Game:
    """An environment with its true model.

    Args:
        env: closed by the caller.
        config: has the discount, 0.99 if it and the world have none, and how many actions are
            sampled where they are continuous.
        names: of the actions where these are indices.
        world: the finite world that the environment plays, such as an `envs.FiniteMDP`.
        task: the physics that the environment runs, such as an `envs.Task`. Without a world or a
            task the environment is one that is its own model; see `Classic`.

    Raises:
        ValueError: a world whose exact values do not exist at its discount.
    """
    if world is not None:
        best = world.optimum()
        return Game(
            env,
            FiniteModel.of(world),
            world.actions,
            world.discount,
            names,
            stochastic=bool((np.diff(world.transitions.indptr) > 1).any()),
            exact=(best.values, best.action_values),
            place=_place(world),
        )
    discount = 0.99 if config.discount is None else config.discount
    inner: Any = env.unwrapped
    if task is None:
        assert env.spec is not None and names is not None
        model: Dynamics = Classic(gymnasium.make(env.spec.id))

        def state(_: Any) -> Tensor:
            return torch.from_numpy(np.array([inner.state], dtype=float))

        return Game(env, model, len(names), discount, names, state)
    box: Any = env.action_space
    low, high = (torch.from_numpy(np.array(bound, dtype=float)) for bound in (box.low, box.high))
    return Game(
        env,
        Simulator(task, threads=1),
        uniform_actions(low, high, config.samples),
        discount,
        state_of=lambda _: physics_state(env)[None],
    )


def _place(world: Any) -> tuple[str, Callable[[Node], str]]:
    cells = None if world.layout is None else world.layout.cells
    if cells is None:
        return "state", lambda node: str(int(node.state[0]))
    return "row, column", lambda node: ", ".join(map(str, cells[int(node.state[0])]))


class Choice(NamedTuple):
    """An action of the root, with the search's value and the exact one."""

    action: str
    visits: int
    prior: float
    value: float | None
    """Q, None if untried."""
    optimum: float | None
    """Q*, None where it is not known."""
    chosen: bool


class Found(NamedTuple):
    """A tree and its results at the root."""

    tree: Tree
    nodes: list[Node]
    """All, most visited first; states are the model's own."""
    choices: list[Choice]
    value: float
    """Of the root, by the search's `backup`."""
    optimum: float | None
    """V* of the root's state, None where it is not known."""
    names: tuple[str, ...] | None
    """Of the actions; #0, ... for a node's draws that have too many numbers to write."""


def search_game(game: Game, config: SearchConfig, *, actions: Sequence[str] = ()) -> Found:
    """Play `config.steps` real steps, each by a search, and search once more.

    Args:
        game: the environment, not closed here, and the model.
        config: how to search.
        actions: names to call the actions by; the game's own if there are none.

    Raises:
        ValueError: names that are not one for each action; an episode that ends before its
            `steps`.
    """
    if actions and game.names is None:
        raise ValueError(f"--actions: those of {config.env} are continuous and have no names")
    names = tuple(actions) or game.names
    if names is not None and game.names is not None and len(names) != len(game.names):
        raise ValueError(
            f"--actions needs one for each of {', '.join(game.names)}, got {', '.join(names)}"
        )
    player, obs = _played(game, config)
    tree = player.tree
    assert tree is not None
    if tree.actions is not None and tree.actions.shape[-1] > _WRITTEN:
        names = tuple(f"#{k}" for k in range(config.samples))
    # A node of `TreeModel` ends in two numbers of its own.
    nodes = [
        node._replace(state=node.state[:-2])
        for node in most_visited(tree, nodes=tree.visits.shape[1])
    ]
    optimum, best = None, None
    if game.exact is not None:
        optimum, best = float(game.exact[0][int(obs)]), game.exact[1][int(obs)]
    return Found(tree, nodes, _choices(tree, names, best), float(tree.value[0]), optimum, names)


def _played(game: Game, config: SearchConfig) -> tuple[TreeSearch, Any]:
    """A player that has just searched, and the observation it searched from."""
    env, running = vector(game.env), Episodes(config.seed)
    running.begin(env)
    settings = TreeSearchConfig(
        simulations=config.simulations,
        discount=game.discount,
        rollouts=config.rollouts,
        depth=config.depth,
        outcomes="all" if game.stochastic else None,
        merge=game.exact is not None,
        backup=config.backup,
    )
    player = TreeSearch(
        game.model, game.actions, settings, state_of=game.state_of,
        generator=generator(config.seed, 2),
    )  # fmt: skip
    alone = replace(settings, rollouts=1)
    probe = TreeModel(game.model, game.actions, alone, generator=generator(config.seed, 1))
    assert running.obs is not None
    # UCT's theory wants returns in [0, 1]; C does instead what scaling them would do.
    c = return_range(probe, player.state_of(running.obs)[0]) / math.sqrt(2)
    rule = {"uct": UCT(c=c), "puct": PUCT(), "gumbel": Gumbel()}[config.rule]
    player.config = replace(settings, rule=rule)
    for _ in collect(player, env, running, steps=config.steps, explore=False, begin=player.reset):
        if running.over[0]:
            raise ValueError(
                f"--steps {config.steps}: the episode is over after {running.steps}, "
                "with nothing more to search; ask for fewer or take another --seed"
            )
    player.act(running.obs)
    return player, running.obs[0]


def return_range(model: TreeModel, state: Float[Tensor, S], *, games: int = 100) -> float:
    """The range of the returns of the model's rollouts from a state; 1 where all are equal."""
    with torch.no_grad():
        returns = model.root(state.expand(games, -1)).value
    return float(returns.max() - returns.min()) or 1.0


def _choices(tree: Tree, names: Sequence[str] | None, optimum: np.ndarray | None) -> list[Choice]:
    if tree.actions is None:
        assert names is not None
        called = list(names)
    else:
        called = [sample_name(sample) for sample in tree.actions[0, 0].tolist()]
        if names is not None:
            called = [f"{name}: {sample}" for name, sample in zip(names, called, strict=True)]
    visits, values = tree.children_visits()[0].tolist(), tree.children_values()[0].tolist()
    return [
        Choice(
            called[k],
            visits[k],
            float(tree.priors[0, 0, k]),
            values[k] if visits[k] else None,
            None if optimum is None else float(optimum[k]),
            k == int(tree.action[0]),
        )
        for k in range(len(visits))
    ]


def save_search(
    folder: Path, config: SearchConfig, game: Game, found: Found, *, nodes: int
) -> dict[str, Any]:
    """Write tree.json with all nodes, tree.dot with the most visited, and search.json.

    Returns what search.json holds: the config and what the search says of its root.
    """
    said = {
        "config": asdict(config) | {"discount": game.discount},
        "state": found.nodes[0].state,
        "value": found.value,
        "optimum": found.optimum,
        "actions": [choice._asdict() for choice in found.choices],
    }
    dot = to_dot(found.nodes[:nodes], actions=found.names, label=game.place and game.place[1])
    for name, text in (("tree.json", to_json(found.nodes)), ("tree.dot", dot)):
        with written_whole(folder / name) as file:
            file.write_text(text)
    write_json(folder / "search.json", said)
    return said
