"""Selection rules of a search: the base class, UCT, PUCT and Gumbel MuZero.

A new rule is a subclass of `Rule`, in any file.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from torch import Generator, Tensor

from planners.checks import NonNegativeFloat, PositiveFloat, PositiveInt, Share, check_fields
from planners.compile import compiled
from planners.mcts.kernel import open_actions
from planners.mcts.types import Forest


class Rule(ABC):
    """Which action a search selects in each node, and which it returns for the root.

    A rule is a frozen dataclass of its settings with a static method `select`, compiled by
    `numba.njit`, and a method `prepare`; the other methods have defaults.
    """

    select: ClassVar[Callable[..., int]]
    """`select(forest, b, node, simulation, settings, parameters) -> action`.

    The action to follow from a node of tree `b` of a `Forest`; it must be valid (a prior of at
    least 0). `simulation` counts from 0, `settings` is the search's `Settings`, and `parameters`
    is what `prepare` returned."""

    @abstractmethod
    def prepare(
        self,
        priors: Float[np.ndarray, "B K"],
        *,
        simulations: int,
        noise: Float[np.ndarray, "B K"] | None,
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, "B K"], tuple]:
        """Begin a search.

        Args:
            priors: priors of the roots; -1 for invalid actions.
            simulations: number of simulations of the search.
            noise: finite numbers to use instead of draws.
            rng: random stream of the rule.

        Returns:
            The roots' priors, with noise if the rule adds it, and the parameters of `select`:
            numbers and arrays, of the same types in every search.
        """

    def answer(
        self, forest: Forest, parameters: tuple, *, generator: Generator
    ) -> tuple[Int[Tensor, " B"], Float[Tensor, "B K"]]:
        """The action and policy of each root; by default the most visited, and visit shares."""
        visits = root_visits(forest)
        return torch.from_numpy(visits.argmax(1)), torch.from_numpy(_shares(visits)).float()

    def check(self, *, start: bool, widening: bool) -> None:
        """Raise ValueError if the rule cannot continue a tree, or cannot widen progressively."""
        return

    def quiet(self) -> Rule:
        """The rule for evaluation: without noise and with the best action as the answer."""
        return self


def root_visits(forest: Forest) -> Int[np.ndarray, "B K"]:
    """Visits of the roots' actions."""
    return forest.edges["visits"][:, 0].astype(np.int64)


def _shares(visits: np.ndarray) -> np.ndarray:
    return visits / visits.sum(1, keepdims=True).clip(1)  # a terminal root has no visits


# ------------------------------------------------------------------------------------- UCT


@dataclass(frozen=True)
class UCT(Rule):
    """Q/N + 2 C sqrt(2 ln N_parent / N), untried actions first (Browne et al. 2012, eq. 3).

    Returns should be of order 1. The result is the most visited action.
    """

    c: NonNegativeFloat = 1 / math.sqrt(2)
    """C; 1/√2 suits returns in [0, 1]."""
    optimism: float = 0.0
    """Factor of the epistemic std of the value after an action, which is added to its Q. Negative
    values avoid uncertain actions."""

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    @njit(nogil=True)
    def select(forest, b, node, simulation, settings, parameters):
        """The action of the highest upper confidence bound."""
        c, optimism = parameters
        best, best_score, log_visits = -1, -np.inf, np.log(forest.nodes[b, node].visits)
        for a in range(open_actions(forest, settings, b, node)):
            edge = forest.edges[b, node, a]
            if edge.prior < 0:
                continue
            if edge.visits == 0:
                return a
            score = edge.q + 2 * c * np.sqrt(2 * log_visits / edge.visits)
            if optimism != 0:
                score += optimism * np.sqrt(edge.variance)
            if score > best_score:
                best, best_score = a, score
        return best

    def prepare(self, priors, *, simulations, noise, rng):
        """See `Rule`; there is no noise."""
        return priors, (float(self.c), float(self.optimism))


# ------------------------------------------------------------------------------------ PUCT

