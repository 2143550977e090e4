"""Work on all cores at once: single-threaded processes that stop when asked and may be lost.

Processes and not threads, so that a run is the same bit for bit whatever runs beside it. An
`Executor` is where they are: `Processes` on this machine, `mbrl.training.cluster.Ray` on many.
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
"""How often a job is begun again after its worker was lost."""

_context = multiprocessing.get_context("spawn")


class ExecutorError(Exception):
    """Workers that cannot be reached or started, or a job that lost too many of them."""


class Stopped(Exception):
    """A worker gave up because it was asked to stop; its work is not finished."""


class Work(NamedTuple):
    """A call to make in a worker process; a job."""

    function: Callable[..., Any]
    """Importable by name."""
    arguments: tuple[Any, ...]
    """Positional; they are pickled. A path among them that is a folder is a run's, and a worker on
    another machine gets a copy of the run."""
    name: str
    """Its name in messages."""
    writes: Path | None = None
    """The one of its arguments that is the folder of the run that it trains. From a worker on
    another machine the run is brought home. A job that is begun again continues the run."""


class Crew(NamedTuple):
    """What an executor's workers are."""

    start: Callable[[], Any]
    """Starts one."""
    pause: Callable[[Collection[Any]], None]
    """Waits for news of those that there are."""
    most: int
    """How many there can be at once."""


class Executor(ABC):
    """Calls functions in worker processes; a subclass says what its workers are."""

    @abstractmethod
    def crew(self, say: Callable[[str], None]) -> Crew:
        """The workers of one `compute`; `say` takes lines of progress."""

    def compute(
        self,
        work: Mapping[Any, Work],
        *,
        workers: int | None = None,
        say: Callable[[str], None],
        done: Callable[[Any, Any], None] = lambda key, answer: None,
    ) -> dict[Any, Any]:
        """Call every function in a worker; answers by key, in the order of `work`.

        A job whose worker is lost (killed, out of memory, its machine gone) is begun again in
        another one, at most `RESTARTS` times.

        Args:
            work: functions importable by name, with arguments and answers that pickle.
            workers: jobs at once; as many as the executor has workers if None.
            say: called here with each line of progress.
            done: called here with each key and answer as it comes.

        Raises:
            KeyboardInterrupt: after the workers have ended.
            ExecutorError: no worker starts, or one job lost too many of them.
            Exception: the first that a job raised, after the others have ended.
        """
        crew = self.crew(say)
        most = crew.most if workers is None else workers
        return run_jobs(work, start=crew.start, pause=crew.pause, workers=most, say=say, done=done)


# What a job can call.


@dataclass(frozen=True)
class Link:
    """What connects the job under way in this process with the caller of `compute`."""

    stopping: Callable[[], bool]
    tell: Callable[[str], None]
    saved: Callable[[], None] = lambda: None


_link: Link | None = None


def set_link(link: Link | None) -> None:
    """Make this process a worker."""
    global _link
    _link = link


def stopping() -> bool:
    """Whether this process is a worker that should end now; long work asks often."""
    return _link is not None and _link.stopping()


def stop_if_asked(*_: object) -> None:
    """Give up in a worker that should end now; a callback that takes anything.

    Raises:
        Stopped: this worker is asked to stop.
    """
    if stopping():
        raise Stopped


def tell(line: str) -> None:
    """In a worker, hand a line of progress to the caller of `compute`; elsewhere, nothing."""
    if _link is not None:
        _link.tell(line)


def saved() -> None:
    """Say that the run that this job trains has a new checkpoint.

    In a worker on another machine a copy of the run is then sent home; elsewhere, nothing.
    """
    if _link is not None:
        _link.saved()


# One loop for all executors.


class Line(NamedTuple):
    """A job's line of progress."""

    text: str


class Done(NamedTuple):
    """A job has ended."""

    answer: Any


class Failed(NamedTuple):
    """A job has raised an exception."""

    error: BaseException


class Lost(NamedTuple):
    """A worker is gone, and with it its job."""

    why: str


Event = Line | Done | Failed | Lost


class Worker(Protocol):
    """A process, here or elsewhere, that does one job at a time."""

    def ready(self) -> bool:
        """Whether it has started."""
        ...

    def begin(self, work: Work) -> None:
        """Give a worker that is ready a job."""
        ...

    def events(self) -> list[Event]:
        """What has happened since the last call; does not wait."""
        ...

    def stop(self) -> None:
        """Ask its job to save and give up; events go on until it is done, failed or lost."""
        ...

    def close(self) -> None:
        """End it, at once where it has a job."""
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
        pause: waits for a moment, or until one of these workers has an event.
        work, workers, say, done: see `Executor.compute`.
    """
    waiting, losses, answers = deque(work), Counter[Any](), dict[Any, Any]()
    crew: list[Worker] = []
    jobs: dict[Worker, Any] = {}  # what is under way
    failed_starts = 0

    def lose(worker: Worker, why: str) -> None:
        nonlocal failed_starts
        crew.remove(worker)
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
            crew += [start() for _ in range(wanted - len(crew))]
            for worker in [worker for worker in crew if worker not in jobs]:
                if waiting and worker.ready():
                    failed_starts = 0
                    worker.begin(work[waiting[0]])
                    jobs[worker] = waiting.popleft()
            idle = [worker for worker in crew if worker not in jobs]
            for worker in idle[: max(0, len(crew) - wanted)]:
                crew.remove(worker)
                worker.close()
            pause(crew)
            for worker in list(crew):
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
        for worker in crew:
            worker.close()
    return {key: answers[key] for key in work}


def outcome(call: Callable[[], Any], dumps: Callable[[Any], bytes]) -> tuple[bool, bytes]:
    """Whether a call has succeeded, and its pickled answer or exception."""
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
    """The event of an `outcome`, where `compute` was called."""
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
    """Worker processes on this machine, as many as it has cores."""

    def crew(self, say: Callable[[str], None]) -> Crew:
        """Processes."""
        return Crew(_Process, _pause, cores())


def _pause(crew: Collection[_Process]) -> None:
    wait([worker.connection for worker in crew], timeout=0.2)


class _Process:
    """A worker process, with a pipe to it."""

    def __init__(self) -> None:
        self.connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs,))
        # Ctrl-C reaches the whole process group. The workers inherit that it is ignored and
        # are told to stop through the pipe instead, so that they can save what they have.
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
        except (EOFError, OSError):  # it ended, maybe half way through a message
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
        with contextlib.suppress(OSError):  # it is lost; its events say so
            self.connection.send(message)


def _how_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _serve(connection: Connection) -> None:
    """A worker process: does the jobs that come through its pipe until that is closed."""
    # The caller's script is imported before and may have set a handler of its own.
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
                if not busy.is_set():  # Ctrl-C may have cost the caller the last answer
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
