"""Soft actor-critic compared with closed forms and with targets worked out another way."""

import copy
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from mbrl.agents import sac, varied
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC, DiscreteSAC
from mbrl.nn.stacked import BatchNorm, BatchRenorm
from mbrl.types import Transition

LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 4.0])
TINY = SACConfig(hidden=(16,), discount=0.9, learning_rate=1e-2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def soft(config=TINY, seed=0, **settings):
    return SAC(3, Bounds(LOW, HIGH), replace(config, **settings), generator=seeded(seed))


def batch(count=32, seed=0, actions=None):
    g = seeded(seed)
    obs, after = torch.randn(2, count, 3, generator=g)
    if actions is None:
        action = LOW + (HIGH - LOW) * torch.rand(count, 2, generator=g)
    else:
        action = torch.randint(actions, (count,), generator=g)
    ends = torch.rand(count, generator=g) < 0.3
    return Transition(obs, action, torch.randn(count, generator=g), after, ends, ~ends)


def torch_policy(learner, obs):
    """The same policy by torch's own distributions."""
    mean, log_std = learner.actor.fixed.raw(obs).chunk(2, -1)
    normal = Independent(Normal(mean, log_std.clamp(-20, 2).exp()), 1)
    squash = [TanhTransform(cache_size=1), AffineTransform((LOW + HIGH) / 2, (HIGH - LOW) / 2)]
    return TransformedDistribution(normal, squash)


def outputs(critic, obs, action):
    return critic(torch.cat((obs, action), -1).expand(critic.members, -1, -1))


@pytest.mark.parametrize("n_step", [False, True])
def test_the_critics_move_along_the_gradient_of_the_papers_loss(n_step):
    learner, given = soft(temperature=0.3), batch()
    weights = torch.rand(32, generator=seeded(4)) if n_step else None
    discount = torch.rand(32, generator=seeded(5)) if n_step else None
    noise = torch.randn(32, 2, generator=seeded(9))
    with torch.no_grad():
        mean, log_std = learner.policy.raw(given.next_obs).chunk(2, -1)
        after = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * (mean + log_std.exp() * noise).tanh()
        log_prob = torch_policy(learner, given.next_obs).log_prob(after)
        q = outputs(learner.target.module, given.next_obs, after)[..., 0].min(0).values
        value = torch.where(given.terminated, 0.0, q - 0.3 * log_prob)
        target = given.reward + (0.9 if discount is None else discount) * value
    q = outputs(learner.critic.module, given.obs, given.action)[..., 0]
    rows = 0.5 * (q - target).square().sum(0)
    loss = (rows if weights is None else rows * weights).mean()
    expected = torch.autograd.grad(loss, list(learner.critic.module.parameters()))
    expected = torch.cat([part.flatten() for part in expected])
    said = learner.update(given, weights=weights, discount=discount, generator=seeded(9))
    torch.testing.assert_close(said["critic_loss"], loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learner.critic.value.grad, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"critics": 4, "subset": 2}], ids=str)
def test_target_values_are_what_the_targets_of_an_update_are_made_of(settings):
    learner, given = soft(temperature=0.3, **settings), batch()
    found = learner.target_values(given.next_obs, generator=seeded(9))
    target = given.reward + 0.9 * torch.where(given.terminated, 0.0, found.least)
    with torch.no_grad():
        q = outputs(learner.critic.module, given.obs, given.action)[..., 0]
    said = learner.update(given, generator=seeded(9))
    loss = 0.5 * (q - target).square().sum(0).mean()
    assert float(said["critic_loss"]) == pytest.approx(float(loss), rel=1e-4)
    if not settings:
        torch.testing.assert_close(found.each.amin(0), found.least)


def test_the_discrete_target_values_are_what_the_targets_of_an_update_are_made_of():
    learner = DiscreteSAC(3, 4, replace(TINY, temperature=0.3), generator=seeded())
    given = batch(actions=4)
    found = learner.target_values(given.next_obs, generator=seeded(9))
    target = given.reward + 0.9 * torch.where(given.terminated, 0.0, found.least)
    with torch.no_grad():
        q = learner._values(learner.critic.module, given.obs)
    taken = q[:, torch.arange(32), given.action]
    said = learner.update(given, generator=seeded(9))
    loss = 0.5 * (taken - target).square().sum(0).mean()
    assert float(said["critic_loss"]) == pytest.approx(float(loss), rel=1e-4)
    probs = learner.policy.distribution(given.obs).probs
    bonus = learner.entropy_bonus(given.obs, generator=seeded())
    torch.testing.assert_close(bonus, -0.3 * (probs * probs.log()).sum(-1))


