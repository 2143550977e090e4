"""Expanded targets compared with loops over single trajectories, in plain Python."""

import itertools
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import mve, varied
from mbrl.agents.expanding import Expanding
from mbrl.dynamics import EnsembleConfig
from mbrl.learners.configs import SACConfig
from mbrl.learners.off_policy import TargetValues
from mbrl.learners.value_configs import DDPGConfig
from mbrl.types import Spec, Step, Transition

GAMMA, H, END, LOW, HIGH = 0.8, 3, 4.0, -6.0, 7.0
SPEC = Spec(
    gymnasium.spaces.Box(-np.inf, np.inf, (1,)), gymnasium.spaces.Box(-10, 10, (1,)), ends=True
)
SLOPES = (1.5, -1.2, 0.5)
STARTS = (0.0, 1.0, 2.0, -3.0, 5.0, 8.0)
REWARDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
REALLY_ENDED = (False, False, True, False, False, False)


class Lines:
    """Three members: x' = slope · x + u, reward x · (number of the member); ends between 3 and 4.

    A step from above 6 is not finite.
    """

    members, noise_shape = 3, (1,)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def step(self, state, action, *, noise):
        after = torch.tensor(SLOPES)[:, None, None] * state + action
        after = torch.where(state > 6, torch.nan, after)
        reward = state[..., 0] * torch.arange(1.0, 4.0)[:, None]
        ends = (after > 3) & (after < END)
        return Step(after, reward, ends[..., 0])

    def fit(self, data, *, generator):
        return {}

    def state_dict(self):
        return {}


class Fixed:
    """A learner whose targets are lines in the state; it keeps the batches it is given."""

    discount, updates = GAMMA, 0
    errors = None

    def __init__(self, bonus):
        self.bonus, self.seen = bonus, []

    def policy(self, state, *, generator, explore):
        return torch.zeros_like(state)

    def target_policy(self, state, *, generator, explore):
        return 0.5 - 0.1 * state

    def target_values(self, obs, *, generator):
        x = obs[..., 0]
        each = torch.stack((2 * x, 1 - x))
        return TargetValues(each, each.amin(0))

    def entropy_bonus(self, obs, *, generator):
        return self.bonus * obs[..., 0]

    def update(self, batch, *, generator):
        self.seen.append(batch)
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def step(member, x, bonus):
    """What follows x for a member: reward, next state, end; None where it leaves the bounds."""
    if x > 6:
        return None
    u = 0.5 - 0.1 * x
    after = SLOPES[member] * x + u
    if not LOW <= after <= HIGH:
        return None
    return (x * (member + 1) + bonus * x), after, 3 < after < END


def values(x):
    return (2 * x, 1 - x)


def trajectory(member, x, bonus):
    """The steps of a member that count, with whether the last one terminates."""
    steps = []
    while len(steps) < H:
        found = step(member, x, bonus)
        if found is None:
            return steps, x, False
        steps.append((x, *found))
        x = found[1]
        if found[2]:
            return steps, x, True
    return steps, x, False


def expansion(member, x, bonus):
    steps, last, ended = trajectory(member, x, bonus)
    total = 0.0 if ended else min(values(last))
    for _, reward, _, _ in reversed(steps):
        total = reward + GAMMA * total
    return total


