"""Work in other processes: order, threads, progress, errors."""

import os
import time

import pytest
import torch

from mbrl.training import executor
from mbrl.training.executor import Work, compute


def test_workers_are_other_processes_on_one_thread_and_answers_keep_their_order():
    lines: list[str] = []
    work = {key: Work(_who, (), key) for key in ("b", "a")}
    answers = compute(work, workers=1, say=lines.append)
    assert list(answers) == ["b", "a"]
    assert all(pid != os.getpid() and threads == 1 for pid, threads in answers.values())
    assert sum("done" in line for line in lines) == 2
    assert lines.count("hello") == 2


def _who() -> tuple[int, int]:
    executor.tell("hello")
    return os.getpid(), torch.get_num_threads()


def test_the_first_error_stops_the_others_and_comes_out():
    began = time.monotonic()
    with pytest.raises(OSError, match="no such thing"):
        compute(
            {"waits": Work(_until_stopped, (), ""), "fails": Work(_fail, (), "")},
            workers=2,
            say=lambda _: None,
        )
    assert time.monotonic() - began < 60  # the one that waits would for ever


def _until_stopped() -> None:
    while not executor.stopping():
        time.sleep(0.01)


def _fail() -> None:
    raise OSError("no such thing")
