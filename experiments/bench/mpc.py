"""Speed of planning through the true simulator, against MuJoCo alone and judo."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from mujoco.batch import Batch

import envs
from experiments.bench.measure import Bench, Result, cores, median_rate, rate, seeded
from experiments.peers import Judo, available
from experiments.presets.mpc import PRESETS
from mbrl.agents import Controller, MPCConfig, PlannerConfig
from mbrl.control import DriveConfig, build_driver
from mbrl.dynamics import Simulator
from mbrl.parallel import apart

MPC_TASKS = {"cartpole-swingup": (32, 25, "≥ 0.75"), "half-cheetah": (64, 50, "≥ 0.9")}
"""Task -> candidates, control steps, and the ratio to the bare rate to reach."""


JUDO_TASKS = {"cartpole-servo": "cartpole", "cylinder-push": "cylinder_push"}
"""Our task -> judo's; each is planned with its preset, at judo's candidates and horizon."""


def mpc(bench: Bench, *, tasks: Mapping[str, tuple[int, int, str]] = MPC_TASKS) -> list[Result]:
    """Rollouts/s of whole plans through the true simulator, over those of its bare engine.

    A plan is one round of predictive sampling on six cubic knots: draws, rollouts, observations,
    rewards, the choice and the shift. The bare engine rolls out as many controls and records
    nothing. Further rows have the number of cores in use while planning and, if judo is installed,
    our plans per second over judo's on two of its tasks.
    """
    results = []
    for name, (candidates, horizon, wanted) in tasks.items():
        plan, bare = _plan_and_bare(envs.simulated(name), candidates, horizon, bench.threads)
        work = f"plan {candidates} x {horizon}, {name}"
        results += bench.compare(
            work,
            "rollouts/s",
            rate(candidates, plan),
            {"bare engine": rate(candidates, bare)},
            bare_engine=wanted,
        )
        results += bench.compare(
            work, "cores", cores(plan), {"threads": lambda: float(bench.threads)}
        )
    if not available(Judo):
        return results
    with Judo() as peer:
        for name, theirs in JUDO_TASKS.items():
            driver = build_driver(DriveConfig(name, PRESETS[name]), make_env=envs.make, seed=0)
            obs, _ = driver.env.reset(seed=0)
            ask = partial(peer.ask, work="plan", task=theirs, repeats=20)
            results += bench.compare(
                f"plan, {name}",
                "plans/s",
                median_rate(lambda act=driver.controller.act, obs=obs: act(obs)),
                {"judo": lambda ask=ask: 1 / statistics.median(ask()["seconds"])},
            )
    return results


def _plan_and_bare(
    task: envs.Task, candidates: int, horizon: int, threads: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A call that makes a plan, and one that only rolls out as many controls from the same plan."""
    sim = Simulator(task, threads=threads)
    start = sim.state(*task.initial(np.random.default_rng(0)))
    box = torch.ones(sim.model.nu)
    settings = {"knots": 6, "interpolation": "cubic"}
    config = MPCConfig(PlannerConfig("predictive", horizon, candidates - 1, **settings))
    mpc = config.build(-box, box)
    controller = Controller(
        sim,
        mpc,
        config,
        reward=None,
        terminated=None,
        state_of=lambda _: start,
        generator=seeded(),
    )
    search: Any = mpc.planner
    mean, std, _ = search.begin(None)
    actions = search.actions(search.sample(mean, std, candidates, generator=seeded()))
    low, high = sim.model.actuator_ctrlrange.T
    controls = (low + high) / 2 + (high - low) / 2 * actions.double().numpy()
    controls = np.ascontiguousarray(controls.repeat(sim.frame_skip, 1))
    batch, spread = apart(lambda: Batch(sim.model, candidates, threads))
    row, nothing = start.numpy(), np.zeros(0)

    def bare() -> None:
        spread()
        batch.state[:] = row
        batch.rollout(controls.shape[1], controls, record=())

    return lambda: controller.act(nothing), bare
