"""Ctrl-C as a request to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a `stop` for `mbrl.train`: a function that returns whether Ctrl-C was pressed.

    `train` then saves a checkpoint. A second Ctrl-C raises KeyboardInterrupt. Only the main thread
    may enter the block; the previous handler of Ctrl-C is restored at its end.
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
