"""Stochastic value gradients: against closed forms, finite differences and sums by hand."""

import math
from dataclasses import replace

import pytest
import torch

from mbrl.distributions import Bounds
from mbrl.dynamics import Analytic, NeuralDynamics, NormedEnsembleConfig
from mbrl.learners.svg import SVG, SVGConfig, World, soft_return
from mbrl.types import Transition

S, A, GAMMA = 3, 2, 0.9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learner(width=1.0, seed=0, **settings):
    given = {"hidden": (8,), "discount": GAMMA, "temperature": 0.3} | settings
    made = SVG(S, Bounds(-width * torch.ones(A), width * torch.ones(A)), SVGConfig(**given),
               generator=seeded(seed))  # fmt: skip
    made.world = curved()
    return made


def curved(members=2, noise=0.1):
    """A smooth world with members that differ."""

    def mean(state, action, value):
        push = torch.cat((action, action[..., :1] * action[..., 1:]), -1)
        return 0.8 * torch.sin(state + value.unsqueeze(-1)) + 0.3 * push

    return World(
        Analytic(mean, noise * torch.ones(S), torch.linspace(0, 0.5, members)),
        reward=lambda obs, action, after: after[..., 0] - action.square().sum(-1),
        terminated=lambda after: torch.zeros(after.shape[:-1], dtype=torch.bool),
    )


def states(count=12):
    return torch.randn(count, S, generator=seeded(1))


def with_values(made, seed=2):
    """Critics whose last layers are not zero, and targets equal to them."""
    g = seeded(seed)
    with torch.no_grad():
        last = made.critic.module.weights[-1]
        last.copy_(torch.randn(last.shape, generator=g))
    made.target.follow(1.0)
    return made


@pytest.mark.parametrize("horizon", [1, 4, 12])
def test_the_gradient_of_a_linear_policy_is_that_of_the_linear_quadratic_problem(horizon):
    """a = K s in s' = F s + G a with cost s'Qs + a'Ra: by cost-to-go and covariances, no autograd.

    The policy is 100 tanh(W s), with W = K / 100 so small that it is linear.
    """
    g = seeded(3)
    f = 0.5 * torch.randn(S, S, generator=g, dtype=torch.double)
    b = torch.randn(S, A, generator=g, dtype=torch.double)
    k = 0.3 * torch.randn(A, S, generator=g, dtype=torch.double)
    q, r = torch.diag(torch.tensor([1.0, 0.5, 2.0]).double()), 0.1 * torch.eye(A).double()

    made = learner(100.0, hidden=(), horizon=horizon, tail=False, temperature=0.0)
    made.world = World(
        Analytic(lambda s, a, _: s @ f.T.float() + a @ b.T.float(), torch.zeros(S), torch.zeros(1)),
        reward=lambda s, a, _: -((s @ q.float()) * s).sum(-1) - ((a @ r.float()) * a).sum(-1),
        terminated=lambda after: torch.zeros(after.shape[:-1], dtype=torch.bool),
    )
    weight, bias = made.actor.module.net.weights[0], made.actor.module.net.biases[0]
    with torch.no_grad():
        weight.zero_()
        weight[0, :, :A] = (k.T / 100).float()
        bias.zero_()
        bias[..., A:] = -20.0  # no noise
    start = 0.1 * states()
    made.improve(start, generator=seeded())

    closed = f + b @ k
    cost = [torch.zeros(S, S).double()]  # cost-to-go, from the last step backwards
    for _ in range(horizon):
        cost.insert(0, q + k.T @ r @ k + GAMMA * closed.T @ cost[0] @ closed)
    spread = start.double().T @ start.double() / len(start)
    wanted = torch.zeros(A, S).double()
    for t in range(horizon):
        wanted += GAMMA**t * 2 * (r @ k + GAMMA * b.T @ cost[t + 1] @ closed) @ spread
        spread = closed @ spread @ closed.T
    found = weight.grad[0, :, :A].T.double() / 100  # dJ/dK = dJ/dW dW/dK
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"tail": False}, {"bounded": False, "horizon": 2}])
def test_the_policys_gradient_is_that_of_finite_differences(settings):
    """Along a direction, with the same random numbers: entropy, tail and members included."""
    made = learner(**settings)
    if made.critic is not None:
        with_values(made)
    made.improve(states(), actor=False, generator=seeded(4))  # sets the range of returns
    made.config = replace(made.config, critic_steps="real")
    before = made.state_dict()
    direction = torch.randn(before["actor"]["value"].shape, generator=seeded(5))
    assert made.actor.value[0] == made.actor.module.log_temperature
    direction[0] = 0.0  # the temperature is a constant in the policy's loss
    slope, step = float(gradient(made, before) @ direction), 3e-3

    def loss(shift):
        moved = before["actor"]["value"] + shift * direction
        made.load_state_dict(before | {"actor": before["actor"] | {"value": moved}})
        return float(made.improve(states(), generator=seeded(6))["actor_loss"])

    numerical = (loss(step) - loss(-step)) / (2 * step)
    assert slope == pytest.approx(numerical, rel=0.02, abs=0.01)


