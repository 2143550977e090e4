"""Environments by name: our tasks, and any id registered with gymnasium."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from typing import Any, NamedTuple, get_type_hints

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces import Dict as DictSpace
from gymnasium.spaces import Tuple as TupleSpace
from gymnasium.wrappers import FlattenObservation

from envs import (
    acrobot,
    cartpole,
    cartpole_cliff,
    cartpole_servo,
    cylinder_push,
    half_cheetah,
    panda_pick,
    panda_push,
    panda_reach,
    panda_reach_beside,
    pendulum,
    pusher,
    quadruped_standup,
    quadruped_walk,
    reacher,
    walker,
)
from envs.contract import check_functions, check_task
from envs.gymnasium_tasks import DESCRIBED, KNOWN
from envs.mujoco_env import MujocoEnv
from envs.pixels import Pixels, View, named
from envs.planar_tasks import PLANAR
from envs.repeat import ActionRepeat
from envs.suite import SUITE
from envs.tabular import FiniteMDP
from envs.task import Known, RewardFn, Task, TerminatedFn, never
from envs.wet_chicken import WetChicken
from envs.worlds import WORLDS

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        cartpole.TASK,
        cartpole.NOISY,
        cartpole_cliff.TASK,
        cartpole_servo.TASK,
        cylinder_push.TASK,
        acrobot.TASK,
        pendulum.TASK,
        reacher.TASK,
        pusher.TASK,
        half_cheetah.TASK,
        panda_reach.TASK,
        panda_reach_beside.TASK,
        panda_push.TASK,
        panda_pick.TASK,
        quadruped_walk.TASK,
        quadruped_standup.TASK,
        walker.TASK,
    )
}
"""Our own tasks by name."""

WET_CHICKEN = "wet-chicken"

_SUMMARIES = {
    "Ant-v5": "run forward on four legs",
    "HalfCheetah-v5": "run forward on two legs in a plane",
    "Hopper-v5": "hop forward on one leg without falling",
    "Humanoid-v5": "walk forward on two legs without falling",
    "HumanoidStandup-v5": "stand up from lying",
    "InvertedDoublePendulum-v5": "balance two poles on a cart",
    "InvertedPendulum-v5": "balance a pole on a cart",
    "Pendulum-v1": "swing a rod up with a weak motor",
    "Pusher-v5": "push a cylinder to a goal with a 7-joint arm",
    "Reacher-v5": "reach for a point with a 2-joint arm",
    "Swimmer-v5": "swim forward with three links",
    "wet-chicken": "paddle close to a waterfall without going over; stochastic",
    "Walker2d-v5": "walk forward on two legs in a plane without falling",
}


class UnknownEnvironment(ValueError):
    """No environment has this name; the message names similar ones."""


@dataclass(frozen=True)
class Entry:
    """What the library knows of a named environment."""

    known: Known
    summary: str = ""
    """One line for listings."""
    task: Task | None = None
    """Its physics, if a simulator can run it."""
    world: Callable[..., FiniteMDP] | None = None
    """Builds its finite MDP, if it is one."""
    presets: Mapping[str, Any] = field(default_factory=dict)
    """Tuned settings by algorithm, `mpc` for planning."""


class Description(NamedTuple):
    """An environment's row in a listing."""

    name: str
    obs_dim: int
    action_dim: int
    steps: int  # of an episode; 0 without a limit
    reward_known: bool
    terminated_known: bool
    summary: str


def task_env(name: str, **kwargs: Any) -> MujocoEnv:
    """The environment of a task of ours or the suite's without its time limit.

    gymnasium's entry point.
    """
    env = MujocoEnv(_tasks()[name], **kwargs)
    _set_known(env, name, entry(name))
    return env


def _tasks() -> dict[str, Task]:
    """Our tasks and those of the DeepMind control suite by name."""
    return {**TASKS, **SUITE}


_REGISTERED: dict[str, Entry] = {}
"""Entries made by `register`, by name; `_built_in` has the library's."""


def _built_in(name: str) -> Entry | None:
    task = _tasks().get(name)
    if task is not None:
        return Entry(_known_of(task), task.summary, task)
    if name == WET_CHICKEN:
        return Entry(Known(WetChicken.reward, WetChicken.terminated, ""), _SUMMARIES[name])
    if name in PLANAR:
        why = "a picture does not give the goal, so not the reward"
        return Entry(Known(None, never, why), PLANAR[name].summary)
    if name in KNOWN:
        return Entry(KNOWN[name], _SUMMARIES[name], DESCRIBED.get(name))
    return None


def _known_of(task: Task, why: str = "") -> Known:
    if task.features is None:
        return Known(task.reward, task.terminated, why)
    why = why or "the reward depends on quantities that the observation lacks"
    return Known(None, task.terminated, why)


