"""`NormedMLP` and the ensemble that consists of them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mbrl.dynamics import NeuralDynamics, NormedEnsembleConfig
from mbrl.nn import NormedMLP, Scaling
from mbrl.nn.normed import kept
from mbrl.types import Transition

SIZES, EPS = (3, 8, 6, 2), (0.0, 1.0, 0.1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normed(dropout=(0.0, 0.0, 0.0), **settings):
    return NormedMLP(2, SIZES, eps=EPS, dropout=dropout, generator=seeded(), **settings)


def member(net, e):
    """Member e as plain torch layers."""
    layers = []
    for weight, bias, eps in zip(net.weights, net.biases, net.eps, strict=True):
        if eps:
            layers.append(nn.LayerNorm(weight.shape[1], eps=eps, elementwise_affine=False))
        linear = nn.Linear(*weight.shape[1:])
        linear.weight.data, linear.bias.data = weight[e].T.clone(), bias[e, 0].clone()
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def test_it_computes_the_outputs_and_the_gradients_of_its_members():
    net, x = normed(), torch.randn(2, 5, 3, generator=seeded(1)).requires_grad_()
    net(x).square().sum().backward()
    for e in range(2):
        own, rows = member(net, e), x[e].detach().requires_grad_()
        torch.testing.assert_close(net(x)[e], own(rows), rtol=1e-5, atol=1e-5)
        own(rows).square().sum().backward()
        torch.testing.assert_close(x.grad[e], rows.grad, rtol=1e-4, atol=1e-4)


def test_folding_scales_inputs_and_outputs():
    net, x = normed(), torch.randn(2, 5, 3, generator=seeded(1))
    in_std, scale = torch.tensor([0.1, 1.0, 7.0]), torch.tensor([3.0, 0.2])
    shift = torch.tensor([[[1.0, -1.0]], [[0.0, 2.0]]])
    folded = net.fold(1, Scaling(*(part.double() for part in (in_std, scale, shift[:1]))))
    wanted = member(net, 0)(x[0] / in_std) * scale + shift[0]
    torch.testing.assert_close(folded(x[:1])[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_norm_at_the_input_is_folded_too():
    net = NormedMLP(1, (3, 2), eps=(0.5,), dropout=(0.0,), generator=seeded())
    x, one = torch.randn(1, 4, 3, generator=seeded(1)), torch.ones(3, dtype=torch.double)
    folded = net.fold(1, Scaling(2 * one, one[:2], torch.zeros(1, 1, 2, dtype=torch.double)))
    torch.testing.assert_close(folded(x), net(x / 2))


@pytest.mark.parametrize("share", [0.01, 0.4])
def test_dropout_strikes_cells_independently_with_its_probability(share):
    """Means over many masks, within five standard errors of the binomial's."""
    g, masks = seeded(3), []
    for _ in range(2000):
        masks.append(kept(torch.empty(40, 5), share, generator=g) == 0)
    struck = torch.stack(masks).float()
    cells = struck.numel()
    error = math.sqrt(share * (1 - share) / cells)
    assert abs(float(struck.mean()) - share) < 5 * error
    counts = struck.sum((1, 2))
    assert float(counts.var()) == pytest.approx(200 * share * (1 - share), rel=0.2)
    pairs = (struck[:, :20] * struck[:, 20:]).mean()
    assert abs(float(pairs) - share**2) < 5 * math.sqrt(share**2 / (cells / 2))
    assert kept(torch.empty(4, 5), share, generator=g).max() == pytest.approx(1 / (1 - share))


def test_dropout_is_on_in_training_alone_and_keeps_the_mean():
    net = NormedMLP(1, (1, 4000, 1), eps=(0.0, 0.0), dropout=(0.5, 0.0), generator=seeded())
    x = torch.ones(1, 1, 1)
    net.eval()
    quiet = net(x)
    assert torch.equal(quiet, net(x))
    net.train()
    net.resample(generator=seeded(1))
    assert not torch.equal(net(x), net(x))
    linear = NormedMLP(1, (1, 20_000), eps=(0.0,), dropout=(0.3,), generator=seeded())
    linear.train()
    linear.resample(generator=seeded(1))
    wanted = (linear.weights[0] + linear.biases[0]).abs().mean()
    assert linear(x).abs().mean().item() == pytest.approx(wanted.item(), rel=0.02)


def test_dropout_without_a_generator_is_refused():
    net = normed(dropout=(0.1, 0.1, 0.0)).train()
    with pytest.raises(ValueError, match="dropout: call resample before"):
        net(torch.zeros(2, 1, 3))


