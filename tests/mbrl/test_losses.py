"""Every loss on arrays worked out by hand, with its gradient; the exact ones by enumeration."""

import itertools
import math

import pytest
import torch

from mbrl.losses import (
    adapted_beta,
    average,
    categorical_cross_entropy,
    clipped_value_loss,
    discrete_sac_actor,
    discrete_sac_critic_target,
    discrete_sac_temperature,
    double_q_learning,
    dpg,
    huber,
    importance_ratio,
    off_policy_policy_gradient,
    policy_gradient,
    ppo_clip,
    ppo_penalty,
    q_learning,
    quantile_huber,
    sac_actor,
    sac_critic_target,
    sac_temperature,
    td3_target_action,
    td_error,
    trpo_surrogate,
    value_loss,
)

NAN = math.nan


def leaf(*numbers):
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def array(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def flags(*values):
    return torch.tensor(values, dtype=torch.bool)


def gradient(rows, *leaves):
    found = torch.autograd.grad(rows.sum(), leaves, allow_unused=True)
    return [None if grad is None else grad.tolist() for grad in found]


# Means.


def test_average_by_hand():
    rows = array(1, 2, 6)
    assert average(rows).item() == 3
    assert average(rows, weight=array(1, 0.5, 0.5)).item() == pytest.approx(5 / 3)
    assert average(rows, mask=flags(True, True, False)).item() == 1.5
    weighted = average(rows, weight=array(1, 0.5, 0.5), mask=flags(True, True, False))
    assert weighted.item() == 1
    rows, weight = leaf(1, 2), leaf(3, 4)
    assert gradient(average(rows, weight=weight), rows, weight) == [[1.5, 2], None]


def test_average_ignores_what_masked_rows_hold():
    rows = leaf(1, NAN, 3)
    mean = average(rows, mask=flags(True, False, True))
    assert mean.item() == 2
    assert gradient(mean, rows) == [[0.5, 0, 0.5]]
    assert average(rows).isnan()
    assert average(rows, mask=flags(False, False, False)).isnan()


# Policy gradients.


def test_policy_gradient_by_hand():
    log_prob, advantage = leaf(-1, -2), leaf(3, -4)
    rows = policy_gradient(log_prob, advantage)
    assert rows.tolist() == [3, -8]
    assert gradient(rows, log_prob, advantage) == [[-3, 4], None]


def test_importance_ratio_by_hand():
    log_prob = array(2, 3, 5).log()
    behaviour = array(1, 1, 10).log()
    expected = {"trajectory": [3, 3, 3], "causal": [2, 6, 3], "step": [2, 3, 0.5]}
    for over, ratios in expected.items():
        found = importance_ratio(log_prob, behaviour, over=over)
        assert found.tolist() == pytest.approx(ratios)


def test_importance_ratio_of_trajectories_of_different_lengths():
    log_prob = torch.stack((array(2, 3).log(), array(2, NAN).log()), 1)
    behaviour = torch.zeros(2, 2).double()
    mask = torch.stack((flags(True, True), flags(True, False)), 1)
    for over, second in (("trajectory", [2, 1]), ("causal", [2, 1]), ("step", [2, 1])):
        found = importance_ratio(log_prob, behaviour, over=over, mask=mask)
        assert found[:, 1].tolist() == pytest.approx(second)
    assert importance_ratio(log_prob, behaviour, over="causal")[:, 1].isnan().tolist() == [
        False, True,
    ]  # fmt: skip


def test_off_policy_policy_gradient_by_hand():
    log_prob, behaviour, advantage = leaf(-1, -2), leaf(-1, -1), leaf(3, 4)
    e = math.exp(-1)
    for over, ratio in (("trajectory", [e, e]), ("causal", [1, e]), ("step", [1, e])):
        rows = off_policy_policy_gradient(log_prob, behaviour, advantage, over=over)
        assert rows.tolist() == pytest.approx([ratio[0] * 3, ratio[1] * 8])
        grads = gradient(rows, log_prob, behaviour, advantage)
        assert grads[0] == pytest.approx([-3 * ratio[0], -4 * ratio[1]])
        assert grads[1:] == [None, None]


def test_off_policy_rows_behind_the_end_do_not_count():
    log_prob = leaf(-1, NAN)
    mask = flags(True, False)
    rows = off_policy_policy_gradient(
        log_prob, array(-1, NAN), array(3, NAN), over="trajectory", mask=mask
    )
    assert rows.tolist() == [3, 0]
    assert gradient(rows, log_prob) == [[-3, 0]]


def two_steps(seed=0):
    """Two steps of two actions, whose second policy and rewards depend on the first action."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, generator=g, dtype=torch.float64).requires_grad_()
    behaviour = torch.randn(3, 2, generator=g, dtype=torch.float64)
    rewards = torch.randn(2, 2, 2, generator=g, dtype=torch.float64)  # (step, a0, a1)
    return logits, behaviour, rewards


def steps_of(logits, actions):
    """Log probabilities (T,) of two actions; row 1 + a0 of the logits is the second policy."""
    table = logits.log_softmax(-1)
    return torch.stack((table[0, actions[0]], table[1 + actions[0], actions[1]]))


@pytest.mark.parametrize("over", ["trajectory", "causal", "step"])
def test_the_exact_off_policy_gradients_are_unbiased_and_the_one_of_steps_is_not(over):
    """The expectation over all trajectories of μ, against the gradient of the expected return."""
    logits, behaviour, rewards = two_steps()
    exact, expected = 0.0, 0.0
    for actions in itertools.product(range(2), range(2)):
        log_prob, log_mu = steps_of(logits, actions), steps_of(behaviour, actions)
        reward = torch.stack((rewards[0, actions[0], 0], rewards[1, actions[0], actions[1]]))
        exact = exact - log_prob.sum().exp() * reward.sum()
        to_go = torch.stack((reward.sum(), reward[1]))
        if over == "causal":  # the later reward by the later ratio
            later = (log_prob[1] - log_mu[1]).exp()
            to_go = torch.stack((reward[0] + later * reward[1], reward[1]))
        rows = off_policy_policy_gradient(log_prob, log_mu, to_go, over=over)
        expected = expected + log_mu.sum().exp() * rows.sum()
    true = torch.autograd.grad(exact, logits, retain_graph=True)[0]
    found = torch.autograd.grad(expected, logits)[0]
    if over == "step":
        assert (found - true).norm() > 0.05 * true.norm()
    else:
        torch.testing.assert_close(found, true)


def test_variance_of_the_trajectory_ratio_grows_with_time_and_that_of_steps_does_not():
    g = torch.Generator().manual_seed(0)
    actions = torch.randn(12, 20_000, generator=g, dtype=torch.float64)  # μ is N(0, 1)
    log_mu, log_prob = -0.5 * actions**2, -0.5 * (actions - 0.3) ** 2

    def variance(over, steps):
        rows = importance_ratio(log_prob[:steps], log_mu[:steps], over=over)
        return rows[-1].var().item()

    # E[ρ²] = exp(0.09) a step
    assert variance("trajectory", 1) == pytest.approx(math.expm1(0.09), rel=0.05)
    assert variance("trajectory", 12) == pytest.approx(math.expm1(12 * 0.09), rel=0.2)
    assert variance("step", 12) == pytest.approx(math.expm1(0.09), rel=0.05)


def test_trpo_surrogate_by_hand():
    log_prob, old, advantage = leaf(math.log(2), 0), leaf(0, 0), leaf(3, -4)
    rows = trpo_surrogate(log_prob, old, advantage)
    assert rows.tolist() == pytest.approx([-6, 4])
    grads = gradient(rows, log_prob, old, advantage)
    assert grads[0] == pytest.approx([-6, 4])
    assert grads[1:] == [None, None]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "grad"),
    [
        (1.5, 2.0, -2.4, 0.0),  # already beyond 1 + ε in the direction of the advantage
        (1.5, -2.0, 3.0, 3.0),  # above 1 + ε against the advantage: brought back
        (0.5, 2.0, -1.0, -1.0),  # below 1 - ε against the advantage: brought back
        (0.5, -2.0, 1.6, 0.0),  # already below 1 - ε in the direction of the advantage
        (1.1, 2.0, -2.2, -2.2),  # inside, of both signs
        (0.9, -2.0, 1.8, 1.8),
    ],
)
def test_the_four_cases_of_ppo_clip(ratio, advantage, loss, grad):
    """The gradient with respect to log π is -ρ A, or 0."""
    log_prob, old = leaf(math.log(ratio) - 1), leaf(-1)
    rows = ppo_clip(log_prob, old, leaf(advantage), clip=0.2)
    assert rows.item() == pytest.approx(loss)
    assert gradient(rows, log_prob, old) == [pytest.approx([grad]), None]


def test_ppo_penalty_by_hand():
    log_prob, old, advantage, kl = leaf(math.log(2)), leaf(0), leaf(3), leaf(0.5)
    rows = ppo_penalty(log_prob, old, advantage, kl, beta=4.0)
    assert rows.item() == pytest.approx(-6 + 2)
    assert gradient(rows, log_prob, kl) == [pytest.approx([-6]), [4]]


def test_beta_adapts_both_ways():
    assert adapted_beta(1.0, 0.1, target=0.3) == 0.5
    assert adapted_beta(1.0, 0.5, target=0.3) == 2.0
    for kl in (0.21, 0.3, 0.44):
        assert adapted_beta(1.0, kl, target=0.3) == 1.0


# Values.


def test_value_loss_by_hand():
    value, target = leaf(1, 5), leaf(3, 4)
    rows = value_loss(value, target)
    assert rows.tolist() == [2, 0.5]
    assert gradient(rows, value, target) == [[-2, 1], None]


def test_clipped_value_loss_by_hand():
    # old 0, clip 1; from 3 towards the target 0: held at 1, the larger error counts
    value, old, target = leaf(3, 0.5, 3, -3), leaf(0, 0, 0, 0), leaf(0, 2, 5, 5)
    rows = clipped_value_loss(value, old, target, clip=1.0)
    # 3²/2; inside the clip 1.5²/2; moved towards the target beyond the clip: 4²/2 without
    # gradient; moved away beyond it: 8²/2
    assert rows.tolist() == [4.5, 1.125, 8, 32]
    assert gradient(rows, value, old, target) == [[3, -1.5, 0, -8], None, None]


def test_td_error_by_hand():
    value, next_value = leaf(1, 1), leaf(10, 10)
    rows = td_error(value, array(2, 2), next_value, flags(False, True), discount=0.5)
    assert rows.tolist() == [6, 1]
    assert gradient(rows, value, next_value) == [[-1, -1], None]


def test_td_error_with_a_discount_for_each_row():
    rows = td_error(
        array(0, 0), array(1, 1), array(8, 8), flags(False, False), discount=array(0.5, 0.25)
    )
    assert rows.tolist() == [5, 3]


def test_q_learning_by_hand():
    q = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    next_q = torch.tensor([[5.0, 6.0], [7.0, 8.0]], dtype=torch.float64, requires_grad=True)
    args = torch.tensor([1, 0]), array(1, 1)
    rows = q_learning(q, *args, next_q, flags(False, True), discount=0.5)
    assert rows.tolist() == [1 + 3 - 2, 1 - 3]
    assert gradient(rows, q, next_q) == [[[0, -1], [-1, 0]], None]


def test_double_q_learning_by_hand():
    q = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    next_q, online = torch.tensor([[5.0, 6.0]]), torch.tensor([[9.0, 0.0]], requires_grad=True)
    rows = double_q_learning(
        q, torch.tensor([1]), array(1), next_q.double(), online, flags(False), discount=0.5
    )
    assert rows.tolist() == [1 + 2.5 - 2]  # the online network takes action 0, worth 5
    assert gradient(rows, q, online) == [[[0, -1]], None]


def test_double_q_learning_does_not_hide_nan():
    online = torch.tensor([[NAN, 0.0], [1.0, 0.0]])
    q = torch.zeros(2, 2)
    rows = double_q_learning(
        q, torch.tensor([0, 0]), torch.zeros(2), q, online, flags(False, False), discount=0.5
    )
    assert rows.isnan().tolist() == [True, False]


def test_huber_by_hand():
    error = leaf(-3, -0.5, 0, 2)
    rows = huber(error, threshold=2.0)
    assert rows.tolist() == [4, 0.125, 0, 2]
    assert gradient(rows, error) == [[-2, -0.5, 0, 2]]


def test_categorical_cross_entropy_by_hand():
    logits = torch.tensor([[0.25, 0.25, 0.5]]).double().log().requires_grad_()
    target = torch.tensor([[0.0, 0.5, 0.5]]).double()
    rows = categorical_cross_entropy(logits, target)
    assert rows.item() == pytest.approx(1.5 * math.log(2))
    assert gradient(rows, logits)[0][0] == pytest.approx([0.25, -0.25, 0])


def test_quantile_huber_by_hand():
    quantiles, levels = leaf(0, 3), array(0.25, 0.75)
    # u to the targets 1 and 5: 1, 5 and -2, 2; huber with κ = 2: 0.5, 8 and 2, 2
    rows = quantile_huber(quantiles, levels, array(1, 5), threshold=2.0)
    first = 0.25 * (0.5 + 8) / 2
    second = (0.25 * 2 + 0.75 * 2) / 2
    assert rows.item() == pytest.approx((first + second) / 2)
    grads = gradient(rows, quantiles)[0]
    assert grads == pytest.approx([-0.25 * (1 + 2) / 4, (0.25 * 2 - 0.75 * 2) / 4])
    each = quantile_huber(
        quantiles.expand(3, 2), levels.expand(3, 2), array(1, 5).expand(3, 2), threshold=2.0
    )
    torch.testing.assert_close(each, rows.expand(3))


def test_quantile_regression_finds_the_quantiles():
    """With a small κ the minimum is where a share τ of the targets lies below."""
    target = torch.linspace(0, 1, 1001, dtype=torch.float64)
    levels = array(0.1, 0.5, 0.9)
    quantiles = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(300):
        loss = quantile_huber(quantiles, levels, target, threshold=0.01)
        (grad,) = torch.autograd.grad(loss, quantiles)
        with torch.no_grad():
            quantiles -= 0.05 * grad
    torch.testing.assert_close(quantiles.detach(), levels, atol=0.01, rtol=0)


# Deterministic policies.


def test_dpg_follows_the_slope_of_q():
    action = leaf(1.0)
    rows = dpg(-((action - 3) ** 2))
    assert rows.tolist() == [4]
    assert gradient(rows, action) == [[-4]]  # downhill in the loss is towards 3


def test_td3_target_action_by_hand():
    action = torch.tensor([[0.0, 5.0], [0.9, 9.9]])
    noise = torch.tensor([[1.0, -10.0], [10.0, 10.0]])
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 10.0])
    found = td3_target_action(action, noise, low, high, std=0.2, clip=0.5)
    # .2; -2 clipped to -.5 of half width 5; both others end on their bound
    torch.testing.assert_close(found, torch.tensor([[0.2, 2.5], [1.0, 10.0]]))


# Soft actor-critic.


def test_sac_critic_target_by_hand():
    next_q = torch.tensor([[10.0, 10.0], [8.0, 12.0]], requires_grad=True)  # two critics
    log_alpha = torch.tensor(math.log(2.0), requires_grad=True)
    rows = sac_critic_target(
        torch.ones(2), next_q, torch.tensor([-3.0, 1.0]), flags(False, True),
        discount=0.5, temperature=log_alpha.exp(),
    )  # fmt: skip
    assert rows.tolist() == pytest.approx([1 + 0.5 * (8 + 6), 1])
    assert not rows.requires_grad


def test_sac_actor_by_hand():
    log_prob, q = leaf(-3, 1), torch.tensor([[10.0, 10.0], [8.0, 12.0]]).double().requires_grad_()
    log_alpha = torch.tensor(math.log(2.0)).double().requires_grad_()
    rows = sac_actor(log_prob, q, temperature=log_alpha.exp())
    assert rows.tolist() == pytest.approx([-6 - 8, 2 - 10])
    grads = gradient(rows, log_prob, q, log_alpha)
    assert grads[0] == pytest.approx([2, 2])
    assert grads[1:] == [[[0, -1], [-1, 0]], None]


@pytest.mark.parametrize(("log_prob", "direction"), [(3.0, -1), (-3.0, 1)])
def test_sac_temperature_by_hand(log_prob, direction):
    """The policy's entropy is -log_prob; below the target of 1, α must grow."""
    log_alpha = torch.tensor(math.log(2.0)).double().requires_grad_()
    log_probs = leaf(log_prob)
    rows = sac_temperature(log_alpha, log_probs, target_entropy=1.0)
    assert rows.item() == pytest.approx(-2 * (log_prob + 1))
    grads = gradient(rows, log_alpha, log_probs)
    assert grads[0] == pytest.approx(-2 * (log_prob + 1))
    assert math.copysign(1, grads[0]) == direction
    assert grads[1] is None


def test_discrete_sac_by_hand():
    log_probs = torch.tensor([[0.25, 0.75]]).double().log().requires_grad_()
    q = torch.tensor([[[4.0, 9.0]], [[5.0, 8.0]]]).double().requires_grad_()
    negative_entropy = 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    actor = discrete_sac_actor(log_probs, q, temperature=2.0)
    assert actor.item() == pytest.approx(2 * negative_entropy - 0.25 * 4 - 0.75 * 8)
    assert gradient(actor, q) == [None]
    for terminated, expected in ((False, 1 - 0.5 * actor.item()), (True, 1)):
        target = discrete_sac_critic_target(
            array(1), q, log_probs, flags(terminated), discount=0.5, temperature=2.0
        )
        assert target.item() == pytest.approx(expected)
        assert not target.requires_grad
    log_alpha = torch.tensor(math.log(2.0)).double().requires_grad_()
    rows = discrete_sac_temperature(log_alpha, log_probs, target_entropy=0.3)
    assert rows.item() == pytest.approx(-2 * (negative_entropy + 0.3))
    grads = gradient(rows, log_alpha, log_probs)
    assert grads == [pytest.approx(rows.item()), None]


def test_discrete_sac_is_the_expectation_of_sac_over_actions():
    g = torch.Generator().manual_seed(0)
    log_probs = torch.randn(5, 3, generator=g).double().log_softmax(-1)
    q = torch.randn(2, 5, 3, generator=g).double()
    each = torch.stack([sac_actor(log_probs[:, a], q[..., a], temperature=0.3) for a in range(3)])
    expected = (log_probs.exp() * each.T).sum(-1)
    torch.testing.assert_close(discrete_sac_actor(log_probs, q, temperature=0.3), expected)


def test_the_discrete_actor_has_its_minimum_at_the_softmax_of_q():
    q = torch.tensor([[1.0, 2.0, -1.0]]).double()
    logits = (q / 0.5).requires_grad_()
    rows = discrete_sac_actor(logits.log_softmax(-1), q.expand(2, 1, 3), temperature=0.5)
    assert rows.item() == pytest.approx(-0.5 * (q / 0.5).logsumexp(-1).item())
    assert gradient(rows, logits)[0][0] == pytest.approx([0, 0, 0], abs=1e-12)


def test_discrete_sac_with_a_forbidden_action():
    logits = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    q = torch.tensor([[[1.0, 99.0, 1.0]]])
    rows = discrete_sac_actor(logits.log_softmax(-1), q, temperature=3.0)
    assert rows.item() == pytest.approx(-3 * math.log(2) - 1)
    assert gradient(rows, logits)[0][0] == pytest.approx([0, 0, 0])
    target = discrete_sac_critic_target(
        torch.zeros(1), q, logits.log_softmax(-1), flags(False), discount=1, temperature=3.0
    )
    assert target.item() == pytest.approx(3 * math.log(2) + 1)


# Errors.

ROWS, COLUMN = torch.zeros(3), torch.zeros(3, 1)
ENDS, TABLE, INDEX = torch.zeros(3).bool(), torch.zeros(3, 2), torch.zeros(3).long()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: average(ROWS, weight=x),
        lambda x: average(ROWS, mask=x.bool()),
        lambda x: policy_gradient(ROWS, x),
        lambda x: importance_ratio(ROWS, x, over="step"),
        lambda x: importance_ratio(ROWS, ROWS, over="step", mask=x.bool()),
        lambda x: off_policy_policy_gradient(ROWS, ROWS, x, over="step"),
        lambda x: trpo_surrogate(ROWS, x, ROWS),
        lambda x: trpo_surrogate(ROWS, ROWS, x),
        lambda x: ppo_clip(ROWS, x, ROWS),
        lambda x: ppo_clip(ROWS, ROWS, x),
        lambda x: ppo_penalty(ROWS, ROWS, ROWS, x, beta=1.0),
        lambda x: value_loss(ROWS, x),
        lambda x: clipped_value_loss(ROWS, x, ROWS),
        lambda x: clipped_value_loss(ROWS, ROWS, x),
        lambda x: td_error(ROWS, x, ROWS, ENDS, discount=0.9),
        lambda x: td_error(ROWS, ROWS, x, ENDS, discount=0.9),
        lambda x: td_error(ROWS, ROWS, ROWS, x.bool(), discount=0.9),
        lambda x: td_error(ROWS, ROWS, ROWS, ENDS, discount=x),
        lambda x: q_learning(TABLE, x.long(), ROWS, TABLE, ENDS, discount=0.9),
        lambda x: q_learning(TABLE, INDEX, ROWS, x, ENDS, discount=0.9),
        lambda x: double_q_learning(TABLE, INDEX, ROWS, TABLE, x, ENDS, discount=0.9),
        lambda x: categorical_cross_entropy(TABLE, x),
        lambda x: quantile_huber(TABLE, x, TABLE),
        lambda x: quantile_huber(TABLE, torch.zeros(2), x.T),
        lambda x: td3_target_action(TABLE, x, torch.zeros(2), torch.ones(2)),
        lambda x: td3_target_action(TABLE, TABLE, x[0], x[0]),
        lambda x: sac_critic_target(ROWS, TABLE.T, x, ENDS, discount=0.9, temperature=1.0),
        lambda x: sac_critic_target(ROWS, x, ROWS, ENDS, discount=0.9, temperature=1.0),
        lambda x: sac_actor(ROWS, x, temperature=1.0),
        lambda x: sac_actor(ROWS, TABLE.T, temperature=x),
        lambda x: sac_temperature(x, ROWS, target_entropy=1.0),
        lambda x: discrete_sac_actor(TABLE, x, temperature=1.0),
        lambda x: discrete_sac_critic_target(
            x, TABLE[None], TABLE, ENDS, discount=0.9, temperature=1.0
        ),
        lambda x: discrete_sac_temperature(x, TABLE, target_entropy=1.0),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    with pytest.raises(ValueError, match="want"):
        call(COLUMN)


@pytest.mark.parametrize("discount", [-0.1, 1.1, NAN, torch.tensor([0.5, 1.1, 0.5])])
def test_a_discount_outside_0_to_1_is_refused(discount):
    calls = (
        lambda: td_error(ROWS, ROWS, ROWS, ENDS, discount=discount),
        lambda: q_learning(TABLE, INDEX, ROWS, TABLE, ENDS, discount=discount),
        lambda: double_q_learning(TABLE, INDEX, ROWS, TABLE, TABLE, ENDS, discount=discount),
        lambda: sac_critic_target(ROWS, TABLE.T, ROWS, ENDS, discount=discount, temperature=1.0),
        lambda: discrete_sac_critic_target(
            ROWS, TABLE[None], TABLE, ENDS, discount=discount, temperature=1.0
        ),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"discount: must be in \[0, 1\]"):
            call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: importance_ratio(ROWS, ROWS, over="all"), "over: must be one of trajectory"),
        (lambda: average(ROWS, mask=ROWS), "mask: must be bool"),
        (lambda: ppo_clip(ROWS, ROWS, ROWS, clip=0.0), "clip: must be finite and above 0"),
        (lambda: ppo_clip(ROWS, ROWS, ROWS, clip=NAN), "clip: must be finite and above 0"),
        (lambda: clipped_value_loss(ROWS, ROWS, ROWS, clip=-1.0), "clip: must be"),
        (lambda: ppo_penalty(ROWS, ROWS, ROWS, ROWS, beta=-1.0), "beta: must be"),
        (lambda: adapted_beta(1.0, NAN, target=0.1), "kl: must be a number"),
        (lambda: adapted_beta(1.0, 0.1, target=0.0), "target: must be"),
        (lambda: td_error(ROWS, ROWS, ROWS, ROWS, discount=0.9), "terminated: must be bool"),
        (
            lambda: q_learning(TABLE, ROWS, ROWS, TABLE, ENDS, discount=0.9),
            "action: must be integers",
        ),
        (
            lambda: q_learning(TABLE, INDEX + 2, ROWS, TABLE, ENDS, discount=0.9),
            "action: must be in 0..1, got 2 to 2",
        ),
        (lambda: huber(ROWS, threshold=0.0), "threshold: must be"),
        (lambda: quantile_huber(TABLE, TABLE, TABLE, threshold=NAN), "threshold: must be"),
        (
            lambda: td3_target_action(TABLE, TABLE, ROWS[:2], ROWS[:2], std=-1.0),
            "std: must be finite and at least 0",
        ),
        (lambda: sac_actor(ROWS, TABLE.T, temperature=-1.0), "temperature: must be"),
        (lambda: sac_actor(ROWS, torch.zeros(0, 3), temperature=1.0), "q: want one or more"),
    ],
)
def test_errors_name_the_culprit(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)
