import math

import pytest
import torch

from mbrl.checks import check_batch, check_state
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
def test_the_message_names_the_wrong_column(change, said):
    with pytest.raises(ValueError, match=said):
        check_batch(batch()._replace(**change), (4, 2), ())


def test_a_single_transition_is_not_accepted_as_a_batch():
    one = Transition(*(part[0] for part in batch()))
    with pytest.raises(ValueError, match="must have shape"):
        check_batch(one, (4, 2), ())


FRESH = {
    "fits": 0,
    "mean": 0.0,
    "name": "a",
    "plan": None,
    "rows": torch.zeros(0, 3),
    "net": {"w": torch.zeros(2, 3), "bound": torch.full((1,), math.inf)},
    "each": [],
    "two": [1, 2],
    3: (True,),
}


def changed(**values):
    return FRESH | values


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mean": 3},
        {"plan": {"a": torch.ones(3)}},
        {"rows": torch.ones(7, 3), "each": [1, "x"]},
        {"net": {"w": torch.ones(2, 3), "bound": torch.full((1,), -math.inf)}},
    ],
)
def test_states_that_a_new_one_can_become_are_accepted(values):
    check_state(changed(**values), FRESH, "agent")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fits": "1"}, "agent/fits must be an integer, got a text"),
        ({"fits": True}, "agent/fits must be an integer, got true or false"),
        ({"mean": None}, "agent/mean must be a number, got nothing"),
        ({"name": 3}, "agent/name must be a text, got an integer"),
        ({"rows": torch.ones(7, 4)}, r"agent/rows must be float32 of shape \(0, 3\), got float32"),
        ({"rows": torch.ones(7, 3).int()}, "agent/rows must be float32 .* got int32"),
        ({"rows": 3}, "agent/rows must be a tensor, got an integer"),
        ({"net": []}, "agent/net must have names, got a list"),
        ({"net": {"w": torch.zeros(2, 3)}}, "agent/net/bound is missing"),
        ({"net": FRESH["net"] | {"x\x1b": 1}}, r"agent/net/x\\x1b is not known here"),
        ({"net": FRESH["net"] | {"w": torch.zeros(3, 2)}}, "agent/net/w must be float32 of shape"),
        ({"net": FRESH["net"] | {"w": torch.full((2, 3), math.nan)}}, "net/w holds a number that"),
        ({"each": {}}, "agent/each must be a list of 0, got names"),
        ({"two": [1]}, "agent/two must be a list of 2, got a list"),
        ({"two": [1, "x"]}, "agent/two/1 must be an integer"),
    ],
)
def test_the_message_names_the_first_place_that_differs(values, said):
    with pytest.raises(ValueError, match=said) as error:
        check_state(changed(**values), FRESH, "agent")
    assert "\n" not in str(error.value)
