"""Locally linear latent models: their losses, linear systems they recover, and plans with them."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from mbrl import check_model
from mbrl.distributions import DiagonalGaussian
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.latent_configs import LocallyLinearConfig
from mbrl.dynamics.locally_linear import LocallyLinear, log_probs
from mbrl.dynamics.quadratic import SmoothQuadratic
from mbrl.encoders.losses import curvature, info_nce, kl_to_diagonal
from mbrl.encoders.sparse import SparseImages
from mbrl.imagination import score_fn
from mbrl.types import Dynamics, Fittable, SmoothDynamics, Transition
from planners import CEM, ILQR, MPPI, lqr

DOUBLE = torch.float64
TURN = torch.tensor([[0.9, 0.2], [-0.2, 0.9]], dtype=DOUBLE)  # eigenvalues 0.9 ± 0.2 i
PUSH = torch.tensor([[0.0], [0.3]], dtype=DOUBLE)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=DOUBLE)


LOOK = normal(2, 6, seed=9)
"""Observations are six linear functions of a state."""


# Losses.


def test_infonce_of_scores_that_say_nothing_is_log_b_and_of_exact_ones_is_0():
    assert info_nce(torch.full((8, 8), 3.0)).tolist() == pytest.approx([math.log(8)] * 8)
    assert info_nce(1e4 * torch.eye(8)).tolist() == [0.0] * 8


def test_infonce_by_hand():
    """Row 0: -log(e / (e + 1)); row 1: -log(1 / (1 + e²))."""
    found = info_nce(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))])


def test_infonce_bounds_the_mutual_information_of_gaussians():
    """Correlation ρ: I = -½ log(1 - ρ²) = 0.83. With the exact critic and 512 pairs it is tight."""
    rho, rows = 0.9, 512
    x = normal(rows)
    y = rho * x + math.sqrt(1 - rho**2) * normal(rows, seed=1)
    std = math.log(math.sqrt(1 - rho**2)) * torch.ones(rows, 1, dtype=DOUBLE)
    scores = log_probs(DiagonalGaussian(rho * x.unsqueeze(1), std), y.unsqueeze(1))
    bound = math.log(rows) - info_nce(scores).mean()
    assert float(bound) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.1)


def test_scores_are_the_log_densities_of_all_pairs():
    mean, log_std, value = normal(5, 3) + 20, normal(5, 3, seed=1), normal(7, 3, seed=2) + 20
    each = [
        MultivariateNormal(m, torch.diag(s.exp() ** 2)) for m, s in zip(mean, log_std, strict=True)
    ]
    wanted = torch.stack([one.log_prob(value) for one in each], 1)
    torch.testing.assert_close(log_probs(DiagonalGaussian(mean, log_std), value), wanted)


def test_curvature_is_0_where_the_transition_is_linear_and_by_hand_where_it_is_not():
    state, action = normal(6, 2), normal(6, 1, seed=1)
    small = 0.1 * normal(6, 2, seed=2), 0.1 * normal(6, 1, seed=3)
    linear = curvature(lambda z, u: z @ TURN.T + u @ PUSH.T + 1, state, action, *small)
    assert linear.max() < 1e-28
    # z² + u: (z + ε)² - z² - 2 z ε = ε², squared and summed over two dimensions
    found = curvature(lambda z, u: z.square() + u, state, action, *small)
    torch.testing.assert_close(found, small[0].pow(4).sum(-1))


def test_the_divergence_from_a_full_covariance_is_that_of_torch():
    root, mean, other = normal(4, 3, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    covariance, log_std = root @ root.mT, 0.3 * normal(4, 3, seed=3)
    wanted = kl_divergence(
        MultivariateNormal(mean, covariance),
        MultivariateNormal(other, torch.diag_embed((2 * log_std).exp())),
    )
    torch.testing.assert_close(kl_to_diagonal(mean, covariance, other, log_std), wanted)


def test_losses_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"scores: want \(B, B\), got \(3, 2\)"):
        info_nce(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="action_change"):
        curvature(
            lambda z, u: z,
            torch.zeros(3, 2),
            torch.zeros(3, 1),
            torch.zeros(3, 2),
            torch.zeros(3, 2),
        )
    with pytest.raises(ValueError, match="covariance"):
        kl_to_diagonal(*[torch.zeros(3, 2)] * 4)


# Images.


def test_products_with_sparse_images_are_those_with_all_their_pixels():
    draw = np.random.default_rng(0)
    images = np.repeat(draw.integers(0, 256, (1, 64), dtype=np.uint8), 9, 0)
    images[2, [0, 5, 63]] += 7
    images[4, 1] += 1
    images = torch.as_tensor(images)
    sparse, weight = SparseImages.of(images, DOUBLE), normal(64, 5).requires_grad_()
    assert sparse is not None and sparse.index.shape == (9, 3)
    rows = torch.tensor([2, 2, 0, 4])
    found, wanted = sparse.product(rows, weight), images[rows].to(DOUBLE) / 255 @ weight
    torch.testing.assert_close(found, wanted)
    (one,), (other,) = (torch.autograd.grad(x.square().sum(), weight) for x in (found, wanted))
    torch.testing.assert_close(one, other)
    assert (
        SparseImages.of(torch.as_tensor(draw.integers(0, 256, (9, 64), dtype=np.uint8)), DOUBLE)
        is None
    )


# Linear systems.


def system(count=1000, seed=0):
    """z' = A z + B u + small noise, seen as six linear functions of z."""
    z, u = normal(count, 2, seed=seed), normal(count, 1, seed=seed + 1)
    after = z @ TURN.T + u @ PUSH.T + 0.01 * normal(count, 2, seed=seed + 2)
    over = torch.zeros(count) > 0
    return Transition(z @ LOOK, u, torch.zeros(count), after @ LOOK, over, over)


