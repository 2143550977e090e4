"""`mbrl tree`: search a tree from a state of a named environment, through a model of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from experiments.cli import names, own
from experiments.cli.names import Wrong
from experiments.cli.options import (
    Common,
    check_folder,
    check_least,
    check_new,
    emit,
    parse,
    peek,
    say,
    set_threads,
    show,
    unset,
)
from mbrl.dynamics.own import OwnModel
from mbrl.parts import named as part
from mbrl.settings import SearchConfig

if TYPE_CHECKING:
    from mbrl.tree import Found, Game

_RULES = {"uct": "UCT", "puct": "PUCT", "gumbel": "Gumbel"}
_BACKUPS = {"mean": "mean over simulations", "max": "best action's value"}


@dataclass(frozen=True)
class SearchTree(Common):
    """Search a tree through a model of a world, draw it, and compare its root with the truth.

    tree.png and tree.dot have the most visited nodes, tree.json all of them, search.json the
    table that is printed. Where the world is a finite MDP, nodes of one state share their subtree,
    and the table has the exact Q* too.
    """

    search: SearchConfig = field(default_factory=SearchConfig)
    model: str = "true"
    """The model to search through. true: the world's own, or the task's simulator. Or module:Class:
    a model of your own that needs no fitting."""
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a model of your own, by name."""
    nodes: int = 40
    """Number of nodes drawn, the most visited; more than about 60 are hard to read."""
    actions: Annotated[tuple[str, ...], unset("the world's own")] = ()
    """Names of the actions."""
    out: Annotated[Path | None, unset("a new one under --root")] = None
    """The folder, which must not exist yet."""


def run(args: list[str]) -> int:
    """Search, print the root and write the tree; returns the exit status."""
    env, model = (
        peek(args, name, start) for name, start in (("--env", "frozen-lake"), ("--model", "true"))
    )
    if model == "true":
        names.check_searchable(env)
    elif own.is_own("model", model):
        names.check_env(env)
    else:
        raise Wrong(f"--model {model!r}: there is true, and a model of your own as module:Class")
    parsed = parse(SearchTree, "mbrl tree", args, own=_own_options(model), meanings=_effects(env))
    check_least(parsed, nodes=1, threads=1)
    config = parsed.search
    if parsed.out is not None:
        check_new(parsed.out)
    else:
        check_folder(parsed.root)
    set_threads(parsed)
    from mbrl.training.checkpoint import make_folder
    from mbrl.training.folders import new_folder
    from mbrl.tree import save_search

    path = parsed.out or new_folder(parsed.root, config.env, f"tree-{config.rule}", config.seed)
    game, found = searched(
        config, model=parsed.model, settings=parsed.model_settings, actions=parsed.actions
    )
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


def _own_options(model: str) -> dict[str, type]:
    if model == "true":
        return {}
    return {"model_settings": own.settings_options(model, part("model", model, {}), 2)}


def _effects(env: str) -> dict[str, str]:
    """What takes effect in an environment where a setting is not given."""
    rows = {row["name"]: row for rows in names.catalogue().values() for row in rows}
    if env not in rows:
        return {}
    discount = rows[env].get("discount")
    return {"discount": str(0.99 if discount is None else discount)}


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


def searched(
    config: SearchConfig,
    *,
    model: str = "true",
    settings: Mapping[str, Any] = MappingProxyType({}),
    actions: tuple[str, ...] = (),
) -> tuple[Game, Found]:
    """The environment with a model of it, and what `search_game` finds there.

    Args:
        config: the environment and the search.
        model: "true", or the name of a model of a user's own.
        settings: of a model of a user's own.
        actions: names of the actions; the world's own if there are none.

    Raises:
        ValueError: as `build_game` and `search_game` do; a discount that the world does not take.
    """
    import gymnasium

    import envs
    from envs.catalogue import ACTION_NAMES, CLASSICS
    from mbrl.tree import build_game, search_game

    known: dict[str, Any] = {"names": ACTION_NAMES.get(config.env)}
    if model != "true":
        known["own"] = OwnModel(model, settings)
    if config.env in envs.WORLDS:
        asked = {} if config.discount is None else {"discount": config.discount}
        known["world"] = envs.WORLDS[config.env](**asked)
        env = known["world"].env()
    elif config.env in CLASSICS:
        env = gymnasium.make(config.env)
    elif (build := envs.entry(config.env).world) is not None:
        world = build() if config.discount is None else build().discounted(config.discount)
        known |= {"world": world, "names": tuple(f"action {a}" for a in range(world.actions))}
        env = world.env()
    else:
        env = envs.make(config.env)
        known["task"] = envs.simulated(config.env) if model == "true" else None
    try:
        game = build_game(env, config, **known)
        return game, search_game(game, config, actions=actions)
    finally:
        env.close()


def _draw(config: SearchConfig, game: Game, found: Found, folder: Path, *, nodes: int) -> None:
    """Write tree.png, the most visited nodes."""
    from experiments.plots import save
    from experiments.plots.tree import draw

    through = "" if game.own is None else f" through {game.own.name}"
    title = f"{_RULES[config.rule]} on {config.env}{through}, {config.simulations} simulations"
    looks: dict[str, Any] = {"actions": found.names, "chosen": int(found.tree.action[0])}
    if game.place is not None:
        where, label = game.place
        looks |= {"label": lambda node: f"{node.visits}\n{label(node)}"}
        looks |= {"inside": f"visits and {where}"}
    save(draw(found.nodes[:nodes], title=title, **looks), folder / "tree.png")
