"""The recurrent state-space model, against Kalman filters written with numpy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from mbrl.data import SequenceReplay
from mbrl.dynamics.recurrent_config import RecurrentConfig
from mbrl.imagination import rollout
from mbrl.rng import generator
from mbrl.types import Dynamics, Transition

A, PUSH, C = np.array([[0.95, 0.2], [-0.2, 0.95]]), np.array([[0.0], [0.3]]), np.array([[1.0, 0.0]])
MOVED, SEEN = 0.2, 0.5
"""An oscillator x' = A x + PUSH u + MOVED ε that is pushed, seen as C x + SEEN ε."""

SMALL = RecurrentConfig(
    latent=2, deterministic=6, width=7, hidden=(8,), batch=4, length=5, updates=3, free_nats=0.0,
    channels=2, layers=2, learn_termination=True,
)  # fmt: skip


def simulate(count, steps, rng):
    """Observations (N, T + 1, 1), actions (N, T, 1) and what is observed without noise."""
    x, seen, moves, true = rng.normal(size=(count, 2)), [], [], []
    for _ in range(steps + 1):
        true.append(x @ C.T)
        seen.append(true[-1] + SEEN * rng.normal(size=(count, 1)))
        moves.append(rng.uniform(-1, 1, (count, 1)))
        x = x @ A.T + moves[-1] @ PUSH.T + MOVED * rng.normal(size=(count, 2))
    return np.stack(seen, 1), np.stack(moves[:-1], 1), np.stack(true, 1)


def kalman(seen, moves, *, transition, push, sees, moved, noise, start, spread):
    """Filtered means (N, T + 1, S) and the log-likelihood (N,) of a linear-Gaussian system.

    moved, noise: covariances of the state's and the observation's noise; start, spread: mean and
    covariance of the first state.
    """
    mean, cov, means, total = np.tile(start, (len(seen), 1)), spread, [], 0.0
    for t in range(seen.shape[1]):
        if t:
            mean = mean @ transition.T + moves[:, t - 1] @ push.T
            cov = transition @ cov @ transition.T + moved
        width = sees @ cov @ sees.T + noise
        off = seen[:, t] - mean @ sees.T
        solved = off @ np.linalg.inv(width)
        total = total - 0.5 * (
            (off * solved).sum(-1) + np.linalg.slogdet(2 * math.pi * width).logabsdet
        )
        gain = cov @ sees.T @ np.linalg.inv(width)
        mean, cov = mean + off @ gain.T, cov - gain @ sees @ cov
        means.append(mean)
    return np.stack(means, 1), total


class Simulated:
    """Fresh sequences of the oscillator."""

    def __len__(self):
        return 10**6

    def sequences(self, batch, length, *, generator):
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        return transitions(*simulate(batch, length, rng)[:2])


def floats(array):
    return torch.as_tensor(array, dtype=torch.float32)


def transitions(seen, moves):
    nothing = torch.zeros(moves.shape[:2], dtype=torch.bool)
    return Transition(
        floats(seen[:, :-1]), floats(moves), torch.zeros(moves.shape[:2]), floats(seen[:, 1:]),
        nothing, nothing,
    )  # fmt: skip


def random_data(shape=(3,), count=2, steps=5, actions=1, seed=0):
    g = generator(seed)
    obs = torch.randn(count, steps + 1, *shape, generator=g)
    if len(shape) == 3:
        obs = torch.randint(256, obs.shape, generator=g, dtype=torch.uint8)
    action, reward = (
        torch.randn(count, steps, actions, generator=g),
        torch.randn(count, steps, generator=g),
    )
    ends = torch.zeros(count, steps, dtype=torch.bool)
    ends[0, -1] = True
    return Transition(obs[:, :-1], action, reward, obs[:, 1:], ends, torch.zeros_like(ends))