LINEAR: dict[Any, Any] = {
    "e2c": {"epochs": 200, "learning_rate": 2e-2},
    "pc3": {"epochs": 80, "learning_rate": 1e-2},
}


@functools.cache
def linear(loss: Any):
    config = LocallyLinearConfig(
        loss=loss, hidden=(), transition_hidden=(), curvature=0.0, weight_decay=0.0,
        last_learning_rate=0.0, batch=250, **LINEAR[loss],
    )  # fmt: skip
    model = LocallyLinear((6,), 1, config, generator=seeded())
    model.fit(system(), generator=seeded(1))
    return model.requires_grad_(False)


@pytest.mark.parametrize("loss", ["e2c", "pc3"])
def test_eigenvalues_of_a_linear_system_are_recovered_in_whatever_basis_codes_are(loss):
    model, push = linear(loss), torch.zeros(1)
    slope = torch.func.jacrev(lambda z: model.transition(z, push).mean)(normal(2))
    found = torch.linalg.eigvals(slope)
    found = found[found.imag.argsort()]
    assert found.real.tolist() == pytest.approx([0.9, 0.9], abs=0.01)
    assert found.imag.tolist() == pytest.approx([-0.2, 0.2], abs=0.01)


@pytest.mark.parametrize("loss", ["e2c", "pc3"])
def test_codes_of_a_linear_system_five_steps_ahead_are_those_of_the_observations_then(loss):
    """The error is below 3 % of the spread of codes."""
    model, z = linear(loss), normal(100, 2, seed=20)
    code = model.encode(z @ LOOK)
    for t in range(5):
        u = normal(100, 1, seed=30 + t)
        z, code = z @ TURN.T + u @ PUSH.T, model.transition(code, u).mean
    wanted = model.encode(z @ LOOK)
    assert (code - wanted).square().mean().sqrt() < 0.03 * wanted.square().mean().sqrt()