def agent(bonus=0.0, **settings):
    config = mve.Config(
        model=EnsembleConfig(members=3, hidden=(4,), learn_reward=True, learn_termination=True),
        batch=8, horizon=H, **settings,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    made = Expanding(SPEC, Fixed(bonus), config, discount=GAMMA, generator=generator)
    made.learned.model, made.learned.fits = Lines(), 1
    made.learned.bounds = torch.tensor([LOW]), torch.tensor([HIGH])
    return made


def batch():
    x, ends = torch.tensor(STARTS)[:, None], torch.tensor(REALLY_ENDED)
    return Transition(x - 1, 0 * x, torch.tensor(REWARDS), x, ends, ~ends)


@pytest.mark.parametrize("bonus", [0.0, 0.3])
def test_targets_are_those_of_single_trajectories(bonus):
    rows, said = agent(bonus).expanded(batch())
    wanted = [
        reward if ended else reward + GAMMA * np.mean([expansion(m, x, bonus) for m in range(3)])
        for x, reward, ended in zip(STARTS, REWARDS, REALLY_ENDED, strict=True)
    ]
    assert rows.reward.tolist() == pytest.approx(wanted, rel=1e-5)
    assert rows.terminated.all() and torch.equal(rows.obs, batch().obs)
    assert float(said["target"]) == pytest.approx(np.mean(wanted), rel=1e-5)
    one_step = [
        reward + (not ended) * GAMMA * min(values(x))
        for x, reward, ended in zip(STARTS, REWARDS, REALLY_ENDED, strict=True)
    ]
    shift = np.mean(wanted) - np.mean(one_step)
    assert float(said["expansion_shift"]) == pytest.approx(shift, rel=1e-4)
    lengths = [len(trajectory(m, x, bonus)[0]) for x in STARTS for m in range(3)]
    assert float(said["expansion_steps"]) == pytest.approx(np.mean(lengths))
    # the cases that matter are there: whole, ended, cut off at once, cut off later
    assert set(lengths) == {0, 1, 2, 3}


@pytest.mark.parametrize("bonus", [0.0, 0.3])
def test_imagined_states_are_learned_from_with_the_targets_of_their_own_trajectory(bonus):
    """In a target for Q(s, a) the entropy of later actions counts, that of a itself does not."""
    rows, _ = agent(bonus, imagined_states=True).expanded(batch())
    count = len(STARTS)
    got = list(zip(rows.obs[count:, 0].tolist(), rows.reward[count:].tolist(), strict=True))
    allowed = {}
    for x, ended in zip(STARTS, REALLY_ENDED, strict=True):
        for m in range(3):
            steps = [] if ended else trajectory(m, x, bonus)[0]
            _, last, over = trajectory(m, x, bonus)
            total = 0.0 if over else min(values(last))
            pairs = []
            for at, reward, _, _ in reversed(steps):
                total = reward + GAMMA * total
                pairs.insert(0, (at, total - bonus * at))
            allowed[x, m] = pairs
    # each real transition adds the whole trajectory of exactly one member
    combos = itertools.product(range(3), repeat=len(STARTS))

    def same(choice):
        wanted = [pair for x, m in zip(STARTS, choice, strict=True) for pair in allowed[x, m]]
        near = zip(sorted(wanted), sorted(got), strict=False)
        return len(wanted) == len(got) and all(np.allclose(a, b, atol=1e-4) for a, b in near)

    assert any(same(choice) for choice in combos)
    assert rows.terminated.all() and len(rows.reward) == count + len(got) > count
    assert torch.allclose(rows.action[count:], 0.5 - 0.1 * rows.obs[count:])


@pytest.mark.parametrize("bonus", [0.0, 0.3])
def test_steve_weights_all_horizons_by_their_inverse_variance(bonus):
    rows, said = agent(bonus, steve=True).expanded(batch())
    wanted, weights = [], []
    for x, reward, ended in zip(STARTS, REWARDS, REALLY_ENDED, strict=True):
        columns = []
        for m in range(3):
            steps, _, over = trajectory(m, x, bonus)
            for c in range(2):
                targets = [reward if ended else reward + GAMMA * values(x)[c]]
                earned = reward
                for k in range(H):
                    if ended or k >= len(steps):
                        targets.append(targets[-1])
                        continue
                    earned += GAMMA ** (k + 1) * steps[k][1]
                    last = 0.0 if over and k == len(steps) - 1 else values(steps[k][2])[c]
                    targets.append(earned + GAMMA ** (k + 2) * last)
                columns.append(targets)
        table = np.array(columns)  # (members and critics, horizons)
        weight = 1 / (table.var(0) + 1e-8)
        weights.append(weight / weight.sum())
        wanted.append(float(weights[-1] @ table.mean(0)))
    assert rows.reward.tolist() == pytest.approx(wanted, rel=1e-4)
    mean = np.mean(weights, 0)
    assert [float(said[f"steve_weight_{h}"]) for h in range(H + 1)] == pytest.approx(mean, rel=1e-4)
    assert float(said["steve_horizon"]) == pytest.approx(mean @ np.arange(H + 1), rel=1e-4)


def test_before_the_first_fit_the_learner_learns_from_real_transitions():
    made = agent()
    made.learned.fits = 0
    made.replay.append(batch())
    made._updated()
    assert not made.learner.seen[0].terminated.all()
    made.learned.fits = 1
    made._updated()
    assert made.learner.seen[1].terminated.all()


def test_rewards_are_in_the_units_of_the_learner():
    made, plain = agent(scale_reward=True), agent()
    made.observe(batch())
    scale = made.scale.value
    assert scale != 1
    got, raw = made.expanded(batch())[0].reward, plain.expanded(batch())[0].reward
    # the values, of which the critics know only the scaled ones, stay as they are
    value = torch.tensor(
        [
            np.mean([bootstrap(m, x) for m in range(3)]) * (not ended)
            for x, ended in zip(STARTS, REALLY_ENDED, strict=True)
        ],
        dtype=torch.float32,
    )
    torch.testing.assert_close(got - value, (raw - value) / scale, rtol=1e-4, atol=1e-5)


def bootstrap(member, x):
    """The part of a target that the critics give."""
    steps, last, over = trajectory(member, x, 0.0)
    return 0.0 if over else GAMMA ** (len(steps) + 1) * min(values(last))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"ddpg\.critics: steve needs 2 or more.* got 1"):
        mve.Config(base="ddpg", steve=True)
    with pytest.raises(ValueError, match="imagined_states: only without steve"):
        mve.Config(steve=True, imagined_states=True)
    with pytest.raises(ValueError, match="n_step, priority, hindsight"):
        mve.Config(n_step=3)

    class Plain:
        policy = update = state_dict = load_state_dict = None

    config, generator = mve.Config(), torch.Generator()
    with pytest.raises(ValueError, match="mve: needs a learner with target_policy"):
        Expanding(SPEC, Plain(), config, discount=0.9, generator=generator)


