"""Errors of simulators and models, the time of controllers; runs evaluated and compared."""

import json
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
import mbrl
import mbrl.evaluation
from experiments.cli.command import run
from mbrl.dynamics import Simulator
from mbrl.evaluation import (
    Episode,
    act_milliseconds,
    compare_runs,
    evaluate_run,
    horizon_errors,
    latent,
    mismatch,
    motion_error,
    open_loop,
    plan_spread,
    step_errors,
)
from mbrl.rng import episode_seed
from mbrl.types import Gaussian, Step
from tests.models import LinearGaussian, Remembering


def test_only_the_true_simulator_has_no_motion_error():
    task = envs.TASKS["cartpole-swingup"]
    true, other = Simulator(task), Simulator(task)
    other.model.opt.gravity[:] = 0
    states = np.stack([true.state(*task.initial(np.random.default_rng(k))) for k in range(3)])
    found = [
        motion_error(true, sim, states, seconds=0.2, rng=np.random.default_rng(0))
        for sim in (true, other)
    ]
    assert found[0] == pytest.approx(0, abs=1e-12) and found[1] > 1e-4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of random actions, seeds 0, 1 and 2, two episodes each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        env = envs.make("pendulum-swingup")
        agent = mbrl.make("random", env, seed=seed)
        mbrl.train(agent, env, folder / f"{seed}", steps=400, seed=seed)
    return [folder / f"{seed}" for seed in range(3)]


def test_the_evaluation_of_a_run_is_written_into_its_folder(runs):
    heard = []
    arguments = {"make_env": envs.make, "episodes": 2, "seed": 5}
    summary, config, first = evaluate_run(
        runs[0], callback=lambda *one: heard.append(one), **arguments
    )
    assert config.env == "pendulum-swingup" and summary["env_steps"] == 400 and summary["n"] == 2
    assert summary == json.loads((runs[0] / "evaluation.json").read_text())
    assert [(number, total) for number, total, _ in heard] == list(enumerate(summary["returns"], 1))
    world = envs.make(config.env)
    world.reset(seed=episode_seed(5, 0))
    again = sum(float(np.float32(world.step(action)[1])) for action in first)
    assert again == pytest.approx(summary["returns"][0], rel=1e-5) and len(first) == heard[0][2]
    assert evaluate_run(runs[0], **arguments)[0] == summary
    cut = evaluate_run(runs[0], **arguments, steps=3)
    assert len(cut[2]) == 3 and cut[0]["returns"][0] < summary["returns"][0]  # no reward is < 0


def test_a_world_without_a_time_limit_is_evaluated_and_its_limit_is_printed(tmp_path, capsys):
    env = envs.make("chain")  # it never ends
    mbrl.train(mbrl.make("random", env), env, tmp_path / "run", steps=5)
    assert run(["evaluate", str(tmp_path / "run"), "--episodes", "1"]) == 0
    said = capsys.readouterr().err
    assert "chain has no time limit" in said and "steps 10000" in said
    assert run(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--steps", "7"]) == 0
    said = capsys.readouterr().err
    assert "no time limit" not in said and said.count("steps 7\n") == 2


def test_runs_with_one_label_are_treated_as_seeds(runs):
    env, curves, numbers = compare_runs(runs)
    assert env == "pendulum-swingup" and list(curves) == ["random"]
    assert numbers["random"]["n"] == 3 and numbers["random"]["better_than_first"] is None
    ends = [returns[-1] for _, returns in curves["random"]]
    assert numbers["random"]["returns"] == ends
    _, _, both = compare_runs(runs, labels=("a", "b", "a"), last=2)
    assert both["a"]["returns"] == [np.mean(curves["random"][i][1]) for i in (0, 2)]
    wins = [both["b"]["returns"][0] > one for one in both["a"]["returns"]]
    assert both["b"]["better_than_first"] == np.mean(wins)


def test_runs_that_repeat_actions_differently_are_not_seeds_of_one_method(runs, tmp_path):
    repeated = ["train", "random", "--env=pendulum-swingup", "--env-repeat=2", "--steps=80"]
    assert run([*repeated, "--run", str(tmp_path / "run")]) == 0
    _, _, numbers = compare_runs([*runs, tmp_path / "run"])
    counts = {label: own["n"] for label, own in numbers.items()}
    assert counts == {"random action_repeat=1": 3, "random action_repeat=2": 1}


class Off:
    """Two members; their mean adds the action to both observations, and misses actions over 1/2."""

    members = 2

    def predict(self, obs, action):
        mean = obs + action.clamp(max=0.5)
        mean = mean + torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)  # only the mean is right
        reward = torch.zeros(*mean.shape[:-1], 1)
        return Gaussian(torch.cat((mean, reward), -1), torch.ones(*mean.shape[:-1], 3))


