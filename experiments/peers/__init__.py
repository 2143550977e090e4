"""Other people's libraries, measured beside ours in one run.

A peer runs in a virtual environment and a process of its own, and answers one request at a
time, so that a benchmark can take turns with it and a drift of the machine hits both alike.
Only the standard library is imported here.

mbrl-lib installs a package named `mbrl` as we do, and pins releases that no longer run. The
recipe, which `make peers` follows, is at the head of `requirements.txt`: 1 GB, most of it torch,
and about two minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

HOW_TO_INSTALL = "mbrl-lib is not installed to compare with: 'make peers' does that"

_SCRIPT = Path(__file__).with_name("mbrl_lib.py")
_ROOT = Path(__file__).parents[2]


class PeerError(RuntimeError):
    """A peer is not installed, refused a request or died; the message is one line."""


def _python() -> Path:
    return Path(os.environ.get("MBRL_PEERS", _ROOT / ".peers" / "venv")) / "bin" / "python"


def available() -> bool:
    """Whether mbrl-lib's virtual environment is there: $MBRL_PEERS, else .peers/venv."""
    return _python().exists()


class MbrlLib:
    """mbrl-lib 0.2.0 in its own process; `mbrl_lib.py` says what can be asked of it.

        with MbrlLib() as peer:
            reply = peer.ask(work="step", rows=10_000, repeats=5, threads=2)
            rates = [reply["transitions"] / s for s in reply["seconds"]]

    Args:
        command: starts the process; by default the script under the peer's own Python, in
            isolated mode (-I), so that neither the caller's folder nor its PYTHONPATH can put
            our `mbrl` before theirs.

    Raises:
        PeerError: on entering, when it is not installed.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._command = command

    def __enter__(self) -> Self:
        if self._command is None and not available():
            raise PeerError(HOW_TO_INSTALL)
        # A file, since a pipe that nobody reads fills up and blocks the peer.
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")
        self._child = subprocess.Popen(
            self._command or [str(_python()), "-I", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._stderr.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request; waits for it, so nothing else of the peer's then runs.

        Raises:
            PeerError: the request was refused, or the process is dead (its last words given).
        """
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"mbrl-lib's process died: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(f"mbrl-lib refused {request}: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        status = self._child.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        return lines[-1] if lines else f"exit status {status}"
