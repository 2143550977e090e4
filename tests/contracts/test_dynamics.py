"""What every model of the world promises. A new model adds its maker to `MAKERS`."""

import math

import pytest
import torch

from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.imagination import score_fn
from mbrl.types import Dynamics, Gaussian, GaussianDynamics, Step, Transition

OBS, ACTION = 3, 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(count=300):
    """A damped point pushed about, with a little noise; it ends when far to the right."""
    g = seeded()
    obs = torch.randn(count, OBS, generator=g)
    action = torch.randn(count, ACTION, generator=g)
    push = torch.cat((action, action.sum(-1, keepdim=True)), -1)
    after = 0.9 * obs + 0.3 * push + 0.02 * torch.randn(count, OBS, generator=g)
    over = torch.zeros(count) > 0
    return Transition(obs, action, -after.square().sum(-1), after, after[:, 0] > 1, over)


def ensemble(**settings):
    def make(seed=0):
        config = EnsembleConfig(members=4, hidden=(24,), epochs=40, batch=64, **settings)
        return Ensemble(OBS, ACTION, config, generator=seeded(seed))

    return make


MAKERS = {
    "probabilistic ensemble": ensemble(),
    "deterministic ensemble": ensemble(probabilistic=False),
    "elites": ensemble(elites=2),
    "learned reward and termination": ensemble(learn_reward=True, learn_termination=True),
}
"""name -> make(seed) -> a model of OBS observations and ACTION actions, with fit, state_dict and
load_state_dict."""


@pytest.fixture(scope="module", params=MAKERS.values(), ids=list(MAKERS))
def made(request):
    """A maker, and a model of it that has been fitted."""
    model = request.param()
    model.fit(data(), generator=seeded(1))
    return request.param, model


@pytest.fixture
def model(made):
    return made[1]


def inputs(model, rows=5, seed=2):
    """State, action and noise (E, B, ...)."""
    g = seeded(seed)
    state = model.encode(torch.randn(model.members, rows, OBS, generator=g))
    action = torch.randn(model.members, rows, ACTION, generator=g)
    return state, action, torch.randn(state.shape, generator=g)


def test_it_is_a_model(model):
    assert isinstance(model, Dynamics)
    assert isinstance(model.members, int) and model.members >= 1


@pytest.mark.parametrize("rows", [1, 7])
def test_shapes_and_dtypes(model, rows):
    state, action, noise = inputs(model, rows)
    step = model.step(state, action, noise=noise)
    assert isinstance(step, Step)
    assert step.state.shape == state.shape and step.state.dtype == state.dtype
    assert step.reward.shape == step.terminated.shape == (model.members, rows)
    assert step.reward.dtype == state.dtype and step.terminated.dtype == torch.bool
    assert step.state.isfinite().all() and step.reward.isfinite().all()
    assert model.decode(step.state).shape == (model.members, rows, OBS)


def test_encoding_takes_any_leading_dimensions(model):
    for lead in ((), (2,), (2, 3)):
        obs = torch.randn(*lead, OBS, generator=seeded())
        state = model.encode(obs)
        assert state.shape[:-1] == lead
        torch.testing.assert_close(model.decode(state), obs, rtol=1e-5, atol=1e-5)


def test_the_same_noise_gives_the_same_step_and_arguments_are_left_alone(model):
    state, action, noise = inputs(model)
    kept = [part.clone() for part in (state, action, noise)]
    global_state = torch.get_rng_state()
    first, second = (model.step(state, action, noise=noise) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept, (state, action, noise), strict=True))
    assert torch.equal(global_state, torch.get_rng_state())


def test_no_noise_is_the_mean(model):
    state, action, noise = inputs(model)
    mean = model.step(state, action, noise=None)
    nought = model.step(state, action, noise=0 * noise)
    torch.testing.assert_close(mean.state, nought.state)
    torch.testing.assert_close(mean.reward, nought.reward)
    torch.testing.assert_close(mean.state, model.predict(state, action).mean[..., :-1])


