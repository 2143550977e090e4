"""Changes to the working folder, as functions to call there before a command runs."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Change = Callable[[], object]


def all_of(*changes: Change) -> Change:
    """Several changes, one after the other."""
    return lambda: [change() for change in changes][-1]


def write(path: str, content: str | bytes) -> Change:
    """Write a file, and make its folder."""

    def change() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def replace(path: str, make: Callable[[str], object]) -> Change:
    """Remove a file or folder and make something else in its place."""

    def change() -> None:
        place = Path(path)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        make(path)

    return change


def link(path: str, target: str = "elsewhere", *, hard: bool = False, folder: bool = False):
    """Replace a file or folder by a link to a file or folder with content of its own."""

    def change() -> None:
        place, aim = Path(path), Path(target)
        if not aim.exists():
            aim.mkdir() if folder else aim.write_text("mine\n")
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        os.link(aim, place) if hard else place.symlink_to(aim.absolute())

    return change


def set_config(**values) -> Change:
    """Set values in run/config.json; a name a__b stands for b in a."""

    def change() -> None:
        file = Path("run/config.json")
        whole = json.loads(file.read_text())
        for name, value in values.items():
            set_at(whole, name.split("__"), value)
        file.write_text(json.dumps(whole))

    return change


def set_state(place: str, value: object) -> Change:
    """Set a value in the state of the checkpoint, which is saved with new digests.

    A function is called with the old value.
    """

    def change() -> None:
        from mbrl.training import Run

        run = Run.open(Path("run"))
        state = run.load()
        set_at(state, place.split("/"), value)
        run.save(run.latest(), state)

    return change


def set_at(whole, path: list[str], value: object) -> None:
    """Set a value in nested dicts and lists, or apply a function to the old value."""
    *outer, last = path
    for each in outer:
        whole = whole[int(each) if isinstance(whole, list) else each]
    key = int(last) if isinstance(whole, list) else last
    whole[key] = value(whole[key]) if callable(value) else value


def set_weight(value: float) -> Change:
    """Set one weight of the model in the checkpoint."""

    def change(model):
        name = next(n for n, t in model.items() if t.numel() and t.is_floating_point())
        model[name] = model[name].clone()
        model[name].view(-1)[0] = value
        return model

    return set_state("agent/model", change)


def at_checkpoint(change: Callable[[Path], object]) -> Change:
    """A change to the checkpoint's folder."""
    folders = Path("run/checkpoints")
    return lambda: change(next(path for path in folders.iterdir() if path.name.isdigit()))


def flip(name: str, share: float) -> Change:
    """Flip a bit of a file of the checkpoint, at a share of its length."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(share * (len(data) - 1))] ^= 1
        (folder / name).write_bytes(data)

    return at_checkpoint(change)


def cut(name: str, share: float) -> Change:
    """Keep only a share of a file of the checkpoint."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return at_checkpoint(change)


def swap(name: str) -> Change:
    """Replace a file of the checkpoint by that of the run `other`."""
    return at_checkpoint(lambda f: shutil.copy(Path("other/checkpoints") / f.name / name, f / name))


def append_metrics(line: bytes) -> Change:
    """Append a line to run/metrics.jsonl."""

    def change() -> None:
        with Path("run/metrics.jsonl").open("ab") as file:
            file.write(line + b"\n")

    return change


def during(manager: Callable[[], contextlib.AbstractContextManager]) -> Change:
    """A change that lasts until the case ends."""

    def change() -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(manager())
        return stack

    return change


@contextlib.contextmanager
def limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(*paths: str) -> Iterator[None]:
    """No file can be made in these folders; root acts as another user, whom this binds too."""
    kept = [(path, os.stat(path).st_mode) for path in paths]
    for path in paths:
        os.chmod(path, 0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        for path, mode in kept:
            os.chmod(path, mode)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """The run is open for writing elsewhere."""
    from mbrl.training import Run

    with Run.open(Path("run")):
        yield
