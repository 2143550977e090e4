"""Controllers over any model, planning in step with the robot or ahead of it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import envs
from envs.mujoco_env import get_state
from mbrl.agents import Controller, MPCConfig, Pipelined, PlannerConfig
from mbrl.dynamics import EnsembleConfig, Simulator
from mbrl.training import generator
from tests.models import Remembering

CARTPOLE = envs.TASKS["cartpole-swingup"]
SMALL = MPCConfig(PlannerConfig(horizon=20, population=16, iterations=2, elites=4))


def driven(steps, config=SMALL, kind=Controller, seed=0, act=None, **settings):
    """Rewards of the first steps of an episode, its controller, and its actions."""
    env = envs.make("cartpole-swingup")
    env.reset(seed=seed)
    inner = env.unwrapped
    low, high = (torch.as_tensor(bound) for bound in (env.action_space.low, env.action_space.high))
    controller = kind(
        Simulator(CARTPOLE),
        config.build(low, high),
        config,
        reward=None,
        terminated=None,
        state_of=lambda _: torch.from_numpy(get_state(inner.model, inner.data)),
        generator=generator(seed, 1),
        **settings,
    )
    rewards, actions = [], []
    for _ in range(steps):
        actions.append(controller.act(np.zeros(5)) if act is None else act(controller))
        rewards.append(float(env.step(actions[-1])[1]))
    controller.close()
    return rewards, controller, np.array(actions)


def pipelined(steps, delay=1, config=SMALL, **settings):
    settings = {"worker": False, "control_step": 0.04, "delay": delay} | settings
    return driven(steps, config, Pipelined, **settings)


def test_mpc_swings_the_pole_up_with_the_true_simulator():
    rewards, controller, _ = driven(90)
    assert np.mean(rewards[-20:]) > 0.9
    assert controller.plans == 90 and len(controller.seconds) == 90


def test_a_warm_up_does_not_change_the_actions():
    def act(controller):
        controller.warm_up(np.zeros(5))
        return controller.act(np.zeros(5))

    assert np.array_equal(driven(5)[2], driven(5, act=act)[2])


def test_plans_are_the_same_with_one_thread_and_two():
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(driven(6)[2])
    torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_a_compensated_delay_lowers_the_return_little():
    """With a delay of n steps both plan every n steps."""
    config = replace(SMALL, planner=replace(SMALL.planner, population=32))
    for delay in (1, 3):
        together = driven(150, replace(config, replan_every=delay))[0]
        ahead, controller, _ = pipelined(150, delay, config)
        assert sum(ahead) > 0.95 * sum(together)
        assert controller.late == 0


def test_a_delay_changes_the_plan():
    """With a model without noise a plan made ahead starts from the exact future state."""
    seen, met = [], []
    env_states = []

    class Spy(Pipelined):
        def score(self, state):
            seen.append(state.clone())
            return super().score(state)

        def act(self, obs, *, explore=False):
            env_states.append(self.state_of(obs))
            return super().act(obs)

    driven(12, SMALL, Spy, control_step=0.04, delay=3, worker=False)
    for k, state in enumerate(seen[1:]):  # searched at 0, 3, 6, ... for 3, 6, 9, ...
        at = 3 * (k + 1)
        if at < len(env_states):
            met.append(torch.equal(state, env_states[at]))
    assert len(met) == 3 and all(met)


def test_a_plan_is_used_from_its_first_step_on():
    _, controller, actions = pipelined(9, delay=4)
    first = driven(1, replace(SMALL, replan_every=20))[1].state.plan
    assert np.array_equal(actions[:4], first.actions[:4].numpy())
    assert controller.plans == 3  # plans for steps 0, 4 and 8


def test_a_late_plan_is_counted_and_still_used():
    hold = threading.Event()

    class Slow(Pipelined):
        def score(self, state):
            if self.plans and not hold.wait(20):
                raise TimeoutError
            return super().score(state)

    steps = iter(range(100))

    def act(controller):
        if next(steps) == 5:
            hold.set()
            while not controller._pending.done():
                time.sleep(0.001)
        return controller.act(np.zeros(5))

    _, controller, _ = driven(8, SMALL, Slow, act=act, control_step=0.04, delay=2)
    assert controller.late >= 1 and controller.plans >= 2


def test_a_failing_worker_raises_an_error():
    class Broken(Pipelined):
        def score(self, state):
            if self.plans:
                raise RuntimeError("no more plans")
            return super().score(state)

    with pytest.raises(RuntimeError, match="no more plans"):
        driven(
            3,
            SMALL,
            Broken,
            act=lambda c: (time.sleep(0.2), c.act(np.zeros(5)))[1],
            control_step=0.04,
            delay=1,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"delay": 0}, "delay must be >= 1 step, got 0"),
        ({"delay": None}, "without a worker the delay must be given"),
        ({"control_step": 0.0}, "control_step must be > 0 s"),
        ({"config": replace(SMALL, replan_every=0)}, "replan_every 0 plans once, so it"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        pipelined(1, **{"delay": 1, **settings})


def test_a_model_that_learns_no_reward_needs_a_given_one():
    config = EnsembleConfig(members=2, hidden=(8,))
    mpc, low = replace(SMALL, particles=2), -torch.ones(1)

    def controller(config, reward):
        model = config.make(5, 1, generator=generator(0))
        parts = model, mpc.build(low, -low), mpc
        return Controller(*parts, reward=reward, terminated=None, generator=generator(1))

    with pytest.raises(ValueError, match="reward: this Ensemble predicts none, so all plans"):
        controller(config, None)
    assert controller(config, CARTPOLE.reward).act(np.zeros(5)).shape == (1,)
    assert controller(replace(config, learn_reward=True), None).act(np.zeros(5)).shape == (1,)


def test_planner_settings_that_another_planner_lacks_are_left_out():
    icem = PlannerConfig("icem", 10, 20, 3, elites=5, beta=1.0, sigma=0.2)
    mppi = icem.named("mppi")
    assert (mppi.name, mppi.horizon, mppi.sigma, mppi.elites) == ("mppi", 10, 0.2, None)
    assert icem.named("icem") is icem
    for name in ("random", "cem", "mppi", "predictive"):
        icem.named(name).build(-torch.ones(1), torch.ones(1))


def test_a_search_stays_within_its_budget():
    budget = replace(SMALL, budget_ms=500.0, planner=replace(SMALL.planner, iterations=20_000))
    _, controller, _ = driven(3, budget)
    assert max(controller.seconds[1:]) < 0.6
    assert controller.evaluated < 3 * 20_000 * 8


def test_unknown_planners_and_settings_are_refused_in_one_line():
    box = torch.ones(1)
    with pytest.raises(ValueError, match="'icem' has no setting 'temperature'; it has") as e:
        PlannerConfig("icem", temperature=1.0).build(-box, box)
    assert "\n" not in str(e.value) and "elites" in str(e.value)
    for make in (
        lambda: PlannerConfig("best").build(-box, box),
        lambda: PlannerConfig().named("best"),
    ):
        with pytest.raises(ValueError, match="planner 'best' is unknown; there are .*cem, "):
            make()


def through_memory(kind=Controller, **settings):
    config = replace(SMALL, planner=replace(SMALL.planner, horizon=5))
    box = torch.ones(1)
    return kind(
        Remembering(), config.build(-box, box), config, reward=None, terminated=None,
        generator=generator(0, 1), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Controller, Pipelined])
def test_a_model_with_memory_filters_observations(kind):
    """For observations 0, 0.5 and 0.7 the speed is 0, 0.5 and 0.2; a reset clears it."""
    settings = {"control_step": 0.04, "delay": 1, "worker": False}
    controller = through_memory(kind, **(settings if kind is Pipelined else {}))
    for _ in range(2):
        for place, speed in ((0.0, 0.0), (0.5, 0.5), (0.7, 0.2)):
            action = controller.act(np.array([place], dtype=np.float32))
            assert controller.model_state.tolist() == pytest.approx([place, speed])
            assert controller.last_action.numpy() == action
        controller.reset()
    controller.close()


def test_a_checkpoint_contains_the_models_memory():
    first, second = through_memory(), through_memory()
    for place in (0.0, 0.5):
        first.act(np.array([place], dtype=np.float32))
    second.load_state_dict(first.state_dict())
    second.generator.set_state(first.generator.get_state())
    obs = np.array([0.7], dtype=np.float32)
    assert torch.equal(first.state_of(obs), second.state_of(obs))
    assert np.array_equal(first.act(obs), second.act(obs))


def test_a_warm_up_does_not_change_the_models_memory():
    controller = through_memory()
    controller.act(np.zeros(1, dtype=np.float32))
    kept = controller.model_state
    controller.warm_up(np.ones(1, dtype=np.float32))
    assert controller.model_state is kept
