"""The contract of models. A new model adds its maker to `MAKERS`."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import envs
from envs.worlds import garnet
from mbrl.dynamics import (
    Ensemble,
    EnsembleConfig,
    FiniteModel,
    NeuralConfig,
    NeuralDynamics,
    Simulator,
    recalibrate,
)
from mbrl.dynamics.joined import Joined
from mbrl.dynamics.latent_configs import LocallyLinearConfig
from mbrl.dynamics.locally_linear import LocallyLinear
from mbrl.dynamics.recurrent_config import RecurrentConfig
from mbrl.dynamics.stored_paths import StoredPaths
from mbrl.dynamics.table import MODELS
from mbrl.imagination import recalibrate_ahead, rollout, score_fn
from mbrl.types import Dynamics, Fittable, Gaussian, GaussianDynamics, Step, Transition
from tests.models import LinearGaussian, Remembering
from tests.proof import bayesian_linear

OBS, ACTION = 3, 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(count=300, seed=0):
    """Steps of a damped point that is pushed, with small noise; it terminates far right."""
    g = seeded(seed)
    obs = torch.randn(count, OBS, generator=g)
    action = torch.randn(count, ACTION, generator=g)
    push = torch.cat((action, action.sum(-1, keepdim=True)), -1)
    after = 0.9 * obs + 0.3 * push + 0.02 * torch.randn(count, OBS, generator=g)
    over = torch.zeros(count) > 0
    return Transition(obs, action, -after.square().sum(-1), after, after[:, 0] > 1, over)


@dataclass
class Case:
    """A model, and the sizes and inputs that the contract tests use."""

    model: Any
    state: Any  # state(lead, generator) -> states (*lead, S)
    action: Any  # action(lead, generator) -> actions (*lead, A)
    again: Any = None  # makes another model, to load the state of this one


def ensemble(**settings):
    def make(seed=0):
        config = EnsembleConfig(members=4, hidden=(24,), epochs=40, batch=64, **settings)
        return Ensemble(OBS, ACTION, config, generator=seeded(seed))

    def case():
        model = make()
        model.fit(data(), generator=seeded(1))
        return Case(model, normal(OBS), normal(ACTION), again=make)

    return case


def recalibrated(kind):
    def case():
        inner = ensemble(learn_reward=True, learn_termination=True)().model
        model = recalibrate(inner, data(200, seed=5), kind, trained_on=data())
        return Case(model, normal(OBS), normal(ACTION))

    return case


def recalibrated_ahead():
    inner = ensemble(learn_reward=True, learn_termination=True)().model
    pieces = data(200, seed=5)
    obs = torch.stack((pieces.obs, pieces.next_obs), 1)
    model = recalibrate_ahead(
        inner, obs, pieces.action.unsqueeze(1), particles=8, generator=seeded()
    )
    return Case(model, normal(OBS), normal(ACTION))


def bayesian():
    def make(seed=0):
        config = bayesian_linear.Config(members=4)
        return NeuralDynamics(OBS, ACTION, config, generator=seeded(seed))

    model = make()
    model.fit(data(), generator=seeded(1))
    return Case(model, normal(OBS), normal(ACTION), again=make)


SMALL = {"hidden": (24,), "epochs": 30, "batch": 64, "learning_rate": 5e-3}
QUICK = {
    "swag": {"swag_epochs": 5},
    "sgmcmc": {"cycle_steps": 50, "cycle_samples": 5},
    "langevin": {"tuning_steps": 50, "samples": 10, "networks": 2},
    "gp": {"points": 120, "frequencies": 64, "iterations": 10},
}


def sampled(kind):
    def make(seed=0):
        settings = (SMALL if issubclass(MODELS[kind], NeuralConfig) else {}) | QUICK.get(kind, {})
        config = MODELS[kind](members=4, learn_reward=True, learn_termination=True, **settings)
        return config.make(OBS, ACTION, generator=seeded(seed))

    def case():
        model = make()
        model.fit(data(), generator=seeded(1))
        return Case(model, normal(OBS), normal(ACTION), again=make)

    return case


def normal(size, dtype=torch.float32):
    return lambda lead, g: torch.randn(*lead, size, generator=g, dtype=dtype)


def index(count):
    return lambda lead, g: torch.randint(count, (*lead, 1), generator=g).float()


def simulator(name, **settings):
    def case():
        task = envs.TASKS[name]
        sim = Simulator(task, **settings)
        rng = np.random.default_rng(0)
        starts = torch.stack([sim.state(*task.initial(rng)) for _ in range(50)])

        def state(lead, g):
            return starts[torch.randint(len(starts), lead, generator=g)]

        def action(lead, g):
            return 2 * torch.rand(*lead, sim.model.nu, generator=g) - 1

        return Case(sim, state, action)

    return case


def finite(members):
    def case():
        worlds = [garnet(6, 3, 3, rng=np.random.default_rng(s), ends=1) for s in range(members)]
        return Case(FiniteModel.of(*worlds), index(6), index(3))

    return case


def linear_gaussian():
    model = LinearGaussian([[1.0, 0.1], [-0.2, 0.9]], [[0.0], [0.3]], [0.05, 0.1])
    double = torch.float64
    return Case(model, normal(2, double), normal(1, double))


def pc3():
    config = LocallyLinearConfig(hidden=(16,), transition_hidden=(8,), epochs=5)
    model = LocallyLinear((OBS,), ACTION, config, generator=seeded())
    model.fit(data(), generator=seeded(1))
    model.set_goal(torch.zeros(OBS))
    return Case(model, normal(2, torch.float64), normal(ACTION, torch.float64))


def stored_paths():
    inner = pc3().model
    codes = inner.encode(torch.randn(20, OBS, generator=seeded(2))).detach()
    model = StoredPaths(inner, codes, codes + 1)
    model.set_goal(codes[0])
    return Case(model, normal(2, torch.float64), normal(ACTION, torch.float64))


def joined():
    model = Joined([pc3().model, pc3().model])
    model.encode(torch.zeros(OBS))
    return Case(model, normal(4, torch.float64), normal(ACTION, torch.float64))


def remembering():
    return Case(Remembering(), normal(2), normal(1))


def recurrent():
    config = RecurrentConfig(
        latent=3, deterministic=8, width=8, hidden=(8,), learn_termination=True
    )

    def make(seed=0):
        return config.make((OBS,), ACTION, generator=seeded(seed))

    return Case(make(), normal(11), normal(ACTION), again=make)


SAMPLED = [kind for kind in MODELS if kind not in ("ensemble", "normed-ensemble")]

CASES = {
    **{kind: sampled(kind) for kind in SAMPLED},
    "probabilistic ensemble": ensemble(),
    "deterministic ensemble": ensemble(probabilistic=False),
    "elites": ensemble(elites=2),
    "learned reward and termination": ensemble(learn_reward=True, learn_termination=True),
    "recalibrated, by temperature": recalibrated("temperature"),
    "recalibrated, isotonic": recalibrated("isotonic"),
    "recalibrated, logistic": recalibrated("logistic"),
    "recalibrated ahead": recalibrated_ahead,
    "Bayesian net": bayesian,
    "simulator": simulator("cartpole-swingup"),
    "randomised simulators with gusts": simulator(
        "cartpole-swingup-noisy", members=2, rng=np.random.default_rng(0)
    ),
    "finite MDP": finite(1),
    "finite MDPs": finite(3),
    "linear-Gaussian": linear_gaussian,
    "latent with memory": remembering,
    "recurrent": recurrent,
    "PC3": pc3,
    "stored paths": stored_paths,
    "joined": joined,
}
"""name -> a function that makes the `Case` of a model."""


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    return CASES[request.param]()


def those(*names):
    """Marks a test that runs only on the models with these properties."""
    chosen = [name for name in CASES if any(part in name for part in names)]
    return pytest.mark.parametrize("case", chosen, indirect=True)


NEURAL = ("ensemble", "elites", "learned", "Bayesian")


@pytest.fixture
def model(case):
    return case.model


def inputs(case, rows=5, seed=2):
    """State, action and noise (E, B, ...)."""
    g, model = seeded(seed), case.model
    lead = (model.members, rows)
    state, action = case.state(lead, g), case.action(lead, g)
    noise = torch.randn(*lead, *model.noise_shape, generator=g, dtype=state.dtype)
    return state, action, noise


def test_every_model_satisfies_the_protocol(model):
    assert isinstance(model, Dynamics)
    assert isinstance(model.members, int) and model.members >= 1
    assert all(isinstance(size, int) and size >= 0 for size in model.noise_shape)


@pytest.mark.parametrize("rows", [1, 7])
def test_results_have_the_shapes_and_dtypes_of_the_protocol(case, model, rows):
    state, action, noise = inputs(case, rows)
    step = model.step(state, action, noise=noise)
    assert isinstance(step, Step)
    assert step.state.shape == state.shape and step.state.dtype == state.dtype
    assert step.reward.shape == step.terminated.shape == (model.members, rows)
    assert step.reward.is_floating_point() and step.terminated.dtype == torch.bool
    assert step.state.isfinite().all() and step.reward.isfinite().all()
    assert model.step(state, action, noise=None).state.shape == state.shape


@those(*NEURAL, "recalibrated", "finite", "linear")
def test_encoding_takes_any_leading_dimensions_and_decoding_undoes_it(case, model):
    for lead in ((), (2,), (2, 3)):
        obs = case.state(lead, seeded())
        state = model.encode(obs)
        assert state.shape[:-1] == lead
        torch.testing.assert_close(model.decode(state), obs, rtol=1e-5, atol=1e-5)


@those(*NEURAL, "recalibrated", "finite", "linear")
def test_a_model_without_memory_ignores_the_previous_state(case, model):
    g = seeded()
    obs, before, action = case.state((4,), g), case.state((4,), g), case.action((4,), g)
    assert torch.equal(model.encode(obs, state=before, action=action), model.encode(obs))


@those("memory")
def test_a_model_with_memory_encodes_by_the_previous_state(case, model):
    """The place is observed at 1, 1.5 and 2.5; the speed is the last difference."""
    state = model.encode(torch.tensor([1.0]))
    assert state.tolist() == [1.0, 0.0]
    for place, speed in ((1.5, 0.5), (2.5, 1.0)):
        state = model.encode(torch.tensor([place]), state=state, action=torch.zeros(1))
        assert state.tolist() == [place, speed]


@those("simulator")
def test_a_simulator_decodes_its_state_but_does_not_encode(case, model):
    state = case.state((2, 3), seeded())
    obs = model.decode(state)
    assert obs.shape[:-1] == (2, 3)
    with pytest.raises(ValueError, match="does not hold"):
        model.encode(obs)


@those("memory")
def test_a_model_without_decode_is_used_for_rollouts_and_planning(case, model):
    """The reward is minus the distance; beyond 3 it terminates: from 2.5 by one step of 1."""
    with pytest.raises(NotImplementedError):
        model.decode(torch.zeros(2))
    state = torch.tensor([2.5, 1.0])
    score = score_fn(model, state, particles=1, horizon=4, generator=seeded())
    assert score(torch.zeros(1, 4, 1)).item() == pytest.approx(-3.5, abs=0.1)
    imagined = rollout(
        model, state, lambda state, *, generator, explore: -state[..., :1], horizon=4, particles=1,
        sample=False, generator=seeded(),
    )  # fmt: skip
    assert imagined.terminated[0, 0].tolist() == [True, False, False, False]
    steps = imagined.transitions()
    assert steps.obs.tolist() == [[2.5, 1.0]] and steps.action.tolist() == [[-2.5]]
    assert steps.next_obs.tolist() == [[3.25, 0.75]]


def test_the_same_noise_gives_the_same_step_and_arguments_are_not_changed(case, model):
    state, action, noise = inputs(case)
    kept = [part.clone() for part in (state, action, noise)]
    global_state = torch.get_rng_state()
    first, second = (model.step(state, action, noise=noise) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept, (state, action, noise), strict=True))
    assert torch.equal(global_state, torch.get_rng_state())


@those(*NEURAL, "temperature", "simulator", "linear", "memory")
def test_a_step_without_noise_is_the_mean(case, model):
    """For models of integer states, which have no mean, it is the most likely state."""
    state, action, noise = inputs(case)
    mean = model.step(state, action, noise=None)
    nought = model.step(state, action, noise=0 * noise)
    torch.testing.assert_close(mean.state, nought.state)
    torch.testing.assert_close(mean.reward, nought.reward)


@those(*NEURAL, "gp", "temperature", "linear")
def test_steps_are_drawn_from_the_predicted_gaussian(case, model):
    assert isinstance(model, GaussianDynamics)
    state, action, noise = inputs(case)
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


def test_rows_do_not_depend_on_one_another(case, model):
    state, action, noise = inputs(case, 6)
    whole = model.step(state, action, noise=noise)
    part = model.step(state[:, 2:4], action[:, 2:4], noise=noise[:, 2:4])
    torch.testing.assert_close(part.state, whole.state[:, 2:4], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.reward, whole.reward[:, 2:4], rtol=1e-5, atol=1e-5)
    assert torch.equal(part.terminated, whole.terminated[:, 2:4])


@those(*NEURAL, "gp")
def test_a_fitted_model_predicts_a_toy_problem(case, model):
    """The error in the next state is below a tenth of that of predicting no change."""
    assert isinstance(model, Fittable)
    steps = data()
    state = model.encode(steps.obs).expand(model.members, -1, -1)
    after = model.step(state, steps.action.expand(model.members, -1, -1), noise=None).state.mean(0)
    error = (model.decode(after) - steps.next_obs).square().mean()
    assert error < 0.1 * (steps.obs - steps.next_obs).square().mean()


@those(*NEURAL, "gp")
def test_saving_and_loading_give_the_same_step(case, model):
    state, action, noise = inputs(case)
    other = case.again(seed=9)
    other.step(state, action, noise=noise)  # its state before loading must have no effect
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    for a, b in zip(model.step(state, action, noise=noise),
                    other.step(state, action, noise=noise), strict=True):  # fmt: skip
        assert torch.equal(a, b)


@those(*NEURAL, "gp", "recalibrated", "linear", "memory")
def test_gradients_reach_state_and_action(case, model):
    state, action, noise = inputs(case)
    state.requires_grad_()
    action.requires_grad_()
    step = model.step(state, action, noise=noise)
    (step.state.sum() + step.reward.sum()).backward()
    for grad in (state.grad, action.grad):
        assert grad.isfinite().all() and (grad.abs().sum(-1) > 0).all()
    # the outcome of a row depends only on that row
    state.grad = None
    model.step(state, action, noise=noise).state[0, 1].sum().backward()
    assert state.grad[0, 1].any()
    state.grad[0, 1] = 0
    assert not state.grad.any()


@pytest.mark.parametrize("where", ["state", "action"])
def test_nan_input_gives_no_finite_state(case, model, where):
    state, action, noise = inputs(case)
    (state if where == "state" else action)[:, 1, -1] = math.nan
    step = model.step(state, action, noise=noise)
    assert not step.state[:, 1].isfinite().all(-1).any()
    assert step.state[:, [0, 2, 3, 4]].isfinite().all()


def test_a_plan_with_nan_scores_minus_infinity(case, model):
    score = score_fn(
        model, case.state((), seeded()), particles=model.members, horizon=3, generator=seeded()
    )
    actions = case.action((3, 3), seeded())
    actions[1, 0, 0] = math.nan
    assert score(actions).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("which", ["state", "action"])
@pytest.mark.parametrize("more", [(0, 0, 1), (1, 0, 0)])
def test_wrong_shapes_are_refused_by_name(case, model, which, more):
    parts = dict(zip(("state", "action"), inputs(case), strict=False))
    shape = [size + extra for size, extra in zip(parts[which].shape, more, strict=True)]
    parts[which] = torch.zeros(shape, dtype=parts[which].dtype)
    with pytest.raises(ValueError, match=which) as error:
        model.step(parts["state"], parts["action"], noise=None)
    assert "\n" not in str(error.value)


@those("linear")
@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "distribution"])
def test_particles_have_the_moments_that_the_kalman_filter_predicts(case, model, propagation):
    """Means and variances of 20,000 particles over 6 steps, within four standard errors."""
    count, g = 20_000, seeded(3)
    start, actions = torch.tensor([1.0, -0.5]).double(), case.action((6,), g)
    means, covariances = model.forecast(start, actions)
    imagined = rollout(
        model, start, actions[None], particles=count, propagation=propagation, generator=g
    )
    for t in range(6):
        after = imagined.state[:, 0, t + 1]
        std = covariances[t].diagonal().sqrt()
        assert ((after.mean(0) - means[t]).abs() < 4 * std / math.sqrt(count)).all()
        apart = (after.T.cov() - covariances[t]).abs()
        assert (apart < 4 * torch.outer(std, std) * math.sqrt(2 / count)).all()
    expected = rollout(
        model, start, actions[None], particles=1, propagation="expectation", generator=g
    )
    torch.testing.assert_close(expected.state[0, 0, 1:], means)
