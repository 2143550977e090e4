"""Runs a case in a folder of its own and compares the result with what the case demands."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import hashlib
import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.bad_inputs.case import Case

ROOT = Path(__file__).parents[2]
LIMIT = 60
"""Longest time of a case, in seconds."""


class Hang(BaseException):
    """A case took longer than `LIMIT`."""


@cache
def runs() -> Path:
    """A folder with small runs; it is made once and copied for each case."""
    import envs
    import mbrl
    from mbrl.agents import MPCConfig, PlannerConfig
    from mbrl.agents.pets import Config
    from mbrl.dynamics import EnsembleConfig

    folder = Path(tempfile.mkdtemp(prefix="bad-inputs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny = Config(
        mpc=MPCConfig(PlannerConfig(horizon=4, population=8, iterations=1, elites=2), particles=2),
        model=EnsembleConfig(members=2, hidden=(8,), epochs=1, batch=32),
        random_steps=150,
    )
    for seed, name in enumerate(("run", "other")):
        env = envs.make("cartpole-swingup")
        mbrl.train(mbrl.make("pets", env, config=tiny, seed=seed), env, folder / name, steps=170)
    for name, id in {"rnd": "pendulum-swingup", "far": "pendulum-swingup"}.items():
        env = envs.make(id)
        mbrl.train(mbrl.make("random", env), env, folder / name, steps=160)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # so that `read_only` may read them
    (folder / "file").write_text("mine\n")
    for name in ("empty", "shut"):
        (folder / name).mkdir()
    return folder


def listing(folder: Path, writes: tuple[str, ...]) -> dict[str, str]:
    """The kind of each name in a folder, and the digest of each file."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place) / name
            short = str(path.relative_to(folder))
            if short.split("/")[0] in writes:
                continue
            if path.is_symlink():
                found[short] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[short] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[short] = "a folder" if path.is_dir() else "another"
    return found


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """Undo what a case changes in this process: modules, paths, environments, working folder."""
    import gymnasium

    import envs.registry as registry

    here, path, modules = os.getcwd(), list(sys.path), set(sys.modules)
    known, entries = dict(gymnasium.registry), dict(registry._REGISTERED)
    made, bytecode = set(registry._MADE), sys.dont_write_bytecode
    handler, threads = signal.getsignal(signal.SIGINT), None
    if "torch" in sys.modules:
        threads = sys.modules["torch"].get_num_threads()
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if "bad-input-" in file:
                del sys.modules[name]
        for table, before in ((gymnasium.registry, known), (registry._REGISTERED, entries)):
            table.clear()
            table.update(before)
        registry._MADE.clear()
        registry._MADE.update(made)
        signal.signal(signal.SIGINT, handler)
        if threads:
            sys.modules["torch"].set_num_threads(threads)


def in_process(args: tuple[str, ...]) -> tuple[int | str, str, str]:
    """Exit status (or the exception), stdout and stderr, including the output of C libraries."""
    from experiments.cli import command, streams

    codecs.register_error("readable", streams._substitute)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(fd) for fd in (1, 2)]
    before = sys.stdout, sys.stderr
    said: list[bytes] = [b"", b""]
    readers = []
    for place, fd in enumerate((1, 2)):  # pipes, because a case may limit the size of files
        end, begin = os.pipe()
        os.dup2(begin, fd)
        os.close(begin)
        readers.append(threading.Thread(target=_drain, args=(end, said, place)))
        readers[-1].start()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(os.dup(fd), "wb"), "utf-8", "readable", write_through=True)
        for fd in (1, 2)
    )
    status: int | str
    try:
        status = command.run(list(args))
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 0
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        status = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        sys.stdout, sys.stderr = before
        for fd, old in zip((1, 2), kept, strict=True):
            os.dup2(old, fd)
            os.close(old)
    for reader in readers:
        reader.join()
    return status, *(text.decode(errors="replace") for text in said)


def _drain(end: int, said: list[bytes], place: int) -> None:
    with os.fdopen(end, "rb") as stream:
        said[place] = stream.read()


def in_shell(line: str) -> tuple[int | str, str, str]:
    """The same for a line of sh."""
    command = f"{sys.executable} -m experiments.cli.command"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            ["sh", "-c", f'mbrl="{command}"\n{line}'], capture_output=True, env=env, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "Hang", "", ""
    return done.returncode, *(t.decode(errors="replace") for t in (done.stdout, done.stderr))


def run(case: Case) -> str:
    """Run a case; what is wrong with the result, "" if nothing is."""
    source = runs()
    folder = Path(tempfile.mkdtemp(prefix="bad-input-"))
    hang = signal.getsignal(signal.SIGALRM)

    def ring(signum, frame):
        raise Hang

    try:
        with left_as_it_was():
            shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
            os.chmod(folder, 0o755)
            os.chdir(folder)
            os.mkfifo("pipe")
            prepared = None if case.prepare is None else case.prepare()
            before = listing(folder, case.writes)
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, LIMIT, 10)  # repeat, in case the first is caught
            try:
                if case.shell:
                    status, out, err = in_shell(case.shell)
                else:
                    status, out, err = in_process(case.args)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                if isinstance(prepared, contextlib.ExitStack):
                    prepared.close()
            return wrong(case, status, out, err, before, listing(folder, case.writes))
    finally:
        signal.signal(signal.SIGALRM, hang)
        shutil.rmtree(folder, ignore_errors=True)


def wrong(case, status, out: str, err: str, before: dict, after: dict) -> str:
    """The differences from what the case demands."""
    faults = []
    if status not in case.status:
        faults.append(f"status {status}")
    if out:
        faults.append(f"stdout {out[:80]!r}")
    lines = err.split("\n")[:-1] if err.endswith("\n") or not err else [err]
    silent = case.shell and "2>" in case.shell
    if "Traceback" in err:
        faults.append(f"traceback {lines[-1]!r}")
    elif 2 in case.status and not silent:
        if len(lines) != 1 and not (case.progress and lines):
            faults.append(f"{len(lines)} lines {lines[:3]!r}")
        elif not lines[-1].startswith("mbrl: "):
            faults.append(f"the line is {lines[-1]!r}")
        elif not lines[-1].isprintable() or len(lines[-1]) > 3000:
            faults.append(f"a line of {len(lines[-1])} characters {lines[-1][:99]!r}")
        elif case.says.replace("-", "_") not in lines[-1].replace("-", "_"):  # option or field
            faults.append(f"not {case.says!r} in {lines[-1]!r}")
    changed = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    if changed:
        faults.append(f"changed {changed[:4]}")
    return "; ".join(faults)
