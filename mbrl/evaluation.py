"""Runs evaluated and compared, and how good a model is where its agent goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.agents import Controller, RandomAgent
from mbrl.data import moments
from mbrl.dynamics import Simulator
from mbrl.imagination import rollout
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.statistics import probability_of_improvement, summarise
from mbrl.training.checkpoint import Run, write_json
from mbrl.training.collect import Episodes, most_steps, play, vector
from mbrl.training.runs import MakeEnv, RunConfig, learning, load_run
from mbrl.training.runs import labels as run_labels
from mbrl.training.seeds import Interruptible
from mbrl.types import Dynamics, GaussianDynamics, PlanningAgent, PlanningPlayer, Player
from mbrl.uncertainty import Spread, particle_spread

SPREAD_PARTICLES = 100
"""Particles per member for the spread along a plan."""


class Episode(NamedTuple):
    """One episode in float64, and what the plans along it promised."""

    obs: Float[Tensor, "T O"]
    action: Float[Tensor, "T A"]
    reward: Float[Tensor, T]
    next_obs: Float[Tensor, "T O"]
    promises: list[tuple[int, float]]  # (step, score) of each plan


def record(
    player: Player, env: gymnasium.Env | VectorEnv, *, episodes: int, seed: int, first: int = 0
) -> list[Episode]:
    """Play episodes in one environment, reset with `episode_seed(seed, first..)`, and keep them.

    Where the player plans (`mbrl.agents.Controllers`), what each plan promised is kept too. Where
    the environment has no time limit, an episode is cut off after 10,000 steps.
    """
    recorded: list[Episode] = []
    steps, promised, plans = [], [], 0
    running = Episodes(seed, first=first)
    planning = player if isinstance(player, PlanningPlayer) else None
    environments = vector(env)
    for step in play(player, environments, running, steps=most_steps(environments)):
        if planning is not None and planning.each and planning.each[0].plans > plans:
            controller = planning.each[0]
            promised.append((len(steps), float(controller.state.plan.score)))
            plans = controller.plans
        steps.append(step)
        if running.over[0]:
            columns = (torch.cat(column).double() for column in zip(*steps, strict=True))
            recorded.append(Episode(*list(columns)[:4], promises=promised))
            steps, promised, plans = [], [], 0
            if len(recorded) == episodes:
                break
    return recorded


def horizon_errors(
    model: Dynamics,
    played: Sequence[Episode],
    horizon: int,
    *,
    device: torch.device | str = "cpu",
    generator: Generator,
) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N H"]]:
    """Error of the particles' mean, 1..H steps after each start, and of predicting no change.

    Root mean square over observations, each in units of its std over the episodes; those that are
    constant there are left as they are. Starts are every third step.
    """
    scale = _scale(torch.cat([episode.obs for episode in played]))
    errors, unchanged = [], []
    for episode in played:
        starts = range(0, len(episode.obs) - horizon + 1, 3)
        if not starts:
            continue
        obs = torch.stack([episode.obs[t] for t in starts]).float()
        actions = torch.stack([episode.action[t : t + horizon] for t in starts]).float()
        truth = torch.stack([episode.next_obs[t : t + horizon] for t in starts])
        imagined = rollout(
            model,
            obs.to(device),
            actions.to(device),
            particles=4 * model.members,
            reward=lambda obs, action, next_obs: next_obs[..., 0],
            generator=generator,
        )
        mean = imagined.state[:, :, 1:].mean(0).cpu().double()
        errors.append(((mean - truth) / scale).square().mean(-1).sqrt())
        unchanged.append(((obs.unsqueeze(1) - truth) / scale).square().mean(-1).sqrt())
    return torch.cat(errors), torch.cat(unchanged)


def _scale(obs: Float[Tensor, "T O"]) -> Float[Tensor, O]:
    """The std of each observation; 1 for those that are constant."""
    return torch.where(moments(obs)[1] > 0, obs.std(0), 1.0)


def promises(
    played: Sequence[Episode], span: int, *, discount: float = 1.0
) -> tuple[list[float], list[float]]:
    """Each plan's score, and the return over the `span` steps after it was made."""
    powers = discount ** torch.arange(span, dtype=torch.double)
    predicted, realised = [], []
    for episode in played:
        for start, score in episode.promises:
            rewards = episode.reward[start : start + span]
            if len(rewards) == span:
                predicted.append(score)
                realised.append(float((rewards * powers).sum()))
    return predicted, realised


