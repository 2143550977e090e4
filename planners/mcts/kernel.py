"""Trees of a Monte Carlo search in preallocated arrays, and the compiled walk through them.

An edge is a node and the place of an action in it. Its outcomes are nodes, linked by `sibling`:
one for a deterministic model. What choosing an action needs lies in the edges of a node, side by
side, and so does all of a node: a walk waits for memory more than it computes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

UCT_RULE, PUCT_RULE, GUMBEL_RULE = 0, 1, 2
RAW, SIBLINGS, WHOLE = 0, 1, 2
"""What PUCT scales values by: nothing, the parent and its other actions, the whole tree."""

FINE, BAD_REWARD, BAD_VALUE, BAD_LOGITS, NO_ACTION, BAD_DISCOUNT, BAD_CHANCE = range(7)
"""What is wrong with a model's answer."""

_OPEN, _KNOWN = 0, 1  # where a walk ends: at a new node, or at one known

NODE = np.dtype(
    [
        ("visits", "i4"),  # simulations that came by, and one; 0 for a node that is not there
        ("parent", "i4"),
        ("move", "i4"),  # action from the parent
        ("sibling", "i4"),  # the next outcome of the same action, or -1
        ("twin", "i4"),  # the first node of the same state, which alone has children; or itself
        ("walk", "i4"),  # the last that came by
        ("value", "f4"),  # mean of what followed
        ("raw", "f4"),  # the value that the model gave
        ("reward", "f4"),  # of the step into the node
        ("discount", "f4"),  # of its value in its parent's
        ("variance", "f4"),  # epistemic, of the value; a mean like it
        ("chance", "f4"),  # of this outcome; 0 where it was drawn
        ("ended", "?"),
    ],
    align=True,
)
EDGE = np.dtype(
    [
        ("child", "i4"),  # first outcome, or -1
        ("visits", "i4"),
        ("q", "f4"),  # mean of reward + discount · value over the outcomes; 0 if untried
        ("prior", "f4"),  # -1 for what cannot be done
    ],
    align=True,
)


class Forest(NamedTuple):
    """B trees of up to N nodes of K actions; node 0 is the root. States and actions are bytes."""

    nodes: np.ndarray  # (B, N) of NODE
    edges: np.ndarray  # (B, N, K) of EDGE
    bounds: np.ndarray  # (B, 2), least and greatest q
    states: np.ndarray  # (B, N, S) uint8
    actions: np.ndarray  # (B, N, K, A) uint8, A = 0 where actions are indices
    table: np.ndarray  # (B, H) int32, nodes by a hash of their state, or -1; H = 0 without twins


class Reply(NamedTuple):
    """What the model said of the C outcomes of each walk's last action, C = 1 but for exact ones.

    Row b · C + c is outcome c of tree b; numbers are float32. States and actions are bytes.
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


class Settings(NamedTuple):
    """Of a search: which rule, and numbers that the others ignore."""

    rule: int
    max_depth: int
    exact: int = 0  # outcomes that a step gives, with their chances; 0: the one that it draws
    merge: bool = False  # nodes of the same state are twins
    maxima: bool = False  # a node is worth its best action that was tried
    scale: int = SIBLINGS
    c: float = 0.0
    base: float = 1.0
    optimism: float = 0.0
    value_scale: float = 0.0
    visit_init: float = 0.0
    opening: float = 0.0  # a node opens ceil(opening · visits^opening_power) actions; 0: all
    opening_power: float = 0.5
    drawing: float = 0.0  # likewise the outcomes drawn of an action; 0: one
    drawing_power: float = 0.5


@njit(cache=True, nogil=True)
def _std(t, b, node, action):
    """Epistemic std of what follows an edge that was tried."""
    count, total, child = 0, 0.0, t.edges[b, node, action].child
    while child >= 0:
        x = t.nodes[b, child]
        count += x.visits
        total += x.visits * x.discount**2 * t.nodes[b, x.twin].variance
        child = x.sibling
    return np.sqrt(total / count)


@njit(cache=True, nogil=True)
def _allowed(c, power, visits):
    """How many children may be open: ceil(c · visits^power), at least one."""
    return max(1, int(np.ceil(c * visits**power)))


@njit(cache=True, nogil=True)
def _opened(t, s, b, node):
    """How many of a node's actions may be looked into: up to the last of the valid ones open."""
    actions = t.edges.shape[2]
    if s.opening > 0:
        left = _allowed(s.opening, s.opening_power, t.nodes[b, node].visits)
        for a in range(actions):
            left -= t.edges[b, node, a].prior >= 0
            if left == 0:
                return a + 1
    return actions


