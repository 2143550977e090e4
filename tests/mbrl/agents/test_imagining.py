"""Agents that learn from imagined steps: what is imagined, when, and what a batch consists of."""

import dataclasses
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import MPCConfig, PlannerConfig, agent, dyna, mbpo, varied
from mbrl.agents.dyna_config import DynaSchedule, InfopropConfig, MacuraConfig
from mbrl.agents.learned_model import LearnedModel
from mbrl.data import Replay
from mbrl.dynamics import EnsembleConfig
from mbrl.dynamics.configs import ConditionalConfig
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DQNConfig
from mbrl.types import Gaussian, Spec, Step, Transition

MODEL = EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True)
REAL, IMAGINED = 7.0, -7.0
BOX = Spec(
    gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
    gymnasium.spaces.Box(np.array([-1, -3], np.float32), np.array([1, 0.5], np.float32)),
    reward=lambda obs, action, next_obs: torch.full_like(obs[..., 0], IMAGINED),
    ends=False,
)
CHOICE = BOX._replace(action=gymnasium.spaces.Discrete(3, start=5))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(spec=BOX, module=dyna, **settings):
    known = spec.reward is not None
    fast = {
        "model": dataclasses.replace(MODEL, learn_reward=not known, learn_termination=spec.ends),
        "learning_starts": 20, "fit_every": 10, "starts": 30, "batch": 20, "updates": 1,
        "log_every": 1,
    }  # fmt: skip
    if module is dyna:
        fast |= {"sac": SACConfig(hidden=(8,)), "dqn": DQNConfig(hidden=(8,))}
    else:
        fast |= {"learner": SACConfig(hidden=(8,))}
    return module.make(spec, module.Config(**{**fast, **settings}), generator=seeded())


def walk(made, steps, ended=()):
    """Steps in a plane; the real reward is `REAL`."""
    said, at = [], np.zeros((1, 2), np.float32)
    for step in range(steps):
        action = made.act(at, explore=True)
        move = action if action.ndim > 1 else np.eye(3)[action - 5][:, :2]
        after = (0.9 * at + 0.1 * move).astype(np.float32)
        end = np.array([step in ended])
        columns = at, action, np.full(1, REAL, np.float32), after, end, ~end & False
        made.observe(Transition(*map(torch.as_tensor, columns)))
        said.append(dict(made.update()))
        at = after if not end[0] else np.zeros((1, 2), np.float32)
    return said


class Recorded:
    """Keeps the batches that a learner gets."""

    def __init__(self, learner):
        self.learner, self.batches = learner, []

    def __getattr__(self, name):
        return getattr(self.learner, name)

    def update(self, batch, **settings):
        self.batches.append(batch)
        return self.learner.update(batch, **settings)


@pytest.mark.parametrize(
    "share, size, real",
    [(0.0, 20, 0), (0.05, 20, 1), (0.5, 20, 10), (1.0, 20, 20), (0.29, 100, 29), (0.05, 256, 12)],
)
def test_every_batch_has_its_share_of_real_transitions(share, size, real):
    made = make(real=share, batch=size)
    made.learner = Recorded(made.learner)
    walk(made, 35)
    batches = made.learner.batches
    assert len(batches) == 15
    counts = {int((batch.reward == REAL).sum()) for batch in batches}
    others = {int((batch.reward == IMAGINED).sum()) for batch in batches}
    assert (counts, others) == ({real}, {size - real})


def test_the_model_is_refitted_on_schedule_and_judged_on_steps_that_it_has_not_seen():
    said = walk(make(), 45)
    fits = [step for step, metrics in enumerate(said, 1) if "model_loss" in metrics]
    assert fits == [20, 30, 40]
    judged = [step for step, metrics in enumerate(said, 1) if "model_error" in metrics]
    assert judged == [30, 40]
    metrics = said[29]
    assert metrics["rollout_steps"] == metrics["rollout_horizon"] == 1
    assert 0 <= metrics["model_calibration"] <= 1


def test_without_imagined_steps_nothing_is_imagined():
    made = make(real=1.0)
    said = walk(made, 30)
    assert made.imagined is None
    assert not any("rollout_steps" in metrics for metrics in said)


def test_rollouts_grow_linearly():
    config = DynaSchedule(horizon=1, last_horizon=15, horizon_from=20_000, horizon_to=150_000)
    lengths = {steps: config.length(steps) for steps in (0, 20_000, 85_000, 150_000, 10**6)}
    assert lengths == {0: 1, 20_000: 1, 85_000: 8, 150_000: 15, 10**6: 15}
    assert DynaSchedule(horizon=3).length(10**6) == 3


