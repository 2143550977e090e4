"""Work in processes on this machine: order, threads, progress, errors, processes that are lost."""

import os
import time
from dataclasses import replace

import pytest

import envs
from mbrl.agents import random
from mbrl.training import executor
from mbrl.training.executor import ExecutorError, Processes, Work
from mbrl.training.metrics import METRICS, read_metrics
from mbrl.training.run_config import RunConfig
from mbrl.training.seeds import train_all
from tests import jobs


def compute(work, *, workers=2, say=lambda _: None, **settings):
    return Processes().compute(work, workers=workers, say=say, **settings)


def test_workers_are_processes_with_one_thread_and_results_keep_their_order():
    lines: list[str] = []
    work = {key: Work(jobs.who, (), key) for key in ("b", "a")}
    answers = compute(work, workers=1, say=lines.append)
    assert list(answers) == ["b", "a"]
    assert all(pid != os.getpid() and threads == 1 for pid, threads in answers.values())
    assert len(set(answers.values())) == 1  # one worker did both
    assert sum("done" in line for line in lines) == 2
    assert lines.count("hello") == 2


def test_every_result_is_reported_once_and_an_empty_list_of_jobs_is_accepted():
    found = []
    work = {n: Work(jobs.double, (n,), str(n)) for n in range(7)}
    answers = compute(work, done=lambda key, answer: found.append((key, answer)))
    assert answers == {n: 2 * n for n in range(7)}
    assert sorted(found) == list(answers.items())
    assert compute({}) == {}


@pytest.mark.parametrize(
    "kind, error, text",
    [
        ("os", OSError, "no such thing"),
        ("odd", RuntimeError, "Odd: cannot unpickle"),
        ("exit", SystemExit, "enough"),
    ],
)
def test_the_first_error_stops_the_other_jobs_and_is_raised(kind, error, text):
    began = time.monotonic()
    waits, fails = Work(jobs.wait_for_stop, (), ""), Work(jobs.fail, (kind,), "")
    with pytest.raises(error, match=text) as told:
        compute({"waits": waits, "fails": fails})
    assert time.monotonic() - began < 60  # a job that waits would never end
    assert "in fail" in str(told.value.__cause__)  # the worker's traceback


def test_a_result_that_cannot_be_pickled_raises_an_error_and_stops_the_others():
    waits, local = Work(jobs.wait_for_stop, (), ""), Work(lambda: None, (), "")
    with pytest.raises(Exception, match="pickle"):
        compute({"waits": waits, "local": local})


def test_a_killed_worker_is_replaced_and_the_others_continue(tmp_path):
    lines: list[str] = []
    work = {"calm": Work(jobs.who, (), "calm")}
    work["killed"] = Work(jobs.die_until, (tmp_path / "marks", 3), "killed")
    assert compute(work, say=lines.append)["killed"] == 3
    lost = [line for line in lines if "lost" in line]
    assert len(lost) == 3 and lines.count("hello") == 1
    assert lost[0] == "killed: lost its worker (killed by SIGKILL), restart 1 of 3"


def test_a_job_that_loses_too_many_workers_raises_an_error_with_its_name():
    waits, dies = Work(jobs.wait_for_stop, (), "waits"), Work(jobs.die, (), "the killer")
    with pytest.raises(ExecutorError) as told:
        compute({"waits": waits, "dies": dies})
    assert str(told.value) == "the killer lost its worker 4 times: killed by SIGKILL"


def test_workers_that_cannot_start_raise_an_error(monkeypatch):
    monkeypatch.setattr(executor, "_serve", jobs.die)
    with pytest.raises(ExecutorError, match="no worker starts: "):
        compute({"a": Work(jobs.double, (1,), "a")})


def test_a_run_whose_worker_is_killed_resumes_from_its_last_checkpoint(tmp_path):
    whole, killed, marks = tmp_path / "whole-0", tmp_path / "killed-0", tmp_path / "marks"
    train_all({whole: ("whole", jobs.TINY)}, make_env=envs.make, workers=1, say=lambda _: None)
    arguments = (jobs.TINY, killed, "killed", marks, 300)
    compute({0: Work(jobs.train_and_die, arguments, "killed", killed)})
    assert marks.read_text().split() == ["0", "150"]
    assert (killed / METRICS).read_bytes() == (whole / METRICS).read_bytes()


def test_runs_train_in_the_given_executor(tmp_path):
    class Here:
        """Computes in this process."""

        def compute(self, work, *, workers, say, done=lambda key, answer: None):
            assert workers is None and [job.writes for job in work.values()] == list(work)
            return {key: job.function(*job.arguments) for key, job in work.items()}

    config = replace(jobs.TINY, steps=10)
    runs = {tmp_path / "a-0": ("a", config)}
    train_all(runs, make_env=envs.make, say=print, executor=Here())
    assert (tmp_path / "a-0" / "checkpoints" / "10").is_dir()


def test_a_run_of_many_short_episodes_says_little(tmp_path):
    """Random episodes of CartPole have about 22 steps: some 270 end in 6,000 steps."""
    config = RunConfig("random", "CartPole-v1", 0, 6000, "cpu", random.Config())
    lines = []
    runs = {tmp_path / "a-0": ("a", config)}
    train_all(runs, make_env=envs.make, workers=1, say=lines.append)
    told = [line for line in lines if "return" in line]
    assert len(read_metrics(tmp_path / "a-0" / METRICS)) > 210
    assert 100 < len(told) <= 200
