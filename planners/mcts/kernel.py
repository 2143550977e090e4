"""The compiled part of a search: expand a leaf of every tree, back up, and select the next.

It is compiled once for each rule's `select` (see `planners.mcts.rules.Rule`), which it calls in
every node from the root down.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from planners.compile import compiled
from planners.mcts.types import Forest, Settings

FINE, BAD_REWARD, BAD_VALUE, BAD_LOGITS, NO_ACTION, BAD_DISCOUNT, BAD_CHANCE = range(7)
"""Codes of errors in a model's evaluation."""

ERRORS = {
    BAD_REWARD: "a reward that is not finite",
    BAD_VALUE: "a value that is not finite",
    BAD_LOGITS: "logits that are not numbers",
    NO_ACTION: "no action that can be taken",
    BAD_DISCOUNT: "a discount outside [-1, 1]",
    BAD_CHANCE: "chances that do not sum to 1",
}

_NODE, ACTION, _KIND, _DEPTH = range(4)  # rows of `leaf`
_EXPAND, _STOP = 0, 1  # kinds of leaf: with an action to expand, or terminal, full depth, a cycle


class Reply(NamedTuple):
    """Evaluations as arrays: row b · C + c is outcome c of tree b, C = 1 unless outcomes are given.

    Numbers are float32, states and actions bytes.
    """

    state: np.ndarray  # (B C, S) uint8
    actions: np.ndarray  # (B C, K, A) uint8, A = 0 where actions are indices
    reward: np.ndarray  # (B C,)
    discount: np.ndarray  # (B C,)
    value: np.ndarray  # (B C,)
    variance: np.ndarray  # (B C,)
    chance: np.ndarray  # (B C,)
    logits: np.ndarray  # (B C, K)
    terminated: np.ndarray  # (B C,) bool
    invalid: np.ndarray  # (B C, K) bool


# ------------------------------------------------------------------------ for rules to call


@njit(nogil=True)
def widened(c, alpha, visits):
    """Number of available children: ceil(c · visits^alpha), at least one."""
    return max(1, int(np.ceil(c * visits**alpha)))


@njit(nogil=True)
def open_actions(forest, settings, b, node):
    """Number of actions of a node that may be selected, from the first on: K without widening."""
    actions = forest.edges.shape[2]
    if settings.widening_c > 0:
        visits = forest.nodes[b, node].visits
        left = widened(settings.widening_c, settings.widening_alpha, visits)
        for a in range(actions):
            left -= forest.edges[b, node, a].prior >= 0
            if left == 0:
                return a + 1
    return actions


# ---------------------------------------------------------------------------------- select


@njit(nogil=True)
def _outcome(forest, settings, b, edge):
    """The outcome of an action to continue from; -1 to expand.

    Given outcomes are visited in proportion to their probabilities, terminal ones not at all, as
    nothing is left to learn there. Drawn outcomes are visited equally often.
    """
    child = edge.child
    if child < 0 or (settings.outcomes == 0 and settings.drawing_c == 0):
        return child
    best, best_score, number = child, -np.inf, 0
    while child >= 0:
        x = forest.nodes[b, child]
        number += 1
        score = 1.0 / forest.nodes[b, x.transposition].visits
        if settings.outcomes > 0:
            score = -1.0 if x.terminal else score * x.chance
        if score > best_score:
            best, best_score = child, score
        child = x.sibling
    if settings.outcomes == 0:
        allowed = widened(settings.drawing_c, settings.drawing_alpha, edge.visits)
        if number < allowed:
            return -1
    return best


def _descend(forest, settings, parameters, leaf, path, b, simulation):
    """Select actions from root b down to a leaf, and fill column b of `leaf`.

    `path` (B, N) gets the nodes below the root, as outcomes of the actions selected: where one is a
    transposition, selection continues from the first node of its state.
    """
    node, depth = 0, 0
    leaf[ACTION, b], leaf[_KIND, b] = 0, _STOP
    while True:
        leaf[_NODE, b], leaf[_DEPTH, b] = node, depth
        x = forest.nodes[b, node]
        if x.terminal or depth == settings.max_depth or x.simulation == simulation + 1:  # a cycle
            return
        x.simulation = simulation + 1
        action = select(forest, b, node, simulation, settings, parameters)  # noqa: F821  (see make_simulate)
        child = _outcome(forest, settings, b, forest.edges[b, node, action])
        if child < 0:
            leaf[ACTION, b], leaf[_KIND, b] = action, _EXPAND
            return
        path[b, depth] = child
        node, depth = forest.nodes[b, child].transposition, depth + 1


