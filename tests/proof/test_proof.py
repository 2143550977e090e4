"""A new learner, net and agent, each in one small file, work with the library."""

import dataclasses
import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

import mbrl
from experiments.cli.command import run as command
from mbrl.agents import AGENTS
from mbrl.data import Replay
from mbrl.dynamics import Regression
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training import MetricsLog, Run, RunError, evaluate, fit_offline, run_agent, vector
from mbrl.training.metrics import METRICS, read_metrics
from mbrl.types import ModelBased, Transition
from tests.proof import bayesian_linear, dyna
from tests.proof.deterministic_policy_gradient import DeterministicPolicyGradient
from tests.worlds import QuadraticWorld, linear_posterior

ID = "QuadraticWorld-v0"
TINY = dyna.Config(real=3, imagined=6, starts=10, batch=16)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def registered(monkeypatch):
    """Registers the agent and the environment."""
    monkeypatch.setitem(AGENTS, "dyna", dyna.__name__)
    gymnasium.register(ID, QuadraticWorld, max_episode_steps=10)
    yield
    del gymnasium.registry[ID]


def world():
    return gymnasium.wrappers.TimeLimit(QuadraticWorld(), 10)


def random_data(seed, count=2000):
    """Random actions in episodes of ten steps."""
    env, rng, rows, obs = world(), np.random.default_rng(seed), [], None
    for t in range(count):
        if t % 10 == 0:
            obs, _ = env.reset(seed=1000 * seed + t)
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        after, reward, ended, truncated, _ = env.step(action)
        rows.append((obs, action, reward, after, ended, truncated))
        obs = after
    data = Replay(count, 1, 1)
    data.append(Transition(*(torch.as_tensor(np.array(part)) for part in zip(*rows, strict=True))))
    return data


# The learner alone


def test_regret_equals_the_closed_form():
    gain = QuadraticWorld.riccati()[1]
    assert QuadraticWorld.regret(lambda x, **_: -gain * x) == pytest.approx(0, abs=1e-9)
    assert QuadraticWorld.regret(lambda x, **_: 0 * x) > 2  # the action 0
    assert QuadraticWorld.regret(lambda x, **_: -1.2 * gain * x) > 0.01


@pytest.mark.parametrize("seed", range(2))
def test_from_a_fixed_data_set_the_learner_comes_within_a_tenth_of_the_optimum(seed):
    """The action 0 has a regret of 3.2."""
    g = generator(seed)
    learner = DeterministicPolicyGradient(1, -torch.ones(1), torch.ones(1), generator=g)
    assert QuadraticWorld.regret(learner.policy) > 1
    fit_offline(learner, random_data(seed), updates=1500, batch=128, generator=g)
    assert QuadraticWorld.regret(learner.policy) < 0.1


# The net


def regression(**settings):
    g = generator(1)
    x = torch.randn(40, 3, generator=g) @ torch.tensor([[1, 0.6, 0], [0, 1, 0.4], [0, 0, 1.0]])
    y = x @ torch.tensor([[0.5, -1.0], [0.2, 0.3], [-0.4, 0.0]])
    y = y + torch.tensor([0.3, 0.05]) * torch.randn(40, 2, generator=g)
    config = bayesian_linear.Config(members=2000, prior=0.7, normalise=False, **settings)
    return Regression(3, 2, config, generator=generator(2)), x, y