def test_what_it_predicts_is_what_it_draws_from(model):
    assert isinstance(model, GaussianDynamics)
    state, action, noise = inputs(model)
    predicted = model.predict(state, action)
    assert isinstance(predicted, Gaussian)
    size = state.shape[-1]
    assert predicted.mean.shape == predicted.std.shape == (*state.shape[:-1], size + 1)
    assert (predicted.std >= 0).all()
    drawn = model.step(state, action, noise=noise).state
    wanted = predicted.mean[..., :size] + predicted.std[..., :size] * noise
    torch.testing.assert_close(drawn, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        model.step(state, action, noise=noise).reward, predicted.mean[..., size]
    )


def test_rows_know_nothing_of_one_another(model):
    state, action, noise = inputs(model, 6)
    whole = model.step(state, action, noise=noise)
    part = model.step(state[:, 2:4], action[:, 2:4], noise=noise[:, 2:4])
    torch.testing.assert_close(part.state, whole.state[:, 2:4], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.reward, whole.reward[:, 2:4], rtol=1e-5, atol=1e-5)


def test_it_fits_a_toy_problem(made):
    """The error in the next state is below a tenth of what saying "no change" makes."""
    _, model = made
    steps = data()
    state = model.encode(steps.obs).expand(model.members, -1, -1)
    after = model.step(state, steps.action.expand(model.members, -1, -1), noise=None).state.mean(0)
    error = (model.decode(after) - steps.next_obs).square().mean()
    assert error < 0.1 * (steps.obs - steps.next_obs).square().mean()


def test_saving_and_loading_give_the_same_step(made):
    make, model = made
    state, action, noise = inputs(model)
    other = make(seed=9)
    other.step(state, action, noise=noise)  # whatever it keeps from before must not linger
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    for a, b in zip(model.step(state, action, noise=noise),
                    other.step(state, action, noise=noise), strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_gradients_reach_state_and_action(model):
    state, action, noise = inputs(model)
    state.requires_grad_()
    action.requires_grad_()
    step = model.step(state, action, noise=noise)
    (step.state.sum() + step.reward.sum()).backward()
    for grad in (state.grad, action.grad):
        assert grad.isfinite().all() and (grad.abs().sum(-1) > 0).all()
    # a row's outcome depends on that row alone
    state.grad = None
    model.step(state, action, noise=noise).state[0, 1].sum().backward()
    assert state.grad[0, 1].any()
    state.grad[0, 1] = 0
    assert not state.grad.any()


@pytest.mark.parametrize("where", ["state", "action"])
def test_what_is_not_a_number_never_comes_out_as_one(model, where):
    state, action, noise = inputs(model)
    (state if where == "state" else action)[:, 1, 0] = math.nan
    step = model.step(state, action, noise=noise)
    assert not step.state[:, 1].isfinite().all(-1).any()
    assert step.state[:, [0, 2, 3, 4]].isfinite().all()


def test_a_plan_that_is_not_a_number_scores_minus_infinity(model):
    score = score_fn(
        model, model.encode(torch.zeros(OBS)), particles=model.members, horizon=3,
        generator=seeded(),
    )  # fmt: skip
    actions = torch.zeros(3, 3, ACTION)
    actions[1, 2, 0] = math.nan
    assert score(actions).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ((0, (0, 0, 1)), "state"),
        ((0, (1, 0, 0)), "state"),
        ((1, (0, 0, 1)), "action"),
        ((1, (1, 0, 0)), "action"),
    ],
)
def test_wrong_shapes_are_refused_by_name(model, change, name):
    parts = list(inputs(model))
    which, more = change
    shape = [size + extra for size, extra in zip(parts[which].shape, more, strict=True)]
    parts[which] = torch.zeros(shape)
    with pytest.raises(ValueError, match=name) as error:
        model.step(parts[0], parts[1], noise=None)
    assert "\n" not in str(error.value)