def one_step(
    model: GaussianDynamics, played: Sequence[Episode], *, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "E T O"], Float[Tensor, "E T O"], Float[Tensor, "T O"]]:
    """Members' mean and std of every next observation, and that observation."""
    obs, action, target = (
        torch.cat([getattr(episode, name) for episode in played])
        for name in ("obs", "action", "next_obs")
    )
    with torch.no_grad():
        gaussian = model.predict(
            obs.float().to(device).expand(model.members, -1, -1),
            action.float().to(device).expand(model.members, -1, -1),
        )
    size = obs.shape[-1]
    mean, std = (part[..., :size].cpu().double() for part in gaussian)
    return mean, std, target


def step_errors(
    model: GaussianDynamics,
    played: Sequence[Episode],
    *,
    moves: Sequence[Episode],
    device: torch.device | str = "cpu",
) -> list[float]:
    """The one-step error of the members' mean over each episode, in stds of a step of `moves`.

    Root mean square over steps and over the observations that `moves` changes, each in units of
    the standard deviation of what one step of `moves` changes it by. With episodes of random
    actions as `moves`, 1 is as bad as predicting the mean change of a random step, and errors in
    different states are in one unit.
    """
    changes = [episode.next_obs.float() - episode.obs.float() for episode in moves]
    scale = moments(torch.cat(changes))[1]
    changed = scale > 0
    errors = []
    for episode in played:
        obs, action = (
            column.float().to(device).expand(model.members, -1, -1)
            for column in (episode.obs, episode.action)
        )
        with torch.no_grad():
            mean = model.predict(obs, action).mean.mean(0)[:, : obs.shape[-1]].cpu()
        off = (mean - episode.next_obs.float()) / scale
        errors.append(float(off[:, changed].square().mean().sqrt()))
    return errors


class Mismatch(NamedTuple):
    """How a model errs on random actions and where its own plans lead, a number an episode."""

    returns: list[float]
    """Of the agent's own episodes."""
    promised: list[float]
    """The mean score of the plans along each of them."""
    error_random: list[float]
    """See `step_errors`, over episodes of random actions, which also give the unit."""
    error_own: list[float]
    """Over the agent's own episodes."""


def mismatch(agent: Any, env: gymnasium.Env | VectorEnv, *, episodes: int, seed: int) -> Mismatch:
    """Play an agent's own and random episodes, as many of each, and measure its model on both.

    A model is accurate where it has data; good plans leave those states, which is called
    distribution mismatch.

    Args:
        agent: one that plans through a model that predicts Gaussians, such as PETS, on the CPU.
        env: its environment, one.
        episodes: how many of each kind, at least one.
        seed: of the episodes and of all draws.
    """
    player = agent.player(generator=Generator().manual_seed(seed))
    random = RandomAgent(spec_of(env).action, generator=Generator().manual_seed(seed))

    def played(player: Any, first: int) -> list[Episode]:
        return record(Interruptible(player), env, episodes=episodes, seed=seed, first=first)

    at_random, own = played(random, episodes), played(player, 0)
    return Mismatch(
        [sum(episode.reward.tolist()) for episode in own],
        [_mean([score for _, score in episode.promises]) for episode in own],
        step_errors(agent.model, at_random, moves=at_random),
        step_errors(agent.model, own, moves=at_random),
    )


def _mean(scores: Sequence[float]) -> float:
    """The running mean of the scores; 0 of none."""
    mean = 0.0
    for count, score in enumerate(scores, 1):
        mean += (score - mean) / count
    return mean


def act_milliseconds(
    players: Mapping[Any, Controller], observations: Sequence[np.ndarray]
) -> dict[Any, float]:
    """Mean milliseconds that each controller takes for an action along observations (T, O).

    A mean, as a controller that replans every k steps searches in one action of k. They take turns
    at each observation, so that a machine that slows down slows them all. The first k observations
    warm them up and are not counted.
    """
    seconds: dict[Any, list[float]] = {key: [] for key in players}
    for obs in observations:
        for key, player in players.items():
            began = time.perf_counter()
            player.act(obs)
            seconds[key].append(time.perf_counter() - began)
    warm = {key: max(1, player.mpc.replan_every) for key, player in players.items()}
    return {key: 1000 * float(np.mean(times[warm[key] :])) for key, times in seconds.items()}