def test_initial_weights_have_the_std_of_he_and_the_last_layer_may_begin_at_zero():
    net = NormedMLP(
        4, (100, 200, 1), eps=(0, 1), dropout=(0, 0), zero_last=True, generator=seeded()
    )
    assert net.weights[0].std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.02)
    assert net.biases[0].std().item() == pytest.approx(0.05, rel=0.1)
    assert not net.weights[1].any() and not net.biases[1].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": (1.0,)}, "eps must be 3 numbers, one a layer, got 1"),
        ({"dropout": (0.0, 0.0)}, "dropout must be 3 numbers, one a layer, got 2"),
        ({"dropout": (0.0, 1.0, 0.0)}, "dropout in"),
        ({"activation": "swish"}, "activation 'swish' is unknown"),
        ({"members": 0}, "members and sizes must be >= 1, got 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    given = {"members": 2, "eps": EPS, "dropout": (0.0, 0.0, 0.0)} | settings
    with pytest.raises(ValueError, match=message):
        NormedMLP(given.pop("members"), SIZES, **given, generator=seeded())


def test_the_settings_of_layers_are_those_of_dhmbpo():
    config = NormedEnsembleConfig(members=2, learn_reward=True)
    net = config.build(4, 3, generator=seeded())
    assert net.sizes == (4, 256, 256, 256, 3)
    assert net.eps == pytest.approx((0.0, 1.0, 0.1, 0.01))
    assert net.dropout == pytest.approx((0.0075, 0.005, 0.0025, 0.0))
    decay = config.decay(net)
    for layer, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        assert decay[net.weights[layer]] == decay[net.biases[layer]] == pytest.approx(1e-3 * share)


def test_patience_and_passes_are_in_units_of_the_logarithm_of_the_outputs(monkeypatch):
    """With nothing to learn every pass is a coin flip, so a fit ends by one of the two."""
    seen = {}

    def fit(self, loss, rows, config, **_):
        seen.update(patience=config.patience, epochs=config.epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr("mbrl.dynamics.heads.Trained.fit", fit)
    config = NormedEnsembleConfig(members=1, hidden=(4,), patience=10, epochs=20, learn_reward=True)
    model = NeuralDynamics(7, 1, config, generator=seeded())
    with pytest.raises(KeyboardInterrupt):
        model.fit(data(20, 7), generator=seeded())
    assert seen == {"patience": round(10 * math.log(8)), "epochs": round(20 * math.log(8))}


def data(count, size):
    g = seeded(5)
    obs = torch.randn(count, size, generator=g)
    action = torch.rand(count, 1, generator=g) * 2 - 1
    after = 0.9 * obs + 0.3 * torch.sin(obs.roll(1, -1)) + 0.2 * action
    ends = torch.zeros(count, dtype=torch.bool)
    return Transition(obs, action, after[:, 0] * action[:, 0], after, ends, ends)


def test_the_ensemble_learns_a_smooth_world():
    """Against the truth, on rows it has not seen; the noise is constant over inputs."""
    config = NormedEnsembleConfig(
        members=2, hidden=(32, 32), learn_reward=True, batch=64, patience=40, epochs=250
    )
    model = NeuralDynamics(2, 1, config, generator=seeded())
    every = data(900, 2)
    metrics = model.fit(Transition(*(x[:700] for x in every)), generator=seeded(1))
    test = Transition(*(x[700:] for x in every))
    mean, std = model.predict(*(x.expand(2, *x.shape) for x in (test.obs, test.action)))
    target = torch.cat((test.next_obs, test.reward[:, None]), -1)
    change = torch.cat((test.next_obs - test.obs, test.reward[:, None]), -1)
    error = (mean.mean(0) - target).square().mean(0) / change.var(0)
    assert (error < 0.05).all() and metrics["holdout_mse"] < 0.05
    assert torch.equal(std, std[:, :1].expand_as(std))


def test_a_fit_in_short_passes_has_as_many_updates_as_asked_for():
    config = NormedEnsembleConfig(
        members=1, hidden=(8,), batch=10, batches_per_epoch=3, epochs=4, patience=100, holdout=0,
        learn_reward=True,
    )  # fmt: skip
    small = replace(config, batches_per_epoch=None)
    epochs = round(4 * math.log(3))
    for own, updates in ((config, 3 * epochs), (small, 7 * epochs)):
        model = NeuralDynamics(2, 1, own, generator=seeded())
        assert model.fit(data(70, 2), generator=seeded())["updates"] == updates
