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
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from planners import tree


class Evaluation(NamedTuple):
    """What a model says of a step of every root."""

    state: Float[Tensor, "B S"]
    reward: Float[Tensor, B]
    value: Float[Tensor, B]  # of the state; ignored where it is terminal
    logits: Float[Tensor, "B K"] | None = None  # prior; None where all actions are alike
    terminated: Bool[Tensor, B] | None = None  # None where nothing ends
    discount: Float[Tensor, B] | None = None  # in place of γ; -1 where the other side is to move
    invalid: Bool[Tensor, "B K"] | None = None  # actions that cannot be taken there
    actions: Float[Tensor, "B K A"] | None = None  # what the K are, where they are a sample


StepFn = Callable[[Tensor, Tensor], Evaluation]
"""`step(state (B, S), action (B,) or (B, A)) -> Evaluation`; indices unless actions are samples."""


@dataclass(frozen=True)
class UCT:
    """Q/N + 2 C sqrt(2 ln N_parent / N), untried actions first (Browne et al. 2012, eq. 3).

    Its values want to be about as large as 1; the answer is the most visited action.
    """

    c: float = 1 / math.sqrt(2)
    """C; 1/√2 suits returns in [0, 1]."""


@dataclass(frozen=True)
class PUCT:
    """Q + c(N) P sqrt(N) / (1 + n), Q scaled by what a node's parent and siblings are worth.

    c(N) = init + log((N + base + 1) / base), as in MuZero and mctx.
    """

    init: float = 1.25
    """Weight of the prior."""
    base: float = 19652.0
    """How slowly it grows."""
    dirichlet: float = 0.25
    """Share of Dirichlet noise in the root's prior."""
    alpha: float = 0.3
    """Of the noise: the smaller, the more of it falls on one action."""
    temperature: float = 1.0
    """The answer is drawn by visits to the power of 1 / temperature; 0 takes the most visited."""


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


