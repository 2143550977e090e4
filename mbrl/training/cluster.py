"""Work on many machines: an `Executor` whose workers are Ray's.

No shared disk is needed. A run is packed and sent to the worker through Ray's object store; the
worker sends it back at checkpoints and at the end. If a machine is lost, its job is continued on
another one from the last checkpoint that was sent back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from mbrl.parts import require_extra
from mbrl.training.checkpoint import CONFIG, Run, RunError
from mbrl.training.executor import (
    Event,
    Executor,
    ExecutorError,
    Failed,
    Line,
    Link,
    Lost,
    Processes,
    Stopped,
    Work,
    WorkerPool,
    event_of,
    outcome,
    set_link,
    stop_if_asked,
)
from mbrl.training.packing import Packed, pack, unpack
from mbrl.training.run_config import versions

EXECUTORS = ("processes", "ray")
"""Names that `executor_of` takes."""

_ANSWERS_WITHIN = 15
"""Maximum number of seconds to wait for the answer of a cluster."""


def executor_of(name: str = "processes", address: str | None = None) -> Executor:
    """An executor by name.

    Args:
        name: one of `EXECUTORS`.
        address: address of the Ray cluster; "auto" if None.

    Raises:
        ValueError: an unknown name; an address for processes.
        ModuleNotFoundError, ExecutorError: see `Ray`.
    """
    if name not in EXECUTORS:
        raise ValueError(f"executor {name!r} is unknown; there are {', '.join(EXECUTORS)}")
    if name == "ray":
        return Ray("auto" if address is None else address)
    if address is not None:
        raise ValueError("processes run on this machine and take no address; take executor ray")
    return Processes()


class Ray(Executor):
    """Workers on the machines of a Ray cluster, one CPU each."""

    def __init__(
        self,
        address: str = "auto",
        *,
        working_dir: Path | str | None = None,
        home_every: float = 5.0,
    ) -> None:
        """Connect to a cluster, unless this program has called `ray.init` itself.

        Args:
            address: HOST:PORT, as `ray start --head` prints it, or "auto" for the cluster that
                this machine is in.
            working_dir: a folder with your own modules. Ray sends it to the workers, which import
                from there. The library itself must be installed on every machine.
            home_every: minimum number of seconds between two checkpoints that a worker sends back.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            ValueError: an address of another form; a working_dir after `ray.init`.
            ExecutorError: there is no cluster at the address, or it cannot be joined.
        """
        require_extra("ray", "cluster")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns
        ray = _ray()
        self._home_every = home_every
        self._connected = not ray.is_initialized()
        if self._connected:
            _check_address(address)
            _connect(address, {} if working_dir is None else {"working_dir": str(working_dir)})
        elif working_dir is not None:
            raise ValueError(
                "this program is in a cluster already, so give ray.init the working_dir"
            )

    def close(self) -> None:
        """Leave the cluster, if this object has joined it."""
        ray = _ray()
        if self._connected:
            ray.shutdown()

    def pool(self, say: Callable[[str], None]) -> WorkerPool:
        """Workers of the cluster, at most one per CPU."""
        most = max(1, int(_ray().cluster_resources().get("CPU", 0)))
        return WorkerPool(lambda: _RayWorker(self._home_every), _Pause(say), most)


def _ray() -> Any:
    import ray

    return ray


class _Pause:
    """Waits a moment; after 20 s in which no worker starts, it prints one line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._until = say, time.monotonic() + 20

    def __call__(self, workers: Collection[Any]) -> None:
        time.sleep(0.05)
        if any(worker.ready() for worker in workers):
            self._until = float("inf")
        elif time.monotonic() > self._until:
            self._until = float("inf")
            self._say("no worker has started yet: waiting for a free CPU in the cluster")


def _check_address(address: str) -> None:
    """Check within seconds that a cluster answers, because `ray.init` would try for minutes."""
    host, colon, port = address.rpartition(":")
    if address != "auto":
        if "/" in address or not colon or not host or not port.isdecimal():
            raise ValueError(
                f"address {address!r} is not HOST:PORT or auto; run this on a machine of the "
                "cluster, with the address that `ray start --head` printed"
            )
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise ExecutorError(f"no Ray cluster answers at {address}: {error}") from None
    asked = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *asked]
    try:
        status = subprocess.run(command, capture_output=True, timeout=_ANSWERS_WITHIN).returncode
    except subprocess.TimeoutExpired:
        status = 1
    if status and address == "auto":
        raise ExecutorError("this machine is in no Ray cluster; start one with `ray start --head`")
    if status:
        raise ExecutorError(f"what answers at {address} is no Ray cluster")


