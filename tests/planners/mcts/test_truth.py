"""Results of tree search against hand-computed values, linear programming and full enumeration."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.tabular import FiniteMDP
from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Widening, search

QUIET = {
    "uct": UCT(),
    "puct": PUCT(dirichlet=0.0, temperature=0.0),
    "gumbel": Gumbel(scale=0.0),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------ by hand

VALUES = {"": 0.0, "l": 0.6, "r": 0.4, "ll": 0.2, "lr": 0.8, "rl": 0.9, "rr": 0.1}


def test_eight_simulations_of_uct_equal_hand_computed_values():
    """A tree of depth two with rewards of zero. With C = 1/√2 a score is Q + 2 sqrt(ln N / n):

    simulation  N  l: Q, n      score   r: Q, n      score   goes to
        1, 2    -  untried              untried              l, then r
        3       3  .6, 1        2.696   .4, 1        2.496   ll, untried
        4       4  .4, 2        2.065   .4, 1        2.755   rl, untried
        5       5  .4, 2        2.194   .65, 2       2.444   rr, untried
        6       6  .4, 2        2.293   .46667, 3    2.012   lr, untried
        7       7  .53333, 3    2.144   .46667, 3    2.078   lr: 2.896 to ll's 2.296 (N = 3)
        8       8  .6, 4        2.042   .46667, 3    2.132   rl: 2.996 to rr's 2.196 (N = 3)
    """
    names = list(VALUES)
    value = torch.tensor(list(VALUES.values()))

    def step(state, action):
        moved = [names[int(s)] + "lr"[a] for s, a in zip(state[:, 0], action, strict=True)]
        # at depth two a step is called too, and its result ignored
        index = torch.tensor([names.index(name[:2]) for name in moved])
        return Evaluation(index[:, None].float(), torch.zeros(len(index)), value[index])

    root = Evaluation(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 2))
    found = search(
        root, step, simulations=8, generator=seeded(), rule=UCT(1 / math.sqrt(2)), max_depth=2
    )
    made = [names[int(s)] for s in found.states[0, :7, 0]]
    assert made == ["", "l", "r", "ll", "rl", "rr", "lr"]
    assert found.visits[0].tolist() == [9, 4, 4, 1, 2, 1, 2, 0, 0]
    assert found.children_visits().tolist() == [[4, 4]]
    assert found.action.tolist() == [0]
    want = [4.7 / 9, 2.4 / 4, 2.3 / 4, 0.2, 0.9, 0.1, 0.8]
    assert found.values[0, :7].tolist() == pytest.approx(want, abs=1e-6)


# ---------------------------------------------------------------------- finite decision processes


def tables(mdp):
    """P (S, A, S), R (S, A), ends (S,) as tensors."""
    chances = mdp.transitions.toarray().reshape(mdp.states, mdp.actions, mdp.states)
    return (
        torch.tensor(chances),
        torch.tensor(mdp.rewards, dtype=torch.float32),
        torch.tensor(mdp.terminal),
    )


def problem(mdp, roots, generator):
    """An MDP as root and step with leaf values of 0; the step draws the next state."""
    chances, rewards, ends = tables(mdp)
    upto = chances.cumsum(-1)

    def step(state, action):
        here = state[:, 0].long()
        draw = torch.rand(len(here), 1, generator=generator, dtype=torch.float64)
        after = (upto[here, action] < draw).sum(-1).clamp_max(mdp.states - 1)
        zero = torch.zeros(len(here))
        return Evaluation(after[:, None].float(), rewards[here, action], zero, None, ends[after])

    start = torch.tensor(roots)[:, None].float()
    zero = torch.zeros(len(start))
    return Evaluation(start, zero, zero, torch.zeros(len(start), mdp.actions)), step


def side_by_side(rng, copies, states, actions, discount):
    """Deterministic random MDPs as one with disconnected parts; rewards in [0, 1]."""
    size = copies * states
    chances = np.zeros((size, actions, size))
    for s, a in itertools.product(range(size), range(actions)):
        chances[s, a, s // states * states + rng.integers(states)] = 1
    return FiniteMDP(chances, rng.random((size, actions)), discount, 0, [])


def exploration(c, actions, simulations, discount):
    """The largest error of the mean by exploration: an action whose value is Δ below the best is
    tried while Δ <= 2 C sqrt(2 ln N / n), so over N visits Σ Δ n <= sqrt(8 C² K N ln N) (Auer et
    al. 2002, without gaps), at the root and, discounted, at each level below."""
    regret = math.sqrt(8 * c**2 * actions * math.log(simulations) / simulations)
    return regret / (1 - discount)


def test_values_and_actions_in_deterministic_worlds_equal_the_linear_programme():
    copies, states, actions, discount, depth = 24, 5, 3, 0.5, 9
    c, simulations = 0.3, 4000
    mdp = side_by_side(np.random.default_rng(0), copies, states, actions, discount)
    roots = np.arange(copies) * states
    best = mdp.optimum()
    root, step = problem(mdp, roots, seeded())
    found = search(
        root, step, simulations=simulations, generator=seeded(), rule=UCT(c), discount=discount,
        max_depth=depth,
    )  # fmt: skip
    cut = discount**depth / (1 - discount)
    error = best.values[roots] - found.value.numpy()
    assert (error >= 0).all()  # rewards are not negative, so means of truncated returns are too low
    assert (error <= exploration(c, actions, simulations, discount) + cut).all()
    chosen = best.action_values[roots, found.action.numpy()]
    assert (best.values[roots] - chosen <= cut).all()


@pytest.mark.parametrize("rule", QUIET)
def test_every_rule_finds_the_best_actions_of_worlds_that_end(rule):
    rng, states, actions = np.random.default_rng(5), 40, 3
    chances = np.zeros((states, actions, states))
    for s, a in itertools.product(range(states), range(actions)):
        chances[s, a, min(states - 1, s + rng.integers(1, 12))] = 1
    mdp = FiniteMDP(chances, rng.random((states, actions)) / 5, 1.0, 0, [states - 1])
    best = mdp.optimum()
    roots = np.arange(states - 12, states - 1)
    root, step = problem(mdp, roots, seeded())
    found = search(root, step, simulations=4000, generator=seeded(), rule=QUIET[rule])
    chosen = best.action_values[roots, found.action.numpy()]
    assert chosen == pytest.approx(best.values[roots], abs=1e-6)


def layered(rng, layers, width, actions):
    """Each action of a layer leads at random to one of two states of the next layer."""
    end = layers * width
    chances = np.zeros((end + 1, actions, end + 1))
    for s, a in itertools.product(range(end), range(actions)):
        if s // width == layers - 1:
            chances[s, a, end] = 1
        else:
            chance = rng.uniform(0.2, 0.8)
            to = (s // width + 1) * width + rng.choice(width, 2, replace=False)
            chances[s, a, to] = chance, 1 - chance
    return FiniteMDP(chances, rng.random((end + 1, actions)), 1.0, 0, [end])


def test_stochastic_worlds_are_solved_by_widening_outcomes():
    """Leaves have value 0, so each new outcome has too low a value: with n visits and n^0.4
    outcomes they are a share n^-0.6 of all. Without outcomes the first draw counts as certain,
    and some actions are wrong."""
    mdp, seeds = layered(np.random.default_rng(0), 3, 4, 2), 8
    best, roots = mdp.optimum(), np.arange(4).repeat(seeds)

    def errors(simulations, outcomes):
        root, step = problem(mdp, roots, seeded(1))
        found = search(
            root, step, simulations=simulations, generator=seeded(), rule=UCT(0.3),
            outcomes=outcomes,
        )  # fmt: skip
        lost = best.values[roots] - best.action_values[roots, found.action.numpy()]
        return np.abs(found.value.numpy() - best.values[roots]), lost

    wide = Widening(1.0, 0.4)
    few, many = (errors(simulations, wide) for simulations in (250, 4000))
    blind = errors(4000, None)
    assert (many[1] < 1e-9).all() and (blind[1] > 0.01).any()
    assert many[0].mean() < few[0].mean() / 2


# ------------------------------------------------------------------------------------- games


class LineGame:
    """Two players fill cells; a full line wins. A board (B, cells) is +1 at stones of the player to
    move. `aim(board, action)` is the cell that a move fills, None if it is illegal; `rises` is the
    height of a column in which stones fall, 1 if they do not fall."""

    def __init__(self, lines, aim, actions, rises):
        self.lines, self.aim, self.actions, self.rises = lines, aim, actions, rises

    def _cells(self, boards):
        """Cells (B, K) of all moves, -1 for illegal ones."""
        height = (boards != 0).unflatten(1, (self.actions, self.rises)).sum(-1)
        cells = torch.arange(self.actions) * self.rises + height
        return torch.where(height < self.rises, cells, -1)

    def root(self, boards):
        boards = torch.tensor(boards)
        zero = torch.zeros(len(boards))
        return Evaluation(boards, zero, zero, invalid=self._cells(boards) < 0)

    def step(self, boards, action):
        cell = self._cells(boards).gather(1, action[:, None]).clamp_min(0)
        boards = boards.scatter(1, cell, 1.0)
        won = (boards[:, torch.tensor(self.lines)] == 1).all(-1).any(1)
        over = won | (boards != 0).all(1)
        one = torch.ones(len(boards))
        return Evaluation(
            -boards, won.float(), 0 * one, None, over, discount=-one,
            invalid=self._cells(-boards) < 0,
        )  # fmt: skip

    def moves(self, board):
        return {
            a: self.aim(board, a) for a in range(self.actions) if self.aim(board, a) is not None
        }

    def play(self, board, cell):
        """The board after a move, from the other player's side, and whether the move won."""
        board = (*board[:cell], 1, *board[cell + 1 :])
        won = any(all(board[c] == 1 for c in line) for line in self.lines)
        return tuple(-x for x in board), won

    @cache  # noqa: B019
    def value(self, board):
        """The exact value of a board for the player to move."""
        return max(self.worth(board, cell) for cell in self.moves(board).values())

    def worth(self, board, cell):
        after, won = self.play(board, cell)
        if won:
            return 1
        return -self.value(after) if 0 in after else 0

    def blunders(self, boards, actions):
        """The moves that lower the value."""
        return [
            (board, action)
            for board, action in zip(boards, actions, strict=True)
            if self.aim(board, action) is None
            or self.worth(board, self.aim(board, action)) < self.value(board)
        ]