class Tree(NamedTuple):
    """What a search found, and all it looked at. A node that was never made has 0 visits."""

    action: Int[Tensor, B]
    """What to do: the index of an action."""
    policy: Float[Tensor, "B K"]
    """Shares of the visits; for Gumbel the improved policy."""
    value: Float[Tensor, B]
    """Of the root, its mean over the simulations."""
    visits: Int[Tensor, "B N"]
    values: Float[Tensor, "B N"]
    """Means of what followed each visit."""
    raw_values: Float[Tensor, "B N"]
    """As the model gave them."""
    rewards: Float[Tensor, "B N"]
    """Of the step into the node."""
    discounts: Float[Tensor, "B N"]
    """Of the node's value in its parent's; 0 where it is terminal."""
    parents: Int[Tensor, "B N"]
    """-1 for the root."""
    moves: Int[Tensor, "B N"]
    """Action from the parent."""
    children: Int[Tensor, "B N K"]
    """First outcome of each action; -1 if untried."""
    siblings: Int[Tensor, "B N"]
    """The next outcome of the same action; -1 for none."""
    priors: Float[Tensor, "B N K"]
    """Probabilities; -1 for actions that cannot be taken."""
    states: Float[Tensor, "N B S"]
    actions: Float[Tensor, "N B K A"] | None
    """What the K actions of each node are, where they are a sample."""

    def children_visits(self) -> Int[Tensor, "B K"]:
        """Visits of the root's actions."""
        return self._of_children(lambda node: self.visits.gather(1, node))

    def children_values(self) -> Float[Tensor, "B K"]:
        """Q of the root's actions, 0 where untried."""
        total = self._of_children(
            lambda node: (
                self.visits.gather(1, node)
                * (
                    self.rewards.gather(1, node)
                    + self.discounts.gather(1, node) * self.values.gather(1, node)
                )
            )
        )
        return total / self.children_visits().clamp_min(1)

    def _of_children(self, read: Callable[[Tensor], Tensor]) -> Tensor:
        node = self.children[:, 0].long()
        total = torch.where(node >= 0, read(node.clamp_min(0)), 0)
        while bool((node >= 0).any()):
            node = torch.where(node >= 0, self.siblings.gather(1, node.clamp_min(0)).long(), -1)
            total = total + torch.where(node >= 0, read(node.clamp_min(0)), 0)
        return total


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
    outcomes: Widening | None = None,
    noise: Float[Tensor, "B K"] | None = None,
) -> Tree:
    """Look ahead from B roots; each simulation adds a node to each tree.

    Args:
        root: state, value and prior of the roots; its reward and termination are not used.
        step: the model, asked once a simulation for all roots.
        simulations: of each root.
        generator: draws the noise at the root and the answer.
        rule: which action to look into; PUCT if None.
        discount: γ.
        max_depth: actions ahead, at most.
        widening: open a node's actions one by one as it is visited, in the order that they have.
        outcomes: of one action, for a model that draws them: more of them the more it is tried,
            each visited as often. Without, the first outcome is taken to be the only one.
        noise: Dirichlet or Gumbel draws to take instead of the generator's.

    Raises:
        ValueError: simulations or depth below one, a discount outside [0, 1], wrong shapes, a
            root all of whose actions are invalid, a model that returns NaN.
    """
    rule = PUCT() if rule is None else rule
    roots, size, actions = _check(root, simulations, discount, max_depth)
    device, nodes = root.state.device, simulations + 1
    states = root.state.new_empty(nodes, roots, size)
    samples = None
    if root.actions is not None:
        samples = root.actions.new_empty(nodes, *root.actions.shape)

    def table(kind: Any, fill: float = 0, *shape: int) -> np.ndarray:
        return np.full((roots, nodes, *shape), fill, dtype=kind)

    children, siblings = table(np.int32, -1, actions), table(np.int32, -1)
    priors = table(np.float32, 0, actions)
    visits, parents, moves = table(np.int32), table(np.int32, -1), table(np.int32)
    values, q, raw, rewards, discounts = (table(np.float32) for _ in range(5))
    ended = table(np.bool_)
    never, level = np.zeros(roots, bool), np.zeros((roots, actions), np.float32)
    leaf, move, kind = (np.zeros(roots, np.int64) for _ in range(3))
    flat = np.zeros(roots, np.int64)
    where, moved = torch.from_numpy(flat), torch.from_numpy(move)

    states[0] = root.state
    visits[:, 0], values[:, 0] = 1, _array(root.value, level[:, 0], "value")
    raw[:, 0] = values[:, 0]
    if samples is not None:
        samples[0] = root.actions
    invalid = np.zeros_like(level, bool) if root.invalid is None else root.invalid.numpy(force=True)
    for b in range(roots):
        logits = _array(root.logits, level, "logits")
        wrong = tree.set_priors(priors, b, 0, logits, invalid)
        _complain(wrong, b, "root")
    if not np.isfinite(values[:, 0]).all():
        _complain(tree.BAD_VALUE, int(np.isfinite(values[:, 0]).argmin()), "root")

    scores = _root_noise(rule, priors[:, 0], noise, generator)
    considered = _considered(rule, priors[:, 0], simulations)
    opening = (0.0, 0.5) if widening is None else (widening.c, widening.alpha)
    drawing = (0.0, 0.5) if outcomes is None else (outcomes.c, outcomes.alpha)
    code, own = _numbers(rule)
    settings = np.array([*own, *opening, *drawing])
    depth = nodes if max_depth is None else max_depth
    reward = value = np.zeros(roots, np.float32)
    shrink = np.full(roots, discount, np.float32)
    logits, terminated, barred = level, never, np.zeros_like(level, bool)
    for node in range(nodes):
        wrong, b = tree.advance(
            node, node == simulations, code, settings, depth, children, siblings, visits,
            values, q, raw, rewards, discounts, parents, moves, priors, ended, scores, considered,
            leaf, move, kind, flat, reward, shrink, value, logits, terminated, barred,
        )  # fmt: skip
        if wrong:
            _complain(wrong, b, f"simulation {node}")
        if node == simulations:
            break
        at = where.to(device)
        action = moved.to(device)
        if samples is not None:
            action = samples.view(nodes * roots, actions, -1)[at, action]
        found = step(states.view(nodes * roots, size).index_select(0, at), action)
        states[node + 1] = found.state
        if samples is not None:
            if found.actions is None:
                raise ValueError("the root's actions are a sample, so a step must give actions too")
            samples[node + 1] = found.actions
        reward = _array(found.reward, never, "reward")
        value = _array(found.value, never, "value")
        logits = level if found.logits is None else _array(found.logits, level, "logits")
        if found.discount is not None:
            shrink = _array(found.discount, never, "discount")
        if found.terminated is not None:
            terminated = _array(found.terminated, never, "terminated")
        if found.invalid is not None:
            barred = _array(found.invalid, level, "invalid")

    found = Tree(
        action=moved,
        policy=torch.from_numpy(priors[:, 0]),
        value=torch.from_numpy(values[:, 0]),
        visits=torch.from_numpy(visits),
        values=torch.from_numpy(values),
        raw_values=torch.from_numpy(raw),
        rewards=torch.from_numpy(rewards),
        discounts=torch.from_numpy(discounts),
        parents=torch.from_numpy(parents),
        moves=torch.from_numpy(moves),
        children=torch.from_numpy(children),
        siblings=torch.from_numpy(siblings),
        priors=torch.from_numpy(priors),
        states=states,
        actions=samples,
    )
    action, policy = _answer(rule, found, q, scores, settings, generator)
    return found._replace(action=action, policy=policy)


