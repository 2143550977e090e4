"""Stable-Baselines3 2.9.2, SBX 0.28.0 and plain torch, timed on one thread.

A script for the virtual environment that has them. It reads one JSON request a line on stdin and
answers each with one JSON line on stdout, as `judo.py` does. A `library` is "sb3", "sbx" or
"plain"; all have the settings of the papers' networks and batches that `mbrl bench learners` has.

`info`    versions.
`update`  `updates` updates of SAC on random rows of half-cheetah's size, sampling included, after
          an untimed call of as many; `together` of them in one call of the library.
`steps`   `steps` environment steps of training by `algorithm` ("sac", "dqn" or "ppo") in
          `environments` copies of `task`; off-policy algorithms update once `every` so many steps.
`sample`  `calls` samples of 256 rows of SB3's replay buffer.
`gae`     `calls` times SB3's advantages of a rollout of `length` steps in `environments`.

Each answer has `seconds`, of the whole request, and `cores`, processor seconds per second.

"plain" is a loop of torch's own modules and optimisers in the structure of CleanRL's single files.
It is not CleanRL: the last release that Python 3.11 can install, 0.4.8, has other networks and a
replay of Python objects.
"""

from __future__ import annotations

import copy
import math
import os
import runpy
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

# before JAX is imported: one thread, as for everybody else
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

VERSION = "2.9.2"
OBS, ACTION, BATCH, ROWS = 17, 6, 256, 20_000
LIBRARIES = ("sb3", "sbx", "plain")
PACKAGES = {"sb3": "stable_baselines3", "sbx": "sbx"}

_SERVING = runpy.run_path(str(Path(__file__).with_name("serving.py")))
accepted, info, installed, serve = (
    _SERVING[name] for name in ("accepted", "info", "installed", "serve")
)

Run = Callable[[], Any]


class Still(gymnasium.Env):
    """An environment of half-cheetah's size in which nothing happens; only its spaces are used."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (ACTION,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Zeros."""
        return np.zeros(OBS, np.float32), {}

    def step(self, action: Any) -> Any:
        """Zeros, no reward and no end."""
        return np.zeros(OBS, np.float32), 0.0, False, False, {}


def rows() -> dict[str, np.ndarray]:
    """Random transitions of half-cheetah's size."""
    draw = np.random.default_rng(0)
    return {
        "observations": draw.normal(size=(ROWS, 1, OBS)).astype(np.float32),
        "actions": draw.uniform(-1, 1, size=(ROWS, 1, ACTION)).astype(np.float32),
        "rewards": draw.normal(size=(ROWS, 1)).astype(np.float32),
        "next_observations": draw.normal(size=(ROWS, 1, OBS)).astype(np.float32),
        "dones": np.zeros((ROWS, 1), np.float32),
    }


def filled(buffer: Any) -> Any:
    """An SB3 replay buffer, filled with `rows`."""
    for name, column in rows().items():
        getattr(buffer, name)[:ROWS] = column
    buffer.pos = ROWS
    return buffer