def episode(obs, action, next_obs):
    columns = [torch.tensor(column, dtype=torch.double) for column in (obs, action, next_obs)]
    return Episode(columns[0], columns[1], torch.zeros(len(obs)), columns[2], [])


def test_step_errors_are_in_stds_of_the_observations_that_change():
    # One step changes the first observation by 1 or 5 (std 2) and never the second.
    moves = [episode([[0, 7], [0, 7]], [[0.0], [0.0]], [[1, 7], [5, 7]])]
    right = episode([[0, 0]], [[0.5]], [[0.5, 9]])
    wrong = episode([[0, 0], [0, 0]], [[0.5], [0.9]], [[0.5, 0], [4.5, 0]])
    found = step_errors(Off(), [right, wrong], moves=moves)
    assert found == pytest.approx([0, np.sqrt((0 + (4 / 2) ** 2) / 2)])


class Coasting(Remembering):
    """A point, seen as a place, that keeps the speed which the model infers from two places."""

    def decode(self, state):
        return state[..., :1]

    def step(self, state, action, *, noise):
        place, speed = state[..., :1], state[..., 1:]
        return Step(torch.cat((place + speed, speed), -1), place[..., 0], place[..., 0] > 1e9)


def test_a_model_with_memory_is_measured_from_the_states_that_it_filters():
    """The point moves by 2 a step; at the first observation its speed is not known yet."""
    places = 2.0 * np.arange(14)[:, None]
    played = episode(places[:-1], np.zeros((13, 1)), places[1:])
    errors, unchanged = horizon_errors(Coasting(), [played], 3, generator=torch.Generator())
    std = places[:-1].std(ddof=1)
    assert errors.numpy() == pytest.approx(np.array([[2, 4, 6], *[[0, 0, 0]] * 3]) / std)
    assert unchanged.numpy() == pytest.approx(np.array([[2, 4, 6]] * 4) / std)
    assert latent(Coasting(), played)
    assert not latent(LinearGaussian(np.eye(1), np.zeros((1, 1)), np.zeros(1)), played)
    for context in (2, 5):
        found = open_loop(Coasting(), played, context=context, horizon=6)
        assert found.truth.tolist() == found.predicted.tolist() == places[: context + 6].tolist()
        assert found.predicted_reward[context - 1 :].tolist() == [
            2.0 * (context - 1 + k) for k in range(6)
        ]
    found = open_loop(Coasting(), played, context=1, horizon=3)
    assert found.predicted[:, 0].tolist() == [0, 0, 0, 0]  # it has seen one place
    with pytest.raises(ValueError, match="want more than the 13 steps of the context, got 13"):
        open_loop(Coasting(), played, context=13)


class Grey:
    """Predicts images of one grey, the mean of the first one."""

    members, noise_shape = 1, (0,)

    def encode(self, obs, *, state=None, action=None):
        return obs.float().flatten(-3).mean(-1, keepdim=True) / 255 if state is None else state

    def decode(self, state):
        return state[..., None, None].expand(*state.shape[:-1], 2, 2, 1)

    def step(self, state, action, *, noise):
        return Step(state, state[..., 0], state[..., 0] > 2)


