import base64
import contextlib
import functools
import http.server
import io
import itertools
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import mujoco
import numpy as np
import pytest
import viser
from PIL import Image
from websockets.sync.client import connect

from envs import TASKS
from envs.viewer import page
from envs.viewer import scene as scenes
from envs.viewer.page import HOST, Setting, Status, Viewer

STATUS = Status(plan_hz=24.8, plan_ms=12.3, real_time=1.5, reward=0.83, score=21.4, step=7)

# Every kind of geom, a goal that can be dragged, a camera that looks along y at the origin.
MJCF = """
<mujoco>
  <asset><mesh name="wedge" vertex="0 0 0  .2 0 0  0 .2 0  0 0 .2"/></asset>
  <worldbody>
    <camera name="side" pos="0 -4 0" xyaxes="1 0 0 0 0 1" fovy="45"/>
    <geom name="floor" type="plane" pos="0 0 -1" size="0 0 1" rgba=".9 .9 .9 1"/>
    <geom name="wedge" type="mesh" mesh="wedge" pos="-1 0 .6"/>
    <geom type="box" size=".1 .1 .1" pos="-1 0 -.6" group="3"/>
    <body name="ball">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom type="sphere" size=".25" rgba="1 0 0 1" mass="2"/>
      <body name="arm" pos="0 0 -.4">
        <joint name="hinge" type="hinge" axis="0 1 0"/>
        <geom type="capsule" size=".05" fromto="0 0 0 0 0 -.3" rgba="0 0 1 .5"/>
        <geom type="cylinder" size=".05 .1" pos="0 0 -.35"/>
        <geom type="ellipsoid" size=".1 .05 .05" pos="0 0 -.45"/>
      </body>
    </body>
    <body name="goal" mocap="true" pos=".8 0 .5">
      <geom type="box" size=".1 .1 .1" rgba="0 .6 .3 .4" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(autouse=True)
def without_a_pause(monkeypatch):
    """Let every call to `show` and `traces` through."""
    monkeypatch.setattr(page, "FRAME", 0.0)
    monkeypatch.setattr(page, "READING", 0.0)


@pytest.fixture
def scene():
    model = mujoco.MjModel.from_xml_string(MJCF)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    settings = {"sigma": Setting(0.0, 1.0, 0.1, 0.5), "horizon": Setting(5, 50, 1, 25)}
    with Viewer(
        model,
        title="test scene",
        settings=settings,
        weights={"speed": 2.0, "effort": -0.5, "bonus": 0.0},
        camera="side",
        port=0,
        generator=np.random.default_rng(0),
    ) as viewer:
        yield viewer, model, data


def _turn(model, geom):
    """Rotation (3, 3) from a geom's frame into its body's, transposed."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, model.geom(geom).quat)
    return matrix.reshape(3, 3).T


def pose(viewer, name):
    """Position and orientation of a node in a new page."""
    found = {"position": (0, 0, 0), "wxyz": (1, 0, 0, 0)}
    for message in viewer.server._websock_server._broadcast_buffer.message_from_id.values():
        if getattr(message, "name", None) == name:
            for part in found:
                found[part] = getattr(message, part, found[part])
    return found["position"], found["wxyz"]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_has_a_scene_that_follows_its_bodies(task):
    model = task.compile()
    data = mujoco.MjData(model)
    with Viewer(
        model, title=task.name, settings={}, weights=task.weights, camera=task.camera, port=0
    ) as viewer:
        rng = np.random.default_rng(0)
        data.qpos[:], data.qvel[:] = task.initial(rng)
        data.ctrl[:] = rng.uniform(*model.actuator_ctrlrange.T)
        mujoco.mj_step(model, data, nstep=20)
        viewer.show(data, STATUS)
        shown = 0
        for body in range(1, model.nbody):
            geoms = range(model.ngeom)[model.body(body).geomadr[0] :][: model.body_geomnum[body]]
            if model.body_weldid[body] and any(model.geom_group[geom] < 3 for geom in geoms):
                position, wxyz = pose(viewer, f"/world/{body} {model.body(body).name}")
                np.testing.assert_allclose(position, data.xpos[body])
                np.testing.assert_allclose(wxyz, data.xquat[body])
                shown += 1
        assert shown
        # The page follows a tracked body by moving the world in the opposite direction.
        gone = data.xpos[viewer._followed] - viewer._start
        np.testing.assert_allclose(viewer._world.position, (-gone[0], -gone[1], 0), atol=1e-6)


