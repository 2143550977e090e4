"""Parallel work in single-threaded worker processes, which can be stopped and may be lost.

They are processes and not threads, so that a run has the same results bit for bit whatever runs at
the same time. `Processes` runs them on this machine, `mbrl.training.cluster.Ray` on many.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from mbrl.parallel import cores

RESTARTS = 3
"""How often a job is restarted after its worker was lost."""

_context = multiprocessing.get_context("spawn")


class ExecutorError(Exception):
    """Workers cannot be reached or started, or a job lost too many of them."""


class Stopped(Exception):
    """A worker was asked to stop before its work was finished."""


class Work(NamedTuple):
    """A job: a function to call in a worker process."""

    function: Callable[..., Any]
    """The function; importable by name."""
    arguments: tuple[Any, ...]
    """Positional arguments, which are pickled. A path of a folder must be that of a run, and a
    worker on another machine gets a copy of the run."""
    name: str
    """Name of the job in messages."""
    writes: Path | None = None
    """The argument that is the folder of the run that the job trains, if it trains one. A worker on
    another machine sends the run back. A restarted job continues the run."""


class WorkerPool(NamedTuple):
    """How an executor starts workers and waits for them."""

    start: Callable[[], Any]
    """Starts a worker."""
    pause: Callable[[Collection[Any]], None]
    """Waits a moment, or until one of these workers has an event."""
    most: int
    """Maximum number of workers at the same time."""


class Executor(ABC):
    """Calls functions in worker processes; a subclass defines the workers."""

    @abstractmethod
    def pool(self, say: Callable[[str], None]) -> WorkerPool:
        """The workers of one call of `compute`; `say` is called with lines of progress."""

    def compute(
        self,
        work: Mapping[Any, Work],
        *,
        workers: int | None = None,
        say: Callable[[str], None],
        done: Callable[[Any, Any], None] = lambda key, answer: None,
    ) -> dict[Any, Any]:
        """Call every function in a worker; returns the results by key, in the order of `work`.

        A job whose worker is lost (killed, out of memory, its machine disconnected) is restarted in
        another one, at most `RESTARTS` times.

        Args:
            work: jobs by key; their arguments and results must pickle.
            workers: number of workers; the executor's maximum if None.
            say: called in this process with each line of progress.
            done: called in this process with the key and the result of each finished job.

        Raises:
            KeyboardInterrupt: after the workers have ended.
            ExecutorError: no worker starts, or one job lost too many of them.
            Exception: the first that a job raised, after the others have ended.
        """
        pool = self.pool(say)
        most = pool.most if workers is None else workers
        return run_jobs(work, start=pool.start, pause=pool.pause, workers=most, say=say, done=done)


# Functions for jobs.


@dataclass(frozen=True)
class Link:
    """The connection of the current job in this process to the caller of `compute`."""

    stopping: Callable[[], bool]
    """See `stopping`."""
    tell: Callable[[str], None]
    """See `tell`."""
    saved: Callable[[], None] = lambda: None
    """See `saved`."""


_link: Link | None = None


def set_link(link: Link | None) -> None:
    """Make this process a worker; with None it is no longer one."""
    global _link
    _link = link


def stopping() -> bool:
    """Whether this process is a worker that was asked to stop; long jobs should check often."""
    return _link is not None and _link.stopping()


def stop_if_asked(*_: object) -> None:
    """Raise `Stopped` in a worker that was asked to stop; usable as a callback of any arguments.

    Raises:
        Stopped: this worker was asked to stop.
    """
    if stopping():
        raise Stopped


def tell(line: str) -> None:
    """In a worker, send a line of progress to the caller of `compute`; elsewhere, do nothing."""
    if _link is not None:
        _link.tell(line)


def saved() -> None:
    """Call this when the run that this job trains has a new checkpoint.

    A worker on another machine then sends back a copy of the run; elsewhere nothing happens.
    """
    if _link is not None:
        _link.saved()


# The loop that all executors share.


class Line(NamedTuple):
    """A job sent a line of progress."""

    text: str


class Done(NamedTuple):
    """A job returned a result."""

    answer: Any


class Failed(NamedTuple):
    """A job raised an exception."""

    error: BaseException


class Lost(NamedTuple):
    """A worker ended unexpectedly, together with its job."""

    why: str


Event = Line | Done | Failed | Lost


class Worker(Protocol):
    """A process, on this or another machine, that does one job at a time."""

    def ready(self) -> bool:
        """Whether it has started."""
        ...

    def begin(self, work: Work) -> None:
        """Start a job; the worker must be ready and have no other job."""
        ...

    def events(self) -> list[Event]:
        """Events since the last call; does not wait."""
        ...

    def stop(self) -> None:
        """Ask its job to save and stop; it then still ends with an event: done, failed or lost."""
        ...

    def close(self) -> None:
        """End the process, also if it has a job."""
        ...


def run_jobs(
    work: Mapping[Any, Work],
    *,
    start: Callable[[], Worker],
    pause: Callable[[Collection[Any]], None],
    workers: int,
    say: Callable[[str], None],
    done: Callable[[Any, Any], None],
) -> dict[Any, Any]:
    """The loop of `Executor.compute`.

    Args:
        start: starts a worker, and returns before it is ready.
        pause: waits a moment, or until one of these workers has an event.
        work, workers, say, done: see `Executor.compute`.
    """
    waiting, losses, answers = deque(work), Counter[Any](), dict[Any, Any]()
    running: list[Worker] = []
    jobs: dict[Worker, Any] = {}  # keys of the current jobs
    failed_starts = 0

    def lose(worker: Worker, why: str) -> None:
        nonlocal failed_starts
        running.remove(worker)
        worker.close()
        if worker not in jobs:
            failed_starts += 1
            if failed_starts > RESTARTS:
                raise ExecutorError(f"no worker starts: {why}")
            return
        waiting.appendleft(key := jobs.pop(worker))
        losses[key] += 1
        if losses[key] > RESTARTS:
            raise ExecutorError(f"{work[key].name} lost its worker {losses[key]} times: {why}")
        say(f"{work[key].name}: lost its worker ({why}), restart {losses[key]} of {RESTARTS}")

    def handle(worker: Worker, event: Event) -> None:
        if isinstance(event, Line):
            say(event.text)
        elif isinstance(event, Lost):
            lose(worker, event.why)
        elif isinstance(event, Failed):
            del jobs[worker]
            raise event.error
        else:
            answers[key := jobs.pop(worker)] = event.answer
            say(f"[{len(answers)}/{len(work)}] {work[key].name} done")
            done(key, event.answer)

    try:
        while len(answers) < len(work):
            wanted = min(workers, len(waiting) + len(jobs))
            running += [start() for _ in range(wanted - len(running))]
            for worker in [worker for worker in running if worker not in jobs]:
                if waiting and worker.ready():
                    failed_starts = 0
                    worker.begin(work[waiting[0]])
                    jobs[worker] = waiting.popleft()
            idle = [worker for worker in running if worker not in jobs]
            for worker in idle[: max(0, len(running) - wanted)]:
                running.remove(worker)
                worker.close()
            pause(running)
            for worker in list(running):
                for event in worker.events():
                    handle(worker, event)
    except BaseException:
        for worker in jobs:
            worker.stop()
        while jobs:
            for worker in list(jobs):
                for event in worker.events():
                    if isinstance(event, Line):
                        say(event.text)
                    else:
                        del jobs[worker]
            time.sleep(0.02)
        raise
    finally:
        for worker in running:
            worker.close()
    return {key: answers[key] for key in work}


def outcome(call: Callable[[], Any], dumps: Callable[[Any], bytes]) -> tuple[bool, bytes]:
    """Call a function; returns whether it succeeded, and its pickled result or exception."""
    try:
        return True, dumps(call())
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        try:
            dumped = dumps((error, text))
            pickle.loads(dumped)  # some can be pickled but not read back
        except Exception:
            dumped = dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
        return False, dumped


def event_of(succeeded: bool, dumped: bytes) -> Event:
    """The event of an `outcome`, in the process that called `compute`."""
    try:
        found = pickle.loads(dumped)
    except Exception as error:
        return Failed(error)
    if succeeded:
        return Done(found)
    error, text = found
    error.__cause__ = _InWorker(text)
    return Failed(error)


class _InWorker(Exception):
    """The traceback of an exception in a worker, shown as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(f"\n{text}")


