"""The robot live in a web browser: what it does, what it plans, and what one asks of it.

viser (https://viser.studio) serves the page from this process; nothing is fetched from elsewhere
and only this machine can connect. The control loop stays the master: it calls `show` and `traces`
with what there is to see and `take` for what the user has asked meanwhile, and nothing here calls
back into it, so no lock is needed and a run without the viewer is the same run.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import mujoco
import numpy as np

if TYPE_CHECKING:
    import viser

HOST = "127.0.0.1"
FRAME = 1 / 30  # s between two pictures
READING = 0.2  # s between two texts; faster ones cannot be read
DRAWN = 24  # candidates of a trace; more hide one another
POINTS = 33  # of a path, whatever the horizon

SKY, HAZE = (0.80, 0.86, 0.93), (0.97, 0.97, 0.97)
FLOOR, LINES, SECTIONS = (0.86, 0.88, 0.90), (0.80, 0.82, 0.85), (0.70, 0.73, 0.77)
SUN, FILL = 2.0, 0.25
WORST, BEST = (0.74, 0.80, 0.88), (0.10, 0.36, 0.72)
CHOSEN, CHOSEN_LATE = (0.86, 0.06, 0.34), (0.96, 0.62, 0.74)  # now, and at the horizon

_GEOM = mujoco.mjtGeom
_UNCOLOURED = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default; with it a geom shows its material


class Setting(NamedTuple):
    """A slider: its ends, its step and where it stands. Integers stay integers."""

    low: float
    high: float
    step: float
    value: float


class Status(NamedTuple):
    """What the control loop says of itself."""

    plan_hz: float
    """Plans a second."""
    plan_ms: float
    """What the last plan took."""
    real_time: float
    """Simulated seconds in a second."""
    reward: float
    """Of the last step."""
    score: float
    """Of the last plan."""
    step: int
    """Control steps since the reset."""


class Push(NamedTuple):
    """A shove to give."""

    body: int
    """Its id in the model."""
    impulse: np.ndarray
    """(3,) N·s at the body's centre of mass, in the world's frame."""


class Wishes(NamedTuple):
    """What the user asks. The first two are how things stand, the rest came since the last time."""

    paused: bool
    real_time: bool
    """Go no faster than the clock."""
    reset: bool
    push: Push | None
    settings: dict[str, float]
    """The planner's settings that changed."""
    weights: dict[str, float]
    """The reward's weights that changed."""
    goals: dict[int, np.ndarray]
    """Mocap id -> position (3,) in m, of the goals that were dragged."""
    closed: bool
    """Stop was clicked, then or earlier."""


