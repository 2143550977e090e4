"""The walk in torch: it grows the trees that the compiled one grows, and stays on its device."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planners import torch_walk, tree
from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Widening, search

ROOTS, STATES, ACTIONS = 6, 12, 5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Model:
    """A random world of `STATES`, its state shown as the number and its half.

    Args:
        draws: outcomes are drawn of three; else the first comes for sure.
        chances: all three are given, one of them with chance 0 here and there.
        samples: actions are two random numbers each, and their sum is added to the reward.
        rich: with all else that a model may say.
    """

    def __init__(self, *, draws=False, chances=False, samples=False, rich=True):
        g = seeded(1)
        self.after = torch.randint(STATES, (STATES, ACTIONS, 3), generator=g)
        self.reward = torch.randn(STATES, ACTIONS, generator=g)
        self.value, self.variance = torch.randn(2, STATES, generator=g)
        self.logits = torch.randn(STATES, ACTIONS, generator=g)
        self.invalid = torch.rand(STATES, ACTIONS, generator=g) < 0.3
        self.invalid[:, 2] = False
        self.ends = torch.rand(STATES, generator=g) < 0.15
        self.discount = torch.where(torch.rand(STATES, generator=g) < 0.5, -0.9, 0.8)
        self.chance = torch.rand(STATES, ACTIONS, 3, generator=g).round(decimals=1)
        self.chance[..., 0] += 0.05
        self.chance /= self.chance.sum(-1, keepdim=True)
        self.table = torch.randn(STATES, ACTIONS, 2, generator=g) if samples else None
        self.draws, self.chances, self.rich, self.generator = draws, chances, rich, seeded(2)

    def root(self):
        found = self.seen(torch.arange(ROOTS), torch.zeros(ROOTS))
        return found._replace(terminated=None, discount=None)

    def seen(self, state, reward):
        found = Evaluation(
            torch.stack((state, state / 2), -1).float(), reward, self.value[state],
            self.logits[state], self.ends[state],
            actions=None if self.table is None else self.table[state],
        )  # fmt: skip
        if not self.rich:
            return found
        return found._replace(
            variance=self.variance[state].square(), invalid=self.invalid[state],
            discount=self.discount[state],
        )  # fmt: skip

    def step(self, state, action):
        here, gain = state[:, 0].long(), 0.0
        if self.table is not None:
            gain = action.sum(-1)
            action = (self.table[here] - action[:, None]).abs().sum(-1).argmin(1)
        after, reward = self.after[here, action], self.reward[here, action] + gain
        if self.chances:
            found = self.seen(after, reward[:, None].expand(after.shape))
            return found._replace(chance=self.chance[here, action])
        which = torch.zeros_like(here)
        if self.draws:
            which = torch.randint(3, here.shape, generator=self.generator)
        return self.seen(after.gather(1, which[:, None])[:, 0], reward)


RULES = {
    "uct": UCT(),
    "uct, optimistic": UCT(optimism=0.7),
    "puct": PUCT(),
    "puct, cautious": PUCT(optimism=-0.3, scale="tree"),
    "puct, raw": PUCT(scale="none", temperature=0.0),
    "gumbel": Gumbel(),
}
WAYS = {
    "plain": ({"rich": False}, {}),
    "rich": ({}, {}),
    "two deep": ({}, {"max_depth": 2}),
    "widening": ({"samples": True}, {"widening": Widening(1.0, 0.5)}),
    "outcomes drawn": ({"draws": True}, {"outcomes": Widening(1.0, 0.4)}),
    "both": ({"draws": True}, {"outcomes": Widening(0.7, 0.6), "widening": Widening(1.5, 0.3)}),
    "chances": ({"chances": True}, {"outcomes": 3}),
    "maxima": ({}, {"backup": "max"}),
    "merged": ({}, {"merge": True}),
    "merged maxima": ({}, {"merge": True, "backup": "max"}),
    "merged chances": ({"chances": True}, {"outcomes": 3, "merge": True}),
}


def same(one, other):
    """Node for node; numbers to what sums in another order may differ by."""
    for a, b in zip(one.forest[:2], other.forest[:2], strict=True):
        made = one.forest.nodes["visits"] > 0
        for name in a.dtype.names:
            if name == "walk":
                continue
            x, y = a[name][made], b[name][made]
            if x.dtype.kind == "f":
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(x, y, err_msg=name)
    np.testing.assert_allclose(one.forest.bounds, other.forest.bounds, rtol=1e-5)
    assert torch.equal(one.states, other.states)
    assert torch.equal(one.action, other.action)
    assert torch.allclose(one.policy, other.policy, atol=1e-6)


BOTH = [(way, rule) for way in WAYS for rule in RULES]
BOTH = [x for x in BOTH if not (x[1] == "gumbel" and "widening" in WAYS[x[0]][1])]


@pytest.mark.parametrize("way, rule", BOTH)
def test_both_walks_grow_the_same_trees(way, rule):
    model, options = WAYS[way]
    trees = []
    for compiled in (True, False):
        world = Model(**model)
        trees.append(
            search(
                world.root(), world.step, rule=RULES[rule], simulations=40, discount=0.9,
                generator=seeded(), compiled=compiled, **options,
            )
        )  # fmt: skip
    assert (trees[0].visits > 0).sum() > 8 * ROOTS
    same(*trees)


@pytest.mark.parametrize("samples", [False, True])
def test_either_goes_on_with_the_trees_of_the_other(samples):
    trees = []
    for first, then in ((True, True), (False, False), (True, False), (False, True)):
        world = Model(samples=samples)
        options = {"rule": UCT(), "discount": 0.9, "generator": seeded()}
        found = search(world.root(), world.step, simulations=30, compiled=first, **options)
        kept = found.after(found.action)
        here = world.root()._replace(state=kept.states[:, 0])
        trees.append(search(here, world.step, simulations=20, compiled=then, start=kept, **options))
    for other in trees[1:]:
        same(trees[0], other)


class Waits(TorchDispatchMode):
    """Counts how often the host waits for a number."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_all_is_on_the_device_of_the_roots():
    """What torch makes without being told where lands on meta, where it fits nothing else."""
    world = Model(chances=True)
    options = {"simulations": 10, "rule": PUCT(optimism=0.1), "generator": seeded()}
    root = world.root()
    made = torch_walk.TorchWalk  # the noise and the answer are numpy's
    walk = None

    def hold(*args, **kwargs):
        nonlocal walk
        with torch.device("meta"):
            walk = made(*args, **kwargs)
        down = walk.advance

        def advance(found, turn):
            with torch.device("meta"):
                return down(found, turn)

        walk.advance = advance
        return walk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planners.mcts.TorchWalk", hold)
        for merge in (False, True):
            found = search(root, world.step, outcomes=3, compiled=False, merge=merge, **options)
            assert found.visits[:, 0].tolist() == [11] * ROOTS


