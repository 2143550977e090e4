"""Monte Carlo tree search, for many roots at once.

One search for every rule: UCT (Kocsis and Szepesvári 2006; Browne et al. 2012), PUCT as in MuZero
(Schrittwieser et al. 2020) and Gumbel MuZero (Danihelka et al. 2022). Continuous actions and
stochastic models go by double progressive widening (Couëtoux et al. 2011).

Letters: B roots, S state, K actions of a node (all of them, or a sample), A action size, N nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from planners import tree


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

    Arrays are (B, N) and, a node's actions apart, (B, N, K); node 0 is the root.
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

    @property
    def value(self) -> Float[Tensor, B]:
        """Of the roots, the mean over all simulations."""
        return self.values[:, 0]

    @property
    def visits(self) -> Int[Tensor, "B N"]:
        """How often a simulation came by; 0 for a node that is not there."""
        return torch.from_numpy(self.forest.nodes["visits"])

    @property
    def values(self) -> Float[Tensor, "B N"]:
        """Means of what followed."""
        return torch.from_numpy(self.forest.nodes["value"])

    @property
    def raw_values(self) -> Float[Tensor, "B N"]:
        """As the model gave them."""
        return torch.from_numpy(self.forest.nodes["raw"])

    @property
    def rewards(self) -> Float[Tensor, "B N"]:
        """Of the step into the node."""
        return torch.from_numpy(self.forest.nodes["reward"])

    @property
    def discounts(self) -> Float[Tensor, "B N"]:
        """Of the node's value in its parent's; 0 where it is terminal."""
        return torch.from_numpy(self.forest.nodes["discount"])

    @property
    def parents(self) -> Int[Tensor, "B N"]:
        """-1 for the root."""
        return torch.from_numpy(self.forest.nodes["parent"])

    @property
    def moves(self) -> Int[Tensor, "B N"]:
        """Action from the parent."""
        return torch.from_numpy(self.forest.nodes["move"])

    @property
    def children(self) -> Int[Tensor, "B N K"]:
        """First outcome of each action; -1 if untried."""
        return torch.from_numpy(self.forest.edges["child"])

    @property
    def siblings(self) -> Int[Tensor, "B N"]:
        """The next outcome of the same action; -1 for none."""
        return torch.from_numpy(self.forest.nodes["sibling"])

    @property
    def twins(self) -> Int[Tensor, "B N"]:
        """The first node of the same state, where a search merges them; else the node itself."""
        return torch.from_numpy(self.forest.nodes["twin"])

    @property
    def priors(self) -> Float[Tensor, "B N K"]:
        """Probabilities; -1 for actions that cannot be taken."""
        return torch.from_numpy(self.forest.edges["prior"])

    @property
    def chances(self) -> Float[Tensor, "B N"]:
        """Of the node among the outcomes of its action, where the model gave them; else 0."""
        return torch.from_numpy(self.forest.nodes["chance"])

    @property
    def variances(self) -> Float[Tensor, "B N"]:
        """Epistemic, of the values; means like them."""
        return torch.from_numpy(self.forest.nodes["variance"])

    def after(self, action: Int[Tensor, B], state: Float[Tensor, "B S"] | None = None) -> Tree:
        """What is below an action of each root, for `search` to go on with after a real step.

        Where an action has several outcomes it is the one nearest to the real `state`, or the most
        visited; an untried one leaves an empty tree. Raises ValueError for a tree with twins.
        """
        old = self.forest
        if old.table.size:
            raise ValueError("a tree with twins cannot be gone on with: what follows is shared")
        roots, most, actions = old.edges.shape
        tops = np.full(roots, -1)
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
        kept = _blank(self.states[:, 0], samples, most, actions)
        size = tree.subtrees(*old, *kept.forest, tops)
        cut = _blank(self.states[:, 0], samples, size, actions)
        for whole, part in zip(kept.forest, cut.forest, strict=True):
            part[:] = whole[:, : part.shape[1]]
        return cut

    def children_visits(self) -> Int[Tensor, "B K"]:
        """Visits of the root's actions."""
        return torch.from_numpy(self.forest.edges["visits"][:, 0])

    def children_values(self) -> Float[Tensor, "B K"]:
        """Q of the root's actions, 0 where untried."""
        return torch.from_numpy(self.forest.edges["q"][:, 0])


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

    Raises:
        ValueError: simulations or depth below one, a discount outside [0, 1], wrong shapes, a
            state all of whose actions are invalid, a model that returns NaN or chances that do
            not sum to 1, Gumbel with a start (sequential halving counts on equal visits) or with
            `widening`, drawn outcomes or a start with `merge`.
    """
    rule = PUCT() if rule is None else rule
    actions = _check(root, simulations, discount, max_depth, outcomes)
    if start is not None and isinstance(rule, Gumbel):
        raise ValueError("Gumbel cannot go on with a tree: its root's actions need equal visits")
    if widening is not None and isinstance(rule, Gumbel):
        raise ValueError("Gumbel takes no widening: it halves a sample of the actions by itself")
    if merge and (start is not None or isinstance(outcomes, Widening)):
        raise ValueError("merge takes neither a start nor outcomes that are drawn")
    exact = outcomes if isinstance(outcomes, int) else 0
    born = max(exact, 1)
    base = 1 if start is None else start.visits.shape[1]
    model = _Model(root, step, actions, discount, exact)
    count = base + simulations * born
    looked = _blank(root.state, root.actions, count, actions, 2 * count if merge else 0)
    forest = looked.forest
    if start is not None:
        _take(start, looked)
    _plant(forest, model.root)

    priors = forest.edges["prior"][:, 0]
    scores = _root_noise(rule, priors, noise, generator)
    considered = _considered(rule, priors, simulations)
    depth = base + simulations if max_depth is None else max_depth
    settings = _settings(rule, depth, widening, outcomes, merge)
    path = np.empty((len(forest.nodes), min(simulations + base, depth) + 1), np.int32)
    reply = model.silence()
    for turn in range(simulations + 1):
        first = base + (turn - 1) * born
        wrong, b = tree.advance(
            *forest,
            *reply,
            settings,
            *model.front,
            path,
            scores,
            considered,
            first,
            turn,
            simulations,
        )
        if wrong:
            _complain(wrong, f"simulation {turn}, tree {b}")
        if turn < simulations:
            reply = model.ask()
    if merge:
        nodes = forest.nodes
        nodes["value"] = np.take_along_axis(nodes["value"], nodes["twin"], 1)
    action, policy = _answer(rule, forest, scores, settings, generator)
    return replace(looked, action=action, policy=policy)


Like = tuple[Tensor, Tensor | None]
"""States and, where they are a sample, actions, in the form that all must have."""


class _Model:
    """`step` as the compiled walk speaks to it: in arrays.

    Attributes:
        front: (4, B) int64, (B, S) and (B, A) bytes: where each walk ended, and the state and the
            action to ask about, in the memory of the tensors that `step` is given.
    """

    def __init__(
        self, root: Evaluation, step: StepFn, actions: int, discount: float, exact: int
    ) -> None:
        self._step, self._exact, self._device = step, exact, root.state.device
        like: Like = root.state, root.actions
        self.root = _heard(root, _granted(like, actions, discount), like, "the root's")
        if exact:
            state, samples = like
            samples = None if samples is None else _each(samples, exact)
            like = _each(state, exact), samples
        self._like, self._blank = like, _granted(like, actions, discount)
        roots = len(root.state)
        ends, moves = np.zeros((4, roots), np.int64), np.empty((roots, 0), np.uint8)
        here, chosen = _alike(root.state), torch.from_numpy(ends[1])
        if root.actions is not None:
            chosen = _alike(root.actions[:, 0])
            moves = _bytes(chosen)
        self.front, self._asked = (ends, _bytes(here), moves), (here, chosen)

    def silence(self) -> tree.Reply:
        """No answer yet."""
        return _flat(self._blank) if self._exact else self._blank

    def ask(self) -> tree.Reply:
        """What follows at the front."""
        here, chosen = self._asked
        if self._device.type != "cpu":
            here, chosen = here.to(self._device), chosen.to(self._device)
        reply = _heard(self._step(here, chosen), self._blank, self._like, "a step's")
        return _flat(reply) if self._exact else reply


def _blank(state: Tensor, samples: Tensor | None, count: int, actions: int, table: int = 0) -> Tree:
    """Trees without a node, with room for `count`, from roots (B, S) and (B, K, A)."""
    roots = len(state)
    nodes = np.zeros((roots, count), tree.NODE)
    nodes["parent"] = nodes["sibling"] = -1
    edges = np.zeros((roots, count, actions), tree.EDGE)
    edges["child"] = -1
    bounds = np.tile((np.inf, -np.inf), (roots, 1))
    states = torch.zeros(roots, count, *state.shape[1:], dtype=state.dtype)
    kept, moves = None, np.empty((roots, count, actions, 0), np.uint8)
    if samples is not None:
        kept = torch.zeros(roots, count, *samples.shape[1:], dtype=samples.dtype)
        moves = _bytes(kept)
    places = np.full((roots, table), -1, np.int32)
    forest = tree.Forest(nodes, edges, bounds, _bytes(states), moves, places)
    action, policy = torch.zeros(roots, dtype=torch.long), torch.zeros(roots, actions)
    return Tree(action, policy, forest, states, kept)


def _bytes(x: Tensor) -> np.ndarray:
    """The memory of a tensor (..., S) on the CPU."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().view(np.uint8)


