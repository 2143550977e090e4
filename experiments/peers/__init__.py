"""Other people's libraries, measured beside ours in one run.

A peer runs in its own virtual environment and process and answers one request at a time, so that a
benchmark can take turns with it and changes in the machine's speed affect both. Only the standard
library is imported here.

mbrl-lib installs a package named `mbrl` as we do, and pins releases that no longer run; judo wants
an older MuJoCo, as does dm_control's suite; mctx and SBX want JAX. The recipes, which `make peers`
follows, are at the heads of `requirements.txt` (1 GB, most of it torch, and about two minutes),
`judo-requirements.txt`, `mctx-requirements.txt`, `suite-requirements.txt`,
`learners-requirements.txt` (2 GB) and `bayesian-requirements.txt` (1 GB).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

_HERE = Path(__file__).parent
_ROOT = Path(__file__).parents[2]


class PeerError(RuntimeError):
    """A peer is not installed, refused a request or died; the message is one line."""


class Peer:
    """A library in its own process; the docstring of its script lists the requests.

        with MbrlLib() as peer:
            reply = peer.ask(work="step", rows=10_000, repeats=5, threads=2)
            rates = [reply["transitions"] / s for s in reply["seconds"]]

    Args:
        command: starts the process. By default it runs the script with the peer's own Python in
            isolated mode (-I), so that neither the caller's folder nor its PYTHONPATH can put our
            `mbrl` before mbrl-lib's.

    Raises:
        PeerError: on entering, when it is not installed.
    """

    name: ClassVar[str]
    script: ClassVar[str]
    """Its script in this folder."""
    folder: ClassVar[str]
    """The folder of its virtual environment in `.peers/`."""
    variable: ClassVar[str]
    """The environment variable that names another folder for it."""

    @classmethod
    def python(cls) -> Path:
        """Path of its Python, whether it is installed or not."""
        folder = os.environ.get(cls.variable, _ROOT / ".peers" / cls.folder)
        return Path(folder) / "bin" / "python"

    @classmethod
    def how_to_install(cls) -> str:
        """One line that says how to install it."""
        return f"{cls.name} is not installed, so nothing is compared with it; run 'make peers'"

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._command = command

    def __enter__(self) -> Self:
        if self._command is None and not self.python().exists():
            raise PeerError(self.how_to_install())
        # A file, since a pipe that nobody reads would fill up and block the peer.
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")
        self._child = subprocess.Popen(
            self._command or [str(self.python()), "-I", str(_HERE / self.script)],
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
        """The answer to one request. Waits for it, so the peer is idle between requests.

        Raises:
            PeerError: the request was refused, or the process has died; the line has the reason.
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
            raise PeerError(f"{self.name}'s process died: {self._last_line()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(f"{self.name} refused {request}: {reply['error']}")
        return reply

    def _last_line(self) -> str:
        status = self._child.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        return lines[-1] if lines else f"exit status {status}"


class MbrlLib(Peer):
    """mbrl-lib 0.2.0; `mbrl_lib.py` lists the requests."""

    name = "mbrl-lib"
    script = "mbrl_lib.py"
    folder = "venv"
    variable = "MBRL_PEERS"


class Judo(Peer):
    """judo 0.1.0; `judo.py` lists the requests."""

    name = "judo"
    script = "judo.py"
    folder = "judo"
    variable = "MBRL_JUDO"


class Mctx(Peer):
    """mctx 0.0.71; `mctx.py` lists the requests."""

    name = "mctx"
    script = "mctx.py"
    folder = "mctx"
    variable = "MBRL_MCTX"


class Suite(Peer):
    """dm_control 1.0.50; `suite.py` lists the requests."""

    name = "dm_control"
    script = "suite.py"
    folder = "suite"
    variable = "MBRL_SUITE"


class Learners(Peer):
    """Stable-Baselines3 2.9.2, SBX 0.28.0 and plain torch; `learners.py` lists the requests."""

    name = "Stable-Baselines3"
    script = "learners.py"
    folder = "learners"
    variable = "MBRL_LEARNERS"


class Bayesian(Peer):
    """laplace-torch 0.3 and bayesian-torch 0.5.0; `bayesian.py` lists the requests."""

    name = "laplace-torch"
    script = "bayesian.py"
    folder = "bayesian"
    variable = "MBRL_BAYESIAN"


def available(peer: type[Peer] = MbrlLib) -> bool:
    """Whether the peer's virtual environment is there."""
    return peer.python().exists()


HOW_TO_INSTALL = MbrlLib.how_to_install()
