"""Any environment of a MuJoCo model as seen by cameras: stacks of small frames of uint8.

`FrameRenderer` draws the frames. At these sizes shadows, multisampling and finely divided spheres
and capsules take most of the time and show little, so it leaves them out; `mbrl bench latent`
measures it against `mujoco.Renderer`. `Pixels` is the wrapper that makes them observations.
"""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from envs.mujoco_env import open_renderer

Frames = NDArray[np.uint8]

MARK = "-pixels"
"""What follows an environment's name to name it as seen by cameras."""


@dataclass(frozen=True)
class View:
    """What an agent sees of an environment.

    `colours`, `light` and `camera` are distractions between 0, none, and 1. They are drawn anew for
    each episode, from the seed, and change neither the physics nor the draws of the environment.

    Raises ValueError for a setting that is out of range.
    """

    size: int = 64
    """Height and width of a frame in pixels."""
    stack: int = 3
    """Number of consecutive frames in an observation; one frame does not show velocities."""
    grey: bool = False
    """One channel a frame, its luma (ITU-R BT.601), and not three."""
    cameras: tuple[str | int, ...] = ()
    """Names or numbers of cameras of the model; -1 is a free one. Empty: the task's."""
    colours: float = 0.0
    """How far colours of bodies and textures are mixed with random ones and random patches."""
    light: float = 0.0
    """How far the brightness of lights changes, at 1 by up to half, and their directions, at 1 by
    up to half a unit vector along each axis."""
    camera: float = 0.0
    """How far cameras are moved, at 1 up to a tenth of the model's extent in each direction, and
    turned, at 1 up to 0.1 rad about each axis."""

    def __post_init__(self) -> None:
        for name, value in {"size": self.size, "stack": self.stack}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not isinstance(self.cameras, tuple):
            raise ValueError(f"cameras must be a tuple of names or numbers, got {self.cameras!r}")
        for name in ("colours", "light", "camera"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)!r}")

    @property
    def distracts(self) -> bool:
        """Whether there are distractions."""
        return max(self.colours, self.light, self.camera) > 0


DISTRACTING = {"colours": 0.5, "light": 0.5, "camera": 0.5}
"""What `-distract` in a name stands for."""


def named(id: str) -> tuple[str, View] | None:
    """The environment and the view that a name stands for; None for names without `MARK`.

    The form is NAME-pixels, then any of -SIZE, -stackN, -grey, -distract.

    Raises:
        ValueError: something else follows, or a size or stack of 0.
    """
    base, mark, rest = id.partition(MARK)
    if not mark or not base or (rest and not rest.startswith("-")):
        return None
    found: dict[str, Any] = {}
    for part in filter(None, rest.split("-")):
        if part.isdecimal():
            found["size"] = int(part)
        elif re.fullmatch(r"stack\d+", part):
            found["stack"] = int(part.removeprefix("stack"))
        elif part == "grey":
            found["grey"] = True
        elif part == "distract":
            found |= DISTRACTING
        else:
            raise ValueError(
                f"unknown environment {id!r}: what follows {base}{MARK} must be -SIZE, -stackN, "
                f"-grey or -distract, not -{part}"
            )
    try:
        return base, View(**found)
    except ValueError as error:
        raise ValueError(f"unknown environment {id!r}: {error}") from None