def _each(x: Tensor, outcomes: int) -> Tensor:
    """(B, ...) as (B, C, ...)."""
    return x[:, None].expand(-1, outcomes, *x.shape[1:])


def _alike(x: Tensor) -> Tensor:
    """Room for as much, on the CPU."""
    return torch.zeros(x.shape, dtype=x.dtype)


def _take(start: Tree, into: Tree) -> None:
    """Begin with what is known."""
    forms = [
        (tuple(x.policy.shape), tuple(x.states.shape[2:]), x.states.dtype, x.actions is None)
        for x in (start, into)
    ]
    if forms[0] != forms[1]:
        raise ValueError(
            f"start must have the root's (B, K), (S,), type and whether actions are indices, "
            f"{forms[1]}, got {forms[0]}"
        )
    for known, room in zip(start.forest, into.forest, strict=True):
        room[:, : known.shape[1]] = known


def _plant(forest: tree.Forest, root: tree.Reply) -> None:
    """Set the states and priors of the roots, and where they are new their values."""
    forest.states[:, 0], forest.actions[:, 0] = root.state, root.actions
    for b in range(len(forest.nodes)):
        if forest.table.size:
            tree.twin_of(forest.states, forest.table, b, 0)
        fine = np.isfinite(root.value[b]) and root.variance[b] >= 0
        wrong = tree.set_priors(forest.edges, b, 0, root.logits, root.invalid, b)
        _complain(wrong if fine else tree.BAD_VALUE, f"root, tree {b}")
        node = forest.nodes[b, 0]
        if node["visits"] == 0:
            node["visits"] = 1
            node["raw"] = node["value"] = root.value[b]
            node["variance"] = root.variance[b]


