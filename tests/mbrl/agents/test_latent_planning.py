"""Planning in latent space: what the model is told, what is stored, and when it is fitted."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import MPCConfig, PlannerConfig, latent_pets
from mbrl.dynamics import RecurrentConfig
from mbrl.training.online import load_agent
from mbrl.types import Spec, Transition

IMAGE = (8, 8, 3)
CONFIG = latent_pets.Config(
    mpc=MPCConfig(
        PlannerConfig("cem", horizon=3, population=8, iterations=2, elites=2),
        propagation="expectation",
        noise=0.5,
    ),
    model=RecurrentConfig(
        latent=2, deterministic=4, width=4, hidden=(4,), channels=2, layers=2, batch=2, length=5,
        updates=2,
    ),
    random_steps=5,
)  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spec(**changes):
    start = Spec(
        gymnasium.spaces.Box(0, 255, IMAGE, np.uint8),
        gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32)),
        ends=False,
        episode_steps=10,
    )
    return start._replace(**changes)


def made(config=CONFIG, given=None):
    return latent_pets.make(spec() if given is None else given, config, generator=seeded())


def frames(count=1, seed=0):
    shape = count, *IMAGE
    return torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8).numpy()


def play(agent, steps, ends, count=1):
    """Steps in frames that mean nothing, each episode of `ends` steps; actions and metrics."""
    found = []
    for t in range(steps):
        obs = frames(count, t)
        action = agent.act(obs, explore=True)
        over = torch.full((count,), (t + 1) % ends == 0)
        after = torch.as_tensor(frames(count, t + 1))
        nothing = torch.zeros(count)
        given = torch.as_tensor(obs), torch.as_tensor(action), nothing, after, nothing > 0, over
        agent.observe(Transition(*given))
        found.append((action, dict(agent.update())))
    return found


def test_frames_are_stored_as_they_are_and_sampled_in_sequences_of_each_environment():
    agent = made()
    play(agent, 10, 10, count=3)
    found = agent.replay.sequences(4, 5, generator=seeded())
    assert found.obs.dtype == torch.uint8 and found.obs.shape == (4, 5, *IMAGE)
    assert torch.equal(found.obs[:, 1:], found.next_obs[:, :-1])


def test_the_model_filters_with_the_noisy_actions_that_were_taken():
    agent = made()
    play(agent, 10, 10)
    state = action = None
    for t in range(10, 14):
        obs = frames(1, t)
        with torch.no_grad():
            state = agent.model.encode(torch.as_tensor(obs[0]), state=state, action=action)
        action = torch.as_tensor(agent.act(obs, explore=True)[0])
        (controller,) = agent.playing.each
        assert torch.equal(controller.model_state, state)
        assert torch.equal(controller.last_action, action)
        assert not torch.equal(controller.state.plan.actions[0], action)
        assert not controller.model_state.requires_grad


def test_noise_is_in_halves_of_the_box_and_only_where_actions_explore():
    agent = made(replace(CONFIG, mpc=replace(CONFIG.mpc, replan_every=3)))
    play(agent, 10, 10)
    off = []
    for t in range(300):
        action = agent.act(frames(1, t), explore=True)[0]
        controller = agent.playing.each[0]
        plan = controller.state.plan.actions[controller.state.cursor - 1].numpy()
        off.append((action - plan) / np.array([1, 2], np.float32))
    inside = np.abs(np.array(off)) > 0
    assert 0.3 < np.array(off)[inside].std() < 0.55  # 0.5 where the box does not clip it
    player = agent.player(generator=seeded(1))
    action = player.act(frames(), explore=False)[0]
    assert np.array_equal(action, player.each[0].state.plan.actions[0].numpy())


def test_the_first_fit_waits_for_an_episode_as_long_as_a_sequence():
    agent = made()
    assert all(said == {} for _, said in play(agent, 12, 4))
    assert agent.fits == 0
    said = [said for _, said in play(agent, 6, 6)]
    assert agent.fits == 1 and "model_elbo" in said[-1]


def test_a_fit_waits_too_where_the_episodes_that_were_long_enough_are_overwritten():
    agent = made(replace(CONFIG, capacity=12))
    play(agent, 10, 10)
    assert agent.fits == 1
    play(agent, 16, 4)
    assert agent.fits == 2  # the first of these ends while the long one is still stored
    play(agent, 6, 6)
    assert agent.fits == 3


@pytest.mark.parametrize(
    ("config", "given", "said"),
    [
        (
            replace(CONFIG, model=replace(CONFIG.model, length=11)),
            spec(),
            "model.length: want at most the 10 steps of an episode, got 11",
        ),
        (replace(CONFIG, capacity=4), spec(), "capacity: want 5 or more, for one sequence, got 4"),
        (
            replace(CONFIG, mpc=replace(CONFIG.mpc, penalty=0.1)),
            spec(),
            "with penalty 0.1 needs a model that predicts a Gaussian, which RecurrentDynamics does",
        ),
        (
            replace(CONFIG, mpc=replace(CONFIG.mpc, propagation="moment", particles=4)),
            spec(),
            "propagation 'moment' with penalty 0 needs a model that predicts a Gaussian",
        ),
        (
            replace(CONFIG, mpc=MPCConfig(PlannerConfig("ilqr", horizon=3))),
            spec(),
            "ILQR needs a model with derivatives .* not a RecurrentDynamics",
        ),
        (CONFIG, spec(ends=True), "the termination is not known: set model.learn_termination"),
        (
            replace(CONFIG, model=replace(CONFIG.model, learn_reward=False)),
            spec(),
            "the reward is not known: set model.learn_reward",
        ),
        (CONFIG, spec(obs=gymnasium.spaces.Discrete(3)), "vector of numbers, not Discrete"),
        (
            replace(CONFIG, model=replace(CONFIG.model, layers=4)),
            spec(),
            "layers: 4 halvings need images of at least 16 x 16 pixels, got 8 x 8",
        ),
    ],
)
def test_what_it_cannot_learn_from_is_refused(config, given, said):
    with pytest.raises(ValueError, match=said) as raised:
        made(config, given)
    assert "\n" not in str(raised.value)


def test_an_agent_of_another_number_of_environments_or_another_camera_does_not_load():
    agent, other = made(), made(given=spec(obs=gymnasium.spaces.Box(0, 255, (12, 8, 3), np.uint8)))
    play(agent, 10, 10, count=2)
    again = made()
    again.load_state_dict(agent.state_dict())
    assert again.replay.environments == 2
    with pytest.raises(ValueError, match=r"want one of observations of shape \(12, 8, 3\)"):
        other.load_state_dict(agent.state_dict())


def test_a_run_of_several_environments_can_be_loaded():
    agent, again = made(), made()
    play(agent, 14, 10, count=3)
    load_agent(again, agent.state_dict())
    assert again.replay.environments == 3
    for own, other in zip(*(play(one, 8, 10, count=3) for one in (agent, again)), strict=True):
        assert np.array_equal(own[0], other[0]) and own[1] == other[1]