def test_the_last_bursts_are_kept():
    made = make(retain=2, horizon=1, last_horizon=3, horizon_from=29, horizon_to=30)
    walk(made, 20)
    assert (made.imagined.capacity, len(made.imagined)) == (60, 30)
    walk(made, 10)  # rollouts are now three times as long
    assert (made.imagined.capacity, len(made.imagined)) == (180, 30 + 90)
    walk(made, 10)
    assert len(made.imagined) == 180


@pytest.mark.parametrize("spec", [BOX, CHOICE], ids=["box", "choice"])
@pytest.mark.parametrize("actions", ["policy", "buffer", "random"])
def test_the_first_action_is_the_policys_that_of_the_buffer_or_random(spec, actions):
    made = make(spec, actions=actions, starts=400)
    walk(made, 20)
    imagined, real = made.imagined.all(), made.replay.all()
    pairs = {(*map(float, s), *np.ravel(a)) for s, a in zip(real.obs, real.action, strict=True)}
    drawn = {
        (*map(float, s), *np.ravel(a)) for s, a in zip(imagined.obs, imagined.action, strict=True)
    }
    assert {p[:2] for p in drawn} == {p[:2] for p in pairs}  # starts are real states
    assert (drawn <= pairs) == (actions == "buffer")
    if spec is CHOICE:
        assert imagined.action.dtype == torch.int64
        assert set(imagined.action.tolist()) == {0, 1, 2}
    else:
        low, high = (torch.as_tensor(x) for x in (BOX.action.low, BOX.action.high))
        assert ((imagined.action >= low) & (imagined.action <= high)).all()


def test_a_known_reward_of_indices_is_asked_with_the_environments_indices():
    spec = CHOICE._replace(reward=lambda obs, action, next_obs: 10.0 * action)
    made = make(spec, base="dqn", actions="random", starts=200)
    walk(made, 20)
    rows = made.imagined.all()
    assert rows.reward.tolist() == [10.0 * (index + 5) for index in rows.action.tolist()]
    assert set(rows.action.tolist()) == {0, 1, 2}


def test_the_model_is_still_judged_once_the_buffer_is_full():
    said = walk(make(capacity=25), 45)
    judged = [step for step, metrics in enumerate(said, 1) if "model_error" in metrics]
    assert judged == [30, 40]


@pytest.mark.parametrize("base", ["sac", "dqn"])
def test_learners_of_indices_imagine_with_indices(base):
    made = make(CHOICE, base=base)
    said = walk(made, 30)
    assert made.updates == 10
    assert math.isfinite(said[-1]["critic_loss"])


def test_a_known_termination_ends_imagined_episodes():
    spec = BOX._replace(terminated=lambda obs: obs[..., 0] > -math.inf)
    made = make(spec, horizon=4)
    said = walk(made, 20)[-1]
    assert (said["rollout_steps"], said["rollout_terminated"]) == (1.0, 1.0)
    assert made.imagined.all().terminated.all()


def test_a_termination_that_is_not_known_is_learned():
    spec = BOX._replace(ends=True, reward=None)
    suited = agent("mbpo").Config.suited(spec)
    assert suited.model.learn_termination and suited.model.learn_reward
    made = make(spec, module=mbpo)
    said = walk(made, 40, ended={5, 12, 25})
    assert 0 <= said[29]["model_error_termination"] <= 1
    with pytest.raises(ValueError, match=r"termination is not known: .*model.learn_termination"):
        make(spec, model=MODEL)
    with pytest.raises(ValueError, match=r"reward is not known: .*model.learn_reward"):
        make(spec, model=dataclasses.replace(MODEL, learn_reward=False, learn_termination=True))


