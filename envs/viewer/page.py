"""The page that shows a robot live in a web browser and collects its user's requests.

viser (https://viser.studio) serves the page from this process; nothing is fetched from elsewhere,
only this machine can connect, and pages of other sites are refused (see `envs.viewer.guard`). The
control loop calls `show` and `traces` to draw, and `take` for the user's requests since the last
call. Nothing here calls the control loop, so no lock is needed, and a run without the viewer gives
the same numbers.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import mujoco
import numpy as np

from envs.viewer.guard import Guard
from envs.viewer.scene import build

if TYPE_CHECKING:
    import viser

HOST = "127.0.0.1"
FRAME = 1 / 30  # s between two pictures
READING = 0.2  # s between two updates of the numbers; faster ones cannot be read
DRAWN = 24
"""Paths of candidates drawn for each trace; more would hide one another."""
FAR = 10.0  # how far from the model's centre goals can be dragged, over the model's size
POINTS = 33  # drawn of a path, at any horizon

WORST, BEST = (0.74, 0.80, 0.88), (0.10, 0.36, 0.72)
CHOSEN, CHOSEN_LATE = (0.86, 0.06, 0.34), (0.96, 0.62, 0.74)  # now, and at the horizon


class Setting(NamedTuple):
    """A slider: its range, step and value. A slider of integers gives integers."""

    low: float
    high: float
    step: float
    value: float


class Status(NamedTuple):
    """The numbers that the page shows of the control loop."""

    plan_hz: float
    """Plans per second."""
    plan_ms: float
    """Milliseconds that the last plan took."""
    real_time: float
    """Simulated seconds per second."""
    reward: float
    """Reward of the last step."""
    score: float
    """Score of the last plan."""
    step: int
    """Control steps since the reset."""


class Push(NamedTuple):
    """An impulse to give to a body."""

    body: int
    """Its id in the model."""
    impulse: np.ndarray
    """(3,) N·s at the body's centre of mass, in the world's frame."""

    def give(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Change the velocities in `data` as the impulse would."""
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_forward(model, data)
        mujoco.mj_jacBodyCom(model, data, jacobian, None, self.body)
        change = np.zeros((1, model.nv))
        mujoco.mj_solveM(model, data, change, (jacobian.T @ self.impulse)[None])
        data.qvel += change[0]


class Wishes(NamedTuple):
    """The user's requests: two switches of the page, and what was done since the last call."""

    paused: bool
    real_time: bool
    """Run no faster than real time."""
    reset: bool
    push: Push | None
    settings: dict[str, float]
    """The planner's settings that changed."""
    weights: dict[str, float]
    """The reward's weights that changed."""
    goals: dict[int, np.ndarray]
    """Mocap id -> position (3,) in m, of the goals that were dragged."""
    closed: bool
    """Stop was clicked, now or earlier."""