def test_the_posterior_equals_the_closed_form():
    """Mean, covariance and the samples' moments, with known noise."""
    model, x, y = regression(rounds=0)
    noise = [0.3, 0.05]
    with torch.no_grad():
        model.heads.log_var.copy_(2 * torch.tensor(noise).log())
    model.fit(x, y, generator=generator(3))
    for d, std in enumerate(noise):
        mean, precision = linear_posterior(
            x.double(), y[:, d : d + 1].double(), noise=std, prior=0.7
        )
        covariance, root = precision.inverse(), model.net.root[d].double()
        torch.testing.assert_close(model.net.mean[:, d].double(), mean[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(root @ root.T, covariance, rtol=1e-4, atol=1e-7)
        drawn = model.predict(torch.eye(3)).mean[:, :, d].detach().double()  # (E, I) weights
        each = covariance.diagonal().sqrt()
        assert ((drawn.mean(0) - mean[:, 0]).abs() < 4 * each / math.sqrt(2000)).all()
        apart = (drawn.T.cov() - covariance).abs()
        assert (apart < 4 * torch.outer(each, each) * math.sqrt(2 / 2000)).all()


def test_the_noise_maximises_the_likelihood_of_the_data():
    """The evidence is the Gaussian density of y with the weights integrated out."""
    model, x, y = regression(rounds=50)
    model.fit(x, y, generator=generator(3))
    x, y = x.double(), y.double()
    for d in range(2):
        found = model.heads.log_var[0, 0, d].exp().sqrt().item()

        def evidence(std, d=d):
            covariance = std**2 * torch.eye(len(x)).double() + 0.7**2 * x @ x.T
            none = torch.zeros(len(x)).double()
            return torch.distributions.MultivariateNormal(none, covariance).log_prob(y[:, d])

        assert evidence(found) > max(evidence(found / 1.02), evidence(found * 1.02))


# The agent


def trained(config, seed, steps, count=1):
    env = vector([world] * count)
    agent = dyna.make(spec_of(env), config, generator=generator(seed))
    run_agent(agent, env, seed=seed, steps=steps)
    return agent


def test_dyna_learns_from_fewer_environment_steps_than_model_free_learning():
    """Regret after 50 environment steps, medians over nine seeds.

    With imagination it is at most half of that of the same learner with as many updates, all from
    real transitions, and at most a fifth of that with the same updates from real transitions.
    """
    config, median = dyna.Config(), {}
    for name, change in {
        "dyna": {},
        "as many updates": {"real": config.real + config.imagined, "imagined": 0},
        "the same real updates": {"imagined": 0},
    }.items():
        own = dataclasses.replace(config, **change)
        regrets = [QuadraticWorld.regret(trained(own, s, 50).learner.policy) for s in range(9)]
        median[name] = float(np.median(regrets))
    assert median["dyna"] < 0.5 * median["as many updates"], median
    assert median["dyna"] < 0.2 * median["the same real updates"], median


@pytest.mark.parametrize("count", [1, 3])
def test_dyna_learns_online_in_one_environment_and_in_three(count):
    """The regret is below a fifth; the evaluation uses the same policy."""
    agent = trained(dyna.Config(), 0, 180, count)
    assert QuadraticWorld.regret(agent.learner.policy) < 0.2
    found = evaluate(agent.player(generator=generator(1)), world(), episodes=10, seed=5)
    idle = evaluate(Idle(), world(), episodes=10, seed=5)
    assert np.mean(found) > 0.6 * np.mean(idle)


class Idle:
    def act(self, obs, *, explore):
        return np.zeros((len(obs), 1), np.float32)

    def reset(self, begins):
        pass


def go(path, count, steps, stop_at=None):
    env = SyncVectorEnv([world] * count, autoreset_mode="SameStep")
    agent = dyna.make(spec_of(env), TINY, generator=generator(0))
    at = []
    with Run.open(path) if path.exists() else Run.create(path, {}) as run:
        log = MetricsLog(path)
        try:
            run_agent(
                agent, env, run, seed=3, steps=steps, log=log,
                callback=lambda progress: at.append(progress.env_steps),
                stop=lambda: stop_at is not None and at[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_is_stopped_and_resumed_writes_the_same_bytes(tmp_path, count):
    """Stopped before the first update, between two updates, and within an episode."""
    go(tmp_path / "whole", count, 90)
    for stop in (12, 33, 60):
        go(tmp_path / "parts", count, 90, stop)
        assert Run.open(tmp_path / "parts").latest() == stop
    go(tmp_path / "parts", count, 90)
    whole = (tmp_path / "whole" / METRICS).read_bytes()
    assert (tmp_path / "parts" / METRICS).read_bytes() == whole
    assert b"imagined_critic_loss" in whole and b"model_loss" in whole


def test_another_agents_checkpoint_is_refused(tmp_path):
    go(tmp_path / "run", 1, 20)
    wider = dataclasses.replace(TINY, learner=dataclasses.replace(TINY.learner, hidden=(8,)))
    agent = dyna.make(spec_of(world()), wider, generator=generator(0))
    with Run.open(tmp_path / "run") as run, pytest.raises(RunError, match="does not fit"):
        run_agent(agent, world(), run, seed=3, steps=30, log=MetricsLog(run.path))


def test_an_agent_in_the_table_is_made_trained_and_opened_by_the_command(
    registered, tmp_path, capsys
):
    env = gymnasium.make(ID)
    agent = mbrl.make("dyna", env, config=TINY, horizon=2, seed=4)
    assert agent.config.horizon == 2 and isinstance(agent, ModelBased)
    assert mbrl.make("dyna", env).reward is QuadraticWorld.reward  # settings for the environment
    path = tmp_path / "run"
    assert mbrl.train(agent, env, run=path, steps=60).env_steps == 60
    assert mbrl.load_run(path, make_env=gymnasium.make).agent.fits == agent.fits
    again = mbrl.make("dyna", env, config=agent.config, seed=4)
    assert mbrl.train(again, env, run=path, steps=90).env_steps == 90
    episodes = read_metrics(path / METRICS, "episode")
    assert [line["env_steps"] for line in episodes] == [10 * n for n in range(1, 10)]
    assert command(["train", "--resume", str(path), "--steps", "120", "--json"]) == 0
    assert command(["evaluate", str(path), "--episodes", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(said["returns"]) == 3
    assert command(["plot", str(path), "--json"]) == 0
    drawn = {figure.name for figure in (path / "plots").iterdir()}
    assert {"return.png", "model_error.png", "calibration.png", "plan_spread.png"} <= drawn
    numbers = json.loads((path / "plots" / "numbers.json").read_text())
    assert numbers["error_by_horizon"][0] < 0.3 * numbers["no_change_error_by_horizon"][0]
