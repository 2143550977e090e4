"""Run independent blocks of work on single-threaded workers.

The threads of one torch operation wait for each other in every matrix product, so that one busy
core slows all of them. Independent blocks on single-threaded workers do not wait for each other.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

from mbrl.types import OwnThreads

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_worker = threading.local()


def _become_worker() -> None:
    # read first, because torch's first call in a thread resets the thread's setting
    torch.get_num_threads()
    torch.set_num_threads(1)
    _worker.here = True


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "mbrl-worker", initializer=_become_worker)


def parallel_map(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[work(item) for item in items]` on as many workers as `torch.get_num_threads()`.

    Each worker runs torch on one thread, in the caller's grad mode. `work` must not depend on
    the order in which items are processed; then the result is bit for bit the same for any number
    of workers. With one thread, or called from a worker, the items are processed by the caller.
    """
    items = list(items)
    workers = torch.get_num_threads()
    if getattr(_worker, "here", False) or len(items) < 2 or workers < 2:
        return [_single_threaded(work, item) for item in items]
    grad = torch.is_grad_enabled()

    def task(item: T) -> R:
        with torch.set_grad_enabled(grad):
            return work(item)

    return list(_pool(workers).map(task, items))


def _single_threaded(work: Callable[[T], R], item: T) -> R:
    with single_thread():
        return work(item)


class single_thread:
    """A context in which torch uses one thread, for small tensors or while other threads work.

    It is also a decorator. Where torch has one thread anyway it costs less than a microsecond.
    """

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads()
        if self._threads != 1:
            torch.set_num_threads(1)

    def __exit__(self, *raised: object) -> None:
        if self._threads != 1:
            torch.set_num_threads(self._threads)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, which then runs in this context."""

        @wraps(function)
        def alone(*args: P.args, **named: P.kwargs) -> R:
            if torch.get_num_threads() == 1:
                return function(*args, **named)
            with single_thread():
                return function(*args, **named)

        return alone


def threads_beside(model: object) -> Callable[[], AbstractContextManager[None]]:
    """What makes the context in which to plan through a model.

    In it torch uses one thread where the model steps on threads of its own (`OwnThreads`): torch's
    threads keep cores busy between small products, and the model needs these cores.
    """
    own = isinstance(model, OwnThreads) and model.own_threads
    return single_thread if own else nullcontext


def apart(start: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Call `start`, which starts threads, and keep those threads off the caller's core.

    It is for a native thread pool whose caller works at the same time: the kernel wakes a sleeping
    thread on the caller's core, and with few cores may take milliseconds, as long as a whole plan,
    to move it to another.

    Returns:
        What `start` returned, and a function to call before each use of the threads. The function
        does nothing on one core, or if the operating system has no thread affinity.
    """
    try:
        before, free = _threads(), os.sched_getaffinity(0)
        core = ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):  # not Linux
        return start(), lambda: None
    started = start()
    pool, avoided = _threads() - before, -1

    def spread() -> None:
        nonlocal avoided
        now = core()
        if now == avoided or not free - {now}:
            return
        avoided = now
        for thread in pool:
            with suppress(OSError):  # the thread has ended, or its cores are no longer available
                os.sched_setaffinity(thread, free - {now})

    return started, spread


FREED = 256 * 2**20
"""Bytes of freed memory that the process keeps."""


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next tensors instead of returning it.

    glibc otherwise returns the free end of the heap after nearly every update of a network, and the
    next update takes a page fault for each 4 kB of it: 870 faults and a sixth of the time of an
    update of soft actor-critic. Nothing happens where the user has set MALLOC_TRIM_THRESHOLD_, or
    with another C library.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, FREED)
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the greatest possible; larger ones go back at once


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

keep_freed_memory()


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


def cores() -> int:
    """Number of cores that this process may use, at most OMP_NUM_THREADS if that is set."""
    try:
        granted = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        granted = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(granted, int(wanted)) if wanted.isdigit() and int(wanted) else granted
