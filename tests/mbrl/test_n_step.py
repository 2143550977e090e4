import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl import returns
from mbrl.data import NStep
from mbrl.types import Transition


def stream(steps, envs, seed=0, ends=0.15):
    """Steps (T, N); observations are (step, environment), and follow one another."""
    g = torch.Generator().manual_seed(seed)
    place = torch.stack(
        torch.meshgrid(torch.arange(steps), torch.arange(envs), indexing="ij"), -1
    ).float()
    flags = torch.rand(2, steps, envs, generator=g) < ends
    return Transition(
        place,
        torch.randint(9, (steps, envs), generator=g),
        torch.randn(steps, envs, generator=g),
        place + 0.5,
        flags[0],
        flags[1],
    )


def pushed(n_step, steps):
    parts = [n_step.push(Transition(*(x[t] for x in steps))) for t in range(len(steps.reward))]
    rows = Transition(*(torch.cat(x) for x in zip(*(part[0] for part in parts), strict=True)))
    return rows, torch.cat([part[1] for part in parts])


def value(obs):
    """Some value of an observation (..., 2)."""
    return (obs @ torch.tensor([0.7, -1.3])).sin()


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 6), envs=st.integers(1, 3), seed=st.integers(0, 999))
def test_targets_from_the_rows_are_those_of_whole_sequences(n, envs, seed):
    """r + discount · V(s') of each row against `returns.n_step` of the stream."""
    gamma, steps = 0.9, stream(25, envs, seed)
    wanted = returns.n_step(
        steps.reward, value(steps.next_obs), steps.terminated, steps.truncated, n=n, discount=gamma
    )
    rows, discount = pushed(NStep(n, discount=gamma), steps)
    t, env = rows.obs.long().unbind(-1)
    target = rows.reward + discount * value(rows.next_obs).masked_fill(rows.terminated, 0)
    torch.testing.assert_close(target, wanted[t, env])
    assert torch.equal(rows.action, steps.action[t, env])
    # every step is there once, but for those of unfinished windows at the end
    ended = steps.terminated | steps.truncated
    for e in range(envs):
        complete = [s for s in range(25) if s + n <= 25 or bool(ended[s:, e].any())]
        assert sorted(t[env == e].tolist()) == complete


def test_three_steps_by_hand():
    """γ = 1/2, rewards 1, 2, 4, 8; the fourth step ends the episode."""
    for name in ("terminated", "truncated"):
        n_step, found = NStep(3, discount=0.5), []
        for t, reward in enumerate([1.0, 2.0, 4.0, 8.0]):
            last = torch.tensor([t == 3])
            flags = {"terminated": last & False, "truncated": last & False, name: last}
            rows, discount = n_step.push(
                Transition(torch.tensor([[float(t)]]), torch.tensor([t]), torch.tensor([reward]),
                           torch.tensor([[t + 1.0]]), **flags)
            )  # fmt: skip
            found += zip(rows.obs[:, 0].tolist(), rows.reward.tolist(), discount.tolist(),
                         rows.next_obs[:, 0].tolist(), getattr(rows, name).tolist(),
                         strict=True)  # fmt: skip
        assert found == [
            (0, 1 + 1 + 1, 1 / 8, 3, False),  # 1 + 2/2 + 4/4
            (1, 2 + 2 + 2, 1 / 8, 4, True),  # 2 + 4/2 + 8/4
            (2, 4 + 4, 1 / 4, 4, True),
            (3, 8, 1 / 2, 4, True),
        ]


def test_one_step_passes_transitions_on():
    steps = stream(9, 2)
    rows, discount = pushed(NStep(1, discount=0.8), steps)
    assert all(torch.equal(a, b.flatten(0, 1)) for a, b in zip(rows, steps, strict=True))
    assert torch.equal(discount, torch.full((18,), 0.8))


def test_a_restored_accumulator_goes_on_where_it_was():
    steps = stream(20, 2, seed=4)
    first, second = Transition(*(x[:11] for x in steps)), Transition(*(x[11:] for x in steps))
    one, other = NStep(4, discount=0.9), NStep(4, discount=0.9)
    pushed(one, first)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    a, b = pushed(one, second), pushed(other, second)
    assert all(torch.equal(x, y) for x, y in zip((*a[0], a[1]), (*b[0], b[1]), strict=True))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="n: must be"):
        NStep(0, discount=0.9)
    with pytest.raises(ValueError, match="discount: must be"):
        NStep(2, discount=1.1)
    n_step = NStep(2, discount=0.9)
    pushed(n_step, stream(3, 2))
    with pytest.raises(ValueError, match="2 environments as before"):
        pushed(n_step, stream(3, 4))
    with pytest.raises(ValueError, match="want 3 steps"):
        NStep(3, discount=0.9).load_state_dict(n_step.state_dict())


def test_an_episode_that_is_given_up_leaves_no_row_across_its_end():
    """Environment 1 is given up after step 2; the rows are those of a stream without its last."""
    steps, window = stream(8, 2, ends=0.0), NStep(3, discount=0.9)
    first, rest = (Transition(*(x[part] for x in steps)) for part in (slice(3), slice(3, 8)))
    before, _ = pushed(window, first)
    window.give_up(torch.tensor([False, True]))
    after, discount = pushed(window, rest)
    t, env = torch.cat((before.obs, after.obs)).long().unbind(-1)
    assert sorted(t[env == 0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert sorted(t[env == 1].tolist()) == [0, 3, 4, 5]
    assert torch.allclose(discount, torch.tensor(0.9**3))
