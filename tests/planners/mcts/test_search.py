"""Scaling, continued trees, widening, drawn outcomes, epistemic variances, answers, errors."""

import math

import numpy as np
import pytest
import torch

from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Widening, search
from tests.planners.mcts import golden_mctx as golden
from tests.planners.mcts.models import seeded, table_model, world


def test_values_are_scaled_by_the_whole_tree():
    """MuZero's bounds, from the arrays of the search; the root selects by the formula."""
    root, step = table_model(golden.problem("puct"))
    rule = PUCT(dirichlet=0.0, temperature=0.0, scale="tree")
    tree = search(root, step, simulations=80, generator=seeded(), rule=rule, discount=0.9)
    edges, bounds = tree.forest.edges, tree.forest.bounds
    for b in range(len(tree.action)):
        q = edges["q"][b][edges["visits"][b] > 0]
        assert bounds[b] == pytest.approx([q.min(), q.max()], abs=1)
        assert bounds[b, 0] <= q.min()
        assert bounds[b, 1] >= q.max()
    scaled = search(root, step, simulations=80, generator=seeded(), rule=rule, discount=0.9)
    assert torch.equal(tree.visits, scaled.visits)
    plain = PUCT(dirichlet=0.0, temperature=0.0, scale="none")
    other = search(root, step, simulations=80, generator=seeded(), rule=plain, discount=0.9)
    assert not torch.equal(tree.visits, other.visits)


def scaled_model(factor):
    """A table whose rewards and values are `factor` times as large."""
    table = golden.problem("puct")
    table["reward"] = (factor * np.array(table["reward"])).tolist()
    table["value"] = (factor * np.array(table["value"])).tolist()
    return table_model(table)


@pytest.mark.parametrize("scale, same", [("siblings", True), ("tree", True), ("none", False)])
def test_scaled_values_do_not_depend_on_the_unit_of_reward(scale, same):
    """The factor is a power of two, so that rounding does not change."""
    rule = PUCT(dirichlet=0.0, temperature=0.0, scale=scale)
    small, large = (
        search(*scaled_model(k), simulations=60, generator=seeded(), rule=rule, discount=0.9)
        for k in (1, 64)
    )
    assert torch.equal(small.visits, large.visits) == same


def test_a_continued_tree_equals_the_subtree_of_one_long_search():
    """A continued branch of a tree has its old nodes and the same number of new ones."""
    root, step = table_model(golden.problem("puct"))
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    tree = search(root, step, simulations=60, generator=seeded(), rule=rule, discount=0.9)
    rest = tree.after(tree.action)
    kept = tree.children_visits().gather(1, tree.action[:, None])[:, 0]
    assert rest.visits[:, 0].tolist() == kept.tolist()
    child = tree.children[:, 0].gather(1, tree.action[:, None]).long()
    assert torch.equal(rest.value, tree.values.gather(1, child)[:, 0])
    assert (rest.visits > 0).sum(1).tolist() == kept.tolist()  # nothing terminates
    state = tree.states[torch.arange(len(child)), child[:, 0]]
    assert torch.equal(rest.states[:, 0], state)
    here = Evaluation(state, torch.zeros(3), tree.values.gather(1, child)[:, 0], logits_of(state))
    on = search(here, step, simulations=20, generator=seeded(), rule=rule, discount=0.9, start=rest)
    assert on.visits[:, 0].tolist() == (kept + 20).tolist()
    size = rest.visits.shape[1]
    assert torch.equal(on.parents[:, :size], rest.parents)
    assert_whole(on)


def logits_of(state):
    table = golden.problem("puct")
    return torch.tensor(table["logits"], dtype=torch.float32)[state[:, 0].long()]


def assert_whole(tree):
    """Assert that each node's visits are one plus those of its children."""
    for b in range(len(tree.action)):
        below = torch.zeros(tree.visits.shape[1], dtype=torch.long)
        made = (tree.visits[b] > 0) & (tree.parents[b] >= 0)
        below.index_add_(0, tree.parents[b][made].long(), tree.visits[b][made].long())
        assert torch.equal(
            tree.visits[b][tree.visits[b] > 0], (below + 1)[tree.visits[b] > 0].int()
        )