def test_decoded_predictions_are_the_next_observations():
    """The error is below 5 % of the spread of observations."""
    model, z, u = linear("e2c"), normal(100, 2, seed=20), normal(100, 1, seed=21)
    after = (z @ TURN.T + u @ PUSH.T) @ LOOK
    error = model.decode(model.transition(model.encode(z @ LOOK), u).mean) - after
    assert error.square().mean().sqrt() < 0.05 * after.square().mean().sqrt()


# Plans.


def aimed(**changes):
    """A model of a linear system by hand: z' = TURN z + PUSH u, codes are observations."""
    settings: dict[str, Any] = {
        "hidden": (), "transition_hidden": (), "state_cost": 2.0, "action_cost": 0.1,
    }  # fmt: skip
    config = LocallyLinearConfig(**settings | changes)
    model = LocallyLinear((2,), 1, config, generator=seeded())
    with torch.no_grad():
        for part in model.parameters():
            part.zero_()
        model.encoder.stack.weights[0].copy_(torch.eye(2))
        model.trunk.stack.weights[0][0, :, :2] = torch.cat((TURN.T - torch.eye(2), PUSH.T))
    model.set_goal(torch.tensor([0.5, -0.2], dtype=DOUBLE))
    return model.requires_grad_(False)


def riccati(model, start, horizon):
    """The optimal actions (H, 1), from the code's distance to a goal that drifts."""
    fx, fu, goal = TURN.numpy(), PUSH.numpy(), model.goal.numpy()
    drift = fx @ goal - goal
    q, r = 2 * model.config.state_cost * np.eye(2), 2 * model.config.action_cost * np.eye(1)
    law = lqr(fx, fu, q, r, constant=drift, horizon=horizon)
    x, actions = start - goal, []
    for t in range(horizon):
        actions.append(law.gain[t] @ x + law.offset[t])
        x = fx @ x + fu @ actions[-1] + drift
    return np.array(actions)


def means(model, horizon):
    """The score of plans from START without noise."""
    return score_fn(
        model, START, particles=1, propagation="expectation", horizon=horizon, generator=seeded()
    )


START = torch.tensor([1.0, 0.4], dtype=DOUBLE)
WIDE = torch.tensor([1e3], dtype=DOUBLE)


def test_ilqr_on_a_linear_latent_space_is_lqr():
    model = aimed()
    plan = ILQR(-WIDE, WIDE, 12).plan(
        model.smooth(model.encode(START), action_repeat=1, reward=None), None, generator=seeded()
    )
    np.testing.assert_allclose(plan.actions.numpy(), riccati(model, START.numpy(), 12), atol=1e-8)


def test_ilqr_scales_actions_and_repeats_them():
    """Held for two steps, an action moves by (A + 1) B u; its score is that of every step."""
    model = aimed(action_scale=2.0)
    smooth = model.smooth(START, action_repeat=2, reward=None)
    plan = ILQR(-WIDE, WIDE, 4).plan(smooth, None, generator=seeded())
    score = means(model, 8)
    held = plan.actions.repeat_interleave(2, 0)
    assert float(score(held[None])) == pytest.approx(float(plan.score), rel=1e-9)
    nudges = 1e-3 * torch.eye(4, dtype=DOUBLE).unsqueeze(-1)
    near = torch.cat((plan.actions + nudges, plan.actions - nudges)).repeat_interleave(2, 1)
    assert (score(near) < plan.score).all()


@pytest.mark.parametrize("kind", [CEM, MPPI])
def test_planners_of_scores_plan_in_codes_unchanged(kind):
    """Within 2 % of the score of LQR, which no plan exceeds."""
    model, low = aimed(), -torch.tensor([3.0], dtype=DOUBLE)
    score = means(model, 5)
    best = torch.as_tensor(riccati(model, START.numpy(), 5))
    assert best.abs().max() < 3
    planner = kind(low, -low, 5, population=400, iterations=12)
    plan = planner.plan(score, None, generator=seeded())
    wanted = float(score(best[None]))
    assert wanted * 1.02 < float(plan.score) <= wanted