@njit(cache=True, nogil=True)
def _uct(t, s, b, node):
    best, best_score, here = -1, -np.inf, np.log(t.nodes[b, node].visits)
    for a in range(_opened(t, s, b, node)):
        edge = t.edges[b, node, a]
        if edge.prior < 0:
            continue
        if edge.visits == 0:
            return a
        score = edge.q + 2 * s.c * np.sqrt(2 * here / edge.visits)
        if s.optimism != 0:
            score += s.optimism * _std(t, b, node, a)
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _puct(t, s, b, node):
    open_, here, mass = _opened(t, s, b, node), t.nodes[b, node].visits, 1.0
    low, width = 0.0, 1.0
    if s.scale == SIBLINGS:
        low = high = t.nodes[b, node].value + 0.0
        for a in range(open_):
            edge = t.edges[b, node, a]
            if edge.visits > 0:
                low, high = min(low, edge.q), max(high, edge.q)
        width = max(high - low, 1e-8)
    elif s.scale == WHOLE:
        low = t.bounds[b, 0]
        width = max(t.bounds[b, 1] - low, 1e-8)
    if open_ < t.edges.shape[2]:  # the prior is shared by those that are open
        mass = 1e-30
        for a in range(open_):
            mass += max(t.edges[b, node, a].prior, 0.0)
    weight = np.sqrt(here) * (s.c + np.log((here + s.base + 1) / s.base)) / mass
    best, best_score = -1, -np.inf
    for a in range(open_):
        edge = t.edges[b, node, a]
        if edge.prior < 0:
            continue
        score = weight * edge.prior / (edge.visits + 1)
        if edge.visits > 0:
            score += (edge.q - low) / width
            if s.optimism != 0:
                score += s.optimism * _std(t, b, node, a) / width
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _complete(t, s, b, node, out):
    """Fill `out` (K,) with a node's completed and scaled values, as mctx does.

    Untried actions take the mixed value of Danihelka et al. 2022, appendix D.
    """
    actions = out.shape[0]
    seen, weight, mass, most = 0, 0.0, 0.0, 0
    low, high = np.inf, -np.inf
    for a in range(actions):
        edge = t.edges[b, node, a]
        if edge.visits > 0:
            seen += edge.visits
            most = max(most, edge.visits)
            prior = max(edge.prior, 1.1754944e-38)  # the least float32
            mass += prior
            weight += prior * edge.q
            low, high = min(low, edge.q), max(high, edge.q)
    mixed = t.nodes[b, node].raw + 0.0
    if seen > 0:
        mixed = (mixed + seen * weight / mass) / (seen + 1)
    for a in range(actions):
        edge = t.edges[b, node, a]
        out[a] = edge.q if edge.visits > 0 else mixed
        low, high = min(low, out[a]), max(high, out[a])
    factor = (s.visit_init + most) * s.value_scale / max(high - low, 1e-8)
    for a in range(actions):
        out[a] = (out[a] - low) * factor


@njit(cache=True, nogil=True)
def _gumbel_root(t, s, b, scores, wanted, work):
    _complete(t, s, b, 0, work)
    best, best_score = -1, -np.inf
    for a in range(work.shape[0]):
        edge = t.edges[b, 0, a]
        if edge.prior < 0 or edge.visits != wanted:
            continue
        score = max(-1e9, scores[b, a] + work[a])
        if score > best_score:
            best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _gumbel_inside(t, s, b, node, work):
    """The action whose share of visits lies furthest under the improved policy."""
    _complete(t, s, b, node, work)
    actions, top, norm, seen = work.shape[0], -np.inf, 0.0, 0
    for a in range(actions):
        if t.edges[b, node, a].prior >= 0:
            top = max(top, work[a])
    for a in range(actions):
        edge = t.edges[b, node, a]
        if edge.prior >= 0:
            work[a] = edge.prior * np.exp(work[a] - top)
            norm += work[a]
        seen += edge.visits
    best, best_score = -1, -np.inf
    for a in range(actions):
        edge = t.edges[b, node, a]
        if edge.prior >= 0:
            score = work[a] / norm - edge.visits / (1 + seen)
            if score > best_score:
                best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _outcome(t, s, b, edge):
    """Which outcome of an action to go on from; -1 to have the model draw another.

    Exact ones are visited by their chances, those that have ended not at all, as nothing is to be
    learned there; drawn ones equally often. Visits by whichever way count.
    """
    child = edge.child
    if child < 0 or (s.exact == 0 and s.drawing == 0):
        return child
    best, best_score, number = child, -np.inf, 0
    while child >= 0:
        x = t.nodes[b, child]
        number += 1
        score = 1.0 / t.nodes[b, x.twin].visits
        if s.exact > 0:
            score = -1.0 if x.ended else score * x.chance
        if score > best_score:
            best, best_score = child, score
        child = x.sibling
    if s.exact == 0 and number < _allowed(s.drawing, s.drawing_power, edge.visits):
        return -1
    return best