def test_errors_of_images_are_in_units_of_the_pixels_root_mean_variance():
    """Images are wholly black or white in turn; the model predicts what it saw at first, black."""
    images = torch.zeros(9, 2, 2, 1, dtype=torch.uint8)
    images[1::2] = 255
    nothing = torch.zeros(8, 1, dtype=torch.double)
    played = Episode(images[:-1], nothing, nothing[:, 0], images[1:], [])
    errors, unchanged = horizon_errors(Grey(), [played], 2, generator=torch.Generator())
    std = np.array([0, 1] * 4).std(ddof=1)
    assert errors.numpy() == pytest.approx(np.array([[1, 0], [0, 1], [1, 0]]) / std)
    assert unchanged.numpy() == pytest.approx(np.array([[1, 0], [1, 0], [1, 0]]) / std)
    found = open_loop(Grey(), played, context=1, horizon=3)
    assert found.truth[:, 0, 0, 0].tolist() == [0, 1, 0, 1] and not found.predicted.any()


def test_errors_ahead_do_not_depend_on_the_unit_and_constants_are_left_as_they_are():
    """The model says that nothing moves; the first observation grows by 1, the second stays 7."""
    model = LinearGaussian(np.eye(2), np.zeros((2, 1)), np.zeros(2))
    for unit in (1.0, 2.0**-40):  # powers of two, so that no rounding changes
        obs = np.array([[unit * t, 7.0] for t in range(7)])
        played = [episode(obs[:-1], np.zeros((6, 1)), obs[1:])]
        std = np.arange(6).std(ddof=1)
        errors, unchanged = horizon_errors(model, played, 2, generator=torch.Generator())
        assert errors.tolist() == unchanged.tolist()
        assert errors.numpy() == pytest.approx(np.array([[1, 2], [1, 2]]) / std / np.sqrt(2))
        _, ahead = plan_spread(model, played, 2, generator=torch.Generator())
        assert ahead.numpy() == pytest.approx(errors[0].numpy())
    obs[1:, 1] = 8  # never seen to differ: it is off by its own 1, not by a million
    off = [episode(obs[:1].repeat(2, 0), np.zeros((2, 1)), obs[1:3])]
    errors, _ = horizon_errors(model, off, 1, generator=torch.Generator())
    assert errors.numpy() == pytest.approx(np.sqrt((0 + 1) / 2))


class Line(gymnasium.Env):
    """A point to which actions are added; the reward is the action; four steps."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.at, self.steps = np.zeros(1, np.float32), 0
        return self.at.copy(), {}

    def step(self, action):
        self.at, self.steps = self.at + action, self.steps + 1
        return self.at.copy(), float(action[0]), False, self.steps == 4, {}


class Forward:
    """Acts 1; its plans predict returns of 2 and 5 in turn."""

    def __init__(self):
        self.each = [SimpleNamespace(plans=0, state=SimpleNamespace(plan=None))]

    def reset(self, begins):
        self.each[0].plans = 0

    def act(self, obs, *, explore):
        (controller,) = self.each
        controller.plans += 1
        controller.state.plan = SimpleNamespace(score=(5.0, 2.0)[controller.plans % 2])
        return np.ones((len(obs), 1), np.float32)


def test_model_errors_are_measured_on_random_and_on_own_episodes():
    agent = SimpleNamespace(player=lambda *, generator: Forward(), model=Off())
    found = mismatch(agent, Line(), episodes=2, seed=0)
    assert found.returns == [4, 4] and found.promised == [3.5, 3.5]
    # Each of its steps has an error of 1/2; those of some random steps are smaller.
    (own, again), at_random = found.error_own, found.error_random
    assert own == again and min(at_random) > 0 and max(at_random) < own
    assert mismatch(agent, Line(), episodes=2, seed=0) == found


def test_controllers_are_timed_alternately_without_their_first_actions(monkeypatch):
    now, order = [0.0], []

    class Timed:
        def __init__(self, name, seconds, replan_every):
            self.name, self.seconds = name, iter(seconds)
            self.mpc = SimpleNamespace(replan_every=replan_every)

        def act(self, obs):
            order.append((self.name, obs))
            now[0] += next(self.seconds)

    monkeypatch.setattr(mbrl.evaluation.time, "perf_counter", lambda: now[0])
    players: Any = {"a": Timed("a", (90, 1, 2, 3, 2), 1), "b": Timed("b", (50, 0, 9, 0, 3), 2)}
    # "b" searches at every other action, and a search of it takes 6 s on average
    assert act_milliseconds(players, list(range(5))) == {"a": 2000, "b": 4000}
    assert order == [(name, obs) for obs in range(5) for name in "ab"]
