import math

import pytest
import torch
from torch import nn

from mbrl.nn import ACTIVATIONS, StackedMLP, stacked_mlp

MODULES = {"silu": nn.SiLU, "relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def member(net, e):
    """Member e as plain torch layers."""
    layers = []
    for weight, bias in zip(net.weights, net.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        linear.weight.data, linear.bias.data = weight[e].T.clone(), bias[e, 0].clone()
        layers += [linear, MODULES[net.activation]()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("gradients", [True, False])
def test_a_stack_is_its_members_side_by_side(activation, gradients):
    net = StackedMLP(3, (4, 16, 8, 2), activation=activation, generator=seeded())
    for bias in net.biases:
        nn.init.normal_(bias, generator=seeded(1))
    x = torch.randn(3, 7, 4, generator=seeded(2))
    kept = x.clone()
    with torch.set_grad_enabled(gradients):
        out = net(x)
    assert out.shape == (3, 7, 2)
    assert torch.equal(x, kept)
    for e in range(3):
        torch.testing.assert_close(out[e], member(net, e)(x[e]), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_members():
    net = StackedMLP(2, (3, 8, 1), generator=seeded())
    x = torch.randn(2, 5, 3, generator=seeded(1), requires_grad=True)
    net(x).square().sum().backward()
    for e in range(2):
        alone, y = member(net, e), x.detach()[e].clone().requires_grad_()
        alone(y).square().sum().backward()
        torch.testing.assert_close(x.grad[e], y.grad)
        torch.testing.assert_close(net.weights[0].grad[e], alone[0].weight.grad.T)
        torch.testing.assert_close(net.biases[1].grad[e, 0], alone[2].bias.grad)


def test_a_hand_worked_output():
    weights = [torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[2.0], [3.0]]])]
    biases = [torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[-1.0]]])]
    # relu(2 + 0.5) = 2.5 and relu(-2 + 0.5) = 0, so 2 · 2.5 + 3 · 0 - 1
    out = stacked_mlp(torch.tensor([[[2.0]]]), weights, biases, "relu")
    assert out.item() == 4.0


def test_weights_start_as_pets_draws_them():
    net = StackedMLP(8, (64, 200, 1), generator=seeded())
    for weight, inputs in zip(net.weights, (64, 200), strict=True):
        std = 1 / (2 * math.sqrt(inputs))
        assert weight.abs().max() <= 2 * std
        # a normal cut at two std has 0.8796 of its std
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.05)
    assert all(not bias.any() for bias in net.biases)
    again = StackedMLP(8, (64, 200, 1), generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(net.weights, again.weights, strict=True))
    assert not torch.equal(net.weights[0][0], net.weights[0][1])


def test_reset_draws_what_a_new_net_would_have():
    net = StackedMLP(3, (2, 4, 1), generator=seeded())
    nn.init.ones_(net.biases[0])
    net.reset(generator=seeded(9))
    fresh = StackedMLP(3, (2, 4, 1), generator=seeded(9))
    for a, b in zip(net.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("members", "sizes", "activation", "message"),
    [
        (0, (2, 3), "silu", "members and sizes must be >= 1, got 0"),
        (2, (2,), "silu", r"members and sizes must be >= 1, got 2 and \(2,\)"),
        (2, (2, 0, 1), "silu", r"got 2 and \(2, 0, 1\)"),
        (2, (2, 1), "gelu", "activation 'gelu' is unknown; take one of .*'silu'"),
    ],
)
def test_bad_settings_are_refused(members, sizes, activation, message):
    with pytest.raises(ValueError, match=message):
        StackedMLP(members, sizes, activation=activation, generator=seeded())