@njit(cache=True, nogil=True)
def _descend(t, s, front, path, b, scores, wanted, turn, work):
    """Walk from root b to where a node is to be added, or nothing more can be learned.

    `front` gets the last node's twin, the action to take there, the kind of end, and how long
    the path (B, N) is that led there: the nodes after the root, before twins take their place.
    """
    node, depth = 0, 0
    front[1, b], front[2, b] = 0, _KNOWN
    while True:
        front[0, b], front[3, b] = node, depth
        x = t.nodes[b, node]
        if x.ended or depth == s.max_depth or x.walk == turn:  # the last is a circle
            return
        x.walk = turn
        if s.rule == UCT_RULE:
            action = _uct(t, s, b, node)
        elif s.rule == PUCT_RULE:
            action = _puct(t, s, b, node)
        elif node == 0:
            action = _gumbel_root(t, s, b, scores, wanted, work)
        else:
            action = _gumbel_inside(t, s, b, node, work)
        child = _outcome(t, s, b, t.edges[b, node, action])
        if child < 0:
            front[1, b], front[2, b] = action, _OPEN
            return
        path[b, depth] = child
        node, depth = t.nodes[b, child].twin, depth + 1


@njit(cache=True, nogil=True)
def set_priors(edges, b, node, logits, invalid, row):
    """Softmax of a row of logits (·, K) over the valid actions; what was wrong with them."""
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


@njit(cache=True, nogil=True)
def plant(
    nodes, edges, bounds, states, actions, table,
    state, offered, reward, discount, value, variance, chance, logits, terminated, invalid,
):  # fmt: skip
    """Set states and priors of the roots, and where they are new their values, as the model said.

    Returns what is wrong with its answer, and of which tree.
    """
    for b in range(nodes.shape[0]):
        wrong = set_priors(edges, b, 0, logits, invalid, b)
        if not (np.isfinite(value[b]) and variance[b] >= 0):
            wrong = BAD_VALUE
        if wrong != FINE:
            return wrong, b
        _copy(state[b], states[b, 0])
        for a in range(actions.shape[2]):
            _copy(offered[b, a], actions[b, 0, a])
        if table.shape[1] > 0:
            twin_of(states, table, b, 0)
        x = nodes[b, 0]
        if x.visits == 0:
            x.visits = 1
            x.raw = x.value = value[b]
            x.variance = variance[b]
    return FINE, 0


@njit(cache=True, nogil=True)
def _copy(row, into):
    """Bytes (W,); a loop is faster than a slice for the few that there are."""
    for i in range(into.shape[0]):
        into[i] = row[i]


@njit(cache=True, nogil=True)
def _attach(t, front, reply, b, node, row, chance):
    """Make what the model said in a row the node `node`; what was wrong with it."""
    if not np.isfinite(reply.reward[row]):
        return BAD_REWARD
    x = t.nodes[b, node]
    x.reward, x.twin = reply.reward[row], node
    if reply.terminated[row]:
        x.ended = True
    else:
        if not (np.isfinite(reply.value[row]) and reply.variance[row] >= 0):
            return BAD_VALUE
        if not abs(reply.discount[row]) <= 1:
            return BAD_DISCOUNT
        wrong = set_priors(t.edges, b, node, reply.logits, reply.invalid, row)
        if wrong != FINE:
            return wrong
        x.discount = reply.discount[row]
        x.raw = x.value = reply.value[row]
        x.variance = reply.variance[row]
    _copy(reply.state[row], t.states[b, node])
    for a in range(t.actions.shape[2]):
        _copy(reply.actions[row, a], t.actions[b, node, a])
    edge = t.edges[b, front[0, b], front[1, b]]
    x.visits, x.chance = 1, chance
    x.parent, x.move, x.sibling = front[0, b], front[1, b], edge.child
    edge.child = node
    if t.table.shape[1] > 0 and not x.ended:
        x.twin = twin_of(t.states, t.table, b, node)
    return FINE


