"""What every agent promises to the loop that drives it. A new agent adds its maker to `MAKERS`."""

import numpy as np
import pytest
import torch

from mbrl.agents import PETS, PETSConfig, PlannerConfig, RandomAgent
from mbrl.dynamics import EnsembleConfig
from mbrl.types import Transition

OBS = 2
LOW, HIGH = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 0.5])


def pets(**settings):
    def make(seed=0):
        config = PETSConfig(
            planner=PlannerConfig(horizon=3, population=10, iterations=2, elites=2),
            model=EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True),
            random_steps=12, particles=2, **settings,
        )  # fmt: skip
        return PETS(OBS, LOW, HIGH, config, episode_steps=6, generator=seeded(seed))

    return make


MAKERS = {
    "pets": pets(),
    "pets open loop": pets(replan_every=0),
    "random": lambda seed=0: RandomAgent(LOW, HIGH, generator=seeded(seed)),
}
"""name -> make(seed) -> a fresh agent for OBS observations and the box [LOW, HIGH]."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def make(request):
    return request.param


class World:
    """A walk in the plane in episodes of six steps."""

    def __init__(self):
        self.at, self.steps = np.zeros(OBS, np.float32), 0

    def go(self, agent):
        action = agent.act(self.at, explore=True)
        after = (0.9 * self.at + 0.1 * action).astype(np.float32)
        self.steps += 1
        agent.observe(
            Transition(*map(torch.as_tensor, (self.at, action, float(after[0]), after)),
                       torch.tensor(False), torch.tensor(self.steps % 6 == 0))
        )  # fmt: skip
        self.at = after if self.steps % 6 else np.zeros(OBS, np.float32)
        return action, dict(agent.update())


def walk(agent, steps):
    world = World()
    return [world.go(agent) for _ in range(steps)]


def test_actions_are_arrays_within_bounds(make):
    for action, _ in walk(make(), 30):
        assert isinstance(action, np.ndarray) and action.shape == (2,)
        assert action.dtype == np.float32
        assert (action >= LOW.numpy()).all() and (action <= HIGH.numpy()).all()


def test_the_same_seed_gives_the_same_actions_and_another_others(make):
    global_state = torch.get_rng_state()
    first, again, other = (walk(make(seed), 24) for seed in (0, 0, 1))
    for (a, said), (b, says) in zip(first, again, strict=True):
        assert np.array_equal(a, b) and said == says
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))
    assert torch.equal(global_state, torch.get_rng_state())


@pytest.mark.parametrize("steps", [0, 3, 12, 21])
def test_saving_and_loading_give_the_same_next_actions(make, steps):
    agent, other, world, mirror = make(), make(7), World(), World()
    for _ in range(steps):
        world.go(agent)
    walk(other, 15)  # whatever it did before must not linger
    weights, state = agent.state_dict()
    other.load_state_dict({name: value.clone() for name, value in weights.items()}, state)
    mirror.at, mirror.steps = world.at.copy(), world.steps
    for _ in range(14):
        (a, said), (b, says) = world.go(agent), mirror.go(other)
        assert np.array_equal(a, b) and said == says


def test_a_state_is_tensors_and_plain_values(make, tmp_path):
    agent = make()
    walk(agent, 15)
    weights, state = agent.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    other = make(7)
    other.load_state_dict(weights, loaded)
    obs = np.zeros(OBS, np.float32)
    assert np.array_equal(agent.act(obs, explore=True), other.act(obs, explore=True))


def test_an_update_says_nothing_when_nothing_is_due(make):
    agent = make()
    assert agent.update() == {}
    history = walk(agent, 11)
    assert [said for _, said in history] == [{}] * 11
    agent = make()
    walk(agent, 12)
    assert agent.update() == {}  # it is done already


def test_updates_are_finite_numbers(make):
    for _, said in walk(make(), 24):
        assert all(isinstance(name, str) for name in said)
        assert np.isfinite([float(value) for value in said.values()]).all()


def test_a_controller_plays_without_touching_the_agent(make):
    agent, twin = make(), make()
    world, mirror = World(), World()
    for step in range(24):
        if step % 5 == 0:
            player = agent.controller(generator=seeded(3))
            player.reset()
            first = [player.act(world.at, explore=False) for _ in range(4)]
            player = agent.controller(generator=seeded(3))
            player.reset()
            again = [player.act(world.at, explore=False) for _ in range(4)]
            assert np.array_equal(first, again)
        assert np.array_equal(world.go(agent)[0], mirror.go(twin)[0])