class Exact:
    """s' = s + a with std 0.5 and the reward |a|, as both of its two members say."""

    members, noise_shape = 2, (2,)

    def __init__(self, obs_size=2, action_size=2, *, generator=None, off=0.0, std=0.5):
        self.off, self.std = off, std

    def encode(self, obs, *, state=None, action=None):
        return obs

    decode = encode

    def predict(self, state, action):
        reward = action.norm(dim=-1, keepdim=True)
        mean = torch.cat((state + action + self.off, reward), -1)
        return Gaussian(mean, torch.full_like(mean, self.std))

    def step(self, state, action, *, noise):
        gaussian = self.predict(state, action)
        ends = torch.zeros(state.shape[:-1], dtype=torch.bool)
        return Step(gaussian.mean[..., :-1], gaussian.mean[..., -1], ends)

    def fit(self, data, *, generator):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def judged(model, noise, constants=()):
    learned = LearnedModel(BOX, replace(MODEL, constants=constants), generator=seeded())
    learned.model = model
    state, action = torch.randn(2, 4000, 2, generator=seeded(1))
    after = state + action + noise * torch.randn(4000, 2, generator=seeded(2))
    if constants:  # they change in every second step
        after[::2, list(constants)] = state[::2, list(constants)]
    ends = torch.zeros(4000, dtype=torch.bool)
    return learned.judge(Transition(state, action, action.norm(dim=-1), after, ends, ends))


def test_a_calibrated_model_is_said_to_be_calibrated():
    said = judged(Exact(), 0.5)
    unit = math.sqrt(1 + 0.5**2)  # std of the change
    assert said["error_0"] == pytest.approx(0.5 / unit, rel=0.05)
    assert said["error_reward"] == 0
    assert said["error"] == pytest.approx(2 / 3 * 0.5 / unit, rel=0.05)
    states_alone = 2 / 3 * 0 + 1 / 3 * (1 - 0.5)  # the reward is certain, so its share is 1
    assert said["calibration"] == pytest.approx(states_alone, abs=0.01)
    entropy = 2 * (0.5 * math.log(2 * math.pi * math.e * 0.25))
    assert said["nll"] == pytest.approx(entropy + 0.5 * math.log(2 * math.pi * 0.25), rel=0.02)


def test_a_model_too_sure_of_itself_is_said_to_be():
    assert judged(Exact(std=0.1), 0.5)["calibration"] > judged(Exact(), 0.5)["calibration"]
    assert judged(Exact(off=1.0), 0.5)["error"] > 2 * judged(Exact(), 0.5)["error"]


def test_constants_and_steps_in_which_they_change_are_not_judged():
    said = judged(Exact(off=0.1), 0.5, constants=(1,))
    assert "error_1" not in said
    unit = math.sqrt(1 + 0.5**2)
    assert said["error_0"] == pytest.approx(math.hypot(0.5, 0.1) / unit, rel=0.05)


def test_imagined_states_that_blow_up_are_dropped_and_counted():
    made = make(horizon=3)
    walk(made, 19)
    made.learned.model = Exact(off=1e6)
    said = walk(made, 1)[-1]
    assert (said["rollout_dropped"], said["rollout_steps"]) == (1.0, 0.0)
    assert len(made.imagined) == 0
    walk(made, 3)  # batches are real then


