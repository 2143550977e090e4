import numpy as np
import torch

from mbrl.agents.policies import PolicyPlayer
from mbrl.types import Player


def test_a_policy_player_acts_on_each_observation_as_float32():
    gain = torch.tensor([[1.0], [2.0]], requires_grad=True)

    def policy(state, *, generator, explore):
        noise = torch.randn(len(state), 1, generator=generator)
        return state @ gain + explore * noise

    def player(seed=0):
        return PolicyPlayer(policy, generator=torch.Generator().manual_seed(seed))

    assert isinstance(player(), Player)
    obs = np.array([[1.0, 1.0], [0.0, -1.0]])
    found = player().act(obs, explore=False)
    assert found.dtype == np.float32 and found.tolist() == [[3.0], [-2.0]]
    with torch.no_grad():
        gain.mul_(2)  # it shares the weights
    assert player().act(obs, explore=False).tolist() == [[6.0], [-4.0]]
    first, again, other = (player(seed).act(obs, explore=True) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
