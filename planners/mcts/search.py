"""Monte Carlo tree search, for many roots at once.

One search for every rule: UCT (Kocsis and Szepesvári 2006; Browne et al. 2012), PUCT as in MuZero
(Schrittwieser et al. 2020) and Gumbel MuZero (Danihelka et al. 2022). Continuous actions and
stochastic models go by double progressive widening (Couëtoux et al. 2011).

Letters: B roots, S state, K actions of a node (all of them, or a sample), A action size, N nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from planners.mcts import kernel as tree
from planners.mcts.walk import CompiledWalk, blank


class Evaluation(NamedTuple):
    """What a model says of a step of every root; of C outcomes each, shapes begin with (B, C)."""

    state: Float[Tensor, "B S"]
    reward: Float[Tensor, B]
    value: Float[Tensor, B]  # of the state; ignored where it is terminal
    logits: Float[Tensor, "B K"] | None = None  # prior; None where all actions are alike
    terminated: Bool[Tensor, B] | None = None  # None where nothing ends
    discount: Float[Tensor, B] | None = None  # in place of γ; -1 where the other side is to move
    variance: Float[Tensor, B] | None = None  # epistemic, of the value: what members disagree on
    invalid: Bool[Tensor, "B K"] | None = None  # actions that cannot be taken there
    actions: Float[Tensor, "B K A"] | None = None  # what the K are, where they are a sample
    chance: Float[Tensor, "B C"] | None = None  # of each outcome; 0 for one that is not there


StepFn = Callable[[Tensor, Tensor], Evaluation]
"""`step(state (B, S), action (B,) or (B, A)) -> Evaluation`; indices unless actions are samples.

What it is given is written over at the next simulation: keep a clone.
"""


@dataclass(frozen=True)
class UCT:
    """Q/N + 2 C sqrt(2 ln N_parent / N), untried actions first (Browne et al. 2012, eq. 3).

    Its values want to be about as large as 1; the answer is the most visited action.
    """

    c: float = 1 / math.sqrt(2)
    """C; 1/√2 suits returns in [0, 1]."""
    optimism: float = 0.0
    """Times the epistemic std of what follows an action, added to its value; under 0 is caution."""


@dataclass(frozen=True)
class PUCT:
    """Q + c(N) P sqrt(N) / (1 + n), with c(N) = init + log((N + base + 1) / base), as in mctx."""

    init: float = 1.25
    """Weight of the prior."""
    base: float = 19652.0
    """How slowly it grows."""
    scale: Literal["siblings", "tree", "none"] = "siblings"
    """Q is mapped to [0, 1] by the least and greatest of a node and its actions (mctx), or of the
    whole tree (MuZero)."""
    dirichlet: float = 0.25
    """Share of Dirichlet noise in the root's prior."""
    alpha: float = 0.3
    """Of the noise: the smaller, the more of it falls on one action."""
    temperature: float = 1.0
    """The answer is drawn by visits to the power of 1 / temperature; 0 takes the most visited."""
    optimism: float = 0.0
    """As for `UCT` (Oren et al. 2025, "Epistemic Monte Carlo tree search")."""


@dataclass(frozen=True)
class Gumbel:
    """Sequential halving over the root's best draws, and below it the policy it makes better.

    Danihelka et al. 2022, "Policy improvement by planning with Gumbel": completed values, mixed
    with the network's; the search's policy is better than the prior at any number of simulations.
    """

    considered: int = 16
    """Actions that the root draws and halves, at most."""
    scale: float = 1.0
    """Of the Gumbel noise; 0 for the best answer, not for one to learn from."""
    value_scale: float = 0.1
    """Weight of the completed values."""
    visit_init: float = 50.0
    """Visits that the weight starts from."""


Rule = UCT | PUCT | Gumbel


