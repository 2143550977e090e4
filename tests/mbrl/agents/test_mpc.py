"""How a `Controller` matches the needs of planners with what models provide."""

import pytest
import torch

from mbrl.agents import Controller, MPCConfig
from mbrl.types import Step
from planners import MPC, Plan
from tests.lines import Seen

BOX = torch.ones(1)


class Follows(Seen):
    """A user's model with only what `Dynamics` requires: the action is added to the state,
    and the reward is the action."""

    members, noise_shape = 1, (0,)

    def step(self, state, action, *, noise):
        reward = action.sum(-1)
        return Step(state + action, reward, torch.zeros_like(reward, dtype=torch.bool))


class Corners:
    """A user's planner without `maximises`: returns the better of two plans."""

    low, horizon = -BOX, 3

    def plan(self, score, start, *, generator, deadline=None):
        candidates = torch.stack([-BOX.expand(3, 1), BOX.expand(3, 1)])
        scores = score(candidates)
        best = candidates[scores.argmax()]
        return Plan(best, scores.max(), best, torch.zeros_like(best), best[None], 2, 0)

    def shift(self, plan, steps):
        return plan


class Smooth(Corners):
    """A planner that needs a model with derivatives, and returns the first plan."""

    maximises = "smooth"

    def plan(self, model, start, *, generator, deadline=None):
        self.given = model
        return super().plan(lambda actions: actions.sum((1, 2)), None, generator=generator)


class Offers(Follows):
    """A user's model with derivatives."""

    def smooth(self, state, *, action_repeat, reward):
        return "derivatives", state, action_repeat, reward


def controller(planner, model, config=None):
    return Controller(
        model,
        MPC(planner, action_repeat=2),
        config or MPCConfig(),
        reward=None,
        terminated=None,
        generator=torch.Generator(),
    )


def test_a_planner_without_maximises_gets_a_score():
    driven = controller(Corners(), Follows())
    assert driven.act(torch.zeros(1).numpy()).tolist() == [1.0]
    assert driven.expected == 6.0 and driven.late == 0 and not driven.paced


def test_a_planner_gets_the_derivatives_that_a_users_model_offers():
    planner = Smooth()
    controller(planner, Offers()).act(torch.full((1,), 0.5).numpy())
    assert planner.given == ("derivatives", torch.tensor([0.5]), 2, None)


def test_a_planner_that_needs_derivatives_is_refused_for_a_model_without_them():
    with pytest.raises(ValueError, match=r"^Smooth needs a model with derivatives .* a Follows$"):
        controller(Smooth(), Follows())
    with pytest.raises(ValueError, match="^Smooth takes no discount, penalty or terminal$"):
        controller(Smooth(), Offers(), MPCConfig(discount=0.9))
    strange = Corners()
    strange.maximises = "regret"
    wanted = r"^Corners maximises 'regret'; a controller offers \['score', 'smooth'\]$"
    with pytest.raises(ValueError, match=wanted):
        controller(strange, Follows())