def plan_spread(
    model: Dynamics,
    played: Sequence[Episode],
    horizon: int,
    *,
    device: torch.device | str = "cpu",
    generator: Generator,
) -> tuple[Spread, Float[Tensor, H]]:
    """The spread along the first episode's first actions, predicted from its start, and the error.

    Variances are means over observations, each in units of its std over the episode, or over all
    episodes where it has one step; those that are constant there are left as they are. The error
    is the root mean square of the particles' mean in these units.
    """
    episode = played[0]
    imagined = rollout(
        model,
        episode.obs[0].float().to(device),
        episode.action[:horizon].float().unsqueeze(0).to(device),
        particles=SPREAD_PARTICLES * model.members,
        reward=lambda obs, action, next_obs: next_obs[..., 0],
        generator=generator,
    )
    states = imagined.state[:, 0, 1:].cpu().double()  # (P, H, O)
    obs = episode.obs if len(episode.obs) > 1 else torch.cat([one.obs for one in played])
    scale = _scale(obs)
    parts = particle_spread(states / scale, members=model.members)
    error = ((states.mean(0) - episode.next_obs[:horizon]) / scale).square().mean(-1).sqrt()
    return Spread(*(part.mean(-1) for part in parts)), error


class Measured(NamedTuple):
    """What an agent's model and its plans were worth on fresh episodes."""

    episodes: list[Episode]
    predicted: list[float]
    """Each plan's score, and in `realised` the return over the steps after it; see `promises`."""
    realised: list[float]
    errors: Float[Tensor, "N H"] | None
    """See `horizon_errors`; None, like `baseline`, where the episodes have one step in all: no
    standard deviation is then known, which is the unit of errors."""
    baseline: Float[Tensor, "N H"] | None
    one_step: tuple[Tensor, Tensor, Tensor] | None
    """See `one_step`; None, like `along`, for a model that predicts no Gaussian."""
    along: tuple[Spread, Float[Tensor, H]] | None
    """See `plan_spread`; None too where there are no errors."""


def measure(
    agent: Any,
    env: gymnasium.Env | VectorEnv,
    *,
    episodes: int,
    seed: int,
    horizon: int = 25,
    device: torch.device | str = "cpu",
) -> Measured:
    """Play episodes with an agent's player and measure its model on them.

    Args:
        agent: a `ModelBased` agent whose model is fitted.
        env: one environment.
        episodes: how many, at least one.
        seed: of the episodes and of all draws.
        horizon: steps ahead, where the agent has no planner (`agent.mpc`) whose horizon counts.
        device: where the model lives.
    """
    played = record(agent.player(generator=generator(seed, 1)), env, episodes=episodes, seed=seed)
    model = agent.model
    span, discount = horizon, 1.0
    if isinstance(agent, PlanningAgent):
        span = agent.mpc.planner.horizon * agent.mpc.action_repeat
        discount = agent.config.mpc.discount
    ahead = min(span, len(played[0].obs))
    draws: dict[str, Any] = {"device": device, "generator": generator(seed, 2)}
    errors, baseline, ahead_of_one, along = None, None, None, None
    scaled = sum(len(episode.obs) for episode in played) > 1
    if scaled:
        errors, baseline = horizon_errors(model, played, ahead, **draws)
    predicted, realised = promises(played, span, discount=discount)
    if isinstance(model, GaussianDynamics):
        ahead_of_one = one_step(model, played, device=device)
        if scaled:
            along = plan_spread(model, played, ahead, **draws)
    return Measured(played, predicted, realised, errors, baseline, ahead_of_one, along)


