"""Trees of a Monte Carlo search in preallocated arrays, and the compiled walk through them.

An edge is a node and the place of an action in it. Its outcomes are nodes, linked by `siblings`:
one for a deterministic model. What is known of an edge is the sum over its outcomes, so a node
holds what its edge needs: visits, and q, the reward into it plus its discounted value.
"""

from __future__ import annotations

import numpy as np
from numba import njit

UCT_RULE, PUCT_RULE, GUMBEL_RULE = 0, 1, 2

FINE, BAD_REWARD, BAD_VALUE, BAD_LOGITS, NO_ACTION = 0, 1, 2, 3, 4
"""What `advance` found wrong with a model's answer."""

_OPEN, _SEEN, _TERMINAL = 0, 1, 2  # a leaf is a new node; a known one at full depth; an end


@njit(cache=True, nogil=True)
def _edge(children, siblings, visits, q, b, node, action):
    """Visits of an edge and the sum of what they earned."""
    count, total = 0, 0.0
    child = children[b, node, action]
    while child >= 0:
        count += visits[b, child]
        total += visits[b, child] * q[b, child]
        child = siblings[b, child]
    return count, total


@njit(cache=True, nogil=True)
def _allowed(c, alpha, visits):
    """How many children may be open: ceil(c · visits^alpha), at least one."""
    return max(1, int(np.ceil(c * visits**alpha)))


@njit(cache=True, nogil=True)
def complete(children, siblings, visits, q, raw, priors, b, node, visit_init, scale, out):
    """Fill `out` (K,) with a node's completed and scaled values, mctx's; returns the most visits.

    Untried actions take the mixed value of Danihelka et al. 2022, appendix D.
    """
    actions = out.shape[0]
    seen, weight, mass, most = 0, 0.0, 0.0, 0
    for a in range(actions):
        prior = priors[b, node, a]
        count, total = _edge(children, siblings, visits, q, b, node, a)
        out[a] = total / count if count > 0 else np.nan
        if count > 0:
            seen += count
            most = max(most, count)
            prior = max(prior, 1.1754944e-38)  # the least float32
            mass += prior
            weight += prior * out[a]
    mixed = raw[b, node]
    if seen > 0:
        mixed = (mixed + seen * weight / mass) / (seen + 1)
    low, high = np.inf, -np.inf
    for a in range(actions):
        if np.isnan(out[a]):
            out[a] = mixed
        low, high = min(low, out[a]), max(high, out[a])
    factor = (visit_init + most) * scale / max(high - low, 1e-8)
    for a in range(actions):
        out[a] = (out[a] - low) * factor
    return most


@njit(cache=True, nogil=True)
def _select(
    rule, settings, children, siblings, visits, values, q, raw, priors, root_scores, wanted, b,
    node, work,
):  # fmt: skip
    """The action to look into at a node, the first of the best; -1 if none can be taken."""
    actions = priors.shape[2]
    best, best_score = -1, -np.inf
    here = visits[b, node]
    open_ = actions
    if settings[4] > 0:
        open_ = min(actions, _allowed(settings[4], settings[5], here))
    if rule == UCT_RULE:
        for a in range(open_):
            if priors[b, node, a] < 0:
                continue
            count, total = _edge(children, siblings, visits, q, b, node, a)
            if count == 0:
                return a
            score = total / count + 2 * settings[0] * np.sqrt(2 * np.log(here) / count)
            if score > best_score:
                best, best_score = a, score
    elif rule == PUCT_RULE:
        low = high = float(values[b, node])
        for a in range(open_):
            count, total = _edge(children, siblings, visits, q, b, node, a)
            work[a] = np.nan
            if count > 0:
                work[a] = total / count
                low, high = min(low, work[a]), max(high, work[a])
        weight = settings[0] + np.log((here + settings[1] + 1) / settings[1])
        weight *= np.sqrt(here)
        spread = max(high - low, 1e-8)
        for a in range(open_):
            prior = priors[b, node, a]
            if prior < 0:
                continue
            count, _ = _edge(children, siblings, visits, q, b, node, a)
            value = low if np.isnan(work[a]) else work[a]
            score = (value - low) / spread + weight * prior / (count + 1)
            if score > best_score:
                best, best_score = a, score
    else:
        complete(
            children, siblings, visits, q, raw, priors, b, node, settings[2], settings[1], work
        )
        if node == 0:
            for a in range(open_):
                count, _ = _edge(children, siblings, visits, q, b, node, a)
                if priors[b, node, a] < 0 or count != wanted:
                    continue
                score = max(-1e9, root_scores[b, a] + work[a])
                if score > best_score:
                    best, best_score = a, score
        else:
            norm, seen, top = 0.0, 0, -np.inf
            for a in range(open_):
                if priors[b, node, a] >= 0:
                    top = max(top, work[a])
            for a in range(open_):
                if priors[b, node, a] < 0:
                    continue
                work[a] = priors[b, node, a] * np.exp(work[a] - top)
                norm += work[a]
            for a in range(open_):
                count, _ = _edge(children, siblings, visits, q, b, node, a)
                seen += count
            for a in range(open_):
                if priors[b, node, a] < 0:
                    continue
                count, _ = _edge(children, siblings, visits, q, b, node, a)
                score = work[a] / norm - count / (1 + seen)
                if score > best_score:
                    best, best_score = a, score
    return best


