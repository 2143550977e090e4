"""The online loop: an agent acts, observes and learns, and its run is logged and saved."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from mbrl.checks import check_state
from mbrl.dynamics.fitting import FitDiverged
from mbrl.nn import Diverged
from mbrl.rng import generator
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.collect import Episodes, collect, evaluate, vector
from mbrl.training.metrics import METRICS, MetricsLog, read_metrics
from mbrl.types import Agent, Metrics, Resumed, Scheduled

CHECKPOINT_EVERY = 1000
"""Number of environment steps after which a run is saved even if no episode has ended."""

SAVING = 0.1
"""Where an episode ends a checkpoint is left out that would raise the share of time spent on saving
above this, as where episodes last a few milliseconds."""


class Evaluation(NamedTuple):
    """Episodes apart from those that an agent learns from, in an environment of their own.

    They are played without exploration and always from the same starts, which are not those of
    training. The agent's random streams are not used, so it learns the same with and without them.
    """

    env: gymnasium.Env | VectorEnv
    every: int
    """Number of environment steps of training from one evaluation to the next."""
    episodes: int = 10


class Target(NamedTuple):
    """A return that ends a run: the mean of the last training episodes, which explore."""

    value: float
    """The mean return to reach."""
    episodes: int = 3
    """Number of last episodes that the mean is of."""

    def reached(self, returns: Iterable[float]) -> bool:
        """Whether the last of these returns of episodes reach it; with fewer episodes, never."""
        last = [*returns][-self.episodes :]
        return len(last) == self.episodes and float(np.mean(last)) >= self.value


EVALUATION = 7
"""Name of the random stream of evaluations, beside the seed of the run and the step."""


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        episodes: the current episodes of the N environments.
        path: the run's folder; None if it has none.
        returns: returns of the episodes that ended in this process.
        ended: the lines logged for the episodes that ended with the last step.
        last: the last line logged for an episode.
        lost: numbers of the episodes that could not be continued when the run was resumed.
        saved: number of environment steps at the newest checkpoint; 0 before the first.
        reached: whether the run is at its end because it reached its target.
        learning: seconds spent in updates and in saving by this process.
    """

    episodes: Episodes
    path: Path | None = None
    returns: list[float] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    saved: int = 0
    reached: bool = False
    learning: dict[str, float] = field(default_factory=lambda: {"update": 0.0, "save": 0.0})

    @property
    def env_steps(self) -> int:
        """Environment steps so far, over all environments."""
        return self.episodes.steps

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase by this process: act, step, reset, update, save."""
        return self.episodes.seconds | self.learning


def run_agent(
    agent: Agent,
    env: gymnasium.Env | VectorEnv,
    run: Run | None = None,
    *,
    seed: int,
    steps: int,
    log: MetricsLog | None = None,
    checkpoint_every: int | None = None,
    evaluation: Evaluation | None = None,
    target: Target | None = None,
    stop: Callable[[], bool] = lambda: False,
    callback: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Run an agent for a total of `steps` environment steps, from the newest checkpoint if any.

    A checkpoint is saved when an episode ends (unless saving takes too long, see `SAVING`), every
    `checkpoint_every` steps, when `stop` returns True, and at the end. If the process dies, the
    next one continues from the last checkpoint and logs the same numbers, because the current
    episodes are replayed from their seeds and actions. In an environment that these do not
    determine, they are replaced by new episodes, of which an agent is told that is `Resumed`.

    Args:
        agent: a new agent; its state is loaded if there is a checkpoint. It is told `steps` if it
            is `Scheduled`.
        env: one environment, or a vector of N; each episode is reset with `episode_seed`.
        run: the run, locked for writing; without run and log nothing is saved or logged.
        seed: seed of all episodes.
        steps: total number of environment steps over all N environments, including those before a
            resume.
        log: receives lines "episode" (number, return, length, terminated, and the metrics of the
            update that followed), and lines "update" for metrics of updates within episodes.
        checkpoint_every: number of environment steps between checkpoints; 1,000 if None.
        evaluation: episodes apart; a line "evaluation" has the mean, the std, the least and the
            greatest of their returns.
        target: a return that ends the run before all `steps`; those of episodes before a resume are
            read from the log.
        stop: called after each step; if it returns True, the run is saved and left.
        callback: called after each step.

    Raises:
        EnvironmentError: see `collect`. The run can be resumed from its last checkpoint.
        Diverged: a fit of the agent's model or an update of its learner diverged; the message has
            the step. The last checkpoint is from before it.
        RunError: a checkpoint that does not fit this agent, or cannot be saved.
        ValueError: a run without a log, or a log without a run; `checkpoint_every` or numbers of
            `evaluation` or of `target` below one.
    """
    every = CHECKPOINT_EVERY if checkpoint_every is None else checkpoint_every
    if every < 1:
        raise ValueError(f"checkpoint_every must be >= 1, got {checkpoint_every}")
    if evaluation is not None and min(evaluation.every, evaluation.episodes) < 1:
        raise ValueError(f"evaluation: every and episodes must be >= 1, got {evaluation[1:]}")
    if target is not None and target.episodes < 1:
        raise ValueError(f"target: episodes must be >= 1, got {target.episodes}")
    if (run is None) != (log is None):
        raise ValueError("run and log go together: give both or neither")
    environments = vector(env)
    if isinstance(agent, Scheduled):
        agent.run_for(steps)
    progress = Progress(Episodes(seed), None if run is None else run.path)
    episodes = progress.episodes
    recent = deque[float](maxlen=0 if target is None else target.episodes)
    if run is not None and log is not None:
        if run.latest() is None:
            _check_unsaved(run)
            log.rewind(0)
        else:
            progress.lost = _resume(agent, environments, run, log, episodes)
            progress.saved = episodes.steps
            if progress.lost and isinstance(agent, Resumed):
                agent.give_up(np.isin(episodes.numbers, progress.lost))
            recent.extend(returns_of(run.path))
        _extend(run, steps, target)
    progress.reached = target is not None and target.reached(recent)
    if progress.reached:
        return progress

    def write(kind: str, values: Metrics) -> None:
        if log is not None:
            log.write(kind, episodes.steps, values)

    def crossed(multiple: int) -> bool:
        return episodes.steps // multiple > (episodes.steps - environments.num_envs) // multiple

    rested = 0.0  # a checkpoint at an episode's end is due from this time on

    def save() -> None:
        nonlocal rested
        progress.saved = episodes.steps
        if run is None or log is None:
            return
        start = time.perf_counter()
        state = {"agent": agent.state_dict(), "episodes": episodes.state_dict()}
        run.save(progress.saved, state | {"log_bytes": log.sync()})
        done = time.perf_counter()
        progress.learning["save"] += done - start
        rested = done + (done - start) * (1 / SAVING - 1)

    for step in collect(agent, environments, episodes, steps=steps):
        start = time.perf_counter()
        agent.observe(step)
        try:
            metrics = _metrics(agent.update())
        except Diverged as error:
            what = "the model's fit" if isinstance(error, FitDiverged) else "the learner"
            raise type(error)(f"{what} diverged at step {episodes.steps}: {error}") from None
        progress.learning["update"] += time.perf_counter() - start
        ended, progress.ended = np.flatnonzero(episodes.over), []
        for place in ended:
            line = {
                "episode": int(episodes.numbers[place]),
                "return": float(episodes.returns[place]),
                "length": int(episodes.lengths[place]),
                "terminated": bool(step.terminated[place]),
            }
            if place == ended[-1]:
                line |= metrics
            write("episode", line)
            progress.returns.append(line["return"])
            recent.append(line["return"])
            progress.ended.append(line)
            progress.last = line
        if metrics and not len(ended):
            write("update", metrics)
        if evaluation is not None and crossed(evaluation.every):
            start = time.perf_counter()
            write("evaluation", _evaluated(agent, evaluation, seed, episodes.steps))
            spent = progress.learning.get("evaluate", 0.0)
            progress.learning["evaluate"] = spent + time.perf_counter() - start
        progress.reached = target is not None and len(ended) > 0 and target.reached(recent)
        callback(progress)
        stopping = stop() or progress.reached
        regular = crossed(every)
        resting = time.perf_counter() < rested
        if regular or stopping or (len(ended) and not resting):
            save()
        if stopping:
            return progress
    if episodes.steps > progress.saved:
        save()
    return progress


