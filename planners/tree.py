"""Trees of a Monte Carlo search in preallocated arrays, and the compiled walk through them.

An edge is a node and the place of an action in it. Its outcomes are nodes, linked by `siblings`:
one for a deterministic model. What is known of an edge is the sum over its outcomes, so a node
holds what its edge needs: visits, and q, the reward into it plus its discounted value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

UCT_RULE, PUCT_RULE, GUMBEL_RULE = 0, 1, 2
RAW, SIBLINGS, WHOLE = 0, 1, 2
"""What PUCT scales values by: nothing, the parent and its other actions, the whole tree."""

FINE, BAD_REWARD, BAD_VALUE, BAD_LOGITS, NO_ACTION = 0, 1, 2, 3, 4
"""What `advance` found wrong with a model's answer."""

_OPEN, _FULL_DEPTH, _TERMINAL = 0, 1, 2  # where a walk ends: at a new node, or at one known


class Nodes(NamedTuple):
    """B trees of up to N nodes of K actions; node 0 is the root."""

    visits: np.ndarray  # (B, N) int32; 0 for a node that is not there
    values: np.ndarray  # (B, N), means of what followed
    raw: np.ndarray  # (B, N), as the model gave them
    rewards: np.ndarray  # (B, N), of the step into the node
    discounts: np.ndarray  # (B, N), of its value in its parent's
    q: np.ndarray  # (B, N), reward + discount · value
    variances: np.ndarray  # (B, N), epistemic, of the value; means like it
    parents: np.ndarray  # (B, N) int32
    moves: np.ndarray  # (B, N) int32, action from the parent
    siblings: np.ndarray  # (B, N) int32, the next outcome of the same action, or -1
    ended: np.ndarray  # (B, N) bool
    children: np.ndarray  # (B, N, K) int32, first outcome, or -1
    priors: np.ndarray  # (B, N, K), -1 for what cannot be done
    bounds: np.ndarray  # (B, 2), least and greatest q


class Front(NamedTuple):
    """Where each walk ended, (B,) int64."""

    leaf: np.ndarray
    move: np.ndarray  # action to take there
    kind: np.ndarray
    flat: np.ndarray  # row of the leaf's state in (N · B, S)


class Reply(NamedTuple):
    """What the model said of the front, float32 but for the last two."""

    reward: np.ndarray  # (B,)
    discount: np.ndarray  # (B,)
    value: np.ndarray  # (B,)
    variance: np.ndarray  # (B,)
    logits: np.ndarray  # (B, K)
    terminated: np.ndarray  # (B,) bool
    invalid: np.ndarray  # (B, K) bool


class Settings(NamedTuple):
    """Of a search: which rule, and numbers that the others ignore."""

    rule: int
    max_depth: int
    scale: int = SIBLINGS
    c: float = 0.0
    base: float = 1.0
    optimism: float = 0.0
    value_scale: float = 0.0
    visit_init: float = 0.0
    opening: tuple[float, float] = (0.0, 0.5)  # of a node's actions; c = 0: all are open
    drawing: tuple[float, float] = (0.0, 0.5)  # of an action's outcomes; c = 0: one


@njit(cache=True, nogil=True)
def _edge(t, b, node, action):
    """Visits of an edge and the mean of what they earned, 0 without any."""
    child = t.children[b, node, action]
    if child < 0:
        return 0, 0.0
    count = t.visits[b, child]
    mean = t.q[b, child] + 0.0
    child = t.siblings[b, child]
    if child >= 0:
        total = count * mean
        while child >= 0:
            count += t.visits[b, child]
            total += t.visits[b, child] * t.q[b, child]
            child = t.siblings[b, child]
        mean = total / count
    return count, mean


@njit(cache=True, nogil=True)
def _std(t, b, node, action):
    """Epistemic std of what follows an edge that was tried."""
    count, total, child = 0, 0.0, t.children[b, node, action]
    while child >= 0:
        count += t.visits[b, child]
        total += t.visits[b, child] * t.discounts[b, child] ** 2 * t.variances[b, child]
        child = t.siblings[b, child]
    return np.sqrt(total / count)


