"""Tasks as Gymnasium environments; nothing here learns.

`make` builds any of them by name; `known` gives reward and termination as functions.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys

if (
    sys.platform == "linux"
    and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    and "MUJOCO_GL" not in os.environ
    and ctypes.util.find_library("EGL")
    and ctypes.util.find_library("GL")
):
    # MuJoCo chooses its OpenGL back end on import, by default one that needs a screen. With "egl"
    # its import fails if the libraries are missing, hence the two look-ups.
    os.environ["MUJOCO_GL"] = "egl"
    backend = sys.modules.get("mujoco.rendering.classic.gl_context")
    if backend is not None:  # mbrl or the user imported MuJoCo before: it has to choose again
        importlib.reload(backend)

from envs.contract import check_task
from envs.mujoco_env import MujocoEnv, RenderingUnavailable, SimulationDiverged
from envs.pixels import FrameRenderer, Pixels, View
from envs.planar import PlanarEnv, PlanarTask
from envs.planar_tasks import PLANAR
from envs.registry import (
    TASKS,
    Description,
    UnknownEnvironment,
    check_box,
    describe,
    entry,
    known,
    make,
    names,
    register,
    simulated,
    unregister,
)
from envs.repeat import ActionRepeat
from envs.suite import SUITE
from envs.tabular import FiniteMDP, Layout, SeededOnce, TabularEnv
from envs.task import Known, Physics, Planning, Task, never
from envs.wet_chicken import WetChicken
from envs.worlds import WORLDS

__all__ = [
    "PLANAR",
    "SUITE",
    "TASKS",
    "WORLDS",
    "ActionRepeat",
    "Description",
    "FiniteMDP",
    "FrameRenderer",
    "Known",
    "Layout",
    "MujocoEnv",
    "Physics",
    "Pixels",
    "PlanarEnv",
    "PlanarTask",
    "Planning",
    "RenderingUnavailable",
    "SeededOnce",
    "SimulationDiverged",
    "TabularEnv",
    "Task",
    "UnknownEnvironment",
    "View",
    "WetChicken",
    "check_box",
    "check_task",
    "describe",
    "entry",
    "known",
    "make",
    "names",
    "never",
    "register",
    "simulated",
    "unregister",
]
