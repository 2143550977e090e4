import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.data import Normaliser, Replay, moments
from mbrl.types import Transition


def transition(k, *, terminated=False, truncated=False, obs=2, action=1):
    """The k-th transition of a stream, whose numbers all depend on k."""
    return Transition(
        torch.full((obs,), float(k)),
        torch.full((action,), k + 0.25),
        torch.tensor(k + 0.5),
        torch.full((obs,), k + 1.0),
        torch.tensor(terminated),
        torch.tensor(truncated),
    )


def batch(transitions):
    return Transition(*(torch.stack(part) for part in zip(*transitions, strict=True)))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


ends = st.sampled_from(["goes on", "terminated", "truncated", "both"])


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 7),
    pieces=st.lists(st.lists(ends, min_size=1, max_size=10), max_size=6),
    singly=st.booleans(),
)
def test_the_buffer_equals_a_list_of_the_last_transitions(capacity, pieces, singly):
    """Against a Python list, with batches of any length or single rows."""
    buffer, reference, k = Replay(capacity, 2, 1), [], 0
    for piece in pieces:
        fresh = [transition(k + i, terminated=end in ("terminated", "both"),
                            truncated=end in ("truncated", "both"))
                 for i, end in enumerate(piece)]  # fmt: skip
        k += len(piece)
        reference = (reference + fresh)[-capacity:]
        if singly:
            for step in fresh:
                buffer.append(step)
        else:
            buffer.append(batch(fresh))
    assert len(buffer) == len(reference)
    if not reference:
        return
    assert same(buffer.all(), batch(reference))
    for index in (slice(0, 2), slice(1, None), torch.tensor([len(reference) - 1, 0, 0])):
        rows = index if isinstance(index, slice) else index.tolist()
        wanted = reference[rows] if isinstance(rows, slice) else [reference[i] for i in rows]
        if wanted:
            assert same(buffer.rows(index), batch(wanted))


@pytest.mark.parametrize("count", [3, 5, 8, 13])
def test_a_loaded_buffer_equals_the_saved_one_and_overwrites_its_oldest_rows(count):
    buffer, copy = Replay(5, 2, 1), Replay(5, 2, 1)
    for k in range(count):
        buffer.append(transition(k, terminated=k == count - 2, truncated=k % 4 == 3))
    copy.append(transition(99))
    copy.load_state_dict(buffer.state_dict())
    for k in range(count, count + 7):
        assert same(copy.all(), buffer.all())
        copy.append(transition(k))
        buffer.append(transition(k))


def test_a_state_dict_is_a_copy():
    buffer = Replay(3, 2, 1)
    buffer.append(transition(0))
    state = buffer.state_dict()
    buffer.append(batch([transition(k) for k in (1, 2, 3)]))
    copy = Replay(3, 2, 1)
    copy.load_state_dict(state)
    assert same(copy.all(), batch([transition(0)]))


def test_state_dicts_of_other_buffers_are_refused():
    narrow, small, full = Replay(3, 1, 1), Replay(2, 2, 1), Replay(3, 2, 1)
    full.append(batch([transition(k) for k in range(3)]))
    for other in (narrow, small):
        with pytest.raises(ValueError, match="replay rows of shape .* do not fit a buffer of"):
            other.load_state_dict(full.state_dict())


def test_sampling_is_uniform_and_draws_only_from_its_generator():
    buffer = Replay(4, 2, 1)
    buffer.append(batch([transition(k) for k in range(6)]))
    global_state = torch.get_rng_state()
    draws = buffer.sample(40_000, generator=torch.Generator().manual_seed(0))
    again = buffer.sample(40_000, generator=torch.Generator().manual_seed(0))
    assert same(draws, again)
    assert torch.equal(torch.get_rng_state(), global_state)
    values, counts = draws.obs[:, 0].unique(return_counts=True)
    assert values.tolist() == [2.0, 3.0, 4.0, 5.0]
    # each count has std sqrt(40000 · 3/16) = 87
    assert (counts - 10_000).abs().max() < 4 * 87
    assert torch.equal(draws.action[:, 0], draws.obs[:, 0] + 0.25)
    with pytest.raises(ValueError, match="empty replay buffer"):
        Replay(4, 2, 1).sample(1, generator=torch.Generator())