def test_variants_are_the_published_settings():
    found = varied("mve", mve.Config(ddpg=DDPGConfig(hidden=(8,))), "steve")
    assert found.steve and found.base == "ddpg" and found.ddpg == DDPGConfig(hidden=(8,), critics=4)
    assert (found.model.members, found.model.elites, found.horizon) == (4, None, 3)
    assert varied("mve", mve.Config(), "mve").imagined_states


@pytest.mark.parametrize("settings", [{}, {"steve": True}, {"imagined_states": True}], ids=str)
def test_indices_of_actions_are_learned_from(settings):
    spec = Spec(gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(2, start=1), ends=False)
    model = EnsembleConfig(members=2, hidden=(8,), epochs=2, learn_reward=True)
    config = mve.Config(
        base="sac", model=model, sac=SACConfig(hidden=(8,)), batch=8, learning_starts=20,
        fit_every=20, log_every=20, **settings,
    )  # fmt: skip
    made = mve.make(spec, config, generator=torch.Generator().manual_seed(0))
    at, said = np.zeros(2, np.int64), {}
    for _ in range(20):
        action = made.act(at, explore=True)
        after = (at + action) % 3
        columns = (at, action, after.astype(np.float32), after, np.zeros(2, bool), after == 0)
        made.observe(Transition(*map(torch.as_tensor, columns)))
        said |= made.update()
        at = np.where(after == 0, 0, after)
    assert math.isfinite(said["expansion_shift"]) and said["updates"] == 20
    assert replace(config) == made.config
