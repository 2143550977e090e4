import math

import pytest
import torch

from mbrl.checks import check_batch
from mbrl.types import Transition


def batch(count=3):
    state, action, none = torch.zeros(count, 4, 2), torch.zeros(count), torch.zeros(count) > 0
    return Transition(state, action, torch.zeros(count), state, none, none)


def test_any_shapes_of_observations_and_actions_pass():
    check_batch(batch(), (4, 2), ())
    check_batch(batch(0), (4, 2), ())
    check_batch(batch()._replace(action=torch.ones(3, dtype=torch.int64)), (4, 2), ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"obs": torch.zeros(3, 4)}, r"obs must have shape \(3, 4, 2\), got \(3, 4\)"),
        ({"action": torch.zeros(2)}, r"action must have shape \(3,\), got \(2,\)"),
        ({"reward": torch.zeros(3, 1)}, r"reward must have shape \(3,\), got \(3, 1\)"),
        ({"truncated": torch.zeros(4) > 0}, r"truncated must have shape \(3,\), got \(4,\)"),
        ({"next_obs": torch.full((3, 4, 2), math.nan)}, "next_obs holds a number that is not"),
        ({"reward": torch.tensor([0.0, 0.0, math.inf])}, "reward holds a number that is not"),
    ],
)
def test_the_column_at_fault_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        check_batch(batch()._replace(**change), (4, 2), ())


def test_a_single_transition_is_not_accepted_as_a_batch():
    one = Transition(*(part[0] for part in batch()))
    with pytest.raises(ValueError, match="must have shape"):
        check_batch(one, (4, 2), ())
