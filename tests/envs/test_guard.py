"""Other pages and programs can do no more to the viewer than its user can."""

import math
import socket
import time

import msgspec.msgpack
import mujoco
import numpy as np
import pytest
import viser
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from envs.viewer import guard
from envs.viewer.page import HOST, Setting, Status, Viewer

STATUS = Status(plan_hz=1.0, plan_ms=1.0, real_time=1.0, reward=0.0, score=0.0, step=1)
MJCF = """
<mujoco>
  <worldbody>
    <body name="ball"><joint type="slide" axis="1 0 0"/><geom size=".2" mass="1"/></body>
    <body name="goal" mocap="true" pos=".5 0 .5"><geom size=".1" contype="0"/></body>
  </worldbody>
</mujoco>
"""
PROTOCOL = [f"viser-v{viser.__version__}"]


@pytest.fixture
def viewer():
    model = mujoco.MjModel.from_xml_string(MJCF)
    settings = {"sigma": Setting(0.0, 1.0, 0.1, 0.5), "horizon": Setting(5, 50, 1, 25)}
    with Viewer(
        model, title="guarded", settings=settings, weights={"speed": 2.0}, port=0
    ) as opened:
        yield opened


def address(viewer, name=HOST):
    return f"ws://{name}:{viewer.server.get_port()}"


def page(viewer, **how):
    return connect(address(viewer), subprotocols=PROTOCOL, max_size=None, **how)


def send(client, kind, **fields):
    client.send(msgspec.msgpack.encode({"type": kind, **fields}))


def put(client, handle, value, **others):
    send(client, "GuiUpdateMessage", uuid=handle._impl.uuid, updates={"value": value, **others})


def settled(viewer, client):
    """Wait until all messages of a client are processed, by sending one more change."""
    wanted, end = not viewer._follow.value, time.monotonic() + 20
    put(client, viewer._follow, wanted)
    while viewer._follow.value != wanted:
        assert time.monotonic() < end, "it never arrived"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:{port}",
        "http://127.0.0.1.evil.example:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://evil@127.0.0.1:{port}",
        "http://localhost:{port}",  # another origin than 127.0.0.1, where the page was opened
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "http://[::1",
        "file://",
        "null",
        "",
    ],
)
def test_pages_of_other_origins_are_refused(viewer, capsys, origin):
    origin = origin.format(port=viewer.server.get_port())
    with pytest.raises(InvalidStatus) as refused:
        page(viewer, additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert capsys.readouterr().err.splitlines() == [f"viewer: refused a page of {origin!r}"]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_viewers_page_and_programs_can_connect(viewer, capsys, name):
    at = f"{name}:{viewer.server.get_port()}"
    for origin in (f"http://{at}", None):
        with connect(f"ws://{at}", subprotocols=PROTOCOL, max_size=None, origin=origin) as client:
            assert client.recv(timeout=20)
    assert capsys.readouterr().err == ""


def test_a_foreign_host_name_of_this_machine_is_refused(viewer):
    """A site can make its name resolve to this machine; its pages then have this port too."""
    at = f"evil.example:{viewer.server.get_port()}"
    with socket.create_connection((HOST, viewer.server.get_port())) as raw:
        raw.sendall(
            f"GET / HTTP/1.1\r\nHost: {at}\r\nOrigin: http://{at}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {PROTOCOL[0]}\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


def test_a_page_of_another_version_is_informed_and_nothing_is_printed(viewer, capsys):
    with pytest.raises(InvalidStatus) as refused:
        connect(address(viewer), subprotocols=["viser-v0.0.1"])
    assert refused.value.response.status_code == 400
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "sent", "got"),
    [
        ("horizon", 10**8, 50),
        ("horizon", -(10**8), 5),
        ("horizon", math.inf, 50),
        ("horizon", 30.4, 30),
        ("sigma", 1e300, 1.0),
        ("sigma", -1, 0.0),
        ("sigma", 0.25, 0.25),
    ],
)
def test_values_are_clipped_to_the_range_of_their_sliders(viewer, capsys, name, sent, got):
    with page(viewer) as client:
        put(client, viewer._settings[name][0], sent)
        settled(viewer, client)
    wished = viewer.take().settings
    assert wished == {name: got} and type(wished[name]) is type(got)
    assert capsys.readouterr().err == ""


def unknown(viewer, client):
    send(client, "GuiUpdateMessage", uuid="nobody", updates={"value": 1})