def test_geoms_have_the_models_place_size_and_colour(scene):
    viewer, model, _ = scene
    names = {
        m.name: m
        for m in viewer.server._websock_server._broadcast_buffer.message_from_id.values()
        if hasattr(m, "props") and hasattr(m, "name")
    }
    by_kind = {type(m).__name__: m.props for m in names.values()}
    assert by_kind["IcosphereMessage"].scale == pytest.approx((0.1, 0.05, 0.05))
    assert by_kind["BoxMessage"].dimensions == pytest.approx((0.2, 0.2, 0.2))
    assert by_kind["BoxMessage"].color == (0, 153, 76)
    assert by_kind["BoxMessage"].opacity == pytest.approx(0.4)
    assert (by_kind["CylinderMessage"].radius, by_kind["CylinderMessage"].height) == (0.05, 0.2)
    assert by_kind["GridMessage"].infinite_grid
    meshes = {n: m.props for n, m in names.items() if type(m).__name__ == "MeshMessage"}
    capsule = next(p for p in meshes.values() if p.color == (0, 0, 255))
    np.testing.assert_allclose(capsule.vertices.max(0), (0.05, 0.05, 0.2), atol=2e-3)
    np.testing.assert_allclose(capsule.vertices.min(0), (-0.05, -0.05, -0.2), atol=2e-3)
    wedge = next(p for p in meshes.values() if len(p.faces) == 4)
    np.testing.assert_allclose(np.ptp(wedge.vertices @ _turn(model, "wedge"), axis=0), 0.2)
    # Collision geoms (group 3) are left out, so the only box is that of the goal.
    assert sum(type(m).__name__ == "BoxMessage" for m in names.values()) == 1


def test_the_view_begins_at_the_named_camera(scene):
    viewer, _, _ = scene
    camera = viewer.server.initial_camera
    np.testing.assert_allclose(camera.position, (0, -4, 0), atol=1e-12)
    assert abs(camera.look_at[0]) < 1e-12 and camera.look_at[1] > -4
    assert camera.fov == pytest.approx(np.pi / 4)


def test_the_page_shows_the_status_numbers(scene):
    viewer, _, data = scene
    viewer.show(data, STATUS)
    text = viewer._reading.content
    for number in ("24.8 /s", "12.3 ms", "1.50 ×", ">0.83<", ">21.4<", ">7<"):
        assert number in text


def test_the_viewer_starts_without_requests(scene):
    wishes = scene[0].take()
    assert not (wishes.paused or wishes.reset or wishes.closed) and wishes.real_time
    assert wishes.push is None and not (wishes.settings or wishes.weights or wishes.goals)


def test_a_click_is_reported_once(scene):
    viewer, model, _ = scene
    for button in (viewer._pause, viewer._reset, viewer._shove):
        button.value = True
    viewer._real_time.value = False
    viewer._body.value = "arm"
    viewer._strength.value = 3.0
    viewer._settings["sigma"][0].value = 0.7
    viewer._settings["horizon"][0].value = 30
    viewer._weights["effort"][0].value = -1.0
    wishes = viewer.take()
    assert wishes.paused and wishes.reset and not wishes.real_time
    assert wishes.settings == {"sigma": 0.7, "horizon": 30}
    assert isinstance(wishes.settings["horizon"], int)
    assert wishes.weights == {"effort": -1.0}
    assert wishes.push is not None and wishes.push.body == model.body("arm").id
    assert np.linalg.norm(wishes.push.impulse) == pytest.approx(3.0)
    assert viewer._pause.label == "Resume"

    wishes = viewer.take()
    assert wishes.paused and not wishes.reset and wishes.push is None
    assert not (wishes.settings or wishes.weights)
    viewer._pause.value = viewer._stop.value = True
    wishes = viewer.take()
    assert not wishes.paused and wishes.closed and viewer._pause.label == "Pause"
    assert viewer.take().closed