ROWS = [[3 * i + j for j in range(3)] for i in range(3)]
NOUGHTS = LineGame(
    [*ROWS, *map(list, zip(*ROWS, strict=True)), [0, 4, 8], [2, 4, 6]],
    lambda board, action: None if board[action] else action,
    9,
    1,
)


def reachable(plies):
    """Boards of noughts and crosses with a number of stones that are not finished; one of each
    group of eight rotations and reflections."""
    boards = {(0,) * 9}
    for _ in range(plies):
        after = (
            NOUGHTS.play(board, cell) for board in boards for cell in NOUGHTS.moves(board).values()
        )
        boards = {board for board, won in after if not won}
    return sorted({max(turned(board)) for board in boards})


def turned(board):
    square = np.reshape(board, (3, 3))
    for _ in range(4):
        square = np.rot90(square)
        yield tuple(square.ravel().tolist())
        yield tuple(square.T.ravel().tolist())


GAME_RULES = {
    "uct": (UCT(), 6000),
    "puct": (PUCT(scale="none", dirichlet=0.0, temperature=0.0), 3000),
    "gumbel": (Gumbel(scale=0.0), 3000),  # a blunder on one of the 94 boards below
}


@pytest.mark.parametrize("rule, simulations", [GAME_RULES["uct"], GAME_RULES["puct"]])
def test_noughts_and_crosses_is_solved(rule, simulations):
    """All boards with up to three stones, and 40 with more."""
    boards = [board for plies in range(4) for board in reachable(plies)]
    assert len(boards) == 1 + 3 + 12 + 38
    later = [board for plies in (4, 5, 6, 7) for board in reachable(plies)]
    boards += [later[i] for i in np.random.default_rng(1).choice(len(later), 40, replace=False)]
    found = search(
        NOUGHTS.root(np.float32(boards)), NOUGHTS.step, simulations=simulations,
        generator=seeded(), rule=rule,
    )  # fmt: skip
    assert NOUGHTS.value((0,) * 9) == 0
    assert not NOUGHTS.blunders(boards, found.action.tolist())


