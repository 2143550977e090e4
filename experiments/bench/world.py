"""Plans and updates of TD-MPC2 against the machine's matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import gymnasium
import numpy as np
import torch

from experiments.bench.measure import Bench, Result, median_rate, rate, seeded
from experiments.presets.tdmpc import PRESETS
from mbrl.agents import tdmpc
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.parallel import single_thread
from mbrl.types import Spec, Transition

SIZES: Sequence[tuple[str, int, int, tdmpc.Config, str, float]] = (
    ("as published", 24, 6, tdmpc.Config(), "≥ 0.8", 1 / 0.3),
    ("preset", 5, 1, PRESETS["dmc-cartpole-swingup"][1], "", 64.0),
)
"""Name, sizes of observation and action (those of walker-run and cartpole-swingup of the suite),
settings, the share of the matrix product that plans should reach, and plans/s."""


@single_thread()
def world(bench: Bench, *, plans: int = 10, updates: int = 5) -> list[Result]:
    """Plans/s, each of one environment step, and updates/s of TD-MPC2, on one thread.

    Against the same number of operations at the rate of a matrix product, whatever is not a product
    left out, and plans also against the rate that is wanted: 300 ms as published, and 64 a second
    with the preset of cartpole-swingup.
    """
    found = []
    for name, obs, action, config, share, wanted in SIZES:
        spec = Spec(
            gymnasium.spaces.Box(-np.inf, np.inf, (obs,)),
            gymnasium.spaces.Box(-1, 1, (action,)),
            ends=False,
            episode_steps=500,
        )
        agent, draw = tdmpc.make(spec, config, generator=seeded()), seeded()
        player, seen = agent.player(generator=draw), np.zeros((1, obs), np.float32)
        found += bench.compare(
            f"TD-MPC2 plan, {name}",
            "plans/s",
            median_rate(lambda player=player, seen=seen: player.act(seen, explore=True), plans),
            {
                "matmul": bench.matmul(plan_flops(obs, action, config)),
                "wanted": lambda wanted=wanted: wanted,
            },
            matmul=share,
            wanted="≥ 1",
        )
        learner, batch = agent.learner, sequences(obs, action, config)

        def learn(learner=learner, batch=batch, draw=draw) -> None:
            for _ in range(updates):
                learner.update(batch, generator=draw)

        found += bench.compare(
            f"TD-MPC2 update, {name}",
            "updates/s",
            rate(updates, learn),
            {"matmul": bench.matmul(update_flops(obs, action, config))},
        )
    return found


def sequences(obs: int, action: int, config: tdmpc.Config) -> Transition:
    """A batch of random sequences."""
    draw, lead = seeded(), (config.batch, config.learner.horizon)
    seen, after = torch.randn(2, *lead, obs, generator=draw)
    actions = 2 * torch.rand(*lead, action, generator=draw) - 1
    reward, ends = torch.rand(lead, generator=draw), torch.zeros(lead, dtype=torch.bool)
    return Transition(seen, actions, reward, after, ends, ends)


def plan_flops(obs: int, action: int, config: tdmpc.Config) -> float:
    """Floating-point operations of the matrix products of one plan, from vectors."""
    own, planner = config.learner, config.plan.planner
    population, rounds, proposals = planner.population, planner.iterations, config.plan.proposals
    assert population is not None and rounds is not None
    encoder, step, policy, critic = (sum(net) for net in _nets(obs, action, own))
    mean = 2 * own.bins
    value = policy + own.subset * (critic + mean)
    scored = rounds * population * (planner.horizon * (step + mean) + value)
    proposed = planner.horizon * (proposals * (policy + step + mean) + policy)
    # of the first step from one state, the product with the state is made once
    common = 2 * 2 * own.latent * own.hidden[0]
    saved = common * (rounds * (population - 1) + proposals - 1)
    return encoder + scored + proposed - saved


def update_flops(obs: int, action: int, config: tdmpc.Config) -> float:
    """Floating-point operations of the matrix products of one update, from vectors.

    A product of a layer of I inputs and O outputs, forward or to one of its gradients, has 2 B I O.
    """
    own, rows = config.learner, config.batch
    steps = own.horizon
    encoder, step, policy, critic = _nets(obs, action, own)
    mean = 2 * own.bins
    target = steps * (sum(encoder) + sum(policy) + own.subset * (sum(critic) + mean))
    model = 3 * (sum(encoder) + steps * (sum(step) + own.critics * sum(critic))) - encoder[0]
    # forward, and back to the weights of the policy and the inputs of the critics
    drawn = 3 * sum(policy) - policy[0] + 2 * own.subset * (sum(critic) + mean)
    return rows * (target + model + (steps + 1) * drawn)


def _nets(obs: int, action: int, own: TDMPCConfig) -> tuple[list[int], ...]:
    """Operations of each layer for one row: of encoder, model, policy and a critic."""
    latent, hidden = own.latent, own.hidden

    def layers(*sizes: int) -> list[int]:
        return [2 * i * o for i, o in pairwise(sizes)]

    both = layers(latent + action, *hidden, latent) + layers(latent + action, *hidden, own.bins)
    return (
        layers(obs, *own.encoder_hidden, latent),
        both,
        layers(latent, *hidden, 2 * action),
        layers(latent + action, *hidden, own.bins),
    )