_NONE, _SIBLINGS, _TREE = range(3)
_SCALES = {"none": _NONE, "siblings": _SIBLINGS, "tree": _TREE}


@dataclass(frozen=True)
class PUCT(Rule):
    """Q + c(N) P sqrt(N) / (1 + n), with c(N) = init + log((N + base + 1) / base), as in mctx."""

    init: NonNegativeFloat = 1.25
    """Weight of the prior."""
    base: PositiveFloat = 19652.0
    """The larger it is, the more slowly the weight of the prior grows with N."""
    scale: Literal["siblings", "tree", "none"] = "siblings"
    """Q is mapped to [0, 1] by the least and greatest value of a node and its actions (mctx), or of
    the whole tree (MuZero)."""
    dirichlet: Share = 0.25
    """Weight of Dirichlet noise in the root's prior, in [0, 1]."""
    alpha: PositiveFloat = 0.3
    """Concentration of the noise: the smaller it is, the more the noise favours a single action."""
    temperature: NonNegativeFloat = 1.0
    """The result is drawn in proportion to visits^(1 / temperature); 0 takes the most visited."""
    optimism: float = 0.0
    """As for `UCT` (Oren et al. 2025, "Epistemic Monte Carlo tree search")."""

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    @njit(nogil=True)
    def select(forest, b, node, simulation, settings, parameters):
        """The action with the highest sum of scaled Q and prior term."""
        init, base, scale, optimism = parameters
        count = open_actions(forest, settings, b, node)
        visits, mass, low, width = forest.nodes[b, node].visits, 1.0, 0.0, 1.0
        if scale == _SIBLINGS:
            low = high = forest.nodes[b, node].value + 0.0
            for a in range(count):
                edge = forest.edges[b, node, a]
                if edge.visits > 0:
                    low, high = min(low, edge.q), max(high, edge.q)
            width = max(high - low, 1e-8)
        elif scale == _TREE:
            low = forest.bounds[b, 0]
            width = max(forest.bounds[b, 1] - low, 1e-8)
        if count < forest.edges.shape[2]:  # the prior of the open actions is normalised
            mass = 1e-30
            for a in range(count):
                mass += max(forest.edges[b, node, a].prior, 0.0)
        weight = np.sqrt(visits) * (init + np.log((visits + base + 1) / base)) / mass
        best, best_score = -1, -np.inf
        for a in range(count):
            edge = forest.edges[b, node, a]
            if edge.prior < 0:
                continue
            score = weight * edge.prior / (edge.visits + 1)
            if edge.visits > 0:
                score += (edge.q - low) / width
                if optimism != 0:
                    score += optimism * np.sqrt(edge.variance) / width
            if score > best_score:
                best, best_score = a, score
        return best

    def prepare(self, priors, *, simulations, noise, rng):
        """See `Rule`; `noise` is Dirichlet noise.

        Noise of invalid actions is dropped, and the rest is normalised. Raises ValueError for
        negative noise, or noise that is 0 for all valid actions of a root.
        """
        parameters = float(self.init), float(self.base), _SCALES[self.scale], float(self.optimism)
        if not self.dirichlet > 0:
            return priors, parameters
        valid = priors >= 0
        if noise is None:
            noise = _dirichlet(self.alpha, valid, rng)
        elif (noise < 0).any() or not ((noise * valid).sum(1) > 0).all():
            raise ValueError(
                "Dirichlet noise must be at least 0, and above 0 for a valid action of every root"
            )
        draws = noise * valid
        draws = draws / draws.sum(1, keepdims=True)
        mixed = (1 - self.dirichlet) * priors + self.dirichlet * draws
        return np.where(valid, mixed, priors).astype(priors.dtype), parameters

    def answer(self, forest, parameters, *, generator):
        """See `Rule`; the action is drawn by its visits and the temperature."""
        action, policy = super().answer(forest, parameters, generator=generator)
        if self.temperature > 0:
            shares = _shares(root_visits(forest))
            top = shares.max(1, keepdims=True).clip(1e-30)
            upto = ((shares / top) ** (1 / self.temperature)).cumsum(1)
            draw = torch.rand(len(shares), 1, generator=generator, device=generator.device)
            drawn = (upto <= draw.numpy(force=True) * upto[:, -1:]).sum(1)
            action = torch.from_numpy(drawn.clip(max=shares.shape[1] - 1))
        return action, policy

    def quiet(self) -> PUCT:
        """The same rule without Dirichlet noise, which returns the most visited action."""
        return replace(self, dirichlet=0.0, temperature=0.0)