def _granted(like: Like, actions: int, discount: float) -> tree.Reply:
    """What is taken for granted where a model says nothing, for states (B, S) or (B, C, S)."""
    state, samples = like
    each = state.shape[:-1]
    zero, moves = np.zeros(each, np.float32), np.empty((*each, actions, 0), np.uint8)
    if samples is not None:
        moves = _bytes(_alike(samples))
    return tree.Reply(
        state=_bytes(_alike(state)),
        actions=moves,
        reward=zero,
        discount=np.full(each, discount, np.float32),
        value=zero,
        variance=zero,
        chance=zero,
        logits=np.zeros((*each, actions), np.float32),
        terminated=np.zeros(each, np.bool_),
        invalid=np.zeros((*each, actions), np.bool_),
    )


def _flat(reply: tree.Reply) -> tree.Reply:
    """(B, C, ...) as (B C, ...)."""
    return tree.Reply(*(x.reshape(len(x) * x.shape[1], *x.shape[2:]) for x in reply))


def _heard(found: Evaluation, blank: tree.Reply, like: Like, whose: str) -> tree.Reply:
    """A model's answer as the compiled walk takes it."""
    state, samples = like
    moves = blank.actions
    if samples is not None:
        if found.actions is None:
            raise ValueError("the root's actions are a sample, so a step must give actions too")
        moves = _rows(found.actions, samples, whose, "actions")
    return tree.Reply(
        _rows(found.state, state, whose, "state"),
        moves,
        _array(found.reward, blank.reward, whose, "reward"),
        _array(found.discount, blank.discount, whose, "discount"),
        _array(found.value, blank.value, whose, "value"),
        _array(found.variance, blank.variance, whose, "variance"),
        _array(found.chance, blank.chance, whose, "chance"),
        _array(found.logits, blank.logits, whose, "logits"),
        _array(found.terminated, blank.terminated, whose, "terminated"),
        _array(found.invalid, blank.invalid, whose, "invalid"),
    )