@njit(cache=True, nogil=True)
def _allowed(law, visits):
    """How many children may be open: ceil(c · visits^alpha), at least one."""
    return max(1, int(np.ceil(law[0] * visits ** law[1])))


@njit(cache=True, nogil=True)
def _opened(t, s, b, node):
    """How many of a node's actions may be looked into: up to the last of the valid ones open."""
    actions, left = t.priors.shape[2], _allowed(s.opening, t.visits[b, node])
    for a in range(actions):
        left -= t.priors[b, node, a] >= 0
        if left == 0:
            return a + 1
    return actions


@njit(cache=True, nogil=True)
def _uct(t, s, b, node, open_):
    best, best_score, here = -1, -np.inf, np.log(t.visits[b, node])
    for a in range(open_):
        if t.priors[b, node, a] < 0:
            continue
        count, mean = _edge(t, b, node, a)
        if count == 0:
            return a
        score = mean + 2 * s.c * np.sqrt(2 * here / count)
        if s.optimism != 0:
            score += s.optimism * _std(t, b, node, a)
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _puct(t, s, b, node, open_, work, counts):
    here = t.visits[b, node]
    low = high = t.values[b, node] + 0.0
    if s.scale == WHOLE:
        low, high = t.bounds[b, 0], t.bounds[b, 1]
    for a in range(open_):
        counts[a], work[a] = _edge(t, b, node, a)
        if counts[a] > 0:
            if s.scale == SIBLINGS:
                low, high = min(low, work[a]), max(high, work[a])
            if s.optimism != 0:
                work[a] += s.optimism * _std(t, b, node, a)
    if s.scale == RAW:
        low, width = 0.0, 1.0
    else:
        width = max(high - low, 1e-8)
    weight = np.sqrt(here) * (s.c + np.log((here + s.base + 1) / s.base))
    if open_ < t.priors.shape[2]:  # the prior is shared by those that are open
        mass = 0.0
        for a in range(open_):
            mass += max(t.priors[b, node, a], 0.0)
        weight /= max(mass, 1e-30)
    best, best_score = -1, -np.inf
    for a in range(open_):
        prior = t.priors[b, node, a]
        if prior < 0:
            continue
        score = weight * prior / (counts[a] + 1)
        if counts[a] > 0:
            score += (work[a] - low) / width
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def complete(t, s, b, node, out):
    """Fill `out` (K,) with a node's completed and scaled values, as mctx does.

    Untried actions take the mixed value of Danihelka et al. 2022, appendix D.
    """
    actions = out.shape[0]
    seen, weight, mass, most = 0, 0.0, 0.0, 0
    for a in range(actions):
        count, mean = _edge(t, b, node, a)
        out[a] = np.nan
        if count > 0:
            out[a] = mean
            seen += count
            most = max(most, count)
            prior = max(t.priors[b, node, a], 1.1754944e-38)  # the least float32
            mass += prior
            weight += prior * out[a]
    mixed = t.raw[b, node] + 0.0
    if seen > 0:
        mixed = (mixed + seen * weight / mass) / (seen + 1)
    low, high = np.inf, -np.inf
    for a in range(actions):
        if np.isnan(out[a]):
            out[a] = mixed
        low, high = min(low, out[a]), max(high, out[a])
    factor = (s.visit_init + most) * s.value_scale / max(high - low, 1e-8)
    for a in range(actions):
        out[a] = (out[a] - low) * factor


