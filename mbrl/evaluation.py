"""Evaluation and comparison of runs, and the errors of a model in its agent's own episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Float, Shaped
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
from mbrl.training.folders import learning
from mbrl.training.run_config import MakeEnv, RunConfig
from mbrl.training.run_config import labels as run_labels
from mbrl.training.runs import load_run
from mbrl.training.seeds import Interruptible
from mbrl.types import Dynamics, GaussianDynamics, PlanningAgent, PlanningPlayer, Player
from mbrl.uncertainty import Spread, particle_spread

SPREAD_PARTICLES = 100
"""Particles per member for the spread along a plan."""


class Episode(NamedTuple):
    """One episode in float64, its images in uint8, and the scores of the plans made in it."""

    obs: Float[Tensor, "T O"]
    action: Float[Tensor, "T A"]
    reward: Float[Tensor, " T"]
    next_obs: Float[Tensor, "T O"]
    plan_scores: list[tuple[int, float]]  # (step, score) of each plan


def record(
    player: Player, env: gymnasium.Env | VectorEnv, *, episodes: int, seed: int, first: int = 0
) -> list[Episode]:
    """Play episodes in one environment and record them.

    Episode i, from `first` on, is reset with `episode_seed(seed, i)`. If the player plans (as
    `mbrl.agents.Controllers` does), the score of each plan is recorded too. Without a time limit of
    the environment an episode is truncated after 10,000 steps.
    """
    recorded: list[Episode] = []
    steps, scores, plans = [], [], 0
    running = Episodes(seed, first=first)
    planning = player if isinstance(player, PlanningPlayer) else None
    environments = vector(env)
    for step in play(player, environments, running, steps=most_steps(environments)):
        if planning is not None and planning.each and planning.each[0].plans > plans:
            controller = planning.each[0]
            scores.append((len(steps), float(controller.state.plan.score)))
            plans = controller.plans
        steps.append(step)
        if running.over[0]:
            columns = (_precise(torch.cat(column)) for column in zip(*steps, strict=True))
            recorded.append(Episode(*list(columns)[:4], plan_scores=scores))
            steps, scores, plans = [], [], 0
            if len(recorded) == episodes:
                break
    return recorded


def _precise(column: Tensor) -> Tensor:
    """In float64; images of uint8 as they are."""
    return column if column.dtype == torch.uint8 and column.ndim > 2 else column.double()


def as_decoded(obs: Shaped[Tensor, "*lead O"]) -> Float[Tensor, "*lead O"]:
    """Observations in the units of a model's `decode`: vectors, or images from 0 to 1."""
    return obs.double() / 255 if obs.dtype == torch.uint8 else obs.double()


@torch.no_grad()
def filtered(
    model: Dynamics, episode: Episode, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "T S"]:
    """Model states at the observations of an episode, from those before and the actions taken."""
    state = action = None
    states: list[Tensor] = []
    for obs, moved in zip(episode.obs, episode.action, strict=True):
        shown = obs if obs.dtype == torch.uint8 else obs.float()
        state = model.encode(shown.to(device), state=state, action=action)
        action = moved.float().to(device)
        states.append(state)
    return torch.stack(states)


def latent(model: Dynamics, episode: Episode, *, device: torch.device | str = "cpu") -> bool:
    """Whether the states of a model are other than its observations."""
    first = Episode(*(column[:1] for column in episode[:4]), plan_scores=[])
    return filtered(model, first, device=device).shape != first.obs.shape


class OpenLoop(NamedTuple):
    """A part of an episode, and a prediction of it from its first observations and its actions."""

    truth: Float[Tensor, "T O"]  # as `as_decoded`
    predicted: Float[Tensor, "T O"]  # the decoded states: filtered ones, then those of mean steps
    reward: Float[Tensor, " T-1"]
    predicted_reward: Float[Tensor, " T-1"]
    context: int  # how many observations the prediction has seen


