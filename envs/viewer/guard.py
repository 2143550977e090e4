"""Which web pages may connect to the viewer, and which values they may set.

A page of any web site may open a WebSocket to this machine. The browser names the page's site in
the header `Origin`, so all pages but the served one are refused. Messages are checked before viser
handles them: values are clipped to the ranges of their sliders, and messages that the served page
does not send are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    import viser
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, by which the page may have been opened."""
PATIENCE = 10.0
"""Seconds after which a page that reads no data is disconnected; browsers connect again."""
MAX_BYTES = 2**20
"""Size of the largest accepted message; the page's messages have a few hundred bytes."""
MAX_LINES = 20
"""Number of lines printed about refused messages, so that nobody can flood the terminal."""


class Refused(Exception):
    """A message that the served page would not send; the text is the reason."""


class Guard:
    """Checks connections and messages of one server.

    Args:
        low, high: (3,) in m, corners of the box in which goals can be dragged.

    Attributes:
        server: viser's server; while it is None, all messages are dropped.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = low, high
        self.server: viser.ViserServer | None = None
        self._said: set[str] = set()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Check the connections and messages of a viser server that starts in this context.

        viser has no setting for this, so the function of websockets that it calls is replaced.
        """
        from websockets.asyncio import server as sockets

        serve = sockets.serve
        connection = _connection(self)
        silent = logging.Logger("viewer")  # it would write tracebacks of clients that hang up
        silent.disabled = True

        def guarded(handler: Any, *where: Any, process_request: Any, **settings: Any) -> Any:
            settings |= {"max_size": MAX_BYTES, "close_timeout": 1, "logger": silent}
            settings |= {"ping_interval": PATIENCE, "ping_timeout": PATIENCE}
            return serve(
                self._handled(handler),
                *where,
                process_request=self._checked(process_request),
                create_connection=connection,
                **settings,
            )

        sockets.serve = guarded
        try:
            yield
        finally:
            sockets.serve = serve

    def say(self, text: str) -> None:
        """Print a line on standard error, each text once and at most `MAX_LINES` texts."""
        if text not in self._said and len(self._said) < MAX_LINES:
            self._said.add(text)
            print(f"viewer: {text}", file=sys.stderr)

    def admit(self, raw: bytes | str) -> bytes | None:
        """The message to hand to viser; None if it is dropped."""
        try:
            checked = self._message(raw)
        except Refused as error:
            self.say(f"ignored what a page sent: {error}")
            return None
        if checked is None:
            return None
        import msgspec.msgpack

        return msgspec.msgpack.encode(checked)

    def _message(self, raw: bytes | str) -> dict[str, Any] | None:
        import msgspec.msgpack

        try:
            given = msgspec.msgpack.decode(raw)  # pyright: ignore[reportArgumentType]
        except (msgspec.DecodeError, TypeError, RecursionError):
            raise Refused("it cannot be read") from None
        if not isinstance(given, dict):
            raise Refused("it is no message")
        if self.server is None:
            return None
        kind = given.get("type")
        if kind == "GuiUpdateMessage":
            return {"type": kind, **self._update(given)}
        if kind == "ViewerCameraMessage":
            return {"type": kind, **_camera(given)}
        if kind in ("TransformControlsDragStartMessage", "TransformControlsDragEndMessage"):
            return {"type": kind, "name": self._goal(given), "owner": ""}
        if kind == "TransformControlsUpdateMessage":
            place = np.clip(_numbers(given, "position", 3), self.low, self.high).tolist()
            still = {"wxyz": (1.0, 0.0, 0.0, 0.0), "owner": ""}
            return {"type": kind, "name": self._goal(given), "position": place, **still}
        return None  # viser's page sends other messages, which nothing here uses

    def _goal(self, given: Mapping[str, Any]) -> str:
        assert self.server is not None
        name = given.get("name")
        if (
            not isinstance(name, str)
            or name not in self.server.scene._handle_from_transform_controls_name
        ):
            raise Refused(f"there is no goal {_short(name)}")
        return name

    def _update(self, given: Mapping[str, Any]) -> dict[str, Any]:
        assert self.server is not None
        place, updates = given.get("uuid"), given.get("updates")
        handle = None
        if isinstance(place, str):
            handle = self.server.gui._gui_input_handle_from_uuid.get(place)
        if handle is None:
            raise Refused("there is no such setting")
        if not isinstance(updates, dict) or set(updates) != {"value"}:
            raise Refused(f"{handle.label}: only its value can be set")
        return {"uuid": place, "updates": {"value": _clipped(handle, updates["value"])}}

    def _checked(self, serve: Callable[..., Any]) -> Callable[..., Any]:
        """`serve`, a function that answers HTTP requests, for the served page only."""

        def answer(connection: ServerConnection, request: Request) -> Response | None:
            import viser

            for origin in request.headers.get_all("Origin"):
                if not _served_here(origin, request.headers.get_all("Host")):
                    self.say(f"refused a page of {_short(origin)}")
                    text = "only the page that is served here may connect\n"
                    return connection.respond(http.HTTPStatus.FORBIDDEN, text)
            protocols = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
            known = f"viser-v{viser.__version__}" in map(str.strip, protocols.split(","))
            if request.headers.get_all("Upgrade") and not known:
                text = f"the page is not one of viser {viser.__version__}; load it again\n"
                return connection.respond(http.HTTPStatus.BAD_REQUEST, text)
            return serve(connection, request)

        return answer

    def _handled(self, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Any]:
        async def handled(connection: Any) -> None:
            try:
                await handler(connection)
            except Exception as error:  # no message of a page may stop the robot
                self.say(f"disconnected a page: {type(error).__name__}: {_short(error)}")

        return handled


