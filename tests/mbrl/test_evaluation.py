"""Errors of a simulator's motion."""

import numpy as np
import pytest

import envs
from mbrl.dynamics import Simulator
from mbrl.evaluation import motion_error


def test_the_motion_of_the_true_simulator_has_no_error_and_that_of_another_has():
    task = envs.TASKS["cartpole-swingup"]
    true, other = Simulator(task), Simulator(task)
    other.model.opt.gravity[:] = 0
    states = np.stack([true.state(*task.initial(np.random.default_rng(k))) for k in range(3)])
    found = [
        motion_error(true, sim, states, seconds=0.2, rng=np.random.default_rng(0))
        for sim in (true, other)
    ]
    assert found[0] == pytest.approx(0, abs=1e-12) and found[1] > 1e-4