@torch.no_grad()
def open_loop(
    model: Dynamics,
    episode: Episode,
    *,
    context: int = 5,
    horizon: int = 50,
    device: torch.device | str = "cpu",
) -> OpenLoop:
    """The model's prediction of the observations that follow the first `context` ones.

    It is the mean without noise, by the actions of the episode. Members are averaged.

    Raises:
        ValueError: an episode of no more steps than `context`.
    """
    last = min(context + horizon, len(episode.obs))
    if last <= context:
        raise ValueError(f"episode: want more than the {context} steps of the context, got {last}")
    seen = Episode(*(column[:context] for column in episode[:4]), plan_scores=[])
    states = filtered(model, seen, device=device)
    actions = episode.action[context - 1 : last - 1].float().unsqueeze(0).to(device)
    imagined = rollout(
        model,
        states[-1],
        actions,
        particles=model.members,
        sample=False,
        generator=generator(0),
    )
    ahead = model.decode(imagined.state[:, 0, 1:]).mean(0)
    before = torch.zeros(context - 1, dtype=torch.double)
    rewards = torch.cat((before * torch.nan, imagined.reward[:, 0].mean(0).cpu().double()))
    return OpenLoop(
        as_decoded(episode.obs[:last]),
        torch.cat((model.decode(states), ahead)).cpu().double(),
        episode.reward[: last - 1],
        rewards,
        context,
    )


def check_vectors(played: Sequence[Episode]) -> None:
    """Check that actions are vectors, as models are measured here with these alone.

    Raises:
        ValueError: they are indices.
    """
    if played[0].action.ndim != 2:
        raise ValueError(
            "action: models are measured with actions that are vectors, and these are indices"
        )


def horizon_errors(
    model: Dynamics,
    played: Sequence[Episode],
    horizon: int,
    *,
    device: torch.device | str = "cpu",
    generator: Generator,
) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N H"]]:
    """Error of the particles' mean 1..H steps after each start, and that of predicting no change.

    Each is the root mean square over the dimensions of the observation, in units of their std over
    the episodes; those that are constant there are not scaled. Of images one number is the unit,
    the root of the pixels' mean variance. Every third step is a start, from the state that the
    model has filtered by then.
    """
    check_vectors(played)
    scale = _unit(torch.cat([episode.obs for episode in played]))
    errors, unchanged = [], []
    for episode in played:
        starts = [*range(0, len(episode.obs) - horizon + 1, 3)]
        if not starts:
            continue
        obs = torch.stack([as_decoded(episode.obs[t]) for t in starts])
        actions = torch.stack([episode.action[t : t + horizon] for t in starts]).float()
        truth = torch.stack([as_decoded(episode.next_obs[t : t + horizon]) for t in starts])
        imagined = rollout(
            model,
            filtered(model, episode, device=device)[starts],
            actions.to(device),
            particles=4 * model.members,
            reward=_anything,
            generator=generator,
        )
        with torch.no_grad():
            steps = imagined.state[:, :, 1:].unbind(2)
            mean = torch.stack([model.decode(step).mean(0) for step in steps], 1).cpu().double()
        errors.append(_distance(mean, truth, scale))
        unchanged.append(_distance(obs.unsqueeze(1), truth, scale))
    return torch.cat(errors), torch.cat(unchanged)