def test_derivatives_are_those_of_the_cost_by_finite_differences():
    """In a nonlinear model the slopes are exact, and curvatures are those of Gauss and Newton."""
    config = LocallyLinearConfig(hidden=(), transition_hidden=(8,), activation="tanh")
    model = LocallyLinear((2,), 1, config, generator=seeded()).requires_grad_(False)
    model.set_goal(normal(2, seed=5))
    smooth = model.smooth(START, action_repeat=2, reward=None)
    states, actions = normal(4, 2), normal(3, 1, seed=1)
    found = smooth.expand(states, actions)

    def cost(t, z, u):
        one = SmoothQuadratic(
            smooth.step, z, smooth.goal, smooth.state_cost, smooth.action_cost, repeat=2
        )
        path, total = one.rollout(lambda _, z: u.expand(len(z), 1), 1, 1)
        return total[0], path[0, 1]

    for t in range(3):
        for part, slope, jacobian in (
            (0, found.lx[t], found.fx[t]), (1, found.lu[t], found.fu[t])
        ):  # fmt: skip
            for k in range(len(slope)):
                pair = []
                for sign in (1e-5, -1e-5):
                    given = [states[t].clone(), actions[t].clone()]
                    given[part][k] += sign
                    pair.append(cost(t, *given))
                difference = [(a - b) / 2e-5 for a, b in zip(*pair, strict=True)]
                assert float(difference[0]) == pytest.approx(float(slope[k]), rel=1e-5)
                torch.testing.assert_close(difference[1], jacobian[:, k], rtol=1e-5, atol=1e-7)
    assert (torch.linalg.eigvalsh(found.lxx) > -1e-12).all()