@pytest.mark.parametrize("name", ["obs", "action", "reward", "next_obs"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_numbers_that_are_not_finite_in_float32_are_refused(name, value):
    """1e39 is finite in float64 and infinite in float32, in which it would be stored."""
    step = transition(0)
    wrong = step._replace(**{name: torch.full_like(getattr(step, name).double(), value)})
    buffer = Replay(3, 2, 1)
    with pytest.raises(ValueError, match=f"{name} holds a number that is not finite"):
        buffer.append(wrong)
    assert len(buffer) == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("obs", torch.zeros(3), r"obs has shape \(3,\), not \(2,\)"),
        ("action", torch.zeros(2), r"action has shape \(2,\), not \(1,\)"),
        ("reward", torch.zeros(1), r"reward has shape \(1,\), not \(\)"),
        ("next_obs", torch.zeros(1, 2), r"next_obs has shape \(1, 2\), not \(2,\)"),
        ("terminated", torch.zeros(2), r"terminated has shape \(2,\), not \(\)"),
    ],
)
def test_wrong_shapes_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Replay(3, 2, 1).append(transition(0)._replace(**{name: value}))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="must be >= 1, got"):
        Replay(*sizes)


MEASURE = """
import torch
from mbrl.data import Replay
from mbrl.types import Transition

def resident():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Rss"):
            return int(line.split()[1]) * 1024

def piece():
    return Transition(torch.ones(1000, 18), torch.ones(1000, 5), torch.ones(1000),
                      torch.ones(1000, 18), *torch.zeros(2, 1000))

Replay(10, 18, 5).append(piece())
before = resident()
buffer = Replay(1_000_000, 18, 5)
reserved = resident() - before
for _ in range(1000):
    buffer.append(piece())
view = buffer.all()
assert len(view.obs) == 1_000_000 and bool(view.next_obs[-1, -1] == 1)
print(reserved, resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_a_million_transitions_take_at_most_a_fifth_more_than_their_floats():
    """Rows of 23 + 18 floats; the memory of the process is measured."""
    out = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120
    )
    reserved, held = map(int, out.stdout.split())
    assert reserved < 10e6
    assert held < 1.2 * 1_000_000 * (23 + 18) * 4


def test_moments_are_exact_far_from_zero():
    """Around 1e6 a float32 sum of squares has no correct digit of a std of one."""
    x = 1e6 + torch.tensor([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    mean, std = moments(x)
    assert mean.dtype == std.dtype == torch.float64
    assert mean.tolist() == [1e6, 1e6]
    assert std.tolist() == [1.0, 0.0]  # the second column is constant


def test_a_normalisers_inverse_undoes_its_scaling():
    x = torch.tensor([[1.0, 5.0, 1e-9], [3.0, 5.0, 3e-9]])
    normaliser = Normaliser(3)
    assert torch.equal(normaliser.scale(x), x)
    normaliser.fit(x)
    scaled = normaliser.scale(x)
    wanted = torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]])
    torch.testing.assert_close(scaled, wanted)
    torch.testing.assert_close(normaliser.unscale(scaled), x, rtol=1e-6, atol=0)
    assert normaliser.unscale(torch.full((3,), 9.0))[1] == 5.0  # it was constant
    other = Normaliser(3)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other.scale(x), scaled)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e9])
def test_whether_a_column_is_constant_does_not_depend_on_its_unit(unit):
    """A change by a thousandth of the mean counts, rounding errors do not."""
    wave = torch.sin(torch.arange(1000.0, dtype=torch.float64))
    columns = (wave, 1 + 1e-3 * wave, 1 + 1e-12 * wave, torch.full_like(wave, 0.1), 0 * wave)
    std = moments(unit * torch.stack(columns, -1))[1]
    assert (std > 0).tolist() == [True, True, False, False, False]
    torch.testing.assert_close(std[0] / unit, wave.std(correction=0))
    dust = 1e-17 * wave.unsqueeze(-1)  # of a constant near 1
    assert moments(dust)[1] == 0


def image_transition(k):
    """An image, an index as the action, and a further column, which all depend on k."""
    image = torch.full((3, 4, 4), k % 256, dtype=torch.uint8)
    fields = (image, torch.tensor(k), torch.tensor(k + 0.5), image + 1, torch.tensor(k % 5 == 4))
    return Transition(*fields, torch.tensor(False))


def images(capacity):
    return Replay(
        capacity, (3, 4, 4), (), obs_dtype=torch.uint8, action_dtype=torch.int64,
        extra={"log_prob": (), "hidden": (2, 3)},
    )  # fmt: skip


@pytest.mark.parametrize("count", [3, 5, 13])
def test_images_indices_and_further_columns_are_kept_as_they_are(count):
    buffer, copy = images(5), images(5)
    steps = [image_transition(k) for k in range(count)]
    hidden = torch.arange(count).view(-1, 1, 1).expand(count, 2, 3)
    buffer.append(batch(steps[:2]), log_prob=torch.arange(2.0), hidden=hidden[:2])
    for k in range(2, count):
        buffer.append(steps[k], log_prob=torch.tensor(float(k)), hidden=hidden[k])
    kept = slice(max(0, count - 5), count)
    copy.load_state_dict(buffer.state_dict())
    for one in (buffer, copy):
        assert same(one.all(), batch(steps[kept]))
        assert one.all().obs.dtype == torch.uint8 and one.all().action.dtype == torch.int64
        columns = one.columns(slice(None))
        assert torch.equal(columns["log_prob"], torch.arange(float(count))[kept])
        assert torch.equal(columns["hidden"], hidden[kept].float())
    index = buffer.draw(20, generator=torch.Generator().manual_seed(0))
    drawn = buffer.columns(index)
    assert torch.equal(drawn["action"].float(), drawn["log_prob"])
    again = buffer.sample(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.action, drawn["action"])


def test_float_arrays_of_any_shape_are_stored_in_one_block():
    """Matrices as observations are returned unchanged."""
    buffer = Replay(4, (2, 3), (1, 2))
    obs, action = torch.randn(6, 2, 3), torch.randn(6, 1, 2)
    none = torch.zeros(6) > 0
    steps = Transition(obs, action, torch.arange(6.0), -obs, none, none)
    buffer.append(steps)
    assert same(buffer.all(), Transition(*(part[2:] for part in steps)))
    assert same(buffer.rows(torch.tensor([1, 0])), Transition(*(p[[3, 2]] for p in steps)))
    assert [*buffer.state_dict()] == ["rows", "written"]


def test_further_columns_that_do_not_fit_are_refused():
    step = image_transition(0)
    buffer = images(3)
    with pytest.raises(ValueError, match=r"further columns are .*'log_prob', 'hidden'.*, got \[\]"):
        buffer.append(step)
    with pytest.raises(ValueError, match=r"hidden has shape \(2,\), not \(2, 3\)"):
        buffer.append(step, log_prob=torch.tensor(0.0), hidden=torch.zeros(2))
    with pytest.raises(ValueError, match="log_prob holds a number that is not finite"):
        buffer.append(step, log_prob=torch.tensor(math.nan), hidden=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="must not have one of the names"):
        Replay(3, 1, 1, extra={"reward": ()})
    state = buffer.state_dict()
    with pytest.raises(ValueError, match="replay columns .* are not rows, written"):
        buffer.load_state_dict({name: state[name] for name in ("rows", "written")})
    with pytest.raises(ValueError, match="replay column action of shape .* does not fit"):
        buffer.load_state_dict(state | {"action": torch.zeros(0)})
    assert len(buffer) == 0