def _anything(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """In place of a reward that is not looked at, because not every model has one."""
    return next_obs.flatten(2)[..., 0]


def _distance(one: Tensor, other: Tensor, scale: Tensor) -> Float[Tensor, "N H"]:
    """The root mean square over an observation."""
    return ((one - other) / scale).square().flatten(2).mean(-1).sqrt()


def _unit(obs: Shaped[Tensor, "T O"]) -> Float[Tensor, "*O"]:
    """`_scale` of vectors; for images one number, of which most would be constant."""
    if obs.dtype != torch.uint8:
        return _scale(obs)
    variance = as_decoded(obs).var(0).mean()
    return torch.where(variance > 0, variance, 1.0).sqrt()


def _scale(obs: Float[Tensor, "T O"]) -> Float[Tensor, " O"]:
    """The std of each observation; 1 for those that are constant."""
    return torch.where(moments(obs)[1] > 0, obs.std(0), 1.0)


def plan_returns(
    played: Sequence[Episode], span: int, *, discount: float = 1.0
) -> tuple[list[float], list[float]]:
    """Each plan's score, and the return of the `span` steps after it was made.

    Plans with fewer than `span` steps after them are left out.
    """
    powers = discount ** torch.arange(span, dtype=torch.double)
    predicted, realised = [], []
    for episode in played:
        for start, score in episode.plan_scores:
            rewards = episode.reward[start : start + span]
            if len(rewards) == span:
                predicted.append(score)
                realised.append(float((rewards * powers).sum()))
    return predicted, realised


def one_step(
    model: GaussianDynamics, played: Sequence[Episode], *, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "E T O"], Float[Tensor, "E T O"], Float[Tensor, "T O"]]:
    """The members' mean and std of every next observation, and that observation."""
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
    """The one-step error of the members' mean in each episode, in units of the changes in `moves`.

    Root mean square over steps and over dimensions of the observation, each in units of the std of
    its change in one step of the episodes `moves`; dimensions that do not change there are left
    out. With episodes of random actions as `moves`, 1 is the error of predicting the mean change of
    a random step, and errors in different states are in the same unit.
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
    """Errors of a model under random actions and under its own plans, one number per episode."""

    returns: list[float]
    """Returns of the agent's own episodes."""
    promised: list[float]
    """Mean score of the plans made in each of these episodes."""
    error_random: list[float]
    """`step_errors` in episodes of random actions, which also give the unit."""
    error_own: list[float]
    """`step_errors` in the agent's own episodes, in the same unit."""


def mismatch(agent: Any, env: gymnasium.Env | VectorEnv, *, episodes: int, seed: int) -> Mismatch:
    """Play episodes of an agent and episodes of random actions, and measure its model in both.

    A model is accurate where it has data. Good plans leave those states, which is called
    distribution mismatch.

    Args:
        agent: plans through a model that predicts Gaussians, on the CPU, as PETS does.
        env: one environment, that of the agent.
        episodes: number of episodes of each kind, at least one.
        seed: seed of the episodes and of all draws.
    """
    player = agent.player(generator=Generator().manual_seed(seed))
    random = RandomAgent(spec_of(env).action, generator=Generator().manual_seed(seed))

    def played(player: Any, first: int) -> list[Episode]:
        return record(Interruptible(player), env, episodes=episodes, seed=seed, first=first)

    at_random, own = played(random, episodes), played(player, 0)
    return Mismatch(
        [sum(episode.reward.tolist()) for episode in own],
        [_mean([score for _, score in episode.plan_scores]) for episode in own],
        step_errors(agent.model, at_random, moves=at_random),
        step_errors(agent.model, own, moves=at_random),
    )


def _mean(scores: Sequence[float]) -> float:
    """The mean of the scores, computed as a running mean; 0 if there are none."""
    mean = 0.0
    for count, score in enumerate(scores, 1):
        mean += (score - mean) / count
    return mean


