"""Blocks of parameters compared with torch's own optimisers and modules."""

import copy

import pytest
import torch
from torch import nn

from mbrl.nn import Block, StackedMLP, Target, minimise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, **settings):
    return StackedMLP(2, (3, 8, 1), generator=seeded(seed), **settings)


def loss_of(net, x, y):
    return (net(x) - y).square().mean()


def data():
    return torch.randn(2, 16, 3, generator=seeded(1)), torch.randn(2, 16, 1, generator=seeded(2))


OPTIMISERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, (0.5, 0.99), weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, (0.5, 0.99), weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, alpha=0.99, weight_decay=0.01),
    "sgd": lambda p: torch.optim.SGD(p, 1e-2, weight_decay=0.01),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_block_moves_its_parameters_as_torch_does(kind):
    net, (x, y) = small(), data()
    other = copy.deepcopy(net)
    block = Block(net, learning_rate=1e-2, optimiser=kind, betas=(0.5, 0.99), weight_decay=0.01)
    optimiser = OPTIMISERS[kind](other.parameters())
    for _ in range(20):
        block.minimise(loss_of(net, x, y))
        optimiser.zero_grad()
        loss_of(other, x, y).backward()
        optimiser.step()
    for own, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_as_torch_does():
    net, (x, y) = small(), data()
    other = copy.deepcopy(net)
    block = Block(net, learning_rate=0.1, optimiser="sgd", clip=0.05)
    norm = block.minimise(loss_of(net, x, y))
    loss_of(other, x, y).backward()
    expected = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.05)
    torch.optim.SGD(other.parameters(), 0.1).step()
    assert expected > 0.05
    torch.testing.assert_close(norm, expected)
    for own, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("clip", [0.1, 1e6, None])