def test_an_untried_action_leaves_an_empty_tree():
    root, step = table_model(golden.problem("puct"))
    tree = search(root, step, simulations=2, generator=seeded(), rule=UCT(), discount=0.9)
    rest = tree.after(torch.full((3,), 4))
    assert rest.visits.tolist() == [[0]] * 3
    again = search(root, step, simulations=7, generator=seeded(), rule=UCT(), start=rest)
    fresh = search(root, step, simulations=7, generator=seeded(), rule=UCT())
    assert torch.equal(again.visits, fresh.visits)


def coin_model(prices):
    """Two actions: the first pays one of `prices` in turn, the second 0; both terminate."""
    drawn = []

    def step(state, action):
        reward = torch.zeros(len(state))
        for b in torch.nonzero(action == 0)[:, 0].tolist():
            reward[b] = prices[len(drawn) % len(prices)]
            drawn.append(b)
        ends = torch.ones(len(state), dtype=torch.bool)
        return Evaluation(
            state + 1, reward, torch.zeros(len(state)), torch.zeros(len(state), 2), ends
        )

    root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 2))
    return root, step


def test_drawn_outcomes_widen_with_visits_and_are_visited_alike():
    root, step = coin_model([1.0, -0.5, 0.75])
    tree = search(
        root,
        step,
        simulations=400,
        generator=seeded(),
        rule=UCT(c=1.0),
        outcomes=Widening(1.0, 0.5),
    )
    outcomes, node = [], int(tree.children[0, 0, 0])
    while node >= 0:
        outcomes.append(node)
        node = int(tree.siblings[0, node])
    visits = tree.visits[0, outcomes]
    total = int(tree.children_visits()[0, 0])
    assert len(outcomes) in (math.ceil(math.sqrt(total)), math.ceil(math.sqrt(total - 1)))
    assert visits[1:].max() - visits[1:].min() <= 1  # the newest, which is first, has had less time
    assert set(tree.rewards[0, outcomes].tolist()) == {1.0, -0.5, 0.75}
    sure = search(*coin_model([1.0, -0.5]), simulations=50, generator=seeded(), rule=UCT())
    assert float(sure.children_values()[0, 0]) == 1.0  # only the first outcome is used


def test_actions_become_available_one_by_one():
    tree = search(
        Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 20)),
        lambda state, action: Evaluation(
            state, -0.01 * action.float(), torch.zeros(1), torch.zeros(1, 20)
        ),
        simulations=63,
        generator=seeded(),
        rule=UCT(),
        widening=Widening(1.0, 0.5),
    )
    tried = tree.children_visits()[0] > 0
    assert tried.tolist() == [True] * 8 + [False] * 12  # the first ceil(sqrt(63))


def test_optimism_visits_actions_on_which_members_disagree_and_pessimism_avoids_them():
    def step(state, action):
        return Evaluation(
            state, torch.zeros(1), torch.zeros(1), torch.zeros(1, 2), variance=1.0 * action
        )

    def visits(rule):
        root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 2))
        found = search(root, step, simulations=100, generator=seeded(), rule=rule, max_depth=1)
        return found.children_visits()[0].tolist()

    for kind in (UCT, lambda **k: PUCT(dirichlet=0.0, temperature=0.0, scale="none", **k)):
        assert visits(kind()) == [50, 50]
        assert visits(kind(optimism=1.0))[1] > 60
        assert visits(kind(optimism=-1.0))[0] > 60


def test_variances_are_backed_up_with_the_squared_discount():
    """A variance is multiplied by γ² per step, and averaged over visits like the value."""

    def step(state, action):
        return Evaluation(
            state, torch.zeros(1), torch.zeros(1), torch.zeros(1, 1), variance=4.0 + 0 * state[:, 0]
        )

    root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 1))
    found = search(root, step, simulations=2, generator=seeded(), rule=UCT(), discount=0.5)
    # the child: 4 and 0.25 · 4 from its child; the root: 0, 0.25 · 4 and 1/16 · 4
    assert found.variances[0, 1] == pytest.approx((4 + 1) / 2)
    assert found.variances[0, 0] == pytest.approx((0 + 1 + 0.25) / 3)


