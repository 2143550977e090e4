"""Imagined transitions per second, and environment steps per second of agents that imagine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from experiments.bench.learners import sac_flops
from experiments.bench.measure import Bench, Result, Sample, rate, seeded
from experiments.bench.parts import forward_flops
from experiments.presets import preset
from mbrl.agents import dhmbpo, mbpo
from mbrl.dynamics import EnsembleConfig
from mbrl.imagination.branched import members_multiple
from mbrl.types import Spec, Transition

OBS, ACTION = 17, 6
"""Sizes of the half-cheetah; with the reward a net has 23 inputs and 18 outputs."""

SPEC = Spec(Box(-np.inf, np.inf, (OBS,)), Box(-1.0, 1.0, (ACTION,)), ends=False)

MEMBERS, UPDATES, BATCH, HIDDEN = 7, 20, 256, (256, 256)
"""MBPO's published numbers; mbrl-lib's SAC has the same two layers in this benchmark."""

ACTOR_FLOPS = 2 * (OBS * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * 2 * ACTION)
"""Operations of the matrix products of one row through the policy."""

EVERY = 250
"""Environment steps between refits, over which a refit and a burst of rollouts are spread."""

PASSES = 10
"""Passes over the data in a refit; how many there are depends on early stopping."""

DHMBPO_SECONDS = 0.12
"""What an environment step of DHMBPO may take."""


def dyna(bench: Bench, *, starts: int = 100_000, rows: int = 10_240) -> list[Result]:
    """Imagined transitions/s, and environment steps/s of MBPO and DHMBPO without the environment.

    Seven nets of four layers of 200, 23 -> 18, and a policy of 256 x 256. A burst draws its starts
    from the replay buffer, steps each once and stores what it finds. A step of MBPO acts, stores a
    transition and does 20 updates of soft actor-critic; a 250th of a burst of 100,000 rollouts and
    of a refit of ten passes over 10,240 transitions is added. mbrl-lib's step is made of its parts
    with the same sizes. "matmul" is the rate at which this machine would do the matrix products
    alone, so its ratio is the share of the time that they take at full speed.
    """
    starts = members_multiple(starts, MEMBERS)
    found = _imagined(bench, starts, rows) + _mbpo(bench, starts, rows)
    return found + _dhmbpo(bench, rows)


def _imagined(bench: Bench, starts: int, rows: int) -> list[Result]:
    made = filled(starts, rows)
    sizes = {"rows": starts, "members": MEMBERS, "data": rows}
    return bench.compare(
        "burst of rollouts",
        "transitions/s",
        rate(starts, made.imagine),
        {
            "matmul": bench.matmul(forward_flops(made.model) + ACTOR_FLOPS),
            "mbrl-lib": bench.ask("transitions", work="imagine", **sizes),
        },
        mbrl_lib="≥ 4",
    )


def _mbpo(bench: Bench, starts: int, rows: int) -> list[Result]:
    made = filled(starts, rows)
    replay = made.replay.all()
    obs = replay.obs[:1].numpy()
    one = Transition._make(column[:1] for column in replay)

    def updates() -> None:
        made.act(obs, explore=True)
        made.observe(one)
        made.update()

    def passed() -> None:
        made.learned.fit(made.replay, margin=made.config.margin, generator=made.generator)

    ours = spread(*(rate(1, work) for work in (updates, made.imagine, passed)))
    theirs = [
        bench.ask(work="sac", updates=UPDATES, data=rows),
        bench.ask(work="imagine", rows=starts, members=MEMBERS, data=rows),
        bench.ask(work="train", rows=rows, members=MEMBERS),
    ]
    peer = spread(*theirs) if all(theirs) else None
    net, width = forward_flops(made.model), 2 * made.model.net.sizes[0] * made.model.net.sizes[1]
    flops = UPDATES * sac_flops(OBS, ACTION, HIDDEN, BATCH)
    # forward, and backward to weights and to all inputs but the first layer's
    refit = PASSES * rows * MEMBERS * (3 * net - width)
    flops += (starts * (net + ACTOR_FLOPS) + refit) / EVERY
    return bench.compare(
        "MBPO step",
        "steps/s",
        ours,
        {"matmul": bench.matmul(flops), "mbrl-lib": peer},
        mbrl_lib="≥ 3",
    )


def _dhmbpo(bench: Bench, rows: int) -> list[Result]:
    """Steps of DHMBPO: an iteration with its refit, spread over its steps.

    Settings are those of its preset for the half-cheetah. An iteration takes minutes, so one is
    timed, after one that is not.
    """
    _, config = preset("dhmbpo", "HalfCheetah-v5", lambda: SPEC)
    steps = config.fit_every
    rows = max(rows, 2 * steps)
    config = replace(config, learning_starts=rows, first=1)
    made = dhmbpo.make(SPEC, config, generator=seeded())
    made.observe(random_steps(rows - steps))

    def sample() -> float:
        made.observe(random_steps(steps))
        start = time.perf_counter()
        made.update()
        return (time.perf_counter() - start) / steps

    found = replace(bench, repeats=1).compare(
        "DHMBPO step", "s", sample, {"wanted": lambda: DHMBPO_SECONDS}, wanted="≤ 1"
    )
    return [replace(result, lower=True) for result in found]


def spread(step: Sample | None, burst: Sample | None, refit: Sample | None) -> Sample:
    """A sample of steps/s, of samples of how often a second each of the three can be done.

    Args:
        step: acts and updates.
        burst: a burst of rollouts, once every `EVERY` steps.
        refit: one pass over the data, `PASSES` of them every `EVERY` steps.
    """
    assert step and burst and refit

    def sample() -> float:
        return 1 / (1 / step() + 1 / (EVERY * burst()) + PASSES / (EVERY * refit()))

    return sample


def filled(starts: int, rows: int) -> Any:
    """MBPO's agent with random transitions, whose next updates are those of one step each."""
    model = EnsembleConfig(members=MEMBERS, learn_reward=True, holdout=0.0, epochs=1, patience=1)
    config = mbpo.Config(
        model=model,
        learning_starts=rows,
        starts=starts,
        fit_every=1_000_000,
        updates=UPDATES,
        batch=BATCH,
        capacity=rows + 1000,
        learner=replace(mbpo.Config().learner, hidden=HIDDEN),
    )
    made = mbpo.make(SPEC, config, generator=seeded())
    made.observe(random_steps(rows))
    made.update()  # the fit and the burst that are due at the start, and no update
    return made


def random_steps(rows: int) -> Transition:
    """Transitions of smooth random dynamics."""
    draw = seeded()
    obs, actions = torch.randn(rows, OBS, generator=draw), torch.rand(rows, ACTION, generator=draw)
    change = torch.tanh(obs @ torch.randn(OBS, OBS, generator=draw))
    ends = torch.zeros(rows, dtype=torch.bool)
    return Transition(obs, 2 * actions - 1, change.sum(-1), obs + 0.1 * change, ends, ends)
