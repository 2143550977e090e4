"""Every function against its definition: sums written out step by step in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl import returns
from mbrl.returns import (
    episode_returns,
    gae,
    horizon_targets,
    inverse_variance_weights,
    lambda_returns,
    n_step,
    retrace,
    reward_to_go,
    steve,
    value_expansion,
    vtrace,
)

NONE = torch.zeros(4, dtype=torch.bool)
REWARD = torch.tensor([1.0, 2.0, 4.0, 8.0])
NEXT = torch.tensor([10.0, 20.0, 30.0, 40.0])


def flags(*ends, steps=4):
    found = torch.zeros(steps, dtype=torch.bool)
    found[list(ends)] = True
    return found


class Data:
    """Random arrays (T, N) in float64 with random ends.

    `next_value` is the next row's `value` inside an episode, as from one critic, and a number of
    its own at an end.
    """

    def __init__(self, steps, columns, chance, seed):
        g = torch.Generator().manual_seed(seed)

        def draw():
            return torch.randn(steps, columns, generator=g, dtype=torch.float64)

        self.reward, self.value, self.next_value, self.q = draw(), draw(), draw(), draw()
        self.ratio = draw().exp()
        self.terminated = torch.rand(steps, columns, generator=g) < chance
        self.truncated = torch.rand(steps, columns, generator=g) < chance
        self.ended = self.terminated | self.truncated
        follows = ~self.ended[:-1]
        self.next_value[:-1] = torch.where(follows, self.value[1:], self.next_value[:-1])
        self.steps, self.columns = steps, columns

    @property
    def ends(self):
        return {"terminated": self.terminated, "truncated": self.truncated}

    def segment(self, t, i):
        """The rows from t to the end of its episode, or of the array."""
        rows = [t]
        while not self.ended[rows[-1], i] and rows[-1] + 1 < self.steps:
            rows.append(rows[-1] + 1)
        return rows

    def start(self, t, i):
        while t > 0 and not self.ended[t - 1, i]:
            t -= 1
        return t

    def bootstrap(self, t, i):
        """V of the next observation; 0 after termination."""
        return 0.0 if self.terminated[t, i] else self.next_value[t, i].item()

    def every(self, function):
        """An array of `function(t, i)`."""
        rows = [[function(t, i) for i in range(self.columns)] for t in range(self.steps)]
        return torch.tensor(rows, dtype=torch.float64)


random_data = st.builds(
    Data,
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.integers(0, 10_000),
)
shares = st.sampled_from([0.0, 0.3, 0.9, 1.0])
laws = settings(max_examples=60, deadline=None)


def n_step_target(data, t, i, n, discount):
    rows = data.segment(t, i)[:n]
    total = sum(discount**k * data.reward[row, i].item() for k, row in enumerate(rows))
    return total + discount ** len(rows) * data.bootstrap(rows[-1], i)


# By hand.


def test_reward_to_go_by_hand():
    end = flags(1)
    assert reward_to_go(REWARD, NONE, NONE, discount=0.5).tolist() == [4, 6, 8, 8]
    assert reward_to_go(REWARD, end, NONE, discount=0.5).tolist() == [2, 2, 8, 8]
    assert reward_to_go(REWARD, NONE, end, discount=0.5).tolist() == [2, 2, 8, 8]


def test_reward_to_go_discounted_from_the_start_of_the_episode_by_hand():
    whole = reward_to_go(REWARD, NONE, NONE, discount=0.5, from_start=True)
    assert whole.tolist() == [4, 3, 2, 1]  # 1 + 2/2 + 4/4 + 8/8
    split = reward_to_go(REWARD, flags(1), NONE, discount=0.5, from_start=True)
    assert split.tolist() == [2, 1, 8, 4]  # steps are counted anew
    first = reward_to_go(REWARD, flags(1), NONE, discount=0.0, from_start=True)
    assert first.tolist() == [1, 0, 4, 0]


def test_episode_returns_by_hand():
    end = flags(1, 3)
    found = episode_returns(REWARD, end, NONE, discount=0.5)
    assert found.tolist() == [2, 2, 8, 8]
    assert found[end].tolist() == [2, 8]


def test_n_step_by_hand():
    two = n_step(REWARD, NEXT, NONE, NONE, n=2, discount=0.5)
    # 1 + 2/2 + 20/4, 2 + 4/2 + 30/4, 4 + 8/2 + 40/4, and one step at the end of the array
    assert two.tolist() == [7, 11.5, 18, 28]
    assert n_step(REWARD, NEXT, flags(1), NONE, n=2, discount=0.5).tolist() == [2, 2, 18, 28]
    assert n_step(REWARD, NEXT, NONE, flags(1), n=2, discount=0.5).tolist() == [7, 12, 18, 28]


def test_lambda_returns_by_hand():
    found = lambda_returns(REWARD[:2], NEXT[:2], NONE[:2], NONE[:2], discount=0.5, lambda_=0.5)
    # 2 + 20/2 = 12; 1 + (10/2 + 12/2)/2 = 6.5
    assert found.tolist() == [6.5, 12]


def test_gae_by_hand():
    value = torch.tensor([4.0, 10.0])
    args = REWARD[:2], value, NEXT[:2]
    # δ: 1 + 5 - 4 = 2, 2 + 10 - 10 = 2
    assert gae(*args, NONE[:2], NONE[:2], discount=0.5, lambda_=0.5).tolist() == [2.5, 2]
    terminated = gae(*args, flags(1, steps=2), NONE[:2], discount=0.5, lambda_=0.5)
    assert terminated.tolist() == [0, -8]  # δ_1 = 2 - 10
    truncated = gae(*args, NONE[:2], flags(0, steps=2), discount=0.5, lambda_=0.5)
    assert truncated.tolist() == [2, 2]


def test_vtrace_by_hand():
    value, ratio = torch.tensor([4.0, 10.0]), torch.tensor([0.5, 3.0])
    found = vtrace(
        REWARD[:2], value, NEXT[:2], ratio, NONE[:2], NONE[:2],
        discount=0.5, rho_bar=2.0, c_bar=1.0,
    )  # fmt: skip
    # ρ = .5, 2; c = .5, 1; δ = .5 · 2, 2 · 2; v_1 = 10 + 4; v_0 = 4 + 1 + .5 · .5 · 4
    assert found.target.tolist() == [6, 14]
    # .5 (1 + 14/2 - 4), 2 (2 + 20/2 - 10)
    assert found.advantage.tolist() == [2, 4]


def test_retrace_by_hand():
    q, ratio = torch.tensor([4.0, 10.0]), torch.tensor([7.0, 0.5])
    found = retrace(REWARD[:2], q, NEXT[:2], ratio, NONE[:2], NONE[:2], discount=0.5)
    # δ = 2, 2; the first ratio is not used, because Q is of the action taken there
    assert found.tolist() == [4 + 2 + 0.5 * 0.5 * 2, 12]


def test_value_expansion_by_hand():
    reward = REWARD[:3, None].expand(3, 2)
    terminated = torch.tensor([[False, False], [False, True], [False, False]])
    found = value_expansion(reward, torch.tensor([16.0, 16.0]), terminated, discount=0.5)
    # 4 + 16/2 = 12, 2 + 12/2 = 8, 1 + 8/2 = 5; the other terminates in step 1: 2, 1 + 2/2
    assert found.target.tolist() == [[5, 2], [8, 2], [12, 0]]
    assert found.valid.tolist() == [[True, True], [True, True], [True, False]]


def test_value_expansion_that_terminates_in_its_last_step():
    found = value_expansion(REWARD[:2], torch.tensor(16.0), flags(1, steps=2), discount=0.5)
    assert found.target.tolist() == [2, 2]
    assert found.valid.all()


def test_horizon_targets_by_hand():
    found = horizon_targets(REWARD[:3], NEXT[:3], NONE[:3], discount=0.5)
    assert found.tolist() == [1 + 5, 1 + 1 + 5, 1 + 1 + 1 + 3.75]
    ended = horizon_targets(REWARD[:3], NEXT[:3], flags(1, steps=3), discount=0.5)
    assert ended.tolist() == [6, 2, 2]


def test_value_expansion_of_a_trajectory_that_is_cut_off():
    """The value of the state after the step that is cut off counts, unless that step terminates."""
    reward = REWARD[:3, None].expand(3, 2)
    cut = torch.tensor([[False, False], [True, True], [False, False]])
    terminated = torch.tensor([[False, False], [False, True], [False, False]])
    found = value_expansion(
        reward, torch.tensor([16.0, 16.0]), terminated, truncated=cut, discount=0.5
    )
    # 2 + 16/2 = 10, 1 + 10/2 = 6
    assert found.target.tolist() == [[6, 2], [10, 2], [0, 0]]
    assert found.valid.tolist() == [[True, True], [True, True], [False, False]]


def test_horizons_beyond_a_cut_have_its_target():
    cut = flags(1, steps=3)
    found = horizon_targets(REWARD[:3], NEXT[:3], NONE[:3], truncated=cut, discount=0.5)
    assert found.tolist() == [1 + 5, 1 + 1 + 5, 1 + 1 + 5]


def test_steve_by_hand():
    targets = torch.tensor([[0.0, 2.0], [4.0, 8.0]])  # means 1, 6; variances 1, 4
    found = steve(targets)
    assert found.target.item() == pytest.approx(0.8 * 1 + 0.2 * 6)
    assert found.weight.tolist() == pytest.approx([0.8, 0.2])
    agreed = torch.tensor([[3.0, 3.0], [4.0, 8.0]])
    assert steve(agreed).target.item() == pytest.approx(3.0)
    # weights 1 / (0 + 2) and 1 / (4 + 2)
    assert steve(agreed, floor=2.0).weight.tolist() == pytest.approx([0.75, 0.25])


def test_inverse_variance_weights_of_extreme_variances():
    found = inverse_variance_weights(torch.tensor([0.0, 0.0, 1.0]))
    assert found.tolist() == pytest.approx([0.5, 0.5, 0.0])
    # 1 / variance of ten of these would overflow in their sum
    assert inverse_variance_weights(torch.zeros(10)).tolist() == pytest.approx([0.1] * 10)
    assert inverse_variance_weights(torch.tensor([1e-30, 3e-30])).tolist() == pytest.approx(
        [0.75, 0.25]
    )


# Against the definitions, with random ends.


@laws
@given(random_data, shares)
def test_reward_to_go_is_the_sum(data, discount):
    def total(t, i):
        rows = data.segment(t, i)
        return sum(discount ** (row - t) * data.reward[row, i].item() for row in rows)

    def from_start(t, i):
        first, rows = data.start(t, i), data.segment(t, i)
        return sum(discount ** (row - first) * data.reward[row, i].item() for row in rows)

    def whole(t, i):
        return total(data.start(t, i), i)

    args = {"discount": discount, **data.ends}
    torch.testing.assert_close(reward_to_go(data.reward, **args), data.every(total))
    torch.testing.assert_close(
        reward_to_go(data.reward, **args, from_start=True), data.every(from_start)
    )
    torch.testing.assert_close(episode_returns(data.reward, **args), data.every(whole))


@laws
@given(random_data, shares)
def test_reward_to_go_with_ratios_weights_each_reward_by_the_actions_before(data, discount):
    def total(t, i):
        return sum(
            discount ** (row - t)
            * data.reward[row, i].item()
            * math.prod(data.ratio[t + 1 : row + 1, i].tolist())
            for row in data.segment(t, i)
        )

    found = reward_to_go(data.reward, **data.ends, discount=discount, ratio=data.ratio)
    torch.testing.assert_close(found, data.every(total))


@laws
@given(random_data, shares, st.integers(1, 15))
def test_n_step_is_the_sum(data, discount, n):
    found = n_step(data.reward, data.next_value, **data.ends, n=n, discount=discount)
    expected = data.every(lambda t, i: n_step_target(data, t, i, n, discount))
    torch.testing.assert_close(found, expected)


@laws
@given(random_data, shares, shares)
def test_lambda_returns_average_n_step_targets(data, discount, lambda_):
    def average(t, i):
        most = len(data.segment(t, i))
        targets = [n_step_target(data, t, i, n, discount) for n in range(1, most + 1)]
        weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, most)]
        weights.append(lambda_ ** (most - 1))
        return sum(w * target for w, target in zip(weights, targets, strict=True))

    found = lambda_returns(
        data.reward, data.next_value, **data.ends, discount=discount, lambda_=lambda_
    )
    torch.testing.assert_close(found, data.every(average))


@laws
@given(random_data, shares, shares)
def test_gae_is_the_sum_of_td_errors(data, discount, lambda_):
    def error(t, i):
        bootstrap = discount * data.bootstrap(t, i)
        return data.reward[t, i].item() + bootstrap - data.value[t, i].item()

    def total(t, i):
        return sum((discount * lambda_) ** (row - t) * error(row, i) for row in data.segment(t, i))

    args = {**data.ends, "discount": discount, "lambda_": lambda_}
    found = gae(data.reward, data.value, data.next_value, **args)
    torch.testing.assert_close(found, data.every(total))
    target = lambda_returns(data.reward, data.next_value, **args)
    torch.testing.assert_close(found + data.value, target)


@laws
@given(random_data, shares)
def test_lambda_0_is_td_and_lambda_1_is_monte_carlo(data, discount):
    args = data.reward, data.value, data.next_value
    td = gae(*args, **data.ends, discount=discount, lambda_=0.0)
    expected = data.every(lambda t, i: n_step_target(data, t, i, 1, discount)) - data.value
    torch.testing.assert_close(td, expected)
    monte_carlo = gae(*args, **data.ends, discount=discount, lambda_=1.0)
    expected = data.every(lambda t, i: n_step_target(data, t, i, 99, discount)) - data.value
    torch.testing.assert_close(monte_carlo, expected)


@laws
@given(random_data)
def test_of_episodes_that_terminate_lambda_1_is_the_reward_to_go(data):
    data.terminated |= data.truncated
    data.truncated = torch.zeros_like(data.truncated)
    data.terminated[-1] = True
    found = lambda_returns(data.reward, data.next_value, **data.ends, discount=0.9, lambda_=1.0)
    torch.testing.assert_close(found, reward_to_go(data.reward, **data.ends, discount=0.9))


@laws
@given(
    random_data, shares, shares, st.sampled_from([0.5, 1.0, math.inf]), st.sampled_from([0.5, 1.0])
)
def test_vtrace_is_the_sum(data, discount, lambda_, rho_bar, c_bar):
    def rho(t, i):
        return min(rho_bar, data.ratio[t, i].item())

    def target(t, i):
        total = data.value[t, i].item()
        for row in data.segment(t, i):
            product = math.prod(
                lambda_ * min(c_bar, data.ratio[k, i].item()) for k in range(t, row)
            )
            one_step = data.reward[row, i].item() + discount * data.bootstrap(row, i)
            error = one_step - data.value[row, i].item()
            total += discount ** (row - t) * product * rho(row, i) * error
        return total

    def advantage(t, i):
        goes_on = len(data.segment(t, i)) > 1
        after = target(t + 1, i) if goes_on else data.bootstrap(t, i)
        return rho(t, i) * (data.reward[t, i].item() + discount * after - data.value[t, i].item())

    found = vtrace(
        data.reward, data.value, data.next_value, data.ratio, **data.ends,
        discount=discount, lambda_=lambda_, rho_bar=rho_bar, c_bar=c_bar,
    )  # fmt: skip
    torch.testing.assert_close(found.target, data.every(target))
    torch.testing.assert_close(found.advantage, data.every(advantage))


@laws
@given(random_data, shares)
def test_on_policy_vtrace_is_the_n_step_target(data, discount):
    found = vtrace(
        data.reward, data.value, data.next_value, torch.ones_like(data.ratio), **data.ends,
        discount=discount,
    )  # fmt: skip
    expected = data.every(lambda t, i: n_step_target(data, t, i, 99, discount))
    torch.testing.assert_close(found.target, expected)


@laws
@given(random_data, shares, shares)
def test_retrace_is_the_sum(data, discount, lambda_):
    def target(t, i):
        total = data.q[t, i].item()
        for row in data.segment(t, i):
            product = math.prod(
                lambda_ * min(1.0, data.ratio[k, i].item()) for k in range(t + 1, row + 1)
            )
            one_step = data.reward[row, i].item() + discount * data.bootstrap(row, i)
            total += discount ** (row - t) * product * (one_step - data.q[row, i].item())
        return total

    found = retrace(
        data.reward, data.q, data.next_value, data.ratio, **data.ends,
        discount=discount, lambda_=lambda_,
    )  # fmt: skip
    torch.testing.assert_close(found, data.every(target))


@laws
@given(random_data, shares)
def test_value_expansion_is_the_sum(data, discount):
    def alive(t, i):
        return not data.terminated[:t, i].any()

    def target(t, i):
        if not alive(t, i):
            return 0.0
        total = 0.0
        for row in range(t, data.steps):
            total += discount ** (row - t) * data.reward[row, i].item()
            if data.terminated[row, i]:
                return total
        return total + discount ** (data.steps - t) * data.next_value[-1, i].item()

    found = value_expansion(data.reward, data.next_value[-1], data.terminated, discount=discount)
    torch.testing.assert_close(found.target, data.every(target))
    assert found.valid.tolist() == data.every(alive).bool().tolist()


@laws
@given(random_data, shares)
def test_horizon_targets_are_n_step_targets_of_the_first_state(data, discount):
    data.ended = data.terminated
    found = horizon_targets(data.reward, data.next_value, data.terminated, discount=discount)
    expected = data.every(lambda t, i: n_step_target(data, 0, i, t + 1, discount))
    torch.testing.assert_close(found, expected)


# The two loops, gradients, shapes.


@laws
@given(random_data, st.booleans())
def test_the_compiled_loop_is_the_loop_of_torch(data, single):
    dtype = torch.float32 if single else torch.float64
    increment, decay = data.reward.to(dtype), data.ratio.to(dtype)
    compiled = returns._numba_accumulate(increment, decay)
    assert torch.equal(compiled, returns._torch_accumulate(increment, decay))
    # views of other memory orders, as of arrays whose dimensions were moved
    turned = returns._numba_accumulate(increment.T.contiguous().T, decay)
    assert torch.equal(compiled, turned)


def test_gradients_reach_rewards_and_values():
    data = Data(6, 2, 0.2, seed=3)
    leaves = [x.requires_grad_() for x in (data.reward, data.value, data.next_value)]
    assert torch.autograd.gradcheck(
        lambda r, v, w: gae(r, v, w, **data.ends, discount=0.9, lambda_=0.8), leaves
    )
    assert torch.autograd.gradcheck(
        lambda r, v, w: vtrace(r, v, w, data.ratio, **data.ends, discount=0.9), leaves
    )
    assert torch.autograd.gradcheck(
        lambda r, v: value_expansion(r, v, data.terminated, discount=0.9).target,
        [data.reward, data.next_value[-1].detach().requires_grad_()],
    )
    with torch.no_grad():
        constant = gae(*leaves, **data.ends, discount=0.9, lambda_=0.8)
    assert torch.equal(constant, gae(*leaves, **data.ends, discount=0.9, lambda_=0.8))
    assert not constant.requires_grad


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_any_dimensions_after_time(lead):
    data = Data(5, 6, 0.2, seed=1)
    count = math.prod(lead)
    shape = (5, *lead)

    def cut(x):
        return x[:, :count].reshape(shape)

    args = (data.reward, data.value, data.next_value, data.terminated, data.truncated)
    found = gae(*map(cut, args), discount=0.9, lambda_=0.8)
    assert torch.equal(found, cut(gae(*args, discount=0.9, lambda_=0.8)))
    args = (data.reward, data.terminated, data.truncated)
    found = episode_returns(*map(cut, args), discount=0.9)
    assert torch.equal(found, cut(episode_returns(*args, discount=0.9)))


def test_inputs_stay_as_they_are():
    data = Data(5, 2, 0.2, seed=1)
    names = ("reward", "value", "next_value", "ratio", "terminated", "truncated")
    before = {name: getattr(data, name).clone() for name in names}
    args = data.reward, data.value, data.next_value
    vtrace(*args, data.ratio, **data.ends, discount=0.9)
    gae(*args, **data.ends, discount=0.9, lambda_=0.8)
    lambda_returns(data.reward, data.next_value, **data.ends, discount=0.9, lambda_=0.8)
    value_expansion(data.reward, data.next_value[-1], data.terminated, discount=0.9)
    assert all(torch.equal(getattr(data, name), value) for name, value in before.items())


# NaN and errors.


def test_nan_is_never_hidden_and_unused_values_do_not_matter():
    reward = REWARD.clone()
    reward[2] = math.nan
    found = gae(reward, NEXT, NEXT, NONE, NONE, discount=0.9, lambda_=0.8)
    assert found.isnan().tolist() == [True, True, True, False]
    for values in (NEXT, NEXT.clone().requires_grad_()):  # both loops
        found = gae(reward, values, values, flags(1), NONE, discount=0.9, lambda_=0.8)
        assert found.isnan().tolist() == [False, False, True, False]
    ratio = torch.tensor([1.0, math.nan, 1.0, 1.0])
    found = vtrace(REWARD, NEXT, NEXT, ratio, NONE, NONE, discount=0.9)
    assert found.target.isnan().tolist() == [True, True, False, False]
    ended = retrace(REWARD, NEXT, NEXT, ratio, flags(0), NONE, discount=0.9)
    assert ended.isnan().tolist() == [False] * 4  # Q is of the action taken in row 1
    ended = retrace(REWARD, NEXT, NEXT, ratio, NONE, NONE, discount=0.9)
    assert ended.isnan().tolist() == [True, False, False, False]
    after_the_end = NEXT.clone()
    after_the_end[1] = math.nan
    found = gae(REWARD, NEXT, after_the_end, flags(1), NONE, discount=0.9, lambda_=0.8)
    assert found.isfinite().all()


CALLS = {
    "reward_to_go": lambda d, **k: reward_to_go(d["reward"], d["terminated"], d["truncated"], **k),
    "episode_returns": lambda d, **k: episode_returns(
        d["reward"], d["terminated"], d["truncated"], **k
    ),
    "n_step": lambda d, **k: n_step(
        d["reward"], d["next_value"], d["terminated"], d["truncated"], n=2, **k
    ),
    "lambda_returns": lambda d, **k: lambda_returns(
        d["reward"], d["next_value"], d["terminated"], d["truncated"], **{"lambda_": 0.9, **k}
    ),
    "gae": lambda d, **k: gae(
        d["reward"], d["value"], d["next_value"], d["terminated"], d["truncated"],
        **{"lambda_": 0.9, **k},
    ),
    "vtrace": lambda d, **k: vtrace(
        d["reward"], d["value"], d["next_value"], d["ratio"], d["terminated"], d["truncated"], **k
    ),
    "retrace": lambda d, **k: retrace(
        d["reward"], d["value"], d["next_value"], d["ratio"], d["terminated"], d["truncated"], **k
    ),
    "value_expansion": lambda d, **k: value_expansion(
        d["reward"], d["next_value"][0], d["terminated"], **k
    ),
    "horizon_targets": lambda d, **k: horizon_targets(
        d["reward"], d["next_value"], d["terminated"], **k
    ),
}  # fmt: skip


def arguments():
    data = Data(4, 2, 0.2, seed=0)
    names = ("reward", "value", "next_value", "ratio", "terminated", "truncated")
    return {name: getattr(data, name) for name in names}


@pytest.mark.parametrize("name", CALLS)
def test_errors_of_every_function(name):
    call = CALLS[name]
    call(arguments(), discount=1)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"discount: must be in \[0, 1\]"):
            call(arguments(), discount=wrong)
    with pytest.raises(ValueError, match="terminated: want the shape"):
        call(arguments() | {"terminated": torch.zeros(4, 1).bool()}, discount=0.9)
    with pytest.raises(ValueError, match="terminated: must be bool"):
        call(arguments() | {"terminated": torch.zeros(4, 2)}, discount=0.9)
    with pytest.raises(ValueError, match="reward: want floating-point"):
        call(arguments() | {"reward": torch.zeros(4, 2).long()}, discount=0.9)
    empty = {key: value[:0] for key, value in arguments().items()}
    with pytest.raises(ValueError, match="reward: .* T >= 1"):
        call(empty | {"next_value": torch.zeros(1, 2)}, discount=0.9)


@pytest.mark.parametrize("name", ["lambda_returns", "gae", "vtrace", "retrace"])
def test_a_lambda_outside_0_to_1_is_refused(name):
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"lambda_: must be in \[0, 1\]"):
            CALLS[name](arguments(), discount=0.9, lambda_=wrong)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("n_step", "next_value"),
        ("lambda_returns", "next_value"),
        ("gae", "value"),
        ("vtrace", "ratio"),
        ("retrace", "ratio"),
        ("horizon_targets", "next_value"),
    ],
)
def test_values_that_would_broadcast_are_refused(name, column):
    wrong = arguments()[column][:, :1]
    with pytest.raises(ValueError, match=rf"{column}: want the shape \(4, 2\) .*got \(4, 1\)"):
        CALLS[name](arguments() | {column: wrong}, discount=0.9)


def test_other_errors():
    with pytest.raises(ValueError, match="n: must be an integer of at least 1, got 0"):
        n_step(REWARD, NEXT, NONE, NONE, n=0, discount=0.9)
    with pytest.raises(ValueError, match="got 1.5"):
        n_step(REWARD, NEXT, NONE, NONE, n=1.5, discount=0.9)
    for name in ("vtrace", "retrace"):
        with pytest.raises(ValueError, match="ratio: has negative values"):
            CALLS[name](arguments() | {"ratio": -torch.ones(4, 2)}, discount=0.9)
    with pytest.raises(ValueError, match="ratio: has negative values"):
        reward_to_go(REWARD, NONE, NONE, discount=0.9, ratio=-REWARD)
    with pytest.raises(ValueError, match="rho_bar: must be above 0"):
        CALLS["vtrace"](arguments(), discount=0.9, rho_bar=0.0)
    with pytest.raises(ValueError, match="c_bar: must be above 0, got nan"):
        CALLS["vtrace"](arguments(), discount=0.9, c_bar=math.nan)
    with pytest.raises(ValueError, match="last_value: want the shape"):
        value_expansion(REWARD, NEXT, NONE, discount=0.9)
    with pytest.raises(ValueError, match="E >= 2"):
        steve(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="variance: has negative values"):
        inverse_variance_weights(torch.tensor([-1.0, 1.0]))