def _entry_of(name: str) -> Entry | None:
    return _REGISTERED.get(name) or _built_in(name)


for _task in _tasks().values():
    if _task.name not in gymnasium.registry:
        gymnasium.register(
            _task.name,
            entry_point="envs.registry:task_env",
            max_episode_steps=_task.episode_steps,
            kwargs={"name": _task.name},
        )

for _planar in PLANAR.values():
    if _planar.name not in gymnasium.registry:
        gymnasium.register(
            _planar.name,
            entry_point="envs.planar_tasks:planar_env",
            max_episode_steps=_planar.episode_steps,
            kwargs={"name": _planar.name},
        )


Part = Task | type[gymnasium.Env] | FiniteMDP | Callable[[], gymnasium.Env | FiniteMDP]
"""What can be registered: a task, a class of environments, a finite world, or a function that is
annotated to return an environment or a finite world."""


def register(
    what: Part | str,
    *,
    name: str | None = None,
    reward: RewardFn | None = None,
    terminated: TerminatedFn | None = None,
    why: str = "",
    summary: str = "",
    preset: Mapping[str, Any] | None = None,
) -> str:
    """Register an environment of one's own under a name, for `make` and for every command.

    Args:
        what: a task, which `check_task` checks; a class of gymnasium environments; a finite
            world; a function without arguments that is annotated to return an environment or a
            finite world; or the id of an environment that gymnasium knows.
        name: the name; by default that of the task, world, class or function, or the id itself.
        reward: `reward(obs, action, next_obs)`, if it is a function of observations. For a task it
            replaces the task's own.
        terminated: `terminated(next_obs)` likewise; `envs.never` if only the time limit ends
            episodes. Except for a task, both are compared with twenty steps of the environment,
            unless `why` is given.
        why: one sentence on what is missing or inexact in these functions.
        summary: one line for listings.
        preset: tuned settings by algorithm: `{"pets": (steps, config), "mpc": MPCConfig(...)}`.

    Returns:
        The name.

    Raises:
        ValueError: the name is taken, `what` is none of these, the task fails `check_task`, or the
            functions differ from the environment; one line.
        UnknownEnvironment: gymnasium does not know the id.
    """
    called = name or _name_of(what)
    before = _entry_of(called)
    if before is not None and not (isinstance(what, str) and what == called):
        raise ValueError(f"an environment is named {called!r} already; give another name=")
    if isinstance(what, Task):
        changed = {"reward": reward, "terminated": terminated}
        task = replace(what, **{k: f for k, f in changed.items() if f is not None})
        check_task(task)
        given = Entry(_known_of(task, why), summary or task.summary, task)
        make_env: Any = functools.partial(MujocoEnv, task)
        _to_gymnasium(called, make_env, task.episode_steps)
    elif isinstance(what, str):
        given = Entry(Known(reward, terminated, why), summary)
        _registered(what)
        if called != what:
            raise ValueError(f"{what}: gymnasium's ids keep their names; leave out name=")
    else:
        built, world = _builder(what, called)
        text = summary or (inspect.getdoc(what) or "").split("\n")[0]
        given = Entry(Known(reward, terminated, why), text, world=world)
        _to_gymnasium(called, built, None)
    given = replace(given, presets=dict(preset or {}))
    if before is not None:  # a known name that gets other functions or presets
        functions = Known(reward or before.known.reward, terminated or before.known.terminated, why)
        given = replace(before, known=functions, presets={**before.presets, **given.presets})
    previous = _REGISTERED.get(called)
    _REGISTERED[called] = given
    try:
        if not isinstance(what, Task) and not why and (reward or terminated):
            env = make(called)
            check_functions(env, reward, terminated, called)
            env.close()
    except BaseException:
        unregister(called)
        if previous is not None:
            _REGISTERED[called] = previous
        raise
    return called


def unregister(name: str) -> None:
    """Undo `register`; an id that gymnasium knew before stays in gymnasium."""
    _REGISTERED.pop(name, None)
    if name in _MADE:
        _MADE.discard(name)
        gymnasium.registry.pop(name, None)


_MADE: set[str] = set()
"""Names that `register` has added to gymnasium's registry."""


def _to_gymnasium(name: str, make_env: Callable[..., gymnasium.Env], steps: int | None) -> None:
    if name in gymnasium.registry and name not in _MADE:
        raise ValueError(f"an environment is named {name!r} already; give another name=")
    gymnasium.register(name, entry_point=make_env, max_episode_steps=steps)
    _MADE.add(name)


def _name_of(what: Any) -> str:
    if isinstance(what, str):
        return what
    if isinstance(what, Task | FiniteMDP):
        return what.name
    return getattr(what, "__name__", type(what).__name__)