def replay(shape=(3,), steps=60, episode=12, seed=0):
    """Episodes of random numbers."""
    data = random_data(shape, 1, steps, seed=seed)
    found = SequenceReplay(
        steps, shape, 1, obs_dtype=torch.uint8 if len(shape) == 3 else torch.float32
    )
    truncated = (torch.arange(steps) + 1) % episode == 0
    found.append(Transition(*(part[0] for part in data))._replace(truncated=truncated))
    return found


def made(shape=(3,), seed=0, **settings):
    return dataclasses.replace(SMALL, **settings).make(shape, 1, generator=generator(seed))


@torch.no_grad()
def filtered(model, seen, moves):
    """States (N, T + 1, S), one observation after the other."""
    states = [model.encode(floats(seen[:, 0]))]
    for t in range(moves.shape[1]):
        before = {"state": states[-1], "action": floats(moves[:, t])}
        states.append(model.encode(floats(seen[:, t + 1]), **before))
    return torch.stack(states, 1)


def test_predictions_from_filtered_states_are_within_5_percent_of_the_kalman_filters():
    model = RecurrentConfig(
        latent=1, deterministic=16, width=0, hidden=(), learn_reward=False, noise=None,
        free_nats=0.0, min_std=0.01, batch=64, length=20, updates=300, learning_rate=1e-2,
    ).make((1,), 1, generator=generator(0))  # fmt: skip
    model.fit(Simulated(), generator=generator(1))
    seen, moves, true = simulate(500, 25, np.random.default_rng(2))
    means, _ = kalman(
        seen, moves, transition=A, push=PUSH, sees=C, moved=MOVED**2 * np.eye(2),
        noise=SEEN**2 * np.eye(1), start=np.zeros(2), spread=np.eye(2),
    )  # fmt: skip
    state, last = filtered(model, seen, moves)[:, 5:21], 16
    exact = means[:, 5:21]
    for ahead in range(1, 5):
        actions = moves[:, 4 + ahead : 4 + ahead + last]
        with torch.no_grad():
            rows, acted = (part.reshape(1, 500 * last, -1) for part in (state, floats(actions)))
            state = model.step(rows, acted, noise=None).state.view(500, last, -1)
            guess = model.decode(state).double().numpy()
        exact = exact @ A.T + actions @ PUSH.T
        target = true[:, 5 + ahead : 5 + ahead + last]
        # the best linear guess from the last observation and the actions since then
        since = [moves[:, 5 + k : 5 + k + last] for k in range(ahead)]
        known = np.concatenate([seen[:, 5:21], *since], -1).reshape(-1, 1 + ahead)
        fitted = np.linalg.lstsq(known, target.reshape(-1, 1), rcond=None)[0]
        memoryless = (known @ fitted).reshape(target.shape)
        error, best, without = (
            np.sqrt(np.square(found - target).mean()) for found in (guess, exact @ C.T, memoryless)
        )
        assert best < 0.9 * without  # so a model must remember
        assert error < 1.05 * best


class LinearCell(nn.Module):
    """A memory that is linear in the last one and in the input."""

    def __init__(self, inputs, memory, g):
        super().__init__()
        self.kept = nn.Parameter(0.3 * torch.randn(memory, memory, generator=g))
        self.taken = nn.Parameter(0.3 * torch.randn(memory, inputs, generator=g))

    def forward(self, x, h):
        return h @ self.kept.T + x @ self.taken.T


def linear_model(seed=0):
    """A model whose maps are all linear, in float64, and its parts as arrays."""
    model = RecurrentConfig(
        latent=2, deterministic=2, width=0, hidden=(), learn_reward=False, noise=None,
        free_nats=0.0, length=8, batch=64, updates=400, learning_rate=1e-2,
    ).make((1,), 1, generator=generator(seed))  # fmt: skip
    model.cell = LinearCell(3, 2, generator(seed, 1))
    stack = model.prior_net.stack
    with torch.no_grad():
        stack.weights[0][..., 2:] = 0  # the prior's std does not depend on the memory
        model.log_noise.fill_(-0.7)
    hold = torch.ones_like(stack.weights[0])
    hold[..., 2:] = 0
    stack.weights[0].register_hook(lambda grad: grad * hold)
    return model


