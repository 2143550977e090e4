"""Write the numbers of dm_control that the tests compare the suite's tasks with.

    python -m experiments.peers.suite_data              needs `make peers`; about a minute
    python -m experiments.peers.suite_data --compare    prints the largest differences of each task

The first writes `tests/envs/data/suite.npz`, which the second reads. For each task `DOMAIN-TASK` it
holds

    TASK/control_step           seconds
    TASK/qpos, qvel, act, ...   (K, .) states with placed targets: half met by random actions, half
                                near those that are rewarded, so that sparse rewards are met too
    TASK/terrain                (K,) indices of quadruped-escape's terrains
    TASK/action                 (K, A) uniform
    TASK/first                  (K, O) observations in these states
    TASK/obs, reward, next_qpos, next_qvel      one control step later
    TASK/starts/qpos, qvel, ...     (5, .) of `STARTS` starts: mean, std, least, largest, and mean
                                of the absolute value

and `tolerance/FALLOFF`, (3, X): the tolerance of `tolerance/x` (X,) within [-0.5, 0.7] with margin
0.8 and the values at the margin `tolerance/edge` (3,).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np

import envs
from envs.suite import quadruped
from envs.suite.point_mass import directions
from envs.task import actuation, sensor_views
from experiments.peers import Suite

FILE = Path(__file__).parents[2] / "tests" / "envs" / "data" / "suite.npz"
STATES = 6
STARTS = 400
TOLERANCE: dict[str, list[float]] = {
    "x": np.linspace(-3, 3, 25).tolist(),
    "edge": [0.1, 0.5, 0.9],
    "bounds": [-0.5, 0.7],
    "margin": [0.8],
}

State = dict[str, Any]
Rng = np.random.Generator


def _quat(rng: Rng, std: float) -> np.ndarray:
    """A turn of about `std` rad."""
    quat = np.array([1.0, *(0.5 * std * rng.standard_normal(3))])
    return quat / np.linalg.norm(quat)


def _acrobot(state: State, rng: Rng) -> None:
    state["qpos"][:] = rng.uniform(-0.3, 0.3, 2)


def _ball_in_cup(state: State, rng: Rng) -> None:
    x, z = state["qpos"][:2]
    state["qpos"][2:] = np.array([x, 0.35 + z]) + rng.uniform(-0.04, 0.04, 2)


def _cartpole(state: State, rng: Rng) -> None:
    state["qpos"][0] = rng.uniform(-0.4, 0.4)
    state["qpos"][1:] = rng.uniform(-0.15, 0.15, len(state["qpos"]) - 1)


def _cheetah(state: State, rng: Rng) -> None:
    state["qvel"][0] = rng.uniform(0, 12)


def _finger(state: State, rng: Rng) -> None:
    x, _, z = np.array(state["site_pos"]) - (0.2, 0, 0.4)
    state["qpos"][2] = -np.arctan2(x, z) + rng.uniform(-0.8, 0.8)
    state["qvel"][2] = rng.uniform(-30, 0)


def _fish(state: State, rng: Rng) -> None:
    state["qpos"][:7] = [0, 0, 0.1, *_quat(rng, 0.5)]
    state["geom_pos"][:] = np.array([0, 0.08, 0.1]) + rng.uniform(-0.1, 0.1, 3)


def _hopper(state: State, rng: Rng) -> None:
    bent = np.array([0, 0.1, 0, 0, -0.3, 0.6, -0.3])
    state["qpos"][:] = bent + np.array([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]) * rng.uniform(-1, 1, 7)
    state["qvel"][0] = rng.uniform(0, 3)


def _humanoid(state: State, rng: Rng) -> None:
    state["qpos"][:7] = [0, 0, rng.uniform(1.2, 1.5), *_quat(rng, 0.3)]
    state["qpos"][7:] = 0.05 * rng.standard_normal(21)
    state["qvel"][:2] = rng.uniform(-1, 1, 2) * rng.uniform(0, 12)


def _pendulum(state: State, rng: Rng) -> None:
    state["qpos"][:] = rng.uniform(-0.25, 0.25, 1)


def _point_mass(state: State, rng: Rng) -> None:
    state["qpos"][:] = rng.uniform(-0.03, 0.03, 2)


def _quadruped(state: State, rng: Rng) -> None:
    if "terrain" in state:
        _climbing(state, rng)
        return
    state["qpos"][:7] = [0, 0, rng.uniform(0.5, 0.7), *_quat(rng, 0.5)]
    state["qvel"][0] = rng.uniform(0, 7)
    if len(state["qpos"]) > 23:
        away = rng.uniform(1.0, 2.0) * np.exp(1j * rng.uniform(-np.pi, np.pi))  # not in the body
        state["qpos"][23:26] = [away.real, away.imag, rng.uniform(0.14, 0.5)]


def _climbing(state: State, rng: Rng) -> None:
    """Upright on a slope of its terrain, the lowest toe half a centimetre deep in the ground."""
    model = quadruped.Model(quadruped.MJCF, envs.SUITE["dmc-quadruped-escape"].prepare)
    places = quadruped.placed(int(state["terrain"]))
    away = rng.uniform(3, 29) * np.exp(1j * rng.uniform(-np.pi, np.pi))
    state["qpos"] = quadruped.lifted(model, _quat(rng, 0.3), away.real, away.imag, places)
    state["qpos"][2] -= 0.005
    state["qvel"][:] = 0
    state["qvel"][0] = rng.uniform(0, 1)


def _reacher(state: State, rng: Rng) -> None:
    angles = np.cumsum(state["qpos"])
    tip = 0.12 * np.array([np.cos(angles).sum(), np.sin(angles).sum()])
    state["geom_pos"][:2] = tip + rng.uniform(-0.06, 0.06, 2)


def _swimmer(state: State, rng: Rng) -> None:
    state["qpos"][:3] = 0
    state["geom_pos"][:2] = rng.uniform(-0.3, 0.3, 2)


def _walker(state: State, rng: Rng) -> None:
    state["qpos"][:] = 0.1 * rng.standard_normal(9)
    state["qvel"][1] = rng.uniform(0, 10)


NEAR: dict[str, Callable[[State, Rng], None]] = {
    "acrobot": _acrobot,
    "ball-in-cup": _ball_in_cup,
    "cartpole": _cartpole,
    "cheetah": _cheetah,
    "finger": _finger,
    "fish": _fish,
    "hopper": _hopper,
    "humanoid": _humanoid,
    "pendulum": _pendulum,
    "point-mass": _point_mass,
    "quadruped": _quadruped,
    "reacher": _reacher,
    "swimmer": _swimmer,
    "walker": _walker,
}
"""Domain -> a function that moves a visited state to one near those that are rewarded."""


def reference(peer: Suite, task: str) -> dict[str, np.ndarray]:
    """All arrays of one task, by their key after `TASK/`."""
    spec, rng = peer.ask(work="spec", task=task), np.random.default_rng(2)
    states = peer.ask(work="visited", task=task, count=2 * STATES, seed=1)["states"]
    near = next(move for domain, move in NEAR.items() if task.startswith(domain))
    for state in states[STATES:]:
        moved = {key: np.array(value) for key, value in state.items()}
        near(moved, rng)
        state.update({key: value.tolist() for key, value in moved.items()})
    low, high = spec["low"], spec["high"]
    actions = rng.uniform(low, high, (len(states), len(low)))
    after = peer.ask(work="steps", task=task, states=states, actions=actions.tolist())
    starts = peer.ask(work="starts", task=task, count=STARTS, seed=3)["states"]
    found: dict[str, Any] = {"control_step": spec["control_step"], "action": actions}
    found |= {key: [state[key] for state in states] for key in states[0]}
    names = {"qpos": "next_qpos", "qvel": "next_qvel"}
    found |= {names.get(key, key): rows for key, rows in after.items()}
    for key in starts[0]:
        rows = np.array([state[key] for state in starts])
        parts = rows.mean(0), rows.std(0), rows.min(0), rows.max(0), np.abs(rows).mean(0)
        found[f"starts/{key}"] = np.stack(parts)
    return {key: np.asarray(value, dtype=float) for key, value in found.items()}


def give_terrains(peer: Suite) -> None:
    """Give dm_control the terrains of quadruped-escape, as MuJoCo holds them."""
    model = envs.SUITE["dmc-quadruped-escape"].compile()
    heights = model.hfield_data.reshape(model.nhfield, -1).tolist()
    peer.ask(work="terrains", heights=heights, tops=model.hfield_size[:, 2].tolist())


def write(path: Path = FILE) -> None:
    """Ask dm_control about every task of the suite and write the file."""
    found = {}
    with Suite() as peer:
        give_terrains(peer)
        for name in envs.SUITE:
            task = name.removeprefix("dmc-")
            arrays = reference(peer, task)
            found |= {f"{task}/{key}": value for key, value in arrays.items()}
        curves = peer.ask(work="tolerance", **TOLERANCE)
        found |= {f"tolerance/{key}": value for key, value in curves.items()}
        found |= {f"tolerance/{key}": TOLERANCE[key] for key in ("x", "edge")}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)


class Differences(NamedTuple):
    """Largest differences from dm_control of a task, each relative to 1 plus the value."""

    first: float  # observations in the given states
    obs: float  # observations one control step later
    motion: float  # positions and velocities one control step later
    reward: float  # rewards; the environment computes them from float32 observations


def read(path: Path = FILE) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the file by task (without `dmc-`), or `tolerance`, and by key."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for name, array in file.items():
            task, _, key = name.partition("/")
            found.setdefault(task, {})[key] = array
    return found


def goal(arrays: dict[str, np.ndarray], k: int) -> np.ndarray:
    """The `Task.goal` of state k: places of targets or terrains, or directions to push in."""
    if "terrain" in arrays:
        return quadruped.placed(int(arrays["terrain"][k]))
    if "wrap_prm" in arrays:
        return directions(arrays["wrap_prm"][k].reshape(2, 2))
    return arrays["geom_pos" if "geom_pos" in arrays else "site_pos"][k][None]


def put(env: envs.MujocoEnv, arrays: dict[str, np.ndarray], k: int) -> None:
    """Put an environment into state k; forces are sensed without actuation, as at a reset."""
    model, data = env.model, env.data
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:] = arrays["qpos"][k], arrays["qvel"][k]
    data.act[:] = arrays["act"][k]
    if model.nmocap:
        placed = goal(arrays, k)
        data.mocap_pos[:] = placed[:, :3]
        if placed.shape[1] > 3:
            data.mocap_quat[:] = placed[:, 3:]
    flag, before = int(mujoco.mjtDisableBit.mjDSBL_ACTUATION), model.opt.disableflags
    model.opt.disableflags |= flag
    mujoco.mj_forward(model, data)
    model.opt.disableflags = before


def observed(env: envs.MujocoEnv) -> np.ndarray:
    """The environment's observation in float64."""
    views = sensor_views(env.model, env.data.sensordata)
    return env.task.observation(envs.Physics(env.data.qpos, env.data.qvel, views, env.data.act))


