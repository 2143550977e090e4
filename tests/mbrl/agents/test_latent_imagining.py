"""Learning in latent space: which states are acted on and learned from, and when."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import latent_mbpo
from mbrl.dynamics import RecurrentConfig
from mbrl.learners.configs import SACConfig
from mbrl.training.online import load_agent
from mbrl.types import Spec, Transition

SPEC = Spec(
    gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
    gymnasium.spaces.Box(np.array([-1], np.float32), np.array([3], np.float32)),
    ends=False,
    episode_steps=10,
)
CONFIG = latent_mbpo.Config(
    model=RecurrentConfig(
        latent=2, deterministic=4, width=4, hidden=(4,), batch=2, length=5, updates=2
    ),
    learner=SACConfig(hidden=(8,), discount=0.9),
    random_steps=10, first_updates=3, fit_every=4, sequences=3, horizon=3, batch=8, updates=2,
)  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(**settings):
    return latent_mbpo.make(SPEC, replace(CONFIG, **settings), generator=seeded())


def observation(t, count=1):
    return np.stack([np.array([np.sin(t + k), np.cos(t)], np.float32) for k in range(count)])


def play(agent, steps, start=0, count=1):
    """Steps of episodes of ten; the metrics of each."""
    said = []
    for t in range(start, start + steps):
        obs, after = observation(t, count), observation(t + 1, count)
        action = agent.act(obs, explore=True)
        over = torch.full((count,), (t + 1) % 10 == 0)
        parts = obs, action, after[:, 0], after, np.zeros(count, bool), over
        agent.observe(Transition(*(torch.as_tensor(part) for part in parts)))
        said.append(dict(agent.update()))
    return said


def test_the_policy_acts_on_states_that_are_filtered_from_the_start_of_each_episode():
    agent = made(fit_every=1000)
    play(agent, 10, count=2)
    player = agent.player(generator=seeded(1))
    state = action = None
    for t in range(8):
        obs = torch.as_tensor(observation(t, 2))
        if t == 5:  # the second environment begins anew
            player.reset(np.array([False, True]))
        with torch.no_grad():
            fresh = agent.model.encode(obs)
            state = fresh if t == 0 else agent.model.encode(obs, state=state, action=action)
            if t == 5:
                state[1] = fresh[1]
            wanted = agent.learner.policy(state, generator=seeded(), explore=False)
        action = torch.as_tensor(player.act(obs.numpy(), explore=False))
        torch.testing.assert_close(action, wanted)


def test_real_steps_lie_between_filtered_states_and_imagined_ones_start_there():
    agent = made()
    play(agent, 30)
    data = agent.replay.sequences(3, 5, generator=seeded(2))
    agent.generator.manual_seed(2)
    real, imagined, said = agent.imagine()
    rows, branches = real.all(), imagined.all()
    assert len(rows.reward) == 15 and len(branches.reward) == 45
    assert torch.equal(rows.reward.view(3, 5), data.reward)
    assert torch.equal(rows.action.view(3, 5, 1), data.action)
    after, before = (part.view(3, 5, -1) for part in (rows.next_obs, rows.obs))
    assert torch.equal(after[:, :-1], before[:, 1:])
    starts = branches.obs.view(-1, 3, rows.obs.shape[-1])[:, 0]
    assert torch.equal(starts, rows.obs)
    memory = agent.model.config.deterministic
    step = agent.model.step(branches.obs[None], branches.action[None], noise=None)
    torch.testing.assert_close(step.state[0, :, :memory], branches.next_obs[:, :memory])
    assert said["rollout_steps"] == 3


def test_rollouts_end_where_a_known_termination_says_so_of_what_the_model_decodes():
    def out(obs):
        return obs[..., 0] > 0.22

    spec = SPEC._replace(terminated=out)
    agent = latent_mbpo.make(spec, CONFIG, generator=seeded())
    play(agent, 30)
    _, imagined, said = agent.imagine()
    rows = imagined.all()
    assert torch.equal(rows.terminated, out(agent.model.decode(rows.next_obs)))
    ends = int(rows.terminated.sum())
    assert 0 < ends < 15 and said["rollout_terminated"] == pytest.approx(ends / 15)


def test_updates_are_for_the_steps_since_the_last_fit_but_not_for_random_ones(monkeypatch):
    agent, updates, fits = made(), [], []
    learn, fit = agent._learn, agent.model.fit

    def learned(real, imagined, count):
        updates.append(count)
        return learn(real, imagined, count)

    def fitted(data, *, updates, generator):
        fits.append(updates)
        return fit(data, updates=updates, generator=generator)

    monkeypatch.setattr(agent, "_learn", learned)
    monkeypatch.setattr(agent.model, "fit", fitted)
    said = play(agent, 22)
    assert [t for t, now in enumerate(said) if now] == [9, 13, 17, 21]
    assert updates == [8, 8, 8, 8] and fits == [3, None, None, None]
    assert agent.fits == 4


def test_it_waits_where_the_episodes_that_were_long_enough_are_overwritten():
    agent = made(capacity=12)
    play(agent, 10)
    assert agent.fits == 1
    no, yes = torch.tensor([False]), torch.tensor([True])
    for t in range(30):
        obs, action = torch.as_tensor(observation(t)), torch.zeros(1, 1)
        agent.observe(Transition(obs, action, obs[:, 0], obs, no, yes if t % 4 == 3 else no))
        agent.update()
    assert agent.fits == 2  # at step 14 eight steps of the long episode are left, at 18 four


def test_step_sizes_fall_over_the_run():
    """Along a line, from the first to the last."""
    own = replace(CONFIG.learner, learning_rate=4e-3, last_learning_rate=1e-3)
    agent = made(learner=own)
    agent.run_for(40)
    play(agent, 22)
    assert agent.fits == 4  # at steps 10, 14, 18 and 22
    assert agent.learner.actor.learning_rate == pytest.approx(4e-3 - 22 / 40 * 3e-3)


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_batches_may_be_wholly_real_or_imagined(real):
    assert "q" in play(made(real=real), 10)[-1]


def test_rewards_must_be_learned():
    with pytest.raises(ValueError, match=r"model\.learn_reward: rollouts need rewards"):
        made(model=replace(CONFIG.model, learn_reward=False))


def episode_return(player, start):
    """Ten steps of a point that moves by half the action; rewards are minus the squared place."""
    at, total = np.array([[start]], np.float32), 0.0
    player.reset(np.array([True]))
    for _ in range(10):
        at = at + 0.5 * player.act(at, explore=False)
        total -= float(at[0, 0]) ** 2
    return total


def test_it_learns_to_bring_a_point_home_from_thirty_episodes():
    spec = SPEC._replace(
        obs=gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
        action=gymnasium.spaces.Box(np.array([-1], np.float32), np.array([1], np.float32)),
    )
    config = latent_mbpo.Config(
        model=RecurrentConfig(
            latent=4, deterministic=8, width=32, hidden=(32,), noise=0.1, reward_noise=0.1,
            free_nats=0.0, batch=16, length=10, updates=15, learning_rate=3e-3,
        ),
        learner=SACConfig(
            hidden=(32, 32), discount=0.8, learning_rate=3e-3, first_temperature=0.1
        ),
        random_steps=100, first_updates=150, fit_every=10, sequences=16, horizon=3, batch=64,
        updates=3,
    )  # fmt: skip
    agent, rng = latent_mbpo.make(spec, config, generator=seeded()), np.random.default_rng(0)
    for _ in range(30):
        at = rng.uniform(-2, 2, (1, 1)).astype(np.float32)
        for t in range(10):
            action = agent.act(at, explore=True)
            after = (at + 0.5 * action).astype(np.float32)
            parts = at, action, -(after[:, 0] ** 2), after, [False], [t == 9]
            agent.observe(Transition(*(torch.as_tensor(part) for part in parts)))
            agent.update()
            at = after
    player, starts = agent.player(generator=seeded(1)), np.linspace(-2, 2, 9)
    found = np.mean([episode_return(player, start) for start in starts])
    # the best policy moves by half a unit a step until it is home
    best = np.mean([-sum(max(0, abs(s) - 0.5 * k) ** 2 for k in range(1, 11)) for s in starts])
    stay = np.mean([-10 * s**2 for s in starts])
    assert found > best + 0.05 * (stay - best)


def test_a_run_of_several_environments_can_be_loaded():
    agent, again = made(), made()
    play(agent, 14, count=3)
    load_agent(again, agent.state_dict())
    assert again.replay.environments == 3
    for own, other in zip(
        *(play(one, 8, start=14, count=3) for one in (agent, again)), strict=True
    ):
        assert own == other
