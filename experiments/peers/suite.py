"""dm_control's control suite on an older MuJoCo, asked line by line.

Run by the Python of `.peers/suite`, in which `make peers` installs dm_control without its
dependencies. A request is a line of JSON on stdin, its answer a line of JSON on stdout.

A `state` is a dict of lists: `qpos`, `qvel`, `act`, and what a start draws besides: `geom_pos` or
`site_pos` of the target (3,), `wrap_prm` of the point mass's tendons (4,), `terrain`, the index of
one that "terrains" has given.

    {"work": "info"}                                versions of dm_control, MuJoCo and Python
    {"work": "spec", "task": "walker-walk"}         control_step s, steps, low and high of actions
    {"work": "terrains", "heights": [[...], ...], "tops": [...]}   height fields for later requests:
        heights in [0, 1] by row and column, and the greatest height m of each
    {"work": "starts", "task": T, "count": 100, "seed": 0}     states at which episodes start
    {"work": "visited", "task": T, "count": 10, "seed": 0}     states along random episodes, one
        episode each, after 0, 2, 10, 35, 75 and 150 steps; on the given terrains if there are any
    {"work": "steps", "task": T, "states": [...], "actions": [...]}   for each state and action the
        observation in the state, and observation, reward, qpos and qvel one control step later
    {"work": "tolerance", "x": [...], "edge": [...], "bounds": [0, 1], "margin": [1]}
        its tolerance with each falloff, for each edge and x
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np

serving = runpy.run_path(str(Path(__file__).with_name("serving.py")))

AFTER = (0, 2, 10, 35, 75, 150)
"""Steps of a random episode before a visited state, in turn."""


HFIELD = 1  # mjtGeom.mjGEOM_HFIELD

PLACED = {"geom_pos": "geom", "site_pos": "site"}
"""Field of a target's position -> kind of the target."""


TERRAINS: list[tuple[np.ndarray, float]] = []
"""Heights in [0, 1] and the greatest height of each terrain that was given."""


FALLOFFS = (
    "gaussian",
    "linear",
    "quadratic",
    "cosine",
    "long_tail",
    "reciprocal",
    "hyperbolic",
    "tanh_squared",
)


def loaded(task: str, seed: int = 0) -> Any:
    """The environment of `DOMAIN-TASK`, with dashes for underscores."""
    from dm_control import suite
    from dm_control.suite import quadruped

    drawn: Any = quadruped.Physics  # escape asks for its contexts of rendering: there are none
    drawn.contexts = None
    names = {f"{d}-{t}".replace("_", "-"): (d, t) for d, t in suite.ALL_TASKS}
    domain, name = names[serving["accepted"]("task", task, names)]
    return suite.load(domain, name, task_kwargs={"random": seed})


def flat(observation: Any) -> list[float]:
    """All entries of an observation, in their order."""
    return np.concatenate([np.ravel(value) for value in observation.values()]).tolist()


def state_of(physics: Any) -> dict[str, list[float]]:
    """The state, with what a start draws besides positions and velocities."""
    data, model = physics.data, physics.model
    found = {"qpos": data.qpos.tolist(), "qvel": data.qvel.tolist(), "act": data.act.tolist()}
    for field, kind in PLACED.items():
        if any(model.id2name(i, kind) == "target" for i in range(getattr(model, f"n{kind}"))):
            found[field] = getattr(physics.named.model, field)["target"].tolist()
    if model.nwrap == 4 and model.nu == 2:
        found["wrap_prm"] = model.wrap_prm.tolist()
    return found


def place(physics: Any, state: dict[str, Any]) -> None:
    """Put a simulation into a state."""
    for field in PLACED:
        if field in state:
            getattr(physics.named.model, field)["target"] = state[field]
    if "wrap_prm" in state:
        physics.model.wrap_prm[:] = state["wrap_prm"]
    if "terrain" in state:
        raise_terrain(physics, state["terrain"])
    with physics.reset_context():
        physics.data.qpos[:] = state["qpos"]
        physics.data.qvel[:] = state["qvel"]
        physics.data.act[:] = state["act"]


