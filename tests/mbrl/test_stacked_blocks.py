"""Residual networks, compared with torch's own layers and with a block worked out by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from mbrl.nn import Scaling, StackedBlocks

SIZES = (3, 4, 4, 2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(members=2, sizes=SIZES, **settings):
    net = StackedBlocks(members, sizes, **settings, generator=seeded())
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    return net


def torchs(net, member):
    """The same network of one member, of torch's own modules."""

    def linear(weight):
        layer = nn.Linear(*weight.shape, bias=False)
        layer.weight.data = weight.data.T.clone()
        return layer

    def norm(own):
        layer = nn.BatchNorm1d(own.mean.shape[-1], momentum=0.01)
        layer.weight.data, layer.bias.data = own.weight[member, 0].data, own.bias[member, 0].data
        layer.running_mean, layer.running_var = own.mean[member, 0], own.variance[member, 0]
        return layer.train(net.training)

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    weights, norms = [linear(weight[member]) for weight in net.weights], map(norm, net.norms)
    layers = [next(norms), weights.pop(0)]
    while len(weights) > 1:
        up, wide, down, narrow = weights.pop(0), next(norms), weights.pop(0), next(norms)
        layers.append(Residual(up, wide, nn.ReLU(), down, narrow, nn.ReLU()))
    rms = nn.RMSNorm(net.rms.shape[-1], eps=1e-6)
    rms.weight.data = net.rms[member, 0].data
    last = weights.pop()
    last.bias = nn.Parameter(net.bias[member, 0].data)
    return nn.Sequential(*layers, rms, last)


@pytest.mark.parametrize("training", [True, False])
def test_every_member_is_a_network_of_torchs_own_layers(training):
    net = blocks(3).train(training)
    for norm in net.norms:
        nn.init.normal_(norm.mean, generator=seeded(7))
        nn.init.uniform_(norm.variance, 0.5, 2.0, generator=seeded(8))
    x = torch.randn(3, 16, 3, generator=seeded(1))
    out = copy.deepcopy(net)(x)
    assert out.shape == (3, 16, 2)
    for e in range(3):
        single = torchs(copy.deepcopy(net), e)
        torch.testing.assert_close(out[e], single(x[e]), rtol=1e-4, atol=1e-4)


def test_a_block_of_one_unit_by_hand():
    """In evaluation mode fresh norms change nothing: 2 -> x = 6 -> 6 + 4 · relu(5 · 6) = 126."""
    net = StackedBlocks(1, (1, 1, 1), expansion=1, generator=seeded()).eval()
    for weight, value in zip(net.weights, (3.0, 5.0, 4.0, 7.0), strict=True):
        weight.data.fill_(value)
    net.bias.data.fill_(0.5)
    for norm in net.norms:
        norm.variance.fill_(1 - 1e-5)
    # RMSNorm leaves only the sign of one number: 7 · 126 / 126 + 0.5
    torch.testing.assert_close(net(torch.tensor([[[2.0]]])), torch.tensor([[[7.5]]]))
    torch.testing.assert_close(net(torch.tensor([[[-2.0]]])), torch.tensor([[[-6.5]]]))
    two = StackedBlocks(1, (1, 2, 1), expansion=1, generator=seeded()).eval()
    first, up, down, last = two.weights
    first.data = torch.tensor([[[1.0, -1.0]]])
    up.data = down.data = torch.eye(2)[None]
    last.data = torch.tensor([[[1.0], [0.0]]])
    for norm in two.norms:
        norm.variance.fill_(1 - 1e-5)
    # (3, -3) -> (3 + 3, -3 + 0), of mean square 22.5
    out = two(torch.tensor([[[3.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[6 / math.sqrt(22.5)]]]))


def test_a_fold_of_some_members_is_the_scaled_network():
    net = blocks(3).eval()
    scaling = Scaling(
        torch.tensor([0.5, 2.0, 4.0]).double(), torch.tensor([3.0, 0.1]).double(),
        torch.randn(2, 1, 2, generator=seeded(4)).double(),
    )  # fmt: skip
    x = torch.randn(2, 5, 3, generator=seeded(1))
    out = net.fold(2, scaling)(x)
    for e in range(2):
        single = torchs(net, e)(x[e] / scaling.in_std.float())
        expected = single * scaling.scale.float() + scaling.shift[e].float()
        torch.testing.assert_close(out[e], expected, rtol=1e-4, atol=1e-4)


def test_unit_weights_have_the_lengths_of_flashsac():
    net = blocks()
    bias = net.bias.detach().clone()
    net.to_unit_weights()
    for weight in net.weights:
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(2, weight.shape[2]))
    for norm in net.norms:
        squares = (norm.weight.square() + norm.bias.square()).sum(-1)
        size = float(norm.weight.shape[-1])
        torch.testing.assert_close(squares, torch.full((2, 1), size), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.rms.square().mean(-1), torch.ones(2, 1), rtol=1e-4, atol=1e-4)
    assert torch.equal(net.bias, bias)


def test_weights_before_a_norm_may_be_scaled_without_a_change_of_the_outputs():
    net, x = blocks(), torch.randn(2, 16, 3, generator=seeded(1))
    before = copy.deepcopy(net)(x)
    for weight in list(net.weights)[1:-1]:
        weight.data *= 3.0
    torch.testing.assert_close(net(x), before, rtol=1e-3, atol=1e-3)


def test_rows_of_any_size_have_outputs_of_one_size():
    """RMSNorm bounds the features: |output - bias| <= sqrt(D) for unit weights."""
    net = blocks().eval()
    net.to_unit_weights()
    net.rms.data.fill_(1.0)
    x = torch.randn(2, 50, 3, generator=seeded(1))
    for size in (1.0, 1e6):
        features = (net(size * x) - net.bias).detach()
        assert float(features.abs().max()) <= math.sqrt(4) + 1e-3


def test_reset_draws_the_weights_of_a_new_net_and_orthogonal_ones():
    net = blocks()
    net.reset(generator=seeded(9))
    fresh = StackedBlocks(2, SIZES, generator=seeded(9))
    for a, b in zip(net.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
    up = fresh.weights[1][0]
    torch.testing.assert_close(up @ up.T, torch.eye(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("members", "sizes", "settings", "message"),
    [
        (0, SIZES, {}, "members, expansion and sizes must be >= 1, with one block or more: got 0"),
        (1, (3, 2), {}, r"one block or more: got 1, 4 and \(3, 2\)"),
        (1, (3, 4, 5, 2), {}, r"sizes: blocks must have one width, got \(4, 5\)"),
        (1, SIZES, {"activation": "gelu"}, "activation 'gelu' is unknown; take one of"),
        (1, SIZES, {"expansion": 0}, "got 1, 0 and"),
    ],
)
def test_bad_settings_are_refused(members, sizes, settings, message):
    with pytest.raises(ValueError, match=message):
        StackedBlocks(members, sizes, **settings, generator=seeded())