# Processes on this machine.


class Processes(Executor):
    """Worker processes on this machine, at most one per core."""

    def pool(self, say: Callable[[str], None]) -> WorkerPool:
        """Processes of this machine."""
        return WorkerPool(_Process, _pause, cores())


def _pause(workers: Collection[_Process]) -> None:
    wait([worker.connection for worker in workers], timeout=0.2)


class _Process:
    """A worker process, with a pipe to it."""

    def __init__(self) -> None:
        self.connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs,))
        # Ctrl-C reaches the whole process group. Workers inherit that it is ignored, and are asked
        # to stop through the pipe instead, so that they can save their runs.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            self._process.start()
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
        theirs.close()
        self._ready = False

    def ready(self) -> bool:
        return self._ready

    def begin(self, work: Work) -> None:
        self._send(pickle.dumps((work.function, work.arguments)))

    def events(self) -> list[Event]:
        found: list[Event] = []
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if message is None:
                    self._ready = True
                elif isinstance(message, str):
                    found.append(Line(message))
                else:
                    found.append(event_of(*message))
        except (EOFError, OSError):  # the process ended, perhaps in the middle of a message
            self._process.join(5)
            found.append(Lost(_how_ended(self._process.exitcode)))
        return found

    def stop(self) -> None:
        self._send(None)

    def close(self) -> None:
        self.connection.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def _send(self, message: bytes | None) -> None:
        with contextlib.suppress(OSError):  # the process ended; `events` reports that
            self.connection.send(message)


def _how_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _serve(connection: Connection) -> None:
    """The main function of a worker process: does the jobs from its pipe until that is closed."""
    # again, because the caller's script is imported before and may have set another handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    jobs, lock = queue.SimpleQueue[bytes | None](), threading.Lock()
    busy, stop = threading.Event(), threading.Event()

    def send(message: Any) -> None:
        try:
            with lock:
                connection.send(message)
        except OSError:  # the caller closed this worker or died
            os._exit(1)

    def listen() -> None:
        try:
            while True:
                message = connection.recv()
                if message is not None:
                    busy.set()
                    jobs.put(message)
                    continue
                stop.set()
                if not busy.is_set():  # the caller may have missed the last result due to Ctrl-C
                    send(outcome(_raise_stopped, pickle.dumps))
        except (EOFError, OSError):
            if busy.is_set():
                os._exit(1)
            jobs.put(None)

    threading.Thread(target=listen, daemon=True).start()
    set_link(Link(stop.is_set, send))
    send(None)
    while (job := jobs.get()) is not None:
        answer = outcome(_call(job), pickle.dumps)
        busy.clear()
        send(answer)


def _raise_stopped() -> None:
    raise Stopped


def _call(job: bytes) -> Callable[[], Any]:
    def call() -> Any:
        function, arguments = pickle.loads(job)
        stop_if_asked()
        return function(*arguments)

    return call