@njit(cache=True, nogil=True)
def _gumbel_root(t, s, b, scores, wanted, work):
    complete(t, s, b, 0, work)
    best, best_score = -1, -np.inf
    for a in range(work.shape[0]):
        count, _ = _edge(t, b, 0, a)
        if t.priors[b, 0, a] < 0 or count != wanted:
            continue
        score = max(-1e9, scores[b, a] + work[a])
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _gumbel_inside(t, s, b, node, work):
    """The action whose share of visits lies furthest under the improved policy."""
    complete(t, s, b, node, work)
    actions, top, norm, seen = work.shape[0], -np.inf, 0.0, 0
    for a in range(actions):
        if t.priors[b, node, a] >= 0:
            top = max(top, work[a])
    for a in range(actions):
        if t.priors[b, node, a] >= 0:
            work[a] = t.priors[b, node, a] * np.exp(work[a] - top)
            norm += work[a]
        seen += _edge(t, b, node, a)[0]
    best, best_score = -1, -np.inf
    for a in range(actions):
        if t.priors[b, node, a] >= 0:
            score = work[a] / norm - _edge(t, b, node, a)[0] / (1 + seen)
            if score > best_score:
                best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _descend(t, s, front, b, scores, wanted, work, counts):
    """Walk from root b to where a node is to be added."""
    node, depth = 0, 0
    while True:
        front.leaf[b], front.move[b] = node, 0
        if t.ended[b, node]:
            front.kind[b] = _TERMINAL
            return
        if depth == s.max_depth:
            front.kind[b] = _FULL_DEPTH
            return
        open_ = work.shape[0]
        if s.opening[0] > 0:
            open_ = _opened(t, s, b, node)
        if s.rule == UCT_RULE:
            action = _uct(t, s, b, node, open_)
        elif s.rule == PUCT_RULE:
            action = _puct(t, s, b, node, open_, work, counts)
        elif node == 0:
            action = _gumbel_root(t, s, b, scores, wanted, work)
        else:
            action = _gumbel_inside(t, s, b, node, work)
        child = t.children[b, node, action]
        if child >= 0 and s.drawing[0] > 0:
            count, number, least, other = 0, 0, child, child
            while other >= 0:
                count += t.visits[b, other]
                number += 1
                if t.visits[b, other] < t.visits[b, least]:
                    least = other
                other = t.siblings[b, other]
            child = -1 if number < _allowed(s.drawing, count) else least
        if child < 0:
            front.move[b], front.kind[b] = action, _OPEN
            return
        node, depth = child, depth + 1


@njit(cache=True, nogil=True)
def set_priors(t, b, node, logits, invalid):
    """Softmax of logits (B, K) over the valid actions; what was wrong with them."""
    top, total = -np.inf, 0.0
    actions = logits.shape[1]
    for a in range(actions):
        if not invalid[b, a]:
            if np.isnan(logits[b, a]) or logits[b, a] == np.inf:
                return BAD_LOGITS
            top = max(top, logits[b, a])
    if top == -np.inf:
        return NO_ACTION
    for a in range(actions):
        t.priors[b, node, a] = -1.0
        if not invalid[b, a]:
            t.priors[b, node, a] = np.exp(logits[b, a] - top)
            total += t.priors[b, node, a]
    for a in range(actions):
        if not invalid[b, a]:
            t.priors[b, node, a] /= total
    return FINE


@njit(cache=True, nogil=True)
def _attach(t, front, reply, b, node):
    """Make what the model said of a walk's end the node `node`; what was wrong with it."""
    if not np.isfinite(reply.reward[b]):
        return BAD_REWARD
    above, action = front.leaf[b], front.move[b]
    t.rewards[b, node] = reply.reward[b]
    if reply.terminated[b]:
        t.ended[b, node] = True
    else:
        if not (np.isfinite(reply.value[b]) and reply.variance[b] >= 0):
            return BAD_VALUE
        wrong = set_priors(t, b, node, reply.logits, reply.invalid)
        if wrong != FINE:
            return wrong
        t.discounts[b, node] = reply.discount[b]
        t.raw[b, node] = t.values[b, node] = reply.value[b]
        t.variances[b, node] = reply.variance[b]
    t.parents[b, node], t.moves[b, node] = above, action
    t.siblings[b, node] = t.children[b, above, action]
    t.children[b, above, action] = node
    return FINE


