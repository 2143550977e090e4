"""Invalid results of an environment are named in one line, and the run can be resumed."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import mbrl
from experiments.cli.command import run as command
from mbrl.control import film
from mbrl.training import EnvironmentError, Run, online, train, vector
from mbrl.training.progress import _line

BROKEN = None
"""What the world below does wrongly, or None; set by each test."""


@pytest.fixture(autouse=True)
def every_end_is_saved(monkeypatch):
    """A checkpoint at each episode's end, however short the episodes are."""
    monkeypatch.setattr(online, "SAVING", 1.0)


class Slide(gymnasium.Env):
    """A point that the action moves, in episodes of ten steps. From its step 25 on it is broken."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = Box(-1.0, 1.0, (1,))
    steps = 0

    def __init__(self, render_mode=None):
        if BROKEN == "constructor":
            raise KeyError("no such key")
        self.render_mode, self.total = render_mode, 0
        self.observation_space = Box(-np.inf, np.inf, (2,))
        if BROKEN in ("index", "no index"):
            self.observation_space = Discrete(5)
        if BROKEN == "fraction":
            self.observation_space = Box(0, 255, (2,), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.standard_normal(2).astype(np.float32)
        self.steps = 0
        wrong = self.total >= 25 and BROKEN in RESETS
        return RESETS[BROKEN][0](self) if wrong else (self._obs(), {})

    def step(self, action):
        self.at = self.at + np.float32(action[0])
        self.steps += 1
        self.total += 1
        right = self._obs(), -float(self.at[0] ** 2), False, self.steps >= 10, {}
        return STEPS[BROKEN][0](*right) if self.total >= 25 and BROKEN in STEPS else right

    def _obs(self):
        whole = (
            isinstance(self.observation_space, Discrete),
            self.observation_space.dtype == np.uint8,
        )
        return self.steps % 5 if whole[0] else np.array([1, 2], np.uint8) if whole[1] else self.at

    def render(self):
        return None

    def close(self):
        if BROKEN == "close" and self.total:
            raise ZeroDivisionError("no more")


def fails(*_):
    raise KeyError("a key\nof two lines")


SEE = " as observation, not numbers of shape (2,) and type float32"
FIVE = "not (observation, reward, terminated, truncated, info)"
STEPS = {
    "None": (lambda *five: None, f"step returned None, {FIVE}"),
    "a string": (lambda *five: "five!", f"step returned 'five!', {FIVE}"),
    "a dict": (lambda *five: dict(enumerate(five)), f"step returned a dict, {FIVE}"),
    "four": (lambda o, r, d, t, i: (o, r, d, i), f"step returned a tuple of 4 values, {FIVE}"),
    "reward (1,)": (
        lambda o, r, d, t, i: (o, np.array([r]), d, t, i),
        "step returned ndarray of shape (1,) and type float64 as reward, not one number",
    ),
    "reward text": (
        lambda o, r, d, t, i: (o, "1.0", d, t, i),
        "step returned '1.0' as reward, not one number",
    ),
    "reward None": (
        lambda o, r, d, t, i: (o, None, d, t, i),
        "step returned None as reward, not one number",
    ),
    "reward NaN": (
        lambda o, r, d, t, i: (o, math.nan, d, t, i),
        "the environment returned a reward that is not finite",
    ),
    "shape": (
        lambda o, r, d, t, i: (np.zeros(3, np.float32), r, d, t, i),
        "step returned ndarray of shape (3,) and type float32" + SEE,
    ),
    "obs None": (lambda o, r, d, t, i: (None, r, d, t, i), "step returned None" + SEE),
    "obs dict": (lambda o, r, d, t, i: ({"x": o}, r, d, t, i), "step returned a dict" + SEE),
    "ragged": (
        lambda o, r, d, t, i: ([1.0, [2.0]], r, d, t, i),
        "step returned a list of 2 values" + SEE,
    ),
    "obs inf": (
        lambda o, r, d, t, i: (np.full(2, np.inf, np.float32), r, d, t, i),
        "the environment returned an observation that is not finite",
    ),
    "too large for float32": (
        lambda o, r, d, t, i: (np.full(2, 1e300), r, d, t, i),
        "the environment returned an observation that is not finite",
    ),
    "fraction": (
        lambda o, r, d, t, i: (np.array([0.5, 1.0]), r, d, t, i),
        "step returned ndarray of shape (2,) and type float64 as observation, "
        "not numbers of shape (2,) and type uint8",
    ),
    "no index": (
        lambda o, r, d, t, i: (7, r, d, t, i),
        "step returned the observation 7, not an index from 0 to 4",
    ),
    "terminated None": (
        lambda o, r, d, t, i: (o, r, None, t, i),
        "step returned None as terminated, not True or False",
    ),
    "terminated NaN": (
        lambda o, r, d, t, i: (o, r, math.nan, t, i),
        "step returned nan as terminated, not True or False",
    ),
    "truncated text": (
        lambda o, r, d, t, i: (o, r, d, "no", i),
        "step returned 'no' as truncated, not True or False",
    ),
    "info": (
        lambda o, r, d, t, i: (o, r, d, t, None),
        "step returned None as info, not a dict",
    ),
    "raises": (fails, r"step raised KeyError: 'a key\nof two lines'"),
}
RESETS = {
    "reset: obs only": (
        lambda world: world.at,
        "reset returned ndarray of shape (2,) and type float32, not (observation, info)",
    ),
    "reset: info": (lambda world: (world.at, 3), "reset returned 3 as info, not a dict"),
    "reset: shape": (
        lambda world: (world.at[:1], {}),
        "reset returned ndarray of shape (1,) and type float32" + SEE,
    ),
    "reset: raises": (fails, r"reset raised KeyError: 'a key\nof two lines'"),
}

gymnasium.register("Slide-v0", Slide, order_enforce=False, disable_env_checker=True)


@pytest.fixture
def broken(monkeypatch):
    def set_to(what):
        monkeypatch.setitem(globals(), "BROKEN", what)

    return set_to


def agent_of(env):
    return mbrl.make("random", env, seed=0)


@pytest.mark.parametrize("what", [*STEPS, *RESETS])
def test_an_invalid_result_is_named_with_its_step_and_the_run_can_resume(
    tmp_path, capsys, broken, what
):
    said = {**STEPS, **RESETS}[what][1]
    where = (
        "at the start of episode 3 (after environment step 30)"
        if what in RESETS
        else "at step 5 of episode 2 (environment step 25)"
    )
    broken(what)
    env, path = gymnasium.make("Slide-v0"), tmp_path / "run"
    with pytest.raises(EnvironmentError) as error:
        mbrl.train(agent_of(env), env, path, steps=40)
    text, saved = str(error.value), 30 if what in RESETS else 20
    assert f"{said} {where}" in text and "\n" not in text
    assert text.endswith(f"the run {path} can be resumed from its checkpoint at step {saved}")
    assert Run.open(path).latest() == saved

    other = tmp_path / "other"
    args = ["train", "random", "--env", "Slide-v0", "--steps", "40", "--run", str(other)]
    assert command(args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum("mbrl: " in line for line in lines) == 1 and f"{said} {where}" in lines[-1]
    assert not any("Traceback" in line for line in lines)

    metrics = []
    if what not in ("no index", "fraction"):  # whose space differs only if it is broken
        broken(None)
    else:
        broken("index" if what == "no index" else "nothing")
    if what == "fraction":
        return  # an environment with another space makes another run
    for folder in (path, other):
        assert command(["train", "--resume", str(folder)]) == 0
        metrics.append((folder / "metrics.jsonl").read_bytes())
    env = gymnasium.make("Slide-v0")
    mbrl.train(agent_of(env), env, tmp_path / "whole", steps=40)
    assert metrics == [(tmp_path / "whole" / "metrics.jsonl").read_bytes()] * 2


def test_an_environment_that_fails_to_close_ends_in_one_line(tmp_path, capsys, broken):
    broken("close")
    path = tmp_path / "run"
    args = ["train", "random", "--env", "Slide-v0", "--steps", "10", "--run", str(path)]
    assert command(args) == 2
    assert "mbrl: the environment's close raised ZeroDivisionError: no more" in (
        capsys.readouterr().err.splitlines()
    )
    assert Run.open(path).latest() == 10


def test_an_environment_that_cannot_be_made_ends_in_one_line(tmp_path, capsys, broken):
    broken("constructor")
    path = tmp_path / "run"
    assert command(["train", "random", "--env", "Slide-v0", "--run", str(path)]) == 2
    said = "mbrl: environment 'Slide-v0' cannot be made: KeyError: 'no such key'"
    assert capsys.readouterr().err.splitlines() == [said] and not path.exists()


def test_a_frame_of_none_skips_the_film(broken, tmp_path, capsys):
    env = gymnasium.make("Slide-v0", render_mode="rgb_array")
    with pytest.raises(EnvironmentError, match="render returned None, not a frame"):
        film(env, np.zeros((3, 1), np.float32), seed=0)
    path = tmp_path / "run"
    args = ["train", "random", "--env", "Slide-v0", "--steps", "10", "--run", str(path)]
    assert command(args) == 0
    assert command(["evaluate", str(path), "--episodes", "1", "--video"]) == 0
    assert "video skipped: the environment's render returned None" in capsys.readouterr().err


def test_lists_scalars_and_integer_flags_are_accepted(tmp_path):
    """Lists, arrays of 0 dimensions, integers, and 0 or 1 as flags."""

    class Loose(Slide):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            return obs.tolist(), np.array(reward), int(terminated), np.array(truncated), info

    given, wanted = ([], [])
    for world, steps in ((Loose, given), (Slide, wanted)):
        env = vector(world())
        env.reset(seed=[1])
        for _ in range(10):
            steps.append(env.step(np.full((1, 1), 0.5, np.float32)))
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_equal(one, other)
        assert [part.dtype for part in one[:4]] == [part.dtype for part in other[:4]]


def test_a_users_vector_environment_is_checked_too():
    class Flat(gymnasium.vector.VectorEnv):
        num_envs = 2
        single_observation_space = observation_space = Box(-1, 1, (2,))
        single_action_space = Box(-1, 1, (1,))
        action_space = Box(-1, 1, (2, 1))
        rewards = np.zeros((2, 1))
        observation_space = Box(-1, 1, (2, 2))

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 2), np.float32), {}

        def step(self, actions):
            return np.zeros((2, 2)), self.rewards, np.zeros(2, bool), np.zeros(2, bool), {}

    env = Flat()
    with pytest.raises(
        EnvironmentError, match=r"reward of shape \(2, 1\) .* not 2 numbers at step 1"
    ):
        train(agent_of(env), env, steps=4)


def test_a_fit_that_diverges_ends_the_run_in_one_line_with_its_step(tmp_path, capsys):
    path = tmp_path / "run"
    small = ["--random-steps", "25", "--model.hidden", "8", "--planner.population", "8"]
    small += ["--planner.elites", "2", "--planner.iterations", "1", "--planner.horizon", "3"]
    start = ["train", "pets", "--env", "cartpole-swingup", "--steps", "60", "--fit-every", "30"]
    rate = ["--model.learning-rate", "1e10", "--checkpoint-every", "20"]
    assert command([*start, *small, *rate, "--run", str(path)]) == 2
    for _ in range(2):  # a resumed run fails in the same fit
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("mbrl: ")]
        assert len(said) == 1 and not any("Traceback" in line for line in lines)
        assert said[0].startswith("mbrl: the model's fit diverged at step 30: members [0, 1, 2, ")
        assert "(learning_rate 1e+10); resumed from its checkpoint at step 20, the run" in said[0]
        assert said[0].endswith("begin another run with a lower learning_rate")
        assert Run.open(path).latest() == 20
        assert sorted(each.name for each in (path / "checkpoints").iterdir()) == ["20"]
        assert (path / "metrics.jsonl").read_text() == ""
        assert command(["train", "--resume", str(path)]) == 2


@pytest.mark.parametrize(
    ("rejected", "said"), [(0, None), (3, "rejected 3 "), (40, "rejected every candidate ")]
)
def test_an_episode_in_which_every_candidate_was_rejected_is_reported(rejected, said):
    last = {"episode": 0, "return": 1.0, "evaluated": 40, "rejected": rejected}
    text = _line(last, 20, 5.0, 3.0)
    assert said in text if said else "rejected" not in text
