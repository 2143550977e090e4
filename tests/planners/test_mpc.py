"""MPC: replanning, warm starts, action repeat, budgets, and closed against open loop."""

import math
import time
from dataclasses import dataclass, field

import pytest
import torch

from planners import CEM, ICEM, MPC, MPCState, Plan


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass
class Script:
    """A planner whose j-th plan is the actions 100 j, 100 j + 1, ...; it records its starts."""

    horizon: int = 4
    starts: list = field(default_factory=list)
    shifts: list = field(default_factory=list)

    def plan(self, score, start, *, generator, deadline=None):
        self.starts.append(start)
        steps = 100.0 * len(self.starts) + torch.arange(float(self.horizon))
        score(steps[None, :, None])
        zero = torch.zeros(self.horizon, 1)
        return Plan(steps[:, None], torch.tensor(0.0), zero, zero, zero[None][:0], 1, 0)

    def shift(self, plan, steps):
        self.shifts.append(steps)
        return plan._replace(evaluated=0)


def drive(mpc, steps, state=None):
    """Actions of `steps` environment steps, the steps at which it planned, and the end state."""
    state = state or MPCState()
    actions, planned = [], []
    for t in range(steps):

        def make_score(t=t):
            planned.append(t)
            return lambda a: a.sum((1, 2))

        action, state = mpc.act(make_score, state, generator=seeded())
        assert action.shape == (1,)
        actions.append(int(action))
    return actions, planned, state


def test_mpc_replans_every_step():
    actions, planned, _ = drive(MPC(Script()), 4)
    assert planned == [0, 1, 2, 3]
    assert actions == [100, 200, 300, 400]


def test_mpc_replans_every_third_action_from_the_plan_shifted_by_three():
    script = Script()
    actions, planned, _ = drive(MPC(script, replan_every=3), 7)
    assert planned == [0, 3, 6]
    assert actions == [100, 101, 102, 200, 201, 202, 300]
    assert script.starts[0] is None
    assert script.shifts == [3, 3]


def test_action_repeat_holds_each_planned_action():
    actions, planned, _ = drive(MPC(Script(), replan_every=2, action_repeat=3), 12)
    assert planned == [0, 6]
    assert actions == [100, 100, 100, 101, 101, 101, 200, 200, 200, 201, 201, 201]


def test_the_score_takes_the_repeated_actions():
    seen = []
    make_score = lambda: lambda a: seen.append(a) or a.sum((1, 2))  # noqa: E731
    MPC(Script(horizon=3), action_repeat=2).act(make_score, MPCState(), generator=seeded())
    assert seen[0].flatten().tolist() == [100, 100, 101, 101, 102, 102]


def test_open_loop_plans_once_and_raises_an_error_after_the_last_action():
    mpc = MPC(Script(horizon=4), replan_every=0, action_repeat=2)
    actions, planned, state = drive(mpc, 8)
    assert planned == [0]
    assert actions == [100, 100, 101, 101, 102, 102, 103, 103]
    with pytest.raises(ValueError, match="plan of 4 actions, each held 2 steps, ran out at step 8"):
        drive(mpc, 1, state)


def test_writing_to_a_returned_action_does_not_change_the_plan():
    mpc = MPC(Script(), replan_every=0)
    action, state = mpc.act(lambda: lambda a: a.sum((1, 2)), MPCState(), generator=seeded())
    action.zero_()
    assert state.plan is not None and state.plan.actions[0] == 100