def test_blocks_with_one_loss_move_as_groups_of_one_torch_optimiser(clip):
    first, second, unused, (x, y) = small(0), small(1), small(2), data()
    others = copy.deepcopy([first, second, unused])
    blocks = [Block(first, learning_rate=1e-2), Block(second, learning_rate=1e-3)]
    blocks.append(Block(unused, learning_rate=1.0))
    groups = [
        {"params": o.parameters(), "lr": r} for o, r in zip(others, (1e-2, 1e-3, 1.0), strict=True)
    ]
    reference = torch.optim.Adam(groups)
    for _ in range(3):
        norm = minimise(loss_of(first, x, second(x) + y), blocks, clip=clip)
        reference.zero_grad()
        loss_of(others[0], x, others[1](x) + y).backward()
        parameters = [p for other in others for p in other.parameters()]
        if clip is None:
            assert norm == 0
        else:
            want = torch.nn.utils.clip_grad_norm_(parameters, clip)
            torch.testing.assert_close(norm, want)
        reference.step()
    for block, other in zip(blocks, others, strict=True):
        for own, wanted in zip(block.module.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(own, wanted, atol=1e-6, rtol=1e-4)


def test_the_fixed_twin_has_the_same_values_and_passes_gradients_to_its_inputs_only():
    net, (x, y) = small(), data()
    block = Block(net, learning_rate=0.1)
    block.minimise(loss_of(net, x, y))
    x = x.requires_grad_()
    assert torch.equal(block.fixed(x), net(x))
    given = block.value.grad.clone()
    block.fixed(x).sum().backward()
    assert x.grad is not None and (x.grad != 0).any()
    assert torch.equal(block.value.grad, given)


def test_the_fixed_twin_shares_running_moments():
    net = small(norm="batch")
    block = Block(net, learning_rate=0.1)
    net(torch.randn(2, 64, 3, generator=seeded()) + 5)
    own, theirs = dict(net.named_buffers()), dict(block.fixed.named_buffers())
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert len(own) == 4  # at the input, and of the hidden layer


def test_a_target_moves_a_share_of_the_way():
    net, (x, y) = small(), data()
    block = Block(net, learning_rate=0.1)
    target = Target(block)
    start = block.value.detach().clone()
    block.minimise(loss_of(net, x, y))
    assert torch.equal(target.value, start)
    target.follow(0.25)
    torch.testing.assert_close(target.value, 0.75 * start + 0.25 * block.value.detach())
    target.follow(1.0)
    torch.testing.assert_close(target.module(x), net(x))
    assert not target.module(x).requires_grad


def test_a_saved_block_goes_on_as_before():
    (x, y), first, second = data(), small(), small(7)
    block, other = (Block(net, learning_rate=1e-2) for net in (first, second))
    for _ in range(3):
        block.minimise(loss_of(first, x, y))
    other.load_state_dict(block.state_dict())
    for each, net in ((block, first), (other, second)):
        each.minimise(loss_of(net, x, y))
    assert torch.equal(block.value, other.value)


def test_the_state_of_another_module_is_refused_and_changes_nothing():
    block = Block(small(), learning_rate=1e-2)
    other = Block(StackedMLP(1, (3, 4, 1), generator=seeded()), learning_rate=1e-2)
    before = block.value.detach().clone()
    with pytest.raises(ValueError, match="value: want 82 numbers"):
        block.load_state_dict(other.state_dict())
    state = block.state_dict()
    state["mean"] = state["mean"] * torch.nan
    with pytest.raises(ValueError, match="mean: holds a number that is not finite"):
        block.load_state_dict(state)
    assert torch.equal(block.value, before)


def test_what_is_no_block_is_refused():
    with pytest.raises(ValueError, match="want parameters of one dtype"):
        Block(nn.Identity(), learning_rate=0.1)
    with pytest.raises(ValueError, match="optimiser 'adagrad' is unknown"):
        Block(small(), learning_rate=0.1, optimiser="adagrad")


def filled(net):
    """Other scales and shifts than 1 and 0."""
    with torch.no_grad():
        for norm in net.norms:
            norm.weight.uniform_(0.5, 2.0, generator=seeded(3))
            norm.bias.uniform_(-1.0, 1.0, generator=seeded(4))
    return net


@pytest.mark.parametrize("norm", ["layer", "batch", "batch-after"])
@pytest.mark.parametrize("training", [True, False])
def test_norms_are_those_of_torch(norm, training):
    net = filled(StackedMLP(2, (3, 8, 6, 1), norm=norm, activation="relu", generator=seeded()))
    x = 3 * torch.randn(2, 16, 3, generator=seeded(1)) + 1
    net(x)  # one batch for the running moments
    got = net.train(training)(x)
    for e in range(2):
        rows, layers, after = x[e], [*net.norms], norm == "batch-after"

        def normalised(rows, layer, e=e):
            if norm == "layer":
                done = nn.functional.layer_norm(rows, rows.shape[-1:])
                return done * layer.weight[e, 0] + layer.bias[e, 0]
            mean, variance = (
                (rows.mean(0), rows.var(0, correction=0))
                if training
                else (layer.mean[e, 0], layer.variance[e, 0])
            )
            scaled = (rows - mean) / (variance + 1e-5).sqrt()
            return scaled * layer.weight[e, 0] + layer.bias[e, 0]

        if norm != "layer":
            rows = normalised(rows, layers.pop(0))
        for k in range(2):
            rows = rows @ net.weights[k][e] + net.biases[k][e]
            rows = rows if after else normalised(rows, layers[k])
            rows = rows.relu()
            rows = normalised(rows, layers[k]) if after else rows
        expected = rows @ net.weights[2][e] + net.biases[2][e]
        torch.testing.assert_close(got[e], expected, rtol=1e-4, atol=1e-5)


def test_running_moments_approach_those_of_the_data():
    net = StackedMLP(1, (2, 4, 1), norm="batch-after", generator=seeded())
    draw = seeded(1)
    for _ in range(1500):
        net(torch.randn(1, 256, 2, generator=draw) * 3 + 5)
    first = net.norms[0]
    torch.testing.assert_close(first.mean, torch.full((1, 1, 2), 5.0), rtol=0, atol=0.1)
    torch.testing.assert_close(first.variance, torch.full((1, 1, 2), 9.0), rtol=0.05, atol=0)


def test_some_members_of_a_stack_have_the_outputs_that_all_have():
    for norm in (None, "layer"):
        net = StackedMLP(5, (3, 8, 8, 2), norm=norm, activation="mish", generator=seeded())
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(1)))
        x = torch.randn(1, 16, 3, generator=seeded(2))
        every = net(x.expand(5, -1, -1))
        for members in ([3], [4, 0], [0, 1, 2, 3, 4]):
            torch.testing.assert_close(net.only(members, x), every[members])
    with pytest.raises(ValueError, match="norm: want layer or None, got batch"):
        StackedMLP(2, (3, 8, 1), norm="batch", generator=seeded()).only([0], x)