def fours():
    """The 69 lines of four on seven columns of six cells, cell 6 c + r."""
    for c, r, (dc, dr) in itertools.product(range(7), range(6), ((1, 0), (0, 1), (1, 1), (1, -1))):
        if c + 3 * dc < 7 and 0 <= r + 3 * dr < 6:
            yield [6 * (c + k * dc) + r + k * dr for k in range(4)]


def drop(board, column):
    """The lowest free cell of a column."""
    return next((6 * column + r for r in range(6) if board[6 * column + r] == 0), None)


FOUR = LineGame(list(fours()), drop, 7, 6)


def endings(count, empty, rng):
    """Unfinished boards of connect four with a number of free cells, by random play."""
    found = []
    while len(found) < count:
        board, won = (0,) * 42, False
        while not won and board.count(0) > empty:
            board, won = FOUR.play(board, rng.choice(list(FOUR.moves(board).values())))
        if not won:
            found.append(board)
    return found


@pytest.mark.parametrize("rule", GAME_RULES)
def test_endings_of_connect_four_are_played_without_loss(rule):
    assert len(FOUR.lines) == 69
    boards = endings(20, 8, np.random.default_rng(2))
    assert {-1, 1} <= {FOUR.value(board) for board in boards}
    found = search(
        FOUR.root(np.float32(boards)), FOUR.step, simulations=1000, generator=seeded(),
        rule=GAME_RULES[rule][0],
    )  # fmt: skip
    assert not FOUR.blunders(boards, found.action.tolist())


