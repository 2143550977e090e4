import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.peers import Mctx, available
from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Widening, search

sys.path.append(str(Path(__file__).parent))
import golden_mctx as golden


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_model(table):
    """A table of `golden.problem` as root and step."""
    following = torch.tensor(table["next"])
    reward, discount, logits, value = (
        torch.tensor(table[k], dtype=torch.float32)
        for k in ("reward", "discount", "logits", "value")
    )

    def of(state):
        return {"value": value[state], "logits": logits[state]}

    def step(state, action):
        here = state[:, 0].long()
        after = following[here, action]
        ends = discount[here, action] == 0
        return Evaluation(
            after[:, None].float(), reward[here, action], terminated=ends, **of(after)
        )

    start = torch.tensor(table["roots"])
    invalid = torch.tensor(table["invalid"]) if "invalid" in table else None
    root = Evaluation(start[:, None].float(), torch.zeros(len(start)), invalid=invalid, **of(start))
    return root, step


def rule_of(case):
    """mctx's settings as ours."""
    if case["rule"] == "puct":
        return PUCT(
            init=case.get("pb_c_init", 1.25),
            base=case.get("pb_c_base", 19652.0),
            dirichlet=case["dirichlet_fraction"],
            temperature=0.0,
        )
    return Gumbel(considered=case.get("max_num_considered_actions", 16))


def ours(name):
    case, table = golden.CASES[name], golden.problem(name)
    noise = table.get("noise", np.zeros((golden.ROOTS, golden.ACTIONS)).tolist())
    root, step = table_model(table)
    return search(
        root,
        step,
        simulations=golden.SIMULATIONS,
        generator=seeded(),
        rule=rule_of(case),
        discount=0.9,
        max_depth=case.get("max_depth"),
        noise=torch.tensor(noise),
    )


@pytest.fixture(scope="module")
def stored():
    return np.load(golden.FILE, allow_pickle=False)


@pytest.mark.parametrize("name", golden.CASES)
def test_the_tree_is_mctxs_node_for_node(name, stored):
    tree = ours(name)
    want = {k: stored[f"{name}/{k}"] for k in (*golden_keys(), "action", "policy")}
    made = tree.visits.numpy() > 0  # mctx goes on below an end, which no value then shows
    assert (want["node_visits"][made] == tree.visits.numpy()[made]).all()
    assert "ends" in golden.CASES[name] or made.all() or "three deep" in name
    ended = (tree.discounts.numpy() == 0) & (tree.parents.numpy() >= 0)
    live = made & ~ended
    assert want["node_values"][live] == pytest.approx(tree.values.numpy()[live], abs=2e-5)
    assert (want["parents"][made] == tree.parents.numpy()[made]).all()
    inner = made & (tree.parents.numpy() >= 0)
    assert (want["action_from_parent"][inner] == tree.moves.numpy()[inner]).all()
    assert (want["children_index"][live] == tree.children.numpy()[live]).all()
    assert want["action"].tolist() == tree.action.tolist()
    assert want["policy"] == pytest.approx(tree.policy.numpy(), abs=1e-5)


def golden_keys():
    return ("node_visits", "node_values", "parents", "action_from_parent", "children_index")


@pytest.mark.skipif(not available(Mctx), reason="mctx is not installed: make peers")
def test_the_stored_trees_are_what_mctx_makes(stored):
    with Mctx() as peer:
        for name in golden.CASES:
            for key, value in golden.ask(peer, name).items():
                assert value == pytest.approx(stored[f"{name}/{key}"], abs=1e-6), (name, key)


# What mctx has not.


def test_values_are_scaled_by_the_whole_tree():
    """MuZero's bounds, from the search's own arrays: the root picks as the formula says."""
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
    """A power of two, so that no rounding changes."""
    rule = PUCT(dirichlet=0.0, temperature=0.0, scale=scale)
    small, large = (
        search(*scaled_model(k), simulations=60, generator=seeded(), rule=rule, discount=0.9)
        for k in (1, 64)
    )
    assert torch.equal(small.visits, large.visits) == same


def test_a_tree_that_goes_on_is_what_one_long_search_has_below():
    """The branch of a tree, searched on, has its old nodes and as many new ones."""
    root, step = table_model(golden.problem("puct"))
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    tree = search(root, step, simulations=60, generator=seeded(), rule=rule, discount=0.9)
    rest = tree.after(tree.action)
    kept = tree.children_visits().gather(1, tree.action[:, None])[:, 0]
    assert rest.visits[:, 0].tolist() == kept.tolist()
    child = tree.children[:, 0].gather(1, tree.action[:, None]).long()
    assert torch.equal(rest.value, tree.values.gather(1, child)[:, 0])
    assert (rest.visits > 0).sum(1).tolist() == kept.tolist()  # a visit, a node: nothing ends here
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
    """Every node's visits are one, its own, and those of its children."""
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
    """Two actions; the first pays one of `prices` in turn, the second 0; then it ends."""
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


