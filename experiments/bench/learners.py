"""Learners of policies against Stable-Baselines3, SBX and plain torch, all on one thread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch

from experiments.bench.measure import Bench, Result, Sample, cores, rate, seeded
from experiments.peers import Learners, available
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC
from mbrl.parallel import single_thread
from mbrl.returns import gae
from mbrl.types import Transition

OBS, ACTION, BATCH = 17, 6, 256
"""Sizes of the half-cheetah and of a batch, as in the peers' script."""

Ask = Callable[..., dict[str, Any]]


@single_thread()
def learners(
    bench: Bench, *, updates: int = 50, calls: int = 200, rows: int = 20_000
) -> list[Result]:
    """Rates of updates of SAC; times of a batch of replayed rows and of advantages.

    All run on one thread and have networks of 256 x 256 and batches of 256 rows of half-cheetah's
    size. An update contains the draw of its batch. SBX updates in one call at a time, as it does in
    training with its defaults, and in `updates` of them compiled as one loop. "plain" is a loop of
    torch's modules and optimisers. The rows of cores show that SBX uses no more than one.
    """
    with ExitStack() as stack:
        ask = stack.enter_context(Learners()).ask if available(Learners) else None
        return [
            *_updates(bench, ask, updates, rows),
            *_samples(bench, ask, calls, rows),
            *_advantages(bench, ask, calls),
        ]


def _updates(bench: Bench, ask: Ask | None, updates: int, rows: int) -> list[Result]:
    draw, replay = seeded(), filled(rows)
    bounds = Bounds(-torch.ones(ACTION), torch.ones(ACTION))
    learner = SAC(OBS, bounds, SACConfig(discount=0.99), generator=draw)

    def ours() -> None:
        for _ in range(updates):
            learner.update(replay.sample(BATCH, generator=draw), generator=draw)

    def theirs(library: str, **how: int) -> Sample | None:
        return _answer(
            ask, "seconds", updates, work="update", library=library, updates=updates, **how
        )

    found = bench.compare(
        "SAC update",
        "updates/s",
        rate(updates, ours),
        {
            "matmul": bench.matmul(sac_flops(OBS, ACTION, (256, 256), BATCH)),
            "SB3": theirs("sb3"),
            "SBX": theirs("sbx"),
            "SBX, in a loop": theirs("sbx", together=updates),
            "plain torch": theirs("plain"),
        },
        matmul="≥ 0.6",
        SBX="≥ 1",
        SBX__in_a_loop="≥ 1",
    )
    request = {"work": "update", "library": "sbx", "updates": updates, "together": updates}
    return found + bench.compare(
        "SAC update", "cores", cores(ours), {"SBX, in a loop": _answer(ask, "cores", **request)}
    )


def _samples(bench: Bench, ask: Ask | None, calls: int, rows: int) -> list[Result]:
    draw, replay = seeded(), filled(rows)
    return _microseconds(
        bench,
        f"{BATCH} replayed rows",
        lambda: replay.sample(BATCH, generator=draw),
        calls,
        _answer(ask, "seconds", calls, work="sample", calls=calls),
        50,
    )


def _advantages(bench: Bench, ask: Ask | None, calls: int) -> list[Result]:
    steps, count = 128, 16
    reward, value, next_value = torch.randn(3, steps, count, generator=seeded())
    terminated, truncated = torch.zeros(2, steps, count) > 0
    return _microseconds(
        bench,
        f"advantages, {steps} x {count}",
        lambda: gae(reward, value, next_value, terminated, truncated, discount=0.99, lambda_=0.95),
        calls,
        _answer(ask, "seconds", calls, work="gae", calls=calls, length=steps, environments=count),
        250,
    )


def _microseconds(
    bench: Bench,
    work: str,
    ours: Callable[[], Any],
    calls: int,
    theirs: Sample | None,
    wanted: float,
) -> list[Result]:
    """µs of a call, against those wanted and theirs."""

    def sample() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            ours()
        return 1e6 / calls * (time.perf_counter() - start)

    others = {"wanted": lambda: wanted, "SB3": theirs and (lambda: 1e6 / theirs())}
    found = bench.compare(work, "µs", sample, others, wanted="≤ 1")
    return [dataclasses.replace(result, lower=True) for result in found]


def _answer(ask: Ask | None, key: str, count: float = 1, **request: Any) -> Sample | None:
    """A sample of a peer's answer: its `cores`, or `count` per second."""
    if ask is None:
        return None

    def sample() -> float:
        reply = ask(**request)
        return reply["cores"] if key == "cores" else count / reply["seconds"][0]

    return sample


def filled(rows: int) -> Replay:
    """A replay buffer with random transitions."""
    replay, draw = Replay(rows, OBS, ACTION), seeded()
    obs, next_obs = torch.randn(2, rows, OBS, generator=draw)
    actions = 2 * torch.rand(rows, ACTION, generator=draw) - 1
    reward, ends = torch.randn(rows, generator=draw), torch.zeros(rows) > 0
    replay.append(Transition(obs, actions, reward, next_obs, ends, ends))
    return replay


def sac_flops(
    obs: int, action: int, hidden: tuple[int, ...], batch: int, critics: int = 2
) -> float:
    """Floating-point operations of the matrix products of one update of SAC.

    A product of a layer of I inputs and O outputs, forward or to one of its gradients, has 2 B I O.
    The policy is forward at next states, and forward and back to its weights at states. Critics are
    forward at next states (the targets), forward and back to their weights at the actions of the
    batch, and forward and back to their inputs at those of the policy.
    """

    def products(sizes: tuple[int, ...]) -> tuple[int, int]:
        """Those of all layers, and of the first."""
        first, *others = (2 * batch * i * o for i, o in pairwise(sizes))
        return first + sum(others), first

    policy, policy_first = products((obs, *hidden, 2 * action))
    critic, critic_first = products((obs + action, *hidden, 1))
    # back to weights: once for them, once for the inputs of all layers but the first
    return 4 * policy - policy_first + critics * (6 * critic - critic_first)