def _builder(
    what: Any, name: str
) -> tuple[Callable[..., gymnasium.Env], Callable[..., FiniteMDP] | None]:
    """A function that builds the environment, and one that builds its finite MDP, if it is one."""
    if isinstance(what, type) and issubclass(what, gymnasium.Env):
        return what, None
    if isinstance(what, FiniteMDP):
        return what.env, lambda: what
    returns = get_type_hints(what).get("return") if inspect.isfunction(what) else None
    if returns is FiniteMDP:
        return lambda **kwargs: what().env(**kwargs), what
    if isinstance(returns, type) and issubclass(returns, gymnasium.Env):
        return what, None
    raise ValueError(
        f"{name}: a {type(what).__name__} is no environment; wanted an envs.Task, a class of "
        "gymnasium.Env, an envs.FiniteMDP, or a function annotated to return one of the latter two"
    )


def make(
    id: str, *, render_mode: str | None = None, action_repeat: int = 1, **kwargs: Any
) -> gymnasium.Env:
    """Build the environment with this name, with its time limit.

    Args:
        id: a name of `names`, one that was registered, an id that gymnasium knows, `module:ID`
            where importing the module registers the id, or `module:NAME` where NAME is something
            that `register` takes. Any of these with a MuJoCo model, followed by `-pixels`, is the
            environment as its cameras see it (`envs.Pixels`); `-84`, `-stack4`, `-grey` or
            `-distract` may follow.
        render_mode: None or "rgb_array".
        action_repeat: steps for which each action is taken; rewards are summed. The time limit
            counts steps of the environment, not actions.
        kwargs: for `gymnasium.make`; our tasks take `width`, `height` and `max_episode_steps`. With
            `-pixels` also the fields of `envs.View`.

    The environment's `metadata["known"]` has its reward and termination as functions, if they are
    known (see `known`). Observations that are a dict or tuple become vectors
    (`gymnasium.wrappers.FlattenObservation`), and these functions are of vectors then.

    Raises:
        UnknownEnvironment: a name that is neither a task nor registered.
        ValueError: the name is that of something that is no environment, the constructor raised an
            exception, or `action_repeat` is below 1.
    """
    viewed = _viewed(id)
    if viewed is not None:
        base, view = viewed
        settings = {key: kwargs.pop(key) for key in list(kwargs) if key in _VIEW}
        # The action is repeated inside, so that only the last of its steps is rendered.
        env = make(base, render_mode=render_mode, action_repeat=action_repeat, **kwargs)
        try:
            return Pixels(env, replace(view, **settings), id)
        except ValueError:
            env.close()
            raise
    name = _registered(id)
    # passed only if it is set, because a constructor may lack the argument
    rendering = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env = gymnasium.make(gymnasium.registry[name], **rendering, **kwargs)
    except gymnasium.error.Error:
        raise
    except Exception as error:  # a user's constructor may raise anything
        if name in _tasks():
            raise
        said = " ".join(str(error).split()) or "no message"
        raise ValueError(
            f"environment {id!r} cannot be made: {type(error).__name__}: {said}"
        ) from error
    _set_known(env, id, _entry_of(name))
    space = env.observation_space
    if isinstance(space, DictSpace | TupleSpace) and space.is_np_flattenable:
        env = FlattenObservation(env)
    return env if action_repeat == 1 else ActionRepeat(env, action_repeat)


_VIEW = tuple(field.name for field in fields(View))


def _viewed(id: str) -> tuple[str, View] | None:
    """The environment and the view of a name with `-pixels` that is not an environment's own."""
    try:
        return None if id in gymnasium.registry else named(id)
    except ValueError as error:
        raise UnknownEnvironment(str(error)) from None


def _set_known(env: gymnasium.Env, id: str, found: Entry | None) -> None:
    """Set `env.metadata["known"]`: reward and termination as functions, and the task.

    An environment without an entry keeps what it has there.
    """
    own = env.metadata.get("known")
    if own is not None and found is None:
        env.unwrapped.metadata = {**env.metadata, "known": {"why": "", "task": None, **own}}
        return
    reward, terminated, why = known(id) if found is None else found.known
    facts = {
        "reward": reward,
        "terminated": None if terminated is never else terminated,
        "ends": terminated is None,  # it may terminate, by a rule that is not known
        "why": why,
        "task": None if found is None else found.task,  # for a simulator of its physics
    }
    env.unwrapped.metadata = {**env.metadata, "known": facts}


def entry(id: str) -> Entry:
    """All that is known of an environment.

    Raises:
        UnknownEnvironment: a name that neither the library nor gymnasium knows.
    """
    viewed = _viewed(id)
    if viewed is not None:
        below = entry(viewed[0])
        ends = never if below.known.terminated is never else None
        unknown = Known(None, ends, f"frames do not give the reward of {viewed[0]}")
        return Entry(unknown, f"{below.summary}; seen by its camera")
    name = _registered(id)
    found = _entry_of(name)
    if found is not None:
        return found
    why = f"reward and termination of {id} are not known as functions"
    return Entry(Known(None, None, why), world=WORLDS.get(name))