def test_a_push_acts_along_the_directions_that_the_joints_allow(scene):
    viewer, model, _ = scene
    viewer._body.value = "ball"  # on a slide along x
    for _ in range(5):
        viewer._shove.value = True
        push = viewer.take().push
        assert push.body == model.body("ball").id
        assert abs(push.impulse[0]) == pytest.approx(viewer._strength.value)
        np.testing.assert_allclose(push.impulse[1:], 0, atol=1e-9)


def test_weight_sliders_range_from_zero_to_four_times_the_value(scene):
    sliders = {name: slider for name, (slider, _) in scene[0]._weights.items()}
    assert [(s.min, s.max, s.value) for s in sliders.values()] == [
        (0, 8, 2.0),
        (-2, 0, -0.5),
        (0, 1, 0.0),
    ]


def test_a_height_field_is_drawn_where_rays_meet_it():
    """A ridge along y whose rows and columns differ in number, so that axes cannot be swapped."""
    spec = mujoco.MjSpec()
    heights = np.tile(np.sin(np.linspace(0, np.pi, 9)), (5, 1))
    grid = {"nrow": 5, "ncol": 9, "userdata": heights.ravel().tolist()}
    spec.add_hfield(name="ridge", size=[2, 1, 0.5, 0.1], **grid)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="ridge")
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    vertices, faces = scenes._terrain(model, 0)
    assert vertices.shape == (3 * 5, 3) and faces.shape == (2 * 2 * 4, 3)
    for x, y, z in vertices:
        start, hit = np.array([0.999 * x, 0.999 * y, 3.0]), np.zeros(1, np.int32)
        met = mujoco.mj_ray(model, data, start, -np.eye(3)[2], None, 1, -1, hit)
        assert 3.0 - met == pytest.approx(z, abs=2e-3)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()  # seen from above


def test_a_goal_follows_the_task_and_the_users_dragging(scene):
    viewer, model, data = scene
    (handle,) = viewer._handles
    np.testing.assert_allclose(handle.position, (0.8, 0, 0.5))
    data.mocap_pos[0] = (0.1, 0.2, 0.3)  # the task draws another goal, not the user
    mujoco.mj_forward(model, data)
    viewer.show(data, STATUS)
    np.testing.assert_allclose(handle.position, (0.1, 0.2, 0.3))
    np.testing.assert_allclose(pose(viewer, "/world/3 goal")[0], (0.1, 0.2, 0.3))
    assert "goal" not in viewer._bodies  # it cannot be pushed
    assert not viewer.take().goals

    handle.position = (0.5, 0.0, 0.4)  # dragged
    goals = viewer.take().goals
    np.testing.assert_allclose(goals[0], (0.5, 0, 0.4))
    handle.position = (0.6, 0.0, 0.4)  # dragged on, before the loop has moved the goal
    data.mocap_pos[0] = goals[0]
    viewer.show(data, STATUS)
    np.testing.assert_allclose(handle.position, (0.6, 0, 0.4))
    np.testing.assert_allclose(viewer.take().goals[0], (0.6, 0, 0.4))
    assert not viewer.take().goals


def test_traces_are_redrawn_in_place(scene):
    viewer, _, _ = scene
    rng = np.random.default_rng(0)
    buffer = viewer.server._websock_server._broadcast_buffer.message_from_id
    sizes = []
    for population, horizon in [(32, 25), (64, 40), (3, 2), (32, 25), (32, 25)]:
        paths = rng.standard_normal((population, horizon, 3))
        viewer.traces({"tip": paths}, {"tip": paths[0]})
        sizes.append(len(buffer))
        plan = viewer._traces["tip", True].points
        np.testing.assert_allclose(plan[0, 0], paths[0, 0], atol=1e-6)
        np.testing.assert_allclose(plan[-1, 1], paths[0, -1], atol=1e-6)
        best = viewer._traces["tip", False].points[-1, 1]
        np.testing.assert_allclose(best, paths[0, -1], atol=1e-6)
    assert sizes[1:] == [sizes[1]] * 4  # no messages accumulate for a page that opens late

    before = viewer._traces["tip", False].points.copy()
    viewer.traces({"tip": np.full((4, 5, 3), np.nan)}, {"tip": np.full((5, 3), np.inf)})
    np.testing.assert_array_equal(viewer._traces["tip", False].points, before)
    viewer._plans.value = False
    viewer.traces({"tip": paths}, {"tip": paths[0]})
    assert not viewer._traces["tip", False].visible and not viewer._traces["tip", True].visible


