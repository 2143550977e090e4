"""Imagined transitions per second."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from experiments.bench.measure import Bench, Result, rate, seeded
from experiments.bench.parts import ensemble, forward_flops, run_forward
from mbrl.imagination import Propagation, score_fn


def rollout(bench: Bench, *, candidates: int = 500, horizon: int = 30) -> list[Result]:
    """Model transitions/s of `score_fn`: 5 nets 23→18, a known reward, 20 particles.

    The nets predict a reward too, which a function then replaces. The time includes `score_fn`
    itself, because every plan calls it once.
    """
    model, draw = ensemble(17, 6, learn_reward=True), seeded()
    state = torch.randn(17, generator=draw)
    actions = torch.rand(candidates, horizon, 6, generator=draw) * 2 - 1
    kinds: tuple[tuple[Propagation, str, int, int], ...] = (
        ("ts1", "random_model", 20, 1),
        ("tsinf", "fixed_model", 20, 1),
        ("expectation", "expectation", 1, 5),  # one particle, which all nets step
    )
    results = []
    for propagation, theirs, particles, passes in kinds:
        known: dict[str, Any] = {"propagation": propagation, "reward": run_forward}
        score = partial(score_fn, model, state, horizon=horizon, generator=draw, **known)
        request = {"propagation": theirs, "learned_reward": True}
        sizes = {"candidates": candidates, "horizon": horizon, "particles": particles}
        results += bench.compare(
            f"score_fn, {propagation}",
            "transitions/s",
            rate(candidates * horizon * particles, lambda score, x: score()(x), score, actions),
            {
                "matmul": bench.matmul(passes * forward_flops(model)),
                "mbrl-lib score": bench.ask("transitions", work="score", **sizes, **request),
                "mbrl-lib step": bench.ask("transitions", work="step", **request),
            },
            matmul="" if propagation == "expectation" else "≥ 0.5",
        )
    return results


def rollout_busy(bench: Bench, *, candidates: int = 500, horizon: int = 30) -> list[Result]:
    """`rollout` while another process keeps one core busy, for ours and for the references."""
    with busy_neighbour():
        return rollout(bench, candidates=candidates, horizon=horizon)


@contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen[str]]:
    """A process that multiplies matrices on one thread until the block or this process ends."""
    code = (
        "import os, sys, numpy\n"
        "a = numpy.ones((512, 512), numpy.float32)\n"
        "print('busy', flush=True)\n"
        "while os.getppid() == int(sys.argv[1]): a @ a\n"
    )
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", code, str(os.getpid())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | one
    ) as child:
        try:
            assert child.stdout
            child.stdout.readline()
            yield child
        finally:
            child.kill()