def test_the_action_of_puct_is_drawn_in_proportion_to_visits():
    root, step = table_model(golden.problem("puct"))
    rule = PUCT(dirichlet=0.0, temperature=0.5)
    g, counts = seeded(), torch.zeros(3, golden.ACTIONS)
    for _ in range(600):
        tree = search(root, step, simulations=12, generator=g, rule=rule, discount=0.9)
        counts[torch.arange(3), tree.action] += 1
    wanted = tree.children_visits() ** 2.0
    wanted /= wanted.sum(1, keepdim=True)
    assert (counts / 600 - wanted).abs().max() < 4 * math.sqrt(0.25 / 600)
    assert (counts[tree.children_visits() == 0] == 0).all()


def test_gumbel_cannot_continue_a_tree():
    root, step = table_model(golden.problem("gumbel"))
    tree = search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), discount=0.9)
    with pytest.raises(ValueError, match="Gumbel cannot continue a tree"):
        search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), start=tree)


@pytest.mark.parametrize("rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0)])
def test_widening_makes_only_valid_actions_available(rule):
    def step(state, action):
        zero = torch.zeros(1)
        return Evaluation(state, 0.01 * action.float(), zero, torch.zeros(1, 20))

    invalid = torch.zeros(1, 20, dtype=torch.bool)
    invalid[0, [0, 2, 3]] = True
    zero, logits = torch.zeros(1), torch.zeros(1, 20)
    root = Evaluation(torch.zeros(1, 1), zero, zero, logits, invalid=invalid)
    for simulations in (1, 60):
        tree = search(
            root, step, simulations=simulations, generator=seeded(), rule=rule, widening=Widening()
        )
        tried = (tree.children_visits()[0] > 0).nonzero()[:, 0].tolist()
        assert tried == [1, 4, 5, 6, 7, 8, 9, 10][: math.ceil(math.sqrt(simulations))]


def test_gumbel_does_not_support_widening():
    root, step = table_model(golden.problem("gumbel"))
    with pytest.raises(ValueError, match="Gumbel does not support widening"):
        search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), widening=Widening())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: {"chance": 0.9 * x.chance}, "simulation 1, tree 0: .* do not sum to 1"),
        (lambda x: {"chance": math.nan * x.chance}, "simulation 1, tree 0: .* do not sum to 1"),
        (lambda x: {"chance": None}, "simulation 1, tree 0: .* do not sum to 1"),
        (lambda x: {"reward": math.inf * x.reward}, "tree 0: .* a reward that is not finite"),
        (lambda x: {"discount": math.nan * x.reward}, r"tree 0: .* a discount outside \[-1, 1\]"),
        (lambda x: {"state": x.state[:, 0]},
         r"a step's state must be \(5, 3, 1\), got \(5, 1\)"),
        (lambda x: {"reward": x.reward[:, 0]}, r"a step's reward must be \(5, 3\), got \(5,\)"),
    ],
)  # fmt: skip
def test_invalid_results_of_a_step_are_refused_by_name(change, message):
    root, step, options, _, _ = world()

    def wrong(state, action):
        good = step(state, action)
        return good._replace(**change(good))

    with pytest.raises(ValueError, match=message):
        search(root, wrong, simulations=5, **options)


def test_a_root_of_wrong_shape_is_refused_by_name():
    root, step, options, _, _ = world()
    with pytest.raises(ValueError, match=r"the root's value must be \(5,\), got \(5, 1\)"):
        search(root._replace(value=root.value[:, None]), step, simulations=5, **options)
    with pytest.raises(ValueError, match="outcomes must be an integer of at least 1, got 0"):
        search(root, step, simulations=5, **options | {"outcomes": 0})
    with pytest.raises(ValueError, match="noise must be finite"):
        search(root, step, simulations=5, noise=torch.full((5, 3), math.nan), **options)