@njit(cache=True, nogil=True)
def _pass_up(t, b, node):
    """Count a visit of a leaf and tell all above it what it is worth."""
    t.visits[b, node] += 1
    gain = t.raw[b, node] + 0.0  # 0 at an end
    spread = t.variances[b, node] + 0.0
    while True:
        if node > 0:
            t.q[b, node] = t.rewards[b, node] + t.discounts[b, node] * t.values[b, node]
            t.bounds[b, 0] = min(t.bounds[b, 0], t.q[b, node])
            t.bounds[b, 1] = max(t.bounds[b, 1], t.q[b, node])
        else:
            return
        gain = t.rewards[b, node] + t.discounts[b, node] * gain
        spread = t.discounts[b, node] ** 2 * spread
        node = t.parents[b, node]
        count = t.visits[b, node]
        t.values[b, node] = (t.values[b, node] * count + gain) / (count + 1)
        t.variances[b, node] = (t.variances[b, node] * count + spread) / (count + 1)
        t.visits[b, node] = count + 1


@njit(cache=True, nogil=True)
def advance(t, s, front, reply, scores, considered, node, attach, go_on):
    """Make the replies node `node` of each tree, where `attach`; then, where `go_on`, walk anew.

    `considered` (B,) is how often the root's actions must have been visited to be looked into,
    for Gumbel. Returns what is wrong with a reply, and of which tree.
    """
    roots, actions = t.children.shape[0], t.children.shape[2]
    work, counts = np.empty(actions), np.empty(actions, np.int64)
    for b in range(roots):
        if attach:
            leaf = front.leaf[b]
            if front.kind[b] == _OPEN:
                wrong = _attach(t, front, reply, b, node)
                if wrong != FINE:
                    return wrong, b
                leaf = node
            _pass_up(t, b, leaf)
        if go_on:
            _descend(t, s, front, b, scores, considered[b], work, counts)
            front.flat[b] = front.leaf[b] * roots + b
    return FINE, 0


@njit(cache=True, nogil=True)
def root_edges(t):
    """Visits and mean earnings (B, K) of the roots' actions."""
    roots, actions = t.children.shape[0], t.children.shape[2]
    counts, earned = np.zeros((roots, actions), np.int64), np.zeros((roots, actions))
    for b in range(roots):
        for a in range(actions):
            counts[b, a], earned[b, a] = _edge(t, b, 0, a)
    return counts, earned


@njit(cache=True, nogil=True)
def subtree(old, new, b, root, places):
    """Copy what lies below a node of tree b, as a tree of its own; returns its size.

    `places` (N,) gets each node's new number, or -1.
    """
    places[:] = -1
    places[root] = 0
    size = 1
    for node in range(old.visits.shape[1]):  # parents have smaller numbers than their children
        above = old.parents[b, node]
        if node != root and old.visits[b, node] > 0 and above >= 0 and places[above] >= 0:
            places[node] = size
            size += 1
    for node in range(old.visits.shape[1]):
        place = places[node]
        if place < 0:
            continue
        new.visits[b, place] = old.visits[b, node]
        new.values[b, place] = old.values[b, node]
        new.raw[b, place] = old.raw[b, node]
        new.rewards[b, place] = old.rewards[b, node]
        new.discounts[b, place] = old.discounts[b, node]
        new.q[b, place] = old.q[b, node]
        new.variances[b, place] = old.variances[b, node]
        new.moves[b, place] = old.moves[b, node]
        new.ended[b, place] = old.ended[b, node]
        above, sibling = old.parents[b, node], old.siblings[b, node]
        new.parents[b, place] = places[above] if above >= 0 else -1
        new.siblings[b, place] = places[sibling] if sibling >= 0 else -1
        for a in range(old.children.shape[2]):
            child = old.children[b, node, a]
            new.children[b, place, a] = places[child] if child >= 0 else -1
            new.priors[b, place, a] = old.priors[b, node, a]
        new.bounds[b, 0] = min(new.bounds[b, 0], new.q[b, place])
        new.bounds[b, 1] = max(new.bounds[b, 1], new.q[b, place])
    new.parents[b, 0], new.moves[b, 0], new.siblings[b, 0] = -1, 0, -1
    return size
