"""What is done in every update or imagined step does not wait for the device more than it must.

On CUDA a program waits where a number is asked for, and where a tensor is copied to the device.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mbrl.checks import check_batch
from mbrl.dynamics import EnsembleConfig
from mbrl.types import Transition

NUMBER, COPY = "aten._local_scalar_dense.default", "aten._to_copy.default"


class Operations(TorchDispatchMode):
    """Keeps the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def batch(**columns):
    rows, never = torch.ones(5, 2), torch.zeros(5, dtype=torch.bool)
    return Transition(rows, rows, rows[:, 0], rows, never, never)._replace(**columns)


def test_the_check_of_a_batch_asks_a_device_for_one_number(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)  # as on CUDA
    with Operations() as seen:
        check_batch(batch(), (2,), (2,))
    assert seen.names.count(NUMBER) == 1


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["obs", "action", "next_obs"])
def test_the_check_of_a_batch_finds_the_column_that_is_not_finite(name, value, cpu, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", cpu)
    wrong = torch.ones(5, 2)
    wrong[3, 1] = value
    with pytest.raises(ValueError, match=f"^{name} holds a number that is not finite"):
        check_batch(batch(**{name: wrong}), (2,), (2,))
    both = {"obs": wrong, "reward": -wrong[:, 1]}  # inf - inf
    with pytest.raises(ValueError, match="^obs holds a number that is not finite"):
        check_batch(batch(**both), (2,), (2,))


def test_large_numbers_whose_sum_is_not_finite_are_accepted():
    check_batch(batch(obs=torch.full((5, 2), 3e38)), (2,), (2,))


@pytest.mark.parametrize("learned", [True, False])
def test_an_imagined_step_copies_nothing_to_the_device(learned):
    config = EnsembleConfig(members=2, hidden=(4,), learn_reward=learned, learn_termination=learned)
    model = config.make(3, 1, generator=torch.Generator()).to("meta").requires_grad_(False)
    state, action = torch.zeros(2, 5, 3, device="meta"), torch.zeros(2, 5, 1, device="meta")
    model.step(state, action, noise=state)  # which folds the scalers into the weights
    with Operations() as seen:
        step = model.step(state, action, noise=state)
    assert COPY not in seen.names and NUMBER not in seen.names
    assert step.terminated.shape == (2, 5) and step.terminated.dtype == torch.bool