class Viewer:
    """A page on this machine; a context manager.

        with Viewer(model, title="half-cheetah", settings={}, weights={}) as viewer:
            while not (wishes := viewer.take()).closed:
                ...                                   # do what is wished, plan, step
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

        `settings` get a slider each, wide enough for their value; `weights` one from nothing to
        four times the value. `camera` is the model's camera to begin with, -1 for one that sees
        all; where it tracks a body, the page follows that body. Port 0 takes any that is free.
        `generator` draws the pushes' directions.

        Raises ModuleNotFoundError without viser, ValueError where the port is taken or is none.
        """
        self.model = model
        self._rng = np.random.default_rng() if generator is None else generator
        self._next_frame = self._next_reading = self._next_traces = 0.0  # s of perf_counter
        self._paused = self._closed = False
        self._traces: dict[tuple[str, bool], viser.LineSegmentsHandle] = {}
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        eye = model.camera(camera).id if isinstance(camera, str) else camera
        self.server = _serve(port, title)
        self.url = f"http://{HOST}:{self.server.get_port()}"
        try:
            self._aim(data, eye)
            self._build(data)
            self._furnish(settings, weights, data)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the page shows that the connection is lost."""
        with _silence():
            self.server.stop()

    def show(self, data: mujoco.MjData, status: Status) -> None:
        """Move the bodies to where `data` has them, and say how it goes."""
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
        """Draw where plans lead.

        `candidates` maps a name to paths (N, H, 3) in m, best first: two dozen of them across all
        ranks are drawn, the better the stronger. `chosen` maps it to the path (H, 3) of the plan
        that is carried out, thick. Paths that are not finite are left out.
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
        """What the user has asked since the last call."""
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
        """Put the camera where `camera` is and follow what it tracks."""
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
        # One turns around the point of the line of sight that is nearest to the model.
        self._distance = max((centre - eye) @ towards, 0.1)
        begin.position, begin.look_at = eye, eye + self._distance * towards
        begin.fov, begin.near, begin.far = np.radians(fov), 0.01, 1000.0
        self._start = data.xpos[self._followed].copy()

    def _build(self, data: mujoco.MjData) -> None:
        """Sky, light, floor and bodies."""
        scene, model = self.server.scene, self.model
        sky = 255 * np.linspace(SKY, HAZE, 64)[:, None]
        scene.set_background_image(np.repeat(sky.astype(np.uint8), 2, axis=1), format="png")
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map("studio", environment_intensity=FILL)
        scene.add_light_directional(
            "/sun", intensity=SUN, color=(255, 250, 240), cast_shadow=True, position=(-1.2, -2.6, 4)
        )
        self._world = scene.add_frame("/world", show_axes=False)
        self._poses = np.concatenate([data.xpos, data.xquat], axis=1)
        self._moving: list[tuple[int, str]] = []
        section = 10.0 ** np.floor(np.log10(model.stat.extent))
        visible = [i for i in range(model.ngeom) if _colour(model, i)[3] and _shown(model, i)]
        for body in sorted({int(model.geom_bodyid[i]) for i in visible}):
            name = f"/world/{body} {model.body(body).name.replace('/', '-')}"
            pose = {"position": data.xpos[body], "wxyz": data.xquat[body]}
            scene.add_frame(name, show_axes=False, **pose)
            if model.body_weldid[body]:
                self._moving.append((body, name))
            for i in visible:
                if model.geom_bodyid[i] == body:
                    _add_geom(scene, f"{name}/{i}", model, i, section, self._distance)
        if not any(int(model.geom_type[i]) == int(_GEOM.mjGEOM_PLANE) for i in visible):
            lowest = min((data.geom_xpos[i, 2] - model.geom_rbound[i] for i in visible), default=0)
            _add_floor(scene, "/world/floor", FLOOR, section, self._distance, z=lowest)

    def _furnish(
        self, settings: Mapping[str, Setting], weights: Mapping[str, float], data: mujoco.MjData
    ) -> None:
        """What is to be read, clicked and dragged."""
        from viser import Icon

        gui, model = self.server.gui, self.model
        gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(26, 92, 184))
        self._reading = gui.add_html(_table(None))
        self._pause = gui.add_button("Pause", icon=Icon.PLAYER_PAUSE)
        self._reset = gui.add_button("Reset", icon=Icon.ROTATE_CLOCKWISE, color="gray")
        self._stop = gui.add_button("Stop", icon=Icon.PLAYER_STOP, color="gray")
        self._real_time = gui.add_checkbox(
            "real time", True, hint="go no faster than the clock; a slow plan still slows it down"
        )
        self._follow = gui.add_checkbox("follow", bool(self._followed), hint="keep it in sight")
        self._follow.visible = bool(self._followed)
        self._plans = gui.add_checkbox("plans", True, hint="draw where plans lead")
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
        self._handles = [
            self.server.scene.add_transform_controls(
                f"/world/goal {i}",
                scale=0.09 * self._distance,
                disable_rotations=True,
                depth_test=False,
                position=position,
            )
            for i, position in enumerate(data.mocap_pos)
        ]

    def _trace(self, name: str, paths: np.ndarray, chosen: bool) -> None:
        """Draw or redraw paths (N, H, 3), always as many points, so that nothing is rebuilt."""
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
            # The page takes lines' colours for linear ones.
            np.stack([colours[:, :-1], colours[:, 1:]], axis=2).reshape(-1, 2, 3) ** 2.2,
            thickness=(0.009 if chosen else 0.002) * self._distance,
        )

    def _draw_push(self) -> Push:
        body = self._bodies[self._body.value]
        # Mostly level, along directions in which the body can go at all.
        direction = self._reach[body] @ (self._rng.standard_normal(3) * (1.0, 1.0, 0.25))
        return Push(body, self._strength.value * _unit(direction))


def _serve(port: int, title: str) -> viser.ViserServer:
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
    # viser itself would serve on another port without a word.
    if trouble := _trouble(port):
        raise ValueError(f"port {port}: {trouble}; {_advice(port)}")
    with _silence():
        server = viser.ViserServer(HOST, port, title, verbose=False)
    if port and server.get_port() != port:
        with _silence():
            server.stop()
        raise ValueError(f"port {port}: taken meanwhile; {_advice(port)}")
    # A page may ask for a tunnel to the internet; there is none to be had.
    server.request_share_url = lambda verbose=True: None
    return server


def _trouble(port: int) -> str:
    """Why nothing can be served on this port; empty where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return ""


def _advice(port: int) -> str:
    free = next((p for p in range(max(port, 1024) + 1, 65536) if not _trouble(p)), 0)
    return f"{free} is free: --viewer-port {free}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """viser greets and takes leave on standard output, which belongs to the command."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _add_sliders(
    gui: viser.GuiApi, folder: str, settings: Mapping[str, Setting]
) -> dict[str, tuple[viser.GuiSliderHandle, list[float]]]:
    """A folder of sliders, each with where it last was; no folder for none."""
    if not settings:
        return {}
    sliders = {}
    with gui.add_folder(folder):
        for name, (low, high, step, value) in settings.items():
            slider = gui.add_slider(name, min(low, value), max(high, value), step, value)
            sliders[name] = slider, [slider.value]
    return sliders


