import os

import pytest
import torch

from mbrl.training.executor import Processes

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers would wait for one another
    torch.set_num_threads(1)


@pytest.fixture
def inline(monkeypatch):
    """Makes studies compute in this process."""

    def compute(self, work, *, workers, say, done=lambda key, answer: None):
        answers = {key: job.function(*job.arguments) for key, job in work.items()}
        for key, answer in answers.items():
            done(key, answer)
        return answers

    monkeypatch.setattr(Processes, "compute", compute)
