"""Any Task as a gymnasium.Env."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import gymnasium
import mujoco
import numpy as np

from envs.task import Physics, Task, actuation, sensor_views

_DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
]
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)

# Without a handler MuJoCo writes MUJOCO_LOG.TXT into the working directory.
if mujoco.get_mju_user_warning() is None:
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").info)


class SimulationDiverged(RuntimeError):
    """The simulation diverged; the message names the task and the step."""


class RenderingUnavailable(RuntimeError):
    """There is no OpenGL to render with; the message tells how to install it."""


class MujocoEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A `Task` as a gymnasium environment.

    Observations are float32, as in models and replay buffers. Reward and termination are computed
    from these float32 numbers, so that a stored transition gives the same reward to the last bit
    (unless the task has features, which are not stored).
    The physics is float64. Bounds of observations are the largest finite float32, because a
    simulated state has no tighter bounds. Actions outside [-1, 1] act as the nearest bound, as
    everywhere in MuJoCo. Episodes are truncated by gymnasium's TimeLimit, which `envs.make` adds.

    `render_mode` is None or "rgb_array"; `width` and `height` are pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(
        self, task: Task, render_mode: str | None = None, width: int = 640, height: int = 360
    ) -> None:
        """Compile the task; ValueError as by `Task.compile`, and for another render mode."""
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.task = task
        self.render_mode = render_mode
        self.model = task.compile()
        self.data = mujoco.MjData(self.model)
        self.metadata = {
            **self.metadata,
            "render_fps": round(1 / (self.model.opt.timestep * task.frame_skip)),
        }
        offscreen = self.model.vis.global_
        offscreen.offwidth = max(offscreen.offwidth, width)
        offscreen.offheight = max(offscreen.offheight, height)
        self._size = (height, width)
        self._renderer: mujoco.Renderer | None = None
        self._offset, self._scale = actuation(self.model)
        self._physics = Physics(
            self.data.qpos,
            self.data.qvel,
            sensor_views(self.model, self.data.sensordata),
            self.data.act,
        )
        self._warnings = self.data.warning.number  # a view
        self._noise = np.asarray(task.process_noise)
        self._rewarded: np.ndarray | None = None  # the last observation, with the features
        self._steps = 0
        size = task.observation(self._physics).shape
        self._obs_size = size[0]
        largest = np.finfo(np.float32).max
        self.observation_space = gymnasium.spaces.Box(-largest, largest, size, np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode from `task.initial`; the seed determines the whole episode."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:], *placed = self.task.initial(self.np_random)
        if placed:
            (self.data.mocap_pos[:],) = placed
        else:
            self._draw_goal()
        if self.task.settle:
            mujoco.mj_step(self.model, self.data, nstep=self.task.settle)
            self.data.time = 0.0
        self._start()
        self._steps = 0
        self._rewarded = self._observe()
        return self._rewarded[: self._obs_size].copy(), {}

    def _start(self) -> None:
        """Evaluate the sensors in the first state, those of forces without actuation."""
        if not self.task.forces:
            mujoco.mj_step1(self.model, self.data)
            return
        flags, option = self.model.opt.disableflags, self.model.opt
        option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        mujoco.mj_forward(self.model, self.data)
        option.disableflags = flags

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one control step.

        Raises ValueError for an action that is not finite or not (A,), SimulationDiverged if
        the simulation diverges, ResetNeeded before the first reset.
        """
        if self._rewarded is None:
            raise gymnasium.error.ResetNeeded(f"{self.task.name}: call reset() before step()")
        action = np.asarray(action)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"{self.task.name}: action has shape {action.shape}, "
                f"expected {self.action_space.shape}"
            )
        if not np.isfinite(action).all():
            raise ValueError(f"{self.task.name}: action {action.tolist()} is not finite")
        model, data, before = self.model, self.data, self._rewarded
        data.ctrl[:] = self._offset + self._scale * action
        if self._noise.size:
            data.qfrc_applied[:] = self._noise * self.np_random.standard_normal(model.nv)
        mujoco.mj_step(model, data, nstep=self.task.frame_skip)
        self._steps += 1
        if self.task.goal_steps and self._steps % self.task.goal_steps == 0:
            self._draw_goal()
        if model.nsensordata:
            mujoco.mj_step1(model, data)  # sensors would otherwise lag by one substep
        after = self._observe()
        if self._warnings[_DIVERGED].any() or not np.isfinite(after).all():
            raise SimulationDiverged(
                f"{self.task.name}: the simulation diverged at step {self._steps} of the episode"
            )
        self._rewarded, next_obs = after, after[: self._obs_size]
        reward = float(self.task.reward(before, action, after))
        return next_obs.copy(), reward, bool(self.task.terminated(next_obs)), False, {}

    def render(self) -> np.ndarray | None:
        """The scene (height, width, 3) uint8; None without a `render_mode`.

        Raises RenderingUnavailable without OpenGL.
        """
        if self.render_mode is None:
            return None
        renderer = self._renderer = self._renderer or open_renderer(self.model, *self._size)
        # Positions lag the state by one substep after a step without sensors.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        renderer.update_scene(self.data, self.task.camera)
        return renderer.render()

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _draw_goal(self) -> None:
        if self.task.goal is not None:
            goal = self.task.goal(self.np_random)
            self.data.mocap_pos[:] = goal[:, :3]
            if goal.shape[1] > 3:
                self.data.mocap_quat[:] = goal[:, 3:]

    def _observe(self) -> np.ndarray:
        """What the reward gets: the observation, then the features."""
        return self.task.rewarded(self._physics).astype(np.float32)


def get_state(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """MuJoCo's integration state, flat float64: all that the next `mj_step` depends on."""
    state = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return state


def open_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """A renderer of a model; RenderingUnavailable, in one line, without OpenGL."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW also issues the exception's message as a warning
            return mujoco.Renderer(model, height, width)
    except Exception as error:  # MuJoCo, GLFW, PyOpenGL and ctypes each raise their own
        raise RenderingUnavailable(
            "no OpenGL for off-screen rendering; on Debian or Ubuntu `apt install libegl1 libgl1`, "
            f"and without a screen set MUJOCO_GL=egl ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