def differences(name: str, arrays: dict[str, np.ndarray]) -> Differences:
    """Put the suite's task `name` into each of the states, and take a step with each action."""
    env = envs.MujocoEnv(envs.SUITE[name])
    env.reset(seed=0)
    offset, scale = actuation(env.model)
    worst = Differences(0.0, 0.0, 0.0, 0.0)
    for k in range(len(arrays["qpos"])):
        put(env, arrays, k)
        first = _apart(observed(env), arrays["first"][k])
        _, reward, *_ = env.step((arrays["action"][k] - offset) / scale)
        motion = (env.data.qpos, "next_qpos"), (env.data.qvel, "next_qvel")
        now = Differences(
            first,
            _apart(observed(env), arrays["obs"][k]),
            max(_apart(own, arrays[key][k]) for own, key in motion),
            _apart(reward, arrays["reward"][k]),
        )
        worst = Differences(*map(max, zip(worst, now, strict=True)))
    return worst


def _apart(own: np.ndarray | float, other: np.ndarray) -> float:
    return float((np.abs(own - other) / (1 + np.abs(other))).max())


def compare() -> None:
    """Print the differences of each task as a table."""
    print("| task | observation | after a step | motion | reward |\n|---|---|---|---|---|")
    arrays = read()
    for name in envs.SUITE:
        found = differences(name, arrays[name.removeprefix("dmc-")])
        print(f"| {name} | " + " | ".join(f"{value:.0e}" for value in found) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write what dm_control computes.")
    parser.add_argument("--file", type=Path, default=FILE, help="the file to write")
    parser.add_argument("--compare", action="store_true", help="compare with the file instead")
    chosen = parser.parse_args()
    compare() if chosen.compare else write(chosen.file)
