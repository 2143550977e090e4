import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.imagination import disagreement, objective, rollout, score_fn
from mbrl.imagination import propagation as module
from mbrl.types import Gaussian, GaussianDynamics, Step
from planners import PLANNERS

PROPAGATIONS = ("ts1", "tsinf", "expectation", "moment", "distribution")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Line:
    """Member e moves a point on a line: s' = a_e s + b_e u + σ noise; the reward is s'."""

    def __init__(self, a, b=None, sigma=0.0, ends_above=math.inf, dtype=torch.float64):
        self.a = torch.as_tensor(a, dtype=dtype).view(-1, 1, 1)
        self.b = torch.ones_like(self.a) if b is None else tensor(b, dtype=dtype).view(-1, 1, 1)
        self.sigma, self.ends_above = sigma, ends_above

    @property
    def members(self):
        return len(self.a)

    noise_shape = (1,)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def move(self, state, action):
        return self.a * state + self.b * action

    def predict(self, state, action):
        mean = self.move(state, action)
        std = torch.full_like(mean, self.sigma)
        return Gaussian(torch.cat((mean, mean), -1), torch.cat((std, 0 * std), -1))

    def step(self, state, action, *, noise):
        after = self.move(state, action)
        if noise is not None:
            after = after + self.sigma * noise
        return Step(after, after[..., 0], after[..., 0] > self.ends_above)


class Bad(Line):
    """A line that blows up behind `wall`, in the state or only in the reward."""

    def __init__(self, wall, value, what="state", **kwargs):
        super().__init__([1.0, 1.0], **kwargs)
        self.wall, self.value, self.what = wall, value, what

    def step(self, state, action, *, noise):
        step = super().step(state, action, noise=noise)
        behind = (state + action > self.wall)[..., 0]
        if self.what == "reward":
            return step._replace(reward=step.reward.masked_fill(behind, self.value))
        return step._replace(state=step.state.masked_fill(behind.unsqueeze(-1), self.value))


def plans(*rows):
    """Action sequences (N, H, 1) from N rows of H numbers."""
    return tensor(rows, dtype=torch.float64).unsqueeze(-1)


def start(value=0.0):
    return tensor([value], dtype=torch.float64)


def stay(state, *, generator, explore):
    """A policy that takes the state for its action."""
    return state


