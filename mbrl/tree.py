"""Tree search in an environment through a model of it, and its results at the root."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from jaxtyping import Float
from torch import Tensor

from mbrl.agents.tree_search import (
    Sampler,
    TreeModel,
    TreeSearch,
    TreeSearchConfig,
    uniform_actions,
)
from mbrl.dynamics import Classic, FiniteModel, OwnModel, Simulator
from mbrl.dynamics.simulator import PhysicalTask, physics_state
from mbrl.rng import generator
from mbrl.settings import SearchConfig
from mbrl.spaces import bounds, obs_size, spec_of
from mbrl.training.checkpoint import write_json, written_whole
from mbrl.training.collect import Episodes, collect, vector
from mbrl.types import Dynamics, Enumerable, RewardFn, TerminatedFn
from planners.mcts import PUCT, UCT, Gumbel, Tree, Widening
from planners.mcts.export import Node, most_visited, sample_name, to_dot, to_json

_WRITTEN = 2
"""Maximum size of a continuous action that is written on an edge; larger ones are numbered."""


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
    """Whether the model lists several outcomes of an action; all of them are searched."""
    exact: tuple[np.ndarray, np.ndarray] | None = None
    """V* (S,) and Q* (S, A) of a finite world."""
    place: tuple[str, Callable[[Node], str]] | None = None
    """What identifies a state of a finite world, such as "row, column", and its value in a node."""
    drawn: bool = False
    """Whether outcomes are drawn by the model's noise."""
    reward: RewardFn | None = None
    """Takes the place of the model's own, as for `TreeModel`."""
    terminated: TerminatedFn | None = None
    """Likewise."""
    own: OwnModel | None = None
    """The name and settings of a model of a user's own."""


def build_game(
    env: gymnasium.Env,
    config: SearchConfig,
    *,
    names: tuple[str, ...] | None = None,
    world: Any = None,
    task: PhysicalTask | None = None,
    own: OwnModel | None = None,
) -> Game:
    """An environment with its true model, or with a model of a user's own.

    Args:
        env: the environment; the caller closes it.
        config: `samples` is the number of continuous actions, and `discount` is used without a
            `world`; if it is unset, 0.99.
        names: names of discrete actions.
        world: the MDP of the environment, such as an `envs.FiniteMDP`.
        task: the physics of the environment, such as an `envs.Task`. Without a world or a task a
            second environment is the model; see `Classic`.
        own: a model to search through in place of the true one. It is called with the sizes of an
            observation and an action; an index has size 1. Reward and termination are the model's
            own where the environment does not have them as functions.

    Raises:
        ValueError: a world whose exact values do not exist at its discount; a model of a user's own
            that cannot be built or does not keep its contract, or an environment that it does not
            suit.
    """
    if own is not None:
        return _with_own(env, config, own, names, world)
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


def _with_own(
    env: gymnasium.Env,
    config: SearchConfig,
    own: OwnModel,
    names: tuple[str, ...] | None,
    world: Any,
) -> Game:
    spec = spec_of(env)
    count = max(_indices(spec.obs), _indices(spec.action), 4)
    obs, action = _rows(spec.obs, count, 0), _rows(spec.action, count, 1)
    drawing = generator(config.seed, 2)
    model = own.make(obs.shape[1], action.shape[1], generator=drawing, rows=(obs, action))
    state, listed = model.encode(obs), isinstance(model, Enumerable) and model.members == 1
    if listed:
        _check_outcomes(own.name, model, state, action)
    actions: int | Sampler
    if isinstance(spec.action, Discrete):
        actions = int(spec.action.n)
        names = names or tuple(f"action {k}" for k in range(actions))
    else:
        actions = uniform_actions(*bounds(spec.action), config.samples)
    best = None if world is None else world.optimum()
    known = spec.discount if world is None else world.discount
    said = config.discount if world is None else None
    return Game(
        env,
        model,
        actions,
        next((each for each in (said, known) if each is not None), 0.99),
        names if isinstance(actions, int) else None,
        stochastic=listed and model.most_outcomes > 1,
        exact=None if best is None else (best.values, best.action_values),
        # the map names states by their index, which a model may encode in another way
        place=_place(world) if world is not None and torch.equal(state, obs) else None,
        drawn=not listed and isinstance(spec.obs, Discrete) and model.noise_shape != (0,),
        reward=spec.reward,
        terminated=spec.terminated,
        own=own,
    )


