"""A buffer of images that keeps each channel once returns what one that keeps all of them does."""

from collections import deque
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.data import NStep, PrioritisedReplay, Replay, SequenceReplay
from mbrl.data import frames as frames_module
from mbrl.types import Transition

SIZE = 8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stacks(steps, *, count=1, stack=3, colours=1, first=False, size=SIZE, ends=(), seed=0):
    """Steps of `count` environments as `Pixels` stacks them, with new frames of noise in each.

    At (t, n) of `ends` an episode ends; the stack of an episode's start repeats its first frame.
    """
    rng = np.random.default_rng(seed)
    axis = 0 if first else -1
    shape = (colours, size, size) if first else (size, size, colours)

    def frame():
        return rng.integers(0, 256, shape, dtype=np.uint8)

    seen = [deque([frame()] * stack, stack) for _ in range(count)]
    for t in range(steps):
        rows = []
        for n in range(count):
            obs = np.concatenate(seen[n], axis)
            seen[n].append(frame())
            over = (t, n) in ends
            rows.append((obs, [0.5], rng.normal(), np.concatenate(seen[n], axis), over, False))
            if over:
                seen[n].extend([frame()] * stack)
        columns = [torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True)]
        yield Transition(*columns)._replace(reward=columns[2].float(), action=columns[1].float())


def pair(capacity, shape, kind: Any = Replay, **others) -> list[Any]:
    return [
        kind(capacity, shape, 1, obs_dtype=torch.uint8, distinct=distinct, **others)
        for distinct in (False, True)
    ]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


WORLDS = st.fixed_dictionaries({
    "steps": st.integers(1, 25),
    "count": st.integers(1, 3),
    "stack": st.integers(1, 4),
    "colours": st.integers(1, 2),
    "first": st.booleans(),
    "ends": st.sets(st.tuples(st.integers(0, 24), st.integers(0, 2)), max_size=20),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(WORLDS, st.integers(3, 40), st.integers(1, 4))
def test_all_that_is_asked_for_is_what_a_buffer_of_whole_images_returns(world, capacity, length):
    channels = world["stack"] * world["colours"]
    shape = (channels, 9, 9) if world["first"] else (9, 9, channels)
    plain, once = pair(capacity, shape, SequenceReplay, environments=world["count"])
    for rows in stacks(**world, size=9):
        for buffer in (plain, once):
            buffer.append(rows)
    assert same(plain.all(), once.all())
    assert same(plain.sample(7, generator=seeded(1)), once.sample(7, generator=seeded(1)))
    assert same(plain.rows(slice(1, 4)), once.rows(slice(1, 4)))
    try:
        wanted = plain.sequences(5, length, generator=seeded(2))
    except ValueError:
        with pytest.raises(ValueError, match="no episode of"):
            once.sequences(5, length, generator=seeded(2))
    else:
        assert same(wanted, once.sequences(5, length, generator=seeded(2)))


def test_a_frame_is_kept_once_whatever_the_stack_and_the_last_one_of_an_episode_too():
    """Three episodes have one frame more than steps each."""
    _, once = pair(100, (SIZE, SIZE, 8))
    for rows in stacks(30, stack=4, colours=2, ends={(9, 0), (19, 0), (29, 0)}):
        once.append(rows)
    assert once.state_dict()["planes"].shape == (2 * (30 + 3), SIZE, SIZE)


def test_frames_of_overwritten_rows_make_place_for_new_ones():
    _, once = pair(10, (SIZE, SIZE, 3))
    for rows in stacks(200, ends={(t, 0) for t in range(0, 200, 7)}):
        once.append(rows)
    wanted = torch.cat([once.all().obs, once.all().next_obs]).permute(0, 3, 1, 2).flatten(0, 1)
    assert len(once.state_dict()["planes"]) == len(wanted.unique(dim=0))
    # twelve rows are in use while one takes the place of another, and a start adds a frame
    assert once._planes is not None and len(once._planes._keys) <= 10 + 2 + 3


@pytest.mark.parametrize("kind", [Replay, PrioritisedReplay])
def test_n_step_rows_of_several_environments_share_frames(kind):
    plain, once = pair(60, (SIZE, SIZE, 3), kind, extra={"discount": ()})
    window = NStep(3, discount=0.9)
    for rows in stacks(20, count=2, ends={(8, 1), (14, 0)}):
        rows, discount = window.push(rows)
        for buffer in (plain, once):
            buffer.append(rows, discount=discount)
    assert same(plain.all(), once.all())
    index = torch.tensor([3, 0, 17])
    a, b = plain.columns(index), once.columns(index)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert len(once.state_dict()["planes"]) == 2 * 20 + 4  # and a first one of four episodes


def test_memory_is_at_most_a_tenth_more_than_that_of_the_frames():
    """Numbers, digests and counts included, with 64 x 64 in colour; whole images take six times."""
    _, once = pair(300, (64, 64, 9))
    for rows in stacks(300, stack=3, colours=3, size=64, ends={(99, 0), (199, 0), (299, 0)}):
        once.append(rows)
    planes = once._planes
    assert planes is not None
    own = sum(kept.nbytes for kept in once._separate.values()) + once._rows.nbytes
    digests = len(planes) * (49 + 100 + 8 + 8)  # a digest, its place in a dict, two numbers
    assert planes.nbytes + own + digests <= 1.1 * 300 * 64 * 64 * 3


def test_a_saved_buffer_is_the_same_wherever_its_frames_lie():
    ends = {(t, 0) for t in (5, 11, 12)}
    steps = list(stacks(30, ends=ends))
    _, whole = pair(8, (SIZE, SIZE, 3))
    _, parts = pair(8, (SIZE, SIZE, 3))
    for k, rows in enumerate(steps):
        whole.append(rows)
        parts.append(rows)
        if k in (3, 17):
            _, fresh = pair(8, (SIZE, SIZE, 3))
            fresh.append(steps[0])  # what it had before must have no effect
            fresh.load_state_dict(parts.state_dict())
            parts = fresh
    a, b = whole.state_dict(), parts.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[n]), torch.as_tensor(b[n]))
                                        for n in a)  # fmt: skip
    assert same(whole.all(), parts.all())