@dataclass(frozen=True)
class Widening:
    """How many children may be open after n visits: ceil(c · n^alpha), at least one."""

    c: float = 1.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not (self.c > 0 and 0 < self.alpha < 1):
            raise ValueError(
                f"widening needs c > 0 and alpha in (0, 1), got {self.c!r} and {self.alpha!r}"
            )


@dataclass(frozen=True, eq=False)
class Tree:
    """What a search found, and all it looked at. A node that was never made has 0 visits.

    Arrays are (B, N) and, a node's actions apart, (B, N, K); node 0 is the root. They lie on the
    CPU, `action` and `policy` on the device of the roots.
    """

    action: Int[Tensor, B]
    """What to do: the place of an action among the root's K."""
    policy: Float[Tensor, "B K"]
    """Shares of the root's visits; for Gumbel the improved policy."""
    forest: tree.Forest
    """All of it, in numpy: `tree.NODE` and `tree.EDGE` say what there is."""
    states: Float[Tensor, "B N S"]
    actions: Float[Tensor, "B N K A"] | None
    """What the K actions of each node are, where they are a sample."""

    def _nodes(self, name: str) -> Tensor:
        """A field of `tree.NODE` (B, N)."""
        return torch.from_numpy(self.forest.nodes[name])

    def _edges(self, name: str) -> Tensor:
        """A field of `tree.EDGE` (B, N, K)."""
        return torch.from_numpy(self.forest.edges[name])

    @property
    def value(self) -> Float[Tensor, B]:
        """Of the roots."""
        return self.values[:, 0]

    @property
    def visits(self) -> Int[Tensor, "B N"]:
        """How often a simulation came by; 0 for a node that is not there."""
        return self._nodes("visits")

    @property
    def values(self) -> Float[Tensor, "B N"]:
        """What the nodes are worth, by the search's `backup`."""
        return self._nodes("value")

    @property
    def raw_values(self) -> Float[Tensor, "B N"]:
        """As the model gave them."""
        return self._nodes("raw")

    @property
    def rewards(self) -> Float[Tensor, "B N"]:
        """Of the step into the node."""
        return self._nodes("reward")

    @property
    def discounts(self) -> Float[Tensor, "B N"]:
        """Of the node's value in its parent's; 0 where it is terminal."""
        return self._nodes("discount")

    @property
    def parents(self) -> Int[Tensor, "B N"]:
        """-1 for the root."""
        return self._nodes("parent")

    @property
    def moves(self) -> Int[Tensor, "B N"]:
        """Action from the parent."""
        return self._nodes("move")

    @property
    def children(self) -> Int[Tensor, "B N K"]:
        """First outcome of each action; -1 if untried."""
        return self._edges("child")

    @property
    def siblings(self) -> Int[Tensor, "B N"]:
        """The next outcome of the same action; -1 for none."""
        return self._nodes("sibling")

    @property
    def twins(self) -> Int[Tensor, "B N"]:
        """The first node of the same state, where a search merges them; else the node itself."""
        return self._nodes("twin")

    @property
    def priors(self) -> Float[Tensor, "B N K"]:
        """Probabilities; -1 for actions that cannot be taken."""
        return self._edges("prior")

    @property
    def chances(self) -> Float[Tensor, "B N"]:
        """Of the node among the outcomes of its action, where the model gave them; else 0."""
        return self._nodes("chance")

    @property
    def variances(self) -> Float[Tensor, "B N"]:
        """Epistemic: means over all simulations that came by."""
        return self._nodes("variance")

    def after(self, action: Int[Tensor, B], state: Float[Tensor, "B S"] | None = None) -> Tree:
        """What is below an action of each root, for `search` to go on with after a real step.

        Where an action has several outcomes it is the one nearest to the real `state`, or the most
        visited; an untried one leaves an empty tree. Raises ValueError for a tree with twins.
        """
        old = self.forest
        if old.table.size:
            raise ValueError("a tree with twins cannot be gone on with: what follows is shared")
        roots, most, actions = old.edges.shape
        tops, action = np.full(roots, -1), action.cpu()
        for b in range(roots):
            child, found = int(old.edges["child"][b, 0, int(action[b])]), []
            while child >= 0:
                found.append(child)
                child = int(old.nodes["sibling"][b, child])
            if found and state is not None:
                apart = (self.states[b, found] - state[b].to(self.states)).square().sum(-1)
                tops[b] = found[int(apart.argmin())]
            elif found:
                tops[b] = max(found, key=lambda node: old.nodes["visits"][b, node])
        samples = None if self.actions is None else self.actions[:, 0]
        kept, *_ = blank(self.states[:, 0], samples, most, actions)
        size = tree.subtrees(*old, *kept, tops)
        cut, states, moves = blank(self.states[:, 0], samples, size, actions)
        for whole, part in zip(kept, cut, strict=True):
            part[:] = whole[:, : part.shape[1]]
        nothing = torch.zeros_like(self.action), torch.zeros_like(self.policy)
        return Tree(*nothing, cut, states, moves)

    def children_visits(self) -> Int[Tensor, "B K"]:
        """Visits of the root's actions."""
        return self._edges("visits")[:, 0]

    def children_values(self) -> Float[Tensor, "B K"]:
        """Q of the root's actions, 0 where untried."""
        return self._edges("q")[:, 0]