def motion_error(
    true: Simulator,
    other: Simulator,
    states: np.ndarray,
    *,
    seconds: float,
    rng: np.random.Generator,
) -> float:
    """The error of another simulator's motion, as a share of the true one's.

    The median over MuJoCo states (N, S), each under random controls held for `seconds`, of
    |q_other - q_true| / |q_true - q_start| over positions; starts from which nothing moves are left
    out.
    """
    errors, positions = [], slice(1, 1 + true.model.nq)
    for state in states:
        start = torch.from_numpy(np.array(state))
        held = torch.from_numpy(rng.uniform(-1, 1, (1, 1, true.model.nu)))
        ends = []
        for sim in (true, other):
            at = start[None, None]
            for _ in range(max(1, round(seconds / true.control_step))):
                at = sim.step(at, held, noise=None).state
            ends.append(at[0, 0, positions])
        errors.append(float((ends[1] - ends[0]).norm() / (ends[0] - start[positions]).norm()))
    return float(np.nanmedian(errors))


def evaluate_run(
    path: Path,
    *,
    make_env: MakeEnv,
    episodes: int,
    seed: int,
    steps: int | None = None,
    device: str | None = None,
    callback: Callable[[int, float, int], None] = lambda number, total, steps: None,
) -> tuple[dict[str, Any], str, list[np.ndarray]]:
    """Play episodes with a run's agent at its newest checkpoint; writes RUN/evaluation.json.

    Args:
        path: the run's folder.
        make_env: makes the environment by its id.
        episodes: how many, at least one.
        seed: of the episodes and of the player's draws.
        steps: of an episode, at most; if None, 10,000 where the environment has no time limit.
        device: of the model; that of the run if None.
        callback: called after each episode with its number from 1, its return and its steps.

    Returns:
        What the file holds, which is the returns and what `mbrl.statistics.summarise` says of
        them; the environment's id; and the actions (A,) of the first episode.

    Raises:
        RunError: see `load_run`.
        EnvironmentError: the environment returned what no agent can use.
    """
    loaded = load_run(path, make_env=make_env, device=device)
    player = loaded.agent.player(generator=generator(seed, 1))
    running, returns, first = Episodes(seed), [], []
    most = most_steps(loaded.env) if steps is None else steps
    for step in play(player, loaded.env, running, steps=most):
        if not returns:
            first.append(step.action[0].numpy())
        if running.over[0]:
            returns.append(float(running.returns[0]))
            callback(len(returns), returns[-1], int(running.lengths[0]))
            if len(returns) == episodes:
                break
    summary = {
        "run": str(path),
        "env_steps": loaded.env_steps,
        "seed": seed,
        "returns": returns,
        **summarise(returns, rng=np.random.default_rng(seed)),
    }
    write_json(path / "evaluation.json", summary)
    return summary, loaded.config.env, first


def compare_runs(
    paths: Sequence[Path], *, labels: Sequence[str] = (), last: int = 1
) -> tuple[str, dict[str, list[Any]], dict[str, dict[str, Any]]]:
    """Runs of one environment side by side; those with the same label are seeds of the same thing.

    Args:
        paths: the runs' folders, at least one.
        labels: one for each run; if there are none, the algorithm, and the settings in which runs
            of it differ.
        last: episodes at the end of a run whose mean return is its result.

    Returns:
        The environment's id; the learning curves of each label (see `learning`); and for each
        label its `returns`, one a run, what `mbrl.statistics.summarise` says of them, and
        `better_than_first`, the probability that a run of it beats one of the first label (None
        for the first itself).

    Raises:
        RunError: not a run, or no finished episode.
        ValueError: runs of different environments.
    """
    configs = [RunConfig.of(Run.open(path)) for path in paths]
    if len({config.env for config in configs}) > 1:
        found = ", ".join(sorted({config.env for config in configs}))
        raise ValueError(f"runs of different environments do not compare: {found}")
    curves: dict[str, list[Any]] = {}
    for path, label in zip(paths, labels or run_labels(configs), strict=True):
        curves.setdefault(label, []).append(learning(path))
    numbers: dict[str, dict[str, Any]] = {}
    baseline: list[float] | None = None
    for label, runs in curves.items():
        values = [float(np.mean(returns[-last:])) for _, returns in runs]
        rng = np.random.default_rng(0)
        numbers[label] = {"returns": values} | summarise(values, rng=rng)
        better = None
        if baseline is not None:
            better = probability_of_improvement(values, baseline, rng=rng).estimate
        numbers[label]["better_than_first"] = better
        baseline = values if baseline is None else baseline
    return configs[0].env, curves, numbers