def test_dropout_can_be_that_of_each_layer():
    net = StackedMLP(1, (2, 400, 400, 1), dropout=(0.5, 0.0), generator=seeded())
    net.resample(generator=seeded(1))
    dropped = []
    net._mask, plain = lambda x, share: dropped.append(share) or plain(x, share), net._mask
    net(torch.ones(1, 3, 2))
    assert dropped == [0.5]
    with pytest.raises(ValueError, match=r"dropout must be >= 0 and < 1, or 2 such numbers"):
        StackedMLP(1, (2, 4, 4, 1), dropout=(0.5,), generator=seeded())


def test_dropout_keeps_the_mean_and_draws_from_the_generator():
    net = StackedMLP(1, (1, 1000, 1), activation="relu", dropout=0.3, generator=seeded())
    with torch.no_grad():
        net.weights[0].fill_(1.0)
        net.weights[1].fill_(1 / 1000)
    x = torch.ones(1, 200, 1)
    with pytest.raises(ValueError, match="dropout: call resample"):
        net(x)
    outs = []
    for seed in (0, 0, 1):
        net.resample(generator=seeded(seed))
        outs.append(net(x))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    # each output is the mean of 1,000 masks of mean 1 and variance 0.3 / 0.7
    assert abs(outs[0].mean().item() - 1) < 4 * (0.3 / 0.7 / 200_000) ** 0.5
    assert outs[0].var().item() == pytest.approx(0.3 / 0.7 / 1000, rel=0.4)
    torch.testing.assert_close(net.eval()(x), torch.ones(1, 200, 1))


def test_unit_weights_do_not_change_what_a_normalised_network_says():
    net = StackedMLP(2, (3, 64, 64, 1), norm="batch", generator=seeded())
    x = torch.randn(2, 32, 3, generator=seeded(1))
    with torch.no_grad():
        net.biases[0].zero_()
        last, offset = net.weights[-1].norm(dim=1, keepdim=True), net.biases[-1]
        expected = (net(x) - offset) / last + offset  # the last layer is not normalised
        net.to_unit_weights()
        torch.testing.assert_close(net(x), expected, rtol=1e-2, atol=1e-3)
    for weight in net.weights:
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(2, weight.shape[-1]))


@pytest.mark.parametrize("init", ["pets", "uniform", "orthogonal"])
def test_initial_weights_have_the_stated_distribution(init):
    net = StackedMLP(2, (100, 50, 50, 10), init=init, last_gain=0.01, generator=seeded())
    first, last = net.weights[0], net.weights[-1]
    if init == "orthogonal":
        gram = first[0].T @ first[0]
        torch.testing.assert_close(gram, 2 * torch.eye(50), rtol=0, atol=1e-5)
        torch.testing.assert_close(last[1].T @ last[1], 1e-4 * torch.eye(10), rtol=0, atol=1e-8)
    else:
        most = 0.1
        assert first.abs().max() <= most and first.abs().max() > 0.98 * most
        std = {"uniform": most / 3**0.5, "pets": 0.88 * 0.05}[init]
        assert first.std().item() == pytest.approx(std, rel=0.03)
    assert bool((net.biases[0] != 0).all()) == (init == "uniform")
    assert not torch.equal(first[0], first[1])