def exact_log_likelihood(model, seen, moves):
    """Of the model's own marginal distribution of observations, by the Kalman filter.

    The state is x = [h, s]: h' = K h + T [s, u], s' = W h' + b + std ε.
    """
    parts = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    kept, taken = parts["cell.kept"], parts["cell.taken"]
    weight, bias = parts["prior_net.stack.weights.0"][0].T, parts["prior_net.stack.biases.0"][0, 0]
    decode, shift = parts["decoder.stack.weights.0"][0].T, parts["decoder.stack.biases.0"][0, 0]
    std = np.log1p(np.exp(bias[2:])) + model.config.min_std
    top = np.hstack((kept, taken[:, :2]))  # h' of x
    prior = weight[:2]
    transition = np.vstack((top, prior @ top))
    push = np.vstack((taken[:, 2:], prior @ taken[:, 2:]))
    # the bias of s enters through a state that is always 1
    transition = np.block([[transition, np.r_[0, 0, bias[:2]][:, None]], [np.zeros(4), 1.0]])
    push = np.vstack((push, [[0.0]]))
    moved = np.diag([0, 0, *std**2, 0])
    return kalman(
        seen, moves, transition=transition, push=push, sees=np.hstack((decode, shift[None])),
        moved=moved, noise=np.exp(2 * parts["log_noise"]) * np.eye(1),
        start=np.r_[0, 0, bias[:2], 1], spread=moved,
    )[1]  # fmt: skip


def bounds(model, seen, moves, samples=50):
    """Means of the bound over samples of s, (N,)."""
    data, g = transitions(seen, moves), generator(3)
    model, data = model.double(), Transition(*(part.double() for part in data))
    with torch.no_grad():
        shape = samples, len(seen), seen.shape[1], model.config.latent
        noise = torch.randn(shape, generator=g).double()
        found = torch.stack([model.bound(data, each).elbo() for each in noise])
    return found.mean(0).numpy(), found.std(0).numpy() / math.sqrt(samples)


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_below_the_exact_log_likelihood_of_each_sequence(seed):
    seen, moves, _ = simulate(50, 8, np.random.default_rng(seed))
    model = linear_model(seed)
    elbo, error = bounds(model, seen, moves)
    exact = exact_log_likelihood(model, seen, moves)
    assert (elbo < exact + 4 * error).all()
    assert (exact - elbo).mean() > 0.5  # an untrained posterior is not that of the model


def test_a_fit_brings_the_bound_close_to_the_exact_log_likelihood_but_not_above():
    seen, moves, _ = simulate(200, 8, np.random.default_rng(4))
    model = linear_model()
    before = exact_log_likelihood(model, seen, moves).mean()
    model.fit(Simulated(), generator=generator(5))
    for scaling in (model.scaling.normaliser, model.action_scaling):
        seen_or_moves = seen if scaling is model.scaling.normaliser else moves
        seen_or_moves -= float(scaling.mean)
        seen_or_moves /= float(scaling.std)
        scaling.mean.zero_()
        scaling.std.fill_(1.0)
    elbo, error = bounds(model, seen, moves)
    exact = exact_log_likelihood(model, seen, moves)
    gap = (exact - elbo).mean() / seen.shape[1]
    assert before < elbo.mean() < exact.mean()
    assert 0 < gap < 0.1  # nats of each observation
    assert (elbo < exact + 4 * error).all()


def test_the_bound_filters_as_encode_does():
    model, data = made(), random_data()
    found = model.bound(data, torch.zeros(2, 6, 2))
    seen = torch.cat((data.obs, data.next_obs[:, -1:]), 1)
    states = filtered(model, seen, data.action)
    torch.testing.assert_close(states[..., 6:], found.posterior.mean)
    torch.testing.assert_close(
        model.prior_net(states[..., :6]).chunk(2, -1)[0], found.prior.mean, rtol=1e-5, atol=1e-6
    )