BAD = {
    "a horizon below one": ({"horizon": 0}, "horizon"),
    "a share above one": ({"real": 1.5}, "real"),
    "a share below zero": ({"real": -0.1}, "real"),
    "n-step returns": ({"n_step": 3}, "n_step"),
    "priorities": ({"priority": 0.6}, "priority"),
    "a schedule backwards": ({"horizon_from": 10, "horizon_to": 5}, "horizon_to"),
    "an unknown action": ({"actions": "best"}, "actions"),
    # rollouts of different starts have no common mean
    "moment matching": ({"propagation": "moment"}, "propagation.*ts1.*tsinf.*moment"),
    "one particle of all members": ({"propagation": "expectation"}, "propagation"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_settings_are_refused(name):
    settings, culprit = BAD[name]
    with pytest.raises(ValueError, match=culprit) as error:
        make(**settings)
    assert "\n" not in str(error.value)


def test_plans_start_with_the_first_fit_and_end_with_the_episode():
    plan = MPCConfig(PlannerConfig(horizon=2, population=8, iterations=1, elites=2), particles=2)
    said = walk(make(planning=True, plan=plan), 40, ended={25, 35})
    counts = {step: metrics["plans"] for step, metrics in enumerate(said) if "plans" in metrics}
    assert counts == {25: 6, 35: 10}  # the model is fitted after step 19


def test_plans_need_particles_that_the_members_share():
    plan = MPCConfig(PlannerConfig(horizon=2), particles=3)
    with pytest.raises(ValueError, match=r"plan.particles: .*2 members, got 3"):
        make(planning=True, plan=plan)
    with pytest.raises(ValueError, match="a planner needs a policy in a box of actions"):
        make(CHOICE, planning=True)


def test_wrong_spaces_are_refused():
    for base in ("td3", "ddpg"):
        with pytest.raises(ValueError, match=rf"dyna with {base}: needs actions that are in a"):
            make(CHOICE, base=base)
    with pytest.raises(ValueError, match="dyna with dqn: needs actions that are indices"):
        make(BOX, base="dqn")
    images = BOX._replace(obs=gymnasium.spaces.Box(0, 255, (9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="dyna with sac: a model of images"):
        make(images)


def test_a_buffer_smaller_than_a_batch_is_sampled_with_replacement():
    made = make(learning_starts=2, batch=64, real=1.0)
    said = walk(made, 4)
    assert made.updates == 2 and math.isfinite(said[-1]["critic_loss"])


def test_bounds_are_wider_than_the_data_by_the_margin():
    learned, replay = LearnedModel(BOX, MODEL, generator=seeded()), Replay(10, 2, 2)
    at = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    ends = torch.zeros(3, dtype=torch.bool)
    replay.append(Transition(at, at, torch.zeros(3), at + 1, ends, ends))
    learned.fit(replay, margin=2.0, generator=seeded())
    low, high = learned.bounds
    assert low.tolist() == [0 - 2 * 3, 5 - 2 * 1] and high.tolist() == [3 + 2 * 3, 6 + 2 * 1]


# Rules of trust.


@pytest.mark.parametrize("trust", ["macura", "infoprop"])
def test_a_rule_of_trust_ends_rollouts_and_says_its_limits(trust):
    """Rollouts of one step with a limit at the median of first steps: about half are halted."""
    settings = {
        "macura": {"macura": MacuraConfig(factor=1.0, quantile=0.5)},
        "infoprop": {"infoprop": InfopropConfig(step=0.5, total=1.0, steps=1000)},
    }[trust]
    first = {"macura": "policy", "infoprop": "buffer"}[trust]
    made = make(trust=trust, horizon=1, starts=400, retain=2, actions=first, **settings)
    said = [metrics for metrics in walk(made, 40) if "rollout_halted" in metrics]
    assert len(said) == 3
    # each of both dimensions of a state may end a rollout of infoprop
    assert 0.3 < said[0]["rollout_halted"] < 0.8
    assert said[0]["rollout_steps"] == pytest.approx(1 - said[0]["rollout_halted"], abs=1e-6)
    limits = {"macura": ["trust_kappa"], "infoprop": ["trust_step", "trust_total"]}[trust]
    assert all(metrics[name] > 0 for metrics in said for name in limits)
    # the buffer holds exactly the last two bursts
    sizes = [round(metrics["rollout_steps"] * 400) for metrics in said]
    assert len(made.imagined) == sum(sizes[-2:])


def test_infoprop_rolls_models_whose_own_noise_has_another_size():
    """A conditional VAE draws its latents too, which the fused prediction needs not."""
    model = ConditionalConfig(members=2, hidden=(8,), epochs=2, batch=16)
    made = make(trust="infoprop", model=model, horizon=2)
    assert made.learned.model.noise_shape != (2,)
    said = walk(made, 20)[-1]
    assert math.isfinite(said["trust_total"]) and said["rollout_dropped"] == 0


def test_a_limit_that_nothing_exceeds_halts_nothing():
    made = make(trust="macura", macura=MacuraConfig(factor=1e9), horizon=3)
    said = walk(made, 30)
    assert said[19]["rollout_halted"] == 0 and said[19]["rollout_steps"] == 3


def test_settings_of_trust_that_do_not_fit_are_refused():
    plain = dataclasses.replace(MODEL, probabilistic=False)
    with pytest.raises(ValueError, match="trust: macura needs model.probabilistic and two members"):
        DynaSchedule(trust="macura", model=plain)
    with pytest.raises(ValueError, match="trust: infoprop needs model.probabilistic and two memb"):
        DynaSchedule(trust="infoprop", model=dataclasses.replace(MODEL, elites=1))
    with pytest.raises(ValueError, match="quantile"):
        MacuraConfig(quantile=1.5)


def test_variants_of_mbpo_are_rules_of_trust():
    config = mbpo.Config(macura=MacuraConfig(30.0), last_horizon=15)
    found = varied("mbpo", config, "macura")
    assert (found.trust, found.horizon, found.last_horizon) == ("macura", 10, None)
    assert found.macura.factor == 30.0
    found = varied("mbpo", config, "infoprop")
    assert (found.trust, found.horizon, found.starts) == ("infoprop", 100, 10_000)