# ---------------------------------------------------------------------------------- expand


@njit(nogil=True)
def _set_priors(edges, b, node, logits, invalid, row):
    """Softmax of a row of logits (·, K) over the valid actions; returns what is wrong with them."""
    top, total = -np.inf, 0.0
    actions = logits.shape[1]
    for a in range(actions):
        if not invalid[row, a]:
            if np.isnan(logits[row, a]) or logits[row, a] == np.inf:
                return BAD_LOGITS
            top = max(top, logits[row, a])
    if top == -np.inf:
        return NO_ACTION
    for a in range(actions):
        prior = -1.0
        if not invalid[row, a]:
            prior = np.exp(logits[row, a] - top)
            total += prior
        edges[b, node, a].prior = prior
    for a in range(actions):
        if not invalid[row, a]:
            edges[b, node, a].prior /= total
    return FINE


@njit(nogil=True)
def _copy(row, into):
    """Copy bytes (W,): for few of them a loop is faster than a slice."""
    for i in range(into.shape[0]):
        into[i] = row[i]


@njit(nogil=True)
def _transposition(states, table, b, node):
    """The first node whose state has the same bytes, by open addressing in the table."""
    state, code = states[b, node], np.uint64(14695981039346656037)
    for i in range(state.shape[0]):  # hash FNV-1a (Fowler, Noll and Vo)
        code = (code ^ np.uint64(state[i])) * np.uint64(1099511628211)
    place = np.int64(code % np.uint64(table.shape[1]))
    while table[b, place] >= 0:
        other, same = states[b, table[b, place]], True
        for i in range(state.shape[0]):
            same = same and state[i] == other[i]
        if same:
            return table[b, place]
        place = (place + 1) % table.shape[1]
    table[b, place] = node
    return node


@njit(nogil=True)
def _add_node(forest, leaf, reply, b, node, row, chance):
    """Make a row of the reply the node `node`; returns what is wrong with it."""
    if not np.isfinite(reply.reward[row]):
        return BAD_REWARD
    x = forest.nodes[b, node]
    x.reward, x.transposition = reply.reward[row], node
    if reply.terminated[row]:
        x.terminal = True
    else:
        if not (np.isfinite(reply.value[row]) and reply.variance[row] >= 0):
            return BAD_VALUE
        if not abs(reply.discount[row]) <= 1:
            return BAD_DISCOUNT
        wrong = _set_priors(forest.edges, b, node, reply.logits, reply.invalid, row)
        if wrong != FINE:
            return wrong
        x.discount = reply.discount[row]
        x.raw = x.value = reply.value[row]
        x.variance = reply.variance[row]
    _copy(reply.state[row], forest.states[b, node])
    for a in range(forest.actions.shape[2]):
        _copy(reply.actions[row, a], forest.actions[b, node, a])
    edge = forest.edges[b, leaf[_NODE, b], leaf[ACTION, b]]
    x.visits, x.chance = 1, chance
    x.parent, x.move, x.sibling = leaf[_NODE, b], leaf[ACTION, b], edge.child
    edge.child = node
    if forest.table.shape[1] > 0 and not x.terminal:
        x.transposition = _transposition(forest.states, forest.table, b, node)
    return FINE


