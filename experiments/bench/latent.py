"""Frames per second of renderers, memory of stored frames, updates per second of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import envs
from experiments.bench.measure import Bench, Result, rate, seeded
from experiments.bench.memory import growth, in_fresh_process
from experiments.presets.sac_ae import OTHERS
from mbrl.agents.sac_ae import make
from mbrl.data import Replay
from mbrl.types import Spec, Transition

SIZE = 64

SAME = {"pc3-pendulum-swingup": "pendulum-swingup", "pc3-cartpole": "cartpole-swingup"}
"""Tasks of the rasteriser, and those with an equal body that OpenGL draws."""


def latent(
    bench: Bench,
    *,
    frames: int = 60,
    batch: int = 4096,
    stored: int = 100_000,
    encoded: Sequence[int] = (64, 84),
) -> list[Result]:
    """Rendering, storing and encoding frames.

    Frames/s by OpenGL against MuJoCo's renderer, and by rasteriser against OpenGL; growth of
    memory by `stored` stacks of frames against the bytes of the frames; updates/s of sac-ae from
    images of the sizes `encoded`, against the rate at which matrix products do as many operations.

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
    grown = in_fresh_process(_stored, bench.threads, stored)
    name = f"replay of {stored:,} stacks of 3 frames, {SIZE} x {SIZE} in colour"
    megabytes = 1e-6 * stored * SIZE * SIZE * 3
    results.append(Result(name, "MB", [grown], "the frames", [megabytes], "≤ 1.1", True))
    for size in encoded:
        results += _updates(bench, size)
    return results


def _stored(stored: int) -> float:
    """Growth of memory in MB by so many steps, in episodes of 125, with new frames of noise."""
    draw = np.random.default_rng(0)
    zero, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)

    def frame() -> np.ndarray:
        return draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def fill() -> None:
        shape = SIZE, SIZE, 9
        replay = Replay(stored, shape, 1, obs_dtype=torch.uint8, distinct=True)
        for step in range(stored):
            if step % 125 == 0:
                first = frame()
                seen = np.concatenate([first] * 3, -1)[None]
            after = np.concatenate((seen[..., 3:], frame()[None]), -1)
            images = (torch.from_numpy(x) for x in (seen, after))
            obs, next_obs = images
            replay.append(Transition(obs, zero[:, None], zero, next_obs, no, no))
            seen = after

    return growth(fill)


def _updates(bench: Bench, size: int) -> list[Result]:
    """Updates of sac-ae's preset from images (size, size, 9), and of its encoder alone."""
    spec = Spec(
        gymnasium.spaces.Box(0, 255, (size, size, 9), np.uint8), gymnasium.spaces.Box(-1, 1, (1,))
    )
    config, generator = OTHERS[1], seeded()
    agent = make(spec, config, generator=generator)
    count = config.batch
    obs, next_obs = torch.randint(
        256, (2, count, size, size, 9), dtype=torch.uint8, generator=generator
    )
    no = torch.zeros(count, dtype=torch.bool)
    batch = Transition(obs, torch.zeros(count, 1), torch.zeros(count), next_obs, no, no)
    learner: Any = agent.learner
    every = config.learner.represent_every  # so many updates have one of each kind

    def whole() -> None:
        for _ in range(every):
            learner.update(batch, generator=generator)

    def encoder() -> None:
        learner.represent(batch, generator=generator)

    results = []
    for name, work, number in (("an update", whole, every), ("its encoder's", encoder, 1)):
        with FlopCounterMode(display=False) as counted:
            work()
        results += bench.compare(
            f"sac-ae, {name}, {count} images of {size} x {size} x 9",
            "updates/s",
            rate(number, work),
            {"matrix product": bench.matmul(counted.get_total_flops() / number)},
            matrix_product="≥ 0.3",
        )
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