def raise_terrain(physics: Any, index: int) -> None:
    """Write a terrain into the model."""
    heights, top = TERRAINS[int(index)]
    physics.model.hfield_data[:] = heights
    physics.model.hfield_size[0, 2] = top


def start_on(physics: Any, index: int) -> None:
    """Put a start onto another terrain, as high as dm_control puts it."""
    from dm_control.suite import quadruped

    raise_terrain(physics, index)
    quadruped._find_non_contacting_height(physics, physics.data.qpos[3:7].copy())


def terrains(heights: list[list[float]], tops: list[float]) -> dict[str, Any]:
    """Keep the terrains."""
    TERRAINS[:] = [(np.asarray(h), top) for h, top in zip(heights, tops, strict=True)]
    return {"count": len(TERRAINS)}


def starts(task: str, count: int, seed: int) -> dict[str, Any]:
    """States at which episodes start."""
    env = loaded(task, seed)
    found = []
    for _ in range(count):
        env.reset()
        found.append(state_of(env.physics))
    return {"states": found}


def visited(task: str, count: int, seed: int) -> dict[str, Any]:
    """States along episodes of random actions."""
    env, rng = loaded(task, seed), np.random.default_rng(seed)
    spec = env.action_spec()
    found = []
    for k in range(count):
        env.reset()
        uneven = env.physics.model.nhfield and any(
            env.physics.model.geom_type == HFIELD  # the other tasks keep it without a geom
        )
        index = k % len(TERRAINS) if uneven and TERRAINS else None
        if index is not None:
            start_on(env.physics, index)
        for _ in range(AFTER[k % len(AFTER)]):
            env.step(rng.uniform(spec.minimum, spec.maximum))
        found.append(state_of(env.physics) | ({} if index is None else {"terrain": index}))
    return {"states": found}


def steps(task: str, states: list[Any], actions: list[Any]) -> dict[str, Any]:
    """One control step from each state."""
    env = loaded(task)
    env.reset()
    keys = ("first", "obs", "reward", "qpos", "qvel")
    found: dict[str, list[Any]] = {key: [] for key in keys}
    for state, action in zip(states, actions, strict=True):
        env.reset()  # so that no episode ends within
        place(env.physics, state)
        found["first"].append(flat(env.task.get_observation(env.physics)))
        then = env.step(np.asarray(action))
        found["obs"].append(flat(then.observation))
        found["reward"].append(float(then.reward))
        found["qpos"].append(env.physics.data.qpos.tolist())
        found["qvel"].append(env.physics.data.qvel.tolist())
    return found


def tolerance(
    x: list[float], edge: list[float], bounds: list[float], margin: list[float]
) -> dict[str, Any]:
    """dm_control's tolerance by its falloff, for each edge and x."""
    from dm_control.utils import rewards

    return {
        kind: [
            [float(rewards.tolerance(v, tuple(bounds), margin[0], kind, e)) for v in x]
            for e in edge
        ]
        for kind in FALLOFFS
    }


def spec(task: str) -> dict[str, Any]:
    """Numbers of a task."""
    env = loaded(task)
    actions = env.action_spec()
    return {
        "control_step": float(env.control_timestep()),
        "steps": round(env._step_limit),
        "low": actions.minimum.tolist(),
        "high": actions.maximum.tolist(),
    }


def info() -> dict[str, Any]:
    """Versions."""
    return serving["info"](("dm_control", "mujoco"))


WORK = {
    "info": info,
    "spec": spec,
    "terrains": terrains,
    "starts": starts,
    "visited": visited,
    "steps": steps,
    "tolerance": tolerance,
}


def answer(work: str, **request: Any) -> dict[str, Any]:
    """The answer to one request."""
    return WORK[serving["accepted"]("work", work, WORK)](**request)


if __name__ == "__main__":
    os.environ["MUJOCO_GL"] = "disabled"  # nothing is rendered
    serving["serve"](answer)