def test_outcomes_are_opened_as_an_action_is_tried_and_weigh_alike():
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
    assert visits[1:].max() - visits[1:].min() <= 1  # the newest, listed first, has to catch up
    assert set(tree.rewards[0, outcomes].tolist()) == {1.0, -0.5, 0.75}
    sure = search(*coin_model([1.0, -0.5]), simulations=50, generator=seeded(), rule=UCT())
    assert float(sure.children_values()[0, 0]) == 1.0  # the first outcome, taken to be the only one


def test_actions_open_one_by_one():
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
    assert tried.tolist() == [True] * 8 + [False] * 12  # ceil(sqrt(63)), in their order


def test_optimism_looks_where_members_disagree_and_caution_does_not():
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


def test_variances_are_those_of_what_follows():
    """A variance counts γ² a step up, and is a mean over the visits like the value."""

    def step(state, action):
        return Evaluation(
            state, torch.zeros(1), torch.zeros(1), torch.zeros(1, 1), variance=4.0 + 0 * state[:, 0]
        )

    root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 1))
    found = search(root, step, simulations=2, generator=seeded(), rule=UCT(), discount=0.5)
    # the child: its own 4, and 0.25 · 4 from its child; the root: 0, then 0.25 · 4, then 1/16 · 4
    assert found.variances[0, 1] == pytest.approx((4 + 1) / 2)
    assert found.variances[0, 0] == pytest.approx((0 + 1 + 0.25) / 3)


def test_the_answer_of_puct_is_drawn_by_visits():
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


def test_gumbel_cannot_go_on_with_a_tree():
    root, step = table_model(golden.problem("gumbel"))
    tree = search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), discount=0.9)
    with pytest.raises(ValueError, match="Gumbel cannot go on with a tree"):
        search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), start=tree)


