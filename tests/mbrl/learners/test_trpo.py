"""Trust region policy optimisation: the bound, the Fisher matrix and conjugate gradients."""

import math

import pytest
import torch

from mbrl.distributions import Bounds
from mbrl.learners.on_policy_configs import TRPOConfig
from mbrl.learners.trpo import TRPO, conjugate_gradient, fisher_product
from mbrl.types import Transition

STATE, CHOICES = 3, 4
BOX = Bounds(-torch.ones(2), torch.ones(2))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learner(actions, **settings):
    own = {"hidden": (8,), "discount": 0.9, "value_updates": 1, **settings}
    return TRPO(STATE, actions, TRPOConfig(**own), generator=seeded(2))


def rollout(made, seed, scale=1.0):
    g = seeded(seed)
    state, after = torch.randn(2, 64, 3, STATE, generator=g)
    action = made.policy.draw(state, generator=g)
    ends = torch.rand(64, 3, generator=g) < 0.1
    reward = scale * torch.randn(64, 3, generator=g)
    return Transition(state, action, reward, after, ends, torch.zeros_like(ends))


def parameters_of(made, state):
    """Logits, or mean and log_std, in float64."""
    given = made.policy.distribution(state)
    return [part.detach().double().clone() for part in given if isinstance(part, torch.Tensor)]


def divergence(old, new):
    """The mean KL divergence, from the formulas."""
    if len(old) == 1:
        p, q = (logits[0].softmax(-1) for logits in (old, new))
        return float((p * (p / q).log()).sum(-1).mean())
    (mean, log_std), (other, other_log_std) = old, new
    square = (2 * log_std).exp() + (mean - other).square()
    each = other_log_std - log_std + square / (2 * (2 * other_log_std).exp()) - 0.5
    return float(each.sum(-1).mean())


@pytest.mark.parametrize("actions", [CHOICES, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("bound", [0.001, 0.01, 0.3])
def test_no_update_moves_the_policy_beyond_the_bound(actions, bound):
    made, moved = learner(actions, max_kl=bound), []
    for seed in range(8):
        batch = rollout(made, seed)
        before = parameters_of(made, batch.obs)
        said = made.update(batch, generator=seeded())
        moved.append(divergence(before, parameters_of(made, batch.obs)))
        assert said["kl"] == pytest.approx(moved[-1], rel=1e-3, abs=1e-6)
    assert max(moved) <= bound * (1 + 1e-4)
    assert max(moved) > bound / 2  # it goes as far as it may


def test_a_step_beyond_the_bound_is_not_taken():
    """With one try, each update takes the whole step or leaves the policy as it is."""
    made, taken = learner(BOX, line_search=1, max_kl=0.5), []
    for seed in range(12):
        before = made.actor.value.detach().clone()
        said = made.update(rollout(made, seed), generator=seeded())
        assert said["step"] in (0, 1) and said["kl"] <= 0.5
        assert torch.equal(before, made.actor.value) == (said["step"] == 0) == (said["kl"] == 0)
        taken.append(said["step"])
    assert {*taken} == {0, 1}


@pytest.mark.parametrize("actions", [CHOICES, BOX], ids=["discrete", "box"])
def test_products_are_those_with_the_fisher_matrix(actions):
    """The mean of E[∇log π ∇log πᵀ], by enumeration, or for a Gaussian from its formula."""
    made, state = learner(actions, hidden=()), torch.randn(5, STATE, generator=seeded())
    actor = made.actor.module.double()
    parameters = [*actor.parameters()]

    def slope(number):
        slopes = torch.autograd.grad(number, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(slopes, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if s is None else s).flatten() for s, p in pairs])

    state = state.double()
    given, fisher = actor.distribution(state), 0
    for row in range(len(state)):
        if actions is CHOICES:
            log_probs = given.logits[row].log_softmax(-1)
            scores = [(one.exp().item(), slope(one)) for one in log_probs]
        else:  # the Fisher matrix of mean and log_std is diag(1/σ², 2)
            variance = (2 * given.log_std).exp()
            scores = [
                (1 / v.item(), slope(m)) for v, m in zip(variance, given.mean[row], strict=True)
            ]
            scores += [(2.0, slope(one)) for one in given.log_std]
        fisher = fisher + sum(w * torch.outer(s, s) for w, s in scores) / len(state)
    old = type(given)(*(part.detach() for part in given))
    product = fisher_product(actor, state, old, damping=0.1)
    for k in range(3):
        vector = torch.randn(len(fisher), generator=seeded(k)).double()
        torch.testing.assert_close(product(vector), fisher @ vector + 0.1 * vector)


def test_conjugate_gradients_solve_a_linear_system_in_as_many_steps_as_it_has_dimensions():
    root = torch.randn(6, 6, generator=seeded()).double()
    matrix, target = root @ root.T + torch.eye(6), torch.randn(6, generator=seeded(1)).double()
    found = conjugate_gradient(lambda v: matrix @ v, target, steps=6)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target))
    nothing = conjugate_gradient(lambda v: matrix @ v, torch.zeros(6).double(), steps=6)
    assert not nothing.any()


def test_rewards_of_any_scale_move_the_policy_equally():
    first, second = learner(BOX), learner(BOX)
    moved = [
        made.update(rollout(made, 1, scale), generator=seeded())["kl"]
        for made, scale in ((first, 1e6), (second, 1e9))
    ]
    assert moved[0] == pytest.approx(moved[1], rel=1e-3)
    assert all(math.isfinite(x) and x > 0 for x in moved)
