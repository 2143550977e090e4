import math

import numpy as np
import pytest
import torch

from mbrl.data import NStep, PrioritisedReplay
from mbrl.learners.dqn import DQN, QNetwork
from mbrl.learners.value_configs import DQNConfig
from mbrl.types import Transition


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table(states, choices, **settings):
    """A learner whose network is linear: of one-hot states, a table of values."""
    settings = {"hidden": (), "discount": 0.5, "clip": None, **settings}
    return DQN(states, choices, DQNConfig(**settings), generator=seeded())


@torch.no_grad()
def fill(net, values):
    """Set the table (S, A) or (S, A, K) of a network."""
    weight, bias = net.actions.weights[0], net.actions.biases[0]
    weight.copy_(torch.as_tensor(values).reshape(weight.shape))
    bias.zero_()


def rows(states, taken, reward, after, terminated=None, *, count=3):
    ends = torch.zeros(len(states), dtype=torch.bool)
    return Transition(
        torch.eye(count)[states],
        torch.tensor(taken),
        torch.as_tensor(reward, dtype=torch.float32),
        torch.eye(count)[after],
        ends if terminated is None else torch.tensor(terminated),
        ends,
    )


ONLINE = [[1.0, 2.0], [4.0, 3.0], [0.0, 6.0]]
TARGET = [[7.0, 8.0], [2.0, 10.0], [5.0, 1.0]]
STEPS = ([0, 1, 2], [1, 0, 0], [1.0, -2.0, 3.0], [1, 2, 0])


@pytest.mark.parametrize(
    ("double", "next_values"),
    # best in the target: 10, 5, 8; chosen by the online network: actions 0, 1, 1, so 2, 1, 8
    [(False, (10, 5, 8)), (True, (2, 1, 8))],
)
def test_targets_are_those_worked_out_by_hand(double, next_values):
    learner = table(3, 2, double=double, huber=None)
    fill(learner.critic.module, ONLINE)
    fill(learner.target.module, TARGET)
    q, discount = (2, 4, 0), (0.5, 0.25, 0.125)
    for given, powers in ((None, (0.5,) * 3), (torch.tensor(discount), discount)):
        error = [
            r + power * value - own
            for r, power, value, own in zip(STEPS[2], powers, next_values, q, strict=True)
        ]
        said = learner.update(rows(*STEPS), discount=given, generator=seeded())
        assert learner.errors.tolist() == pytest.approx([abs(e) for e in error])
        assert float(said["critic_loss"]) == pytest.approx(sum(0.5 * e**2 for e in error) / 3)
        assert float(said["q"]) == pytest.approx(2) and float(said["td_error"]) > 0
        fill(learner.critic.module, ONLINE)


def test_the_value_of_a_state_is_that_of_its_best_action():
    learner = table(3, 2)
    fill(learner.critic.module, ONLINE)
    assert learner.value(torch.eye(3)).tolist() == [2, 4, 6]
    assert learner.value(torch.eye(3)[::2].view(1, 2, 3)).tolist() == [[2, 6]]


def test_only_termination_stops_bootstrapping():
    learner = table(3, 2)
    fill(learner.critic.module, ONLINE)
    fill(learner.target.module, TARGET)
    steps = rows(*STEPS, [True, False, False])._replace(truncated=torch.ones(3, dtype=torch.bool))
    learner.update(steps, generator=seeded())
    assert learner.errors.tolist() == pytest.approx([abs(1 - 2), abs(-2 + 2.5 - 4), 3 + 4 - 0])


