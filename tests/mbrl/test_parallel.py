import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mbrl.parallel import apart, cores, parallel_map


@pytest.fixture
def threads():
    """Sets the caller's thread count, and restores it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def work(seed):
    """Some matrix products, which intra-op threads might round differently."""
    x = torch.randn(200, 200, generator=torch.Generator().manual_seed(seed))
    return (x @ x).tanh() @ x


@pytest.mark.parametrize("count", [0, 1, 5])
def test_results_are_equal_to_the_bit_and_in_order_for_any_number_of_workers(threads, count):
    results = []
    for workers in (1, 2, 3):
        threads(workers)
        results.append(parallel_map(work, range(count)))
    assert [len(result) for result in results] == [count] * 3
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    if count:
        torch.testing.assert_close(results[0][-1], work(count - 1))


def test_workers_are_other_threads_with_one_torch_thread(threads):
    threads(2)
    meet = threading.Barrier(2, timeout=20)

    def here(_):
        meet.wait()  # passes only if two run simultaneously
        return threading.get_ident(), torch.get_num_threads()

    (first, ones), (second, more) = parallel_map(here, range(2))
    assert first != second and threading.get_ident() not in (first, second)
    assert ones == more == 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [1, 4])
def test_the_callers_thread_count_is_not_changed(threads, workers, count):
    threads(workers)
    inside = parallel_map(lambda _: torch.get_num_threads(), range(count))
    assert inside == [1] * count
    assert torch.get_num_threads() == workers


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("gradients", [True, False])
def test_workers_take_over_the_callers_grad_mode(threads, workers, gradients):
    threads(workers)
    x = torch.ones(3, requires_grad=True)
    with torch.set_grad_enabled(gradients):
        out = parallel_map(lambda k: (k * x).sum(), range(4))
    assert [y.requires_grad for y in out] == [gradients] * 4
    if gradients:
        sum(out).backward()
        assert x.grad.tolist() == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_exceptions_are_raised_and_the_pool_can_be_used_again(threads, workers):
    threads(workers)

    def fails(k):
        if k == 2:
            raise ValueError("item 2 is rotten")
        return k

    with pytest.raises(ValueError, match="item 2 is rotten"):
        parallel_map(fails, range(4))
    assert torch.get_num_threads() == workers
    assert parallel_map(fails, [5, 6]) == [5, 6]


def test_a_worker_that_maps_does_the_work_itself(threads):
    """Otherwise nested maps on one pool could leave all workers waiting for workers."""
    threads(2)

    def outer(_):
        return {threading.get_ident(), *parallel_map(lambda _: threading.get_ident(), range(3))}

    assert [len(idents) for idents in parallel_map(outer, range(6))] == [1] * 6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot choose cores")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_the_threads_of_a_pool_do_not_run_on_the_callers_core():
    def start():
        pool = ThreadPoolExecutor(1)
        return pool, pool.submit(threading.get_native_id).result()

    (pool, crew), spread = apart(start)
    caller, free = threading.get_native_id(), os.sched_getaffinity(0)
    try:
        for core in sorted(free):
            os.sched_setaffinity(caller, {core})
            spread()
            assert os.sched_getaffinity(crew) == free - {core}
    finally:
        os.sched_setaffinity(caller, free)
        pool.shutdown()
    spread()  # the thread has ended: nothing is moved or raised


@pytest.mark.parametrize(
    ("threads", "wanted"), [(None, 3), ("2", 2), ("9", 3), ("0", 3), ("many", 3)]
)
def test_the_number_of_cores_respects_affinity_and_openmp(monkeypatch, threads, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert cores() == wanted


UPDATES = """
import resource
import torch
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC
from mbrl.types import Transition

draw = torch.Generator().manual_seed(0)
learner = SAC(
    17, Bounds(-torch.ones(6), torch.ones(6)), SACConfig(discount=0.99), generator=draw
)
obs, never = torch.randn(2, 256, 17, generator=draw), torch.zeros(256, dtype=torch.bool)
batch = Transition(
    obs[0], torch.rand(256, 6, generator=draw), obs[0, :, 0], obs[1], never, never
)

def updates(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        learner.update(batch, generator=draw)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

updates(10)
print(updates(20))
"""


def test_updates_of_networks_get_their_memory_without_page_faults():
    free = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", UPDATES], capture_output=True, text=True, check=True, env=free
    )
    assert float(run.stdout) < 50