class Viewer:
    """A web page, served on this machine, that shows a robot; a context manager.

        with Viewer(model, title="half-cheetah", settings={}, weights={}) as viewer:
            while not (wishes := viewer.take()).closed:
                ...                                   # carry out the requests, plan, step
                viewer.traces(candidates, chosen)
                viewer.show(data, status)

    A paused loop goes on calling `take` and `show`: goals can be dragged while time stands still.
    `show` and `traces` send at most 30 pictures a second and return at once in between.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        title: str,
        settings: Mapping[str, Setting],
        weights: Mapping[str, float],
        camera: str | int = -1,
        port: int = 8080,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Build the scene from the compiled model and serve it on 127.0.0.1.

        Each of `settings` gets a slider, whose range is widened to its value; each of `weights`
        one from 0 to four times its value. `camera` is the model's camera from which the page first
        looks, -1 for a view of the whole model; if it tracks a body, the page follows that body.
        Port 0 is any free port. `generator` draws the directions of pushes.

        Raises ModuleNotFoundError without viser, ValueError for a port that is taken or invalid.
        """
        self.model = model
        self._rng = np.random.default_rng() if generator is None else generator
        self._next_frame = self._next_reading = self._next_traces = 0.0  # s of perf_counter
        self._paused = self._closed = False
        self._traces: dict[tuple[str, bool], viser.LineSegmentsHandle] = {}
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        eye = model.camera(camera).id if isinstance(camera, str) else camera
        room = FAR * model.stat.extent
        guard = Guard(model.stat.center - room, model.stat.center + room)
        self.server = _serve(port, title, guard)
        self.url = f"http://{HOST}:{self.server.get_port()}"
        try:
            self._aim(data, eye)
            self._world = self.server.scene.add_frame("/world", show_axes=False)
            self._poses = np.concatenate([data.xpos, data.xquat], axis=1)
            self._moving = build(self.server.scene, model, data, distance=self._distance)
            self._add_controls(settings, weights, data)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the page shows that the connection is lost."""
        server = self.server
        loop, open_ones = server.get_event_loop(), server._websock_server._live_connections
        with contextlib.suppress(RuntimeError):  # the event loop has ended already
            # A client that reads no data would delay an orderly end.
            for connection in tuple(open_ones.values()):
                loop.call_soon_threadsafe(connection.transport.abort)
        with _silence():
            server.stop()

    def show(self, data: mujoco.MjData, status: Status) -> None:
        """Move the bodies to where `data` has them, and show `status`."""
        now = time.perf_counter()
        if now < self._next_frame:
            return
        self._next_frame = now + FRAME
        from viser._messages import SetOrientationMessage, SetPositionMessage

        poses = np.concatenate([data.xpos, data.xquat], axis=1)
        changed = (poses != self._poses).any(axis=1)
        self._poses = poses
        send = self.server.scene._queue_scene_message
        with self.server.atomic():
            if self._follow.value:
                x, y, _ = self._start - data.xpos[self._followed]
                self._world.position = (x, y, 0.0)
            for body, name in self._moving:
                if changed[body]:  # a handle's own setters take six times as long
                    x, y, z, *wxyz = poses[body].tolist()
                    send(SetPositionMessage(name, (x, y, z)))
                    send(SetOrientationMessage(name, tuple(wxyz)))
            for i in np.flatnonzero((data.mocap_pos != self._mocap).any(axis=1)):
                self._handles[i].position = self._mocap[i] = data.mocap_pos[i]
                self._placed[i] = self._handles[i].position
            if now >= self._next_reading:
                self._next_reading = now + READING
                self._reading.content = _table(status)

    def traces(
        self, candidates: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray]
    ) -> None:
        """Draw the paths of plans.

        `candidates` maps the name of a traced point to paths (N, H, 3) in m, best first; `DRAWN` of
        them, evenly spaced by rank, are drawn, better ones darker. `chosen` maps it to the path
        (H, 3) of the plan that is carried out, which is drawn thick. Paths that are not finite are
        left out.
        """
        now = time.perf_counter()
        if now < self._next_traces:
            return
        self._next_traces = now + FRAME
        with self.server.atomic():
            for name, paths in candidates.items():
                self._trace(name, np.asarray(paths), False)
            for name, path in chosen.items():
                self._trace(name, np.asarray(path)[None], True)

    def take(self) -> Wishes:
        """The user's requests since the last call."""
        self._closed = _clicked(self._stop) or self._closed
        if _clicked(self._pause):
            from viser import Icon

            self._paused = not self._paused
            self._pause.label = "Resume" if self._paused else "Pause"
            self._pause.icon = Icon.PLAYER_PLAY if self._paused else Icon.PLAYER_PAUSE
        goals = {}
        for i, handle in enumerate(self._handles):
            if (handle.position != self._placed[i]).any():
                goals[i] = handle.position.copy()
                self._placed[i] = self._mocap[i] = goals[i]
        return Wishes(
            paused=self._paused,
            real_time=self._real_time.value,
            reset=_clicked(self._reset),
            push=self._draw_push() if _clicked(self._shove) else None,
            settings=_moved(self._settings),
            weights=_moved(self._weights),
            goals=goals,
            closed=self._closed,
        )

    def _aim(self, data: mujoco.MjData, camera: int) -> None:
        """Start the page's view at the model's `camera` and follow the body that it tracks."""
        model, begin = self.model, self.server.initial_camera
        self._followed = 0
        if camera < 0:
            centre, towards = model.stat.center, _unit(np.array([-0.35, 0.85, -0.38]))
            eye, fov = centre - 2.2 * model.stat.extent * towards, 40.0
        else:
            track = mujoco.mjtCamLight.mjCAMLIGHT_TRACK, mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
            if model.cam_mode[camera] in map(int, track):
                self._followed = int(model.cam_bodyid[camera])
            centre, fov = data.subtree_com[self._followed], float(model.cam_fovy[camera])
            eye, towards = data.cam_xpos[camera], -data.cam_xmat[camera].reshape(3, 3)[:, 2]
        # Dragging turns the view about the point of the line of sight nearest to the model.
        self._distance = max((centre - eye) @ towards, 0.1)
        begin.position, begin.look_at = eye, eye + self._distance * towards
        begin.fov, begin.near, begin.far = np.radians(fov), 0.01, 1000.0
        self._start = data.xpos[self._followed].copy()

    def _add_controls(
        self, settings: Mapping[str, Setting], weights: Mapping[str, float], data: mujoco.MjData
    ) -> None:
        """Add the numbers, buttons, sliders and the handles by which goals are dragged."""
        from viser import Icon

        gui, model = self.server.gui, self.model
        gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(26, 92, 184))
        self._reading = gui.add_html(_table(None))
        self._pause = gui.add_button("Pause", icon=Icon.PLAYER_PAUSE)
        self._reset = gui.add_button("Reset", icon=Icon.ROTATE_CLOCKWISE, color="gray")
        self._stop = gui.add_button("Stop", icon=Icon.PLAYER_STOP, color="gray")
        self._real_time = gui.add_checkbox(
            "real time",
            True,
            hint="run no faster than real time; slow planning still slows it down",
        )
        self._follow = gui.add_checkbox("follow", bool(self._followed), hint="keep it in view")
        self._follow.visible = bool(self._followed)
        self._plans = gui.add_checkbox("plans", True, hint="draw the paths of plans")
        with gui.add_folder("Push"):
            joined = (model.body_weldid > 0) & (model.body_mocapid < 0)
            moving = np.flatnonzero(joined).tolist()
            mass = model.body_mass[moving].sum()
            self._bodies = {model.body(i).name or f"body {i}": i for i in moving}
            self._reach = {i: _reach(model, data, i) for i in moving}
            self._body = gui.add_dropdown("body", tuple(self._bodies))
            step = 10.0 ** np.floor(np.log10(2 * mass)) / 20
            self._strength = gui.add_slider(
                "N·s", step, step * np.ceil(2 * mass / step), step, step * np.ceil(mass / 2 / step)
            )
            self._shove = gui.add_button("Push", icon=Icon.HAND_MOVE, color="orange")
        self._settings = _add_sliders(gui, "Planner", settings)
        self._weights = _add_sliders(
            gui, "Reward", {name: _weight(value) for name, value in weights.items()}
        )
        self._mocap, self._placed = data.mocap_pos.copy(), data.mocap_pos.copy()
        terrain = int(mujoco.mjtGeom.mjGEOM_HFIELD)
        grounds = model.body_mocapid[model.geom_bodyid[model.geom_type == terrain]]
        self._handles = [
            self.server.scene.add_transform_controls(
                f"/world/goal {i}",
                scale=0.09 * self._distance,
                disable_rotations=True,
                depth_test=False,
                position=position,
                visible=i not in grounds,  # nobody drags the ground
            )
            for i, position in enumerate(data.mocap_pos)
        ]

    def _trace(self, name: str, paths: np.ndarray, chosen: bool) -> None:
        """Draw or redraw paths (N, H, 3), always with as many points, so that lines are reused."""
        key = name, chosen
        drawn = self._traces.get(key)
        if drawn is not None:
            drawn.visible = self._plans.value
        paths = paths[np.isfinite(paths).all(axis=(1, 2))]
        if not len(paths) or paths.shape[1] < 2 or not self._plans.value:
            return
        if not chosen:
            paths = paths[np.linspace(len(paths) - 1, 0, DRAWN).round().astype(int)]
        at = np.linspace(0, paths.shape[1] - 1, POINTS)
        left = np.minimum(at.astype(int), paths.shape[1] - 2)
        share = (at - left)[:, None]
        points = (1 - share) * paths[:, left] + share * paths[:, left + 1]
        segments = np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 3)
        if drawn is not None:
            drawn.points = segments
            return
        if chosen:
            colours = np.linspace(CHOSEN, CHOSEN_LATE, POINTS)[None]
        else:
            colours = np.linspace(WORST, BEST, DRAWN)[:, None].repeat(POINTS, axis=1)
        self._traces[key] = self.server.scene.add_line_segments(
            f"/world/{'plan' if chosen else 'candidates'} {name}",
            segments,
            # The page expects the colours of lines in linear RGB.
            np.stack([colours[:, :-1], colours[:, 1:]], axis=2).reshape(-1, 2, 3) ** 2.2,
            thickness=(0.009 if chosen else 0.002) * self._distance,
        )

    def _draw_push(self) -> Push:
        body = self._bodies[self._body.value]
        # Mostly horizontal, in directions in which the joints let the body move.
        direction = self._reach[body] @ (self._rng.standard_normal(3) * (1.0, 1.0, 0.25))
        return Push(body, self._strength.value * _unit(direction))