def gradient(made, before):
    made.load_state_dict(before)
    made.improve(states(), generator=seeded(6))
    return made.actor.value.grad.clone()


def test_the_soft_return_is_the_sum_by_hand():
    reward = torch.tensor([[1.0, 2.0], [3.0, math.inf]])
    log_prob = torch.tensor([[-1.0, 2.0, 0.5], [4.0, 7.0, 7.0]])
    value, alive = torch.tensor([10.0, -5.0]), torch.tensor([[True] * 3, [True, False, False]])
    found = soft_return(reward, log_prob, value, alive, discount=0.5, temperature=0.1)
    first = (1 + 0.1) + 0.5 * (2 - 0.2) + 0.25 * (10 - 0.05)
    torch.testing.assert_close(found, torch.tensor([first, 3 - 0.4]))


@pytest.mark.parametrize("bounded", [False, True])
def test_critics_learn_the_discounted_sum_and_the_targets_value(bounded):
    """The first loss, from a second rollout with the same random numbers, summed by hand."""
    made = with_values(learner(bounded=bounded, critics=3, subset=None, dropout=0.0, quantile=0.1))
    imagined = made.trajectories(states(), made.actor.fixed, generator=seeded(4))
    soft = imagined.reward - 0.3 * imagined.log_prob[..., :-1]
    low, high = -math.inf, math.inf
    if bounded:
        low, high = (torch.quantile(soft, p).item() / (1 - GAMMA) for p in (0.1, 0.9))

    def value(net, state, action):
        out = net(torch.cat((state, action), -1).view(1, -1, S + A).expand(3, -1, -1))[..., 0]
        return out if not bounded else out * (high - low) / 2 + (high + low) / 2

    last = value(made.target.module, imagined.state[:, :, -1], imagined.action[:, :, -1])
    flat = [x.flatten(0, 1) for x in imagined]
    target = []
    for n in range(12):
        total = min(max(last[:, n].min().item(), low), high)
        total -= 0.3 * flat[2][n, -1].item()
        for t in reversed(range(5)):
            entropy = 0.3 * flat[2][n, t].item() if t else 0.0
            total = flat[3][n, t].item() - entropy + GAMMA * total
        target.append(total)
    first = value(made.critic.module, imagined.state[:, :, 0], imagined.action[:, :, 0])
    wanted = 0.5 * (first - torch.tensor(target)).square().mean(1).sum()
    said = made.improve(states(), actor=False, generator=seeded(4))
    assert float(said["critic_loss"]) == pytest.approx(wanted.item(), rel=1e-3)
    assert float(said["q"]) == pytest.approx(first.mean().item(), rel=1e-3, abs=1e-5)