def _indices(space: gymnasium.Space) -> int:
    """How many indices there are; 0 where a space has real numbers."""
    return int(space.n) if isinstance(space, Discrete) else 0


def _rows(space: gymnasium.Space, count: int, stream: int) -> Float[Tensor, "N X"]:
    """Observations or actions to check a model on: the indices in turn, or drawn numbers."""
    if isinstance(space, Discrete):
        if space.start != 0:
            raise ValueError(f"a tree needs indices that begin at 0, not {space}")
        return torch.arange(count).remainder(int(space.n))[:, None].float()
    size = len(bounds(space)[0]) if stream else obs_size(space)
    return torch.randn(count, size, generator=generator(0, stream))


def _check_outcomes(name: str, model: Any, state: Tensor, action: Tensor) -> None:
    """Check the shapes of the outcomes that a model of one member lists; see `Outcomes`."""
    then = model.outcomes(state[None], action.to(state)[None])
    rows, size = state.shape
    each = (1, rows, model.most_outcomes)
    shapes = {"state": (*each, size), "reward": each[:2], "terminated": each, "chance": each}
    for field, shape in shapes.items():
        found = getattr(then, field, None)
        if not isinstance(found, Tensor) or found.shape != shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"model {name!r}: outcomes: wanted {field} {shape}, got {got}")


def _place(world: Any) -> tuple[str, Callable[[Node], str]]:
    cells = None if world.layout is None else world.layout.cells
    if cells is None:
        return "state", lambda node: str(int(node.state[0]))
    return "row, column", lambda node: ", ".join(map(str, cells[int(node.state[0])]))


class Choice(NamedTuple):
    """An action at the root, with its estimated and its exact value."""

    action: str
    visits: int
    prior: float
    value: float | None
    """Estimated Q; None if no simulation tried the action."""
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
    """Names of the actions; #0, #1, ... for sampled actions that are too large to write."""


def search_game(game: Game, config: SearchConfig, *, actions: Sequence[str] = ()) -> Found:
    """Take `config.steps` real steps, each chosen by a search, and search once more.

    Args:
        game: the environment, which is not closed, and its model.
        config: settings of the search.
        actions: names of the actions; those of the game if empty.

    Raises:
        ValueError: names for continuous actions, or not one for each action; an episode that ends
            within `config.steps`.
    """
    if actions and game.names is None:
        raise ValueError(f"--actions: those of {config.env} are continuous and have no names")
    names = tuple(actions) or game.names
    if names is not None and game.names is not None and len(names) != len(game.names):
        raise ValueError(
            f"--actions needs one for each of {', '.join(game.names)}, got {', '.join(names)}"
        )
    player, obs = _search(game, config)
    tree = player.tree
    assert tree is not None
    if tree.actions is not None and tree.actions.shape[-1] > _WRITTEN:
        names = tuple(f"#{k}" for k in range(config.samples))
    nodes = [
        node._replace(state=_unpacked(node.state, game.model.members))
        for node in most_visited(tree, nodes=tree.visits.shape[1])
    ]
    optimum, best = None, None
    if game.exact is not None:
        optimum, best = float(game.exact[0][int(obs)]), game.exact[1][int(obs)]
    choices = _choices(tree, names, best)
    return Found(tree, nodes, choices, float(tree.value[0]), optimum, names)