def _serve(port: int, title: str, guard: Guard) -> viser.ViserServer:
    try:
        import viser
    except ModuleNotFoundError as error:
        if error.name != "viser":
            raise
        raise ModuleNotFoundError(
            "the viewer needs viser: pip install 'rolloutlab[viewer]'", name="viser"
        ) from None
    if not 0 <= port <= 65535:
        raise ValueError(f"port: want 0 to 65535, got {port}")
    # viser would serve on another port without telling.
    if error := _port_error(port):
        raise ValueError(f"port {port}: {error}; {_free_port_hint(port)}")
    with _silence(), guard.serving():
        server = viser.ViserServer(HOST, port, title, verbose=False)
    if port and server.get_port() != port:
        with _silence():
            server.stop()
        raise ValueError(f"port {port}: was taken meanwhile; {_free_port_hint(port)}")
    guard.server = server
    # A page may request a tunnel to the internet; this refuses it.
    server.request_share_url = lambda verbose=True: None
    return server


def _port_error(port: int) -> str:
    """Why this port cannot be used; empty if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return ""


def _free_port_hint(port: int) -> str:
    free = next((p for p in range(max(port, 1024) + 1, 65536) if not _port_error(p)), 0)
    return f"{free} is free: --viewer-port {free}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """viser prints when it starts and stops, but standard output is for the command's results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _add_sliders(
    gui: viser.GuiApi, folder: str, settings: Mapping[str, Setting]
) -> dict[str, tuple[viser.GuiSliderHandle, list[float]]]:
    """A folder of sliders, each with a list of its last value; no folder without settings."""
    if not settings:
        return {}
    sliders = {}
    with gui.add_folder(folder):
        for name, (low, high, step, value) in settings.items():
            slider = gui.add_slider(name, min(low, value), max(high, value), step, value)
            sliders[name] = slider, [slider.value]
    return sliders