def test_the_entropy_bonus_is_that_of_the_policy_on_average():
    learner = soft(temperature=0.3)
    obs = batch(1).obs.expand(20_000, -1)
    bonus = learner.entropy_bonus(obs, generator=seeded(1))
    policy = torch_policy(learner, obs)
    with torch.no_grad():
        wanted = -0.3 * policy.log_prob(policy.sample()).mean()
    assert float(bonus.mean()) == pytest.approx(float(wanted), abs=0.02)
    # values contain it: V(s) = Q'(s, a') + bonus of the same draw
    value = learner.target_values(obs, generator=seeded(1)).each
    action = learner.target_policy(obs, generator=seeded(1))
    with torch.no_grad():
        q = outputs(learner.target.module, obs, action)[..., 0]
    torch.testing.assert_close(value, q + bonus, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mean", [False, True])
def test_the_policy_moves_along_the_gradient_of_the_papers_loss(mean):
    # critics that do not move, for an update moves them first
    learner, given = (
        soft(temperature=0.3, mean_of_critics=mean, critic_learning_rate=1e-30),
        batch(),
    )
    g = seeded(9)
    torch.randn(32, 2, generator=g)  # of the next actions
    noise = torch.randn(32, 2, generator=g)
    raw_mean, log_std = learner.actor.module.raw(given.obs).chunk(2, -1)
    u = raw_mean + log_std.exp() * noise
    action = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * u.tanh()
    density = Normal(raw_mean, log_std.exp()).log_prob(u)
    log_prob = (density - ((HIGH - LOW) / 2 * (1 - u.tanh().square())).log()).sum(-1)
    q = outputs(learner.critic.fixed, given.obs, action)[..., 0]
    q = q.mean(0) if mean else q.min(0).values
    parameters = list(learner.actor.module.net.parameters())
    expected = torch.autograd.grad((0.3 * log_prob - q).mean(), parameters)
    said = learner.update(given, generator=seeded(9))
    for own, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(own.grad, wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(said["entropy"], -log_prob.detach().mean(), rtol=1e-4, atol=1e-5)


def test_the_tuned_temperature_brings_the_entropy_to_its_target():
    learner = soft(first_temperature=0.1)
    assert learner.target_entropy == pytest.approx(-2 + math.log(1 * 3))  # half sizes 1 and 3
    given = batch(256)
    given = given._replace(reward=-given.action.square().sum(-1), terminated=torch.ones(256) > 0)
    g = seeded(1)
    entropies = [float(learner.update(given, generator=g)["entropy"]) for _ in range(1200)]
    last = sum(entropies[-200:]) / 200
    assert last == pytest.approx(learner.target_entropy, abs=0.1) != pytest.approx(entropies[0])


def test_a_std_gives_the_target_entropy_of_its_gaussian():
    learner = soft(target_std=0.15)
    each = Normal(0.0, 0.15).entropy()
    assert learner.target_entropy == pytest.approx(float(2 * each) + math.log(3), rel=1e-5)


def test_the_discrete_policy_of_a_bandit_is_the_softmax_of_its_rewards():
    """With a fixed temperature the soft-optimal policy is known (Haarnoja et al. 2017)."""
    rewards = torch.tensor([0.0, 0.5, 1.0, -1.0])
    config = SACConfig(hidden=(32,), discount=0.9, learning_rate=3e-3, temperature=0.5)
    learner = DiscreteSAC(3, 4, config, generator=seeded())
    given = batch(256, actions=4)
    given = given._replace(reward=rewards[given.action], terminated=torch.ones(256) > 0)
    g = seeded(1)
    for _ in range(800):
        learner.update(given, generator=g)
    probs = learner.policy.distribution(given.obs).probs.mean(0)
    torch.testing.assert_close(probs, (rewards / 0.5).softmax(-1), rtol=0, atol=0.03)


def test_the_minimum_is_over_a_random_subset_of_the_critics():
    """Critic i says i, so the loss tells the minimum m: m is 0 in 4 of the 10 pairs, 3 in one."""
    learner = soft(
        critics=5, subset=2, temperature=0.0, actor_every=1000, critic_learning_rate=1e-30
    )
    for net in (learner.critic.module, learner.target.module):
        net.weights[-1].data.zero_()
        net.biases[-1].data.copy_(torch.arange(5.0).view(5, 1, 1))
    given = batch()
    given = given._replace(reward=torch.zeros(32), terminated=torch.zeros(32, dtype=torch.bool))
    losses = {sum(0.5 * (i - 0.9 * m) ** 2 for i in range(5)): m for m in range(4)}
    g, seen = seeded(), Counter()
    for _ in range(400):
        loss = float(learner.update(given, generator=g)["critic_loss"])
        seen[losses[min(losses, key=lambda own: abs(own - loss))]] += 1
    for m in range(4):  # within 3.5 standard deviations of a binomial
        chance = (4 - m) / 10
        assert abs(seen[m] - 400 * chance) < 3.5 * math.sqrt(400 * chance * (1 - chance))


def test_without_targets_both_states_are_normalised_together():
    learner, given = soft(norm="batch-after", target=False, temperature=0.1), batch()
    first = learner.critic.module.norms[0]
    learner.update(given, generator=seeded(2))
    rows = torch.cat((given.obs, given.next_obs))  # of both states, the actions apart
    torch.testing.assert_close(first.mean[0, 0, :3], 0.01 * rows.mean(0), rtol=1e-4, atol=1e-6)


def test_with_targets_both_states_can_be_normalised_together_too():
    """XQC and FlashSAC: the target is the second half of a pass of the copies over both states."""
    learner, given = soft(norm="batch", joint=True, temperature=0.3), batch()
    learner.target.value.mul_(1.5)
    critic, target = copy.deepcopy(learner.critic.module), copy.deepcopy(learner.target.module)
    noise = torch.randn(32, 2, generator=seeded(9))
    with torch.no_grad():
        mean, log_std = learner.policy.raw(given.next_obs).chunk(2, -1)
        after = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * (mean + log_std.exp() * noise).tanh()
        log_prob = torch_policy(learner, given.next_obs).log_prob(after)
        both = torch.cat((given.obs, given.next_obs)), torch.cat((given.action, after))
        value = outputs(target, *both)[:, 32:, 0].min(0).values - 0.3 * log_prob
        goal = given.reward + 0.9 * torch.where(given.terminated, 0.0, value)
        loss = 0.5 * (outputs(critic, *both)[:, :32, 0] - goal).square().sum(0).mean()
    said = learner.update(given, generator=seeded(9))
    torch.testing.assert_close(said["critic_loss"], loss, rtol=1e-4, atol=1e-5)


def test_distributions_of_returns_are_projected_as_in_c51():
    """The slow loop of Bellemare et al. 2017, algorithm 1, with the entropy in the atoms."""
    learner = soft(atoms=11, value_range=(-2.0, 2.0), temperature=0.2)
    given, noise = batch(8), torch.randn(8, 2, generator=seeded(9))
    atoms = torch.linspace(-2, 2, 11)
    with torch.no_grad():
        mean, log_std = learner.policy.raw(given.next_obs).chunk(2, -1)
        after = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * (mean + log_std.exp() * noise).tanh()
        log_prob = torch_policy(learner, given.next_obs).log_prob(after)
        probs = outputs(learner.target.module, given.next_obs, after).softmax(-1)
        means = (probs * atoms).sum(-1)
    expected = torch.zeros(8, 11)
    for row in range(8):
        chosen = probs[int(means[:, row].argmin()), row]
        for k in range(11):
            value = float(given.reward[row])
            if not given.terminated[row]:
                value += 0.9 * float(atoms[k] - 0.2 * log_prob[row])
            place = (min(max(value, -2.0), 2.0) + 2.0) / 0.4
            low, high = math.floor(place), math.ceil(place)
            if low == high:
                expected[row, low] += chosen[k]
            else:
                expected[row, low] += chosen[k] * (high - place)
                expected[row, high] += chosen[k] * (place - low)
    out = outputs(learner.critic.module, given.obs, given.action)
    loss = -(expected * out.log_softmax(-1)).sum(-1).sum(0).mean()
    said = learner.update(given, generator=seeded(9))
    torch.testing.assert_close(said["critic_loss"], loss.detach(), rtol=1e-4, atol=1e-4)


def test_the_policy_waits_for_its_turn():
    learner, g = soft(actor_every=3), seeded()
    start = learner.actor.value.detach().clone()
    for turn in range(1, 4):
        said = learner.update(batch(), generator=g)
        assert torch.equal(learner.actor.value, start) == (turn < 3)
        assert ("actor_loss" in said) == (turn == 3)


@pytest.mark.parametrize(
    "settings", [{"norm": "batch", "policy_norm": "batch"}, {"body": "blocks"}]
)
def test_unit_weights_hold_at_first_and_after_each_update(settings):
    learner = soft(**settings, unit_weights=True)
    nets = learner.critic.module, learner.target.module, learner.actor.module.net
    start = [net.weights[0].detach().clone() for net in nets]
    for turn in range(2):
        for net in nets if turn == 0 else (nets[0], nets[2]):
            for weight in net.weights:
                lengths = weight.norm(dim=1)
                torch.testing.assert_close(lengths, torch.ones_like(lengths))
        learner.update(batch(), generator=seeded())
    for net, weight in zip(nets, start, strict=True):
        assert not torch.equal(net.weights[0], weight)


def test_a_smooth_std_is_squashed_into_its_range():
    plain, smooth = soft(), soft(smooth_std=True)
    obs = batch(8).obs
    raw, raw_plain = (learner.policy.raw(obs)[:, 2:] for learner in (smooth, plain))
    expected = (-10 + 6 * (1 + raw.tanh())).exp()
    torch.testing.assert_close(smooth.policy.distribution(obs).log_std.exp(), expected)
    torch.testing.assert_close(plain.policy.distribution(obs).log_std.exp(), raw_plain.exp())
    for bias, log_std in ((-50.0, -10.0), (0.0, -4.0), (50.0, 2.0)):
        for layer in (*smooth.actor.module.net.weights, *smooth.actor.module.net.biases):
            layer.data.zero_()
        smooth.actor.module.net.biases[-1].data.fill_(bias)
        found = smooth.policy.distribution(obs).log_std
        torch.testing.assert_close(found, torch.full((8, 2), log_std))


def test_step_sizes_change_over_the_run():
    """Halfway along a line from 4e-3 to 1e-3 they are 2.5e-3; those of critics half of that."""
    learner = soft(learning_rate=4e-3, critic_learning_rate=2e-3, last_learning_rate=1e-3)
    with pytest.raises(ValueError, match="decay_steps: the length of the run is not known"):
        learner.update(batch(), generator=seeded())
    learner.run_for(100)
    for steps, rate in ((0, 4e-3), (50, 2.5e-3), (100, 1e-3), (1000, 1e-3)):
        learner.progress(steps)
        learner.update(batch(), generator=seeded())
        assert learner.actor.learning_rate == pytest.approx(rate)
        assert learner.critic.learning_rate == pytest.approx(rate / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset": 3}, "subset: there are 2 critics, got 3"),
        (
            {"target": False},
            "target: critics without target copies need norm batch",
        ),
        ({"joint": True, "norm": "layer"}, "joint: states in one batch need norm batch"),
        ({"body": "blocks", "norm": "batch"}, "body: blocks have norms of their own; want no norm"),
        ({"body": "blocks", "dropout": 0.1}, "body: blocks have norms of their own"),
        ({"body": "blocks", "hidden": (8, 4)}, r"hidden: want one width for all blocks.*\(8, 4\)"),
        ({"value_range": (1.0, 1.0)}, "value_range: want low < high"),
        ({"dropout": 1.0}, "dropout"),
        ({"discount": None}, "discount: want a number, it is unset"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        soft(**settings)


def test_discrete_actions_refuse_settings_of_a_box():
    batch_norm = {"norm": "batch"}
    for settings in ({"atoms": 51}, {"target": False, **batch_norm}, {"joint": True, **batch_norm}):
        with pytest.raises(ValueError, match="discrete actions need 1 atom and target networks"):
            DiscreteSAC(3, 4, replace(TINY, **settings), generator=seeded())


def test_the_networks_start_as_torchs_linear_layers():
    learner = soft(hidden=(256,))
    weight = learner.critic.module.weights[0]
    theirs = nn.Linear(5, 256).weight
    assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(5), rel=0.01)
    assert theirs.abs().max().item() == pytest.approx(1 / math.sqrt(5), rel=0.01)


@pytest.mark.parametrize("name", sac.VARIANTS)
def test_every_published_variant_learns_from_a_batch(name):
    config = sac.VARIANTS[name](sac.Config(learner=SACConfig(discount=0.9)))
    learner = SAC(3, Bounds(LOW, HIGH), config.learner, generator=seeded())
    learner.run_for(1000)
    start = learner.critic.value.detach().clone()
    said = learner.update(batch(), generator=seeded())
    assert math.isfinite(float(said["critic_loss"]))
    assert not torch.equal(learner.critic.value, start)


def test_crossq_has_batch_renormalisation_and_its_narrow_form_has_not():
    for name, kind in (("crossq", BatchRenorm), ("crossq-512", BatchNorm)):
        config = sac.VARIANTS[name](sac.Config(learner=SACConfig(discount=0.9)))
        learner = SAC(3, Bounds(LOW, HIGH), config.learner, generator=seeded())
        norms = [*learner.critic.module.norms, *learner.actor.module.net.norms]
        assert [type(norm) for norm in norms] == [kind] * 6


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="variant 'reqd' is unknown; there are redq, droq, crossq"):
        varied("sac", sac.Config(), "reqd")
    with pytest.raises(ValueError, match="random has none"):
        varied("random", None, "redq")