@pytest.mark.parametrize("rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0)])
def test_widening_opens_what_can_be_done(rule):
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


def test_gumbel_takes_no_widening():
    root, step = table_model(golden.problem("gumbel"))
    with pytest.raises(ValueError, match="Gumbel takes no widening"):
        search(root, step, simulations=5, generator=seeded(), rule=Gumbel(), widening=Widening())


# Exact outcomes.


def world(states=6, actions=3, outcomes=3, discount=0.8):
    """A random MDP: root and step, all outcomes at once; the last state is an end."""
    draw = seeded(5)
    after = torch.randint(states, (states, actions, outcomes), generator=draw)
    chance = torch.rand(states, actions, outcomes, generator=draw)
    chance[:, 0, 2] = 0  # has two outcomes only
    chance = chance / chance.sum(-1, keepdim=True)
    pay = torch.rand(states, actions, outcomes, generator=draw)
    guess = torch.rand(states, generator=draw)

    def step(state, action):
        here = state[:, 0].long(), action
        then = after[here]
        return Evaluation(
            then[..., None].float(), pay[here], guess[then], terminated=then == states - 1,
            chance=chance[here],
        )  # fmt: skip

    start = torch.arange(states - 1)
    root = Evaluation(start[:, None].float(), guess[start], guess[start], torch.zeros(5, actions))
    values, ends = torch.zeros(states), torch.arange(states) == states - 1
    for _ in range(200):
        q = (chance * (pay + discount * values[after])).sum(-1)
        values = q.max(-1).values.masked_fill(ends, 0)
    options = {"outcomes": outcomes, "discount": discount, "generator": seeded()}
    return root, step, options, values[start], q[start]


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_an_action_is_worth_the_expectation_over_its_outcomes(rule):
    root, step, options, _, _ = world()
    tree = search(root, step, simulations=300, rule=rule, **options)
    nodes, edges = tree.forest.nodes, tree.forest.edges
    for b in range(5):
        for n in np.flatnonzero(nodes["visits"][b]):
            node, own = nodes[b, n], edges[b, n]
            if node["terminal"]:
                continue
            seen, means = own["visits"], own["q"].astype(float)
            assert node["visits"] == 1 + seen.sum()
            total = node["raw"] + (seen * means).sum()
            assert node["value"] == pytest.approx(total / node["visits"], abs=1e-4)
            for a in np.flatnonzero(seen):
                below = [own["child"][a]]
                while (other := nodes["sibling"][b, below[-1]]) >= 0:
                    below.append(other)
                x = nodes[b, below]
                assert len(x) == (2 if a == 0 else 3)
                assert x["chance"].sum() == pytest.approx(1)
                worth = x["chance"] * (x["reward"] + x["discount"] * x["value"])
                assert own["q"][a] == pytest.approx(worth.sum(), abs=1e-5)
                live = x[~x["terminal"]]
                assert (x["visits"][x["terminal"]] == 1).all() or not len(live)
                if seen[a] > 100 and len(live) > 1:
                    shares = live["visits"] / live["visits"].sum()
                    assert shares == pytest.approx(live["chance"] / live["chance"].sum(), abs=0.02)


def test_exact_outcomes_come_to_the_optimum():
    root, step, options, values, q = world(discount=0.5)
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    errors = []
    for simulations in (100, 10_000):
        tree = search(root, step, simulations=simulations, rule=rule, **options)
        chosen = tree.children_values().gather(1, tree.action[:, None])[:, 0]
        errors.append((chosen - values).abs().max())
    assert (tree.action == q.argmax(1)).all()
    assert errors[0] < 0.1
    assert errors[1] < errors[0] * 100 ** (-1 / 3)


def test_a_search_goes_on_from_the_outcome_that_came():
    root, step, options, _, _ = world()
    rule = PUCT(dirichlet=0.0, temperature=0.0)
    tree = search(root, step, simulations=200, rule=rule, **options)
    came = []
    for b in range(5):
        child = int(tree.children[b, 0, tree.action[b]])
        came.append(int(tree.siblings[b, child]))  # not the first
    state = tree.states[torch.arange(5), came]
    kept = tree.after(tree.action, state)
    for b in range(5):
        assert kept.visits[b, 0] == tree.visits[b, came[b]]
        assert kept.values[b, 0] == tree.values[b, came[b]]
        assert torch.equal(kept.states[b, 0], state[b])
        assert kept.visits[b, 0] == 1 + kept.children_visits()[b].sum()
    here = Evaluation(state, root.reward, root.value, torch.zeros(5, 3))
    more = search(here, step, simulations=50, rule=rule, start=kept, **options)
    assert torch.equal(more.visits[:, 0], kept.visits[:, 0] + 50)


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
def test_what_a_step_cannot_give_is_named(change, message):
    root, step, options, _, _ = world()

    def wrong(state, action):
        good = step(state, action)
        return good._replace(**change(good))

    with pytest.raises(ValueError, match=message):
        search(root, wrong, simulations=5, **options)


def test_a_root_that_does_not_fit_is_called_one():
    root, step, options, _, _ = world()
    with pytest.raises(ValueError, match=r"the root's value must be \(5,\), got \(5, 1\)"):
        search(root._replace(value=root.value[:, None]), step, simulations=5, **options)
    with pytest.raises(ValueError, match="outcomes must be an integer of at least 1, got 0"):
        search(root, step, simulations=5, **options | {"outcomes": 0})
    with pytest.raises(ValueError, match="noise must be finite"):
        search(root, step, simulations=5, noise=torch.full((5, 3), math.nan), **options)


# Twins.


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_nodes_of_one_state_share_what_follows(rule):
    root, step, options, _, _ = world()
    tree = search(root, step, simulations=400, rule=rule, merge=True, **options)
    nodes, edges = tree.forest.nodes, tree.forest.edges
    for b in range(5):
        firsts = {}
        for n in np.flatnonzero(nodes["visits"][b]):
            state, node, own = float(tree.states[b, n, 0]), nodes[b, n], edges[b, n]
            if node["terminal"]:
                assert node["transposition"] == n
                continue
            assert node["transposition"] == firsts.setdefault(state, n)
            if node["transposition"] != n:
                assert (own["visits"] == 0).all() and (own["child"] == -1).all()
                assert node["value"] == nodes["value"][b, node["transposition"]]
                continue
            seen, means = own["visits"], own["q"].astype(float)
            total = node["raw"] + (seen * means).sum()
            assert node["visits"] == 1 + seen.sum()
            assert node["value"] == pytest.approx(total / node["visits"], abs=1e-3)
        assert len(firsts) == 5


def test_twins_bring_a_search_to_the_optimum_of_a_world_that_goes_round():
    root, step, options, values, q = world(discount=0.9)
    rule = PUCT(dirichlet=0.0, temperature=0.0)

    def error(simulations, merge):
        tree = search(root, step, simulations=simulations, rule=rule, merge=merge, **options)
        chosen = tree.children_values().gather(1, tree.action[:, None])[:, 0]
        assert not merge or simulations < 1000 or (tree.action == q.argmax(1)).all()
        return (chosen - values).abs().max() / values.abs().max()

    late = error(10_000, True)
    assert late < 0.05
    assert late < error(100, True) / 5
    assert late < error(10_000, False) / 3


def test_without_equal_states_there_are_no_twins():
    """A state is the path that led there."""

    def step(state, action):
        after = 3 * state + 1 + action[:, None]
        value = torch.sin(after[:, 0])
        return Evaluation(after, torch.cos(after[:, 0]), value)

    start = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    zero = torch.zeros(2)
    root = Evaluation(start, zero, zero, torch.zeros(2, 3))
    options = {"simulations": 25, "rule": UCT(), "discount": 0.9}
    plain = search(root, step, generator=seeded(), **options)
    merged = search(root, step, generator=seeded(), merge=True, **options)
    assert torch.equal(plain.visits, merged.visits)
    assert torch.equal(plain.parents, merged.parents)
    assert torch.allclose(plain.values, merged.values, atol=1e-5)


def test_twins_by_hand():
    """One action, round a circle of two states that pay 1 and 2: γ 1/2, leaves worth 0.

    0 -> 1 pays 1, 1 -> 0 pays 2. Simulation 1 makes 1, worth 0: q(0) = 1. Simulation 2 makes 0's
    twin, worth V(0) = (0 + 1) / 2: q(1) = 2 + .25, V(1) = 2.25 / 2, q(0) = 1 + 1.125 / 2 =
    1.5625, V(0) = 2 q(0) / 3. Simulation 3 goes round: q(1) = 2 + V(0) / 2.
    """

    def step(state, action):
        return Evaluation(1 - state, 1 + state[:, 0], torch.zeros(1))

    zero = torch.zeros(1)
    root = Evaluation(torch.zeros(1, 1), zero, zero, torch.zeros(1, 1))
    tree = search(
        root, step, simulations=3, generator=seeded(), rule=UCT(), discount=0.5, merge=True
    )
    assert tree.transpositions[0].tolist() == [0, 1, 0, 0]
    assert tree.parents[0].tolist() == [-1, 0, 1, -1]
    q0 = 2 * 1.5625 / 3
    q1 = 2 + q0 / 2
    v1 = 2 * q1 / 3
    assert tree.forest.edges["q"][0, 1, 0] == pytest.approx(q1)
    assert tree.values[0, 1] == pytest.approx(v1)
    assert tree.children_values()[0, 0] == pytest.approx(1 + v1 / 2)
    assert tree.values[0, 0] == pytest.approx(3 * (1 + v1 / 2) / 4)
    assert tree.visits[0].tolist() == [4, 3, 2, 0]
    with pytest.raises(ValueError, match="a tree with transpositions has no subtrees"):
        tree.after(tree.action)


# Maxima.


@pytest.mark.parametrize(
    "rule", [UCT(), PUCT(dirichlet=0.0, temperature=0.0), Gumbel(scale=0.0)], ids=str
)
def test_a_node_is_worth_its_best_action(rule):
    root, step = table_model(golden.problem("puct"))
    tree = search(
        root, step, simulations=60, generator=seeded(), rule=rule, discount=0.9, backup="max"
    )
    edges = tree.forest.edges
    best = np.where(edges["visits"] > 0, edges["q"], -np.inf).max(-1)
    inner = np.isfinite(best)
    assert inner.sum() > 30
    np.testing.assert_array_equal(tree.values.numpy()[inner], best[inner])
    leaves = ~inner & (tree.visits.numpy() > 0)
    np.testing.assert_array_equal(tree.values.numpy()[leaves], tree.raw_values.numpy()[leaves])
    below = tree.children[0, 0].clamp_min(0)
    q = tree.rewards[0, below] + tree.discounts[0, below] * tree.values[0, below]
    tried = tree.children[0, 0] >= 0
    assert torch.allclose(q[tried], tree.children_values()[0][tried])


def test_bellmans_backups_through_merged_states_are_exact():
    """Dynamic programming where the walks lead: V* to float32, in a world that goes round."""
    root, step, options, values, q = world(discount=0.9)
    options |= {"rule": UCT(5.0), "merge": True, "backup": "max"}
    tree = search(root, step, simulations=600, **options)
    assert torch.allclose(tree.children_values(), q, rtol=1e-4)
    assert torch.allclose(tree.value, values, rtol=1e-4)
    assert (tree.action == q.argmax(1)).all()
    with pytest.raises(ValueError, match="backup must be 'mean' or 'max', got 'min'"):
        search(root, step, simulations=5, **options | {"backup": "min"})


def test_what_does_not_go_with_twins_is_named():
    root, step, options, _, _ = world()
    with pytest.raises(ValueError, match="merge takes neither a start nor outcomes that are drawn"):
        search(root, step, simulations=5, merge=True, **options | {"outcomes": Widening()})