def test_better_candidates_have_stronger_colours(scene):
    viewer, _, _ = scene
    viewer.traces({"tip": np.zeros((24, 25, 3))}, {})
    colours = viewer._traces["tip", False].colors.reshape(24, -1, 3).astype(int)
    assert (np.diff(colours[:, 0].sum(axis=-1)) < 0).all()  # the worst is drawn first, and paler


def test_a_port_in_use_is_refused_with_the_name_of_a_free_one(scene):
    port = scene[0].server.get_port()
    with pytest.raises(ValueError, match=f"^port {port}: .*in use.*--viewer-port") as caught:
        Viewer(scene[1], title="second", settings={}, weights={}, port=port)
    assert "\n" not in str(caught.value)
    free = int(str(caught.value).rsplit(" ", 1)[1])
    with socket.socket() as probe:
        probe.bind((HOST, free))


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_invalid_port_is_refused(scene, port):
    with pytest.raises(ValueError, match=f"port: want 0 to 65535, got {port}"):
        Viewer(scene[1], title="second", settings={}, weights={}, port=port)


def test_only_this_machine_can_connect(scene):
    viewer, _, _ = scene
    assert viewer.url == f"http://127.0.0.1:{viewer.server.get_port()}"
    socket.create_connection((HOST, viewer.server.get_port())).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", viewer.server.get_port()))
    assert viewer.server.request_share_url() is None


