"""Frames per second of renderers."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

import envs
from experiments.bench.measure import Bench, Result, rate

SAME = {"pc3-pendulum-swingup": "pendulum-swingup", "pc3-cartpole": "cartpole-swingup"}
"""Tasks of the rasteriser, and those with an equal body that OpenGL draws."""


def latent(bench: Bench, *, frames: int = 60, batch: int = 4096) -> list[Result]:
    """Frames/s by OpenGL against MuJoCo's renderer, and by rasteriser against OpenGL.

    By OpenGL `frames` frames of 64 x 64 are drawn in a call, against `mujoco.Renderer` at the
    quality that the task's MJCF asks for, and against a bare loop of `mjr_render` and
    `mjr_readPixels` on one scene. By rasteriser `batch` frames, against OpenGL at their size.
    Raises ValueError without OpenGL.
    """
    try:
        envs.FrameRenderer(envs.TASKS["pendulum-swingup"].compile(), 64).close()
    except envs.RenderingUnavailable as error:
        raise ValueError(str(error)) from None
    results = []
    for name in ("cartpole-swingup", "half-cheetah", "panda-reach"):
        task, states = envs.TASKS[name], _states(name, frames)
        model = task.compile()
        with mujoco.Renderer(model, 64, 64) as plain:
            renderer = envs.FrameRenderer(model, 64, [task.camera])
            renderer.frames(states[:1])
            results += bench.compare(
                f"{name}, 64 x 64",
                "frames/s",
                rate(frames, renderer.frames, states),
                {
                    "mujoco.Renderer": rate(frames, _plain, plain, task, states),
                    "bare mjr_render": rate(frames, _bare, renderer, frames),
                },
                mujoco_Renderer="≥ 10",
                bare_mjr_render="≈ 1",
            )
            renderer.close()
    for name, drawn in SAME.items():
        task, planar = envs.TASKS[drawn], envs.PLANAR[name]
        renderer = envs.FrameRenderer(task.compile(), planar.size, [task.camera])
        places = planar.states(np.random.default_rng(0), batch)
        results += bench.compare(
            f"{name}, {planar.size} x {planar.size}, batch {batch:,}",
            "frames/s",
            rate(batch, planar.frames, places),
            {"OpenGL": rate(frames, renderer.frames, _states(drawn, frames))},
            OpenGL="≥ 50",
        )
        renderer.close()
    return results


def _states(name: str, count: int) -> np.ndarray:
    """Positions (count, nq) of random starts."""
    draw = np.random.default_rng(0)
    return np.stack([envs.TASKS[name].initial(draw)[0] for _ in range(count)])


def _plain(renderer: mujoco.Renderer, task: envs.Task, states: np.ndarray) -> None:
    data = mujoco.MjData(renderer.model)
    for qpos in states:
        data.qpos[:] = qpos
        mujoco.mj_forward(renderer.model, data)
        renderer.update_scene(data, task.camera)
        renderer.render()


def _bare(renderer: Any, frames: int) -> None:
    inner = renderer._renderer
    rectangle = mujoco.MjrRect(0, 0, renderer.size, renderer.size)
    out = np.empty((renderer.size, renderer.size, 3), np.uint8)
    inner._gl_context.make_current()
    for _ in range(frames):
        mujoco.mjr_render(rectangle, inner.scene, inner._mjr_context)
        mujoco.mjr_readPixels(out, None, rectangle, inner._mjr_context)