@njit(nogil=True)
def _expand(forest, settings, leaf, reply, b, first):
    """Add the outcomes in the reply as nodes, numbered from `first`.

    Returns what is wrong with the reply, and the last node added.
    """
    if settings.outcomes == 0:
        return _add_node(forest, leaf, reply, b, first, b, 0.0), first
    total, added = 0.0, first
    for row in range(b * settings.outcomes, (b + 1) * settings.outcomes):
        chance = reply.chance[row]
        if not chance >= 0:
            return BAD_CHANCE, added
        if chance > 0:
            wrong = _add_node(forest, leaf, reply, b, first, row, chance)
            if wrong != FINE:
                return wrong, added
            added, first = first, first + 1
            total += chance
    return FINE if abs(total - 1) < 1e-5 else BAD_CHANCE, added


# ---------------------------------------------------------------------------------- backup


@njit(nogil=True)
def _expectation(forest, settings, b, child):
    """Means over the outcomes of an action, `child` the first.

    Of reward + discount · value, and of discount² · epistemic variance.
    """
    weight, total, spread = 0.0, 0.0, 0.0
    while child >= 0:
        x = forest.nodes[b, child]
        after = forest.nodes[b, x.transposition]
        share = x.chance if settings.outcomes > 0 else x.visits
        weight += share
        total += share * (x.reward + x.discount * after.value)
        spread += share * x.discount**2 * after.variance
        child = x.sibling
    return total / weight, spread / weight


@njit(nogil=True)
def _best_value(forest, b, node):
    """q of the best action that was tried."""
    best = -np.inf
    for a in range(forest.edges.shape[2]):
        edge = forest.edges[b, node, a]
        if edge.visits > 0:
            best = max(best, edge.q)
    return best


@njit(nogil=True)
def _backup(forest, settings, path, b, depth):
    """Update q, values, variances and visits along a path, from its last node to the root."""
    leaf = forest.nodes[b, path[b, depth - 1] if depth > 0 else 0]
    gain = leaf.raw + 0.0  # return from the node on; 0 where it is terminal
    spread = leaf.variance + 0.0
    for d in range(depth - 1, -1, -1):
        node = path[b, d]
        x = forest.nodes[b, node]
        edge = forest.edges[b, x.parent, x.move]
        gain = x.reward + x.discount * gain
        spread = x.discount**2 * spread
        if settings.outcomes > 0 or settings.merge:
            # they may change by more than by this return: the parent's means take all of it
            known, known_spread = edge.visits * edge.q, edge.visits * edge.variance
            edge.q, edge.variance = _expectation(forest, settings, b, edge.child)
            gain = (edge.visits + 1) * edge.q - known
            spread = (edge.visits + 1) * edge.variance - known_spread
        elif x.sibling < 0 and edge.child == node:
            edge.q, edge.variance = x.reward + x.discount * x.value, x.discount**2 * x.variance
        else:
            edge.q, edge.variance = _expectation(forest, settings, b, edge.child)
        edge.visits += 1
        forest.bounds[b, 0] = min(forest.bounds[b, 0], edge.q)
        forest.bounds[b, 1] = max(forest.bounds[b, 1], edge.q)
        parent = forest.nodes[b, x.parent]
        count = parent.visits
        if settings.max_backup:
            parent.value = _best_value(forest, b, x.parent)
        else:
            parent.value = (parent.value * count + gain) / (count + 1)
        # rounded numbers of a merged tree may sum to slightly less than 0
        parent.variance = max(0.0, (parent.variance * count + spread) / (count + 1))
        parent.visits = count + 1
        if d > 0 and path[b, d - 1] != x.parent:  # a transposition of the parent was passed
            forest.nodes[b, path[b, d - 1]].visits += 1


# ----------------------------------------------------------------------------- entry points


@compiled
def set_roots(
    nodes, edges, bounds, states, actions, table,
    state, offered, reward, discount, value, variance, chance, logits, terminated, invalid,
):  # fmt: skip
    """Set the roots' states and priors, and the values of those that are new.

    Returns what is wrong with the evaluation, and of which tree.
    """
    for b in range(nodes.shape[0]):
        wrong = _set_priors(edges, b, 0, logits, invalid, b)
        if not (np.isfinite(value[b]) and variance[b] >= 0):
            wrong = BAD_VALUE
        if wrong != FINE:
            return wrong, b
        _copy(state[b], states[b, 0])
        for a in range(actions.shape[2]):
            _copy(offered[b, a], actions[b, 0, a])
        if table.shape[1] > 0:
            _transposition(states, table, b, 0)
        x = nodes[b, 0]
        if x.visits == 0:
            x.visits = 1
            x.raw = x.value = value[b]
            x.variance = variance[b]
    return FINE, 0


