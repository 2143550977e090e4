"""Learners of policies against Stable-Baselines3, SBX and plain torch, all on one thread."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium
import torch

from experiments.bench.measure import Ask, Bench, Result, Sample, answer, cores, rate, seeded
from experiments.peers import Learners, available
from mbrl.agents import dqn, ppo, sac
from mbrl.data import Replay
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC
from mbrl.learners.value_configs import DQNConfig
from mbrl.parallel import single_thread
from mbrl.returns import gae
from mbrl.training import make
from mbrl.training.collect import vector
from mbrl.training.online import run_agent
from mbrl.types import Transition

OBS, ACTION, BATCH = 17, 6, 256
"""Sizes of the half-cheetah and of a batch, as in the peers' script."""


@dataclass(frozen=True)
class Training:
    """Training of an agent in copies of an environment, and the peers that do the same.

    Its first `steps` are not timed; learning begins in them.
    """

    agent: str
    """Its name, which is also the peers' name of the algorithm."""
    config: Any
    task: str
    steps: int
    peers: Mapping[str, str]
    """Names in the table, and the ratios to reach."""
    environments: int = 1
    every: int = 1
    """Steps for each update of an off-policy learner."""


def _dqn(every: int) -> Training:
    net = DQNConfig(hidden=(120, 84), learning_rate=2.5e-4, target_every=500 // every)
    config = dqn.Config(
        learning_starts=BATCH,
        train_every=every,
        updates=1,
        batch=128,
        capacity=10_000,
        learner=net,
    )
    peers = {"SB3": "≥ 2", "plain torch": "≥ 2"}
    return Training("dqn", config, "CartPole-v1", 1000, peers, every=every)


def _ppo(environments: int) -> Training:
    config = ppo.Config(rollout=2048 // environments)
    return Training("ppo", config, "HalfCheetah-v5", 2048, {"SB3": "≥ 2"}, environments)


TRAININGS: Sequence[Training] = (
    Training(
        "sac",
        sac.Config(learning_starts=BATCH, capacity=100_000),
        "HalfCheetah-v5",
        500,
        {"SB3": "", "SBX": "≥ 1"},
    ),
    _ppo(1),
    _ppo(4),
    _dqn(1),
    _dqn(10),
)
"""SAC and PPO with their papers' networks and batches, DQN with CleanRL's for CartPole."""


@single_thread()
def learners(
    bench: Bench,
    *,
    updates: int = 50,
    calls: int = 200,
    rows: int = 20_000,
    trainings: Sequence[Training] = TRAININGS,
) -> list[Result]:
    """Updates/s of SAC, environment steps/s of training, times of replays and of advantages.

    All run on one thread. Updates of SAC are those of networks of 256 x 256 and batches of 256 rows
    of half-cheetah's size, and contain the draw of the batch. SBX updates one in a call, as it does
    in training with its defaults, and all compiled as one loop. "plain torch" is a loop of torch's
    modules and optimisers. The row of cores shows that SBX uses no more than one. Trainings have
    the same networks, batches and numbers of updates as the peers'.
    """
    with ExitStack() as stack:
        ask = stack.enter_context(Learners()).ask if available(Learners) else None
        return [
            *_updates(bench, ask, updates, rows),
            *(result for training in trainings for result in _training(bench, ask, training)),
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
        return answer(
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
        "SAC update", "cores", cores(ours), {"SBX, in a loop": answer(ask, "cores", **request)}
    )


def _training(bench: Bench, ask: Ask | None, training: Training) -> list[Result]:
    name = training.agent
    task, steps, environments = training.task, training.steps, training.environments
    env = vector([lambda: gymnasium.make(task)] * environments)
    agent, seeds = make(name, env, config=training.config), itertools.count()

    def theirs(library: str) -> Sample | None:
        request = {"work": "steps", "library": library, "algorithm": name, "task": task}
        request |= {"steps": steps, "environments": environments, "every": training.every}
        return answer(ask, "seconds", steps, **request)

    libraries = {"SB3": "sb3", "SBX": "sbx", "plain torch": "plain"}
    every = "" if training.every == 1 else f", an update every {training.every}"
    found = bench.compare(
        f"{name.upper()} on {environments} x {task}{every}",
        "steps/s",
        rate(steps, lambda: run_agent(agent, env, seed=next(seeds), steps=steps)),
        {peer: theirs(libraries[peer]) for peer in training.peers},
        **{peer.replace(" ", "_"): wanted for peer, wanted in training.peers.items()},
    )
    env.close()
    return found


def _samples(bench: Bench, ask: Ask | None, calls: int, rows: int) -> list[Result]:
    draw, replay = seeded(), filled(rows)
    return _microseconds(
        bench,
        f"{BATCH} replayed rows",
        lambda: replay.sample(BATCH, generator=draw),
        calls,
        answer(ask, "seconds", calls, work="sample", calls=calls),
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
        answer(ask, "seconds", calls, work="gae", calls=calls, length=steps, environments=count),
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