@torch.no_grad()
def search(
    root: Evaluation,
    step: StepFn,
    *,
    simulations: int,
    generator: Generator,
    rule: Rule | None = None,
    discount: float = 1.0,
    max_depth: int | None = None,
    widening: Widening | None = None,
    outcomes: Widening | int | None = None,
    noise: Float[Tensor, "B K"] | None = None,
    start: Tree | None = None,
    merge: bool = False,
    backup: Literal["mean", "max"] = "mean",
) -> Tree:
    """Look ahead from B roots; each simulation adds a node to each tree, or the node's outcomes.

    Args:
        root: state, value and prior of the roots; its reward and termination are not used.
        step: the model, asked once a simulation for all roots. Where a simulation came to an end,
            or to the full depth, it is asked all the same and what it says is not looked at.
        simulations: of each root.
        generator: draws the noise at the root and the answer.
        rule: which action to look into; PUCT if None.
        discount: γ.
        max_depth: actions ahead, at most.
        widening: open a node's actions one by one as it is visited, in the order that they have.
        outcomes: of one action. None: the first is taken to be the only one. A `Widening`, for a
            model that draws them: more of them the more the action is tried, each visited as
            often. A number C, for a model that gives C outcomes at once and their chances: all
            become nodes, the action is worth their expectation, and they are visited by chance.
        noise: Dirichlet or Gumbel draws to take instead of the generator's.
        start: go on with this tree (`Tree.after`), whose root's prior is then that of `root`.
            One that has ended stays as it is, its policy 0.
        merge: nodes of one tree whose states are the same, bit for bit, are twins: they share
            what is known of what follows (transpositions; Czech et al. 2021, "Improving AlphaZero
            using Monte-Carlo graph search"). For few states that many paths lead to. Then values
            follow from the children's as they are now, and a walk ends where it would go round.
        backup: what a node is worth. "mean": what all simulations found that came by, exploring
            ones too. "max": the best action that was tried, which with all outcomes given is
            Bellman's (MaxUCT and DP-UCT; Keller and Helmert 2013, "Trial-based heuristic tree
            search for finite horizon MDPs"): faster where the model is true, and rash where it
            or its values err, as the greatest of what errs is too great.

    Raises:
        ValueError: simulations or depth below one, a discount outside [0, 1], an unknown backup,
            wrong shapes, a state all of whose actions are invalid, a model that returns NaN or
            chances that do not sum to 1, Gumbel with a start (sequential halving counts on equal
            visits) or with `widening`, drawn outcomes or a start with `merge`.
    """
    rule = PUCT() if rule is None else rule
    actions = _check(root, simulations, discount, max_depth, outcomes)
    if start is not None and isinstance(rule, Gumbel):
        raise ValueError("Gumbel cannot go on with a tree: its root's actions need equal visits")
    if widening is not None and isinstance(rule, Gumbel):
        raise ValueError("Gumbel takes no widening: it halves a sample of the actions by itself")
    if backup not in ("mean", "max"):
        raise ValueError(f"backup must be 'mean' or 'max', got {backup!r}")
    if merge and (start is not None or isinstance(outcomes, Widening)):
        raise ValueError("merge takes neither a start nor outcomes that are drawn")
    device = root.state.device
    walk = CompiledWalk(
        root,
        actions,
        _settings(rule, max_depth, widening, outcomes, merge, backup),
        discount=discount,
        simulations=simulations,
        start=None if start is None else _fitting(start, root, actions),
    )
    priors = walk.priors
    scores = _root_noise(rule, priors, noise, generator)
    walk.begin(priors, scores, _considered(rule, priors, simulations))
    here, chosen = walk.advance(None, 0)
    for turn in range(simulations):
        here, chosen = walk.advance(step(here, chosen), turn + 1)
    action, policy = _answer(rule, walk, priors, scores, generator)
    return Tree(action.to(device), policy.to(device), walk.grown, walk.states, walk.actions)