def _simulate(
    nodes, edges, bounds, states, actions, table,
    state, offered, reward, discount, value, variance, chance, logits, terminated, invalid,
    options, leaf, here, chosen, path, first, simulation, last,
):  # fmt: skip
    """Expand and back up simulation `simulation - 1` of every tree, then select the next leaf.

    In simulation 0 nothing is expanded, and in simulation `last` no leaf is selected. The fields of
    the `Forest`, the `Reply` and the settings are separate arguments, because numba passes them
    faster than named tuples.

    Args:
        options: `Settings` and the parameters of the rule.
        leaf: (4, B) int64: the leaf's node, the action to expand, the kind of leaf, its depth.
        here, chosen: (B, S) and (B, A), get the bytes of the leaf's state and of the action.
        path: see `_descend`.
        first: number of the first node to add.

    Returns what is wrong with a reply, and of which tree.
    """
    forest = Forest(nodes, edges, bounds, states, actions, table)
    reply = Reply(
        state, offered, reward, discount, value, variance, chance, logits, terminated, invalid
    )
    s, parameters = Settings(*options[0]), options[1]
    for b in range(edges.shape[0]):
        if simulation > 0:
            depth = leaf[_DEPTH, b]
            if leaf[_KIND, b] == _EXPAND:
                wrong, added = _expand(forest, s, leaf, reply, b, first)
                if wrong != FINE:
                    return wrong, b
                path[b, depth] = added
                depth += 1
            else:
                end = path[b, depth - 1] if depth > 0 else 0
                x = forest.nodes[b, end]
                # Other nodes of a merged tree are visited through their children.
                if x.terminal or x.transposition != end or not s.merge:
                    x.visits += 1
            _backup(forest, s, path, b, depth)
        if simulation < last:
            _descend(forest, s, parameters, leaf, path, b, simulation)
            _copy(states[b, leaf[_NODE, b]], here[b])
            _copy(actions[b, leaf[_NODE, b], leaf[ACTION, b]], chosen[b])
    return FINE, 0


@lru_cache
def make_simulate(select: Any) -> Any:
    """`_simulate`, compiled with a rule's `select` in its place.

    numba cannot cache on disk a function that has another as an argument or in a closure, because
    it identifies functions by numbers that differ between processes. So `select` becomes a global
    of a copy, whose name contains a hash of `select`.
    """
    descend = njit(nogil=True)(_with_globals(_descend, select=select))
    simulate = _with_globals(_simulate, _descend=descend)
    simulate.__qualname__ = f"simulate_{_fingerprint(select)}"
    return compiled(simulate)


def _with_globals(function: Any, **names: Any) -> FunctionType:
    return FunctionType(function.__code__, {**globals(), **names}, function.__name__)


def _fingerprint(function: Any) -> str:
    """A hash of a function's code and of everything it refers to, the same in every process."""
    seen: set[Any] = set()
    digest, pending = hashlib.sha256(), [function]
    while pending:
        thing = pending.pop()
        thing = getattr(thing, "py_func", thing)
        if isinstance(thing, CodeType):
            digest.update(repr((thing.co_code, thing.co_names)).encode())
            pending += thing.co_consts
        elif not isinstance(thing, FunctionType):
            whole = thing.tobytes() if isinstance(thing, np.ndarray) else None
            digest.update(repr((thing, whole)).encode())
        elif thing not in seen:
            seen.add(thing)
            names = thing.__globals__
            pending += [thing.__code__, *(names[n] for n in _names(thing.__code__) if n in names)]
            pending += [cell.cell_contents for cell in thing.__closure__ or ()]
    return digest.hexdigest()[:16]


def _names(code: CodeType) -> list[str]:
    """All names in a function's code and in the functions inside it."""
    inside = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return [*code.co_names, *(name for names in inside for name in names)]
