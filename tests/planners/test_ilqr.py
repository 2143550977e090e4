"""iLQR: exact on linear-quadratic problems, monotone on others, within its bounds."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from planners import ILQR, MPC, Expansion, MPCState, lqr
from planners.ilqr import box_qp

GENERATOR = torch.Generator()
DT, STEPS = 0.05, 40
WIDE = torch.tensor([1e6], dtype=torch.float64)


class LinearQuadratic:
    """A cart from rest at 1: x' = F x + B u, cost ½ (xᵀ Q x + R u²), ten times that at the end."""

    fx = torch.tensor([[1.0, DT], [0.0, 1.0]], dtype=torch.float64)
    fu = torch.tensor([[0.0], [DT]], dtype=torch.float64)
    lxx = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
    luu = torch.tensor([[0.01]], dtype=torch.float64)

    def rollout(self, policy, count, horizon):
        x = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(count, 2)
        states, cost = [x], torch.zeros(count, dtype=torch.float64)
        for t in range(horizon):
            u = policy(t, x)
            cost = cost + ((x @ self.lxx * x).sum(1) + (u @ self.luu * u).sum(1)) / 2
            x = x @ self.fx.T + u @ self.fu.T
            states.append(x)
        return torch.stack(states, 1), cost + 5 * (x @ self.lxx * x).sum(1)

    def difference(self, states, origin):
        return states - origin

    def expand(self, states, actions):
        weight = torch.ones(len(states), 1, dtype=torch.float64)
        weight[-1] = 10
        steps = len(actions)
        return Expansion(
            self.fx.expand(steps, 2, 2),
            self.fu.expand(steps, 2, 1),
            weight * (states @ self.lxx),
            actions @ self.luu,
            weight[..., None] * self.lxx,
            self.luu.expand(steps, 1, 1),
            torch.zeros(steps, 1, 2, dtype=torch.float64),
        )

    def law(self):
        expansion = [part.numpy() for part in self.expand(*self.still())]
        return lqr(*expansion[:2], *expansion[4:6])

    def still(self):
        states = torch.zeros(STEPS + 1, 2, dtype=torch.float64)
        return states, torch.zeros(STEPS, 1, dtype=torch.float64)


class Pendulum:
    """Swing-up of a pendulum, whose angle is a unit vector, so X = 3 and S = 2.

    Derivatives by autograd in the tangent space; the cost is 1 + cos of the angle, a little of
    the speed² and the torque², and ten times that at the end.
    """

    def __init__(self, angle=0.1, nap=0.0):
        self.first = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
        self.nap = nap

    @staticmethod
    def step(x, u):
        c, s, w = x.unbind(-1)
        w = w + DT * (u[..., 0] - 9.81 * s)
        turn = DT * w
        return torch.stack(
            (c * turn.cos() - s * turn.sin(), s * turn.cos() + c * turn.sin(), w), -1
        )

    @staticmethod
    def cost(x, u):
        return 1 + x[..., 0] + 0.01 * x[..., 2] ** 2 + 0.005 * (u**2).sum(-1)

    def rollout(self, policy, count, horizon):
        time.sleep(self.nap)
        x = self.first.expand(count, 3)
        states, cost = [x], torch.zeros(count, dtype=torch.float64)
        for t in range(horizon):
            u = policy(t, x)
            cost = cost + self.cost(x, u)
            x = self.step(x, u)
            states.append(x)
        return torch.stack(states, 1), cost + 10 * self.cost(x, torch.zeros(count, 1))

    def difference(self, states, origin):
        c, s, w = states.unbind(-1)
        c0, s0, w0 = origin.unbind(-1)
        return torch.stack((torch.atan2(s * c0 - c * s0, c * c0 + s * s0), w - w0), -1)

    @staticmethod
    def add(x, d):
        c, s, w = x.unbind(-1)
        turn = d[..., 0]
        return torch.stack(
            (c * turn.cos() - s * turn.sin(), s * turn.cos() + c * turn.sin(), w + d[..., 1]), -1
        )

    def expand(self, states, actions):
        steps, zero = len(actions), torch.zeros(2, dtype=torch.float64)
        jacobian, hessian = torch.func.jacrev, torch.func.hessian

        def moved(d, u, x, after):
            return self.difference(self.step(self.add(x, d), u), after)

        def paid(d, u, x):
            return self.cost(self.add(x, d), u)

        where = zero.expand(steps, 2), actions, states[:-1]
        fx, fu = (torch.func.vmap(jacobian(moved, argnums=i))(*where, states[1:]) for i in (0, 1))
        lx, lu = torch.func.vmap(jacobian(paid, argnums=(0, 1)))(*where)
        (lxx, _), (lux, luu) = torch.func.vmap(hessian(paid, argnums=(0, 1)))(*where)
        last = zero, torch.zeros(1, dtype=torch.float64), states[-1]
        lx = torch.cat((lx, 10 * jacobian(paid)(*last)[None]))
        lxx = torch.cat((lxx, 10 * hessian(paid)(*last)[None]))
        return Expansion(fx, fu, lx, lu, lxx, luu, lux)