def known(id: str) -> Known:
    """Reward and termination of an environment as functions, for its default arguments.

    Raises UnknownEnvironment for a name that is neither a task nor registered.
    """
    return entry(id).known


def simulated(id: str) -> Task:
    """The task of an environment, for a simulator of its physics.

    Raises UnknownEnvironment for a name that is neither a task nor registered, ValueError if the
    physics or one of the functions is not known.
    """
    task = entry(id).task
    if task is None:
        own = [name for name, each in _REGISTERED.items() if each.task is not None]
        there = ", ".join([*TASKS, *DESCRIBED, *own, "the tasks dmc-..."])
        raise ValueError(f"{id}: no simulator to plan through; there is one of {there}")
    return task


def names() -> tuple[str, ...]:
    """Names of tasks, ours, the suite's and gymnasium's, and of registered environments.

    Not among them are finite worlds, and names with `-pixels`, which all with a MuJoCo model have.

    `make` takes every id that gymnasium knows.
    """
    own = [name for name, each in _REGISTERED.items() if each.world is None]
    return tuple(dict.fromkeys((*library_names(), *own)))


def library_names() -> tuple[str, ...]:
    """`names` without those that were registered."""
    return (*TASKS, WET_CHICKEN, *PLANAR, *KNOWN, *SUITE)


def describe(id: str) -> Description:
    """An environment's row in a listing; builds the environment to read its spaces.

    Raises what `make` and `check_box` raise.
    """
    env = make(id)
    box = check_box(env)
    limit = env.spec.max_episode_steps if env.spec is not None else None
    found = entry(id)
    obs_dim = int(np.prod(env.observation_space.shape or ()))
    env.close()
    return Description(
        name=id,
        obs_dim=obs_dim,
        action_dim=box.shape[0],
        steps=limit or 0,
        reward_known=found.known.reward is not None,
        terminated_known=found.known.terminated is not None,
        summary=found.summary,
    )


def check_box(env: gymnasium.Env) -> Box:
    """The environment's action space, if a planner can search it.

    Raises ValueError unless it is a Box (A,) with finite bounds.
    """
    space = env.action_space
    name = env.spec.id if env.spec is not None else str(env)
    if not isinstance(space, Box):
        raise ValueError(f"{name}: a planner needs a bounded box of actions, not {space}")
    if not space.is_bounded():
        raise ValueError(f"{name}: a planner needs a bounded box of actions; {space} is unbounded")
    if len(space.shape) != 1:
        raise ValueError(f"{name}: a planner needs actions of shape (A,), not {space.shape}")
    return space


GROUP = "mbrl.envs"
"""Entry-point group by which installed packages add environments: `NAME = "module:OBJECT"`, where
OBJECT is something that `register` takes."""


def _registered(id: str) -> str:
    """The environment's name in gymnasium's registry; imports the module that the id names."""
    if id in gymnasium.registry:
        return id
    module, _, name = id.rpartition(":")
    if module:
        return _of_module(id, module, name)
    for point in metadata.entry_points(group=GROUP, name=id):
        return register(_imported(point.module, f"the entry point {id!r}", point.attr), name=id)
    candidates = {known_name.lower(): known_name for known_name in gymnasium.registry}
    near = [candidates[n] for n in difflib.get_close_matches(name.lower(), candidates, 4, 0.5)]
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(TASKS)}"
    raise UnknownEnvironment(f"unknown environment {id!r}; {hint}")


def _of_module(id: str, module: str, name: str) -> str:
    """The name for `module:NAME`: NAME is an id that the module registers, or an object of it."""
    if not all(part.isidentifier() for part in module.split(".")) or not name:
        raise UnknownEnvironment(
            f"unknown environment {id!r}; the form is NAME, or module:NAME with the module's name "
            "as Python imports it"
        )
    _imported(module, repr(id))
    if name in gymnasium.registry:  # gymnasium's own "module:ID"
        return name
    if not name.isidentifier() or not hasattr(sys.modules[module], name):
        there = [n for n, value in vars(sys.modules[module]).items() if isinstance(value, Task)]
        hint = f"; its tasks are {', '.join(there)}" if there else ""
        raise UnknownEnvironment(f"unknown environment {id!r}: {module} has no {name}{hint}")
    return register(getattr(sys.modules[module], name), name=id)


def _imported(module: str, asked: str, attribute: str = "") -> Any:
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        said = " ".join(str(error).split()) or "no message"
        raise UnknownEnvironment(
            f"{asked}: {module} cannot be imported: {type(error).__name__}: {said}"
        ) from error
