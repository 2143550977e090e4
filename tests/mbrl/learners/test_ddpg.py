import pytest
import torch
from torch import nn

from mbrl.distributions import Bounds
from mbrl.learners.ddpg import DDPG
from mbrl.learners.value_configs import DDPGConfig, TD3Config
from mbrl.types import Transition

LOW, HIGH = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 1.0])
CENTRE, HALF = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(kind=DDPGConfig, bounds=(LOW, HIGH), **settings):
    """A learner of states (2,) with linear networks: of the policy before tanh, and the critics."""
    config = kind(hidden=(), discount=0.5, **settings)
    return DDPG(2, Bounds(*bounds), config, generator=seeded())


@torch.no_grad()
def fill(net, weights, biases=0.0):
    net.weights[0].copy_(torch.as_tensor(weights).reshape(net.weights[0].shape))
    net.biases[0].copy_(torch.as_tensor(biases).reshape(-1, 1, 1).expand(net.biases[0].shape))


def batch(count=5, seed=1, terminated=False):
    g = seeded(seed)
    state, after = torch.randn(2, count, 2, generator=g)
    action = LOW + (HIGH - LOW) * torch.rand(count, 2, generator=g)
    ends = torch.zeros(count, dtype=torch.bool)
    return Transition(
        state, action, torch.randn(count, generator=g), after, ends | terminated, ends
    )


class Quadratic(nn.Module):
    """Q(s, a) of one step of an LQR: -(s'Qs + a'Ra + x'Px) with x = As + Ba."""

    Q, R = torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([[0.5, 0.1], [0.1, 0.3]])
    A, B = torch.tensor([[1.0, 0.3], [0.0, 1.0]]), torch.tensor([[0.2, 0.0], [1.0, 0.5]])
    P = torch.tensor([[2.0, 0.4], [0.4, 1.0]])

    def forward(self, rows):
        s, a = rows.split(2, -1)
        x = s @ self.A.T + a @ self.B.T
        cost = sum((v @ m * v).sum(-1) for v, m in ((s, self.Q), (a, self.R), (x, self.P)))
        return -cost.unsqueeze(-1)


def test_the_gradient_of_the_policy_is_the_analytic_one_for_a_quadratic_critic():
    """d(-Q)/dW = mean over states of s ⊗ (2 (R a + B'P x) · half · (1 - tanh²))."""
    learner = linear()
    learner.critic.fixed = Quadratic()
    s = batch(seed=2).obs
    w, b = (p[0][0].detach() for p in (learner.actor.module.net.weights,
                                       learner.actor.module.net.biases))  # fmt: skip
    t = (s @ w + b).tanh()
    a = CENTRE + HALF * t
    x = s @ Quadratic.A.T + a @ Quadratic.B.T
    slope = 2 * (a @ Quadratic.R + x @ Quadratic.P @ Quadratic.B) * HALF * (1 - t**2)
    wanted = torch.cat(((s.T @ slope).flatten(), slope.sum(0))) / len(s)
    torch.testing.assert_close(learner.actor.gradient(learner._actor_loss(s)), wanted)


def test_the_policy_becomes_the_best_linear_one_of_the_quadratic_critic():
    """The gain -(R + B'PB)^-1 B'PA; the box is so wide that tanh is linear."""
    wide = torch.full((2,), 100.0)
    learner = linear(bounds=(-wide, wide), learning_rate=1e-3)
    fill(learner.actor.module.net, torch.zeros(2, 2))
    learner.critic.fixed = Quadratic()
    state = torch.randn(64, 2, generator=seeded(3))
    for k in range(600):
        learner.actor.learning_rate = 1e-3 * (1 - k / 600)
        learner.actor.minimise(learner._actor_loss(state))
    r, a, b, p = Quadratic.R, Quadratic.A, Quadratic.B, Quadratic.P
    gain = -torch.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
    action = learner.policy(state, generator=seeded(), explore=False)
    torch.testing.assert_close(action, state @ gain.T, atol=0.02, rtol=0.01)


CRITICS = [[[1.0], [0.0], [1.0], [-2.0]], [[0.0], [1.0], [-1.0], [0.5]]]
"""Q_1 = s_1 + a_1 - 2 a_2 and Q_2 = s_2 - a_1 + a_2 / 2."""


@pytest.mark.parametrize("critics", [1, 2])
def test_the_target_is_the_least_of_the_critics_at_the_target_policy_action(critics):
    learner, given = linear(critics=critics), batch()
    fill(learner.critic_target.module, CRITICS[:critics])
    fill(learner.critic.module, torch.zeros(critics, 4))
    s, powers = given.next_obs, torch.tensor([0.5, 0.25, 0.125, 0.5, 0.0])
    net = learner.actor_target.module.net
    a = CENTRE + HALF * (s @ net.weights[0][0] + net.biases[0][0]).tanh()
    values = [s[:, 0] + a[:, 0] - 2 * a[:, 1], s[:, 1] - a[:, 0] + a[:, 1] / 2]
    least = torch.stack(values[:critics]).amin(0)
    target = given.reward + powers * least
    said = learner.update(given, discount=powers, generator=seeded())
    torch.testing.assert_close(learner.errors, target.abs())  # Q(s, a) is 0
    assert float(said["critic_loss"]) == pytest.approx(
        float(critics * 0.5 * target.square().mean()), rel=1e-5
    )