def _answer(
    rule: Rule,
    found: Tree,
    q: np.ndarray,
    scores: np.ndarray,
    settings: np.ndarray,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """What to do at the roots, and their policy."""
    counts = found.children_visits()
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    valid = found.priors[:, 0] >= 0
    if isinstance(rule, Gumbel):
        completed = np.empty(counts.shape)
        for b in range(len(counts)):
            tree.complete(
                found.children.numpy(), found.siblings.numpy(), found.visits.numpy(), q,
                found.raw_values.numpy(), found.priors.numpy(), b, 0, settings[2], settings[1],
                completed[b],
            )  # fmt: skip
        wide = torch.from_numpy(completed)
        total = torch.from_numpy(scores).double() + wide
        most = counts.amax(1, keepdim=True)
        total = torch.where((counts == most) & valid, total.clamp_min(-1e9), -torch.inf)
        logits = found.priors[:, 0].double().clamp_min(0).log() + wide
        return total.argmax(1), logits.softmax(1).float()
    if isinstance(rule, PUCT) and rule.temperature > 0:
        powers = (shares.log() / rule.temperature).softmax(1)
        draw = torch.rand(len(counts), 1, generator=generator, device=generator.device).cpu()
        drawn = (powers.cumsum(1) < draw).sum(1).clamp_max(counts.shape[1] - 1)
        return drawn, shares
    return counts.argmax(1), shares


def _numbers(rule: Rule) -> tuple[int, tuple[float, float, float, float]]:
    """A rule as the compiled walk takes it."""
    if isinstance(rule, UCT):
        return tree.UCT_RULE, (rule.c, 0.0, 0.0, 0.0)
    if isinstance(rule, PUCT):
        return tree.PUCT_RULE, (rule.init, rule.base, 0.0, 0.0)
    return tree.GUMBEL_RULE, (0.0, rule.value_scale, rule.visit_init, 0.0)


def _root_noise(
    rule: Rule, priors: np.ndarray, noise: Tensor | None, generator: Generator
) -> np.ndarray:
    """Mix Dirichlet noise into the roots' priors (B, K), or give Gumbel's scores (B, K)."""
    valid = priors >= 0
    if noise is not None and noise.shape != priors.shape:
        raise ValueError(f"noise must be {priors.shape}, got {tuple(noise.shape)}")
    given = None if noise is None else noise.numpy(force=True)
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
    """Visits (B, simulations + 1) that an action needs to be considered in each simulation."""
    table = np.zeros((len(priors), simulations + 1), dtype=np.int64)
    if isinstance(rule, Gumbel):
        numbers = np.minimum((priors >= 0).sum(1), rule.considered)
        for number in np.unique(numbers):
            table[numbers == number, :simulations] = halving(int(number), simulations)
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
    root: Evaluation, simulations: int, discount: float, max_depth: int | None
) -> tuple[int, int, int]:
    """B, S and K of a search that makes sense."""
    for name, number in (("simulations", simulations), ("max_depth", max_depth)):
        if number is not None and not (isinstance(number, int) and number >= 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount!r}")
    if root.state.ndim != 2:
        raise ValueError(f"the root's state must be (B, S), got {tuple(root.state.shape)}")
    roots, size = root.state.shape
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
    return roots, size, actions


def _array(given: Tensor | None, like: np.ndarray, name: str) -> np.ndarray:
    """A model's answer as the compiled walk takes it."""
    if given is None:
        return like
    kind = torch.bool if name in ("terminated", "invalid") else torch.float32
    array = given.to(kind).numpy(force=True)
    if array.shape != like.shape:
        raise ValueError(f"a step's {name} must be {like.shape}, got {array.shape}")
    return array


def _complain(wrong: int, b: int, when: str) -> None:
    what = {
        tree.BAD_REWARD: "a reward that is not finite",
        tree.BAD_VALUE: "a value that is not finite",
        tree.BAD_LOGITS: "logits that are not numbers",
        tree.NO_ACTION: "no action that can be taken",
    }
    if wrong:
        raise ValueError(f"{when}, tree {b}: the model gave {what[wrong]}")
