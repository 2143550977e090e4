"""Norms over the batch, compared with torch's own, with numbers by hand and with differences."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mbrl.nn import StackedMLP
from mbrl.nn.stacked import WARM_UP, BatchNorm, BatchRenorm


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def renorm(batches=WARM_UP, mean=0.0, variance=1.0, members=1, size=1):
    norm = BatchRenorm(members, size)
    norm.batches.fill_(batches)
    norm.mean.fill_(mean)
    norm.variance.fill_(variance)
    return norm


@pytest.mark.parametrize("norm", ["batch", "batch-after", "renorm-after"])
def test_a_stack_with_batch_norms_is_a_sequence_of_torchs_layers(norm):
    """In training and, with the running moments of that, in evaluation; renorm within warm-up."""
    net = StackedMLP(2, (3, 8, 6, 2), activation="relu", norm=norm, generator=seeded())
    eps = 1e-3 if norm == "renorm-after" else 1e-5
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    x = torch.randn(2, 16, 3, generator=seeded(1))
    after = torch.randn(2, 5, 3, generator=seeded(2))
    for e in range(2):
        own = [nn.BatchNorm1d(size, eps=eps, momentum=0.01) for size in (3, 8, 6)]
        layers, norms = [nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)], iter(own)
        for theirs, ours in zip(own, net.norms, strict=True):
            theirs.weight.data, theirs.bias.data = ours.weight[e, 0].data, ours.bias[e, 0].data
        for k, layer in enumerate(layers):
            layer.weight.data, layer.bias.data = net.weights[k][e].T, net.biases[k][e, 0].data
        order = [next(norms)]
        for layer in layers[:-1]:
            inner = [nn.ReLU(), next(norms)]
            order += [layer, *(inner if norm.endswith("after") else reversed(inner))]
        stack = nn.Sequential(*order, layers[-1])
        fresh = copy.deepcopy(net)
        torch.testing.assert_close(fresh(x)[e], stack(x[e]), rtol=1e-4, atol=1e-4)
        # torch's running variance is that of an unbiased estimate, ours the batch's own
        for theirs, ours in zip(own, fresh.norms, strict=True):
            torch.testing.assert_close(theirs.running_mean, ours.mean[e, 0], rtol=1e-4, atol=1e-5)
            theirs.running_var = (theirs.running_var - 0.99) * 15 / 16 + 0.99
        torch.testing.assert_close(
            fresh.eval()(after)[e], stack.eval()(after[e]), rtol=1e-4, atol=1e-4
        )


def test_renormalised_batches_get_what_evaluation_gives_while_the_limits_hold():
    norm = renorm(members=2, size=3, mean=0.4, variance=2.0)
    nn.init.normal_(norm.weight, generator=seeded(1))
    nn.init.normal_(norm.bias, generator=seeded(2))
    x = torch.randn(2, 50, 3, generator=seeded(3))
    expected = copy.deepcopy(norm).eval()(x)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_the_limits_of_renormalisation_by_hand():
    """x = (6, 10): μ = 8, σ² = 4. σ' = 1: r = 2, d = 8 > 5. σ' = 0.1: r = 20 > 3, d = 80 > 5."""
    x = torch.tensor([[[6.0], [10.0]]])
    # (x - μ) / σ = ∓1, so y = ∓r + d
    wide = renorm(variance=1.0 - 1e-3)(x).flatten()
    torch.testing.assert_close(wide, torch.tensor([3.0, 7.0]), rtol=1e-3, atol=0)
    narrow = renorm(variance=0.01 - 1e-3)(x).flatten()
    torch.testing.assert_close(narrow, torch.tensor([2.0, 8.0]), rtol=1e-3, atol=0)
    # σ' = 20: r = 0.1 < 1/3; μ' = 208: d = -10 < -5
    least = renorm(variance=400.0, mean=208.0)(x).flatten()
    torch.testing.assert_close(least, torch.tensor([-5 - 1 / 3, -5 + 1 / 3]), rtol=1e-3, atol=0)


def test_renormalisation_begins_after_the_warm_up_and_its_moments_run_from_the_start():
    plain, norm = BatchNorm(1, 2), renorm(batches=WARM_UP - 2, size=2)
    for k in range(4):
        x = 3 + 2 * torch.randn(1, 400, 2, generator=seeded(k))
        same = torch.allclose(plain(x), norm(x), atol=1e-3)
        assert same == (k < 2)
        torch.testing.assert_close(norm.mean, plain.mean)
        torch.testing.assert_close(norm.variance, plain.variance)
    assert int(norm.batches) == WARM_UP + 2


def test_the_gradient_takes_the_corrections_for_constants():
    """Compared with differences of the formula with r and d as they are at x."""
    x = torch.randn(1, 6, 1, generator=seeded(), dtype=torch.float64) + 0.5
    weights = np.arange(6.0)

    def loss(rows, r, d):
        std = np.sqrt(rows.var() + 1e-3)
        return float((weights * ((rows - rows.mean()) / std * r + d)).sum())

    rows = x.flatten().numpy()
    r = np.clip(np.sqrt((rows.var() + 1e-3) / (4 + 1e-3)), 1 / 3, 3)
    d = np.clip((rows.mean() - 1) / np.sqrt(4 + 1e-3), -5, 5)
    steps = 1e-6 * np.eye(6)
    expected = [(loss(rows + s, r, d) - loss(rows - s, r, d)) / 2e-6 for s in steps]
    norm = renorm(mean=1.0, variance=4.0).double()
    x.requires_grad_()
    out = norm(x).flatten() @ torch.as_tensor(weights)
    assert out.item() == pytest.approx(loss(rows, r, d))
    out.backward()
    np.testing.assert_allclose(x.grad.flatten().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_reset_forgets_the_batches():
    net = StackedMLP(2, (3, 4, 1), norm="renorm-after", generator=seeded())
    fresh = copy.deepcopy(net.state_dict())
    net(torch.randn(2, 8, 3, generator=seeded(1)))
    assert int(net.norms[0].batches.sum()) == 2
    net.reset(generator=seeded())
    for name, value in net.state_dict().items():
        assert torch.equal(value, fresh[name])
