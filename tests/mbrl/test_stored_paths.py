"""Paths of stored transitions: their lengths, against breadth-first search and by hand."""

from collections import deque

import pytest
import torch

from mbrl.dynamics.stored_paths import StoredPaths
from mbrl.types import Step

WALL = 4  # cells (x, y) of a grid of 9 x 7; x = 4 is closed but for y = 0
CELLS = [(x, y) for x in range(9) for y in range(7) if x != WALL or y == 0]
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


class Grid:
    """Moves by a cell in the direction of the action, if the cell is free."""

    members, noise_shape = 1, (0,)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def step(self, state, action, *, noise):
        to = state + action
        free = torch.tensor([tuple(map(round, cell)) in CELLS for cell in to[0].tolist()])
        after = torch.where(free[None, :, None], to, state)
        return Step(after, torch.zeros(after.shape[:2]), torch.zeros(after.shape[:2]).bool())


def transitions():
    """All of the grid, one for each cell and move."""
    starts = torch.tensor(CELLS, dtype=torch.float32).repeat_interleave(len(MOVES), 0)
    moves = torch.tensor(MOVES * len(CELLS), dtype=torch.float32)
    return starts, Grid().step(starts[None], moves[None], noise=None).state[0]


def searched(goal):
    """Steps to a cell from every other, by breadth-first search."""
    steps, queue = {goal: 0}, deque([goal])
    while queue:
        x, y = queue.popleft()
        for dx, dy in MOVES:
            if (to := (x + dx, y + dy)) in CELLS and to not in steps:
                steps[to] = steps[x, y] + 1
                queue.append(to)
    return steps


@pytest.mark.parametrize("goal", [(8, 6), (0, 3), (4, 0)])
def test_steps_are_those_of_the_shortest_path_around_the_wall(goal):
    """A cell has four transitions: a path goes on with the best, and their mean is its steps."""
    paths = StoredPaths(Grid(), *transitions(), neighbours=4, around=4)
    paths.set_goal(torch.tensor(goal, dtype=torch.float32))
    truth = searched(goal)
    found = paths.steps(torch.tensor(CELLS, dtype=torch.float32)).tolist()
    for cell, steps in zip(CELLS, found, strict=True):
        away = ((cell[0] - goal[0]) ** 2 + (cell[1] - goal[1]) ** 2) ** 0.5
        if away < 2:
            assert steps == pytest.approx(away)
        else:  # the transition that leaves the cell by the best move is one of four
            moves = [truth[to] + 1 for to in [*around(cell), *[cell] * (4 - len(around(cell)))]]
            assert steps == pytest.approx(sum(moves) / 4)


def around(cell):
    return [to for dx, dy in MOVES if (to := (cell[0] + dx, cell[1] + dy)) in CELLS]


def test_a_step_ends_at_a_stored_code_and_is_worth_minus_its_steps():
    paths = StoredPaths(Grid(), *transitions())
    paths.set_goal(torch.tensor([8.0, 3.0]))
    state = torch.tensor([[[0.1, 2.8], [7.6, 3.1]]])
    step = paths.step(state, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), noise=None)
    assert step.state.tolist() == [[[1.0, 3.0], [8.0, 3.0]]]
    assert torch.equal(step.reward[0], -paths.steps(torch.tensor([[1.1, 2.8], [7.6, 3.1]])))
    assert not step.terminated.any()
    near = paths.steps(torch.tensor([[[8.0, 3.0], [8.0, 4.5]]]))
    assert near.tolist() == [[0.0, 1.5]]


def test_codes_without_a_path_count_one_step_more_than_the_farthest():
    """Everything moves right, so nothing left of the goal is reached from its right."""
    codes = torch.arange(10.0)[:, None]
    paths = StoredPaths(Grid(), codes, codes + 1, neighbours=1, around=1)
    paths.set_goal(torch.tensor([4.0]))
    assert paths.steps(codes).tolist() == [4.0, 3.0, 2.0, 1.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0]


def test_a_goal_that_no_transition_comes_near_is_that_of_the_nearest_end():
    codes = torch.arange(10.0)[:, None]
    paths = StoredPaths(Grid(), codes, codes + 1, neighbours=1, around=1)
    paths.set_goal(torch.tensor([15.0]))
    assert paths.steps(codes).tolist() == [15.0 - x for x in range(10)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"after": torch.zeros(3, 3)}, r"want the same shape \(T, Z\), got \(3, 2\) and \(3, 3\)"),
        ({"after": torch.full((3, 2), torch.nan)}, "not finite"),
        ({"after": torch.zeros(3, 2)}, "no transition moves"),
        ({"neighbours": 4}, "neighbours: want 1 to T = 3, got 4"),
        ({"around": 0}, "around: want 1 to T = 3, got 0"),
    ],
)
def test_wrong_transitions_are_refused(change, said):
    given = {"codes": torch.zeros(3, 2), "after": torch.ones(3, 2)}
    given |= {"neighbours": 2, "around": 2} | change
    with pytest.raises(ValueError, match=said):
        StoredPaths(Grid(), **given)


def test_goals_and_models_that_do_not_fit_are_refused():
    paths = StoredPaths(Grid(), *transitions())
    with pytest.raises(ValueError, match="goal: none is set"):
        paths.steps(torch.zeros(2))
    with pytest.raises(ValueError, match=r"goal: want a finite code of shape \(2,\), got \(3,\)"):
        paths.set_goal(torch.zeros(3))
    with pytest.raises(NotImplementedError, match="have rewards of their own"):
        paths.decode(torch.zeros(2))
    several = Grid()
    several.members = 5
    with pytest.raises(ValueError, match="model: want one member, got 5"):
        StoredPaths(several, *transitions())