def spring(obs, action, next_obs):
    return -next_obs[..., 0].square() - 0.1 * action[..., 0].square()


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
def test_objectives_worked_by_hand(name, value):
    returns = tensor([[3.0], [10.0], [1.0], [4.0], [2.0]]).double()
    both = torch.cat((returns, -returns.flip(0)), 1)
    out = objective(name)(both)
    assert out.shape == (2,) and out.dtype == torch.float64
    assert out[0].item() == pytest.approx(value, rel=1e-14)
    assert objective(name)(both.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "name",
    ["median", "", "cvar:0", "cvar:1.5", "cvar:x", "cvar:nan", "mean-std:-1", "mean:2", "worst:1",
     "mean+std:nan", "mean*std:1"],
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


# Particles without noise, worked by hand


def test_each_member_is_rolled_by_itself():
    """From 8 with actions (1, 2): s + u gives 9, 11 and s/2 + u gives 5, 4.5."""
    model = Line([1.0, 0.5])
    imagined = rollout(model, start(8.0), plans([1.0, 2.0]), particles=4, generator=seeded())
    states = [[8.0, 9.0, 11.0], [8.0, 5.0, 4.5]]
    assert imagined.state.squeeze(-1)[:, 0].tolist() == [states[0]] * 2 + [states[1]] * 2
    assert imagined.reward[:, 0].tolist() == [[9.0, 11.0]] * 2 + [[5.0, 4.5]] * 2
    assert imagined.returns().flatten().tolist() == [20.0, 20.0, 9.5, 9.5]
    assert imagined.returns(0.5).flatten().tolist() == [14.5, 14.5, 7.25, 7.25]
    assert imagined.action.shape == (4, 1, 2, 1)
    assert imagined.alive.all() and not imagined.terminated.any()
    for name, value in (("mean", 14.75), ("worst", 9.5), ("cvar:0.75", (2 * 9.5 + 20) / 3)):
        score = score_fn(model, start(8.0), particles=4, horizon=2, objective=name,
                         generator=seeded())  # fmt: skip
        assert score(plans([1.0, 2.0])).item() == pytest.approx(value)
    discounted = score_fn(model, start(8.0), particles=2, horizon=2, discount=0.5,
                          generator=seeded())  # fmt: skip
    assert discounted(plans([1.0, 2.0])).item() == pytest.approx((14.5 + 7.25) / 2)


def test_a_known_reward_takes_the_place_of_the_models_own():
    score = score_fn(Line([1.0]), start(2.0), particles=1, horizon=2, reward=spring,
                     generator=seeded())  # fmt: skip
    # states 1, 3
    assert score(plans([-1.0, 2.0])).item() == pytest.approx(-1 - 9 - 0.1 - 0.4)


def test_shorter_plans_than_the_horizon_are_scored_as_such():
    score = score_fn(Line([1.0]), start(), particles=1, horizon=5, generator=seeded())
    assert score(plans([1.0, 1.0])).item() == 3.0


def test_expectation_takes_the_mean_of_the_members_means():
    """Twice three quarters of 8, whatever the noise and the particles asked for."""
    model = Line([1.0, 0.5], sigma=3.0)
    imagined = rollout(model, start(8.0), plans([0.0, 0.0]), particles=7,
                       propagation="expectation", generator=seeded())  # fmt: skip
    assert imagined.state.flatten().tolist() == [8.0, 6.0, 4.5]
    assert imagined.reward.flatten().tolist() == [6.0, 4.5]


def test_ts1_assigns_anew_at_each_step_and_tsinf_never():
    """Members add 1, 10, 100 to the place: digits tell who moved a particle and how often."""
    model = Line([1.0] * 3, b=[1.0, 10.0, 100.0])
    walk = plans([1.0] * 4)
    fixed = rollout(model, start(), walk, particles=300, generator=seeded()).state.flatten(1)
    assert fixed[:, -1].tolist() == [4.0] * 100 + [40.0] * 100 + [400.0] * 100
    dealt = rollout(model, start(), walk, particles=300, propagation="ts1", generator=seeded())
    moves = dealt.state.flatten(1).diff(dim=1)
    for t in range(4):  # members are evenly used at every step
        assert moves[:, t].unique(return_counts=True)[1].tolist() == [100, 100, 100]
    pairs = (moves[:, 0] + 1000 * moves[:, 1]).unique(return_counts=True)[1]
    # of nine pairs of members each comes 300/9 times, give or take three std of 5
    assert len(pairs) == 9 and (pairs - 300 / 9).abs().max() < 15


@pytest.mark.parametrize("propagation", ["moment", "distribution"])
def test_refitting_keeps_the_mean_and_variance_of_the_mixture(propagation):
    """From 8, members say 8 and 4 with std 1.5: mean 6, variance 1.5² + 2²."""
    model = Line([1.0, 0.5], sigma=1.5)
    imagined = rollout(model, start(8.0), plans([0.0]), particles=40_000,
                       propagation=propagation, generator=seeded())  # fmt: skip
    after = imagined.state[:, 0, 1, 0]
    assert after.mean().item() == pytest.approx(6.0, abs=4 * 2.5 / 200)
    assert after.std().item() == pytest.approx(2.5, rel=0.02)
    # a Gaussian, no longer two humps: its fourth moment is three times its variance squared
    assert ((after - 6) / 2.5).pow(4).mean().item() == pytest.approx(3.0, rel=0.06)
    assert imagined.reward.flatten().unique().tolist() == [6.0]


def test_moment_matching_forgets_where_a_particle_was_and_distribution_sampling_does_not():
    model = Line([1.0], sigma=1.0)
    correlations = []
    for propagation in ("moment", "distribution"):
        state = rollout(model, start(), plans([0.0, 0.0]), particles=20_000,
                        propagation=propagation, generator=seeded()).state[:, 0, :, 0]  # fmt: skip
        correlations.append(torch.corrcoef(state[:, 1:].T)[0, 1].item())
        assert state[:, 2].var().item() == pytest.approx(2.0, rel=0.05)
    assert abs(correlations[0]) < 4 / math.sqrt(20_000)
    assert correlations[1] == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_noise_is_the_models_and_each_particles_own():
    model = Line([1.0, 1.0], sigma=0.5)
    imagined = rollout(model, start(), torch.zeros(50, 20, 1).double(), particles=200,
                       generator=seeded())  # fmt: skip
    steps = imagined.state.squeeze(-1).diff(dim=-1)
    assert steps.std().item() == pytest.approx(0.5, rel=0.01)
    assert steps.mean().item() == pytest.approx(0.0, abs=0.5 * 4 / math.sqrt(steps.numel()))
    flat = steps.flatten()
    assert len(flat.unique()) == len(flat)


# Termination


def test_what_comes_after_the_end_does_not_count():
    """Both go 1 a step and end beyond 2.5; the rewards are 1, 2, 3 and then nothing."""
    model = Line([1.0, 1.0], ends_above=2.5)
    walk = plans([1.0] * 6)
    imagined = rollout(model, start(), walk, particles=2, generator=seeded())
    assert imagined.state[0].flatten().tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert imagined.alive[0, 0].tolist() == [True] * 3 + [False] * 3
    assert imagined.terminated[0, 0].tolist() == [False, False, True, False, False, False]
    assert imagined.returns().flatten().tolist() == [6.0, 6.0]
    score = score_fn(model, start(), particles=2, horizon=6, generator=seeded())
    assert score(walk).item() == 6.0
    known = score_fn(Line([1.0]), start(), particles=1, horizon=6, generator=seeded(),
                     terminated=lambda obs: obs[..., 0] > 1.5)  # fmt: skip
    assert known(walk).item() == 3.0
    never = score_fn(model, start(), particles=2, horizon=6, generator=seeded(),
                     terminated=lambda obs: obs[..., 0] > 99)  # fmt: skip
    assert never(walk).item() == 21.0


def test_particles_end_each_at_its_own_time():
    """The second member goes half as fast: 1 + 2 + 3, and 0.5 + 1 + ... + 3."""
    model = Line([1.0, 1.0], b=[1.0, 0.5], ends_above=2.75)
    score = score_fn(model, start(), particles=2, horizon=9, generator=seeded())
    assert score(plans([1.0] * 9, [-1.0] * 9)).tolist() == [(6 + 10.5) / 2, -0.75 * 45]


@pytest.mark.parametrize("propagation", ["expectation", "distribution"])
def test_members_vote_on_the_end_where_all_see_the_particle(propagation):
    model = Line([1.0] * 3, b=[1.0, 1.0, -8.0], ends_above=0.5)
    imagined = rollout(model, start(), plans([1.0, 1.0]), particles=3, propagation=propagation,
                       generator=seeded())  # fmt: skip
    assert imagined.terminated[:, 0, 0].all()
    assert not imagined.alive[:, 0, 1].any()


@pytest.mark.parametrize("what", ["state", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
def test_a_blow_up_behind_the_end_forbids_nothing(what, value, propagation):
    """The model knows nothing of what lies beyond 2.5, where nobody ever goes on from."""
    model = Bad(wall=3.5, value=value, what=what, ends_above=2.5)
    walk = plans([1.0] * 6)
    score = score_fn(model, start(), particles=2, horizon=6, propagation=propagation,
                     generator=seeded())  # fmt: skip
    assert score(walk).item() == 6.0
    imagined = rollout(model, start(), walk, particles=2, propagation=propagation,
                       generator=seeded())  # fmt: skip
    assert (imagined.returns() == 6.0).all()
    endless = score_fn(model, start(), particles=2, horizon=6, propagation=propagation,
                       terminated=lambda obs: obs[..., 0] > 100, generator=seeded())  # fmt: skip
    assert endless(walk).item() == -math.inf


# Models that blow up


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["state", "reward"])
def test_a_candidate_that_is_not_finite_scores_minus_infinity(propagation, value, what):
    model = Bad(wall=2.5, value=value, what=what)
    score = score_fn(model, start(), particles=2, horizon=3, propagation=propagation,
                     generator=seeded())  # fmt: skip
    assert score(plans([1.0] * 3, [0.5] * 3, [9.0, 0, 0])).tolist() == [-math.inf, 3.0, -math.inf]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_broken_state_counts_even_where_the_reward_does_not_show_it(value):
    model = Bad(wall=2.5, value=value)
    score = score_fn(model, start(), particles=2, horizon=1, generator=seeded(),
                     reward=lambda obs, action, next_obs: torch.ones_like(obs[..., 0]))  # fmt: skip
    assert score(plans([3.0], [0.5])).tolist() == [-math.inf, 1.0]


def test_one_bad_particle_forbids_the_candidate():
    """One member in three explodes by squaring: the others' returns must not hide it."""
    model = Line([1.0, 1.0, 1e30], dtype=torch.float32)
    for name in ("mean", "cvar:0.3", "mean+std:1"):
        score = score_fn(model, tensor([1.0]), particles=3, horizon=3, objective=name,
                         generator=seeded())  # fmt: skip
        assert score(plans([0.0] * 3).float()).item() == -math.inf


def test_no_action_that_is_not_finite_is_ever_good():
    score = score_fn(Line([1.0]), start(), particles=1, horizon=2, generator=seeded())
    assert score(plans([math.nan, 0.0], [math.inf, 0.0])).tolist() == [-math.inf] * 2


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_it_never_wins_with_any_planner(planner, value):
    """All that is worth having lies just behind the wall."""
    model = Bad(wall=0.5, value=value)
    score = score_fn(model, start(), particles=2, horizon=4, generator=seeded())
    search = planner(start(-1.0), start(1.0), 4, population=200)
    plan = search.plan(score, None, generator=seeded())
    assert plan.rejected > 0
    assert plan.score.isfinite()
    assert plan.actions.cumsum(0).max() <= 0.5


# A pure function


@pytest.fixture(scope="module")
def net():
    """An ensemble as it comes, with some disagreement and noise."""
    model = Ensemble(3, 2, EnsembleConfig(members=4, hidden=(16, 16)), generator=seeded())
    with torch.no_grad():
        model.heads.max_log_var.fill_(-3.0)
    return model


def net_score(net, propagation="tsinf", seed=1, **kwargs):
    return score_fn(net, tensor([0.1, -0.2, 0.3]), particles=8, horizon=6, generator=seeded(seed),
                    propagation=propagation, reward=spring, **kwargs)  # fmt: skip


def candidates(count, seed=2):
    return 2 * torch.rand(count, 6, 2, generator=seeded(seed)) - 1


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_the_same_actions_score_the_same_to_the_bit(net, propagation):
    score, actions = net_score(net, propagation), candidates(40)
    kept = actions.clone()
    first = score(actions)
    assert first.shape == (40,) and first.isfinite().all() and first.std() > 0
    assert torch.equal(first, score(actions))
    assert torch.equal(actions, kept)
    assert torch.equal(first, net_score(net, propagation)(actions))
    if propagation != "expectation":
        assert not torch.equal(first, net_score(net, propagation, seed=3)(actions))


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_the_company_a_candidate_keeps_does_not_matter(net, propagation):
    """Moment matching too refits across particles, never across candidates."""
    score, actions = net_score(net, propagation), candidates(40)
    together = score(actions)
    alone = torch.cat([score(actions[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(score(actions[7:19]), together[7:19], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_neither_does_the_size_of_the_blocks(net, propagation, monkeypatch):
    score, actions = net_score(net, propagation), candidates(40)
    whole = score(actions)
    for rows, split in ((1, 10**9), (7, 10**9), (10**9, 1), (10**9, 10**9)):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
        monkeypatch.setattr(module, "SPLIT_ROWS", split)
        torch.testing.assert_close(score(actions), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_nor_the_number_of_threads_to_the_bit(net, propagation, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    before = torch.get_num_threads()
    actions, results = candidates(60), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            scores = net_score(net, propagation)(actions)
            imagined = rollout(net, torch.zeros(3), actions, particles=8, propagation=propagation,
                               reward=spring, generator=seeded())  # fmt: skip
            results.append((scores, imagined.state, imagined.reward))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), propagation=st.sampled_from(PROPAGATIONS), count=st.integers(1, 30))
def test_permuting_candidates_permutes_scores(data, propagation, count):
    model = Line([1.0, 0.9, 1.1], sigma=0.1, ends_above=1.0)
    score = score_fn(model, start(0.2), particles=6, horizon=6, propagation=propagation,
                     objective="cvar:0.4", generator=seeded())  # fmt: skip
    order = tensor(data.draw(st.permutations(range(count))))
    actions = candidates(count)[..., :1].double()
    torch.testing.assert_close(score(actions[order]), score(actions)[order], rtol=1e-9, atol=1e-9)


def test_the_global_stream_is_left_alone(net):
    before = torch.get_rng_state()
    net_score(net, "ts1")(candidates(3))
    rollout(net, torch.zeros(3), candidates(3), particles=4, reward=spring, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


# Disagreement and penalty


def test_disagreement_worked_by_hand():
    """At 2, members say 2 and 6: std 2. In units of a scale of 4: one half."""
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
    """Members agree left of zero and part ways right of it."""

    def move(self, state, action):
        return state + action + (self.b - self.b.mean()) * state.clamp_min(0)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_the_penalty_falls_where_members_disagree_and_only_there(propagation):
    model = Rift([1.0, 1.0], b=[0.9, 1.1], sigma=0.01)
    actions = plans([-1.0] * 3, [1.0] * 3)
    plain, penalised = (
        score_fn(model, start(-0.5), particles=2, horizon=3, propagation=propagation,
                 penalty=penalty, generator=seeded())(actions)
        for penalty in (0.0, 2.0)
    )  # fmt: skip
    assert plain[0] == penalised[0]
    # at 0.5 and 1.5, give or take, the members' std is a tenth of that
    assert (plain - penalised)[1].item() == pytest.approx(2 * 0.1 * (0.5 + 1.5), rel=0.15)


def test_the_penalty_is_taken_off_the_imagined_reward():
    model = Rift([1.0, 1.0], b=[0.9, 1.1])
    imagined = rollout(model, start(1.0), plans([0.0]), particles=2, penalty=2.0,
                       reward=lambda obs, action, next_obs: 0 * obs[..., 0],
                       generator=seeded())  # fmt: skip
    assert imagined.reward.flatten().tolist() == pytest.approx([-0.2, -0.2])


# Gradients


def test_gradients_of_a_linear_system_in_closed_form():
    """The return is Σ s; action k adds 1 + a + ... + a^(H-1-k), here averaged over members."""
    model = Line([1.0, 0.5])
    actions = plans([0.3, -0.2, 0.1], [0.0, 1.0, 2.0]).requires_grad_()
    state = start(1.0).requires_grad_()
    imagined = rollout(model, state, actions, particles=2, gradients=True, generator=seeded())
    imagined.returns().mean(0).sum().backward()
    row = [(3 + 1.75) / 2, (2 + 1.5) / 2, 1.0]
    assert actions.grad.squeeze(-1).tolist() == [row, row]
    # and s0 counts a + a² + a³ each time
    assert state.grad.item() == pytest.approx(2 * (3 + 0.875) / 2)


class Curve(Line):
    def move(self, state, action):
        return torch.tanh(self.a * state + self.b * action)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_gradients_match_finite_differences(propagation):
    model = Curve([0.9, 1.2], sigma=0.3)

    def returns(state, actions):
        return rollout(model, state, actions, particles=4, propagation=propagation,
                       gradients=True, penalty=0.5, reward=spring,
                       generator=seeded()).returns(0.9)  # fmt: skip

    actions = plans([0.3, -0.2, 0.1], [0.5, 0.1, -0.4]).requires_grad_()
    assert torch.autograd.gradcheck(returns, (tensor([[0.3], [0.1]]).double(), actions))
    state = tensor([[0.3], [0.1]]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: returns(s, actions.detach()), (state,))


def test_gradients_reach_a_policys_parameters_and_stop_at_the_end():
    """From 1 with gain k: s = 1 + k, ended there by the known termination."""
    gain = tensor(0.5, dtype=torch.float64, requires_grad=True)

    def policy(state, *, generator, explore):
        return gain * state

    imagined = rollout(Line([1.0]), start(1.0), policy, horizon=3, particles=1,
                       terminated=lambda obs: obs[..., 0] > 1.2, gradients=True,
                       generator=seeded())  # fmt: skip
    total = imagined.returns().sum()
    assert total.item() == 1.5
    total.backward()
    assert gain.grad.item() == 1.0


def test_without_gradients_no_graph_is_kept():
    actions = plans([0.3, -0.2]).requires_grad_()
    assert not rollout(Line([1.0]), start(), actions, particles=1,
                       generator=seeded()).state.requires_grad  # fmt: skip
    score = score_fn(Line([1.0]), start(), particles=1, horizon=2, generator=seeded())
    assert not score(actions.detach()).requires_grad
    with torch.no_grad():
        assert not score(actions).requires_grad
    with torch.enable_grad():
        assert rollout(Line([1.0]), start(), actions, particles=1, gradients=True,
                       generator=seeded()).state.requires_grad  # fmt: skip


def test_a_score_slopes_as_its_differences_say():
    """Actions that want a gradient get one, through blocks on several workers too."""
    model = Line([1.0, 0.5])
    score = score_fn(model, start(), particles=2, horizon=3, generator=seeded())
    actions = torch.rand(300, 3, 1, dtype=torch.float64, generator=seeded()).requires_grad_()
    (slope,) = torch.autograd.grad(score(actions).sum(), actions)
    pushed = actions.detach().clone()
    pushed[:, 1] += 1e-6
    change = (score(pushed) - score(actions.detach())) / 1e-6
    assert slope.shape == actions.shape and slope.abs().max() > 0
    torch.testing.assert_close(slope[:, 1, 0], change, rtol=1e-5, atol=1e-5)


# Policies


def test_a_policy_is_asked_at_every_step_and_closes_the_loop():
    seen = []

    def policy(state, *, generator, explore):
        seen.append(tuple(state.shape))
        return -0.5 * state

    imagined = rollout(Line([1.0, 2.0]), tensor([[8.0], [4.0]]).double(), policy, horizon=2,
                       particles=2, generator=seeded())  # fmt: skip
    assert seen == [(2, 2, 1), (2, 2, 1)]
    # s/2 a step for the first member, 2s - s/2 for the second
    assert imagined.state.squeeze(-1).tolist() == [
        [[8.0, 4.0, 2.0], [4.0, 2.0, 1.0]],
        [[8.0, 12.0, 18.0], [4.0, 6.0, 9.0]],
    ]
    assert imagined.action.squeeze(-1)[1].tolist() == [[-4.0, -6.0], [-2.0, -3.0]]


def test_a_random_policy_draws_from_the_rollouts_generator():
    def policy(state, *, generator, explore):
        return torch.randn(state.shape, generator=generator, dtype=state.dtype)

    runs = [
        rollout(Line([1.0]), start(), policy, horizon=4, particles=3, generator=seeded(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0].action, runs[1].action)
    assert not torch.equal(runs[0].action, runs[2].action)


# What an imagined trajectory hands on


def test_transitions_are_the_steps_that_count():
    """Both go 1 a step; the first ends beyond 2.5, the second is cut off by the horizon."""
    model = Line([1.0, 1.0], b=[1.0, 0.5], ends_above=2.5)
    imagined = rollout(model, start(), plans([1.0] * 4), particles=2, generator=seeded())
    steps = imagined.transitions()
    assert steps.obs.flatten().tolist() == [0, 1, 2, 0, 0.5, 1, 1.5]
    assert steps.next_obs.flatten().tolist() == [1, 2, 3, 0.5, 1, 1.5, 2]
    assert steps.reward.tolist() == [1, 2, 3, 0.5, 1, 1.5, 2]
    assert steps.action.shape == (7, 1) and (steps.action == 1).all()
    assert steps.terminated.tolist() == [False, False, True] + [False] * 4
    assert steps.truncated.tolist() == [False] * 6 + [True]


def test_a_trajectory_that_ends_at_the_horizon_is_not_truncated():
    imagined = rollout(Line([1.0], ends_above=1.5), start(), plans([1.0, 1.0]), particles=1,
                       generator=seeded())  # fmt: skip
    steps = imagined.transitions()
    assert steps.terminated.tolist() == [False, True]
    assert steps.truncated.tolist() == [False, False]


def test_each_particle_may_have_a_start_of_its_own():
    states = tensor([[[1.0], [2.0]], [[3.0], [4.0]]]).double()
    imagined = rollout(Line([1.0, 10.0]), states, torch.zeros(2, 1, 1).double(), particles=2,
                       generator=seeded())  # fmt: skip
    assert imagined.state[:, :, 1, 0].tolist() == [[1.0, 2.0], [30.0, 40.0]]


def test_without_sampling_each_member_goes_to_its_mean_and_nothing_is_drawn():
    generator = seeded()
    before = generator.get_state()
    imagined = rollout(Line([1.0, 0.5], sigma=3.0), start(8.0), plans([0.0, 0.0]), particles=2,
                       sample=False, generator=generator)  # fmt: skip
    assert imagined.state[:, 0, :, 0].tolist() == [[8, 8, 8], [8, 4, 2]]
    assert torch.equal(before, generator.get_state())


class Countdown(Line):
    """Counts the rows it steps; a member's point falls by one a step and ends at 0."""

    def __init__(self):
        super().__init__([1.0])
        self.rows = []

    def step(self, state, action, *, noise):
        self.rows.append(state.shape[1])
        after = state - 1
        return Step(after, after[..., 0], after[..., 0] <= 0)


def test_a_policy_is_not_stepped_on_from_where_all_have_ended():
    model, explored = Countdown(), []

    def policy(state, *, generator, explore):
        explored.append(explore)
        return -state

    states = torch.arange(1.0, 101)[:, None].double()
    imagined = rollout(model, states, policy, horizon=200, particles=1, explore=False,
                       generator=seeded())  # fmt: skip
    assert len(model.rows) == 100  # no step once all have ended
    assert sum(model.rows) < 0.6 * 100 * 100
    assert not any(explored)
    lengths = imagined.alive[0].sum(1)
    assert lengths.tolist() == list(range(1, 101))
    wanted = [n * (n - 1) / 2 for n in range(1, 101)]
    assert imagined.returns()[0].tolist() == wanted
    assert (imagined.state[0, :, -1] == 0).all()
    assert imagined.terminated.sum() == 100
    steps = imagined.transitions()
    assert torch.equal(steps.action, -steps.obs)
    assert torch.equal(steps.next_obs, steps.obs - 1)


def test_a_score_stops_once_all_have_ended():
    model = Countdown()
    score = score_fn(model, start(3.0), particles=1, horizon=50, generator=seeded())
    assert score(torch.zeros(4, 50, 1).double()).tolist() == [3.0] * 4
    assert len(model.rows) == 3


class Mute(Line):
    """It has no observations to give."""

    def decode(self, state):
        raise NotImplementedError


def test_states_are_decoded_only_for_functions_of_observations():
    model, walk = Mute([1.0]), plans([1.0, 1.0])
    score = score_fn(model, start(), particles=1, horizon=2, generator=seeded())
    assert score(walk).item() == 3.0
    imagined = rollout(model, start(1.0), stay, horizon=2,
                       particles=1, generator=seeded())  # fmt: skip
    assert imagined.reward.flatten().tolist() == [2.0, 4.0]
    for known in ({"reward": spring}, {"terminated": lambda obs: obs[..., 0] > 9}):
        with pytest.raises(NotImplementedError):
            rollout(model, start(), walk, particles=1, generator=seeded(), **known)


def test_noise_has_the_models_shape():
    class Wide(Line):
        noise_shape = (2, 3)

        def step(self, state, action, *, noise):
            seen.append(tuple(noise.shape))
            return super().step(state, action, noise=noise.flatten(-2).sum(-1, keepdim=True))

    seen = []
    model = Wide([1.0, 1.0], sigma=1.0)
    score_fn(model, start(), particles=4, horizon=1, generator=seeded())(plans([0.0], [1.0]))
    rollout(model, start(), plans([0.0]), particles=4, propagation="ts1", generator=seeded())
    assert seen == [(2, 4, 2, 3), (2, 2, 2, 3)]


def test_gradients_reach_the_models_weights():
    """The return of one step from 8 is a · 8 + u for each member: its slope in a is 8."""
    model = Line([1.0, 0.5])
    model.a.requires_grad_()
    imagined = rollout(model, start(8.0), plans([1.0]), particles=2, gradients=True,
                       generator=seeded())  # fmt: skip
    imagined.returns().sum().backward()
    assert model.a.grad.flatten().tolist() == [8.0, 8.0]


@pytest.mark.parametrize("known", ["reward", "terminated"])
def test_a_function_of_observations_of_another_shape_is_refused(known):
    functions = {
        "reward": lambda obs, action, next_obs: next_obs,
        "terminated": lambda obs: obs > 9,
    }
    with pytest.raises(ValueError, match=r"reward and termination must be \(P, n\) = \(1, 1\)"):
        rollout(Line([1.0]), start(), plans([0.0]), particles=1, generator=seeded(),
                **{known: functions[known]})  # fmt: skip


# Refusals


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "moment"])
@pytest.mark.parametrize("particles", [0, 1, 3, -2])
def test_particles_that_are_no_multiple_of_the_members_are_refused(propagation, particles):
    message = f"particles must be a positive multiple of the model's 2 members, got {particles}"
    model = Line([1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        score_fn(model, start(), particles=particles, horizon=1, propagation=propagation,
                 generator=seeded())  # fmt: skip
    with pytest.raises(ValueError, match=message):
        rollout(model, start(), plans([0.0]), particles=particles, propagation=propagation,
                generator=seeded())  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propagation": "ts2"}, "propagation 'ts2' is unknown; take one of .*'tsinf'"),
        ({"horizon": 0}, "horizon must be >= 1, got 0"),
        ({"state": torch.zeros(1, 1)}, r"state must have shape \(S,\), got \(1, 1\)"),
        ({"penalty": -1.0}, "penalty must be >= 0, got -1.0"),
        ({"penalty": math.nan}, "penalty must be >= 0, got nan"),
        ({"state": tensor([math.nan])}, "state holds a number that is not finite"),
    ],
)
def test_bad_settings_of_a_score_are_refused(change, message):
    settings = {"state": start(), "particles": 2, "horizon": 2, "generator": seeded()} | change
    with pytest.raises(ValueError, match=message):
        score_fn(Line([1.0, 2.0]), **settings)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 1), (3, 0, 1), (3, 4, 1), (1, 3, 2, 1)])
def test_actions_of_another_shape_are_refused(shape):
    score = score_fn(Line([1.0]), start(), particles=1, horizon=3, generator=seeded())
    with pytest.raises(ValueError, match=r"actions must be \(N, H, A\) with N >= 1 and 1 <= H"):
        score(torch.zeros(shape))


@pytest.mark.parametrize(
    ("state", "actions", "horizon", "message"),
    [
        (torch.zeros(2, 3, 1), torch.zeros(3, 2, 1), None, r"state \(P, N, S\) must have P = 1"),
        (torch.zeros(1, 2, 3, 1), torch.zeros(3, 2, 1), None, r"state must be \(S,\), \(N, S\)"),
        (torch.zeros(2, 1), torch.zeros(3, 2, 1), None, r"with N as in state \(2, 1\), got"),
        (torch.zeros(1), torch.zeros(2, 1), None, r"actions must be \(N, H, A\)"),
        (torch.zeros(1), torch.zeros(3, 2, 1), 3, r"horizon 3 is not that of actions \(3, 2, 1\)"),
        (torch.zeros(1), torch.zeros(3, 0, 1), None, "horizon must be >= 1, got 0"),
        (
            torch.zeros(1),
            lambda state, *, generator, explore: state,
            None,
            "horizon is needed with a policy",
        ),
        (
            torch.zeros(1),
            lambda state, *, generator, explore: state,
            0,
            "horizon must be >= 1, got 0",
        ),
    ],
)
def test_wrong_shapes_of_a_rollout_are_refused(state, actions, horizon, message):
    with pytest.raises(ValueError, match=message):
        rollout(Line([1.0]), state, actions, horizon=horizon, particles=1, generator=seeded())


# MU4: propagations against the truth


STRIDES, SIGMA, HORIZON, EDGE = (0.06, 0.08, 0.10, 0.12, 0.14), 0.03, 12, 1.4
"""Nobody knows the walker's stride, one of five; the ground is a little wet."""


def along_the_cliff(obs, action, next_obs):
    """Pays for nearness to the edge, and costs three once beyond it."""
    at = next_obs[..., 0]
    return torch.where(at > EDGE, -3.0, at.square())


def true_returns(count=200_000):
    """Brute force, with nothing of the library's: an unknown stride that stays what it is."""
    rng = np.random.default_rng(0)
    stride = rng.choice(STRIDES, count)
    at, total = np.zeros(count), np.zeros(count)
    for _ in range(HORIZON):
        at += stride + SIGMA * rng.standard_normal(count)
        total += np.where(at > EDGE, -3.0, at**2)
    return total


def worst_tenth(returns):
    return np.sort(returns)[: -(-len(returns) // 10)].mean()


def test_propagations_against_monte_carlo_truth():
    """TS∞ is unbiased; all that assign anew average the parameter away and see too little risk.

    Truth: 200 000 walks in numpy. Margins: TS∞ within four standard errors in the mean and 3 % in
    std and CVaR; the others' std of the return below 0.75 of the truth and their CVaR too
    hopeful by more than 20 % of the true spread; one particle of the mean is off by more than
    ten of TS∞'s tolerances.
    """
    truth = true_returns()
    mean, std, tail = truth.mean(), truth.std(), worst_tenth(truth)
    model = Line([1.0] * 5, b=STRIDES, sigma=SIGMA)
    walk = torch.ones(1, HORIZON, 1, dtype=torch.float64)
    count = 50_000
    found, ends = {}, {}
    for propagation in PROPAGATIONS:
        imagined = rollout(model, start(), walk, particles=count, propagation=propagation,
                           reward=along_the_cliff, generator=seeded())  # fmt: skip
        returns = imagined.returns().flatten().numpy()
        found[propagation] = returns.mean(), returns.std(), worst_tenth(returns)
        ends[propagation] = imagined.state[:, 0, -1, 0].var(correction=0).item()
    print(f"\n{'':14}{'mean':>8}{'std':>8}{'CVaR 0.1':>10}")
    for name, row in {"truth": (mean, std, tail), **found}.items():
        print(f"{name:14}" + "".join(f"{value:9.3f}" for value in row))

    tolerance = 4 * std * math.sqrt(1 / count + 1 / len(truth))
    assert abs(found["tsinf"][0] - mean) < tolerance
    assert found["tsinf"][1] == pytest.approx(std, rel=0.03)
    assert found["tsinf"][2] == pytest.approx(tail, rel=0.03)
    for name in ("ts1", "moment", "distribution"):
        assert found[name][1] < 0.75 * std
        assert found[name][2] > tail + 0.2 * std
    assert abs(found["expectation"][0] - mean) > 10 * tolerance

    # In closed form the place after H steps has variance H² Var θ + H σ² where strides stay,
    # and H (Var θ + σ²) where they are drawn anew.
    doubt = np.var(STRIDES)
    assert ends["tsinf"] == pytest.approx(HORIZON**2 * doubt + HORIZON * SIGMA**2, rel=0.03)
    for name in ("ts1", "moment", "distribution"):
        assert ends[name] == pytest.approx(HORIZON * (doubt + SIGMA**2), rel=0.03)
    assert ends["expectation"] == 0.0


def test_a_score_with_a_few_particles_is_an_unbiased_sample_of_the_truth():
    """The mean over 400 scores with TS∞ and 20 particles is the true mean return."""
    truth = true_returns()
    model = Line([1.0] * 5, b=STRIDES, sigma=SIGMA)
    walk = torch.ones(1, HORIZON, 1, dtype=torch.float64)
    scores = [
        score_fn(model, start(), particles=20, horizon=HORIZON, reward=along_the_cliff,
                 generator=seeded(seed))(walk).item()
        for seed in range(400)
    ]  # fmt: skip
    assert np.mean(scores) == pytest.approx(truth.mean(), abs=4 * np.std(scores) / 20)


def test_moment_matching_leaves_out_particles_that_have_ended():
    """Steps keep the mean and add std 2; below 6, one std, is the end, and the model knows no more.

    The living go on from the mean of a normal cut at -1 std, 8 + 2 φ(1) / Φ(1), not from 8.
    """

    class Cliff(Line):
        def predict(self, state, action):
            mean, std = super().predict(state, action)
            return Gaussian(torch.where(state < 6.0, torch.nan, mean), std)

    imagined = rollout(
        Cliff([1.0], sigma=2.0), start(8.0), plans([0.0, 0.0]), particles=40_000,
        propagation="moment", terminated=lambda obs: obs[..., 0] < 6.0, generator=seeded(),
    )  # fmt: skip
    ended = imagined.terminated[:, 0, 0]
    assert ended.double().mean().item() == pytest.approx(0.1587, abs=0.01)
    after = imagined.state[~ended, 0, 2, 0]
    assert after.mean().item() == pytest.approx(8 + 2 * 0.2420 / 0.8413, abs=0.06)
    assert torch.equal(imagined.state[ended, 0, 2], imagined.state[ended, 0, 1])


@pytest.mark.parametrize("settings", [{"propagation": "moment"}, {"penalty": 1.0}])
def test_a_model_without_a_gaussian_is_refused_where_one_is_needed(settings):
    class Bare:
        members, noise_shape = 1, (1,)

        def encode(self, obs, *, state=None, action=None):
            return obs

        def decode(self, state):
            return state

        def step(self, state, action, *, noise):
            raise AssertionError("not reached")

    with pytest.raises(ValueError, match="predicts a Gaussian, which Bare does not"):
        score_fn(Bare(), start(0.0), particles=1, horizon=1, generator=seeded(), **settings)
