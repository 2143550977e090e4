"""Tasks as Gymnasium environments. Knows no learning.

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
    # MuJoCo picks its OpenGL while it is imported, and would pick one that needs a screen. Where
    # the libraries are missing its import would fail, so there it is left alone.
    os.environ["MUJOCO_GL"] = "egl"
    picked = sys.modules.get("mujoco.rendering.classic.gl_context")
    if picked is not None:  # imported before us, by mbrl or the user: let it pick again
        importlib.reload(picked)

from envs.contract import check_task
from envs.mujoco_env import MujocoEnv, RenderingUnavailable, SimulationDiverged
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
from envs.tabular import FiniteMDP, Layout, SeededOnce, TabularEnv
from envs.task import Known, Physics, Planning, Task, never
from envs.worlds import WORLDS, WetChicken

__all__ = [
    "TASKS",
    "WORLDS",
    "Description",
    "FiniteMDP",
    "Known",
    "Layout",
    "MujocoEnv",
    "Physics",
    "Planning",
    "RenderingUnavailable",
    "SeededOnce",
    "SimulationDiverged",
    "TabularEnv",
    "Task",
    "UnknownEnvironment",
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