def _moved(sliders: dict[str, tuple[viser.GuiSliderHandle, list[float]]]) -> dict[str, float]:
    moved = {}
    for name, (slider, last) in sliders.items():
        if (value := slider.value) != last[0]:
            moved[name] = last[0] = value
    return moved


def _clicked(button: viser.GuiButtonHandle) -> bool:
    clicked = button.value
    if clicked:
        button.value = False
    return clicked


def _weight(value: float) -> Setting:
    end = 4 * value or 1.0
    return Setting(min(0.0, end), max(0.0, end), abs(end) / 400, float(value))


def _reach(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """Projector (3, 3) onto the directions in which the joints let a body's centre of mass go."""
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
    axes, sizes, _ = np.linalg.svd(jacobian)
    free = axes[:, : np.count_nonzero(sizes > 1e-6)]
    return free @ free.T if free.size else np.eye(3)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _shown(model: mujoco.MjModel, geom: int) -> bool:
    """MuJoCo's own viewers hide groups 3 to 5: collision geoms, as a rule."""
    return int(model.geom_group[geom]) < 3


def _colour(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """(4,): the geom's own colour, its material's where it has none, as in MuJoCo."""
    rgba, material = model.geom_rgba[geom], int(model.geom_matid[geom])
    if material >= 0 and tuple(rgba) == _UNCOLOURED:
        return model.mat_rgba[material]
    return rgba


def _add_geom(
    scene: viser.SceneApi,
    name: str,
    model: mujoco.MjModel,
    geom: int,
    section: float,
    distance: float,
) -> None:
    """A geom in its body's frame."""
    import trimesh

    kind, (x, y, z) = int(model.geom_type[geom]), model.geom_size[geom]
    red, green, blue, alpha = map(float, _colour(model, geom))
    rgb = red, green, blue
    looks: Any = {
        "color": rgb,
        "opacity": alpha if alpha < 1 else None,
        "cast_shadow": alpha == 1,
        "position": model.geom_pos[geom],
        "wxyz": model.geom_quat[geom],
    }
    if kind == int(_GEOM.mjGEOM_PLANE):
        # Planes are textured as a rule; lines stand for the texture.
        material = int(model.geom_matid[geom])
        textured = material >= 0 and (model.mat_texid[material] >= 0).any()
        size = (2 * x, 2 * y) if 0 < x < 3 * model.stat.extent else None
        _add_floor(
            scene,
            name,
            FLOOR if textured else rgb,
            section,
            distance,
            size=size,
            position=model.geom_pos[geom],
            wxyz=model.geom_quat[geom],
        )
    elif kind in (int(_GEOM.mjGEOM_SPHERE), int(_GEOM.mjGEOM_ELLIPSOID)):
        scale = (x, x, x) if kind == int(_GEOM.mjGEOM_SPHERE) else (x, y, z)
        scene.add_icosphere(name, 1.0, subdivisions=4, scale=scale, **looks)
    elif kind == int(_GEOM.mjGEOM_CAPSULE):
        capsule = trimesh.creation.capsule(2 * y, x, count=(16, 28))
        vertices = capsule.vertices - capsule.bounds.mean(axis=0)
        scene.add_mesh_simple(name, vertices, capsule.faces, **looks)
    elif kind == int(_GEOM.mjGEOM_CYLINDER):
        scene.add_cylinder(name, x, 2 * y, radial_segments=40, **looks)
    elif kind == int(_GEOM.mjGEOM_BOX):
        scene.add_box(name, dimensions=(2 * x, 2 * y, 2 * z), **looks)
    elif kind == int(_GEOM.mjGEOM_MESH):
        mesh = int(model.geom_dataid[geom])
        vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
        faces = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
        scene.add_mesh_simple(name, vertices, faces, flat_shading=True, **looks)


def _add_floor(
    scene: viser.SceneApi,
    name: str,
    colour: tuple[float, float, float],
    section: float,
    distance: float,
    *,
    size: tuple[float, float] | None = None,
    **pose: Any,
) -> None:
    """A plane with lines every `section` m; without a size it fades into the distance."""
    width, height = size or (1.0, 1.0)
    scene.add_grid(
        name,
        width,
        height,
        infinite_grid=size is None,
        cell_size=section / 2,
        section_size=section,
        cell_color=LINES,
        section_color=SECTIONS,
        plane_color=colour,
        plane_opacity=1.0,
        shadow_opacity=0.35,
        fade_distance=6 * distance,
        **pose,
    )


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