def returns_of(path: Path, *, until: int | None = None) -> list[float]:
    """Returns of the training episodes of a run, of those up to step `until` if it is given.

    Raises:
        RunError: see `read_metrics`.
    """
    lines = read_metrics(path / METRICS, "episode", numbers=["return"])
    return [line["return"] for line in lines if until is None or line["env_steps"] <= until]


def _extend(run: Run, steps: int, target: Target | None) -> None:
    """Write another end of the run to its config, if it has one."""
    end: dict[str, Any] = {"steps": steps, "until_return": None}
    if target is not None:
        end |= {"until_return": target.value, "until_episodes": target.episodes}
    if any(run.config.get(name, value) != value for name, value in end.items()):
        run.extend(**end)


def _evaluated(agent: Agent, evaluation: Evaluation, seed: int, steps: int) -> dict[str, float]:
    player = agent.player(generator=generator(seed, EVALUATION, steps))
    apart = generator(seed, EVALUATION).initial_seed() % 2**31  # other starts than in training
    returns = np.array(evaluate(player, evaluation.env, episodes=evaluation.episodes, seed=apart))
    return {
        "return": float(returns.mean()),
        "std": float(returns.std()),
        "least": float(returns.min()),
        "greatest": float(returns.max()),
        "episodes": len(returns),
    }