@njit(cache=True, nogil=True)
def twin_of(states, table, b, node):
    """The first node with the bytes of this one's state, which it is itself if there was none."""
    state, code = states[b, node], np.uint64(14695981039346656037)
    for i in range(state.shape[0]):  # Fowler, Noll and Vo's hash, 1a
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


@njit(cache=True, nogil=True)
def _grow(t, s, front, reply, b, first):
    """Add the outcomes that the model gave, from number `first` on: what was wrong, and the last.

    Of drawn outcomes there is one.
    """
    if s.exact == 0:
        return _attach(t, front, reply, b, first, b, 0.0), first
    total, made = 0.0, first
    for row in range(b * s.exact, (b + 1) * s.exact):
        chance = reply.chance[row]
        if not chance >= 0:
            return BAD_CHANCE, made
        if chance > 0:
            wrong = _attach(t, front, reply, b, first, row, chance)
            if wrong != FINE:
                return wrong, made
            made, first = first, first + 1
            total += chance
    return FINE if abs(total - 1) < 1e-5 else BAD_CHANCE, made


@njit(cache=True, nogil=True)
def _mean(t, s, b, child):
    """Of reward + discount · value over the outcomes of an edge, and the weight of it all."""
    weight, total = 0.0, 0.0
    while child >= 0:
        x = t.nodes[b, child]
        share = x.chance if s.exact > 0 else x.visits
        weight += share
        total += share * (x.reward + x.discount * t.nodes[b, x.twin].value)
        child = x.sibling
    return total / weight


@njit(cache=True, nogil=True)
def _greatest(t, b, node):
    """q of the best action that was tried."""
    best = -np.inf
    for a in range(t.edges.shape[2]):
        edge = t.edges[b, node, a]
        if edge.visits > 0:
            best = max(best, edge.q)
    return best


@njit(cache=True, nogil=True)
def _pass_up(t, s, path, b, depth):
    """Tell all along a path what its last node is worth: means there are of one more visit."""
    leaf = t.nodes[b, path[b, depth - 1] if depth > 0 else 0]
    gain = leaf.raw + 0.0  # 0 at an end
    spread = leaf.variance + 0.0
    for d in range(depth - 1, -1, -1):
        node = path[b, d]
        x = t.nodes[b, node]
        edge = t.edges[b, x.parent, x.move]
        gain = x.reward + x.discount * gain
        spread = x.discount**2 * spread
        if s.exact > 0 or s.merge:  # all that the expectation changed by is news above
            known = edge.visits * edge.q
            edge.q = _mean(t, s, b, edge.child)
            gain = (edge.visits + 1) * edge.q - known
        elif x.sibling < 0 and edge.child == node:
            edge.q = x.reward + x.discount * x.value
        else:
            edge.q = _mean(t, s, b, edge.child)
        edge.visits += 1
        t.bounds[b, 0] = min(t.bounds[b, 0], edge.q)
        t.bounds[b, 1] = max(t.bounds[b, 1], edge.q)
        above = t.nodes[b, x.parent]
        count = above.visits
        if s.maxima:
            above.value = _greatest(t, b, x.parent)
        else:
            above.value = (above.value * count + gain) / (count + 1)
        above.variance = (above.variance * count + spread) / (count + 1)
        above.visits = count + 1
        if d > 0 and path[b, d - 1] != x.parent:  # came by a twin, which counts its own
            t.nodes[b, path[b, d - 1]].visits += 1


