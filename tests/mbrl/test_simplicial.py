"""Simplicial normalisation, and the encoders that end in it."""

import numpy as np
import pytest
import torch
from torch import nn

from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.simplicial import SimplicialEncoder
from mbrl.nn import simnorm

IMAGES = ImageConfig(network="nature", features=6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def encoder(shape, seed=0, **settings):
    chosen = {"group": 4, "hidden": (7,), "images": IMAGES} | settings
    return SimplicialEncoder(shape, 12, **chosen, generator=seeded(seed))


def test_groups_are_every_zth_number_and_sum_to_one():
    x = torch.randn(5, 3, 12, generator=seeded())
    groups = simnorm(x, 4).view(5, 3, 4, 3)
    torch.testing.assert_close(groups.sum(-2), torch.ones(5, 3, 3))
    assert (groups > 0).all()


def test_a_group_is_the_softmax_of_its_numbers():
    x = np.log([[1.0, 5.0, 3.0, 5.0]])  # groups (1, 3) and (5, 5)
    found = simnorm(torch.tensor(x), 2)
    np.testing.assert_allclose(found, [[0.25, 0.5, 0.75, 0.5]], rtol=1e-12)


def test_large_numbers_do_not_overflow():
    found = simnorm(torch.tensor([1e4, 0.0, -1e4, 0.0]), 2)
    assert found.tolist() == [1.0, 0.5, 0.0, 0.5]


@pytest.mark.parametrize("group", [0, 5, -2])
def test_a_group_that_does_not_divide_is_refused(group):
    with pytest.raises(ValueError, match=f"group: want a divisor of the 12 numbers, got {group}"):
        simnorm(torch.zeros(2, 12), group)


@pytest.mark.parametrize("shape", [(5,), (40, 40, 3)])
def test_latent_states_lie_on_simplices_whatever_the_observations(shape):
    net = encoder(shape)
    obs = torch.randn(2, 3, *shape, generator=seeded(1)) * 50
    obs = obs.to(torch.uint8) if len(shape) == 3 else obs
    latent = net(obs)
    assert latent.shape == (2, 3, 12)
    torch.testing.assert_close(latent.view(2, 3, 4, 3).sum(-2), torch.ones(2, 3, 3))
    torch.testing.assert_close(net(obs[1, 2]), latent[1, 2])


def test_vectors_go_through_layers_with_layer_norm_and_mish():
    net = encoder((5,))
    plain = nn.Sequential(
        nn.Linear(5, 7), nn.LayerNorm(7), nn.Mish(), nn.Linear(7, 12), nn.LayerNorm(12)
    )
    with torch.no_grad():
        for at, layer in ((0, 0), (3, 1)):
            plain[at].weight.copy_(net.layers.weights[layer][0].T)
            plain[at].bias.copy_(net.layers.biases[layer].flatten())
    x = torch.randn(9, 5, generator=seeded(1))
    want = plain(x).view(9, 4, 3).softmax(1).view(9, 12)
    torch.testing.assert_close(net(x), want, atol=1e-6, rtol=1e-5)


def test_weights_are_drawn_only_from_the_generator():
    before = torch.get_rng_state()
    first, again, other = (encoder((40, 40, 3), seed) for seed in (0, 0, 1))
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.layers.weights[0], other.layers.weights[0])
    assert torch.equal(before, torch.get_rng_state())


def test_a_latent_size_that_is_no_multiple_of_the_group_is_refused():
    with pytest.raises(ValueError, match="group: want a divisor of the 12 latent numbers, got 5"):
        encoder((5,), group=5)