def test_one_round_solves_a_linear_quadratic_problem():
    model = LinearQuadratic()
    plan = ILQR(-WIDE, WIDE, STEPS, iterations=1).plan(model, None, generator=GENERATOR)
    law = model.law()
    x0 = np.array([1.0, 0.0])
    assert plan.rounds == 1
    assert -plan.score.item() == pytest.approx(x0 @ law.value_xx[0] @ x0 / 2, rel=1e-12)
    assert plan.actions[0].item() == pytest.approx((law.gain[0] @ x0).item(), rel=1e-12)


def test_bounded_optimum_is_that_of_bounded_least_squares():
    """The whole cost as one least-squares problem in the actions, for scipy to solve."""
    model, bound = LinearQuadratic(), 4.0
    low = torch.tensor([-bound], dtype=torch.float64)
    plan = ILQR(low, -low, STEPS).plan(model, None, generator=GENERATOR)
    frees, forced = [np.eye(2)], [np.zeros((2, STEPS))]
    for t in range(STEPS):
        frees.append(model.fx.numpy() @ frees[-1])
        push = model.fx.numpy() @ forced[-1]
        push[:, t] += model.fu.numpy()[:, 0]
        forced.append(push)
    roots = [np.sqrt(np.diag(model.lxx.numpy()) * (10 if t == STEPS else 1)) for t in range(41)]
    rows = [root[:, None] * f for root, f in zip(roots, forced, strict=True)]
    right = [-root * (f @ [1.0, 0.0]) for root, f in zip(roots, frees, strict=True)]
    best = lsq_linear(
        np.concatenate((*rows, 0.1 * np.eye(STEPS))),
        np.concatenate((*right, np.zeros(STEPS))),
        bounds=(-bound, bound),
        tol=1e-14,
    )
    assert (plan.actions.abs() == bound).sum() >= 5
    assert -plan.score.item() == pytest.approx(best.cost, rel=1e-8)


def test_ilqr_improves_monotonically_and_swings_up_within_its_bounds():
    model = Pendulum()
    low = torch.tensor([-6.0], dtype=torch.float64)  # too weak to lift it in one swing
    plan, before = None, math.inf
    planner = ILQR(low, -low, 60, iterations=5)
    for _ in range(12):
        plan = planner.plan(model, plan, generator=GENERATOR)
        assert (plan.actions.abs() <= 6).all()
        assert -plan.score.item() <= before
        before = -plan.score.item()
    assert plan is not None and (plan.actions.abs() == 6).any()
    x = model.first
    for u in plan.actions:
        x = model.step(x, u)
    assert x[0] < -0.99 and x[2].abs() < 0.2


def test_the_score_is_minus_the_cost_of_its_actions():
    model = Pendulum()
    low = torch.tensor([-6.0], dtype=torch.float64)
    plan = ILQR(low, -low, 20).plan(model, None, generator=GENERATOR)
    _, cost = model.rollout(lambda t, x: plan.actions[t].expand(len(x), 1), 1, 20)
    assert cost.item() == pytest.approx(-plan.score.item(), rel=1e-12)
    assert plan.rejected == 0 and plan.evaluated == 1 + 11 * plan.rounds


def test_mpc_with_four_rounds_per_search_swings_the_pendulum_up():
    low = torch.tensor([-6.0], dtype=torch.float64)
    mpc = MPC(ILQR(low, -low, 60, iterations=4), replan_every=6)  # pyright: ignore
    model, state, x = Pendulum(), MPCState(), Pendulum().first
    for _ in range(120):
        model.first = x
        action, state = mpc.act(lambda: model, state, generator=GENERATOR)
        x = model.step(x, action)
    assert x[0] < -0.99 and x[2].abs() < 0.2


def test_a_deadline_limits_the_rounds():
    low = torch.tensor([-6.0], dtype=torch.float64)
    planner = ILQR(low, -low, 20, iterations=1000, tolerance=0)
    plan = planner.plan(Pendulum(nap=0.01), None, generator=GENERATOR, deadline=0.0)
    assert plan.rounds == 1
    began = time.perf_counter()
    plan = planner.plan(Pendulum(nap=0.05), None, generator=GENERATOR, deadline=began + 0.5)
    assert 1 <= plan.rounds <= 8


