"""Proximal policy optimisation: the four cases of clipping, β, early stops and minibatches."""

import math

import pytest
import torch

from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.learners.ppo import PPO, Rows
from mbrl.types import Transition


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learner(**settings):
    """Two actions in one state: the only parameters of the policy are weights and biases."""
    own = {"hidden": (), "discount": 0.9, "normalise": False, **settings}
    return PPO(1, 2, PPOConfig(**own), generator=seeded(2))


def rows(made, ratio, advantage):
    """One row of action 0 whose probability has changed by `ratio` since it was taken."""
    obs, action = torch.ones(1, 1), torch.zeros(1, dtype=torch.long)
    now = made.policy.distribution(obs)
    value = torch.zeros(1)
    old_log_prob = now.log_prob(action) - math.log(ratio)
    return Rows(obs, action, now, old_log_prob, torch.tensor([advantage]), value, value)


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [(1.3, 2.0, False), (0.7, 2.0, True), (0.7, -2.0, False), (1.3, -2.0, True), (1.1, 2.0, True)],
)
def test_ratios_beyond_the_range_learn_only_in_the_direction_back(ratio, advantage, learns):
    """The slope of the loss is -A ρ ∇log π(a), or 0; for two actions ∇log π(0) is 1 - π(0)."""
    made = learner(value_weight=1e-30)
    given = rows(made, ratio, advantage)
    loss, said = made.loss(given, clip_range=0.2)
    made.pair.gradient(loss)
    slope = made.pair.module.actor.net.biases[0].grad.flatten()
    prob = float(made.policy.distribution(given.obs).probs[0, 0])
    wanted = -advantage * ratio * (1 - prob) if learns else 0.0
    assert slope.tolist() == pytest.approx([wanted, -wanted], abs=1e-6)
    assert said["clip_fraction"] == float(abs(ratio - 1) > 0.2)


def rollout(made, seed=0, steps=64, reward=lambda action, g: 1.0 - action):
    g = seeded(seed)
    obs = torch.ones(steps, 1, 1)
    action = made.policy.draw(obs, generator=g)
    ends = torch.ones(steps, 1, dtype=torch.bool)
    return Transition(obs, action, reward(action.float(), g), obs, ends, ~ends)


def test_beta_halves_after_small_moves_and_doubles_after_large_ones():
    still, far = (learner(objective="penalty", beta=1.0, learning_rate=r) for r in (1e-7, 0.5))
    for made, factor in ((still, 0.5), (far, 2.0)):
        for k in range(1, 4):
            said = made.update(rollout(made, k), generator=seeded())
            assert said["beta"] == factor ** (k - 1)
            assert made.beta == factor**k
            if made is far:
                break  # afterwards the penalty may hold it
    assert still.state_dict()["beta"] == 0.125


def test_a_penalty_keeps_the_policy_closer():
    moved = []
    for beta in (1e-6, 100.0):
        made = learner(objective="penalty", beta=beta, learning_rate=0.05)
        moved.append(made.update(rollout(made), generator=seeded())["kl"])
    assert moved[1] < moved[0] / 10


def test_passes_end_early_where_the_policy_has_moved_too_far():
    free, held = (
        learner(learning_rate=0.05, epochs=20, clip_range=9.0, max_kl=m) for m in (None, 0.01)
    )
    said = [made.update(rollout(made), generator=seeded()) for made in (free, held)]
    assert said[0]["passes"] == 20 > said[1]["passes"] >= 1
    assert said[1]["kl"] < said[0]["kl"]


def test_the_clip_range_decreases_with_the_step_size():
    """At the end of the schedule nothing changes at all."""
    made = learner(last_learning_rate=0.0, decay_steps=64, decay_clip=True)
    made.update(rollout(made), generator=seeded())
    before = made.pair.value.detach().clone()
    said = made.update(rollout(made, 1), generator=seeded())
    assert torch.equal(before, made.pair.value) and said["learning_rate"] == 0


def test_a_clipped_value_stops_at_the_range_where_a_free_one_goes_on():
    free, held = (
        learner(value_clip=c, learning_rate=0.01, epochs=200, clip=None) for c in (None, 0.1)
    )
    for made in (free, held):
        made.update(rollout(made, reward=lambda a, g: torch.full_like(a, 5.0)), generator=seeded())
    obs = torch.ones(1, 1, 1)
    with torch.no_grad():
        start, free, held = (
            float(made.pair.module.critic(obs)) for made in (learner(), free, held)
        )
    assert free - start > 1 and 0.1 < held - start < 0.5


def test_the_entropy_bonus_holds_the_policy_at_a_softmax_of_the_advantages():
    """Σ π A + w H is greatest for π ∝ exp(A / w); advantages of the two actions differ by 1."""
    for weight, advantage in ((1e-3, 1000.0), (1.0, 1.0), (2.0, 0.5)):
        made = learner(entropy_weight=weight, learning_rate=0.05)
        for k in range(6):
            made.update(rollout(made, k), generator=seeded(k))
        prob = float(made.policy.distribution(torch.ones(1, 1)).probs[0, 0])
        assert prob == pytest.approx(1 / (1 + math.exp(-advantage)), abs=0.05)


def test_values_of_cut_off_episodes_are_bootstrapped_and_of_terminated_ones_not():
    """Rewards of 1: after termination the value is 1, after a time limit 1 + γ V(s')."""
    made = learner(trace_decay=1.0, epochs=100, learning_rate=0.02, batch=256, clip=None)
    ends = torch.tensor([[True], [False]]).expand(2, 128).T.reshape(-1, 1)
    obs = torch.where(ends, -1.0, 1.0)[..., None]
    action = torch.zeros(256, 1, dtype=torch.long)
    batch = Transition(obs, action, torch.ones(256, 1), obs, ends, ~ends)

    def values():
        with torch.no_grad():
            return made.pair.module.critic(torch.tensor([[[-1.0], [1.0]]])).flatten().tolist()

    for _ in range(3):
        wanted = 1.0, 1 + 0.9 * values()[1]
        made.update(batch, generator=seeded())
        assert values() == pytest.approx(wanted, abs=0.1)
    assert values()[1] > 1.5