def test_a_saved_state_continues_with_the_same_actions(tmp_path):
    low, high = -torch.ones(2), torch.ones(2)
    mpc = MPC(ICEM(low, high, 6, knots=3, interpolation="linear"), replan_every=2)
    make_score = lambda: lambda a: -((a - 0.3) ** 2).sum((1, 2))  # noqa: E731
    generator = seeded()
    state = MPCState()
    for _ in range(3):
        _, state = mpc.act(make_score, state, generator=generator)
    saved = {"plan": tuple(state.plan or ()), "cursor": state.cursor, "rng": generator.get_state()}
    torch.save(saved, tmp_path / "mpc.pt")

    def go_on(state, generator):
        actions = []
        for _ in range(5):
            action, state = mpc.act(make_score, state, generator=generator)
            actions.append(action)
        return torch.stack(actions)

    expected = go_on(state, generator)
    back = torch.load(tmp_path / "mpc.pt", weights_only=True)
    other = torch.Generator()
    other.set_state(back["rng"])
    got = go_on(MPCState(Plan(*back["plan"]), back["cursor"]), other)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replan_every": 5}, r"replan_every must lie in 0\.\.horizon = 0\.\.4 .*got 5"),
        ({"replan_every": -1}, "got -1"),
        ({"action_repeat": 0}, "action_repeat must be an integer of at least 1, got 0"),
        ({"budget_ms": 0}, "budget_ms must be finite and > 0 or None, got 0"),
        ({"budget_ms": math.inf}, "budget_ms must be finite and > 0 or None, got inf"),
        ({"budget_ms": math.nan}, "budget_ms must be finite and > 0 or None, got nan"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        MPC(Script(), **change)


def napping(seconds, calls=None):
    """A score that takes at least a given time, and records its calls."""

    def score(actions):
        if calls is not None:
            calls.append(len(actions))
        time.sleep(seconds)
        return -((actions - 0.3) ** 2).sum((1, 2))

    return score


def test_a_budget_limits_the_rounds_of_a_search():
    """At most five rounds of 20 ms each fit into 110 ms."""
    planner = CEM(-torch.ones(1), torch.ones(1), 6, iterations=1000, population=20, elites=5)
    mpc = MPC(planner, budget_ms=110)
    calls, state = [], MPCState()
    for _ in range(2):
        calls.clear()
        _, state = mpc.act(lambda: napping(0.02, calls), state, generator=seeded())
        assert state.plan is not None
        assert 1 <= state.plan.rounds <= 5
    assert sum(calls) == state.plan.evaluated


def test_a_budget_that_is_not_reached_does_not_change_the_plan():
    """The timing of rounds uses another generator."""
    planner = CEM(-torch.ones(1), torch.ones(1), 6, iterations=3)
    free, ample = seeded(), seeded()
    one, state = MPC(planner).act(lambda: napping(0), MPCState(), generator=free)
    mpc = MPC(planner, budget_ms=1e6)
    two, other = mpc.act(lambda: napping(0), MPCState(), generator=ample)
    assert torch.equal(one, two) and torch.equal(free.get_state(), ample.get_state())
    assert state.plan is not None and other.plan is not None
    assert state.plan.evaluated == other.plan.evaluated
    assert state.plan.rounds == other.plan.rounds == 3


def test_a_round_is_timed_only_before_the_first_search():
    calls = []
    mpc = MPC(CEM(-torch.ones(1), torch.ones(1), 6, iterations=1), budget_ms=1e6)
    _, state = mpc.act(lambda: napping(0, calls), MPCState(), generator=seeded())
    assert len(calls) == 5  # three to measure, one round, and its mean
    calls.clear()
    mpc.act(lambda: napping(0, calls), state, generator=seeded())
    mpc.act(lambda: napping(0, calls), MPCState(), generator=seeded())
    assert len(calls) == 4


def test_a_budget_shorter_than_a_round_is_refused():
    mpc = MPC(CEM(-torch.ones(1), torch.ones(1), 6), budget_ms=2)
    message = r"budget_ms 2 is shorter than one round of the search, which took \d\d.* ms; raise it"
    for _ in range(2):
        with pytest.raises(ValueError, match=message) as error:
            mpc.act(lambda: napping(0.02), MPCState(), generator=seeded())
    assert "\n" not in str(error.value)


STEPS, DT, NOISE = 20, 0.2, 0.15
MOVE = torch.tensor([[1.0, DT], [0.0, 1.0]])  # a unit mass: position and velocity
FORCE = torch.tensor([DT**2, DT])
WEIGHT = torch.tensor([1.0, 0.1])  # of position² and velocity², in addition to 0.1 force²


def cost(x, u):
    return (WEIGHT * x**2).sum(-1) + 0.1 * u**2


def rolled_out():
    """States (H, 2) as x0 @ FREE + u @ FORCED, so that a score is two matrix products."""
    free, forced = torch.eye(2), torch.zeros(STEPS, 2)
    frees, forceds = [], []
    for t in range(STEPS):
        frees.append(free)
        forceds.append(forced.clone())
        free, forced = free @ MOVE.T, forced @ MOVE.T
        forced[t] += FORCE
    return torch.stack(frees, 1).reshape(2, -1), torch.stack(forceds, 1).reshape(STEPS, -1)


FREE, FORCED = rolled_out()


def score_from(x):
    def score(actions):
        u = actions[..., 0]
        states = (x @ FREE + u @ FORCED).view(len(u), STEPS, 2)
        return -cost(states, u).sum(1)

    return score


def episode(mpc, seed):
    """The cost of STEPS steps from position 1 at rest, under the noise of this seed."""
    noise = NOISE * torch.randn(STEPS, 2, generator=seeded(1000 + seed))
    x, state, total, generator = torch.tensor([1.0, 0.0]), MPCState(), 0.0, seeded(seed)
    for t in range(STEPS):
        action, state = mpc.act(lambda x=x: score_from(x), state, generator=generator)
        total += cost(x, action[0]).item()
        x = x @ MOVE.T + FORCE * action[0] + noise[t]
    return total


def test_without_noise_the_score_equals_the_cost_of_the_episode():
    planner = CEM(torch.tensor([-3.0]), torch.tensor([3.0]), STEPS)
    plan = planner.plan(score_from(torch.tensor([1.0, 0.0])), None, generator=seeded())
    x, total = torch.tensor([1.0, 0.0]), 0.0
    for u in plan.actions[:, 0]:
        total += cost(x, u).item()
        x = x @ MOVE.T + FORCE * u
    assert total == pytest.approx(-plan.score.item(), rel=1e-5)


def test_closed_loop_beats_open_loop_under_noise():
    """Replanning at every step against executing the first plan, with the same 10 noises."""
    planner = CEM(torch.tensor([-3.0]), torch.tensor([3.0]), STEPS, population=100, elites=10)
    open_loop, closed = MPC(planner, replan_every=0), MPC(planner, replan_every=1)
    costs = torch.tensor([(episode(open_loop, s), episode(closed, s)) for s in range(10)])
    assert (costs[:, 1] < costs[:, 0]).sum() >= 8
    assert costs[:, 0].mean() > 1.6 * costs[:, 1].mean()