class FrameRenderer:
    """Small frames of a model, quickly: without shadows, reflections and multisampling.

    The same positions give the same bytes. It works on copies of the model and of its state.

    Args:
        model: the model.
        size: height and width of a frame in pixels.
        cameras: names or numbers of cameras; -1 is a free camera that shows the whole scene.

    Raises:
        ValueError: a camera that the model does not have.
        RenderingUnavailable: there is no OpenGL.
    """

    def __init__(
        self, model: mujoco.MjModel, size: int, cameras: Sequence[str | int] = (-1,)
    ) -> None:
        self.cameras = tuple(cameras)
        _check_cameras(model, self.cameras)
        self.model = copy.copy(model)
        self.data = mujoco.MjData(self.model)
        self.size = size
        quality, offscreen = self.model.vis.quality, self.model.vis.global_
        # read when the context is made, so later changes would have no effect
        quality.shadowsize = quality.offsamples = 0
        quality.numslices, quality.numstacks = 12, 6
        offscreen.offwidth = offscreen.offheight = size
        self._renderer = open_renderer(self.model, size, size)
        flags = self._renderer.scene.flags
        flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = 0
        flags[int(mujoco.mjtRndFlag.mjRND_REFLECTION)] = 0
        self._changes = _Changes()
        self._colours: dict[str, np.ndarray] = {}  # those of the model, before they were changed

    def frames(
        self,
        qpos: np.ndarray,
        mocap_pos: np.ndarray | None = None,
        mocap_quat: np.ndarray | None = None,
        *,
        out: Frames | None = None,
    ) -> Frames:
        """Frames (N, cameras, size, size, 3) of N states.

        Args:
            qpos: positions (N, nq).
            mocap_pos: positions (N, nmocap, 3) of mocap bodies in m; None: where they were last.
            mocap_quat: their quaternions (N, nmocap, 4); likewise.
            out: where to write the frames, and what is returned.

        Raises:
            ValueError: positions or `out` of another shape or dtype.
        """
        model, data = self.model, self.data
        if qpos.ndim != 2 or qpos.shape[1] != model.nq:
            raise ValueError(f"qpos: want (N, {model.nq}), got {qpos.shape}")
        shape = (len(qpos), len(self.cameras), self.size, self.size, 3)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8:
            raise ValueError(f"out: want uint8 of {shape}, got {out.dtype} of {out.shape}")
        for n in range(len(qpos)):
            data.qpos[:] = qpos[n]
            if mocap_pos is not None:
                data.mocap_pos[:] = mocap_pos[n]
            if mocap_quat is not None:
                data.mocap_quat[:] = mocap_quat[n]
            self._place()
            for c, camera in enumerate(self.cameras):
                self._renderer.update_scene(data, camera)
                self._changes.apply(self._renderer.scene)
                self._renderer.render(out=out[n, c])
        return out

    def distract(self, view: View, rng: np.random.Generator) -> None:
        """Draw distractions of the frames that follow."""
        if view.colours:
            self._colour(view.colours, rng)
        self._changes = _Changes(
            brightness=1 + view.light * rng.uniform(-0.5, 0.5),
            slant=view.light * rng.uniform(-0.5, 0.5, 3),
            shift=view.camera * 0.1 * self.model.stat.extent * rng.uniform(-1, 1, 3),
            turn=view.camera * 0.1 * rng.uniform(-1, 1, 3),
        )

    def check_cameras(self, frames: Frames, name: str) -> None:
        """Check what the cameras see of the last state, whose frames (cameras, H, W, 3) are given.

        Raises:
            ValueError: a camera is inside a body or below the floor, or its frame has one colour;
                one line names the environment, which is `name`, the camera and the geom.
        """
        scene = self._renderer.scene
        for camera, frame in zip(self.cameras, frames, strict=True):
            self._renderer.update_scene(self.data, camera)
            self._changes.apply(scene)
            place = np.mean([eye.pos for eye in scene.camera], axis=0)
            for geom in range(self.model.ngeom):
                if _visible(self.model, geom) and _inside(self.model, self.data, geom, place):
                    called = self.model.geom(geom).name or f"number {geom}"
                    raise ValueError(f"{name}: camera {camera!r} is inside the geom {called!r}")
            if np.ptp(frame) <= 1:
                raise ValueError(
                    f"{name}: camera {camera!r} sees nothing: its frame has one colour, "
                    f"{tuple(map(int, frame[0, 0]))}"
                )

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def _place(self) -> None:
        """Compute all positions that a picture depends on."""
        model, data = self.model, self.data
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        if model.nflex:
            mujoco.mj_flex(model, data)
        if model.ntendon:
            mujoco.mj_tendon(model, data)

    def _colour(self, amount: float, rng: np.random.Generator) -> None:
        """Mix colours with random ones, and textures with patches of random colours."""
        model = self.model
        if not self._colours:
            names = ("geom_rgba", "mat_rgba", "site_rgba", "tex_data")
            self._colours = {name: getattr(model, name).copy() for name in names}
        for name in ("geom_rgba", "mat_rgba", "site_rgba"):
            own, now = self._colours[name], getattr(model, name)
            drawn = rng.uniform(0, 1, (len(own), 3))
            # geoms of MuJoCo's default grey show their material's colour
            kept = (own[:, :3] == 0.5).all(1, keepdims=True) & (name == "geom_rgba")
            now[:, :3] = np.where(kept, own[:, :3], (1 - amount) * own[:, :3] + amount * drawn)
        context: Any = self._renderer._mjr_context  # the only way to change a texture
        if self._renderer._gl_context:
            self._renderer._gl_context.make_current()
        for i in range(model.ntex):
            height, width = int(model.tex_height[i]), int(model.tex_width[i])
            channels, start = int(model.tex_nchannel[i]), int(model.tex_adr[i])
            own = self._colours["tex_data"][start : start + height * width * channels]
            patches = rng.integers(0, 256, (8, 8, channels))
            rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
            mixed = (1 - amount) * own.reshape(height, width, channels)
            mixed = mixed + amount * patches[rows[:, None], columns]
            model.tex_data[start : start + own.size] = mixed.astype(np.uint8).ravel()
            mujoco.mjr_uploadTexture(model, context, i)


