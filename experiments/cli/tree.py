"""`mbrl tree`: search a tree from a state of a named environment, through its true model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from experiments.cli import names
from experiments.cli.options import (
    Common,
    check_folder,
    check_least,
    check_new,
    emit,
    parse,
    say,
    set_threads,
    show,
    unset,
)
from mbrl.settings import SearchConfig

if TYPE_CHECKING:
    from mbrl.tree import Found, Game

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
    """Names of the actions; the world's own if there are none."""
    out: Annotated[Path | None, unset("a new one under --root")] = None
    """The folder, which must not exist yet."""


def run(args: list[str]) -> int:
    """Search, print the root and write the tree; returns the exit status."""
    parsed = parse(SearchTree, "mbrl tree", args)
    check_least(parsed, nodes=1, threads=1)
    config = parsed.search
    names.check_searchable(config.env)
    if parsed.out is not None:
        check_new(parsed.out)
    else:
        check_folder(parsed.root)
    set_threads(parsed)
    from mbrl.training.checkpoint import make_folder
    from mbrl.training.runs import new_folder
    from mbrl.tree import save_search

    path = parsed.out or new_folder(parsed.root, config.env, f"tree-{config.rule}", config.seed)
    game, found = searched(config, actions=parsed.actions)
    path = make_folder(path, numbered=parsed.out is None)
    _draw(config, game, found, path, nodes=parsed.nodes)
    said = save_search(path, config, game, found, nodes=parsed.nodes)
    truth = "" if found.optimum is None else f"; V* is {found.optimum:.4f}"
    value = f"the root's {_BACKUPS[config.backup]} is {found.value:.4f}{truth}"
    show(parsed, _table(found), value)
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
    """The environment with its true model, and what `search_game` finds there.

    Raises:
        ValueError: as `build_game` and `search_game` do; a discount that the world does not take.
    """
    import gymnasium

    import envs
    from envs.catalogue import ACTION_NAMES, CLASSICS
    from mbrl.tree import build_game, search_game

    known: dict[str, Any] = {"names": ACTION_NAMES.get(config.env)}
    if config.env in envs.WORLDS:
        own = {} if config.discount is None else {"discount": config.discount}
        known["world"] = envs.WORLDS[config.env](**own)
        env = known["world"].env()
    elif config.env in CLASSICS:
        env = gymnasium.make(config.env)
    elif (own := envs.entry(config.env).world) is not None:
        world = own() if config.discount is None else own().discounted(config.discount)
        known |= {"world": world, "names": tuple(f"action {a}" for a in range(world.actions))}
        env = world.env()
    else:
        env, known["task"] = envs.make(config.env), envs.simulated(config.env)
    try:
        game = build_game(env, config, **known)
        return game, search_game(game, config, actions=actions)
    finally:
        env.close()


def _draw(config: SearchConfig, game: Game, found: Found, folder: Path, *, nodes: int) -> None:
    """Write tree.png, the most visited nodes."""
    from experiments.plots import save
    from experiments.plots.tree import draw

    title = f"{_RULES[config.rule]} on {config.env}, {config.simulations} simulations"
    looks: dict[str, Any] = {"actions": found.names, "chosen": int(found.tree.action[0])}
    if game.place is not None:
        where, label = game.place
        looks |= {"label": lambda node: f"{node.visits}\n{label(node)}"}
        looks |= {"inside": f"visits and {where}"}
    save(draw(found.nodes[:nodes], title=title, **looks), folder / "tree.png")
