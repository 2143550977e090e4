"""Updates per second of fitting an ensemble."""

from __future__ import annotations

import torch

from experiments.bench.measure import Bench, Result, rate, seeded
from experiments.bench.parts import ensemble, forward_flops
from mbrl.types import Transition


def train(bench: Bench, *, rows: int = 10_240, epochs: int = 2) -> list[Result]:
    """Updates/s of `Ensemble.fit`, an update being one batch of 256 rows for every member.

    Ours is all of `fit` with its set-up, mbrl-lib's only its training epoch; neither evaluates
    held-out data.
    """
    draw = seeded()
    obs, actions = torch.randn(rows, 17, generator=draw), torch.rand(rows, 6, generator=draw)
    change = torch.tanh(obs @ torch.randn(17, 17, generator=draw))
    data = Transition(obs, actions, change.sum(-1), obs + 0.1 * change, *torch.zeros(2, rows) > 0)
    settings = {"learn_reward": True, "holdout": 0.0, "epochs": epochs, "patience": epochs}
    results = []
    for members in (5, 7):
        model = ensemble(17, 6, members=members, **settings)
        inputs, width = model.net.sizes[:2]
        # forward, and backward to weights and to all inputs but the first layer's
        flops = members * 256 * (3 * forward_flops(model) - 2 * inputs * width)
        results += bench.compare(
            f"fit, {members} nets",
            "updates/s",
            rate(epochs * -(-rows // 256), model.fit, data, generator=draw),
            {
                "matmul": bench.matmul(flops),
                "mbrl-lib": bench.ask("batches", work="train", rows=rows, members=members),
            },
            mbrl_lib="≥ 1.5",
        )
    return results