def test_the_mahalanobis_metric_does_not_depend_on_the_basis_of_codes():
    """Codes L z with z ~ N(0, I): M = (L Lᵀ)⁻¹ tr(L Lᵀ) / 2, by 4,000 samples."""
    model = aimed(metric="mahalanobis", epochs=1, learning_rate=1e-12)
    root = torch.tensor([[3.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    z = normal(4000, 2) @ root.T
    over = torch.zeros(4000) > 0
    model.requires_grad_(True)
    model.fit(Transition(z, normal(4000, 1), torch.zeros(4000), z, over, over), generator=seeded())
    model.requires_grad_(False)
    model.set_goal(torch.tensor([0.5, -0.2], dtype=DOUBLE))
    scale = model.encode(torch.eye(2, dtype=DOUBLE)) - model.encode(torch.zeros(2, 2, dtype=DOUBLE))
    codes = scale.T @ root @ root.T @ scale
    wanted = torch.linalg.inv(codes) * codes.trace() / 2
    torch.testing.assert_close(model.metric, wanted, rtol=0.1, atol=0.1)
    step = model.step(START[None, None], torch.zeros(1, 1, 1), noise=None)
    moved = step.state[0, 0] - model.goal
    assert float(step.reward) == pytest.approx(float(-2 * moved @ model.metric @ moved))
    smooth = model.smooth(START, action_repeat=1, reward=None)
    _, cost = smooth.rollout(lambda t, z: torch.zeros(len(z), 1), 1, 1)
    assert float(cost) == pytest.approx(-float(step.reward))


# As a model.


def pictures(count=40, side=12):
    """A bright square that moves by an action along a row, in pictures."""
    place = torch.randint(1, side - 3, (count,), generator=seeded())
    move = torch.randint(-1, 2, (count,), generator=seeded(1))
    frames = [torch.zeros(count, side, side, 1, dtype=torch.uint8) for _ in range(2)]
    for i in range(count):
        for frame, at in zip(frames, (place[i], place[i] + move[i]), strict=True):
            frame[i, 5:7, at : at + 2] = 255
    over = torch.zeros(count) > 0
    action = move.unsqueeze(-1).float()
    return Transition(frames[0], action, torch.zeros(count), frames[1], over, over)


SMALL: dict[str, Any] = {"hidden": (16,), "transition_hidden": (8,), "epochs": 3, "batch": 16}


def small(loss: Any = "pc3", dtype: Any = "float32", **changes):
    config = LocallyLinearConfig(loss=loss, dtype=dtype, **SMALL | changes)
    return LocallyLinear((12, 12, 1), 1, config, generator=seeded())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["pc3", "pcc", "e2c"])
def test_a_model_of_pictures_fits_and_keeps_the_contract(loss, dtype):
    model, data = small(loss, dtype), pictures()
    metrics = model.fit(data, generator=seeded())
    assert all(math.isfinite(value) for value in metrics.values())
    model.set_goal(data.obs[0])
    assert all(isinstance(model, kind) for kind in (Dynamics, Fittable, SmoothDynamics))
    code = model.encode(data.obs[:4])
    assert code.dtype == getattr(torch, dtype) and code.shape == (4, 2)
    torch.testing.assert_close(model.encode(data.obs[:4].view(2, 2, 12, 12, 1))[1, 1], code[3])
    torch.testing.assert_close(model.encode(data.obs[2]), code[2], rtol=1e-4, atol=1e-6)
    noise = torch.randn(1, 4, 2, generator=seeded())
    one, other = (model.step(code[None], data.action[None, :4], noise=n) for n in (None, 0 * noise))
    torch.testing.assert_close(one.state, other.state)
    assert not one.terminated.any() and (one.reward < 0).all()
    again = small(loss, dtype)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.encode(data.obs), model.encode(data.obs))
    assert torch.equal(again.goal, model.goal)
    again.load_state_dict(small(loss, dtype).state_dict())
    assert again.goal.isnan().all()


def test_vectors_keep_the_contract_of_models():
    model = linear("pc3")
    model.set_goal(torch.zeros(6, dtype=DOUBLE))
    check_model(model, normal(5, 6), normal(5, 1))


def test_the_same_seed_gives_the_same_weights():
    one, other = small(), small()
    for model in (one, other):
        model.fit(pictures(), generator=seeded())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_decoded_pictures_are_from_0_to_1_and_pc3_has_none():
    model = small("e2c")
    found = model.decode(torch.zeros(3, 2))
    assert found.shape == (3, 12, 12, 1) and 0 < float(found.min()) < float(found.max()) < 1
    with pytest.raises(NotImplementedError, match="the loss pc3 has no decoder"):
        small().decode(torch.zeros(3, 2))


# Bad input.


def test_wrong_observations_are_refused_in_one_line():
    model, data = small(), pictures()
    for obs, said in (
        (torch.zeros(3, 12, 11, 1, dtype=torch.uint8), r"want shape \(\*lead, 12, 12, 1\)"),
        (torch.zeros(3, 12, 12, 1), "images: want uint8, got torch.float32"),
    ):
        with pytest.raises(ValueError, match=said):
            model.encode(obs)
        with pytest.raises(ValueError, match="want"):
            model.set_goal(obs[0])
        with pytest.raises(ValueError, match="want"):
            model.fit(
                data._replace(obs=obs, next_obs=obs, action=data.action[:3]), generator=seeded()
            )
    with pytest.raises(ValueError, match=r"goal: want shape \(12, 12, 1\), got \(40, 12, 12, 1\)"):
        model.set_goal(data.obs)
    with pytest.raises(ValueError, match="observations: hold a number that is not finite"):
        linear("pc3").encode(torch.full((6,), math.nan))


def test_data_that_do_not_fit_or_are_not_finite_are_refused():
    model, data = small(), pictures()
    with pytest.raises(ValueError, match=r"actions \(40, 1\)"):
        model.fit(data._replace(action=torch.zeros(40, 2)), generator=seeded())
    with pytest.raises(ValueError, match="data: want 1 or more transitions, got 0"):
        model.fit(Transition(*(part[:0] for part in data)), generator=seeded())
    with pytest.raises(ValueError, match="data: want 2 or more transitions, got 1"):
        small(metric="mahalanobis").fit(Transition(*(x[:1] for x in data)), generator=seeded())
    with pytest.raises(ValueError, match="next"):
        model.fit(data._replace(next_obs=data.next_obs[1:]), generator=seeded())
    action = data.action.clone()
    action[3] = math.nan
    with pytest.raises(ValueError, match="action: holds a number that is not finite"):
        model.fit(data._replace(action=action), generator=seeded())


def test_a_fit_that_diverges_is_named():
    with pytest.raises(FitDiverged, match="epoch"):
        small("e2c", learning_rate=1e12).fit(pictures(), generator=seeded())


def test_the_weights_of_another_camera_dtype_or_loss_are_refused_and_change_nothing():
    state = small().state_dict()
    config = LocallyLinearConfig(dtype="float32", **SMALL)
    camera = LocallyLinear((12, 12, 3), 1, config, generator=seeded())
    for other in (camera, small(dtype="float64"), small("e2c")):
        kept = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(ValueError) as error:
            other.load_state_dict(state)
        assert "\n" not in str(error.value)
        assert all(
            value.equal(kept[name]) or name == "goal" for name, value in other.state_dict().items()
        )
    with pytest.raises(ValueError, match=r"encoder\.stack\.weights\.0"):
        camera.load_state_dict(state)


def test_without_a_goal_or_with_a_reward_of_observations_there_is_no_plan():
    model, code = small(), torch.zeros(1, 1, 2)
    for call in (
        lambda: model.step(code, torch.zeros(1, 1, 1), noise=None),
        lambda: model.smooth(code[0, 0], action_repeat=1, reward=None),
    ):
        with pytest.raises(ValueError, match="goal: none is set"):
            call()
    model.set_goal(pictures().obs[0])
    with pytest.raises(ValueError, match="reward: a locally linear model has its own"):
        model.smooth(code[0, 0], action_repeat=1, reward=lambda *_: code)
    with pytest.raises(ValueError, match=r"action: want \(1, B, 1\), got \(1, 1, 2\)"):
        model.step(code, torch.zeros(1, 1, 2), noise=None)


def test_a_fit_forgets_the_goal_whose_code_is_of_other_weights():
    model, data = small(), pictures()
    model.set_goal(data.obs[0])
    model.fit(data, generator=seeded())
    assert bool(model.goal.isnan().all())
    with pytest.raises(ValueError, match="goal: none is set"):
        model.step(torch.zeros(1, 1, 2), torch.zeros(1, 1, 1), noise=None)


def test_a_shape_of_neither_vectors_nor_images_is_refused():
    with pytest.raises(ValueError, match=r"shape: want that of a vector or an image, got \(3, 4\)"):
        LocallyLinear((3, 4), 1, LocallyLinearConfig(), generator=seeded())


def test_a_loaded_model_has_a_goal_only_where_the_saved_one_had():
    config = LocallyLinearConfig(hidden=(8,), transition_hidden=(4,))
    saved, loaded = (LocallyLinear((2,), 1, config, generator=seeded(k)) for k in range(2))
    state, action = torch.zeros(1, 3, 2, dtype=torch.float64), torch.zeros(1, 3, 1)
    saved.set_goal(torch.ones(2))
    loaded.load_state_dict(saved.state_dict())
    found, same = (model.step(state, action, noise=None).reward for model in (saved, loaded))
    assert torch.equal(found, same) and bool(found.isfinite().all())
    unaimed = LocallyLinear((2,), 1, config, generator=seeded(2))
    loaded.load_state_dict(unaimed.state_dict())
    with pytest.raises(ValueError, match="goal: none is set"):
        loaded.step(state, action, noise=None)