@dataclass(frozen=True)
class _Changes:
    """Distractions that are changes of a scene: of its lights and its camera."""

    brightness: float = 1.0
    slant: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Added to the unit directions of lights."""
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Added to the position of the camera, in m."""
    turn: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Axis times angle, rad, by which the camera is turned."""

    def apply(self, scene: mujoco.MjvScene) -> None:
        """Change a scene that has just been updated."""
        if self.brightness != 1 or self.slant.any():
            for light in scene.lights[: scene.nlight]:
                light.ambient[:] *= self.brightness
                light.diffuse[:] *= self.brightness
                if not light.headlight:
                    slanted = light.dir + self.slant
                    light.dir[:] = slanted / np.linalg.norm(slanted)
        if self.shift.any() or self.turn.any():
            turn, angle = np.empty(4), np.linalg.norm(self.turn)
            mujoco.mju_axisAngle2Quat(turn, self.turn / max(angle, 1e-9), angle)
            for eye in scene.camera:
                eye.pos[:] += self.shift
                for vector in (eye.forward, eye.up):
                    turned = np.empty(3)
                    mujoco.mju_rotVecQuat(turned, vector.astype(np.float64), turn)
                    vector[:] = turned


class Pixels(gymnasium.Wrapper[Frames, np.ndarray, Any, np.ndarray]):
    """An environment whose observations are frames of its cameras.

    Observations are (size, size, channels) uint8: the frames of the last `stack` steps from the
    oldest to the newest, each of all cameras one after the other; before an episode's first step
    there are copies of its first frame. `info["state"]` is the observation of the environment
    without frames, after a reset and after each step, for evaluation.

    Rewards and ends of episodes are the environment's. They are no functions of frames, so
    `metadata["known"]` has none of them and no task for a simulator.

    Args:
        env: an environment with a MuJoCo model: a task's, or one of gymnasium's.
        view: what is seen.
        name: the environment's name with frames.

    Raises:
        ValueError: an environment without a MuJoCo model, a camera that it does not have, frames
            with no more rows than channels. On a reset also a camera that sees nothing, see
            `FrameRenderer.check_cameras`.
    """

    def __init__(self, env: gymnasium.Env, view: View, name: str = "") -> None:
        super().__init__(env)
        base = env.spec.id if env.spec is not None else str(env.unwrapped)
        self.view, self.name = view, name or base + MARK
        inner: Any = env.unwrapped
        model, data = getattr(inner, "model", None), getattr(inner, "data", None)
        if not isinstance(model, mujoco.MjModel) or not isinstance(data, mujoco.MjData):
            raise ValueError(f"{self.name}: {base} has no MuJoCo model, so no cameras")
        self._model: Any = model
        self._data: Any = data
        self.cameras = view.cameras or (_camera_of(inner, model),)
        _check_cameras(model, self.cameras, self.name)
        channels = (1 if view.grey else 3) * view.stack * len(self.cameras)
        if channels >= view.size:
            raise ValueError(
                f"{self.name}: size must be more than the {channels} channels, got {view.size}"
            )
        self.observation_space = gymnasium.spaces.Box(
            0, 255, (view.size, view.size, channels), np.uint8
        )
        spec = copy.deepcopy(env.spec)
        if spec is not None:
            spec.id = self.name
        self._spec = spec
        known = env.metadata.get("known", {})
        ends = known.get("ends", True) or known.get("terminated") is not None
        why = f"frames of {base} do not give its reward" + (" and its end" if ends else "")
        unknown = {"reward": None, "terminated": None, "task": None, "goal": None}
        self.metadata = {**env.metadata, "known": {**known, **unknown, "ends": ends, "why": why}}
        self._renderer: FrameRenderer | None = None
        self._rng = np.random.default_rng()
        self._seen: deque[Frames] = deque(maxlen=view.stack)

    @property
    def spec(self) -> EnvSpec | None:
        """That of the environment, with the name that it has with frames."""
        return self._spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Start an episode; the seed also draws its distractions.

        Raises RenderingUnavailable without OpenGL.
        """
        state, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])  # not the environment's own draws
        if self._renderer is None:
            self._renderer = FrameRenderer(self._model, self.view.size, self.cameras)
        if self.view.distracts:
            self._renderer.distract(self.view, self._rng)
        frames = self._frames(self._renderer)
        self._renderer.check_cameras(frames, self.name)
        self._seen.extend([self._channels(frames)] * self.view.stack)
        return self._observation(), {**info, "state": state}

    def step(self, action: np.ndarray) -> tuple[Frames, Any, bool, bool, dict[str, Any]]:
        """Take a step of the environment, and look."""
        if self._renderer is None:
            raise gymnasium.error.ResetNeeded(f"{self.name}: call reset() before step()")
        state, reward, terminated, truncated, info = self.env.step(action)
        self._seen.append(self._channels(self._frames(self._renderer)))
        return self._observation(), reward, terminated, truncated, {**info, "state": state}

    def close(self) -> None:
        """Free the renderer and close the environment."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()

    def _frames(self, renderer: FrameRenderer) -> Frames:
        """What each camera sees now, (cameras, size, size, 3)."""
        data = self._data
        return renderer.frames(data.qpos[None], data.mocap_pos[None], data.mocap_quat[None])[0]

    def _channels(self, frames: Frames) -> Frames:
        """(size, size, channels) of all cameras."""
        return np.concatenate(list(grey(frames)[..., None] if self.view.grey else frames), axis=-1)

    def _observation(self) -> Frames:
        return np.concatenate(list(self._seen), axis=-1)


def grey(frames: Frames) -> Frames:
    """The luma (...) of colours (..., 3), by the weights of ITU-R BT.601 in 256ths."""
    red, green, blue = np.moveaxis(frames.astype(np.uint16), -1, 0)
    return ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.uint8)


def _camera_of(env: Any, model: mujoco.MjModel) -> str | int:
    """The camera of a task; of gymnasium's environments the one that it renders from too."""
    task = getattr(env, "task", None)
    if task is not None:
        return task.camera
    found = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_CAMERA), "track")
    return "track" if found >= 0 else -1