def _connect(address: str, runtime: dict[str, Any]) -> None:
    ray = _ray()
    try:
        ray.init(address, runtime_env=runtime, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ExecutorError(f"cannot join the Ray cluster at {address}: {reason}") from None
    # Ray prints messages about nodes to stdout, where `--json` prints only one line of JSON.
    # `compute` reports lost workers.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


class _RayWorker:
    """The handle of a worker in the cluster, in the process that calls `compute`."""

    def __init__(self, home_every: float) -> None:
        ray = _ray()
        # two threads more than the job's, for `news` and `stop`
        actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=3)
        self._actor: Any = actor(_Actor).remote(home_every)
        self._hello: Any = self._actor.hello.remote()
        self._ready = self._stopping = False
        self.node = self._place = ""
        self._job: Any = None
        self._news: Any = None
        self._writes: Path | None = None
        self._held: Run | None = None

    def ready(self) -> bool:
        return self._ready

    def begin(self, work: Work) -> None:
        cloudpickle = _ray().cloudpickle
        folders = {}
        if work.writes is not None:
            if work.writes not in work.arguments:
                raise ValueError(f"{work.name}: the run it writes is not among its arguments")
            self._hold(work.writes)
        for place, argument in enumerate(work.arguments):
            if isinstance(argument, Path) and (argument == work.writes or argument.is_dir()):
                packed = pack(argument) if argument.exists() else {}
                folders[place] = str(argument), packed, argument == work.writes
        job = cloudpickle.dumps((work.function, work.arguments))
        self._writes = work.writes
        self._job, self._news = self._actor.work.remote(job, folders), None

    def _hold(self, path: Path) -> None:
        """Lock a run that a worker trains, if it exists, so that no other process writes to it."""
        if self._held is None and path.exists():
            self._held = Run.open(path).__enter__()

    def _release(self) -> None:
        if self._held is not None:
            self._held.__exit__()
            self._held = None

    def events(self) -> list[Event]:
        ray = _ray()
        found: list[Event] = []
        try:
            if not self._ready:
                if _arrived(self._hello):
                    theirs, host, self.node = ray.get(self._hello)
                    _check_versions(theirs, host)
                    self._place = f" on {host}"
                    self._ready = True
            elif self._job is not None:
                ended = _arrived(self._job)
                if self._news is None and not ended:
                    self._news = self._actor.news.remote()
                if self._news is not None and (ended or _arrived(self._news)):
                    found += self._received(*ray.get(self._news))
                    self._news = None
                if ended:
                    result, *news = ray.get(self._job)
                    found += [*self._received(*news), event_of(*result)]
                    self._job = None
                    self._release()
            elif self._stopping:
                found.append(Failed(Stopped()))
        except ray.exceptions.RayError as error:
            found.append(Lost(_first_line(error) + self._place))
        except (RunError, OSError) as error:  # the run that was sent back cannot be written
            self._job = None
            found.append(Failed(error))
        return found

    def _received(self, lines: list[str], packed: Packed | None) -> list[Event]:
        if packed is not None and self._writes is not None:
            unpack(packed, self._writes)
            self._hold(self._writes)
        return [Line(line) for line in lines]

    def stop(self) -> None:
        self._stopping = True
        self._actor.stop.remote()

    def close(self) -> None:
        ray = _ray()
        self._release()
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)


def _arrived(reference: Any) -> bool:
    ray = _ray()
    return bool(ray.wait([reference], timeout=0)[0])


def _check_versions(theirs: dict[str, str], host: str) -> None:
    for name, here in versions().items():
        if theirs.get(name) != here:
            raise ExecutorError(
                f"machine {host} has {name} {theirs.get(name)} and this one {here}; results would "
                "differ, so install the same versions on all machines"
            )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("The actor died because", "ModuleNot"))]
    return [*telling, *lines, type(error).__name__][0]


class _Actor:
    """A worker in the cluster. One thread does the job; the others answer calls meanwhile."""

    def __init__(self, home_every: float) -> None:
        self._home_every, self._lock = home_every, threading.Lock()
        self._stop = threading.Event()
        self._lines: list[str] = []
        self._packed: Packed | None = None

    def hello(self) -> tuple[dict[str, str], str, str]:
        """Versions of the software on this machine, its name, and Ray's id of it."""
        return versions(), socket.gethostname(), _ray().get_runtime_context().get_node_id()

    def stop(self) -> None:
        self._stop.set()

    def news(self) -> tuple[list[str], Packed | None]:
        """Lines of progress, and the packed run, since the last call."""
        with self._lock:
            lines, self._lines, packed, self._packed = self._lines, [], self._packed, None
        return lines, packed

    def work(
        self, job: bytes, folders: dict[int, tuple[str, Packed, bool]]
    ) -> tuple[tuple[bool, bytes], list[str], Packed | None]:
        """Do a job on copies of the runs among its arguments.

        Args:
            job: the pickled function and arguments.
            folders: by index of the argument, the run's path, its packed files, and whether the job
                writes to it.

        Returns:
            Its `outcome`, the last lines of progress, and the packed run that it has written.
        """
        cloudpickle = _ray().cloudpickle
        torch.set_num_threads(1)
        room = Path(tempfile.mkdtemp(prefix="mbrl-"))
        written: Path | None = None
        sent = time.monotonic()

        def place(number: int, home: str, packed: Packed) -> Path:
            path = room / str(number) / Path(home).name
            path.parent.mkdir()
            if packed:
                unpack(packed, path)
            return path

        def tell(line: str) -> None:
            with self._lock:
                self._lines.append(line)

        def saved() -> None:
            nonlocal sent
            if written is not None and time.monotonic() - sent >= self._home_every:
                packed, sent = pack(written), time.monotonic()
                with self._lock:
                    self._packed = packed

        def call() -> Any:
            nonlocal written
            function, arguments = cloudpickle.loads(job)
            copies = list(arguments)
            for number, (home, packed, writes) in folders.items():
                copies[number] = place(number, home, packed)
                written = copies[number] if writes else written
            stop_if_asked()
            try:
                return function(*copies)
            except Exception as error:
                for number, (home, _, _) in folders.items():  # with the caller's paths of runs
                    error.args = tuple(
                        argument.replace(str(copies[number]), home)
                        if isinstance(argument, str)
                        else argument
                        for argument in error.args
                    )
                raise

        set_link(Link(self._stop.is_set, tell, saved))
        try:
            found = outcome(call, cloudpickle.dumps)
            packed = pack(written) if written and (written / CONFIG).exists() else None
            lines, _ = self.news()
            return found, lines, packed
        finally:
            set_link(None)
            shutil.rmtree(room, ignore_errors=True)
