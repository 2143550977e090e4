"""Search a tree in an environment through a model of it, and report on its root."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.agents.tree_search import Sampler, TreeModel, TreeSearch, TreeSearchConfig
from mbrl.rng import generator
from mbrl.training.collect import Episodes, collect, vector
from mbrl.types import Dynamics
from planners.mcts import PUCT, UCT, Gumbel, Tree
from planners.mcts.export import Node, most_visited, sample_name

_WRITTEN = 2
"""Most numbers of a continuous action that are written on an edge."""

_LEAST = {"simulations": 1, "rollouts": 1, "depth": 1, "samples": 1, "steps": 0, "seed": 0}


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search."""

    env: str = "frozen-lake"
    """One of `mbrl list envs`: a world (frozen-lake, cliff-walk, ..., CartPole-v1, ...), or a task
    with a simulator."""
    rule: Literal["uct", "puct", "gumbel"] = "uct"
    """How actions are selected, without noise at the root and with uniform priors. UCT's C is 1/√2
    times the range of the returns of 100 random games from the first state."""
    simulations: int = 200
    """Number of simulations. Each adds one node, or a node for each outcome of a random action."""
    discount: float | None = None
    """γ, in (0, 1]. If unset, that of the environment, or 0.99 if it defines none."""
    backup: Literal["mean", "max"] = "mean"
    """Value of a node: the mean over all simulations through it, or the value of its best action.
    "max" converges to Q* in a finite world, but overestimates after few rollouts."""
    seed: int = 0
    """Seed of the first state, the real steps and the search."""
    steps: int = 0
    """Real steps to take first, each chosen by a search. The tree is that of the last state."""
    rollouts: int = 8
    """Random rollouts from each leaf; their mean return is its value."""
    depth: int = 50
    """Maximum number of steps of a rollout."""
    samples: int = 8
    """Number of actions drawn uniformly in each node if actions are continuous."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be >= {least}, got {getattr(self, name)}")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ValueError(f"--discount must be in (0, 1], got {self.discount}")


class Game(NamedTuple):
    """An environment and a model of it to search through."""

    env: gymnasium.Env
    model: Dynamics
    actions: int | Sampler
    discount: float
    names: tuple[str, ...] | None = None
    """Names of the actions; None if they are continuous."""
    state_of: Callable[[Any], Tensor] | None = None
    """Model states of observations, as for `TreeSearch`."""
    stochastic: bool = False
    """Whether the model is a `FiniteModel` whose actions have several outcomes."""
    exact: tuple[np.ndarray, np.ndarray] | None = None
    """V* (S,) and Q* (S, A) of a finite world."""


class Choice(NamedTuple):
    """An action of the root, with its estimated and its exact value."""

    action: str
    visits: int
    prior: float
    value: float | None
    """Estimated Q; None if the action was never tried."""
    optimum: float | None
    """Q*; None if not known."""
    chosen: bool


class Found(NamedTuple):
    """A tree and its results at the root."""

    tree: Tree
    nodes: list[Node]
    """All nodes, most visited first; their states are model states."""
    choices: list[Choice]
    value: float
    """Value of the root."""
    optimum: float | None
    """V* of the root's state; None if not known."""
    names: tuple[str, ...] | None
    """Names of the actions; #0, #1, ... for drawn actions with too many numbers to write."""


def search_game(game: Game, config: SearchConfig, *, actions: Sequence[str] = ()) -> Found:
    """Take `config.steps` real steps, each chosen by a search, and search once more.

    Args:
        game: the environment, which is not closed, and its model.
        config: settings of the search.
        actions: names of the actions; those of the game if empty.

    Raises:
        ValueError: a number of names other than the number of actions; an episode that ends within
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
    # `TreeModel` appends two numbers to the state of a node.
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
    # UCT assumes returns in [0, 1]; scaling C by their range has the same effect as scaling them.
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
