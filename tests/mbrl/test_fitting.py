"""`fit` on linear nets, whose result is known."""

from dataclasses import replace

import pytest
import scipy.stats
import torch

from mbrl.dynamics import fitting
from mbrl.dynamics.fitting import FitConfig, fit
from mbrl.nn import StackedMLP

CONFIG = FitConfig(bootstrap=False, batch=1000, epochs=200, learning_rate=0.05)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def squares(net, x, y, *, weights=None, per_row=False):
    """Mean squared error."""
    losses = (net(x) - y).square().mean(-1)
    losses = losses if weights is None else losses * weights
    return losses if per_row else losses.mean(-1)


def linear(members=3):
    """E linear maps (2 -> 1) with a bias."""
    return StackedMLP(members, (2, 1), generator=seeded())


def problem(count=60):
    g = seeded(1)
    x = torch.randn(count, 2, generator=g)
    return x, x @ torch.tensor([[1.0], [-2.0]]) + 0.5 + torch.randn(count, 1, generator=g)


def coefficients(net, e):
    return torch.cat((net.weights[0][e], net.biases[0][e])).detach()


def nothing(rows):
    return [part[:0] for part in rows]


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_row_weights_give_weighted_least_squares(each, bootstrap):
    """Against the normal equations of the weighted problem, member by member."""
    rows, g = problem(), seeded(2)
    shape = (3, 60) if each else (60,)
    weights = torch.empty(shape).exponential_(generator=g)
    net = linear()
    config = replace(CONFIG, bootstrap=bootstrap, epochs=600, learning_rate=0.02)
    fit(net, squares, rows, nothing(rows), config, weights=weights, generator=seeded(3))
    # one group, so its own generator draws the resample first
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=seeded(3))))
    drawn = torch.randint(60, (3, 60), generator=own)
    index = drawn if bootstrap else torch.arange(60).expand(3, 60)
    for e in range(3):
        x, y = (part[index[e]].double() for part in rows)
        root = weights.expand(3, 60)[e][index[e]].double().sqrt().unsqueeze(-1)
        x = torch.cat((x, torch.ones(60, 1)), -1)
        wanted = torch.linalg.lstsq(root * x, root * y).solution
        torch.testing.assert_close(coefficients(net, e).double(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@pytest.mark.parametrize("work", [0.0, float("inf")])
def test_updates_and_decay_equal_those_of_the_torch_optimiser(monkeypatch, optimiser, work):
    """Twenty updates on all rows against torch.optim on a copy, decay on the weights alone."""
    monkeypatch.setattr(fitting, "STACKED_WORK", work)
    rows, net, copy = problem(), linear(), linear()
    config = replace(CONFIG, optimiser=optimiser, epochs=20)
    decay = {net.weights[0]: 0.3}
    fit(net, squares, rows, nothing(rows), config, decay=decay, generator=seeded(3))
    kind = torch.optim.AdamW if optimiser == "adamw" else torch.optim.Adam
    groups = [
        {"params": copy.weights.parameters(), "weight_decay": 0.3},
        {"params": copy.biases.parameters(), "weight_decay": 0.0},
    ]
    theirs = kind(groups, lr=config.learning_rate)
    for _ in range(20):
        theirs.zero_grad()
        squares(copy, *(part.expand(3, -1, -1) for part in rows)).sum().backward()
        theirs.step()
    for a, b in zip(net.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Paired:
    """A rule by a paired test over held-out rows; keeps only significantly better weights."""

    per_row = True

    def __init__(self):
        self.seen = []

    def __call__(self, loss, best):
        self.seen.append((loss, best.clone()))
        gain = (best - loss).nan_to_num(posinf=1.0)
        share = gain.mean(-1) / (gain.std(-1) / gain.shape[1] ** 0.5 + 1e-12)
        return share > 1.3, share > 1.2


def test_a_stopping_rule_may_compare_held_out_rows():
    """The rule receives each row's loss now and in the best pass, and decides what is kept."""
    (x, y), net, rule = problem(80), linear(), Paired()
    rows, held = (x[:60], y[:60]), (x[60:], y[60:])
    config = replace(CONFIG, epochs=400, patience=5)
    fitted = fit(net, squares, rows, held, config, stop=rule, generator=seeded(3))
    assert len(rule.seen) < 400
    assert all(loss.shape == best.shape == (3, 20) for loss, best in rule.seen)
    assert rule.seen[0][1].isinf().all()
    for e in range(3):
        kept = rule.seen[int(fitted.epoch[e]) - 1][0][e]
        assert fitted.score[e] == kept.mean()
        assert torch.equal(rule.seen[-1][1][e], kept)
        losses = squares(net, *(part.expand(3, -1, -1) for part in held), per_row=True)[e]
        assert torch.equal(losses, kept)


def test_a_parameter_without_gradient_is_not_changed():
    rows, net = problem(), linear()
    net.biases[0].requires_grad_(False)
    fit(net, squares, rows, nothing(rows), CONFIG, generator=seeded(3))
    assert not net.biases[0].any() and net.weights[0].abs().min() > 0.5
    assert net.weights[0].requires_grad and not net.biases[0].requires_grad


def test_the_net_keeps_its_parameters_and_has_no_gradients_left():
    """Parameters are fitted in place."""
    rows, net = problem(), linear()
    held = list(net.parameters())
    fit(net, squares, rows, nothing(rows), replace(CONFIG, epochs=2), generator=seeded(3))
    assert all(a is b for a, b in zip(held, net.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in held)


@pytest.mark.parametrize("count", [2, 5, 40, 2000])
def test_the_paired_rule_is_the_t_test(count):
    g = seeded(4)
    best = torch.randn(6, count, generator=g)
    shift = torch.tensor([-1.0, -0.2, -0.02, 0.0, 0.02, 1.0])[:, None]
    loss = best + shift + 0.5 * torch.randn(6, count, generator=g)
    p = scipy.stats.ttest_rel(loss.double(), best.double(), axis=1, alternative="less").pvalue
    better, renewed = fitting.Paired()(loss, best)
    assert better.tolist() == (p < 0.1).tolist() and renewed.tolist() == (p < 0.5).tolist()
    assert better.any() and not renewed.all()


def test_the_paired_rule_decides_where_there_is_no_spread():
    best = torch.ones(4, 3)
    best[3] = torch.inf
    loss = torch.tensor([[0.5], [1.0], [1.5], [9.0]]).expand(4, 3)
    better, renewed = fitting.Paired()(loss, best)
    assert better.tolist() == renewed.tolist() == [True, False, False, True]
    better, renewed = fitting.Paired()(loss[:, :1], best[:, :1])
    assert better.tolist() == renewed.tolist() == [True, False, False, True]


@pytest.mark.parametrize("work", [0.0, float("inf")])
def test_averaged_weights_lie_nearer_to_least_squares(monkeypatch, work):
    """Against the normal equations: minibatches of 4 leave noise, of which an average has less."""
    monkeypatch.setattr(fitting, "STACKED_WORK", work)
    rows = problem()
    design = torch.cat((rows[0], torch.ones(60, 1)), -1)
    wanted = torch.linalg.lstsq(design, rows[1]).solution
    errors = {}
    for average in (0.0, 0.99):
        net = linear(40)
        config = replace(CONFIG, batch=4, epochs=60, learning_rate=0.02, average=average)
        fit(net, squares, rows, nothing(rows), config, generator=seeded(3))
        found = torch.stack([coefficients(net, e) for e in range(40)])
        errors[average] = float((found - wanted).square().mean().sqrt())
    assert errors[0.99] < 0.5 * errors[0.0]


@pytest.mark.parametrize("stop", ["improvement", "paired"])
def test_the_score_is_that_of_the_averaged_weights(stop):
    rows, held, net = problem(), problem(20), linear()
    config = replace(CONFIG, batch=8, epochs=20, average=0.9, stop=stop)
    fitted = fit(net, squares, rows, held, config, generator=seeded(3))
    with torch.no_grad():
        losses = squares(net, *(part.expand(3, -1, -1) for part in held))
    torch.testing.assert_close(fitted.score, losses)


def test_an_average_of_weights_is_the_sum_that_its_definition_gives():
    """Weights after 1, 2, 3 updates: a' = a + (w - a) (1 - min(share, n / (n + 9)))."""
    rows, weights = problem(), []
    for epochs in (1, 2, 3):
        net = linear()
        fit(net, squares, rows, nothing(rows), replace(CONFIG, epochs=epochs), generator=seeded(3))
        weights.append(net.weights[0].detach().clone())
    wanted = linear().weights[0].detach().clone()
    for n, weight in enumerate(weights, 1):
        wanted += (weight - wanted) * (1 - min(0.15, n / (n + 9)))
    net, config = linear(), replace(CONFIG, epochs=3, average=0.15)
    fit(net, squares, rows, nothing(rows), config, generator=seeded(3))
    torch.testing.assert_close(net.weights[0].detach(), wanted)


def test_exponential_row_weights_spread_members_as_the_bootstrap_of_bayes():
    """The variance of a weighted mean is that of the data over n + 1 (Rubin 1981)."""
    rows = torch.zeros(50, 1), torch.randn(50, 1, generator=seeded(1))
    config = replace(CONFIG, row_weights="exponential", epochs=400)
    net = StackedMLP(400, (1, 1), generator=seeded())
    fit(net, squares, rows, nothing(rows), config, generator=seeded(3))
    means = net.biases[0].detach().flatten()
    assert float(means.mean()) == pytest.approx(float(rows[1].mean()), abs=0.03)
    wanted = float(rows[1].var(correction=0)) / 51
    assert float(means.var()) == pytest.approx(wanted, rel=0.2)
