"""Imagined trajectories: gradients, policies, transitions, errors."""

import math

import pytest
import torch
from torch import tensor

from mbrl.imagination import rollout, score_fn, state_ahead
from mbrl.types import Step
from tests.lines import PROPAGATIONS, Line, plans, seeded, spring, start, stay

# Gradients


def test_gradients_of_a_linear_system_equal_the_closed_form():
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
    """From 1 with gain k: s = 1 + k, where it terminates."""
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


def test_gradients_of_a_score_equal_its_finite_differences():
    """Actions that require a gradient get one, also through blocks on several workers."""
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


def test_a_policy_acts_on_the_state_of_each_step():
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


# Transitions of an imagined trajectory


def test_transitions_contain_only_steps_before_termination():
    """Both move by 1; the first terminates beyond 2.5, the second is truncated by the horizon."""
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


def test_each_particle_may_have_its_own_initial_state():
    states = tensor([[[1.0], [2.0]], [[3.0], [4.0]]]).double()
    imagined = rollout(Line([1.0, 10.0]), states, torch.zeros(2, 1, 1).double(), particles=2,
                       generator=seeded())  # fmt: skip
    assert imagined.state[:, :, 1, 0].tolist() == [[1.0, 2.0], [30.0, 40.0]]


def test_without_sampling_each_member_predicts_its_mean_and_draws_nothing():
    generator = seeded()
    before = generator.get_state()
    imagined = rollout(Line([1.0, 0.5], sigma=3.0), start(8.0), plans([0.0, 0.0]), particles=2,
                       sample=False, generator=generator)  # fmt: skip
    assert imagined.state[:, 0, :, 0].tolist() == [[8, 8, 8], [8, 4, 2]]
    assert torch.equal(before, generator.get_state())


class Countdown(Line):
    """A state that decreases by 1 and terminates at 0; counts the rows of its steps."""

    def __init__(self):
        super().__init__([1.0])
        self.rows = []

    def step(self, state, action, *, noise):
        self.rows.append(state.shape[1])
        after = state - 1
        return Step(after, after[..., 0], after[..., 0] <= 0)


def test_rollouts_of_a_policy_stop_when_all_particles_have_terminated():
    model, explored = Countdown(), []

    def policy(state, *, generator, explore):
        explored.append(explore)
        return -state

    states = torch.arange(1.0, 101)[:, None].double()
    imagined = rollout(model, states, policy, horizon=200, particles=1, explore=False,
                       generator=seeded())  # fmt: skip
    assert len(model.rows) == 100  # no step after all have terminated
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


def test_scores_stop_when_all_particles_have_terminated():
    model = Countdown()
    score = score_fn(model, start(3.0), particles=1, horizon=50, generator=seeded())
    assert score(torch.zeros(4, 50, 1).double()).tolist() == [3.0] * 4
    assert len(model.rows) == 3


class Mute(Line):
    """A model that cannot decode."""

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


# Errors


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


# Ahead of a robot


def test_the_state_ahead_is_the_members_mean_or_the_real_worlds():
    """s' = a·s + action: from 1 by actions 0.5, 0.25; the mean of a = 1, 0.5 is 0.75."""
    actions = tensor([[0.5], [0.25]], dtype=torch.float64)
    estimates = Line([1.0, 0.5], sigma=0.3)
    ahead = state_ahead(estimates, start(1.0), actions, generator=seeded())
    assert ahead.tolist() == pytest.approx([0.75 * (0.75 + 0.5) + 0.25])
    for real, state in enumerate((1.75, 0.5 * (0.5 + 0.5) + 0.25)):
        worlds = Line([1.0, 0.5], sigma=0.3)
        worlds.nominal = real
        ahead = state_ahead(worlds, start(1.0), actions, generator=seeded())
        assert ahead.tolist() == pytest.approx([state])
