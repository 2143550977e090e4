"""Work on all cores at once: single-threaded processes on this machine that stop when asked.

Processes and not threads: a run is then the same bit for bit whatever runs beside it, and one
that dies takes no other with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, NamedTuple

import torch

_context = multiprocessing.get_context("spawn")
_worker: dict[str, Any] = {}


class Stopped(Exception):
    """A worker gave up because it was asked to stop; its work is not finished."""


class Work(NamedTuple):
    """A call to make in a worker process."""

    function: Callable[..., Any]
    """Importable by name."""
    arguments: tuple[Any, ...]
    """Positional; they are pickled."""
    name: str
    """What messages call it."""


def stopping() -> bool:
    """Whether this process is a worker that should end now; long work asks often."""
    return bool(_worker) and _worker["stop"].is_set()


def stop_if_asked(*_: object) -> None:
    """Give up in a worker that should end now; a callback that takes anything.

    Raises:
        Stopped: this worker is asked to stop.
    """
    if stopping():
        raise Stopped


def tell(line: str) -> None:
    """In a worker, hand a line of progress to the caller of `compute`; elsewhere, nothing."""
    if _worker:
        _worker["lines"].put(line)


def compute(
    work: Mapping[Any, Work],
    *,
    workers: int,
    say: Callable[[str], None],
    done: Callable[[Any, Any], None] = lambda key, answer: None,
) -> dict[Any, Any]:
    """Call every function in a worker process; answers by key, in the order of `work`.

    Args:
        work: functions importable by name, with arguments and answers that pickle.
        workers: processes at once.
        say: called here with each line of progress.
        done: called here with each key and answer as it comes.

    Raises:
        KeyboardInterrupt: after the workers have ended.
        Exception: the first that a worker raised, after the others have ended.
    """
    if not work:
        return {}
    answers: dict[Any, Any] = {}
    stop, lines = _context.Event(), _context.SimpleQueue()

    def drain() -> None:
        while not lines.empty():
            say(lines.get())

    with ProcessPoolExecutor(
        min(workers, len(work)), _context, initializer=_begin, initargs=(stop, lines)
    ) as executor:
        # Ctrl-C reaches the whole process group. The workers inherit that it is ignored and
        # are told to stop by the event instead, so that they can save what they have.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            pending = {executor.submit(_call, *item): key for key, item in work.items()}
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            while pending:
                finished, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                drain()
                for future in finished:
                    key = pending.pop(future)
                    answers[key] = future.result()
                    say(f"[{len(answers)}/{len(work)}] {work[key].name} done")
                    done(key, answers[key])
        except BaseException:
            stop.set()
            executor.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in pending):
                drain()  # a worker whose line nobody reads would block for ever
                time.sleep(0.05)
            raise
    return {key: answers[key] for key in work}


def _begin(stop: Any, lines: Any) -> None:
    _worker.update(stop=stop, lines=lines)
    # The caller's script is imported here and may have set a handler of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], _: str) -> Any:
    if stopping():
        raise Stopped
    return function(*arguments)