def _check_cameras(model: mujoco.MjModel, cameras: Sequence[str | int], name: str = "") -> None:
    there = [model.camera(i).name for i in range(model.ncam)]
    for camera in cameras:
        known = camera in there if isinstance(camera, str) else -1 <= camera < model.ncam
        if not known:
            raise ValueError(
                f"{name + ': ' if name else ''}no camera {camera!r}; there are "
                f"{', '.join(map(repr, [*there, -1]))}"
            )


def _visible(model: mujoco.MjModel, geom: int) -> bool:
    """Whether MuJoCo's default options show a geom: its group is below 3, and it is opaque."""
    material = int(model.geom_matid[geom])
    alpha = model.geom_rgba[geom, 3] * (model.mat_rgba[material, 3] if material >= 0 else 1)
    return bool(model.geom_group[geom] < 3 and alpha > 0.99)


def _inside(model: mujoco.MjModel, data: mujoco.MjData, geom: int, place: np.ndarray) -> bool:
    """Whether a point (3,) is inside a geom, or below a plane; meshes are not tried."""
    x, y, z = data.geom_xmat[geom].reshape(3, 3).T @ (place - data.geom_xpos[geom])
    a, b, c = model.geom_size[geom]
    kinds = mujoco.mjtGeom
    kind = int(model.geom_type[geom])
    if kind == int(kinds.mjGEOM_PLANE):
        return z < 0 and (a == 0 or abs(x) < a) and (b == 0 or abs(y) < b)
    if kind == int(kinds.mjGEOM_SPHERE):
        return x * x + y * y + z * z < a * a
    if kind == int(kinds.mjGEOM_CAPSULE):
        beyond = max(abs(z) - b, 0.0)
        return x * x + y * y + beyond * beyond < a * a
    if kind == int(kinds.mjGEOM_CYLINDER):
        return x * x + y * y < a * a and abs(z) < b
    if kind == int(kinds.mjGEOM_ELLIPSOID):
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1
    if kind == int(kinds.mjGEOM_BOX):
        return abs(x) < a and abs(y) < b and abs(z) < c
    return False