def _metrics(returned: Any) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        raise ValueError(
            f"the agent's update must return metrics by name, {{}} for none, got a "
            f"{type(returned).__name__}"
        )
    return dict(returned)


def _resume(
    agent: Agent, env: VectorEnv, run: Run, log: MetricsLog, episodes: Episodes
) -> list[int]:
    """Restore the newest checkpoint; all checks precede the first change of a file."""
    state = run.load()
    try:
        check_state(state, {"agent": {}, "episodes": {}, "log_bytes": 0})
        log.check(state["log_bytes"])
        load_agent(agent, state["agent"])
        lost = episodes.load_state_dict(state["episodes"], env)
    except ValueError as error:
        raise RunError(f"the checkpoint of {run.path} does not fit this run: {error}") from error
    log.rewind(state["log_bytes"])
    return lost


def load_agent(agent: Agent, state: Any) -> None:
    """Load a saved state into a new agent, after checks.

    Raises:
        ValueError: the state is from a different agent, or of other types; the message names the
            place.
    """
    check_state(state, agent.state_dict(), "agent")
    try:
        agent.load_state_dict(state)
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (KeyError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
        # the message of torch or Python can have many lines
        raise ValueError("the agent's values are not of the kind that it saves") from error


def _check_unsaved(run: Run) -> None:
    """Raise an error if checkpoints are missing, because a new start would delete the metrics.

    A checkpoint is saved after the end of each episode, so in a run without one all episodes that
    have ended did so in the same step.
    """
    if not (run.path / METRICS).exists():
        return
    ends = {line["env_steps"] for line in read_metrics(run.path / METRICS, "episode")}
    if len(ends) > 1:
        raise RunError(
            f"{run.path / METRICS} has episodes up to step {max(ends)}, but there is no checkpoint "
            "to continue from: restore the checkpoints, or begin another run"
        )