def test_frames_in_several_blocks_of_memory_are_found(monkeypatch):
    monkeypatch.setattr(frames_module, "BLOCK", 5 * SIZE * SIZE)
    plain, once = pair(12, (SIZE, SIZE, 3))
    for rows in stacks(40, ends={(11, 0), (30, 0)}):
        for buffer in (plain, once):
            buffer.append(rows)
    assert same(plain.all(), once.all())
    assert same(plain.sample(9, generator=seeded()), once.sample(9, generator=seeded()))
    _, copy = pair(12, (SIZE, SIZE, 3))
    copy.load_state_dict(once.state_dict())
    assert same(plain.all(), copy.all())


def test_what_a_full_buffer_needs_is_refused_as_soon_as_it_shows(monkeypatch):
    monkeypatch.setattr(frames_module, "BLOCK", 5 * SIZE * SIZE)
    asked = []
    monkeypatch.setattr(
        frames_module, "check_memory", lambda what, size, device: asked.append((what, size))
    )
    _, once = pair(100, (SIZE, SIZE, 3))
    for rows in stacks(9):
        once.append(rows)
    # the second block is wanted for the sixth plane, with five rows of a hundred
    (_, one), (what, rest) = asked
    assert what == "capacity 100: the replay buffer"
    assert one == 5 * SIZE * SIZE and rest == pytest.approx(5 * SIZE * SIZE * (100 / 5 - 1))


def test_what_is_no_image_of_uint8_is_refused_and_changes_nothing():
    with pytest.raises(ValueError, match="distinct: want images of uint8, got torch.float32"):
        Replay(4, (8, 8, 3), 1, distinct=True)
    with pytest.raises(ValueError, match="distinct: want images of uint8"):
        Replay(4, 8, 1, obs_dtype=torch.uint8, distinct=True)
    _, once = pair(4, (SIZE, SIZE, 3))
    rows, other = stacks(2)
    once.append(rows)
    with pytest.raises(ValueError, match="next_obs: want images of uint8, got torch.float32"):
        once.append(other._replace(next_obs=other.next_obs / 255))
    with pytest.raises(ValueError, match="obs has shape"):
        once.append(other._replace(obs=other.obs[:, :4]))
    assert same(once.all(), rows)
    state = once.state_dict()
    for change, says in (
        ({"planes": state["planes"].float()}, "replay planes of shape .* torch.float32 do not fit"),
        ({"planes": state["planes"][:1]}, "replay planes: there are 1, and rows name others"),
        ({"planes": state["planes"][:, :4]}, "replay planes of shape"),
        ({"planes": torch.zeros_like(state["planes"])}, "replay planes: want distinct ones"),
    ):
        with pytest.raises(ValueError, match=says):
            once.load_state_dict(state | change)
        assert same(once.all(), rows)


def test_equal_channels_are_stored_once_and_kept_while_one_row_has_them():
    """A wall that never moves is one plane, as long as any row shows it."""
    _, once = pair(3, (SIZE, SIZE, 2))
    wall = torch.full((SIZE, SIZE), 9, dtype=torch.uint8)
    none = torch.tensor(False)
    shown = [torch.stack((torch.full_like(wall, k), wall), -1) for k in range(9)]
    for obs, after in pairwise(shown):
        once.append(Transition(obs, torch.zeros(1), torch.tensor(0.0), after, none, none))
    assert torch.equal(once.all().obs, torch.stack(shown[5:8]))
    assert len(once.state_dict()["planes"]) == 4 + 1