@njit(cache=True, nogil=True)
def _descend(
    rule, settings, max_depth, children, siblings, visits, values, q, raw, priors, ended,
    root_scores, wanted, leaf, move, kind, b, work,
):  # fmt: skip
    """Walk from root b to where a node is to be added: its parent, the action and what it is."""
    node, depth = 0, 0
    while True:
        if ended[b, node]:
            leaf[b], move[b], kind[b] = node, 0, _TERMINAL
            return
        if depth == max_depth:
            leaf[b], move[b], kind[b] = node, 0, _SEEN
            return
        action = _select(
            rule, settings, children, siblings, visits, values, q, raw, priors, root_scores, wanted,
            b, node, work,
        )  # fmt: skip
        child = children[b, node, action]
        if child >= 0 and settings[6] > 0:
            count, number, least = 0, 0, child
            other = child
            while other >= 0:
                count += visits[b, other]
                number += 1
                if visits[b, other] < visits[b, least]:
                    least = other
                other = siblings[b, other]
            child = -1 if number < _allowed(settings[6], settings[7], count) else least
        if child < 0:
            leaf[b], move[b], kind[b] = node, action, _OPEN
            return
        node, depth = child, depth + 1


@njit(cache=True, nogil=True)
def set_priors(priors, b, node, logits, invalid):
    """Softmax of logits over the valid actions; what was wrong with them."""
    actions = priors.shape[2]
    top, total = -np.inf, 0.0
    for a in range(actions):
        if invalid[b, a]:
            continue
        if np.isnan(logits[b, a]) or logits[b, a] == np.inf:
            return BAD_LOGITS
        top = max(top, logits[b, a])
    if top == -np.inf:
        return NO_ACTION
    for a in range(actions):
        if invalid[b, a]:
            priors[b, node, a] = -1.0
        else:
            priors[b, node, a] = np.exp(logits[b, a] - top)
            total += priors[b, node, a]
    for a in range(actions):
        if not invalid[b, a]:
            priors[b, node, a] /= total
    return FINE


@njit(cache=True, nogil=True)
def advance(
    node, last, rule, settings, max_depth, children, siblings, visits, values, q, raw,
    rewards, discounts, parents, moves, priors, ended, root_scores, considered, leaf, move, kind,
    flat, reward, discount, value, logits, terminated, invalid,
):  # fmt: skip
    """Attach what the model said of the chosen leaves as node `node` and pass it up to the roots;
    then choose the next leaves, unless this was the `last`.

    Node 0 is the root: nothing is attached. Returns what is wrong, and with which root.
    """
    roots, actions = children.shape[0], children.shape[2]
    work = np.empty(actions)
    for b in range(roots):
        if node > 0:
            at = leaf[b]
            if kind[b] == _OPEN:
                if not np.isfinite(reward[b]):
                    return BAD_REWARD, b
                action = move[b]
                parents[b, node], moves[b, node] = at, action
                rewards[b, node] = reward[b]
                siblings[b, node] = children[b, at, action]
                children[b, at, action] = node
                if terminated[b]:
                    ended[b, node] = True
                    discounts[b, node] = 0.0
                else:
                    if not np.isfinite(value[b]):
                        return BAD_VALUE, b
                    wrong = set_priors(priors, b, node, logits, invalid)
                    if wrong != FINE:
                        return wrong, b
                    discounts[b, node] = discount[b]
                    raw[b, node] = values[b, node] = value[b]
                at = node
            visits[b, at] += 1
            gain = float(raw[b, at])  # 0 at an end
            q[b, at] = rewards[b, at] + discounts[b, at] * values[b, at]
            while at > 0:
                gain = rewards[b, at] + discounts[b, at] * gain
                at = parents[b, at]
                values[b, at] = (values[b, at] * visits[b, at] + gain) / (visits[b, at] + 1)
                visits[b, at] += 1
                if at > 0:
                    q[b, at] = rewards[b, at] + discounts[b, at] * values[b, at]
        if not last:
            _descend(
                rule, settings, max_depth, children, siblings, visits, values, q, raw, priors,
                ended, root_scores, considered[b, node], leaf, move, kind, b, work,
            )  # fmt: skip
            flat[b] = leaf[b] * roots + b
    return FINE, 0
