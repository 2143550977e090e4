import math

import pytest
import torch

from mbrl.data import PrioritisedReplay
from mbrl.types import Transition


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(first, count):
    """Transitions whose numbers all tell their place in the stream."""
    k = torch.arange(first, first + count, dtype=torch.float32)
    ends = torch.zeros(count, dtype=torch.bool)
    return Transition(k[:, None], k[:, None], k, k[:, None], ends, ends)


def filled(count, capacity=None, **settings):
    buffer = PrioritisedReplay(capacity or count, 1, 1, **settings)
    buffer.append(rows(0, count))
    return buffer


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_rows_are_drawn_in_proportion_to_their_priority(alpha, count):
    """Against probabilities by the formula, within five standard errors of independent draws."""
    buffer = filled(count, alpha=alpha, floor=0.01)
    error = torch.linspace(-2, 3, count)
    buffer.prioritise(torch.arange(count), error)
    powers = [(abs(x) + 0.01) ** alpha for x in error.tolist()]
    wanted = torch.tensor([p / sum(powers) for p in powers], dtype=torch.float64)
    torch.testing.assert_close(buffer.probabilities(), wanted)
    g, draws = seeded(), 500
    drawn = torch.cat([buffer.draw(32, generator=g) for _ in range(draws)])
    share = torch.bincount(drawn, minlength=count) / len(drawn)
    assert ((share - wanted).abs() <= 5 * (wanted * (1 - wanted) / len(drawn)).sqrt()).all()


def test_each_equal_part_of_the_total_is_drawn_from_once():
    """With priorities 1, 1 and 2 and four draws, the counts are always 1, 1 and 2."""
    buffer = filled(3, alpha=1.0)
    buffer.prioritise(torch.arange(3), torch.tensor([1.0, 1.0, 2.0]) - buffer.floor)
    g = seeded()
    for _ in range(50):
        assert torch.bincount(buffer.draw(4, generator=g)).tolist() == [1, 1, 2]


def test_weights_are_the_inverse_probabilities_relative_to_the_greatest_of_them():
    """Priorities 1, 2 and 4 with β = 0.5: weights 1, 1/√2 and 1/2."""
    buffer = filled(3, alpha=1.0)
    buffer.prioritise(torch.arange(3), torch.tensor([1.0, 2.0, 4.0]) - buffer.floor)
    index = torch.tensor([0, 2, 1, 0])
    weights = buffer.weights(index, beta=0.5)
    torch.testing.assert_close(weights, torch.tensor([1, 0.5, 1 / math.sqrt(2), 1]))
    assert torch.equal(buffer.weights(index, beta=0.0), torch.ones(4))
    # (T p)^-1 divided by its greatest: of the rows 1 and 2 alone
    assert buffer.weights(torch.tensor([1, 2]), beta=1.0).tolist() == pytest.approx([1, 0.5])


def test_with_full_correction_the_weighted_mean_is_the_mean_over_all_rows():
    """Importance sampling by hand: Σ p w r / Σ p w = Σ r / T for β = 1."""
    buffer = filled(6, alpha=0.7)
    buffer.prioritise(torch.arange(6), torch.tensor([0.1, 5.0, 2.0, 0.0, 1.0, 3.0]))
    p = buffer.probabilities()
    w = buffer.weights(torch.arange(6), beta=1.0).double()
    reward = buffer.all().reward.double()
    assert float((p * w * reward).sum() / (p * w).sum()) == pytest.approx(2.5, rel=1e-6)