def test_the_loss_is_huber_and_weights_multiply_rows():
    """Errors 1 + 5 - 2 = 4, -3.5 and 7 with threshold 2: 2 (|e| - 1)."""
    learner = table(3, 2, huber=2.0)
    fill(learner.critic.module, ONLINE)
    fill(learner.target.module, TARGET)
    weights = torch.tensor([1.0, 0.5, 0.0])
    said = learner.update(rows(*STEPS), weights=weights, generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx((2 * 3 + 0.5 * 2 * 2.5) / 3)


def slow_projection(atoms, probs, support):
    """Algorithm 1 of Bellemare et al. 2017, in plain Python."""
    low, high, step = support[0], support[-1], support[1] - support[0]
    result = [0.0] * len(support)
    for z, p in zip(atoms, probs, strict=True):
        b = (min(max(z, low), high) - low) / step
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            result[lower] += p
        else:
            result[lower] += p * (upper - b)
            result[upper] += p * (b - lower)
    return result


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_of_c51_is_that_of_a_slow_implementation(double):
    learner = table(3, 2, atoms=5, value_range=(-4.0, 4.0), double=double)
    g = seeded(1)
    online, target = torch.randn(2, 3, 2, 5, generator=g)
    fill(learner.critic.module, online)
    fill(learner.target.module, target)
    support = [-4.0, -2.0, 0.0, 2.0, 4.0]
    losses, errors = [], []
    for s, a, r, after in zip(*STEPS, strict=True):
        ended = s == 2
        means = (online if double else target)[after].softmax(-1) @ torch.tensor(support)
        probs = target[after, int(means.argmax())].softmax(-1).tolist()
        atoms = [r + (0 if ended else 0.5) * z for z in support]
        wanted = slow_projection(atoms, probs, support)
        predicted = online[s, a].softmax(-1).tolist()
        cross = -sum(m * math.log(p) for m, p in zip(wanted, predicted, strict=True))
        losses.append(cross)
        errors.append(cross + sum(m * math.log(m) for m in wanted if m > 0))
    said = learner.update(rows(*STEPS, [False, False, True]), generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert learner.errors.tolist() == pytest.approx(errors, rel=1e-4)


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_of_quantiles_is_that_of_a_slow_implementation(double):
    learner = table(3, 2, quantiles=4, huber=0.7, double=double)
    g = seeded(2)
    online, target = torch.randn(2, 3, 2, 4, generator=g)
    fill(learner.critic.module, online)
    fill(learner.target.module, target)
    total = 0.0
    for s, a, r, after in zip(*STEPS, strict=True):
        best = int((online if double else target)[after].mean(-1).argmax())
        for i, theta in enumerate(online[s, a].tolist()):
            for z in target[after, best].tolist():
                u = r + 0.5 * z - theta
                huber = 0.5 * u**2 if abs(u) <= 0.7 else 0.7 * (abs(u) - 0.35)
                total += abs((i + 0.5) / 4 - (u < 0)) * huber / 0.7 / 4
    said = learner.update(rows(*STEPS), generator=seeded())
    assert float(said["critic_loss"]) == pytest.approx(total / 3, rel=1e-5)


def test_quantile_regression_finds_the_quantiles_of_the_rewards():
    """A skewed distribution; a small threshold, as a large one biases quantiles to the mean."""
    learner = table(1, 2, quantiles=5, huber=0.02, learning_rate=0.02)
    g = seeded(3)
    for k in range(1000):
        learner.critic.learning_rate = 0.02 * (1 - k / 1000)
        reward = -torch.rand(256, generator=g).log()  # exponential of mean 1
        learner.update(rows([0] * 256, [1] * 256, reward, [0] * 256, [True] * 256, count=1),
                       generator=g)  # fmt: skip
    found = learner.critic.fixed(torch.ones(1))[1]
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    wanted = torch.tensor([-math.log(1 - level) for level in levels])
    torch.testing.assert_close(found, wanted, atol=0.06, rtol=0)
    assert float(learner.values(torch.ones(1))[1]) == pytest.approx(float(found.mean()))


def test_c51_finds_the_distribution_of_the_rewards():
    """Rewards 1 with probability 0.3 and -1 with 0.7, both on atoms."""
    learner = table(1, 1, atoms=5, value_range=(-2.0, 2.0), learning_rate=0.05)
    g = seeded(4)
    for k in range(600):
        learner.critic.learning_rate = 0.05 * (1 - k / 600)
        reward = torch.where(torch.rand(256, generator=g) < 0.3, 1.0, -1.0)
        learner.update(rows([0] * 256, [0] * 256, reward, [0] * 256, [True] * 256, count=1),
                       generator=g)  # fmt: skip
    found = learner.critic.fixed(torch.ones(1))[0].softmax(-1)
    torch.testing.assert_close(found, torch.tensor([0, 0.7, 0, 0.3, 0]), atol=0.02, rtol=0)
    assert float(learner.values(torch.ones(1))) == pytest.approx(-0.4, abs=0.03)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_dueling_networks_add_advantages_without_their_mean_to_the_value(hidden):
    """Against products of the weights; the last hidden layers are apart, the others shared."""
    config = DQNConfig(hidden=hidden, dueling=True, activation="tanh")
    net, state = QNetwork(3, 4, 2, config, generator=seeded()), torch.randn(7, 3)

    def mlp(part, x):
        for i, (w, b) in enumerate(zip(part.weights, part.biases, strict=True)):
            x = (x.tanh() if i else x) @ w[0] + b[0]
        return x

    x = state if net.shared is None else mlp(net.shared, state).tanh()
    assert (net.shared is None) == (len(hidden) < 2)
    advantage = mlp(net.actions, x).view(7, 4, 2)
    wanted = mlp(net.value, x).view(7, 1, 2) + advantage - advantage.mean(1, keepdim=True)
    torch.testing.assert_close(net(state), wanted)
    torch.testing.assert_close(net(state).mean(1), mlp(net.value, x))


@pytest.mark.parametrize(("polyak", "share"), [(1.0, 1.0), (0.25, 0.25)])
def test_the_target_moves_after_every_third_update(polyak, share):
    learner = table(3, 2, target_every=3, polyak=polyak)
    first = learner.target.value.clone()
    for update in range(1, 4):
        learner.update(rows(*STEPS), generator=seeded())
        if update < 3:
            assert torch.equal(learner.target.value, first)
    wanted = first + share * (learner.critic.value.detach() - first)
    torch.testing.assert_close(learner.target.value.detach(), wanted)
    assert not torch.equal(learner.target.value, first)


def overestimate(**settings):
    """By how much Q exceeds the return of the policy, 0, where ten actions have rewards N(0, 1).

    State 0 leads to state 1 with reward 0, and state 1 to the end with a random one: whatever the
    policy, its expected return is 0. The mean over 1000 updates, after 500 to settle.
    """
    settings = {"huber": None, "target_every": 50, "learning_rate": 0.05, **settings}
    learner, g, total = table(2, 10, discount=1.0, **settings), seeded(5), 0.0
    fill(learner.critic.module, torch.zeros(2, 10, settings.get("atoms", 1)))
    learner.target.follow(1.0)
    state = torch.arange(64) % 2
    for k in range(1500):
        action = torch.randint(10, (64,), generator=g)
        reward = torch.randn(64, generator=g) * (state == 1)
        step = rows(state, action.tolist(), reward, [1] * 64, (state == 1).tolist(), count=2)
        learner.update(step, generator=g)
        if k >= 500:
            total += float(learner.values(torch.eye(2)[0]).mean()) / 1000
    return total


def test_double_learning_overestimates_far_less():
    """As in van Hasselt et al. 2016: the maximum of noisy estimates is above that of the means."""
    single, double = overestimate(), overestimate(double=True)
    assert single > 0.2
    assert abs(double) < single / 3


def test_rewards_reach_three_states_further_with_each_target_by_three_step_returns():
    """A chain of six states with reward 1 at its end; γ = 1/2, exact targets after two copies."""
    found = {}
    for n in (1, 3):
        accumulator, parts = NStep(n, discount=0.5), []
        for s in range(6):
            one = rows([s], [0], [float(s == 5)], [min(s + 1, 5)], [s == 5], count=6)
            parts.append(accumulator.push(one))
        steps = Transition(*(torch.cat(x) for x in zip(*(p[0] for p in parts), strict=True)))
        discount = torch.cat([p[1] for p in parts])
        learner = table(6, 1, huber=None, learning_rate=0.05, target_every=400)
        fill(learner.critic.module, torch.zeros(6, 1))
        learner.target.follow(1.0)
        for _ in range(800):
            learner.update(steps, discount=discount, generator=seeded())
        found[n] = learner.values(torch.eye(6))[:, 0]
    atol = 2e-3
    whole = torch.tensor([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    torch.testing.assert_close(found[3], whole, atol=atol, rtol=0)
    short = torch.tensor([0, 0, 0, 0, 1 / 2, 1])
    torch.testing.assert_close(found[1], short, atol=atol, rtol=0)


def test_errors_of_an_update_become_the_priorities_of_its_rows():
    learner, buffer = table(3, 2), PrioritisedReplay(3, 3, (), action_dtype=torch.int64, alpha=0.5)
    fill(learner.critic.module, ONLINE)
    fill(learner.target.module, TARGET)
    buffer.append(rows(*STEPS))
    index = torch.arange(3)
    weights = buffer.weights(index, beta=1.0)
    learner.update(buffer.rows(index), weights=weights, generator=seeded())
    buffer.prioritise(index, learner.errors)
    wanted = np.sqrt([1 + 5 - 2, 2 - 2.5 + 4, 3 + 4 - 0])
    assert buffer.probabilities().tolist() == pytest.approx(list(wanted / wanted.sum()), rel=1e-4)


def shares(learner, count=40_000):
    drawn = learner.policy(torch.eye(3)[[1]].expand(count, 3), generator=seeded(), explore=True)
    return (torch.bincount(drawn, minlength=4) / count).tolist()


def test_exploration_is_by_epsilon_or_by_softmax_as_asked():
    """Frequencies within four standard errors."""
    values, tolerance = [[0.0] * 4, [1.0, 3.0, 2.0, 1.0], [0.0] * 4], 4 * 0.5 / math.sqrt(40_000)
    greedy = table(3, 4, first_exploration=0.4)
    fill(greedy.critic.module, values)
    assert shares(greedy) == pytest.approx([0.1, 0.7, 0.1, 0.1], abs=tolerance)
    soft = table(3, 4, exploration="boltzmann", first_exploration=2.0)
    fill(soft.critic.module, values)
    powers = [math.exp(v / 2) for v in values[1]]
    assert shares(soft) == pytest.approx([p / sum(powers) for p in powers], abs=tolerance)
    for learner in (greedy, soft):
        learner.policy.amount = 0.0
        assert shares(learner, 50) == [0, 1, 0, 0]


def test_exploration_falls_linearly_and_then_stays():
    learner = table(3, 2, first_exploration=0.9, last_exploration=0.1, exploration_steps=400)
    assert learner.policy.amount == 0.9
    for steps, wanted in ((0, 0.9), (100, 0.7), (300, 0.3), (400, 0.1), (9000, 0.1)):
        learner.progress(steps)
        assert learner.policy.amount == pytest.approx(wanted)
    other = table(3, 2, first_exploration=0.9)
    other.load_state_dict(learner.state_dict())
    assert other.policy.amount == learner.policy.amount


def test_settings_that_do_not_fit_are_refused():
    for settings, said in (
        ({"atoms": 5, "quantiles": 5}, "atoms and quantiles: only one"),
        ({"value_range": (1.0, 1.0)}, "value_range: want low < high"),
        ({"quantiles": 5, "huber": None}, "huber: quantiles need"),
        ({"first_exploration": 1.5}, "first_exploration: ε must be at most 1"),
    ):
        with pytest.raises(ValueError, match=said):
            DQNConfig(**settings)
    with pytest.raises(ValueError, match="discount: want a number"):
        DQN(2, 2, DQNConfig(), generator=seeded())
    assert DQNConfig(first_exploration=5.0, exploration="boltzmann").first_exploration == 5


@pytest.mark.parametrize("settings", [{}, {"atoms": 5}, {"quantiles": 5}])
def test_actions_that_there_are_not_are_refused(settings):
    learner = table(3, 2, **settings)
    before = learner.critic.value.detach().clone()
    with pytest.raises(ValueError, match="action: must be in 0..1, got 0 to 2"):
        learner.update(rows([0, 1], [0, 2], [0.0, 0.0], [1, 1]), generator=seeded())
    with pytest.raises(ValueError, match="action: must be integers"):
        learner.update(rows([0, 1], [0.0, 1.0], [0.0, 0.0], [1, 1]), generator=seeded())
    assert torch.equal(before, learner.critic.value) and learner.updates == 0
