"""Branched rollouts: what they return, and where they stop."""

import math

import pytest
import torch
from torch import tensor

from mbrl.imagination import branched, rollout
from tests.lines import Bad, Line, seeded


def one(state, *, generator, explore):
    """The policy that always takes 1."""
    assert explore
    return torch.ones_like(state)


def still(state, *, generator, explore):
    return torch.zeros_like(state)


def column(*values):
    return tensor(values, dtype=torch.float64).unsqueeze(-1)


def run(model, starts, policy=one, horizon=3, **settings):
    return branched(model, column(*starts), policy, horizon=horizon, generator=seeded(), **settings)


def by_start(found):
    """(state, next state) of the steps of each trajectory, in order of the state."""
    rows = found.transitions
    return sorted(zip(rows.obs[:, 0].tolist(), rows.next_obs[:, 0].tolist(), strict=True))


def test_every_start_gives_one_trajectory():
    found = run(Line([1.0]), [0.0, 10.0])
    assert by_start(found) == [(0, 1), (1, 2), (2, 3), (10, 11), (11, 12), (12, 13)]
    rows = found.transitions
    assert rows.reward.tolist() == rows.next_obs[:, 0].tolist()
    assert not rows.terminated.any()
    assert sorted(rows.next_obs[rows.truncated, 0].tolist()) == [3, 13]
    assert found[1:] == (3.0, 0.0, 0.0, 0.0)


def test_a_trajectory_stops_at_its_termination():
    found = run(Line([1.0], ends_above=1.5), [0.0, -10.0])
    assert by_start(found) == [(-10, -9), (-9, -8), (-8, -7), (0, 1), (1, 2)]
    rows = found.transitions
    assert rows.next_obs[rows.terminated, 0].tolist() == [2]
    assert not (rows.terminated & rows.truncated).any()
    assert (found.steps, found.terminated, found.halted, found.dropped) == (2.5, 0.5, 0.0, 0.0)


def test_the_first_actions_can_be_given():
    found = run(Line([1.0]), [0.0, 10.0], horizon=2, first=column(5.0, -3.0))
    assert by_start(found) == [(0, 5), (5, 6), (7, 8), (10, 7)]


@pytest.mark.parametrize("many", [1, 200])  # 200 are enough to leave ended ones out
def test_a_step_that_is_halted_does_not_count(many):
    asked = []

    def halt():
        def stop(t, state, action, rows):
            asked.append((t, rows is not None))
            return state[..., 0] >= 1  # before the step from 1 is taken

        return stop

    found = run(Line([1.0]), [0.0, -10.0] * many, halt=halt)
    assert sorted(set(by_start(found))) == [(-10, -9), (-9, -8), (-8, -7), (0, 1)]
    assert len(found.transitions.reward) == 4 * many
    rows = found.transitions
    assert sorted(set(rows.next_obs[rows.truncated, 0].tolist())) == [-7, 1]
    assert (found.steps, found.terminated, found.halted) == (2.0, 0.0, 0.5)
    assert {t for t, _ in asked} == {0, 1, 2}
    assert any(left for _, left in asked) == (many == 200)


def test_trajectories_that_are_halted_at_once_give_nothing():
    found = run(Line([1.0]), [0.0, 1.0], halt=lambda: lambda t, s, a, rows: s[..., 0] > -1)
    assert len(found.transitions.reward) == 0
    assert (found.steps, found.halted) == (0.0, 1.0)


def test_a_halted_rollout_has_no_reward_afterwards():
    """The step from 1 is not taken, so the return is that of the first one."""
    imagined = rollout(
        Line([1.0]), column(0.0), one, horizon=3, particles=1, generator=seeded(),
        halt=lambda: lambda t, s, a, rows: s[..., 0] >= 1,
    )  # fmt: skip
    assert imagined.returns().tolist() == [[1.0]]
    assert imagined.alive.tolist() == [[[True, False, False]]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["state", "reward"])
def test_steps_that_are_not_finite_are_dropped_and_counted(value, what):
    found = run(Bad(1.5, value, what), [0.0, -10.0])
    assert by_start(found) == [(-10, -9), (-9, -8), (-8, -7), (0, 1)]
    assert found.transitions.reward.isfinite().all()
    assert (found.halted, found.dropped) == (0.0, 0.5)


def test_steps_out_of_bounds_are_dropped():
    low, high = tensor([-9.0]).double(), tensor([1.5]).double()
    found = run(Line([1.0]), [0.0, -9.0], bounds=(low, high))
    assert by_start(found) == [(-9, -8), (-8, -7), (-7, -6), (0, 1)]
    assert found.dropped == 0.5


def test_each_step_is_taken_by_a_member_drawn_anew_or_always_by_the_same():
    """Members multiply by 1 or 2, so a state tells which members took the steps to it."""

    def shares(propagation):
        found = run(Line([1.0, 2.0]), [1.0] * 20_000, still, 2, propagation=propagation)
        after = found.transitions.next_obs[found.transitions.truncated, 0]
        return [float((after == value).double().mean()) for value in (1, 2, 4)]

    assert shares("tsinf") == [0.5, 0.0, 0.5]
    # blocks of 256 starts change members together, so there are 80 independent draws
    assert shares("ts1") == pytest.approx([0.25, 0.5, 0.25], abs=0.15)


def test_members_get_equal_numbers_of_starts():
    with pytest.raises(ValueError, match="a multiple of the model's 2 members"):
        run(Line([1.0, 2.0]), [0.0] * 3)
    with pytest.raises(ValueError, match="horizon must be >= 1"):
        run(Line([1.0]), [0.0], horizon=0)


def test_propagations_that_mix_trajectories_are_refused():
    """Moment matching would redraw rollouts of different starts around their common mean."""
    with pytest.raises(ValueError, match="propagation: want ts1 or tsinf, got moment"):
        run(Line([1.0, 2.0]), [0.0, 100.0], propagation="moment")