# ------------------------------------------------------------------------------ one and many


def drawn(seed, roots, *, ends=0.2, forbid=0.3, states=12, actions=4):
    """A random table as root(rows) and step, with terminations and invalid actions."""
    rng = np.random.default_rng(seed)
    shape = (states, actions)
    following = torch.tensor(rng.integers(states, size=shape))
    reward, logits = (torch.tensor(rng.normal(size=shape)).float() for _ in range(2))
    value = torch.tensor(rng.normal(size=states)).float()
    over = torch.tensor(rng.random(shape) < ends)
    barred = torch.tensor(rng.random(shape) < forbid)
    barred[:, 1] = False

    def step(state, action):
        here = state[:, 0].long()
        to = following[here, action]
        return Evaluation(
            to[:, None].float(), reward[here, action], value[to], logits[to], over[here, action],
            invalid=barred[to],
        )  # fmt: skip

    def root(rows):
        at = torch.tensor(roots)[rows]
        zero = torch.zeros(len(at))
        return Evaluation(at[:, None].float(), zero, value[at], logits[at], invalid=barred[at])

    return root, step


ALONE = {
    "uct": (UCT(), None),
    "puct": (PUCT(temperature=0.0), "dirichlet"),
    "gumbel": (Gumbel(), "gumbel"),
}