def act_milliseconds(
    players: Mapping[Any, Controller], observations: Sequence[np.ndarray]
) -> dict[Any, float]:
    """Mean milliseconds that each controller needs for an action, given T observations (O,).

    The mean rather than the median, because a controller that replans every k steps searches only
    once in k actions. All controllers act on an observation before the next, so that a change in
    the machine's speed affects all of them. The first k observations are warm-up and not counted.
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
) -> tuple[Spread, Float[Tensor, " H"]]:
    """The predictive spread and the error along the first `horizon` steps of the first episode.

    The prediction starts at the first observation and uses the actions of the episode. Variances
    are means over the dimensions of the observation, each in units of its std over the episode, or
    over all episodes if this one has only one step; those that are constant are not scaled. The
    error is the root mean square error of the particles' mean in these units.
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
    """Errors of an agent's model and scores of its plans in new episodes."""

    episodes: list[Episode]
    predicted: list[float]
    """Score of each plan; see `plan_returns`."""
    realised: list[float]
    """Return of the steps after each plan."""
    errors: Float[Tensor, "N H"] | None
    """See `horizon_errors`. None if the episodes have only one step in total, because errors are in
    units of the std of the observations."""
    baseline: Float[Tensor, "N H"] | None
    """The errors of predicting no change; None if `errors` is."""
    one_step: tuple[Tensor, Tensor, Tensor] | None
    """See `one_step`; None for a model that predicts no Gaussian."""
    along: tuple[Spread, Float[Tensor, " H"]] | None
    """See `plan_spread`; None if `errors` or `one_step` is."""


def measure(
    agent: Any,
    env: gymnasium.Env | VectorEnv,
    *,
    episodes: int,
    seed: int,
    horizon: int = 25,
    device: torch.device | str = "cpu",
) -> Measured:
    """Play episodes with an agent's player and measure its model in them.

    Args:
        agent: a `ModelBased` agent whose model is fitted.
        env: one environment.
        episodes: number of episodes, at least one.
        seed: seed of the episodes and of all draws.
        horizon: number of steps to predict; for a `PlanningAgent` that of its planner is used.
        device: device of the model.
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
    predicted, realised = plan_returns(played, span, discount=discount)
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
    """The error of another simulator's motion, relative to the true one's.

    The median of |q_other - q_true| / |q_true - q_start| over MuJoCo states (N, S), where q is the
    vector of positions after random controls held for `seconds`. States from which nothing moves
    are left out.
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
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], RunConfig, list[np.ndarray]]:
    """Play episodes with a run's agent from its newest checkpoint; writes RUN/evaluation.json.

    Args:
        path: the run's folder.
        make_env: makes the environment by its id.
        episodes: number of episodes, at least one.
        seed: seed of the episodes and of the player's draws.
        steps: maximum number of steps of an episode; if None, 10,000 where the environment has no
            time limit.
        device: device of the model; that of the run if None.
        callback: called after each episode with its number from 1, its return and its length.
        tell: called with a line if the environment has no time limit and `steps` is None.

    Returns:
        The content of the file, which includes the returns and their `mbrl.statistics.summarise`;
        the run's settings; and the actions (A,) of the first episode.

    Raises:
        RunError: see `load_run`.
        EnvironmentError: see `mbrl.training.answers`.
    """
    loaded = load_run(path, make_env=make_env, device=device)
    player = loaded.agent.player(generator=generator(seed, 1))
    running, returns, first = Episodes(seed), [], []
    most = steps
    if steps is None and (most := most_steps(loaded.env)) is not None:
        tell(
            f"{loaded.config.env} has no time limit: episodes that last longer are cut off after "
            f"{most:,} steps; --steps sets another number"
        )
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
    return summary, loaded.config, first


def compare_runs(
    paths: Sequence[Path], *, labels: Sequence[str] = (), last: int = 1
) -> tuple[str, dict[str, list[Any]], dict[str, dict[str, Any]]]:
    """Compare runs of one environment; runs with the same label count as seeds of one method.

    Args:
        paths: the runs' folders, at least one.
        labels: one for each run. If empty, a run is labelled by its algorithm and by the settings
            in which runs of that algorithm differ.
        last: the result of a run is its mean return over this number of last episodes.

    Returns:
        The environment's id; the learning curves of each label (see `learning`); and for each
        label the `returns` of its runs, their `mbrl.statistics.summarise`, and
        `better_than_first`, the probability that one of its runs has a higher return than a run of
        the first label (None for the first label).

    Raises:
        RunError: a folder without a run, or a run without a finished episode.
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
