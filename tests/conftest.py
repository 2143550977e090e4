import pytest

from mbrl.training import executor


@pytest.fixture
def inline(monkeypatch):
    """Studies do their work in this process."""

    def compute(work, *, workers, say, done=lambda key, answer: None):
        answers = {key: function(*arguments) for key, (function, arguments, _) in work.items()}
        for key, answer in answers.items():
            done(key, answer)
        return answers

    monkeypatch.setattr(executor, "compute", compute)