def test_target_values_are_those_of_each_target_critic_at_the_target_policys_action():
    learner = linear(critics=2)
    fill(learner.critic_target.module, CRITICS)
    fill(learner.actor_target.module.net, [[0.3, -0.2], [0.1, 0.4]])
    fill(learner.actor.module.net, torch.zeros(2, 2))
    s = torch.randn(3, 4, 2, generator=seeded(4))
    a = CENTRE + HALF * (s @ torch.tensor([[0.3, -0.2], [0.1, 0.4]])).tanh()
    torch.testing.assert_close(learner.target_policy(s), a)
    first, second = s[..., 0] + a[..., 0] - 2 * a[..., 1], s[..., 1] - a[..., 0] + a[..., 1] / 2
    found = learner.target_values(s, generator=seeded())
    torch.testing.assert_close(found.each, torch.stack((first, second)))
    torch.testing.assert_close(found.least, torch.minimum(first, second))
    assert learner.entropy_bonus(s, generator=seeded()).tolist() == [[0] * 4] * 3


def test_the_value_of_a_state_is_the_least_of_the_critics_at_the_policys_action():
    learner = linear(critics=2)
    fill(learner.critic.module, CRITICS)
    s = torch.randn(3, 4, 2, generator=seeded(4))
    a = learner.policy(s, generator=seeded(), explore=False)
    first, second = s[..., 0] + a[..., 0] - 2 * a[..., 1], s[..., 1] - a[..., 0] + a[..., 1] / 2
    torch.testing.assert_close(learner.value(s), torch.minimum(first, second))


def test_termination_stops_bootstrapping_and_weights_multiply_rows():
    learner, given = linear(), batch(terminated=True)
    fill(learner.critic_target.module, CRITICS[:1])
    fill(learner.critic.module, torch.zeros(4))
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 0.0])
    said = learner.update(given, weights=weights, generator=seeded())
    torch.testing.assert_close(learner.errors, given.reward.abs())
    wanted = (weights * 0.5 * given.reward**2).mean()
    assert float(said["critic_loss"]) == pytest.approx(float(wanted))


def test_noise_on_target_actions_is_clipped_and_stays_in_the_box():
    """With a huge std it is ±0.25 half widths; the first action is at its bound already."""
    learner = linear(TD3Config, critics=1, target_noise=1e6, target_noise_clip=0.25)
    fill(learner.critic_target.module, [0.0, 0.0, 1.0, 10.0])
    fill(learner.critic.module, torch.zeros(4))
    net = learner.actor_target.module.net
    fill(net, torch.zeros(2, 2))
    with torch.no_grad():
        net.biases[0].copy_(torch.tensor([[[20.0, 0.0]]]))  # tanh: 1 and 0
    given = batch(400)._replace(reward=torch.full((400,), 100.0))
    learner.update(given, generator=seeded())
    # a_1 is 1 or 1 - 0.25, a_2 is -1 ± 0.5, and the target 100 + 0.5 (a_1 + 10 a_2)
    kinds = sorted({round(float(e), 3) for e in learner.errors})
    assert kinds == [92.875, 93.0, 97.875, 98.0]
    learner = linear(critics=1)
    assert learner.config.target_noise == 0 and TD3Config().target_noise == 0.2


def test_policy_and_targets_move_with_every_third_update_of_the_critics():
    learner = linear(TD3Config, actor_every=3, polyak=0.25)
    parts = {
        "actor": learner.actor.value,
        "critic target": learner.critic_target.value,
        "actor target": learner.actor_target.value,
    }
    first = {name: value.detach().clone() for name, value in parts.items()}
    for update in range(1, 4):
        critic = learner.critic.value.detach().clone()
        said = learner.update(batch(seed=update), generator=seeded())
        assert not torch.equal(critic, learner.critic.value)
        assert ("actor_loss" in said) == (update == 3)
        if update < 3:
            assert all(torch.equal(parts[name], first[name]) for name in parts)
    assert not torch.equal(parts["actor"], first["actor"])
    for name, block in (("critic target", learner.critic), ("actor target", learner.actor)):
        wanted = first[name] + 0.25 * (block.value.detach() - first[name])
        torch.testing.assert_close(parts[name].detach(), wanted)


def test_exploration_is_gaussian_in_half_widths_and_held_in_the_box():
    learner = linear(noise=0.2)
    fill(learner.actor.module.net, torch.zeros(2, 2))
    drawn = learner.policy(torch.zeros(40_000, 2), generator=seeded(), explore=True)
    torch.testing.assert_close(drawn.mean(0), CENTRE, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.std(0), 0.2 * HALF, rtol=0.02, atol=0)
    wild = linear(noise=50.0).policy(torch.zeros(500, 2), generator=seeded(), explore=True)
    assert torch.equal(wild.amin(0), LOW) and torch.equal(wild.amax(0), HIGH)
