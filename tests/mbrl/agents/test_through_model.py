"""DHMBPO and SVG: what is done when, and which imagined states are learned from."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch

from experiments.presets import preset
from mbrl.agents import agent, varied
from mbrl.agents.through_model import States
from mbrl.dynamics import Analytic, NormedEnsembleConfig
from mbrl.types import Spec, Transition

BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,))
SPEC = Spec(gymnasium.spaces.Box(-np.inf, np.inf, (2,)), BOX, ends=False, episode_steps=6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def config(name="dhmbpo", learner=(), **settings):
    start = agent(name).Config()
    own = dataclasses.replace(start.learner, hidden=(8,), discount=0.9, **dict(learner))
    model = NormedEnsembleConfig(
        members=2, hidden=(8,), patience=1, epochs=1, batch=8, learn_reward=True
    )
    given = {"learning_starts": 10, "fit_every": 5, "batch": 6}
    if name == "dhmbpo":
        given |= {"starts": 6, "critic_updates": 1, "updates": 1, "first": 1}
    return dataclasses.replace(start, learner=own, model=model, **given | settings)


def made(name="dhmbpo", learner=(), spec=SPEC, **settings):
    return agent(name).make(spec, config(name, learner, **settings), generator=seeded())


def go(own, steps, seed=3):
    """Rows of noise, one environment; the metrics of each step."""
    g, said = seeded(seed), []
    for _ in range(steps):
        obs, after = 5 + 2 * torch.randn(2, 1, 2, generator=g)
        action = 2 * torch.rand(1, 2, generator=g) - 1
        never = torch.zeros(1, dtype=torch.bool)
        own.observe(Transition(obs, action, after[:, 0], after, never, never))
        said.append(dict(own.update()))
    return said


def test_iterations_have_as_many_updates_as_the_settings_say():
    own = made(critic_updates=2, updates=4, first=3, visit_every=3)
    said = go(own, 20)
    due = [step for step, metrics in enumerate(said, start=1) if metrics]
    assert due == [10, 15, 20]
    assert [said[step - 1]["updates"] for step in due] == [14, 20, 26]
    assert own.fits == 3 and own.learner.updates == 26
    for name in ("model_loss", "rollout_steps", "rollout_reward", "critic_loss", "actor_loss"):
        assert all(name in said[step - 1] for step in due)
    assert "model_error" not in said[9] and "model_error" in said[14]


def test_an_iteration_forgets_the_moments_of_the_optimiser(monkeypatch):
    own = made(critic_updates=1, updates=1, first=1)
    starts = []
    restart = own.learner.restart
    monkeypatch.setattr(own.learner, "restart", lambda: (starts.append(own.updates), restart()))
    go(own, 15)
    assert starts == [0, 2]
    steps = own.learner.state_dict()["critic"]["steps"]
    assert float(steps) == 2 and float(own.learner.state_dict()["actor"]["steps"]) == 1


def test_svg_updates_once_a_step_from_real_transitions():
    own = made("svg", log_every=5)
    said = go(own, 20)
    assert own.updates == 10 and own.fits == 3
    assert [step for step, metrics in enumerate(said, start=1) if "q" in metrics] == [15, 20]


@pytest.mark.parametrize("batch, rows", [(1, 2), (5, 6), (6, 6)])
def test_a_batch_of_svg_is_rounded_up_to_a_multiple_of_the_members(batch, rows, monkeypatch):
    own, seen = made("svg", batch=batch), []
    learn = own.learner.update
    monkeypatch.setattr(
        own.learner, "update", lambda b, **named: seen.append(len(b.reward)) or learn(b, **named)
    )
    go(own, 12)
    assert seen == [rows] * 2


def test_the_models_weights_need_a_gradient_in_fits_alone(monkeypatch):
    own, seen = made(critic_updates=1, updates=1), []
    fit = own.model.fit

    def spied(*given, **named):
        seen.append({part.requires_grad for part in own.model.parameters()})
        return fit(*given, **named)

    monkeypatch.setattr(own.model, "fit", spied)
    before = [part.clone() for part in own.model.parameters()]
    go(own, 10)
    assert seen == [{True}]
    assert not any(part.requires_grad for part in own.model.parameters())
    after = own.model.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["dhmbpo", "svg"])
def test_networks_see_states_scaled_by_the_data_at_the_last_fit(name):
    own = made(name)
    go(own, 14)
    rows = own.replay.all().obs[:10]
    torch.testing.assert_close(own.learner.inputs.mean, rows.mean(0))
    torch.testing.assert_close(own.learner.inputs.std, rows.std(0, correction=0))
    torch.testing.assert_close(
        own.policy(rows, generator=seeded(), explore=False),
        own.learner.policy(rows, generator=seeded(), explore=False),
    )
    plain = made(name, normalise_obs=False)
    go(plain, 10)
    assert not plain.learner.inputs.mean.any()


def counting(own, ends_at):
    """A world that counts steps in both dimensions, and ends at a number."""
    own.learned.model = Analytic(lambda s, a, _: s + 1, torch.zeros(2), torch.zeros(2))
    own.learned.terminated = lambda after: after[..., 0] >= ends_at
    never = torch.zeros(4, dtype=torch.bool)
    start = torch.zeros(4, 2)
    own.replay.append(Transition(start, start, start[:, 0], start, never, never))


def test_a_distribution_rollout_keeps_the_states_before_the_end():
    own, states = made(visit_steps=5), States(100, 2)
    counting(own, ends_at=3)
    said = own.visit(states)
    kept = states.sample(5000, generator=seeded())
    assert len(states) == 6 * 3 and kept[:, 0].unique().tolist() == [0.0, 1.0, 2.0]
    assert said["rollout_steps"] == 3 and said["rollout_terminated"] == 1
    assert said["rollout_dropped"] == 0


def test_a_distribution_rollout_stops_where_states_leave_their_bounds():
    own, states = made(visit_steps=5), States(100, 2)
    counting(own, ends_at=100)
    own.learned.bounds = torch.tensor([-1.0, -1.0]), torch.tensor([9.0, 2.5])
    said = own.visit(states)
    assert len(states) == 6 * 3 and said["rollout_dropped"] == 1
    assert said["rollout_steps"] == 2 and said["rollout_terminated"] == 0


def test_a_ring_of_states_keeps_the_last():
    states = States(5, 1)
    for start in (0, 3, 6):
        states.append(torch.arange(start, start + 3.0)[:, None])
    assert len(states) == 5
    assert states.sample(999, generator=seeded()).unique().tolist() == [4, 5, 6, 7, 8]
    states.append(torch.arange(20.0)[:, None])
    assert states.sample(999, generator=seeded()).unique().tolist() == [15, 16, 17, 18, 19]


def test_batches_are_rounded_up_to_a_multiple_of_the_members():
    own = made(batch=7, starts=3, critic_updates=1, updates=1, first=1)
    drawn = []
    improve = own.learner.improve
    own.learner.improve = lambda rows, **named: (drawn.append(len(rows)), improve(rows, **named))[1]
    go(own, 10)
    assert drawn == [8, 8]


@pytest.mark.parametrize("name", ["dhmbpo", "svg"])
def test_the_reward_is_learned_even_where_it_is_known(name):
    known = SPEC._replace(reward=lambda obs, action, after: after[..., 0], ends=True)
    suited = agent(name).Config.suited(known).model
    assert suited.learn_reward and suited.learn_termination
    _, others = preset(name, "Reacher-v5", lambda: known, known=(True, True))
    assert others.model.learn_reward and not others.model.learn_termination


def test_the_variant_of_plain_backpropagation_has_no_critics():
    start = agent("svg").Config()
    bptt = varied("svg", start, "bptt")
    assert not bptt.learner.tail and bptt.learner.horizon == 25
    own = made("svg", {"tail": False, "horizon": 3})
    go(own, 12)
    assert own.learner.critic is None


def test_plans_through_the_model_end_in_the_critics_value():
    start = agent("svg").Config()
    plan = dataclasses.replace(
        start.plan, particles=2, planner=dataclasses.replace(start.plan.planner, population=8)
    )
    own = made("svg", planning=True, plan=plan)
    go(own, 10)
    assert own.act(np.zeros((1, 2), np.float32), explore=False).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dhmbpo", {"scale_reward": True}, "scale_reward: the model's rewards are not scaled"),
        ("svg", {"n_step": 3}, "n_step, priority, hindsight"),
        ("dhmbpo", {"learner": {"critic_steps": "real"}}, "learner.critic_steps: no real trans"),
        ("dhmbpo", {"train_every": 2}, "train_every: updates are done at each fit"),
        ("svg", {"planning": True, "learner": {"tail": False}}, "planning: plans need the value"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        config(name, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["dhmbpo", "svg"])
def test_spaces_that_do_not_fit_are_refused(name):
    choice = SPEC._replace(action=gymnasium.spaces.Discrete(3))
    with pytest.raises(ValueError, match=f"{name}: needs actions that are in a bounded box"):
        made(name, spec=choice)
    image = SPEC._replace(obs=gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=f"{name}: a model of images is not learned here"):
        made(name, spec=image)
