"""Objectives over particles, and the disagreement of members."""

import math

import pytest
import torch
from scipy import stats
from torch import tensor

from mbrl.imagination import disagreement, objective, rollout, score_fn
from mbrl.types import Gaussian, GaussianDynamics, Step
from planners import ICEM
from tests.lines import PROPAGATIONS, Line, plans, seeded, start

# Objectives


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", 4.0),
        ("worst", 1.0),
        ("cvar:1", 4.0),
        ("cvar:0.4", 1.5),
        ("cvar:0.3", (1 + 0.5 * 2) / 1.5),  # one particle and a half
        ("cvar:0.1", 1.0),  # half a particle
        ("mean+std", 4 + math.sqrt(10)),
        ("mean+std:2", 4 + 2 * math.sqrt(10)),
        ("mean-std:0.5", 4 - 0.5 * math.sqrt(10)),
        ("mean-std:0", 4.0),
    ],
)
def test_objectives_equal_hand_computed_values(name, value):
    returns = tensor([[3.0], [10.0], [1.0], [4.0], [2.0]]).double()
    both = torch.cat((returns, -returns.flip(0)), 1)
    out = objective(name)(both)
    assert out.shape == (2,) and out.dtype == torch.float64
    assert out[0].item() == pytest.approx(value, rel=1e-14)
    assert objective(name)(both.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "name",
    ["median", "", "cvar", "cvar:0", "cvar:1.5", "cvar:x", "cvar:nan", "mean-std:-1", "mean:2",
     "worst:1", "mean+std:nan", "mean*std:1"],
)  # fmt: skip
def test_unknown_objectives_are_refused(name):
    with pytest.raises(ValueError, match="objective .* is unknown; take mean, worst, cvar:α"):
        objective(name)
    with pytest.raises(ValueError, match="is unknown"):
        score_fn(Line([1.0]), start(), particles=1, horizon=1, objective=name, generator=seeded())


def test_an_objective_may_be_a_function():
    score = score_fn(Line([1.0, 2.0]), start(3.0), particles=2, horizon=1,
                     objective=lambda returns: returns.amax(0), generator=seeded())  # fmt: skip
    assert score(plans([1.0])).item() == 7.0


# Plans whose best share in a risky arm is known in closed form


class Arms:
    """A share a of a stake pays b in the mean, which members disagree on, with noise of std 1/2."""

    noise_shape = (1,)

    def __init__(self, b):
        self.b = tensor(b).view(-1, 1, 1)
        self.members = len(b)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def predict(self, state, action):
        mean = torch.cat((self.b * action, 0 * action), -1)
        return Gaussian(mean, torch.cat((0.5 * action.abs(), 0 * action), -1))

    def step(self, state, action, *, noise):
        after = action * (self.b + 0.5 * (0.0 if noise is None else noise))
        return Step(after, after[..., 0], torch.zeros_like(after[..., 0], dtype=torch.bool))


def share(b, particles=8000, **risk):
    """The share that ICEM finds best, where a stake costs 5/8 a² besides."""

    def reward(obs, action, next_obs):
        return next_obs[..., 0] - 0.625 * action[..., 0].square()

    generator = seeded()
    score = score_fn(Arms(b), torch.zeros(1), particles=particles, horizon=1, reward=reward,
                     generator=generator, **risk)  # fmt: skip
    planner = ICEM(tensor([0.0]), tensor([1.0]), 1, population=40, iterations=8, elites=6)
    return planner.plan(score, None, generator=generator).actions.item()


@pytest.mark.parametrize("level", [0.2, 0.5])
def test_a_cvar_plan_takes_the_share_that_is_best_in_closed_form(level):
    """With normal returns of std a / 2, CVaR is a b - a / 2 · φ(Φ⁻¹(α)) / α - 5/8 a²."""
    tail = stats.norm.pdf(stats.norm.ppf(level)) / level
    assert share([1.0], objective="mean") == pytest.approx(1 / 1.25, abs=0.02)
    exact = (1 - 0.5 * tail) / 1.25
    assert share([1.0], objective=f"cvar:{level}") == pytest.approx(exact, abs=0.02)


def test_a_penalised_plan_takes_the_share_that_is_best_in_closed_form():
    """Members that pay 0.8 and 1.2 differ by a std of a / 5: a (1 - λ / 5) - 5/8 a²."""
    for penalty in (1.0, 3.0):
        found = share([0.8, 1.2], 3000, objective="mean", penalty=penalty)
        assert found == pytest.approx((1 - penalty / 5) / 1.25, abs=0.02)


# Disagreement and penalty


def test_disagreement_equals_a_hand_computed_value():
    """At 2, members predict 2 and 6: std 2, which is one half in units of the scale, 4."""
    model = Line([1.0, 3.0], sigma=5.0)
    assert isinstance(model, GaussianDynamics)
    assert disagreement(model, start(2.0), start()).item() == 2.0
    model.scale = tensor([4.0])
    assert disagreement(model, start(2.0), start()).item() == 0.5
    many = disagreement(model, torch.ones(3, 5, 1).double(), torch.zeros(3, 5, 1).double())
    assert many.shape == (3, 5) and (many == 0.25).all()


def test_disagreement_is_a_root_mean_square_over_dimensions():
    class Plane(Line):
        def predict(self, state, action):
            mean = torch.zeros(2, state.shape[1], 3).double()
            mean[1, :, :2] = tensor([6.0, 8.0])  # std over members: 3 and 4
            return Gaussian(mean, torch.ones_like(mean))

    out = disagreement(Plane([1.0, 1.0]), torch.zeros(1, 2).double(), torch.zeros(1, 1).double())
    assert out.item() == pytest.approx(math.sqrt((9 + 16) / 2))


class Rift(Line):
    """Members agree left of zero and differ right of it."""

    def move(self, state, action):
        return state + action + (self.b - self.b.mean()) * state.clamp_min(0)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_the_penalty_is_positive_only_where_members_disagree(propagation):
    model = Rift([1.0, 1.0], b=[0.9, 1.1], sigma=0.01)
    actions = plans([-1.0] * 3, [1.0] * 3)
    plain, penalised = (
        score_fn(model, start(-0.5), particles=2, horizon=3, propagation=propagation,
                 penalty=penalty, generator=seeded())(actions)
        for penalty in (0.0, 2.0)
    )  # fmt: skip
    assert plain[0] == penalised[0]
    # near 0.5 and 1.5 the members' std is a tenth of the state
    assert (plain - penalised)[1].item() == pytest.approx(2 * 0.1 * (0.5 + 1.5), rel=0.15)


def test_the_penalty_is_subtracted_from_the_imagined_reward():
    model = Rift([1.0, 1.0], b=[0.9, 1.1])
    imagined = rollout(model, start(1.0), plans([0.0]), particles=2, penalty=2.0,
                       reward=lambda obs, action, next_obs: 0 * obs[..., 0],
                       generator=seeded())  # fmt: skip
    assert imagined.reward.flatten().tolist() == pytest.approx([-0.2, -0.2])