def _unpacked(state: Sequence[float], members: int) -> list[float]:
    """The model states of all members in a node, where `TreeModel` appends two numbers to each."""
    size = len(state) // members
    return [x for k in range(members) for x in state[k * size : (k + 1) * size - 2]]


def _search(game: Game, config: SearchConfig) -> tuple[TreeSearch, Any]:
    """A player after its last search, and the observation from which it searched."""
    env, running = vector(game.env), Episodes(config.seed)
    running.begin(env)
    settings = TreeSearchConfig(
        simulations=config.simulations,
        discount=game.discount,
        rollouts=config.rollouts,
        depth=config.depth,
        outcomes="all" if game.stochastic else Widening() if game.drawn else None,
        merge=game.exact is not None and game.model.members == 1 and not game.drawn,
        backup=config.backup,
    )
    functions = {"reward": game.reward, "terminated": game.terminated}
    player = TreeSearch(
        game.model, game.actions, settings, state_of=game.state_of,
        generator=generator(config.seed, 2), **functions,
    )  # fmt: skip
    single, drawing = replace(settings, rollouts=1), generator(config.seed, 1)
    model = TreeModel(game.model, game.actions, single, generator=drawing, **functions)
    assert running.obs is not None
    # UCT assumes returns in [0, 1]; scaling C by their range has the same effect as scaling them.
    c = return_range(model, player.state_of(running.obs)[0]) / math.sqrt(2)
    rule = {"uct": UCT(c=c), "puct": PUCT(), "gumbel": Gumbel()}[config.rule]
    player.config = replace(settings, rule=rule)
    for _ in collect(player, env, running, steps=config.steps, explore=False, begin=player.reset):
        if running.over[0]:
            raise ValueError(
                f"--steps {config.steps}: the episode is over after {running.steps}; "
                "choose fewer steps or another --seed"
            )
    player.act(running.obs)
    return player, running.obs[0]


def return_range(model: TreeModel, state: Float[Tensor, " S"], *, games: int = 100) -> float:
    """The range of the returns of `games` rollouts from a state; 1 if all returns are equal."""
    with torch.no_grad():
        returns = model.root(state.expand(games, -1)).value
    return float(returns.max() - returns.min()) or 1.0


def _choices(tree: Tree, names: Sequence[str] | None, optimum: np.ndarray | None) -> list[Choice]:
    if tree.actions is None:
        assert names is not None
        labels = list(names)
    else:
        labels = [sample_name(sample) for sample in tree.actions[0, 0].tolist()]
        if names is not None:
            labels = [f"{name}: {sample}" for name, sample in zip(names, labels, strict=True)]
    visits, values = tree.children_visits()[0].tolist(), tree.children_values()[0].tolist()
    return [
        Choice(
            labels[k],
            visits[k],
            float(tree.priors[0, 0, k]),
            values[k] if visits[k] else None,
            None if optimum is None else float(optimum[k]),
            k == int(tree.action[0]),
        )
        for k in range(len(visits))
    ]


def _model(own: OwnModel | None) -> dict[str, Any]:
    return {} if own is None else {"model": own.name, "model_settings": dict(own.settings)}


def save_search(
    folder: Path, config: SearchConfig, game: Game, found: Found, *, nodes: int
) -> dict[str, Any]:
    """Write tree.json with all nodes, tree.dot with the `nodes` most visited, and search.json.

    Returns the content of search.json: the config and the results at the root.
    """
    result = {
        "config": asdict(config) | {"discount": game.discount} | _model(game.own),
        "state": found.nodes[0].state,
        "value": found.value,
        "optimum": found.optimum,
        "actions": [choice._asdict() for choice in found.choices],
    }
    dot = to_dot(found.nodes[:nodes], actions=found.names, label=game.place and game.place[1])
    for name, text in (("tree.json", to_json(found.nodes)), ("tree.dot", dot)):
        with written_whole(folder / name) as file:
            file.write_text(text)
    write_json(folder / "search.json", result)
    return result