def test_a_trajectory_that_is_not_finite_is_never_chosen():
    class Wall(Pendulum):
        def rollout(self, policy, count, horizon):
            states, cost = super().rollout(policy, count, horizon)
            return states, cost.where(states[:, :, 2].abs().amax(1) < 2.0, math.nan)

    low = torch.tensor([-6.0], dtype=torch.float64)
    plan = ILQR(low, -low, 40).plan(Wall(), None, generator=GENERATOR)
    assert plan.rejected > 0
    assert plan.score.isfinite()

    class Broken(Pendulum):
        def rollout(self, policy, count, horizon):
            states, cost = super().rollout(policy, count, horizon)
            return states, cost * math.nan

    start = plan
    for start in (None, plan):
        none = ILQR(low, -low, 40).plan(Broken(), start, generator=GENERATOR)
        assert none.score == -math.inf and none.rejected == none.evaluated
        assert torch.equal(none.actions, torch.zeros(40, 1)) and len(none.elites) == 0


@pytest.mark.parametrize("seed", range(20))
def test_box_qp_meets_the_optimality_conditions(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 7)
    root = rng.normal(size=(size, size))
    hessian, slope = root @ root.T + 0.1 * np.eye(size), 3 * rng.normal(size=size)
    low, high = -rng.uniform(0, 1, size), rng.uniform(0, 1, size)
    x, free = box_qp(hessian, slope, low, high, np.zeros(size))
    gradient = slope + hessian @ x
    assert (low <= x).all() and (x <= high).all()
    np.testing.assert_allclose(gradient[free], 0, atol=1e-9)
    assert (gradient[~free & (x == low)] > 0).all() and (gradient[~free & (x == high)] < 0).all()
    assert (free | (x == low) | (x == high)).all()


def least_of_all_active_sets(hessian, slope, low, high):
    """The minimum of a small box QP over all choices of bounds and free entries."""
    best = math.inf
    for sides in itertools.product((-1, 0, 1), repeat=len(slope)):
        held = np.array(sides)
        free, x = held == 0, np.where(held < 0, low, high)
        inner = hessian[np.ix_(free, free)]
        x[free] = -np.linalg.solve(inner, slope[free] + hessian[np.ix_(free, ~free)] @ x[~free])
        if (x >= low - 1e-12).all() and (x <= high + 1e-12).all():
            best = min(best, x @ (hessian @ x / 2 + slope))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_box_qp_finds_the_minimum_from_any_guess(seed):
    """Most entries of a guess are within 1e-17 to 1e-5 of a bound; some H are nearly singular."""
    rng = np.random.default_rng(seed)
    for _ in range(200):
        size = rng.integers(2, 5)
        root = rng.normal(size=(size, size))
        hessian = root @ root.T + 10 ** rng.uniform(-6, 0) * np.eye(size)
        slope = rng.normal(size=size) * 10 ** rng.uniform(-2, 2)
        low = -rng.uniform(0, 1, size) * (rng.random(size) < 0.5)
        high = low + rng.uniform(0.1, 1, size)
        side = rng.random(size)
        guess = np.where(side < 0.4, low, np.where(side < 0.8, high, rng.uniform(low, high)))
        guess += 10 ** rng.uniform(-17, -5) * rng.normal(size=size)
        x, _ = box_qp(hessian, slope, low, high, guess)
        least = least_of_all_active_sets(hessian, slope, low, high)
        assert (low <= x).all() and (x <= high).all()
        assert x @ (hessian @ x / 2 + slope) <= least + 1e-9 * (abs(least) + 1e-3)


def test_a_guess_just_inside_a_bound_is_treated_as_on_it():
    """By hand: along x_1 = 0 the slope 0.2 + x_0 is 0 at -0.2, where that of x_1 is 0.12 > 0."""
    hessian, slope = np.array([[1.0, 0.9], [0.9, 1.0]]), np.array([0.2, 0.3])
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 1.0])
    for guess in (0.0, 1e-15, 1e-12, 1e-9):
        x, free = box_qp(hessian, slope, low, high, np.array([0.0, guess]))
        np.testing.assert_allclose(x, [-0.2, 0.0], atol=1e-12)
        assert free.tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "horizon must be an integer of at least 1, got 0"),
        ({"iterations": 0}, "iterations must be an integer in 1..1000000, got 0"),
        ({"tolerance": -1.0}, "tolerance must be finite and >= 0, got -1.0"),
        ({"low": WIDE}, "low must be below high"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        ILQR(**{"low": -WIDE, "high": WIDE, "horizon": 5, **change})
