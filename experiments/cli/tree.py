"""`mbrl tree`: search a tree from a state of a named environment, through its true model."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

import envs
from envs.gymnasium_tasks import DESCRIBED
from experiments.cli.options import Common, Wrong, check_least, emit, out, parse, say, set_threads
from experiments.plots import save
from experiments.plots.tree import draw
from mbrl.agents.tree_search import (
    Sampler,
    TreeModel,
    TreeSearch,
    TreeSearchConfig,
    uniform_actions,
)
from mbrl.dynamics import Classic, FiniteModel, Simulator
from mbrl.dynamics.simulator import physics_state
from mbrl.rng import generator
from mbrl.training.checkpoint import written_whole
from mbrl.training.collect import Episodes, collect, vector
from mbrl.training.runs import new_folder
from mbrl.types import Dynamics
from planners.mcts import PUCT, UCT, Gumbel, Rule, Tree
from planners.mcts.export import Node, most_visited, sample_name, to_dot, to_json

_FOUR = ("up", "right", "down", "left")
NAMES: Mapping[str, tuple[str, ...]] = {
    "chain": ("on", "back"),
    "cliff-walk": _FOUR,
    "frozen-lake": ("left", "down", "right", "up"),
    "four-rooms": _FOUR,
    "dyna-maze": _FOUR,
    "blocking-maze": _FOUR,
    "shortcut-maze": _FOUR,
    "deep-sea": ("left", "right"),
    "windy-grid": _FOUR,
    "open-grid": _FOUR,
    "wet-chicken-grid": ("drift", "hold", "back", "right", "left"),
    "CartPole-v1": ("left", "right"),
    "MountainCar-v0": ("left", "coast", "right"),
    "Acrobot-v1": ("torque -1", "none", "torque +1"),
}
"""Of the actions of environments whose actions are indices."""

_RULES = {"uct": "UCT", "puct": "PUCT", "gumbel": "Gumbel"}

CLASSICS: Mapping[str, str] = {
    "CartPole-v1": "Keep a pole upright by pushing its cart.",
    "MountainCar-v0": "Rock a weak car up a hill, each step -1.",
    "Acrobot-v1": "Swing two rods up by a motor between them, each step -1.",
}
"""Of gymnasium's, those with index actions that are their own model, and what they are."""

_WRITTEN = 2
"""Numbers of a continuous action that an edge has room for."""

_PROBES = 100
"""Random games whose returns say how large UCT's values are."""