def _fitting(start: Tree, root: Evaluation, actions: int) -> tree.Forest:
    """The trees to go on with, if they are such as the roots will have."""
    had, wanted = (
        (size, tuple(states.shape[-1:]), states.dtype, samples is None)
        for size, states, samples in (
            (tuple(start.policy.shape), start.states, start.actions),
            ((len(root.state), actions), root.state, root.actions),
        )
    )
    if had != wanted:
        raise ValueError(
            f"start must have the root's (B, K), (S,), type and whether actions are indices, "
            f"{wanted}, got {had}"
        )
    return start.forest


def _answer(
    rule: Rule,
    walk: CompiledWalk,
    prior: np.ndarray,
    scores: np.ndarray,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """What to do at the roots, and their policy."""
    counts = walk.counts().astype(np.int64)
    total = counts.sum(1, keepdims=True).clip(1)  # 0 where the root of a `start` has ended
    shares = counts / total
    policy = torch.from_numpy(shares.astype(np.float32))
    if isinstance(rule, Gumbel):
        wide = walk.completed()
        best = (counts == counts.max(1, keepdims=True)) & (prior >= 0)
        ranks = np.where(best, np.maximum(scores + wide, -1e9), -np.inf)
        logits = torch.from_numpy(prior).double().clamp_min(0).log() + torch.from_numpy(wide)
        return torch.from_numpy(ranks.argmax(1)), logits.softmax(1).float()
    if isinstance(rule, PUCT) and rule.temperature > 0:
        top = shares.max(1, keepdims=True).clip(1e-30)
        upto = ((shares / top) ** (1 / rule.temperature)).cumsum(1)
        draw = torch.rand(len(counts), 1, generator=generator, device=generator.device)
        drawn = (upto <= draw.numpy(force=True) * upto[:, -1:]).sum(1)
        return torch.from_numpy(drawn.clip(max=counts.shape[1] - 1)), policy
    return torch.from_numpy(counts.argmax(1)), policy


def _settings(
    rule: Rule,
    max_depth: int | None,
    widening: Widening | None,
    outcomes: Widening | int | None,
    merge: bool,
    backup: Literal["mean", "max"],
) -> tree.Settings:
    """What the walk is to do, in plain numbers."""
    own: dict[str, Any] = {"merge": merge, "maxima": backup == "max"}
    own["max_depth"] = 2**31 - 1 if max_depth is None else max_depth
    if isinstance(outcomes, int):
        own["exact"] = outcomes
    if widening is not None:
        own |= {"opening": float(widening.c), "opening_power": float(widening.alpha)}
    if isinstance(outcomes, Widening):
        own |= {"drawing": float(outcomes.c), "drawing_power": float(outcomes.alpha)}
    if isinstance(rule, UCT):
        own |= {"rule": tree.UCT_RULE, "c": float(rule.c), "optimism": float(rule.optimism)}
    elif isinstance(rule, PUCT):
        own |= {"rule": tree.PUCT_RULE, "c": float(rule.init), "base": float(rule.base)}
        own |= {"scale": _SCALES[rule.scale], "optimism": float(rule.optimism)}
    else:
        own |= {"rule": tree.GUMBEL_RULE, "value_scale": float(rule.value_scale)}
        own |= {"visit_init": float(rule.visit_init)}
    return tree.Settings(**own)


_SCALES = {"none": tree.RAW, "siblings": tree.SIBLINGS, "tree": tree.WHOLE}


def _root_noise(
    rule: Rule, priors: np.ndarray, noise: Tensor | None, generator: Generator
) -> np.ndarray:
    """Mix Dirichlet noise into the roots' priors (B, K), or give Gumbel's scores (B, K)."""
    valid = priors >= 0
    if noise is not None and noise.shape != priors.shape:
        raise ValueError(f"noise must be {priors.shape}, got {tuple(noise.shape)}")
    given = None if noise is None else noise.numpy(force=True)
    if given is not None and not np.isfinite(given).all():
        raise ValueError("noise must be finite")
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    rng = np.random.default_rng(int(seed))
    if isinstance(rule, PUCT) and rule.dirichlet > 0:
        draws = rng.standard_gamma(rule.alpha, priors.shape) * valid if given is None else given
        draws = draws / draws.sum(1, keepdims=True).clip(1e-30)
        mixed = (1 - rule.dirichlet) * priors + rule.dirichlet * draws
        priors[valid] = mixed[valid]
    if not isinstance(rule, Gumbel):
        return np.zeros(priors.shape, np.float32)
    draws = rng.gumbel(size=priors.shape) if given is None else given
    with np.errstate(divide="ignore"):
        logits = np.log(np.where(valid, priors, 0))
    return (rule.scale * draws + logits - logits.max(1, keepdims=True)).astype(np.float32)


def _considered(rule: Rule, priors: np.ndarray, simulations: int) -> np.ndarray:
    """Visits (simulations + 1, B) that an action needs to be considered in each simulation."""
    table = np.zeros((simulations + 1, len(priors)), dtype=np.int64)
    if isinstance(rule, Gumbel):
        numbers = np.minimum((priors >= 0).sum(1), rule.considered)
        for number in np.unique(numbers):
            turns = np.array(halving(int(number), simulations))
            table[:simulations, numbers == number] = turns[:, None]
    return table


def halving(considered: int, simulations: int) -> list[int]:
    """How often an action was visited when its turn comes, in sequential halving (Karnin 2013).

    The order of Danihelka et al. 2022, algorithm 2: all are visited equally often, then the
    better half goes on, down to two.
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


def _check(
    root: Evaluation,
    simulations: int,
    discount: float,
    max_depth: int | None,
    outcomes: Widening | int | None,
) -> int:
    """K of a search that makes sense."""
    counts = {"simulations": simulations, "max_depth": max_depth}
    if not isinstance(outcomes, Widening):
        counts["outcomes"] = outcomes
    for name, number in counts.items():
        if number is not None and not (isinstance(number, int) and number >= 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount!r}")
    if root.state.ndim != 2:
        raise ValueError(f"the root's state must be (B, S), got {tuple(root.state.shape)}")
    roots = len(root.state)
    wide = [x for x in (root.logits, root.invalid, root.actions) if x is not None]
    if not wide:
        raise ValueError("the root must say how many actions there are: by logits, even if all 0")
    actions = wide[0].shape[1]
    for x in wide:
        if x.shape[:2] != (roots, actions):
            raise ValueError(
                f"the root's logits, invalid and actions must begin with (B, K) = "
                f"({roots}, {actions}), got {tuple(x.shape)}"
            )
    return actions