def update(library: str, updates: int, together: int = 1) -> Run:
    """Updates of SAC on random rows."""
    if library == "plain":
        data = {k: torch.as_tensor(v).squeeze(1) for k, v in rows().items()}
        learner = PlainSAC(OBS, ACTION)

        def plain() -> float:
            for _ in range(updates):
                index = torch.randint(ROWS, (BATCH,))
                loss = learner.update({name: column[index] for name, column in data.items()})
            return loss.item()

        return plain
    model = made(library, "sac", Still(), 1)
    model.set_logger(import_module("stable_baselines3.common.logger").Logger(None, []))
    filled(model.replay_buffer)

    def run() -> float:
        for _ in range(updates // together):
            model.train(gradient_steps=together, batch_size=BATCH)
        return model.logger.name_to_value["train/critic_loss"]  # so that JAX has finished

    return run


def made(library: str, algorithm: str, env: Any, environments: int, every: int = 1) -> Any:
    """A learner of a library, with its defaults but for what is written here."""
    kind = getattr(import_module(PACKAGES[library]), algorithm.upper())
    wide = {"net_arch": [256, 256]}
    rollout = {"n_steps": 2048 // environments, "batch_size": 64, "n_epochs": 10}
    settings: dict[str, dict[str, Any]] = {
        "sac": {"policy_kwargs": wide, "buffer_size": 100_000, "learning_starts": BATCH},
        "dqn": {
            "policy_kwargs": {"net_arch": [120, 84]},
            "buffer_size": 10_000,
            "learning_rate": 2.5e-4,
            "learning_starts": BATCH,
            "batch_size": 128,
            "train_freq": every,
            "gradient_steps": 1,
            "target_update_interval": 500,
        },
        "ppo": rollout,
    }
    return kind("MlpPolicy", env, seed=0, verbose=0, device="cpu", **settings[algorithm])


def steps(
    library: str, algorithm: str, task: str, steps: int, environments: int = 1, every: int = 1
) -> Run:
    """Environment steps of training."""
    accepted("algorithm", algorithm, ("sac", "dqn", "ppo"))
    if library == "plain":
        accepted("algorithm of plain", algorithm, ("dqn",))
        return PlainDQN(gymnasium.make(task), steps, every)
    vector = import_module("stable_baselines3.common.env_util").make_vec_env(task, environments)
    model = made(library, algorithm, vector, environments, every)
    model.learn(2 * BATCH if algorithm != "ppo" else steps)

    def run() -> float:
        before = model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        if model.num_timesteps - before != steps:
            raise ValueError(f"steps: want a multiple of a rollout, got {steps}")
        return 0.0

    return run


class PlainSAC:
    """SAC with a module for each network and an optimiser for each loss."""

    def __init__(self, obs: int, action: int) -> None:
        self.actor = mlp(obs, 256, 256, 2 * action)
        self.critics = [mlp(obs + action, 256, 256, 1) for _ in range(2)]
        self.targets = [copy.deepcopy(critic) for critic in self.critics]
        self.log_alpha = torch.zeros(1, requires_grad=True)
        weights = list(chain(*(critic.parameters() for critic in self.critics)))
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), 3e-4)
        self.critic_optimiser = torch.optim.Adam(weights, 3e-4)
        self.alpha_optimiser = torch.optim.Adam([self.log_alpha], 3e-4)
        self.target_entropy = -float(action)

    def draw(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log-densities."""
        mean, log_std = self.actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        before = normal.rsample()
        action = before.tanh()
        log_prob = normal.log_prob(before) - torch.log(1 - action.square() + 1e-6)
        return action, log_prob.sum(-1)

    def values(self, critics: list[nn.Sequential], obs: Tensor, action: Tensor) -> list[Tensor]:
        """What each critic says."""
        rows = torch.cat((obs, action), -1)
        return [critic(rows).squeeze(-1) for critic in critics]

    def update(self, batch: dict[str, Tensor]) -> Tensor:
        """One update of critics, policy, temperature and targets."""
        obs, after = batch["observations"], batch["next_observations"]
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            action, log_prob = self.draw(after)
            soft = torch.minimum(*self.values(self.targets, after, action)) - alpha * log_prob
            target = batch["rewards"].flatten() + 0.99 * (1 - batch["dones"].flatten()) * soft
        found = self.values(self.critics, obs, batch["actions"])
        loss = sum((nn.functional.mse_loss(q, target) for q in found), torch.zeros(()))
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        action, log_prob = self.draw(obs)
        q = torch.minimum(*self.values(self.critics, obs, action))
        self.actor_optimiser.zero_grad()
        (alpha * log_prob - q).mean().backward()
        self.actor_optimiser.step()
        self.alpha_optimiser.zero_grad()
        (-self.log_alpha.exp() * (log_prob.detach() + self.target_entropy)).mean().backward()
        self.alpha_optimiser.step()
        with torch.no_grad():
            for critic, follower in zip(self.critics, self.targets, strict=True):
                for new, old in zip(critic.parameters(), follower.parameters(), strict=True):
                    old.copy_(0.005 * new + 0.995 * old)
        return loss.detach()


class PlainDQN:
    """A loop of DQN in one environment; a call takes some steps with an update every few."""

    def __init__(self, env: gymnasium.Env, steps: int, every: int) -> None:
        self.env, self.steps, self.every, self.taken = env, steps, every, 0
        observations: Any = env.observation_space  # a box
        actions: Any = env.action_space  # indices
        size, self.choices = observations.shape[0], int(actions.n)
        self.net = mlp(size, 120, 84, self.choices)
        self.target = copy.deepcopy(self.net)
        self.optimiser = torch.optim.Adam(self.net.parameters(), 2.5e-4)
        self.draw = np.random.default_rng(0)
        self.columns = {
            name: np.zeros((10_000, *shape), kind)
            for name, shape, kind in (
                ("obs", (size,), np.float32),
                ("action", (), np.int64),
                ("reward", (), np.float32),
                ("next_obs", (size,), np.float32),
                ("terminated", (), np.float32),
            )
        }
        self.obs, _ = env.reset(seed=0)
        for _ in range(BATCH):
            self.step()

    def step(self) -> None:
        """One step of the environment."""
        if self.draw.random() < 0.05:
            action = int(self.draw.integers(self.choices))
        else:
            with torch.no_grad():
                action = int(self.net(torch.as_tensor(self.obs)).argmax())
        after, reward, terminated, truncated, _ = self.env.step(action)
        row = self.taken % 10_000
        values: Any = (self.obs, action, reward, after, terminated)
        for column, value in zip(self.columns.values(), values, strict=True):
            column[row] = value
        self.taken += 1
        self.obs = self.env.reset()[0] if terminated or truncated else after

    def update(self) -> None:
        """One update of the network."""
        index = self.draw.integers(min(self.taken, 10_000), size=128)
        obs, action, reward, after, terminated = (
            torch.as_tensor(column[index]) for column in self.columns.values()
        )
        with torch.no_grad():
            best = self.target(after).max(1).values
            target = reward + 0.99 * best * (1 - terminated)
        q = self.net(obs).gather(1, action.unsqueeze(1)).squeeze(1)
        loss = nn.functional.mse_loss(q, target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def __call__(self) -> float:
        """Take `steps` steps, with updates."""
        for _ in range(self.steps):
            self.step()
            if self.taken % self.every == 0:
                self.update()
            if self.taken % 500 == 0:
                self.target.load_state_dict(self.net.state_dict())
        return 0.0


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sample(calls: int) -> Run:
    """Batches of SB3's replay buffer."""
    buffers = import_module("stable_baselines3.common.buffers")
    still = Still()
    buffer = filled(
        buffers.ReplayBuffer(
            100_000,
            still.observation_space,
            still.action_space,
            "cpu",
            handle_timeout_termination=True,
        )
    )

    def run() -> float:
        for _ in range(calls):
            batch = buffer.sample(BATCH)
        return float(batch.rewards[0])

    return run


def gae(calls: int, length: int, environments: int) -> Run:
    """SB3's advantages of a rollout."""
    buffers = import_module("stable_baselines3.common.buffers")
    still = Still()
    buffer = buffers.RolloutBuffer(
        length, still.observation_space, still.action_space, "cpu", 0.95, 0.99, environments
    )
    draw = np.random.default_rng(0)
    buffer.rewards[:] = draw.normal(size=buffer.rewards.shape)
    buffer.values[:] = draw.normal(size=buffer.values.shape)
    last, done = torch.zeros(environments), np.zeros(environments)

    def run() -> float:
        for _ in range(calls):
            buffer.compute_returns_and_advantage(last, done)
        return float(buffer.advantages[0, 0])

    return run


WORKS: dict[str, Callable[..., Run]] = {
    "update": update, "steps": steps, "sample": sample, "gae": gae,
}  # fmt: skip


@cache
def ready(work: str, **options: Any) -> Run:
    """The work, built, and done once so that its numbers are checked and JAX has compiled."""
    if "library" in options:
        accepted("library", options["library"], LIBRARIES)
    torch.manual_seed(0)
    run = WORKS[work](**options)
    if not math.isfinite(run()):
        raise ValueError(f"{work} gave numbers that are not finite, so its time says nothing")
    return run


def answer(work: str = "info", **options: Any) -> dict[str, Any]:
    """Does what one request asks for."""
    accepted("work", work, ("info", *WORKS))
    if work == "info":
        return info(("stable-baselines3", "sbx-rl", "torch", "jax", "gymnasium", "mujoco"))
    run = ready(work, **options)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    seconds = time.perf_counter() - wall
    return {"seconds": [seconds], "cores": (time.process_time() - processor) / seconds}


def main() -> None:
    """Answers requests until stdin ends."""
    if installed("stable-baselines3") != VERSION:
        sys.exit(f"this Python has no Stable-Baselines3 {VERSION}: {sys.executable}")
    torch.set_num_threads(1)
    serve(answer)


if __name__ == "__main__":
    main()
