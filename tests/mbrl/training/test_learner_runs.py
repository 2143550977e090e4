"""Runs of off-policy learners: they resume to the byte, are evaluated apart, and stop on NaN."""

import math

import pytest
import torch

from mbrl.agents import ppo, sac
from mbrl.learners.configs import SACConfig
from mbrl.learners.on_policy_configs import PPOConfig
from mbrl.nn import Diverged
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training import Evaluation, Run, RunError, run_agent
from mbrl.training.metrics import METRICS, MetricsLog, read_metrics
from tests.mbrl.training.test_online import Drift, several

TINY = SACConfig(hidden=(8,), discount=0.9)
SCHEDULES = {
    "plain": sac.Config(learning_starts=10, batch=8, log_every=7, learner=TINY),
    "scaled, 3 steps": sac.Config(
        learning_starts=10, batch=8, log_every=7, learner=TINY, normalise_obs=True,
        scale_reward=True, n_step=3, train_every=4, updates=2,
    ),
    "held noise, blocks, decay": sac.Config(
        learning_starts=10, batch=8, log_every=7, hold_noise=16,
        learner=SACConfig(
            body="blocks", hidden=(8,), discount=0.9, joint=True, last_learning_rate=1e-5,
            decay="cosine", unit_weights=True, smooth_std=True,
        ),
    ),
    "renorm": sac.Config(
        learning_starts=10, batch=8, log_every=7,
        learner=SACConfig(hidden=(8,), discount=0.9, norm="renorm-after", target=False),
    ),
    "batch norm": sac.Config(
        learning_starts=10, batch=8, log_every=7,
        learner=SACConfig(hidden=(8,), discount=0.9, norm="batch-after", target=False),
    ),
}  # fmt: skip


def go(path, env, config, steps, *, evaluation=None, stop_at=math.inf, seed=3):
    run = Run.open(path) if path.exists() else Run.create(path, {})
    agent = sac.make(spec_of(env), config, generator=generator(seed))
    seen = []
    with run:
        log = MetricsLog(path)
        try:
            return run_agent(
                agent, env, run, seed=seed, steps=steps, log=log, checkpoint_every=9,
                evaluation=evaluation, callback=lambda now: seen.append(now.env_steps),
                stop=lambda: seen[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_stopped_and_resumed_run_writes_the_same_bytes(tmp_path, name, count):
    def env():
        return Drift() if count == 1 else several("a user's", count=count)

    apart = Evaluation(Drift(), every=15, episodes=2)
    go(tmp_path / "whole", env(), SCHEDULES[name], 63, evaluation=apart)
    for stop in (1, 17, 33, 50):
        go(tmp_path / "parts", env(), SCHEDULES[name], 63, evaluation=apart, stop_at=stop)
    go(tmp_path / "parts", env(), SCHEDULES[name], 63, evaluation=apart)
    whole, parts = ((tmp_path / name / METRICS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    kinds = {line["kind"] for line in read_metrics(tmp_path / "whole" / METRICS)}
    assert {"evaluation", "episode"} <= kinds and b"critic_loss" in whole


def test_step_sizes_change_over_the_steps_of_the_run_and_of_the_longer_run_that_it_becomes(
    tmp_path,
):
    """From 4e-3 to 1e-3: halfway in a run of 40 is 20, and 40 is halfway in a run of 80."""
    own = SACConfig(hidden=(8,), discount=0.9, learning_rate=4e-3, last_learning_rate=1e-3)
    config = sac.Config(learning_starts=10, batch=8, learner=own)
    for steps, stop_at, rate in ((40, 20, 2.5e-3), (40, math.inf, 1e-3), (80, 42, 2.425e-3)):
        go(tmp_path / "run", Drift(), config, steps, stop_at=stop_at)
        state = Run.open(tmp_path / "run").load()["agent"]["learner"]
        assert state["critic"]["learning_rate"] == pytest.approx(rate)


def test_step_sizes_of_rollouts_change_over_the_steps_of_the_run():
    config = ppo.Config(
        rollout=10, learner=PPOConfig(hidden=(4,), batch=5, epochs=1, last_learning_rate=0.0)
    )
    env, rates = Drift(), []
    agent = ppo.make(spec_of(env), config, generator=generator(3))
    learned = agent.update

    def update():
        metrics = learned()
        rates.extend([metrics["learning_rate"]] if metrics else [])
        return metrics

    agent.update = update
    run_agent(agent, env, seed=3, steps=40)
    assert rates == pytest.approx([3e-4, 0.75 * 3e-4, 0.5 * 3e-4, 0.25 * 3e-4])


def test_evaluations_do_not_change_what_is_learned(tmp_path):
    for name, apart in (("with", Evaluation(Drift(), every=10, episodes=2)), ("without", None)):
        go(tmp_path / name, Drift(), SCHEDULES["plain"], 60, evaluation=apart)
    with_, without = (read_metrics(tmp_path / name / METRICS) for name in ("with", "without"))
    lines = [line for line in with_ if line["kind"] == "evaluation"]
    assert [line["env_steps"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert all(line["least"] <= line["return"] <= line["greatest"] for line in lines)
    assert [line for line in with_ if line["kind"] != "evaluation"] == without


def test_a_learner_that_diverges_is_said_with_its_step_and_keeps_the_last_checkpoint(tmp_path):
    config = sac.Config(
        learning_starts=10, batch=8, log_every=7,
        learner=SACConfig(hidden=(8,), discount=0.9, learning_rate=1e30),
    )  # fmt: skip
    with pytest.raises(Diverged, match=r"the learner diverged at step 1\d: \w+ became (nan|inf)"):
        go(tmp_path / "run", Drift(), config, 60)
    saved = Run.open(tmp_path / "run").latest()
    assert saved is not None and saved < 12
    state = Run.open(tmp_path / "run").load()["agent"]["learner"]
    assert bool(state["critic"]["value"].isfinite().all())


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    go(tmp_path / "run", Drift(), SCHEDULES["plain"], 20)
    with pytest.raises(RunError, match="does not fit this run: agent/learner"):
        go(tmp_path / "run", Drift(), SCHEDULES["batch norm"], 40)


def test_evaluations_of_no_episodes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="evaluation: every and episodes must be >= 1"):
        go(tmp_path / "run", Drift(), SCHEDULES["plain"], 20, evaluation=Evaluation(Drift(), 5, 0))


def test_the_weights_of_a_resumed_agent_are_those_of_its_checkpoint(tmp_path):
    env = Drift()
    go(tmp_path / "run", env, SCHEDULES["plain"], 40)
    agent = sac.make(spec_of(env), SCHEDULES["plain"], generator=generator(8))
    state = Run.open(tmp_path / "run").load()["agent"]
    agent.load_state_dict(state)
    assert torch.equal(agent.learner.critic.value, state["learner"]["critic"]["value"])
    assert agent.steps == 40 and len(agent.replay) == 40
