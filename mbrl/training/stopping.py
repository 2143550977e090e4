"""Ctrl-C as a request to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """A `stop` for `mbrl.train`, which then saves a checkpoint: whether Ctrl-C was pressed.

    A second one raises KeyboardInterrupt. Only the main thread may enter the block; what Ctrl-C did
    before, it does again behind it.
    """
    asked = False

    def ask(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nmbrl: saving a checkpoint (Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