def _dirichlet(alpha: float, valid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma draws (B, K), which are Dirichlet when normalised; 0 for invalid actions."""
    draws = rng.standard_gamma(alpha, valid.shape) * valid
    for b in np.flatnonzero(draws.sum(1) < 1e-30):  # with a small alpha all may underflow
        draws[b] = 0
        draws[b, rng.choice(np.flatnonzero(valid[b]))] = 1
    return draws


# ---------------------------------------------------------------------------------- Gumbel


@njit(nogil=True)
def _complete(nodes, edges, b, node, value_scale, visit_init, out):
    """Fill `out` (K,) with a node's completed and scaled values, as mctx does.

    Untried actions take the mixed value of Danihelka et al. 2022, appendix D.
    """
    actions = out.shape[0]
    seen, weight, mass, most = 0, 0.0, 0.0, 0
    low, high = np.inf, -np.inf
    for a in range(actions):
        edge = edges[b, node, a]
        if edge.visits > 0:
            seen += edge.visits
            most = max(most, edge.visits)
            prior = max(edge.prior, 1.1754944e-38)  # the least float32
            mass += prior
            weight += prior * edge.q
            low, high = min(low, edge.q), max(high, edge.q)
    mixed = nodes[b, node].raw + 0.0
    if seen > 0:
        mixed = (mixed + seen * weight / mass) / (seen + 1)
    for a in range(actions):
        edge = edges[b, node, a]
        out[a] = edge.q if edge.visits > 0 else mixed
        low, high = min(low, out[a]), max(high, out[a])
    factor = (visit_init + most) * value_scale / max(high - low, 1e-8)
    for a in range(actions):
        out[a] = (out[a] - low) * factor


@compiled
def _root_values(nodes, edges, value_scale, visit_init):
    """Completed and scaled values (B, K) of the roots."""
    out = np.empty((edges.shape[0], edges.shape[2]))
    for b in range(edges.shape[0]):
        _complete(nodes, edges, b, 0, value_scale, visit_init, out[b])
    return out


@njit(nogil=True)
def _halve(edges, b, wanted, scores, completed):
    """The action with the highest score and value among root actions with `wanted` visits."""
    best, best_score = -1, -np.inf
    for a in range(completed.shape[0]):
        edge = edges[b, 0, a]
        if edge.prior < 0 or edge.visits != wanted:
            continue
        score = max(-1e9, scores[b, a] + completed[a])
        if score > best_score:
            best, best_score = a, score
    return best


@njit(nogil=True)
def _follow_improved_policy(edges, b, node, completed):
    """The action whose share of visits is furthest below its probability in the improved policy.

    Overwrites `completed` (K,).
    """
    actions, top, norm, seen = completed.shape[0], -np.inf, 0.0, 0
    for a in range(actions):
        if edges[b, node, a].prior >= 0:
            top = max(top, completed[a])
    for a in range(actions):
        edge = edges[b, node, a]
        if edge.prior >= 0:
            completed[a] = edge.prior * np.exp(completed[a] - top)
            norm += completed[a]
        seen += edge.visits
    best, best_score = -1, -np.inf
    for a in range(actions):
        edge = edges[b, node, a]
        if edge.prior >= 0:
            score = completed[a] / norm - edge.visits / (1 + seen)
            if score > best_score:
                best, best_score = a, score
    return best


@dataclass(frozen=True)
class Gumbel(Rule):
    """Sequential halving over a sample of the root's actions; below the root, the improved policy.

    Danihelka et al. 2022, "Policy improvement by planning with Gumbel". Values of untried actions
    are completed from the network's value, and the improved policy is better than the prior for
    any number of simulations.
    """

    considered: PositiveInt = 16
    """Maximum number of root actions sampled for sequential halving."""
    scale: NonNegativeFloat = 1.0
    """Scale of the Gumbel noise; 0 for evaluation, 1 to explore in training."""
    value_scale: NonNegativeFloat = 0.1
    """Weight of the completed values."""
    visit_init: NonNegativeFloat = 50.0
    """Number added to the visits by which that weight is multiplied."""

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    @njit(nogil=True)
    def select(forest, b, node, simulation, settings, parameters):
        """At the root by sequential halving, below it by the improved policy."""
        scores, schedule, completed, value_scale, visit_init = parameters
        nodes, edges = forest.nodes, forest.edges
        _complete(nodes, edges, b, node, value_scale, visit_init, completed)
        if node == 0:
            return _halve(edges, b, schedule[simulation, b], scores, completed)
        return _follow_improved_policy(edges, b, node, completed)

    def check(self, *, start: bool, widening: bool) -> None:
        """See `Rule`; neither is supported."""
        if start:
            raise ValueError("Gumbel cannot continue a tree: its root's actions need equal visits")
        if widening:
            raise ValueError(
                "Gumbel does not support widening: it samples and halves the actions itself"
            )

    def prepare(self, priors, *, simulations, noise, rng):
        """See `Rule`; `noise` is Gumbel noise."""
        draws = rng.gumbel(size=priors.shape) if noise is None else noise
        valid = priors >= 0
        with np.errstate(divide="ignore"):
            logits = np.log(np.where(valid, priors, 0))
        scores = self.scale * draws + logits - logits.max(1, keepdims=True)
        schedule = np.zeros((simulations, len(priors)), np.int64)
        numbers = np.minimum(valid.sum(1), self.considered)
        for number in np.unique(numbers):
            schedule[:, numbers == number] = np.array(halving(int(number), simulations))[:, None]
        completed = np.empty(priors.shape[1])
        weights = float(self.value_scale), float(self.visit_init)
        return priors, (scores.astype(np.float32), schedule, completed, *weights)

    def answer(self, forest, parameters, *, generator):
        """See `Rule`; the best of the most visited actions, and the improved policy."""
        scores, _, _, value_scale, visit_init = parameters
        nodes, edges = forest.nodes, forest.edges
        visits, priors = root_visits(forest), edges["prior"][:, 0]
        values = _root_values(nodes, edges, value_scale, visit_init)
        most = (visits == visits.max(1, keepdims=True)) & (priors >= 0)
        ranks = np.where(most, np.maximum(scores + values, -1e9), -np.inf)
        logits = torch.from_numpy(priors).double().clamp_min(0).log() + torch.from_numpy(values)
        return torch.from_numpy(ranks.argmax(1)), logits.softmax(1).float()

    def quiet(self) -> Gumbel:
        """The same rule without Gumbel noise."""
        return replace(self, scale=0.0)


def halving(considered: int, simulations: int) -> list[int]:
    """For each simulation, how many visits the selected root action has before it.

    Sequential halving (Karnin et al. 2013) in the order of Danihelka et al. 2022, algorithm 2: all
    actions are visited equally often, then the better half is kept, and so on down to two.
    """
    if considered <= 1:
        return list(range(simulations))
    rounds = math.ceil(math.log2(considered))
    visits, order, left = [0] * considered, [], considered
    while len(order) < simulations:
        for _ in range(max(1, simulations // (rounds * left))):
            order += visits[:left]
            visits[:left] = [v + 1 for v in visits[:left]]
        left = max(2, left // 2)
    return order[:simulations]