REFUSED = {
    "NaN": (lambda v, c: put(c, v._settings["sigma"][0], math.nan), "sigma: nan is not a number"),
    "text": (lambda v, c: put(c, v._settings["horizon"][0], "9"), "horizon: '9' is not a number"),
    "list": (lambda v, c: put(c, v._weights["speed"][0], [1]), "speed: [1] is not a number"),
    "true": (lambda v, c: put(c, v._weights["speed"][0], True), "speed: True is not a number"),
    "push": (lambda v, c: put(c, v._strength, math.nan), "N·s: nan is not a number"),
    "body": (lambda v, c: put(c, v._body, "moon"), "body: there is no 'moon'"),
    "body of another type": (lambda v, c: put(c, v._body, [["ball"]]), "body: there is no"),
    "button": (lambda v, c: put(c, v._reset, "yes"), "Reset: 'yes' is not true or false"),
    "setting": (unknown, "there is no such setting"),
    "setting of another type": (
        lambda v, c: send(c, "GuiUpdateMessage", uuid=["x"], updates={"value": 1}),
        "there is no such setting",
    ),
    "range": (
        lambda v, c: send(
            c, "GuiUpdateMessage", uuid=v._strength._impl.uuid, updates={"max": 1e9}
        ),
        "only its value can be set",
    ),
    "range too": (lambda v, c: put(c, v._strength, 1.0, max=1e9), "only its value can be set"),
    "goal": (
        lambda v, c: send(
            c, "TransformControlsUpdateMessage", name="/moon", wxyz=[1, 0, 0, 0], position=[0] * 3
        ),
        "there is no goal '/moon'",
    ),
    "place": (
        lambda v, c: send(
            c, "TransformControlsUpdateMessage", name="/world/goal 0", wxyz=[1, 0, 0, 0],
            position=[0, math.nan, 0],
        ),
        "position has nan, which is not a finite number",
    ),
    "place of two": (
        lambda v, c: send(
            c, "TransformControlsUpdateMessage", name="/world/goal 0", position=[0, 1]
        ),
        "position must be 3 numbers",
    ),
    "camera": (
        lambda v, c: send(c, "ViewerCameraMessage", wxyz="north"), "wxyz must be 4 numbers"
    ),
    "no message": (lambda v, c: c.send(msgspec.msgpack.encode([1, 2])), "it is no message"),
    "no msgpack": (lambda v, c: c.send(b"\xc1\xff"), "it cannot be read"),
    "deep": (lambda v, c: c.send(b"\x91" * 100_000), "it cannot be read"),
    "words": (lambda v, c: c.send("hello"), "it cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_messages_are_ignored_with_one_line(viewer, capfd, what):
    act, said = REFUSED[what]
    with page(viewer) as client:
        for _ in range(3):
            act(viewer, client)
        settled(viewer, client)
    wishes = viewer.take()
    assert not (wishes.settings or wishes.weights or wishes.goals or wishes.reset)
    assert viewer._strength.max < 100 and viewer._body.value == "ball"
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert err.startswith("viewer: ignored what a page sent: ") and said in err


def test_messages_without_a_listener_are_ignored(viewer, capfd):
    with page(viewer) as client:
        send(client, "FileTransferStartUpload", source_component_uuid="x", size_bytes=10**12)
        send(client, "ShareUrlRequest")
        send(client, "Nonsense", value=1)
        settled(viewer, client)
    assert capfd.readouterr() == ("", "")


def test_a_goal_is_dragged_no_farther_than_ten_times_the_model(viewer):
    with page(viewer) as client:
        fields = {"name": "/world/goal 0", "wxyz": [1, 0, 0, 0], "owner": ""}
        send(client, "TransformControlsUpdateMessage", position=[1e9, 0.1, -1e9], **fields)
        settled(viewer, client)
    goal = viewer.take().goals[0]
    stat = viewer.model.stat
    assert goal[0] == pytest.approx(stat.center[0] + 10 * stat.extent)
    assert goal[1:] == pytest.approx([0.1, stat.center[2] - 10 * stat.extent])


def silent_client(viewer):
    """A connected client that never reads."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((HOST, viewer.server.get_port()))
    raw.sendall(
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {PROTOCOL[0]}\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return raw


def draw(viewer, seconds):
    """Draw for a while; the longest time of a call, in seconds."""
    data, paths = mujoco.MjData(viewer.model), np.random.default_rng(0).random((24, 30, 3))
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        data.qpos[0] += 0.01
        mujoco.mj_forward(viewer.model, data)
        began = time.perf_counter()
        viewer.traces({"tip": paths + data.qpos[0]}, {"tip": paths[0]})
        viewer.show(data, STATUS)
        viewer.take()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.01)
    return longest


def test_a_client_that_never_reads_is_disconnected_and_delays_nothing(viewer, monkeypatch, capfd):
    monkeypatch.setattr(guard, "PATIENCE", 1.0)
    alive = viewer.server._websock_server._live_connections
    with silent_client(viewer):
        assert draw(viewer, 0.5) < 0.3
        assert len(alive) == 1
        end = time.monotonic() + 60
        while alive:
            assert time.monotonic() < end, "never dropped"
            draw(viewer, 0.5)
    assert capfd.readouterr().err == "viewer: dropped a page that takes no data\n"


def test_stopping_does_not_wait_for_a_client_that_never_reads(viewer):
    with silent_client(viewer), page(viewer) as good:
        draw(viewer, 2.0)
        began = time.monotonic()
        viewer.close()
        assert time.monotonic() - began < 2.0
        with pytest.raises(ConnectionClosed):
            while True:
                good.recv(timeout=20)


def test_random_bytes_on_the_port_print_nothing(viewer, capfd):
    for noise in (b"", b"GET", b"\x00\xff\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((HOST, viewer.server.get_port())) as raw:
            raw.sendall(noise)
    with page(viewer) as client:
        settled(viewer, client)
    assert capfd.readouterr() == ("", "")
