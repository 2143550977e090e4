"""Monte Carlo tree search for many roots at once.

The search works with any selection rule: UCT (Kocsis and Szepesvári 2006; Browne et al. 2012), PUCT
as in MuZero (Schrittwieser et al. 2020), Gumbel MuZero (Danihelka et al. 2022) or one defined by
the user. Continuous actions and stochastic models are handled by double progressive widening
(Couëtoux et al. 2011).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from planners.mcts.builder import TreeBuilder
from planners.mcts.rules import PUCT, Rule
from planners.mcts.types import Evaluation, Settings, StepFn, Tree, Widening


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
    """Search from B roots; each simulation adds a node to each tree, or all outcomes of an action.

    Args:
        root: state, value and prior of the roots; its reward and termination are not used.
        step: the model, called once per simulation for all roots. For a tree whose simulation ends
            in a terminal node or at the maximum depth, the result is ignored.
        simulations: number of simulations of each root.
        generator: random stream of the noise at the root and of the returned action.
        rule: selection rule; PUCT if None.
        discount: γ.
        max_depth: maximum depth of a leaf, in actions; None for no limit.
        widening: progressive widening: as the visits of a node grow, its actions are made available
            one by one, in their order.
        outcomes: treatment of an action's outcomes. None: the first outcome is used as the only
            one. A `Widening`, for a model that draws them: more outcomes are drawn as the action's
            visits grow, and all are visited equally often. A number C, for a model that returns C
            outcomes and their probabilities at once: all become nodes, the action's Q is their
            expectation, and they are visited in proportion to their probabilities.
        noise: Dirichlet noise (PUCT) or Gumbel noise (Gumbel) to use instead of draws.
        start: a tree to continue (`Tree.after`); its root gets the prior of `root`. A tree whose
            root is terminal stays as it is, with a policy of 0.
        merge: treat nodes of a tree with bitwise equal states as transpositions, which share their
            children (Czech et al. 2021, "Improving AlphaZero using Monte-Carlo graph
            search"). Use it for problems with few states that many paths reach. Values are then
            computed from the current values of the children, and a simulation ends at a cycle.
        backup: definition of a node's value. "mean": the mean return of all simulations through it,
            including exploratory ones. "max": the value of the best action tried, which is the
            Bellman backup if all outcomes are given (MaxUCT and DP-UCT; Keller and Helmert 2013,
            "Trial-based heuristic tree search for finite horizon MDPs"). It converges faster if the
            model and its values are exact, and overestimates if they are not.

    Raises:
        ValueError: simulations or depth below one, a discount outside [0, 1], an unknown backup,
            wrong shapes, a state without a valid action, a model that returns NaN or
            chances that do not sum to 1, noise that is not finite or that the rule cannot use, a
            start or widening that the rule does not support, drawn outcomes or a start with
            `merge`.
    """
    rule = PUCT() if rule is None else rule
    actions = _check(root, simulations, discount, max_depth, outcomes, noise)
    rule.check(start=start is not None, widening=widening is not None)
    if backup not in ("mean", "max"):
        raise ValueError(f"backup must be 'mean' or 'max', got {backup!r}")
    if merge and (start is not None or isinstance(outcomes, Widening)):
        raise ValueError("merge cannot be combined with a start or with drawn outcomes")
    if start is not None:
        _check_start(start, root, actions)
    builder = TreeBuilder(
        root,
        actions,
        _settings(max_depth, widening, outcomes, merge, backup),
        discount=discount,
        simulations=simulations,
        start=start,
    )
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    priors, parameters = rule.prepare(
        builder.root_priors,
        simulations=simulations,
        noise=None if noise is None else noise.numpy(force=True),
        rng=np.random.default_rng(int(seed)),
    )
    state, action = builder.select(rule, priors, parameters)
    for _ in range(simulations):
        evaluation = step(state, action)
        state, action = builder.update(evaluation)  # expand, back up, select the next leaves
    forest, states, samples = builder.trees
    answer, policy = rule.answer(forest, parameters, generator=generator)
    device = root.state.device
    return Tree(answer.to(device), policy.to(device), forest, states, samples)


def _settings(
    max_depth: int | None,
    widening: Widening | None,
    outcomes: Widening | int | None,
    merge: bool,
    backup: Literal["mean", "max"],
) -> Settings:
    settings = Settings(
        max_depth=2**31 - 1 if max_depth is None else max_depth,
        outcomes=outcomes if isinstance(outcomes, int) else 0,
        merge=merge,
        max_backup=backup == "max",
    )
    if widening is not None:
        c, alpha = float(widening.c), float(widening.alpha)
        settings = settings._replace(widening_c=c, widening_alpha=alpha)
    if isinstance(outcomes, Widening):
        c, alpha = float(outcomes.c), float(outcomes.alpha)
        settings = settings._replace(drawing_c=c, drawing_alpha=alpha)
    return settings


def _check_start(start: Tree, root: Evaluation, actions: int) -> None:
    """Raise ValueError unless the trees to continue match the roots in sizes and types."""
    given, expected = (
        (size, tuple(states.shape[-1:]), states.dtype, samples is None)
        for size, states, samples in (
            (tuple(start.policy.shape), start.states, start.actions),
            ((len(root.state), actions), root.state, root.actions),
        )
    )
    if given != expected:
        raise ValueError(
            f"start must match the root in (B, K), (S,), dtype and whether actions are indices: "
            f"expected {expected}, got {given}"
        )


def _check(
    root: Evaluation,
    simulations: int,
    discount: float,
    max_depth: int | None,
    outcomes: Widening | int | None,
    noise: Tensor | None,
) -> int:
    """Raise ValueError for arguments that are out of range or do not match; returns K."""
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
        raise ValueError("the root must give the number of actions: by logits, even if all 0")
    actions = wide[0].shape[1]
    for x in wide:
        if x.shape[:2] != (roots, actions):
            raise ValueError(
                f"the root's logits, invalid and actions must begin with (B, K) = "
                f"({roots}, {actions}), got {tuple(x.shape)}"
            )
    if noise is not None and noise.shape != (roots, actions):
        raise ValueError(f"noise must be {(roots, actions)}, got {tuple(noise.shape)}")
    if noise is not None and not noise.isfinite().all():
        raise ValueError("noise must be finite")
    return actions
