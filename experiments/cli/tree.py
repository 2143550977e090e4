"""`mbrl tree`: search a tree from a state of a named environment, through its true model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.table import Table

import envs
from experiments.cli.options import (
    Common,
    check_least,
    check_new,
    emit,
    out,
    parse,
    say,
    set_threads,
)
from experiments.cli.worlds import CLASSICS, NAMES, searchable
from experiments.plots import save
from experiments.plots.tree import draw
from mbrl.agents.tree_search import uniform_actions
from mbrl.dynamics import Classic, FiniteModel, Simulator
from mbrl.dynamics.simulator import physics_state
from mbrl.training.checkpoint import make_folder, write_json, written_whole
from mbrl.training.runs import new_folder
from mbrl.tree import Found, Game, SearchConfig, search_game
from planners.mcts.export import Node, to_dot, to_json

_RULES = {"uct": "UCT", "puct": "PUCT", "gumbel": "Gumbel"}
_BACKUPS = {"mean": "mean over simulations", "max": "best action's value"}


@dataclass(frozen=True)
class SearchTree(Common):
    """Search a tree through a world's true model, draw it, and compare its root with the truth.

    tree.png and tree.dot have the most visited nodes, tree.json all of them, search.json the
    table that is printed. Where the world is a finite MDP, nodes of one state share their subtree,
    and the table has the exact Q* too.
    """

    search: SearchConfig = field(default_factory=SearchConfig)
    nodes: int = 40
    """Number of nodes drawn, the most visited; more than about 60 are hard to read."""
    actions: tuple[str, ...] = ()
    """Names of the actions; the world's own if unset."""
    out: Path | None = None
    """The folder, which must not exist yet."""


def run(args: list[str]) -> int:
    """Search, print the root and write the tree; returns the exit status."""
    parsed = parse(SearchTree, "mbrl tree", args)
    set_threads(parsed)
    check_least(parsed, nodes=1)
    config = parsed.search
    path = parsed.out or new_folder(parsed.root, config.env, f"tree-{config.rule}", config.seed)
    if parsed.out is not None:
        check_new(path)
    game, found = searched(config, actions=parsed.actions)
    path = make_folder(path, numbered=parsed.out is None)
    said = save_tree(config, game, found, path, nodes=parsed.nodes)
    out.print(_table(found))
    truth = "" if found.optimum is None else f"; V* is {found.optimum:.4f}"
    out.print(f"the root's {_BACKUPS[config.backup]} is {found.value:.4f}{truth}", highlight=False)
    if config.backup == "mean":
        say("Q is a mean too: it includes exploring simulations and random rollouts")
    say(f"folder {path}")
    emit(parsed, {"path": str(path), **said})
    return 0


def _table(found: Found) -> Table:
    exact = found.optimum is not None
    table = Table("action", "visits", "prior", "Q", *(["Q*"] if exact else []), "")
    for choice in found.choices:
        value = "untried" if choice.value is None else f"{choice.value:.4f}"
        truth, mark = [], ["chosen"] if choice.chosen else []
        if choice.optimum is not None and found.optimum is not None:
            truth = [f"{choice.optimum:.4f}"]
            mark += ["best"] if choice.optimum >= found.optimum - 1e-9 else []  # rounding
        name, prior = choice.action, f"{choice.prior:.3f}"
        table.add_row(name, str(choice.visits), prior, value, *truth, ", ".join(mark))
    return table


def searched(config: SearchConfig, *, actions: tuple[str, ...] = ()) -> tuple[Game, Found]:
    """The environment with its model, and what `search_game` finds there.

    Raises:
        ValueError: as `build_game` and `search_game` do.
    """
    game = build_game(config)
    try:
        return game, search_game(game, config, actions=actions)
    finally:
        game.env.close()


def build_game(config: SearchConfig) -> Game:
    """The environment and its true model.

    Raises:
        ValueError: a name that is not in `searchable()`, a discount that the world does not take.
    """
    name, discount = config.env, config.discount
    if name in envs.WORLDS:
        world = envs.WORLDS[name](**({} if discount is None else {"discount": discount}))
        best = world.optimum()
        return Game(
            world.env(),
            FiniteModel.of(world),
            world.actions,
            world.discount,
            NAMES[name],
            stochastic=bool((np.diff(world.transitions.indptr) > 1).any()),
            exact=(best.values, best.action_values),
        )
    if name not in searchable():
        near = difflib.get_close_matches(name, searchable(), 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"--env {name!r}: no true model to search through; {hint}"
            f"there is one of {', '.join(searchable())}; mbrl list envs says what they are"
        )
    discount = 0.99 if discount is None else discount
    if name in CLASSICS:
        env = gymnasium.make(name)
        inner: Any = env.unwrapped
        return Game(
            env,
            Classic(gymnasium.make(name)),
            len(NAMES[name]),
            discount,
            NAMES[name],
            lambda _: torch.from_numpy(np.array([inner.state], dtype=float)),
        )
    env = envs.make(name)
    box = envs.check_box(env)
    low, high = (torch.from_numpy(np.array(bound, dtype=float)) for bound in (box.low, box.high))
    sampler, model = uniform_actions(low, high, config.samples), envs.simulated(name)
    return Game(
        env,
        Simulator(model, threads=1),
        sampler,
        discount,
        state_of=lambda _: physics_state(env)[None],
    )


def save_tree(
    config: SearchConfig, game: Game, found: Found, folder: Path, *, nodes: int = 40
) -> dict[str, Any]:
    """Write tree.json, all nodes; tree.dot and tree.png, the most visited `nodes`; search.json.

    Returns what search.json holds: the config and what the search says of its root.
    """
    drawn, place = found.nodes[:nodes], _place(config.env)
    title = f"{_RULES[config.rule]} on {config.env}, {config.simulations} simulations"
    looks: dict[str, Any] = {"actions": found.names, "chosen": int(found.tree.action[0])}
    if place is not None:
        where, label = place
        looks |= {"label": lambda node: f"{node.visits}\n{label(node)}"}
        looks |= {"inside": f"visits and {where}"}
    save(draw(drawn, title=title, **looks), folder / "tree.png")
    said = {
        "config": asdict(config) | {"discount": game.discount},
        "state": found.nodes[0].state,
        "value": found.value,
        "optimum": found.optimum,
        "actions": [choice._asdict() for choice in found.choices],
    }
    dot = to_dot(drawn, actions=found.names, label=place and place[1])
    for name, text in (("tree.json", to_json(found.nodes)), ("tree.dot", dot)):
        with written_whole(folder / name) as file:
            file.write_text(text)
    write_json(folder / "search.json", said)
    return said


def _place(name: str) -> tuple[str, Callable[[Node], str]] | None:
    """What names a node's state in a finite world, and that name; None elsewhere."""
    if name not in envs.WORLDS:
        return None
    layout = envs.WORLDS[name]().layout
    if layout is None:
        return "state", lambda node: str(int(node.state[0]))
    return "row, column", lambda node: ", ".join(map(str, layout.cells[int(node.state[0])]))