def test_without_viser_the_error_names_what_to_install(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rolloutlab\[viewer\]'"):
        Viewer(scene[1], title="second", settings={}, weights={}, port=0)


def test_the_viewer_prints_nothing_to_stdout(capsys):
    model = mujoco.MjModel.from_xml_string(MJCF)
    with Viewer(model, title="quiet", settings={}, weights={}, port=0):
        pass
    assert capsys.readouterr().out == ""


class Browser:
    """A page in headless Chromium, driven over its DevTools connection."""

    def __init__(self, program, folder, url):
        arguments = (
            "--headless=new --no-sandbox --remote-debugging-port=0 "
            "--use-angle=swiftshader --enable-unsafe-swiftshader --disable-dev-shm-usage "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--no-first-run --disable-extensions"
        )
        self.process = subprocess.Popen(
            [program, *arguments.split(), f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = Path(folder) / "DevToolsActivePort"
        until(lambda: told.exists() and "\n" in told.read_text())
        listing = f"http://{HOST}:{told.read_text().split()[0]}/json"
        with urllib.request.urlopen(listing) as reply:
            page = next(target for target in json.load(reply) if target["type"] == "page")
        self.socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        self.numbers, self.requested = itertools.count(), set()
        self("Network.enable")
        screen = {"width": 1000, "height": 600, "deviceScaleFactor": 1, "mobile": False}
        self("Emulation.setDeviceMetricsOverride", **screen)
        self("Page.navigate", url=url)

    def __call__(self, method, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=120))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.add(message["params"]["request"]["url"])
            if message.get("id") == number:
                return message.get("result", {})  # a page that is loading has none

    def evaluate(self, code):
        reply = self("Runtime.evaluate", expression=code, returnByValue=True)
        return reply.get("result", {}).get("value")

    def place(self, elements, index=0):
        """Centre (x, y) and width of an element, by a JavaScript expression for a list."""
        return self.evaluate(
            f"(() => {{ const e = [...{elements}][{index}]; if (!e) return null;"
            "e.scrollIntoView(); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2, r.width] })()"
        )

    def mouse(self, kind, x, y, buttons=0):
        button = "left" if buttons or kind != "mouseMoved" else "none"
        self(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button=button,
            buttons=buttons,
            clickCount=1,
        )

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y)

    def click_button(self, text):
        buttons = f"document.querySelectorAll('button')].filter(b => b.innerText.trim() == '{text}'"
        until(lambda: self.place(f"[...{buttons})"))
        self.click(*self.place(f"[...{buttons})")[:2])

    def picture(self):
        """The screen, (h, w, 3)."""
        png = base64.b64decode(self("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def close(self):
        with contextlib.suppress(Exception):
            self("Browser.close")
        self.process.wait(30)


def until(happens, seconds=120):
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (result := happens()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return result


@pytest.fixture
def browser(scene, tmp_path):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a headless browser: apt-get install chromium")
    page = Browser(program, tmp_path, scene[0].url)
    yield page
    page.close()


@pytest.mark.timeout(600)
def test_buttons_sliders_and_dragging_work_in_a_browser(scene, browser):
    viewer, model, data = scene

    def asked(wish):
        return until(lambda: wish(viewer.take()))

    def ball():
        """Pixels from the left to the red ball on the screen; None if it is not visible."""
        viewer.show(data, STATUS)
        red, green, blue = np.moveaxis(browser.picture(), -1, 0)
        where = np.argwhere((red > 100) & (green < red / 3) & (blue < red / 3))
        return where[:, 1].mean() if len(where) > 500 else None

    viewer.show(data, STATUS)
    until(lambda: "24.8 /s" in (browser.evaluate("document.body.innerText") or ""))
    before = until(ball)
    data.qpos[0] = -0.5
    mujoco.mj_forward(model, data)
    until(lambda: (now := ball()) and now < before - 40)

    browser.click_button("Pause")
    asked(lambda wishes: wishes.paused)
    browser.click_button("Resume")
    asked(lambda wishes: not wishes.paused)
    browser.click_button("Reset")
    asked(lambda wishes: wishes.reset)
    browser.click_button("Push")
    assert asked(lambda wishes: wishes.push).body == model.body("ball").id
    x, y, width = browser.place("document.querySelectorAll('.mantine-Slider-trackContainer')", 1)
    browser.click(x + 0.25 * width, y)
    assert asked(lambda wishes: wishes.settings)["sigma"] > 0.6
    # The goal's handle: its upward arrow begins at (0.8, 0, 0.5), 4 m away, seen over 45 degrees.
    focal = 300 / np.tan(np.pi / 8)
    x, y = 500 + focal * 0.8 / 4, 300 - focal * 0.5 / 4 - 30
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, 1)
    for moved in range(5, 45, 5):
        browser.mouse("mouseMoved", x, y - moved, 1)
        browser.picture()  # lets the page draw
    browser.mouse("mouseReleased", x, y - 40)
    asked(lambda wishes: wishes.goals)
    until(lambda: abs(viewer._handles[0].position[2] - 0.5 - 40 * 4 / focal) < 0.05)
    np.testing.assert_allclose(viewer._handles[0].position[:2], (0.8, 0), atol=1e-6)
    browser.click_button("Stop")
    asked(lambda wishes: wishes.closed)
    own = (viewer.url, "data:", f"blob:{viewer.url}", "about:")
    assert browser.requested and all(url.startswith(own) for url in browser.requested)


@pytest.mark.timeout(300)
def test_a_page_of_another_site_cannot_control_the_viewer(scene, browser, tmp_path):
    """A page from another server on this machine tries what the viewer's page may do."""
    viewer, _, _ = scene
    port, name = viewer.server.get_port(), f"viser-v{viser.__version__}"
    until(lambda: viewer.server._websock_server._live_connections)  # the viewer's page is admitted
    script = (
        "window.said = ''; const s = new WebSocket('ws://%s:%d', '%s');"
        "s.onopen = () => { window.said = 'open' }; s.onerror = () => { window.said = 'refused' };"
    )
    (tmp_path / "index.html").write_text(f"<script>{script % (HOST, port, name)}</script>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        browser("Page.navigate", url=f"http://{HOST}:{other.server_port}/index.html")
        assert until(lambda: browser.evaluate("window.said")) == "refused"
        other.shutdown()
    browser("Page.navigate", url=viewer.url)
    until(lambda: viewer.server._websock_server._live_connections)