def _connection(guard: Guard) -> type[ServerConnection]:
    from websockets.asyncio.server import ServerConnection

    class Connection(ServerConnection):
        """Passes on messages that the guard admits, and closes if the page reads no data."""

        async def recv(self, decode: bool | None = None) -> Any:
            while True:
                admitted = guard.admit(await super().recv(decode))
                if admitted is not None:
                    return admitted

        async def drain(self) -> None:
            # Without this, pings and the closing handshake wait for such a client too.
            try:
                async with asyncio.timeout(PATIENCE):
                    await super().drain()
            except TimeoutError:
                guard.say("dropped a page that takes no data")
                raise ConnectionError("it takes no data") from None

    return Connection


def _served_here(origin: str, hosts: list[str]) -> bool:
    """Whether a page of this origin was served here, by the host name and port of the request.

    The port may differ from the server's, if it is forwarded from another machine.
    """
    try:
        url = urlsplit(origin)
        return (
            url.scheme in ("http", "https")
            and url.hostname in LOCAL
            and hosts == [url.netloc]
            and url.geturl() == f"{url.scheme}://{url.netloc}"
        )
    except ValueError:
        return False


def _clipped(handle: Any, value: Any) -> Any:
    """The value clipped to the range of an element of the page; raises Refused for other types."""
    import viser

    if isinstance(handle, viser.GuiSliderHandle):
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise Refused(f"{handle.label}: {_short(value)} is not a number")
        clipped = min(max(value, handle.min), handle.max)
        return round(clipped) if isinstance(handle.value, int) else float(clipped)
    if isinstance(handle, viser.GuiDropdownHandle):
        if value not in handle.options:
            raise Refused(f"{handle.label}: there is no {_short(value)}")
    elif not isinstance(value, bool):  # a button or a checkbox
        raise Refused(f"{handle.label}: {_short(value)} is not true or false")
    return value


def _camera(given: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
    found: dict[str, Any] = {name: _numbers(given, name, size) for name, size in sizes.items()}
    for name in ("fov", "near", "far", "image_height", "image_width"):
        found[name] = _numbers({name: [given.get(name)]}, name, 1)[0]
    return found


def _numbers(given: Mapping[str, Any], name: str, count: int) -> list[Any]:
    values = given.get(name)
    if not isinstance(values, list) or len(values) != count:
        raise Refused(f"{name} must be {count} numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise Refused(f"{name} has {_short(value)}, which is not a finite number")
    return values


def _finite(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e30


def _short(value: Any) -> str:
    said = ascii(str(value) if isinstance(value, Exception) else value)
    return said if len(said) <= 60 else f"{said[:60]}..."
