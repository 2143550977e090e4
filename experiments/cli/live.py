"""Drives a robot that is shown in a web browser, with sliders, pushes and goals to drag."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch

import envs
from envs.viewer.page import DRAWN, Setting, Status, Viewer, Wishes
from mbrl.agents import Controller, Controllers, MPCConfig
from mbrl.control import DriveConfig, Driver, build_driver
from mbrl.dynamics import Simulator
from mbrl.training.collect import Episodes, play, vector
from planners import MPCState

TRACES_EVERY = 0.1  # s; candidates that are drawn are simulated once more

SLIDERS: dict[str, tuple[float, float, float]] = {
    "horizon": (2, 100, 1),
    "population": (2, 256, 1),
    "iterations": (1, 10, 1),
    "elites": (1, 64, 1),
    "sigma": (0.01, 1.0, 0.01),
    "beta": (0.0, 4.0, 0.1),
    "temperature": (0.01, 2.0, 0.01),
}
"""The planner's settings that have a slider: low, high, step."""


def live(
    config: DriveConfig,
    *,
    seed: int,
    port: int,
    steps: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """Drive until the page's Stop, or for so many steps; returns the steps taken.

    Raises:
        ValueError: settings that do not fit, a port in use, a task that is not ours.
        ModuleNotFoundError: no viser.
    """
    task = envs.simulated(config.env)
    if task.gymnasium:
        raise ValueError(f"{config.env}: --viewer shows tasks, and this one gymnasium steps itself")
    driver = build_driver(config, make_env=envs.make, seed=seed)
    if driver.env_repeat > 1:
        driver.controller.close()
        driver.env.close()
        raise ValueError(
            f"--model {config.model} was learned with --env-repeat {driver.env_repeat}; --viewer "
            "shows every step, so it wants a model learned without"
        )
    inner: Any = driver.env.unwrapped
    settings = _settings(driver.controller)
    with Viewer(
        inner.model,
        title=config.env,
        settings=settings,
        weights=task.weights,
        camera=task.camera,
        port=port,
        generator=np.random.default_rng(seed),
    ) as viewer:
        tell(f"open {viewer.url}; Stop on the page, or Ctrl-C here, ends it")
        try:
            return _Loop(driver, config.mpc, viewer, seed=seed, tell=tell).run(steps)
        finally:
            driver.controller.close()
            driver.env.close()


class _Loop:
    """The control loop, shown and steered by the page."""

    def __init__(
        self,
        driver: Driver,
        mpc: MPCConfig,
        viewer: Viewer,
        *,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self.controller, self.viewer, self.tell = driver.controller, viewer, tell
        self.config, self.control_step = mpc, driver.control_step
        # Without gymnasium's time limit: an episode lasts until the robot falls or is reset.
        self.env: Any = driver.env.unwrapped
        self.vector, self.episode = vector(self.env), Episodes(seed)
        player = Controllers(lambda: driver.controller, generator=driver.controller.generator)
        self.steps = play(player, self.vector, self.episode)
        self.task: envs.Task = self.env.task
        self.tracer = Simulator(self.task.traced())
        self.box = envs.check_box(driver.env)
        self.weights = self.task.weights
        self.drawn = 0.0  # s of perf_counter

    def run(self, steps: int | None) -> int:
        """Step until told to stop."""
        self.reset()
        taken = 0
        self.due = time.perf_counter()
        while steps is None or taken < steps:
            wishes = self.viewer.take()
            if wishes.closed:
                break
            self.obey(wishes)
            if wishes.paused:
                time.sleep(0.02)
                self.due = time.perf_counter()
                self.viewer.show(self.env.data, self.status)
                continue
            self.step()
            taken += 1
            if wishes.real_time:
                self.due = max(self.due + self.control_step, time.perf_counter() - 0.1)
                time.sleep(max(0.0, self.due - time.perf_counter()))
        return taken

    def reset(self) -> None:
        """The next episode."""
        self.episode.over[:] = True  # before the first there are none
        self.episode.begin(self.vector)
        self.controller.reset()
        self.status = Status(0.0, 0.0, 0.0, 0.0, 0.0, 0)

    def step(self) -> None:
        """Plan, act, show."""
        began, controller = time.perf_counter(), self.controller
        reward = float(next(self.steps).reward[0])
        if time.perf_counter() - self.drawn > TRACES_EVERY:
            self.drawn = time.perf_counter()
            self.trace()
        plan = controller.state.plan
        took = time.perf_counter() - began
        self.status = Status(
            plan_hz=1 / controller.seconds[-1],
            plan_ms=1e3 * controller.seconds[-1],
            real_time=self.control_step / took,
            reward=reward,
            score=float(plan.score) if plan is not None else 0.0,
            step=int(self.episode.lengths[0]),
        )
        self.viewer.show(self.env.data, self.status)
        if self.episode.over[0]:
            self.reset()

    def trace(self) -> None:
        """Where the last round's candidates lead, best first, and the plan that was chosen."""
        if not self.task.traces or self.controller.last_round is None:
            return
        state, actions, scores = self.controller.last_round
        plan = self.controller.state.plan
        order = scores.argsort(descending=True)
        ranks = np.linspace(0, len(order) - 1, min(DRAWN, len(order))).round().astype(int)
        paths = self.tracer.trace(state, actions[order[ranks]], self.task.traces)
        chosen = {}
        if plan is not None:
            held = plan.actions.repeat_interleave(self.config.action_repeat, 0)[None]
            chosen = self.tracer.trace(state, held, self.task.traces)
        self.viewer.traces(paths, {name: path[0] for name, path in chosen.items()})

    def obey(self, wishes: Wishes) -> None:
        """Do what the user asked for."""
        if wishes.reset:
            self.reset()
        if wishes.settings:
            self._plan_with(wishes.settings)
        if wishes.weights:
            self.weights = {**self.weights, **wishes.weights}
            self.controller.reward = partial(self.task.reward, **self.weights)
        for mocap, place in wishes.goals.items():
            self.env.data.mocap_pos[mocap] = place
        if wishes.push is not None:
            wishes.push.give(self.env.model, self.env.data)

    def _plan_with(self, changed: dict[str, float]) -> None:
        """The planner with other settings; its plan is kept where it still fits."""
        planner = self.config.planner
        values = {
            name: int(value) if SLIDERS[name][2] == 1 else value for name, value in changed.items()
        }
        try:
            config = replace(self.config, planner=replace(planner, **values))
            mpc = config.build(*(torch.as_tensor(b) for b in (self.box.low, self.box.high)))
        except ValueError as error:
            self.tell(f"kept the old settings: {error}")
            return
        self.config, self.controller.mpc = config, mpc
        if "horizon" in changed:
            self.controller.state = MPCState()


def _settings(controller: Controller) -> dict[str, Setting]:
    """Sliders for those settings that the planner has."""
    planner = controller.mpc.planner
    names = {field.name for field in fields(planner)}  # pyright: ignore[reportArgumentType]
    found = {}
    for name, (low, high, step) in SLIDERS.items():
        value = getattr(planner, name, None)
        if name in names and isinstance(value, (int, float)):
            found[name] = Setting(min(low, value), max(high, value), step, value)
    return found
