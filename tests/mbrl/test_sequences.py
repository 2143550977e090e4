import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.data import SequenceReplay
from mbrl.types import Transition


def filled(capacity, environments, steps, ends, **others):
    """A buffer of steps (t, n) with obs t · 100 + n, and `ends` a set of (t, n) that end."""
    buffer = SequenceReplay(capacity, 1, 1, environments=environments, **others)
    for t in range(steps):
        obs = torch.tensor([[t * 100.0 + n] for n in range(environments)])
        over = torch.tensor([(t, n) in ends for n in range(environments)])
        cut = torch.zeros_like(over)
        buffer.append(Transition(obs, obs, obs[:, 0], obs + 100, over, cut))
    return buffer


def possible(capacity, environments, steps, ends, length):
    """The first observations of all sequences of `length` steps of one episode that are kept."""
    first = max(0, steps - capacity // environments)
    return {
        t * 100.0 + n
        for t in range(first, steps - length + 1)
        for n in range(environments)
        if not any((t + k, n) in ends for k in range(length - 1))
    }


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 25),
    st.integers(3, 40),
    st.integers(1, 5),
    st.sets(st.tuples(st.integers(0, 24), st.integers(0, 2)), max_size=25),
)
def test_sequences_are_all_those_of_one_episode_and_no_others(envs, steps, capacity, length, ends):
    buffer = filled(capacity, envs, steps, ends)
    wanted = possible(capacity, envs, steps, ends, length)
    draw = torch.Generator().manual_seed(0)
    assert buffer.holds(length) == bool(wanted)
    if not wanted:
        with pytest.raises(ValueError, match=f"no episode of {length} steps"):
            buffer.sequences(4, length, generator=draw)
        return
    found = buffer.sequences(60 * len(wanted), length, generator=draw)
    assert set(found.obs[:, 0, 0].tolist()) == wanted
    assert torch.equal(found.obs[:, 1:], found.next_obs[:, :-1])
    assert not found.terminated[:, :-1].any()


def test_starts_are_uniform():
    buffer = filled(30, 2, 15, {(4, 0), (9, 1)})
    wanted = possible(30, 2, 15, {(4, 0), (9, 1)}, 3)
    found = buffer.sequences(40_000, 3, generator=torch.Generator().manual_seed(1)).obs[:, 0, 0]
    shares = torch.tensor([(found == start).double().mean() for start in sorted(wanted)])
    expected = 1 / len(wanted)
    std = (expected * (1 - expected) / 40_000) ** 0.5
    assert ((shares - expected).abs() < 5 * std).all()


def test_images_and_named_columns_come_in_sequences_too():
    buffer = SequenceReplay(8, (2, 3), 1, obs_dtype=torch.uint8, environments=2)
    for t in range(4):
        image = torch.full((2, 2, 3), t, dtype=torch.uint8)
        row, no = torch.full((2,), float(t)), torch.zeros(2, dtype=torch.bool)
        buffer.append(Transition(image, row[:, None], row, image + 1, no, no))
    found = buffer.sequences(5, 3, generator=torch.Generator().manual_seed(0))
    assert found.obs.shape == (5, 3, 2, 3) and found.obs.dtype == torch.uint8
    assert torch.equal(found.obs[:, :, 0, 0].float(), found.reward)


@pytest.mark.parametrize(("environments", "capacity"), [(0, 5), (6, 5)])
def test_a_wrong_number_of_environments_is_refused(environments, capacity):
    with pytest.raises(ValueError, match=f"environments: want 1 to {capacity}"):
        SequenceReplay(capacity, 1, 1, environments=environments)


def test_a_length_below_one_and_a_step_of_other_environments_are_refused():
    buffer = filled(6, 2, 3, set())
    with pytest.raises(ValueError, match="length: want 1 or more"):
        buffer.sequences(1, 0, generator=torch.Generator())
    one = Transition(*(part[:1] for part in buffer.all()))
    with pytest.raises(ValueError, match="each of the 2 environments, got 1"):
        buffer.append(one)


def test_no_sequence_goes_on_where_an_episode_is_given_up():
    """In a full buffer of 2 x 5 steps; environment 0 is at its end there already."""
    buffer = filled(10, 2, 7, {(6, 0)})
    buffer.give_up(torch.tensor([True, True]))
    ends = buffer.rows(torch.tensor([8, 9]))
    assert ends.terminated.tolist() == [True, False] and ends.truncated.tolist() == [False, True]
    for t in (7, 8):
        obs = torch.tensor([[t * 100.0], [t * 100.0 + 1]])
        off = torch.zeros(2, dtype=torch.bool)
        buffer.append(Transition(obs, obs, obs[:, 0], obs + 100, off, off))
    found = buffer.sequences(200, 2, generator=torch.Generator().manual_seed(0))
    assert set(found.obs[:, 0, 0].tolist()) == possible(10, 2, 9, {(6, 0), (6, 1)}, 2)