@pytest.mark.parametrize("rule, kind", ALONE.values(), ids=ALONE)
def test_a_batch_equals_separate_searches(rule, kind):
    count, actions = 7, 4
    rng = np.random.default_rng(3)
    noise = {
        None: lambda: None,
        "dirichlet": lambda: torch.tensor(rng.dirichlet([0.3] * actions, count)),
        "gumbel": lambda: torch.tensor(rng.gumbel(size=(count, actions))),
    }[kind]()
    root, step = drawn(4, list(range(count)))

    def look(rows):
        own = None if noise is None else noise[rows]
        return search(
            root(rows), step, simulations=80, generator=seeded(), rule=rule, discount=0.9, noise=own
        )

    together = look(list(range(count)))
    for b in range(count):
        alone = look([b])
        assert torch.equal(alone.action[0], together.action[b])
        assert torch.equal(alone.policy[0], together.policy[b])
        for one, many in zip(alone.forest, together.forest, strict=True):
            assert np.array_equal(one[0], many[b])
        there = alone.visits[0] > 0
        assert torch.equal(alone.states[0, there], together.states[b, there])


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from(["uct", "puct", "gumbel"]),
    simulations=st.integers(1, 60),
    depth=st.integers(1, 5),
    several=st.booleans(),
    discount=st.sampled_from([0.0, 0.7, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_every_tree_is_consistent(seed, rule, simulations, depth, several, discount):
    count = 3
    root, step = drawn(seed, [0, 1, 2])
    found = search(
        root(list(range(count))), step, simulations=simulations, generator=seeded(seed),
        rule=ALONE[rule][0], discount=discount, max_depth=depth,
        outcomes=Widening(1.0, 0.5) if several else None,
    )  # fmt: skip
    visits, parents = found.visits.numpy(), found.parents.numpy()
    values, raw, rewards, discounts = (
        x.numpy().astype(float)
        for x in (found.values, found.raw_values, found.rewards, found.discounts)
    )
    for b in range(count):
        level = np.zeros(simulations + 1, dtype=int)
        assert visits[b, 0] == simulations + 1
        for n in np.flatnonzero(visits[b])[1:]:
            assert 0 <= parents[b, n] < n
            level[n] = level[parents[b, n]] + 1
        for n in np.flatnonzero(visits[b]):
            below = np.flatnonzero((parents[b] == n) & (visits[b] > 0))
            if found.forest.nodes["terminal"][b, n]:
                assert not len(below) and values[b, n] == discounts[b, n] == 0
                continue
            prior = found.priors[b, n]
            assert float(prior[prior >= 0].sum()) == pytest.approx(1, abs=1e-5)
            assert all(prior[found.moves[b, child]] >= 0 for child in below)
            own = visits[b, n] if level[n] == depth else 1
            assert visits[b, n] == own + visits[b, below].sum()
            q = rewards[b, below] + discounts[b, below] * values[b, below]
            total = own * raw[b, n] + (visits[b, below] * q).sum()
            assert values[b, n] == pytest.approx(total / visits[b, n], abs=1e-4)
        assert level.max() <= depth
    assert (found.priors[torch.arange(count), 0, found.action] >= 0).all()
    assert found.policy.sum(1).tolist() == pytest.approx([1] * count, abs=1e-5)


# ------------------------------------------------------------------------------------- errors


def broken(at, **wrong):
    """A chain of three actions whose step returns an invalid result in simulation `at`."""
    calls = itertools.count(1)
    zero = torch.zeros(2)

    def step(state, action):
        found = Evaluation(state + 1, zero, zero, torch.zeros(2, 3))
        return found._replace(**wrong) if next(calls) == at else found

    return step


START = Evaluation(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2), torch.zeros(2, 3))
NAN = torch.tensor([0.0, math.nan])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"reward": NAN}, "simulation 5, tree 1: the model gave a reward that is not finite"),
        ({"value": NAN}, "simulation 5, tree 1: the model gave a value that is not finite"),
        ({"logits": NAN[:, None].expand(2, 3)}, "simulation 5, tree 1: .* logits that are not"),
        ({"invalid": torch.ones(2, 3, dtype=torch.bool)}, "simulation 5, tree 0: .* no action"),
        ({"reward": torch.zeros(2, 1)}, r"a step's reward must be \(2,\), got \(2, 1\)"),
        ({"value": torch.zeros(3)}, r"a step's value must be \(2,\), got \(3,\)"),
        ({"logits": torch.zeros(2, 4)}, r"a step's logits must be \(2, 3\), got \(2, 4\)"),
        ({"terminated": torch.zeros(1)}, r"a step's terminated must be \(2,\), got \(1,\)"),
    ],
)
def test_invalid_results_of_a_model_are_named_with_their_simulation(wrong, message):
    with pytest.raises(ValueError, match=message):
        search(START, broken(5, **wrong), simulations=6, generator=seeded())


@pytest.mark.parametrize(
    "root, given, message",
    [
        ({}, {"simulations": 0}, "simulations must be an integer of at least 1, got 0"),
        ({}, {"simulations": 2.5}, "simulations must be an integer of at least 1, got 2.5"),
        ({}, {"max_depth": 0}, "max_depth must be an integer of at least 1, got 0"),
        ({}, {"discount": 1.01}, r"discount must lie in \[0, 1\], got 1.01"),
        ({}, {"discount": -1}, r"discount must lie in \[0, 1\], got -1"),
        ({}, {"noise": torch.zeros(2, 4)}, r"noise must be \(2, 3\), got \(2, 4\)"),
        ({"state": torch.zeros(2)}, {}, r"the root's state must be \(B, S\), got \(2,\)"),
        ({"logits": None}, {}, "the root must give the number of actions"),
        ({"logits": torch.zeros(3, 3)}, {}, r"must begin with \(B, K\) = \(2, 3\), got \(3, 3\)"),
        ({"value": NAN}, {}, "root, tree 1: the model gave a value that is not finite"),
        ({"invalid": torch.ones(2, 3) > 0}, {}, "root, tree 0: .* no action that can be taken"),
        ({"actions": torch.zeros(2, 3, 1)}, {}, "actions are a sample, so a step must give"),
    ],
)
def test_invalid_arguments_of_a_search_are_refused_by_name(root, given, message):
    with pytest.raises(ValueError, match=message):
        search(
            START._replace(**root), broken(0), **{"simulations": 3, "generator": seeded()} | given
        )
