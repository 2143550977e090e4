import copy
import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

import mbrl.nn.affine
import mbrl.nn.stacked
from mbrl.dynamics import EnsembleConfig
from mbrl.nn import ACTIVATIONS, Block, Net, StackedMLP, stacked_mlp
from mbrl.nn.affine import affine

MODULES = {"silu": nn.SiLU, "relu": nn.ReLU, "elu": nn.ELU, "mish": nn.Mish, "tanh": nn.Tanh}


def test_every_activation_can_be_set():
    assert set(get_args(get_type_hints(EnsembleConfig)["activation"])) == set(ACTIVATIONS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["batched", "oneDNN"])
def products(request, monkeypatch):
    """Both ways to multiply; if torch has no oneDNN they are the same."""
    least = math.inf if request.param == "batched" else 0
    monkeypatch.setattr(mbrl.nn.affine, "ONEDNN", mbrl.nn.affine.onednn_works())
    for name in ("ONEDNN_ROWS", "ONEDNN_WORK", "ONEDNN_WORK_BACKWARD"):
        monkeypatch.setattr(mbrl.nn.affine, name, least)


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
def test_a_stack_computes_the_outputs_of_its_members(products, activation, gradients):
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


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_gradients_equal_those_of_the_members(products, activation):
    net = StackedMLP(2, (3, 8, 8, 1), activation=activation, generator=seeded())
    x = torch.randn(2, 5, 3, generator=seeded(1), requires_grad=True)
    net(x).square().sum().backward()
    for e in range(2):
        alone, y = member(net, e), x.detach()[e].clone().requires_grad_()
        alone(y).square().sum().backward()
        torch.testing.assert_close(x.grad[e], y.grad)
        for layer in range(3):
            linear = alone[2 * layer]
            torch.testing.assert_close(net.weights[layer].grad[e], linear.weight.grad.T)
            torch.testing.assert_close(net.biases[layer].grad[e, 0], linear.bias.grad)


@pytest.mark.parametrize("wanted", ["inputs", "weights"])
def test_gradients_of_inputs_or_weights_alone_equal_those_of_both(products, wanted):
    """They equal those computed for both at once."""
    net = StackedMLP(2, (3, 8, 1), generator=seeded())
    x = torch.randn(2, 5, 3, generator=seeded(1), requires_grad=True)
    both = torch.autograd.grad(net(x).sum(), [x, *net.parameters()])
    if wanted == "inputs":
        net.requires_grad_(False)
        assert torch.equal(torch.autograd.grad(net(x).sum(), [x])[0], both[0])
    else:
        alone = torch.autograd.grad(net(x.detach()).sum(), list(net.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(alone, both[1:], strict=True))


def test_gradients_can_be_differentiated_again(products):
    """The Hessian against differences of the gradient."""
    net = StackedMLP(2, (3, 8, 1), generator=seeded())
    x = torch.randn(2, 5, 3, generator=seeded(1), requires_grad=True)
    along = torch.randn(x.shape, generator=seeded(2))

    def slope(at, create_graph=False):
        return torch.autograd.grad(net(at).square().sum(), at, create_graph=create_graph)[0]

    (bent,) = torch.autograd.grad((slope(x, True) * along).sum(), x)
    ends = [slope((x + sign * 1e-2 * along).detach().requires_grad_()) for sign in (1, -1)]
    torch.testing.assert_close(bent, (ends[0] - ends[1]) / 2e-2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_an_affine_layer_has_the_values_and_gradients_of_its_members(products, bias):
    draw = seeded(3)
    x, weight = torch.randn(3, 5, 4, generator=draw), torch.randn(3, 4, 2, generator=draw)
    offset = torch.randn(3, 1, 2, generator=draw) if bias else None
    given = [part.requires_grad_() for part in (x, weight, offset) if part is not None]
    out = affine(x, weight, offset)
    want = torch.stack([x[e] @ weight[e] for e in range(3)])
    want = want if offset is None else want + offset
    assert torch.allclose(out, want, atol=1e-6)
    found = torch.autograd.grad(out.square().sum(), given, create_graph=True)
    expected = torch.autograd.grad(want.square().sum(), given, create_graph=True)
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own, other, atol=1e-5)
    twice, other = (torch.autograd.grad(g[0].square().sum(), weight)[0] for g in (found, expected))
    assert torch.allclose(twice, other, atol=1e-5)
    fixed = torch.autograd.grad(affine(x, weight.detach(), None).sum(), x)[0]
    assert torch.allclose(fixed, weight.sum(-1).unsqueeze(1).expand_as(x), atol=1e-6)


def test_the_output_of_a_small_net_equals_a_hand_computed_value():
    weights = [torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[2.0], [3.0]]])]
    biases = [torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[-1.0]]])]
    # relu(2 + 0.5) = 2.5 and relu(-2 + 0.5) = 0, so 2 · 2.5 + 3 · 0 - 1
    out = stacked_mlp(torch.tensor([[[2.0]]]), weights, biases, "relu")
    assert out.item() == 4.0


def test_initial_weights_are_distributed_as_in_pets():
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


def test_reset_draws_the_weights_of_a_new_net():
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


def test_a_net_needs_forward_and_one_without_reset_raises_an_error():
    class Half(Net):
        members = 2

    with pytest.raises(TypeError, match="abstract method '?forward"):
        Half()

    class Whole(Half):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="warm must be True: Whole cannot draw fresh weights"):
        Whole().reset(generator=torch.Generator())


def test_a_block_has_the_gradient_of_backward_in_place_of_the_last_one():
    """Also where a parameter is constant, or not in the loss."""
    alone = StackedMLP(2, (3, 8, 1), generator=seeded())
    alone.weights[1].requires_grad_(False)
    alone.unused = nn.Parameter(torch.ones(4))
    net = copy.deepcopy(alone)
    block = Block(net, learning_rate=0.1, optimiser="sgd")
    for seed in (1, 2):
        x = torch.randn(2, 5, 3, generator=seeded(seed))
        found = block.gradient(net(x).square().sum())
        alone.zero_grad()
        alone(x).square().sum().backward()
        wanted = [torch.zeros_like(p) if p.grad is None else p.grad for p in alone.parameters()]
        assert torch.equal(found, torch.cat([grad.flatten() for grad in wanted]))
    for own, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert own.grad is None or other.grad is None or torch.equal(own.grad, other.grad)