@dataclass(frozen=True)
class SearchConfig:
    """All that a tree depends on."""

    env: str = "frozen-lake"
    """One of `mbrl list envs`: a world (frozen-lake, cliff-walk, ..., CartPole-v1, ...), or a task
    with a simulator."""
    rule: Literal["uct", "puct", "gumbel"] = "uct"
    """How actions are selected, without noise at the root and with uniform priors. UCT's C is 1/√2
    times the range of the returns of 100 random games from the first state."""
    simulations: int = 200
    """Number of simulations; each adds a node, or all outcomes of an action if they are random."""
    discount: float | None = None
    """γ, in (0, 1]; the world's own if unset, 0.99 where it has none."""
    backup: Literal["mean", "max"] = "mean"
    """Value of a node: the mean over all simulations through it, or the value of its best action.
    "max" converges to Q* in a finite world, but overestimates where it has made few rollouts."""
    seed: int = 0
    """Seed of the first state, of the real steps and of all draws."""
    steps: int = 0
    """Real steps played first, with a search for each; the tree is that of the last state."""
    rollouts: int = 8
    """Random rollouts whose mean return values a leaf."""
    depth: int = 50
    """Most steps of a rollout."""
    samples: int = 8
    """Actions drawn uniformly in each node, where actions are continuous."""

    def __post_init__(self) -> None:
        for name, least in (("simulations", 1), ("rollouts", 1), ("depth", 1),
                            ("samples", 1), ("steps", 0), ("seed", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be >= {least}, got {getattr(self, name)}")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ValueError(f"--discount must be in (0, 1], got {self.discount}")


@dataclass(frozen=True)
class SearchTree(Common):
    """Search a tree through a world's true model, draw it, and print what it found at the root.

    tree.png and tree.dot have the most visited nodes, tree.json all of them, search.json the
    table that is printed. Where the world is a finite MDP, nodes of one state share what follows,
    and the table shows the exact Q* too.
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
    if path.exists():
        raise Wrong(f"{path} exists already")
    found = searched(config, actions=parsed.actions)
    said = save_tree(config, found, path, nodes=parsed.nodes)
    exact = found.optimum is not None
    table = Table("action", "visits", "prior", "Q", *(["Q*"] if exact else []), "")
    for choice in found.choices:
        value = "untried" if choice.value is None else f"{choice.value:.4f}"
        truth = [f"{choice.optimum:.4f}"] if choice.optimum is not None else []
        mark = ["chosen"] if choice.chosen else []
        if choice.optimum is not None and found.optimum is not None:
            # ties but for rounding
            mark += ["best"] if choice.optimum >= found.optimum - 1e-9 else []
        table.add_row(
            choice.action, str(choice.visits), f"{choice.prior:.3f}", value, *truth, ", ".join(mark)
        )
    out.print(table)
    truth = f"; V* is {found.optimum:.4f}" if exact else ""
    out.print(f"the root's {_BACKUPS[config.backup]} is {found.value:.4f}{truth}", highlight=False)
    if config.backup == "mean":
        say("Q is a mean too: it includes exploring simulations and random rollouts")
    say(f"folder {path}")
    emit(parsed, {"path": str(path), **said})
    return 0


_BACKUPS = {"mean": "mean over simulations", "max": "best action's value"}


class Game(NamedTuple):
    """An environment and its true model."""

    env: gymnasium.Env
    model: Dynamics
    actions: int | Sampler
    names: tuple[str, ...] | None  # None where actions are continuous
    state_of: Callable[[Any], Tensor] | None  # as for `TreeSearch`
    discount: float
    drawn: bool  # the model draws what follows an action
    world: envs.FiniteMDP | None  # where there is an exact answer


class Choice(NamedTuple):
    """An action of the root, as the search sees it and as it is."""

    action: str
    visits: int
    prior: float
    value: float | None  # Q, None if untried
    optimum: float | None  # Q*, None where it is not known
    chosen: bool


class Found(NamedTuple):
    """A tree and what it says of its root."""

    tree: Tree
    nodes: list[Node]  # all, most visited first; states are the model's own
    choices: list[Choice]
    value: float  # of the root: the mean over simulations, or the best action's
    optimum: float | None  # V* of the root's state
    discount: float
    names: tuple[str, ...] | None  # #0, ... for a node's draws where they are too long to write
    world: envs.FiniteMDP | None


class World(NamedTuple):
    """What a listing says of an environment whose actions are indices."""

    name: str
    states: int | None  # None where they are continuous
    actions: tuple[str, ...]
    summary: str


def worlds() -> list[World]:
    """The finite worlds, which are built for it, then the classics."""
    found = []
    for name, build in envs.WORLDS.items():
        summary = (build.__doc__ or "").split("\n")[0]
        found.append(World(name, build().states, NAMES[name], summary))
    return found + [World(name, None, NAMES[name], what) for name, what in CLASSICS.items()]


def simulators() -> tuple[str, ...]:
    """Names of tasks whose simulator can be searched and planned through."""
    return (*envs.TASKS, *DESCRIBED)


def searchable() -> tuple[str, ...]:
    """Names of environments with a true model to search."""
    return (*envs.WORLDS, *CLASSICS, *simulators())


def build_game(config: SearchConfig) -> Game:
    """The environment and its model.

    Raises:
        ValueError: a name that is not in `searchable()`, a discount that the world does not take.
    """
    name, discount = config.env, config.discount
    if name in envs.WORLDS:
        world = envs.WORLDS[name](**({} if discount is None else {"discount": discount}))
        drawn = bool((np.diff(world.transitions.indptr) > 1).any())
        return Game(
            world.env(), FiniteModel.of(world), world.actions, NAMES[name], None, world.discount,
            drawn, world,
        )  # fmt: skip
    discount = 0.99 if discount is None else discount
    if name in CLASSICS:
        env = gymnasium.make(name)
        inner: Any = env.unwrapped
        return Game(
            env, Classic(gymnasium.make(name)), len(NAMES[name]), NAMES[name],
            lambda _: torch.from_numpy(np.array([inner.state], dtype=float)), discount, False, None,
        )  # fmt: skip
    if name not in searchable():
        near = difflib.get_close_matches(name, searchable(), 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"--env {name!r}: no true model to search through; {hint}"
            f"there is one of {', '.join(searchable())}; mbrl list envs says what they are"
        )
    env = envs.make(name)
    box, inner = envs.check_box(env), env.unwrapped
    low, high = (torch.from_numpy(np.array(bound, dtype=float)) for bound in (box.low, box.high))
    return Game(
        env, Simulator(envs.simulated(name), threads=1),
        uniform_actions(low, high, config.samples), None,
        lambda _: physics_state(env)[None], discount, False, None,
    )  # fmt: skip


def searched(config: SearchConfig, *, actions: tuple[str, ...] = ()) -> Found:
    """Play `steps` real steps, each by a search, and search once more.

    Args:
        config: what to search.
        actions: names to call the actions by; the world's own if there are none.

    Raises:
        ValueError: as `build_game`; names that are not one for each action; an episode that ends
            before its `steps`.
    """
    game = build_game(config)
    try:
        if actions and game.names is None:
            raise ValueError(f"--actions: those of {config.env} are continuous and have no names")
        names = actions or game.names
        if names is not None and game.names is not None and len(names) != len(game.names):
            raise ValueError(
                f"--actions needs one for each of {', '.join(game.names)}, got {', '.join(names)}"
            )
        player, obs = _played(config, game)
    finally:
        game.env.close()
    tree = player.tree
    assert tree is not None
    if tree.actions is not None and tree.actions.shape[-1] > _WRITTEN:
        names = tuple(f"#{k}" for k in range(config.samples))
    # A node of `TreeModel` ends in two numbers of its own.
    nodes = [
        node._replace(state=node.state[:-2])
        for node in most_visited(tree, nodes=tree.visits.shape[1])
    ]
    best = game.world.optimum() if game.world is not None else None
    return Found(
        tree, nodes, _choices(tree, names, None if best is None else best.action_values[int(obs)]),
        float(tree.value[0]), None if best is None else float(best.values[int(obs)]),
        game.discount, names, game.world,
    )  # fmt: skip


def _played(config: SearchConfig, game: Game) -> tuple[TreeSearch, Any]:
    """A player that has just searched, and from what observation."""
    env, running = vector(game.env), Episodes(config.seed)
    running.begin(env)
    assert running.obs is not None
    settings: dict[str, Any] = {
        "simulations": config.simulations,
        "discount": game.discount,
        "rollouts": config.rollouts,
        "depth": config.depth,
        "outcomes": "all" if game.drawn else None,
        "merge": game.world is not None,
        "backup": config.backup,
    }
    alone: dict[str, Any] = settings | {"rollouts": 1}
    probing = TreeModel(
        game.model, game.actions, TreeSearchConfig(**alone), generator=generator(config.seed, 1)
    )
    player = TreeSearch(
        game.model, game.actions, TreeSearchConfig(**settings), state_of=game.state_of,
        generator=generator(config.seed, 2),
    )  # fmt: skip
    settings["rule"] = _rule(config.rule, _spread(probing, player.state_of(running.obs)[0]))
    player = TreeSearch(
        game.model, game.actions, TreeSearchConfig(**settings), state_of=game.state_of,
        generator=generator(config.seed, 2),
    )  # fmt: skip
    for _ in collect(player, env, running, steps=config.steps, explore=False, begin=player.reset):
        if running.over[0]:
            raise ValueError(
                f"--steps {config.steps}: the episode is over after {running.steps}, "
                "with nothing more to search; ask for fewer or take another --seed"
            )
    assert running.obs is not None
    player.act(running.obs)
    return player, running.obs[0]


def _spread(model: TreeModel, state: Float[Tensor, S]) -> float:
    """The range of the returns of random games from a state; 1 where all are alike."""
    with torch.no_grad():
        returns = model.root(state.expand(_PROBES, -1)).value
    return float(returns.max() - returns.min()) or 1.0


def _rule(name: str, spread: float) -> Rule:
    """The rule, UCT's C in the unit of the returns, as its theory wants them in [0, 1]."""
    if name == "uct":
        return UCT(c=spread / math.sqrt(2))
    return PUCT() if name == "puct" else Gumbel()


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
    ]  # fmt: skip


def save_tree(
    config: SearchConfig, found: Found, folder: Path, *, nodes: int = 40
) -> dict[str, Any]:
    """Write tree.json, all nodes; tree.dot and tree.png, the most visited `nodes`; search.json.

    Returns what search.json holds: the config and what the search says of its root.

    Raises ValueError, before anything is written, for less than one node or an existing folder.
    """
    if nodes < 1:
        raise ValueError(f"--nodes must be >= 1, got {nodes}")
    if folder.exists():
        raise ValueError(f"{folder} exists already")
    drawn, place = found.nodes[:nodes], _place(found.world)
    title = f"{_RULES[config.rule]} on {config.env}, {config.simulations} simulations"
    looks: dict[str, Any] = {"actions": found.names, "chosen": int(found.tree.action[0])}
    if place is not None:
        looks["label"] = lambda node: f"{node.visits}\n{place(node)}"
        grid = found.world is not None and found.world.layout is not None
        looks["inside"] = f"visits and {'row, column' if grid else 'state'}"
    save(draw(drawn, title=title, **looks), folder / "tree.png")
    said = {
        "config": asdict(config) | {"discount": found.discount},
        "state": found.nodes[0].state,
        "value": found.value,
        "optimum": found.optimum,
        "actions": [choice._asdict() for choice in found.choices],
    }
    texts = {
        "tree.json": to_json(found.nodes),
        "tree.dot": to_dot(drawn, actions=found.names, label=place),
        "search.json": json.dumps(said, indent=2) + "\n",
    }
    for name, text in texts.items():
        with written_whole(folder / name) as file:
            file.write_text(text)
    return said


def _place(world: envs.FiniteMDP | None) -> Callable[[Node], str] | None:
    """Says where on the grid a node is, or else which state; None where there is no state."""
    if world is None:
        return None
    layout = world.layout

    def say(node: Node) -> str:
        state = int(node.state[0])
        return str(state) if layout is None else ", ".join(map(str, layout.cells[state]))

    return say