def _rows(given: Tensor, like: Tensor, whose: str, name: str) -> np.ndarray:
    """Bytes of what must look like another."""
    if given.shape != like.shape:
        raise ValueError(f"{whose} {name} must be {tuple(like.shape)}, got {tuple(given.shape)}")
    if not (given.is_cpu and given.dtype == like.dtype and given.is_contiguous()):
        given = given.to("cpu", like.dtype).contiguous()
    return _bytes(given)


def _array(given: Tensor | None, blank: np.ndarray, whose: str, name: str) -> np.ndarray:
    if given is None:
        return blank
    array = given.numpy(force=not given.is_cpu or given.requires_grad)  # force costs time
    if array.shape != blank.shape:
        raise ValueError(f"{whose} {name} must be {blank.shape}, got {array.shape}")
    return np.ascontiguousarray(array, blank.dtype)


def _answer(
    rule: Rule,
    forest: tree.Forest,
    scores: np.ndarray,
    settings: tuple,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """What to do at the roots, and their policy."""
    counts = forest.edges["visits"][:, 0].astype(np.int64)
    total = counts.sum(1, keepdims=True).clip(1)  # 0 where the root of a `start` has ended
    shares = counts / total
    policy = torch.from_numpy(shares.astype(np.float32))
    if isinstance(rule, Gumbel):
        wide = tree.completed(*forest, settings)
        prior = forest.edges["prior"][:, 0].astype(float)
        best = (counts == counts.max(1, keepdims=True)) & (prior >= 0)
        ranks = np.where(best, np.maximum(scores + wide, -1e9), -np.inf)
        logits = torch.from_numpy(prior).clamp_min(0).log() + torch.from_numpy(wide)
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
    max_depth: int,
    widening: Widening | None,
    outcomes: Widening | int | None,
    merge: bool,
) -> tuple:
    """`tree.Settings` as the compiled walk takes it."""
    own: dict[str, Any] = {"merge": merge}
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
    return tuple(tree.Settings(max_depth=max_depth, **own))


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


def _complain(wrong: int, where: str) -> None:
    what = {
        tree.BAD_REWARD: "a reward that is not finite",
        tree.BAD_VALUE: "a value that is not finite",
        tree.BAD_LOGITS: "logits that are not numbers",
        tree.NO_ACTION: "no action that can be taken",
        tree.BAD_DISCOUNT: "a discount outside [-1, 1]",
        tree.BAD_CHANCE: "chances that do not sum to 1",
    }
    if wrong:
        raise ValueError(f"{where}: the model gave {what[wrong]}")