def _moved(sliders: dict[str, tuple[viser.GuiSliderHandle, list[float]]]) -> dict[str, float]:
    """New values of the sliders that moved since the last call."""
    moved = {}
    for name, (slider, last) in sliders.items():
        if (value := slider.value) != last[0]:
            moved[name] = last[0] = value
    return moved


def _clicked(button: viser.GuiButtonHandle) -> bool:
    """Whether the button was clicked since the last call."""
    clicked = button.value
    if clicked:
        button.value = False
    return clicked


def _weight(value: float) -> Setting:
    """A slider from 0 to four times the value, or to 1 for 0."""
    end = 4 * value or 1.0
    return Setting(min(0.0, end), max(0.0, end), abs(end) / 400, float(value))


def _reach(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """Projector (3, 3) onto the directions in which the joints let the centre of mass move."""
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
    axes, sizes, _ = np.linalg.svd(jacobian)
    free = axes[:, : np.count_nonzero(sizes > 1e-6)]
    return free @ free.T if free.size else np.eye(3)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _table(status: Status | None) -> str:
    """The numbers as HTML."""
    rows = [("plans", "–"), ("a plan", "–"), ("real time", "–")]
    rows += [("reward", "–"), ("score", "–"), ("step", "–")]
    if status is not None:
        rows = [
            ("plans", f"{status.plan_hz:.1f} /s"),
            ("a plan", f"{status.plan_ms:.1f} ms"),
            ("real time", f"{status.real_time:.2f} ×"),
            ("reward", f"{status.reward:.3g}"),
            ("score", f"{status.score:.4g}"),
            ("step", f"{status.step}"),
        ]
    cells = "".join(
        f"<div><div style='font-size:.72em;opacity:.6'>{label}</div>"
        f"<div style='font-weight:600'>{value}</div></div>"
        for label, value in rows
    )
    return (
        "<div style='display:grid;grid-template-columns:1fr 1fr 1fr;gap:.35em .8em;"
        f"padding:.5em .9em;font-size:.9em;font-variant-numeric:tabular-nums'>{cells}</div>"
    )
