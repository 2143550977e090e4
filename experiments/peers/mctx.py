"""mctx 0.0.71: a script for the virtual environment that has it.

Reads one JSON request a line on stdin and answers each with one JSON line on stdout, as `judo.py`
does. The model is a table, or an MLP of the size that `mbrl bench mcts` times.

`info`    versions.
`search`  one search by `rule` ("puct" or "gumbel") from `roots`, states (B,) of a table: `next`,
          `reward`, `discount` and `logits` (S, A), `value` (S,). `noise` (B, A) replaces mctx's
          Dirichlet or Gumbel draws, and its random breaking of ties is off. Returns the tree's
          arrays, `action` (B,) and `policy` (B, A).
`time`    `repeats` searches of an MLP of `width` and `actions` from `roots` roots: `seconds` each.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

VERSION = "0.0.71"
KEPT = (
    "node_visits", "node_values", "raw_values", "parents", "action_from_parent", "children_index",
    "children_visits", "children_rewards", "children_values",
)  # fmt: skip

_SERVING = runpy.run_path(str(Path(__file__).with_name("serving.py")))
accepted, timed, info, installed, serve = (
    _SERVING[name] for name in ("accepted", "timed", "info", "installed", "serve")
)


def search(
    rule: str,
    next: list[list[int]],
    reward: list[list[float]],
    discount: list[list[float]],
    logits: list[list[float]],
    value: list[float],
    roots: list[int],
    simulations: int,
    noise: list[list[float]] | None = None,
    invalid: list[list[bool]] | None = None,
    max_depth: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """One search of a table."""
    jax, jnp, mctx = import_module("jax"), import_module("jax.numpy"), import_module("mctx")
    moves = jnp.array(next)
    gains, shrinks, priors, values = (
        jnp.array(x, jnp.float32) for x in (reward, discount, logits, value)
    )

    def step(params: Any, key: Any, action: Any, state: Any) -> Any:
        after = moves[state, action]
        out = mctx.RecurrentFnOutput(
            reward=gains[state, action],
            discount=shrinks[state, action],
            prior_logits=priors[after],
            value=values[after],
        )
        return out, after

    start = jnp.array(roots)
    root = mctx.RootFnOutput(prior_logits=priors[start], value=values[start], embedding=start)
    draws = jnp.zeros(root.prior_logits.shape) if noise is None else jnp.array(noise, jnp.float32)
    policies = {"puct": mctx.muzero_policy, "gumbel": mctx.gumbel_muzero_policy}
    policy = policies[accepted("rule", rule, policies)]
    with (
        mock.patch.object(jax.random, "uniform", lambda key, shape=(), **_: jnp.zeros(shape)),
        mock.patch.object(jax.random, "gumbel", lambda key, shape=(), **_: draws),
        mock.patch.object(jax.random, "dirichlet", lambda key, alpha, shape=(), **_: draws),
    ):
        found = policy(
            None,
            jax.random.PRNGKey(0),
            root,
            step,
            num_simulations=simulations,
            invalid_actions=None if invalid is None else jnp.array(invalid),
            max_depth=max_depth,
            **settings,
        )
    tree = {name: np.asarray(getattr(found.search_tree, name)).tolist() for name in KEPT}
    return tree | {
        "action": np.asarray(found.action).tolist(),
        "policy": np.asarray(found.action_weights).tolist(),
    }


def timing(
    rule: str, roots: int, actions: int, width: int, simulations: int, repeats: int
) -> dict[str, Any]:
    """Times searches of a random MLP."""
    return {"seconds": timed(_compiled(rule, roots, actions, width, simulations), repeats)}


@cache
def _compiled(
    rule: str, roots: int, actions: int, width: int, simulations: int
) -> Callable[[], Any]:
    """A search of a random MLP, compiled: compiling takes far longer than searching."""
    jax, jnp, mctx = import_module("jax"), import_module("jax.numpy"), import_module("mctx")
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    own = jax.random.normal(keys[0], (width, width)) / width**0.5
    moved = jax.random.normal(keys[1], (actions, width))
    heads = jax.random.normal(keys[2], (width, actions + 2)) / width**0.5
    policies = {"puct": mctx.muzero_policy, "gumbel": mctx.gumbel_muzero_policy}

    def step(params: Any, key: Any, action: Any, state: Any) -> Any:
        after = jax.nn.relu(state @ own + moved[action])
        out = after @ heads
        out = mctx.RecurrentFnOutput(
            reward=out[:, 0],
            discount=jnp.full(len(state), 0.99),
            prior_logits=out[:, 2:],
            value=out[:, 1],
        )
        return out, after

    @jax.jit
    def run(key: Any, state: Any) -> Any:
        root = mctx.RootFnOutput(
            prior_logits=jnp.zeros((roots, actions)), value=jnp.zeros(roots), embedding=state
        )
        policy = policies[accepted("rule", rule, policies)]
        return policy(None, key, root, step, num_simulations=simulations).action_weights

    state = jax.random.normal(keys[3], (roots, width))

    def one() -> Any:
        return run(keys[3], state).block_until_ready()

    one()
    return one


WORKS: dict[str, Callable[..., dict[str, Any]]] = {"search": search, "time": timing}


def answer(work: str = "info", **options: Any) -> dict[str, Any]:
    """Does what one request asks for."""
    accepted("work", work, ("info", *WORKS))
    if work == "info":
        return info(("mctx", "jax", "jaxlib", "numpy"))
    return WORKS[work](**options)


def main() -> None:
    """Answers requests until stdin ends."""
    if installed("mctx") != VERSION:
        sys.exit(f"this Python has no mctx {VERSION}: {sys.executable}")
    serve(answer)


if __name__ == "__main__":
    main()