def test_images_are_filtered_one_by_one_as_in_a_batch_and_decoded_in_their_own_layout():
    model, data = made((12, 10, 3)), random_data((12, 10, 3))
    states = [model.encode(data.obs[1, 0])]
    for t in range(4):
        states.append(model.encode(data.obs[1, t + 1], state=states[-1], action=data.action[1, t]))
    found = model.bound(data, torch.zeros(2, 6, 2))
    torch.testing.assert_close(torch.stack(states)[:, 6:], found.posterior.mean[1, :5])
    assert model.decode(torch.stack(states)).shape == (5, 12, 10, 3)


def test_a_decoder_learns_what_stands_where_in_an_image():
    data = replay((8, 8, 3))
    data._separate["obs"][:] = data._separate["next_obs"][:] = torch.arange(192).view(8, 8, 3) % 200
    model = made((8, 8, 3), updates=150, learning_rate=1e-2)
    model.fit(data, generator=generator(0))
    image = data.rows(slice(0, 1)).obs
    off = model.decode(model.encode(image)) - image / 255
    assert float(off.detach().abs().mean()) < 0.04  # their std is 0.22


def test_a_decoder_begins_at_the_mean_image_of_the_first_fit():
    data, model = replay((8, 8, 3)), made((8, 8, 3), updates=1, learning_rate=1e-9)
    state = torch.randn(1, 8, generator=generator(3))
    before = model.decode(state)
    model.fit(data, generator=generator(0))
    drawn = data.sequences(1024 // 5, 5, generator=generator(0)).obs
    torch.testing.assert_close(model.decode(state) - before, drawn.float().mean((0, 1))[None] / 255)
    kept = model.background.clone()
    model.fit(data, generator=generator(9))
    assert torch.equal(model.background, kept)


def test_every_parameter_learns_and_gradients_reach_actions_and_first_states():
    model, data = made(noise=None, reward_noise=None), random_data()
    loss, _ = model.loss(data, generator=generator(0))
    for parameter, grad in zip(
        model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True
    ):
        assert bool((grad != 0).any()), parameter.shape
    state, actions = model.encode(data.obs[:, 0]).detach().requires_grad_(), data.action.clone()
    imagined = rollout(
        model, state, actions.requires_grad_(), particles=2, gradients=True, generator=generator(0)
    )
    for grad in torch.autograd.grad(imagined.reward[..., -1].sum(), (state, actions)):
        assert bool((grad != 0).any(-1).all())


def gradient(model, data):
    loss, _ = model.loss(data, generator=generator(0))
    wanted = [model.prior_net.stack.weights[0], model.posterior_net.weight]
    return torch.autograd.grad(loss, wanted)


def test_balancing_divides_the_gradient_of_the_divergence():
    data = random_data()
    likelihood = gradient(made(beta=0.0), data)
    whole = [g - own for g, own in zip(gradient(made(), data), likelihood, strict=True)]
    parts = [g - own for g, own in zip(gradient(made(balance=0.8), data), likelihood, strict=True)]
    torch.testing.assert_close(parts[0], 0.8 * whole[0])
    # the memory's gradient through q is divided too, so only the posterior's own layer is compared
    torch.testing.assert_close(parts[1], _through_posterior(data), rtol=1e-4, atol=1e-6)


def _through_posterior(data):
    """What the posterior's last layer gets of KL balancing, from its two terms apart."""
    model = made()
    shape = (*data.reward.shape[:1], data.reward.shape[1] + 1, 2)
    found = model.bound(data, torch.randn(shape, generator=generator(0)))
    q, p = found.posterior, found.prior
    q0, p0 = (type(each)(each.mean.detach(), each.log_std.detach()) for each in (q, p))
    cost = 0.8 * q0.kl(p).mean() + 0.2 * q.kl(p0).mean()
    return torch.autograd.grad(cost, model.posterior_net.weight)[0]


def test_free_nats_leave_the_gradient_of_the_likelihood_alone():
    data = random_data()
    free, alone = gradient(made(free_nats=50.0), data), gradient(made(beta=0.0), data)
    for one, other in zip(free, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_that_is_restored_learns_on_as_if_it_had_never_stopped():
    one, other, data = made(), made(seed=1), replay()
    one.fit(data, generator=generator(0))
    other.fit(data, generator=generator(4))
    other.load_state_dict(one.state_dict())
    fresh = made(seed=2)
    fresh.load_state_dict(one.state_dict())
    seen = data.all().obs
    assert torch.equal(fresh.encode(seen), one.encode(seen))
    said = [model.fit(data, generator=generator(1)) for model in (one, other, fresh)]
    assert said[0] == said[1] == said[2]
    for parameters in zip(*(m.parameters() for m in (one, other, fresh)), strict=True):
        assert torch.equal(parameters[0], parameters[1])
        assert torch.equal(parameters[0], parameters[2])


def test_a_learned_end_is_predicted():
    g = generator(0)
    obs = torch.randn(400, 3, generator=g)
    following = torch.randn(400, 3, generator=g)
    found = SequenceReplay(400, 3, 1)
    action = torch.rand(400, 1, generator=g) - 0.5
    found.append(
        Transition(obs, action, action[:, 0], following, action[:, 0] > 0, torch.ones(400) > 0)
    )
    model = made(length=1, batch=64, updates=200, learning_rate=1e-2)
    model.fit(found, generator=g)
    step = model.step(model.encode(obs)[None], action[None], noise=None)
    assert float((step.terminated[0] == (action[:, 0] > 0)).float().mean()) > 0.97
    assert float((step.reward[0] - action[:, 0]).detach().abs().mean()) < 0.05


def test_it_is_a_model_of_one_member():
    model = made()
    assert isinstance(model, Dynamics) and model.members == 1 and model.noise_shape == (2,)


def test_what_does_not_fit_is_refused_in_one_line():
    model, images = made(), made((12, 10, 3))
    for call, said in (
        (lambda: model.fit(replay(episode=4), generator=generator(0)), "no episode of 5 steps"),
        (lambda: model.fit(replay().all(), generator=generator(0)), "want data with sequences"),
        (lambda: model.fit(replay(), updates=0, generator=generator(0)), "updates: want 1 or more"),
        (lambda: model.fit(replay((4,)), generator=generator(0)), r"want shape \(\*lead, 3\)"),
        (lambda: model.encode(torch.zeros(2, 4)), r"want shape \(\*lead, 3\), got \(2, 4\)"),
        (
            lambda: model.encode(torch.tensor([0.0, math.nan, 0.0])),
            "observations: hold a number that is not finite",
        ),
        (
            lambda: model.encode(torch.zeros(2, 3), state=torch.zeros(2, 8)),
            r"state: want \(2, 8\) and an action, got \(2, 8\) without one",
        ),
        (
            lambda: model.step(torch.zeros(1, 2, 5), torch.zeros(1, 2, 1), noise=None),
            r"want \(1, B, 8\) and \(1, B, 1\), got \(1, 2, 5\)",
        ),
        (lambda: images.encode(torch.zeros(12, 10, 3)), "images: want uint8, got torch.float32"),
        (
            lambda: images.encode(torch.zeros(10, 12, 3, dtype=torch.uint8)),
            r"want shape \(\*lead, 12, 10, 3\)",
        ),
        (
            lambda: images.load_state_dict(made((12, 12, 3)).state_dict()),
            r"model: want one of observations of shape \(12, 10, 3\), got \(12, 12, 3\)",
        ),
        (lambda: made((12, 3, 3)), "layers: 2 halvings need images of at least 4 x 4"),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            call()
        assert "\n" not in str(raised.value)