@njit(cache=True, nogil=True)
def advance(
    nodes, edges, bounds, states, actions, table,
    state, offered, reward, discount, value, variance, chance, logits, terminated, invalid,
    settings, front, here, chosen, path, scores, considered, first, turn, last,
):  # fmt: skip
    """Make the replies nodes of each tree, from number `first` on; then walk anew.

    At turn 0 there is no reply yet, at turn `last` no walk any more. `front` (4, B) int64 is where
    each walk ended, see `_descend`; `here` (B, S) and `chosen` (B, A) get the bytes of that node's
    state and of the action to take there. `considered` (turns, B) is how often the root's actions
    must have been visited to be looked into, for Gumbel. Returns what is wrong with a reply, and
    of which tree. Arrays and plain tuples come one by one, as numba is slow to recognise named
    tuples at a call.
    """
    t = Forest(nodes, edges, bounds, states, actions, table)
    reply = Reply(
        state, offered, reward, discount, value, variance, chance, logits, terminated, invalid
    )
    s = Settings(*settings)
    work = np.empty(edges.shape[2])
    for b in range(edges.shape[0]):
        if turn > 0:
            depth = front[3, b]
            if front[2, b] == _OPEN:
                wrong, made = _grow(t, s, front, reply, b, first)
                if wrong != FINE:
                    return wrong, b
                path[b, depth] = made
                depth += 1
            else:
                end = path[b, depth - 1] if depth > 0 else 0
                leaf = t.nodes[b, end]
                if leaf.ended or leaf.twin != end or not s.merge:  # else its children count
                    leaf.visits += 1
            _pass_up(t, s, path, b, depth)
        if turn < last:
            _descend(t, s, front, path, b, scores, considered[turn, b], turn + 1, work)
            _copy(states[b, front[0, b]], here[b])
            _copy(actions[b, front[0, b], front[1, b]], chosen[b])
    return FINE, 0


@njit(cache=True, nogil=True)
def completed(nodes, edges, bounds, states, actions, table, settings):
    """The roots' completed and scaled values (B, K)."""
    t, s = Forest(nodes, edges, bounds, states, actions, table), Settings(*settings)
    out = np.empty((edges.shape[0], edges.shape[2]))
    for b in range(edges.shape[0]):
        _complete(t, s, b, 0, out[b])
    return out


@njit(cache=True, nogil=True)
def subtrees(
    nodes, edges, bounds, states, actions, table,
    new_nodes, new_edges, new_bounds, new_states, new_actions, new_table,
    tops,
):  # fmt: skip
    """Copy what lies below node `tops[b]` (B,) of each tree, or nothing for -1; largest size.

    Trees without twins.
    """
    old = Forest(nodes, edges, bounds, states, actions, table)
    new = Forest(new_nodes, new_edges, new_bounds, new_states, new_actions, new_table)
    places, largest = np.empty(nodes.shape[1], np.int64), 1
    for b in range(nodes.shape[0]):
        if tops[b] >= 0:
            largest = max(largest, _subtree(old, new, b, tops[b], places))
    return largest


@njit(cache=True, nogil=True)
def _subtree(old, new, b, top, places):
    """Of one tree; `places` (N,) is room for each node's new number, or -1."""
    places[:] = -1
    places[top] = 0
    size = 1
    for node in range(places.shape[0]):  # parents have smaller numbers than their children
        x = old.nodes[b, node]
        if node != top and x.visits > 0 and x.parent >= 0 and places[x.parent] >= 0:
            places[node] = size
            size += 1
    for node in range(places.shape[0]):
        place = places[node]
        if place < 0:
            continue
        new.nodes[b, place] = old.nodes[b, node]
        x = new.nodes[b, place]
        x.twin, x.walk = place, 0
        x.parent = places[x.parent] if place > 0 else -1
        x.sibling = places[x.sibling] if place > 0 and x.sibling >= 0 else -1
        _copy(old.states[b, node], new.states[b, place])
        for a in range(new.edges.shape[2]):
            new.edges[b, place, a] = old.edges[b, node, a]
            _copy(old.actions[b, node, a], new.actions[b, place, a])
            edge = new.edges[b, place, a]
            if edge.child >= 0:
                edge.child = places[edge.child]
            if edge.visits > 0:
                new.bounds[b, 0] = min(new.bounds[b, 0], edge.q)
                new.bounds[b, 1] = max(new.bounds[b, 1], edge.q)
    new.nodes[b, 0].move = 0
    return size


def complain(wrong: int, where: str) -> None:
    """Raise ValueError for what is wrong with a model's answer, if anything is."""
    what = {
        BAD_REWARD: "a reward that is not finite",
        BAD_VALUE: "a value that is not finite",
        BAD_LOGITS: "logits that are not numbers",
        NO_ACTION: "no action that can be taken",
        BAD_DISCOUNT: "a discount outside [-1, 1]",
        BAD_CHANCE: "chances that do not sum to 1",
    }
    if wrong:
        raise ValueError(f"{where}: the model gave {what[wrong]}")
