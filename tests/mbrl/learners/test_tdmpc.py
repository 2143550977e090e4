"""TD-MPC2: its losses against numbers worked out by hand, and systems whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mbrl.distributions import Bounds
from mbrl.encoders.encoder import Encoder
from mbrl.learners.tdmpc import TDMPC
from mbrl.learners.tdmpc_config import TDMPCConfig, discount_of_episodes
from mbrl.types import Dynamics, Resampled, Transition

Z, A, H, B = 4, 1, 2, 6
BOUNDS = Bounds(torch.tensor([-2.0]), torch.tensor([2.0]))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Plain(Encoder):
    """The observation is the latent state; a parameter that changes nothing is trained."""

    def __init__(self):
        super().__init__((Z,), Z)
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, obs):
        return obs + 0 * self.nothing


def learner(termination=False, seed=0, bounds=BOUNDS, **settings):
    chosen = {"latent": Z, "group": 2, "hidden": (16,), "horizon": H, "discount": 0.9, "dropout": 0}
    config = TDMPCConfig(**(chosen | settings))
    return TDMPC(Plain(), bounds, config, termination=termination, generator=seeded(seed))


def simplices(*lead, seed=0):
    """Latent states in two groups, (numbers 0, 2) and (1, 3)."""
    first = torch.rand(*lead, 2, generator=seeded(seed))
    return torch.cat((first, 1 - first), -1)


def batch(reward=0.5, seed=0, terminated=None):
    states = simplices(B, H + 1, seed=seed)
    none = torch.zeros(B, H, dtype=torch.bool)
    return Transition(
        states[:, :-1],
        4 * torch.rand(B, H, A, generator=seeded(seed + 1)) - 2,
        torch.full((B, H), reward),
        states[:, 1:],
        none if terminated is None else terminated,
        none,
    )


def rows(sequences):
    return Transition(*(column.transpose(0, 1).flatten(0, 1) for column in sequences))


def say(critics, values):
    """Make critic c say values[c], wherever it is, by a bias of its last layer."""
    bins = torch.linspace(-10, 10, 101)
    with torch.no_grad():
        critics.weights[-1].zero_()
        critics.biases[-1].fill_(-1e4)
        for member, value in enumerate(values):
            at = int((bins - math.copysign(math.log1p(abs(value)), value)).abs().argmin())
            critics.biases[-1][member, 0, at] = 0.0
    symlog = bins[
        [int((bins - math.copysign(math.log1p(abs(v)), v)).abs().argmin()) for v in values]
    ]
    return (symlog.sign() * symlog.abs().expm1()).tolist()


def test_the_target_is_the_reward_and_the_discounted_least_of_two_critics():
    made = learner(critics=2)
    said = say(made.target.module, [7.0, 3.0])
    say(made.critics.module, [100.0, 100.0])  # not those that count
    reward, ends = torch.tensor([1.0, -2.0]), torch.tensor([False, True])
    found = made.td_target(simplices(2), reward, ends, generator=seeded())
    torch.testing.assert_close(found, torch.tensor([1 + 0.9 * min(said), -2.0]))


def test_the_two_critics_of_a_target_are_drawn_from_all():
    made = learner(critics=3)
    said = say(made.target.module, [1.0, 5.0, 20.0])
    no_end = torch.zeros(1, dtype=torch.bool)
    draw = seeded()
    found = {
        round(made.td_target(simplices(1), torch.zeros(1), no_end, generator=draw).item(), 3)
        for _ in range(30)
    }
    assert found == {round(0.9 * said[0], 3), round(0.9 * said[1], 3)}  # of (5, 20) the least is 5


def test_the_losses_are_cross_entropies_of_two_hot_encodings_with_rho():
    """With all logits 0 each cross entropy is log K, whatever the target."""
    made = learner(rho=0.5, bins=11)
    loss, _, said = made.model_loss(rows(batch()), generator=seeded())
    shares = (1 + 0.5) / 2
    assert said["reward_loss"].item() == pytest.approx(math.log(11) * shares, rel=1e-5)
    assert said["value_loss"].item() == pytest.approx(math.log(11) * shares, rel=1e-5)
    parts = 20 * said["consistency_loss"] + 0.1 * said["reward_loss"] + 0.1 * said["value_loss"]
    assert loss.item() == pytest.approx(parts.item(), rel=1e-6)


def test_the_loss_of_rewards_equals_a_hand_computed_number():
    """symlog(e - 1) = 1 lies half-way between the bins 0 and 2: logits (0, 1, 0) of -2, 0, 2."""
    made = learner(bins=3, value_range=(-2.0, 2.0), rho=1.0)
    with torch.no_grad():
        made.nets.module.reward.biases[0].copy_(torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3))
    _, _, said = made.model_loss(rows(batch(math.e - 1)), generator=seeded())
    total = math.log(2 + math.e)
    assert said["reward_loss"].item() == pytest.approx(0.5 * (total - 1) + 0.5 * total, rel=1e-5)


def test_consistency_is_zero_for_the_true_dynamics_and_their_error_otherwise():
    made, sequences = learner(), batch()
    after = iter([*sequences.next_obs.transpose(0, 1), *(0.1 + sequences.next_obs).transpose(0, 1)])
    logits = torch.zeros(1, B, 101)
    made.nets.module.forward = lambda joined: (next(after)[None], logits)
    _, states, said = made.model_loss(rows(sequences), generator=seeded())
    assert said["consistency_loss"] == 0
    torch.testing.assert_close(states[1:], sequences.next_obs.transpose(0, 1))
    _, _, said = made.model_loss(rows(sequences), generator=seeded())
    assert said["consistency_loss"].item() == pytest.approx(0.01 * (1 + 0.5) / 2, rel=1e-4)


def test_latent_dynamics_learn_a_linear_system():
    """Two probabilities x' = 0.8 x + 0.1 + 0.05 u: the error falls to less than 1 % of x' variance,
    over two steps, which need the predicted state to be predicted from."""
    made = learner(hidden=(32,), learning_rate=3e-3, reward=0.0, value=0.0, entropy=0.0)
    draw = seeded(3)

    def sequences():
        states, actions = [torch.rand(64, 2, generator=draw)], []
        for _ in range(H):
            actions.append(4 * torch.rand(64, A, generator=draw) - 2)
            states.append(0.8 * states[-1] + 0.1 + 0.05 * actions[-1])
        both = torch.stack([torch.cat((x, 1 - x), -1) for x in states], 1)
        none = torch.zeros(64, H, dtype=torch.bool)
        return Transition(
            both[:, :-1], torch.stack(actions, 1), torch.zeros(64, H), both[:, 1:], none, none
        )

    variance = sequences().next_obs.var((0, 1)).mean().item()
    for _ in range(250):
        made.update(sequences(), generator=draw)
    _, _, said = made.model_loss(rows(sequences()), generator=draw)
    assert said["consistency_loss"] / ((1 + 0.5) / 2) < 0.01 * variance


def test_the_critics_learn_the_value_of_a_constant_reward():
    """r = 1 for ever and γ = 1/2: Q = 2, from targets of 0; where it ends at once, Q = 1."""
    for ends, value in ((False, 2.0), (True, 1.0)):
        made = learner(
            polyak=0.2, learning_rate=0.01, termination=True, discount=0.5, bins=21,
            value_range=(-3.0, 3.0),
        )  # fmt: skip
        terminated = torch.full((B, H), ends)
        for seed in range(150):
            made.update(batch(1.0, seed, terminated), generator=seeded(seed))
        world = made.world
        joined = world.nets.joined(simplices(8), torch.zeros(8, A))
        found = world.each(world.critics, joined, list(range(5))).mean()
        assert found.item() == pytest.approx(value, rel=0.05)
        step = world.step(simplices(1, 8), torch.zeros(1, 8, A), noise=None)
        assert (step.terminated == ends).all()
        torch.testing.assert_close(step.reward, torch.ones(1, 8), atol=0.05, rtol=0)


def test_the_policy_moves_to_the_action_of_the_greatest_value():
    """Q = 10 - (a - 1)² in units of the box: the median goes to a = 1 of [-2, 2]."""
    made = learner(learning_rate=3e-3, subset=1, critics=1)

    def q(critics, joined, chosen):
        return 10 - 4 * (2 * joined[..., -1] - 1).square()

    made.world.each = q
    for seed in range(200):
        loss, _ = made._policy_loss(simplices(H + 1, B, seed=seed), generator=seeded(seed))
        made.actor.minimise(loss)
    chosen = made.policy(simplices(20), generator=seeded(), explore=False)
    torch.testing.assert_close(chosen, torch.ones(20, 1), atol=0.1, rtol=0)


def test_the_scale_follows_the_range_of_the_middle_of_values_and_is_at_least_one():
    made = learner(polyak=0.1)
    values = torch.arange(101.0).repeat(H + 1)  # the quantiles of 5 % and 95 % are 5 and 95
    made.world.each = lambda critics, joined, chosen: values[None]
    made._policy_loss(simplices(H + 1, 101), generator=seeded())
    assert made.scale.item() == pytest.approx(0.9 * 1 + 0.1 * 90, rel=1e-5)
    made.world.each = lambda critics, joined, chosen: values[None] / 1e4
    for _ in range(200):
        made._policy_loss(simplices(H + 1, 101), generator=seeded())
    assert made.scale.item() == pytest.approx(1.0, rel=1e-4)


def test_the_encoder_has_a_step_size_of_its_own():
    made = learner(learning_rate=1e-3, encoder_rate=0.25)
    rates = [part.learning_rate for part in (made.encoder, made.nets, made.critics, made.actor)]
    assert rates == pytest.approx([2.5e-4, 1e-3, 1e-3, 1e-3])


def test_targets_follow_the_critics_alone():
    made = learner(polyak=0.25)
    before = made.target.value.clone()
    made.update(batch(), generator=seeded())
    want = 0.75 * before + 0.25 * made.critics.value
    torch.testing.assert_close(made.target.value, want.detach())


def test_the_world_can_be_planned_through_and_says_the_mean_of_the_drawn_critics():
    made = learner(critics=3)
    world = made.world
    assert isinstance(world, Dynamics) and isinstance(world, Resampled)
    said = say(made.critics.module, [1.0, 5.0, 20.0])
    found = set()
    for seed in range(20):
        world.resample(generator=seeded(seed))
        found.add(round(world.value(simplices(1)).item(), 3))
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert found == {round((said[a] + said[b]) / 2, 3) for a, b in pairs}
    with pytest.raises(NotImplementedError, match="without a decoder predicts no observations"):
        world.decode(simplices(1))


def test_actions_are_scaled_from_their_box():
    wide = Bounds(torch.tensor([0.0]), torch.tensor([10.0]))
    for bounds, action in ((BOUNDS, 1.0), (wide, 7.5)):
        joined = learner(bounds=bounds).world.nets.joined(simplices(1), torch.tensor([[action]]))
        assert joined[0, 0, -1].item() == pytest.approx(0.5)


def test_a_saved_learner_goes_on_to_the_byte():
    one, other = learner(seed=0, dropout=0.3), learner(seed=5, dropout=0.3)
    for seed in range(3):
        one.update(batch(seed=seed), generator=seeded(seed))
    other.load_state_dict(one.state_dict())
    for seed in range(3):
        first, second = (m.update(batch(seed=seed), generator=seeded(seed)) for m in (one, other))
        assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in second.items()}
    states = one.state_dict(), other.state_dict()
    for name in TDMPC.PARTS:
        assert torch.equal(states[0][name]["value"], states[1][name]["value"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b._replace(reward=b.reward[:, :1]), r"reward must have shape \(B, 2\), of seq"),
        (lambda b: b._replace(obs=b.obs[..., :3]), r"obs must have shape \(12, 4\), got \(12, 3\)"),
        (lambda b: b._replace(action=b.action * math.nan), "action holds a number that is not fin"),
        (lambda b: b._replace(next_obs=b.next_obs / 0), "next_obs holds a number that is not fini"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(change, message):
    made = learner()
    before = [made.state_dict()[name]["value"] for name in TDMPC.PARTS]
    with pytest.raises(ValueError, match=message):
        made.update(change(batch()), generator=seeded())
    after = [made.state_dict()[name]["value"] for name in TDMPC.PARTS]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and not made.updates


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": 3}, "group: want a divisor of the 4 latent numbers, got 3"),
        ({"value_range": (1.0, 1.0)}, "value_range: want low < high, got 1.0 and 1.0"),
        ({"subset": 6}, "subset: there are 5 critics, got 6"),
        ({"hidden": ()}, "hidden must be a tuple of 1 or more values"),
        ({"discount": None}, "discount: want a number, it is unset"),
        ({"latent": 8}, "latent: want the encoder's 4 features, got 8"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        learner(**settings)


@pytest.mark.parametrize(
    ("steps", "discount"),
    [(50, 0.95), (200, 0.975), (500, 0.99), (1000, 0.995), (10_000, 0.995), (None, 0.99)],
)
def test_the_discount_of_episodes_is_that_of_the_published_rule(steps, discount):
    """(T/5 - 1) / (T/5), between 0.95 and 0.995."""
    assert discount_of_episodes(steps) == pytest.approx(discount)
    if steps:
        assert discount_of_episodes(steps) == pytest.approx(
            float(np.clip((steps / 5 - 1) / (steps / 5), 0.95, 0.995))
        )