def test_steps_after_the_end_and_the_value_there_do_not_count():
    """Every trajectory ends in its first step, with reward 2; critics begin at 0."""
    made = learner(bounded=False, temperature=0.0, critics=1, subset=None)
    made.world = made.world._replace(
        reward=lambda obs, action, after: 2 + 0 * after[..., 0],
        terminated=lambda after: torch.ones(after.shape[:-1], dtype=torch.bool),
    )
    said = made.improve(states(), generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx(0.5 * 2**2)
    assert float(said["rollout_alive"]) == 0.0 and float(said["rollout_reward"]) == 2.0
    assert float(said["actor_gradient"]) == 0.0


def test_values_converge_to_the_return_of_a_constant_reward():
    made = learner(temperature=0.0, critics=2, learning_rate=3e-3, polyak=0.1, dropout=0.0)
    made.world = made.world._replace(reward=lambda obs, action, after: 1.5 + 1e-3 * after[..., 0])
    for seed in range(200):
        made.improve(states(), actor=False, generator=seeded(seed))
    torch.testing.assert_close(
        made.value(states()), torch.full((12,), 1.5 / (1 - GAMMA)), rtol=0.01, atol=0.0
    )


def test_the_range_of_returns_moves_slowly_to_the_quantiles():
    made = learner(quantile=0.25, range_rate=0.1, temperature=0.0)
    made._widen(torch.arange(5.0))
    torch.testing.assert_close(made.range, torch.tensor([1.0, 3.0]) / (1 - GAMMA))
    made._widen(torch.zeros(5))
    torch.testing.assert_close(made.range, 0.9 * torch.tensor([1.0, 3.0]) / (1 - GAMMA))


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_the_policy_and_the_critics_alone(frozen):
    made = with_values(learner(hidden=(8,)))
    config = NormedEnsembleConfig(members=2, hidden=(8, 8), learn_reward=True)
    model = NeuralDynamics(S, A, config, generator=seeded()).requires_grad_(not frozen)
    made.world = World(model)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    before = made.state_dict()
    made.improve(states(), actor=False, generator=seeded())
    assert torch.equal(made.actor.value, before["actor"]["value"])
    assert not torch.equal(made.critic.value, before["critic"]["value"])
    critic = made.critic.value.clone()
    made.config = replace(made.config, critic_steps="real")
    made.improve(states(), generator=seeded())  # now of the policy alone
    assert not torch.equal(made.actor.value, before["actor"]["value"])
    assert torch.equal(made.critic.value, critic)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_gradient_through_frozen_and_trainable_models_is_the_same():
    """The model's weights are folded into a cache where nothing of it needs a gradient."""
    found = []
    for needs in (False, True):
        made = learner(tail=False)
        config = NormedEnsembleConfig(members=2, hidden=(8, 8), learn_reward=True)
        model = NeuralDynamics(S, A, config, generator=seeded()).requires_grad_(needs)
        made.world = World(model)
        found.append(gradient(made, made.state_dict()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_critics_of_real_steps_take_their_rewards_as_they_are():
    """Where every step ends its episode, and critics begin at 0."""
    made = learner(critic_steps="real", bounded=False, critics=2, subset=None)
    ends, action = torch.ones(12, dtype=torch.bool), torch.zeros(12, A)
    batch = Transition(states(), action, torch.full((12,), 3.0), states(), ends, ~ends)
    said = made.update(batch, generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx(2 * 0.5 * 3**2)
    weighted = learner(critic_steps="real", bounded=False, critics=2, subset=None)
    weights = torch.cat((torch.full((6,), 2.0), torch.zeros(6)))
    batch = batch._replace(reward=torch.cat((torch.ones(6), torch.zeros(6))))
    said = weighted.update(batch, weights=weights, generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx(2 * 0.5 * 1)


def test_networks_see_scaled_states():
    made, plain = learner(), learner()
    rows = torch.tensor([[1.0, -2.0, 5.0], [3.0, 2.0, 5.0]])
    made.rescale(rows)
    scaled = (states() - torch.tensor([2.0, 0.0, 5.0])) / torch.tensor([1.0, 2.0, 1.0])
    torch.testing.assert_close(
        made.policy(states(), generator=seeded(), explore=True),
        plain.policy(scaled, generator=seeded(), explore=True),
    )


def test_the_temperature_rises_while_the_entropy_is_too_low():
    for target, rises in ((50.0, True), (-50.0, False)):
        made = learner(temperature=None, first_temperature=0.2, target_entropy=target)
        made.improve(states(), generator=seeded())
        assert (float(made.temperature) > 0.2) == rises
    fixed = learner(temperature=0.2)
    fixed.improve(states(), generator=seeded())
    assert float(fixed.temperature) == pytest.approx(0.2)


def test_a_fresh_start_of_the_optimisers_keeps_the_parameters():
    made, again = learner(), learner()
    made.improve(states(), generator=seeded())
    value = made.actor.value.clone()
    made.restart()
    assert torch.equal(made.actor.value, value)
    state = made.state_dict()
    assert not state["actor"]["mean"].any() and not state["critic"]["square"].any()
    again.load_state_dict(state)
    assert made.improve(states(), generator=seeded(1)) == again.improve(
        states(), generator=seeded(1)
    )


def test_the_policy_learns_to_move_a_point_to_the_origin():
    """Through a known model, without critics: the sum of costs falls to a third."""
    made = learner(horizon=10, tail=False, temperature=0.0, learning_rate=1e-2, hidden=(32,))
    made.world = World(
        Analytic(
            lambda s, a, _: s + 0.5 * torch.cat((a, a.sum(-1, keepdim=True)), -1),
            torch.zeros(S), torch.zeros(1),
        ),
        reward=lambda obs, action, after: -after[..., :2].square().sum(-1),
        terminated=lambda after: torch.zeros(after.shape[:-1], dtype=torch.bool),
    )  # fmt: skip
    g = seeded(7)
    losses = [
        float(made.improve(torch.randn(32, S, generator=g), generator=g)["actor_loss"])
        for _ in range(120)
    ]
    assert sum(losses[-10:]) < sum(losses[:10]) / 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset": 6}, "subset: there are 5 critics, got 6"),
        ({"discount": 1.0}, "bounded: returns with discount 1"),
        ({"propagation": "moment"}, "propagation: want ts1 or tsinf, got moment"),
        ({"horizon": 0}, "horizon"),
        ({"quantile": 0.5}, "quantile"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SVGConfig(**settings)


def test_what_an_update_needs_is_said():
    made = learner()
    with pytest.raises(ValueError, match="state: want at least 2 rows, one a member, got 1"):
        made.improve(states(1), generator=seeded())
    with pytest.raises(ValueError, match=r"state must have shape \('B', 3\)"):
        made.improve(torch.zeros(4, 2), generator=seeded())
    made.world = None
    with pytest.raises(ValueError, match="world: the learner has no model"):
        made.improve(states(), generator=seeded())
    with pytest.raises(ValueError, match="without a tail there are no critics"):
        learner(tail=False).value(states())