def test_new_rows_have_the_greatest_priority_so_far_also_after_it_was_lowered():
    buffer = filled(2, capacity=4, alpha=1.0)
    buffer.prioritise(torch.arange(2), torch.tensor([7.0, 0.5]))
    buffer.prioritise(torch.arange(1), torch.tensor([0.5]))
    buffer.append(rows(2, 1))
    wanted = torch.tensor([0.5, 0.5, 7.0], dtype=torch.float64)
    torch.testing.assert_close(buffer.probabilities(), wanted / wanted.sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("pieces", [[3, 3, 3], [5, 1, 1, 4], [12], [4, 9]])
def test_priorities_stay_with_their_rows_when_the_oldest_are_overwritten(pieces):
    """Against a list of (reward, priority); the priority of a row is its reward plus one."""
    buffer, reference, first = PrioritisedReplay(5, 1, 1, alpha=1.0), [], 0
    for count in pieces:
        buffer.append(rows(first, count))
        reference = [*reference, *range(first, first + count)][-5:]
        first += count
        kept = buffer.all().reward
        assert kept.tolist() == reference
        buffer.prioritise(torch.arange(len(reference)), kept + 1)
        wanted = torch.tensor([r + 1.0 for r in reference], dtype=torch.float64)
        torch.testing.assert_close(buffer.probabilities(), wanted / wanted.sum())
    least, most = torch.tensor([0]), torch.tensor([len(reference) - 1])
    ratio = float(buffer.weights(torch.cat((least, most)), beta=1.0)[1])
    assert ratio == pytest.approx((reference[0] + 1) / (reference[-1] + 1), rel=1e-5)
    drawn = buffer.sample(2000, generator=seeded()).reward
    expected = sum(r * (r + 1) for r in reference) / sum(r + 1 for r in reference)
    assert float(drawn.mean()) == pytest.approx(expected, abs=0.02 * max(1, expected))


def test_random_changes_give_the_probabilities_of_a_plain_list():
    g, buffer, kept = seeded(3), filled(37, alpha=0.5), [1.0] * 37
    for _ in range(40):
        index = torch.randint(37, (9,), generator=g)
        error = 10 * torch.randn(9, generator=g)
        buffer.prioritise(index, error)
        for i, e in zip(index.tolist(), error.tolist(), strict=True):
            kept[i] = (abs(e) + buffer.floor) ** 0.5
    wanted = torch.tensor(kept, dtype=torch.float64)
    torch.testing.assert_close(buffer.probabilities(), wanted / wanted.sum())
    assert buffer._tree[1] == pytest.approx(sum(kept))


@pytest.mark.parametrize("count", [3, 5, 13])
def test_a_loaded_buffer_has_the_same_bytes_and_draws_the_same(count):
    first, second = PrioritisedReplay(5, 1, 1), PrioritisedReplay(5, 1, 1)
    first.append(rows(0, count))
    first.prioritise(torch.arange(2), torch.tensor([0.3, 9.0]))
    second.append(rows(50, 9))
    second.prioritise(torch.arange(5), torch.full((5,), 99.0))
    second.load_state_dict(first.state_dict())
    assert first._tree.tobytes() == second._tree.tobytes()
    for buffer in (first, second):
        buffer.append(rows(90, 2))
    g, h = seeded(4), seeded(4)
    a, b = first.sample(64, generator=g), second.sample(64, generator=h)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_further_columns_are_drawn_by_index():
    buffer = PrioritisedReplay(8, 1, 1, extra={"discount": ()})
    buffer.append(rows(0, 8), discount=torch.arange(8) / 10)
    index = buffer.draw(16, generator=seeded())
    columns = buffer.columns(index)
    torch.testing.assert_close(columns["discount"], columns["reward"] / 10)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    buffer = filled(4)
    before = buffer.state_dict()
    with pytest.raises(ValueError, match="error: want the shape"):
        buffer.prioritise(torch.arange(3), torch.ones(2))
    with pytest.raises(ValueError, match="error: holds a number that is not finite"):
        buffer.prioritise(torch.arange(2), torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="beta: must be"):
        buffer.weights(torch.arange(2), beta=1.5)
    with pytest.raises(ValueError, match="priorities: want 4"):
        buffer.load_state_dict({**before, "priority": -before["priority"]})
    with pytest.raises(ValueError, match="reward holds a number that is not finite"):
        buffer.append(rows(0, 2)._replace(reward=torch.tensor([1.0, math.inf])))
    after = buffer.state_dict()
    assert torch.equal(before["priority"], after["priority"])
    assert before["written"] == after["written"] and before["most"] == after["most"]
    with pytest.raises(ValueError, match="empty"):
        PrioritisedReplay(4, 1, 1).draw(2, generator=seeded())
    with pytest.raises(ValueError, match="alpha and floor"):
        PrioritisedReplay(4, 1, 1, alpha=-1.0)