def test_the_host_waits_once_a_level():
    world, turns = Model(rich=False), 20
    with Waits() as waits:
        tree_ = search(
            world.root(), world.step, simulations=turns, rule=UCT(), max_depth=3,
            generator=seeded(), compiled=False,
        )  # fmt: skip
    assert tree_.visits[:, 0].tolist() == [turns + 1] * ROOTS
    assert turns < waits.count <= turns * (1 + 3) + 10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reward": torch.full((ROOTS,), torch.nan)}, "simulation 1, tree 0: the model gave a rew"),
        ({"value": torch.full((ROOTS,), torch.inf)}, "a value that is not finite"),
        ({"variance": -torch.ones(ROOTS)}, "a value that is not finite"),
        ({"discount": torch.full((ROOTS,), 1.5)}, "a discount outside"),
        ({"logits": torch.full((ROOTS, ACTIONS), torch.nan)}, "logits that are not numbers"),
        ({"invalid": torch.ones(ROOTS, ACTIONS, dtype=torch.bool)}, "no action that can be taken"),
        ({"state": torch.zeros(ROOTS, 3)}, r"a step's state must be \(6, 2\), got \(6, 3\)"),
    ],
)
def test_what_is_wrong_is_named_alike(change, message):
    world = Model(rich=False)
    world.ends[:] = False

    def step(state, action):
        return world.step(state, action)._replace(**change)

    for compiled in (True, False):
        with pytest.raises(ValueError, match=message):
            search(world.root(), step, simulations=3, generator=seeded(), compiled=compiled)


def test_chances_that_do_not_sum_to_one_are_named():
    world = Model(chances=True)
    world.chance *= 0.9
    for compiled in (True, False):
        with pytest.raises(ValueError, match="chances that do not sum to 1"):
            search(
                world.root(), world.step, simulations=3, outcomes=3, generator=seeded(),
                compiled=compiled,
            )  # fmt: skip


def test_columns_are_those_of_the_records():
    assert set(torch_walk.LINKS) | set(torch_walk.NUMBERS) == set(tree.NODE.names)
