import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mbrl.dynamics import Ensemble, EnsembleConfig, fitting
from mbrl.nn import Net
from mbrl.types import Transition
from mbrl.uncertainty import calibration_curve, calibration_error, spread

LEVELS = torch.linspace(0.05, 0.95, 19)
CONFIG = EnsembleConfig(members=4, hidden=(48, 48), batch=128, epochs=40, patience=15)
FEW = replace(CONFIG, batch=32, epochs=150, patience=30)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_std(x):
    """The noise is four times as large on the right as on the left."""
    return 0.05 + 0.15 * torch.sigmoid(8 * x)


def mean_change(x, a):
    return 0.3 * torch.sin(3 * x) + 0.5 * a


def data(count, seed=0):
    """A one-dimensional walk whose noise depends on the place."""
    g = seeded(seed)
    x, a = (2 * torch.rand(count, 1, generator=g) - 1 for _ in range(2))
    after = x + mean_change(x, a) + noise_std(x) * torch.randn(count, 1, generator=g)
    return Transition(x, a, after[:, 0] ** 2, after, after[:, 0] > 0.8, torch.zeros(count) > 0)


def made(config=CONFIG, obs=1, action=1, seed=0):
    return Ensemble(obs, action, config, generator=seeded(seed))


def fitted(count, config=CONFIG, seed=0):
    model = made(config, seed=seed)
    return model, model.fit(data(count, seed), generator=seeded(seed + 1))


@pytest.fixture(scope="module")
def learned():
    """An ensemble fitted to 3000 steps, for several tests."""
    return fitted(3000)[0]


def rows(model, *parts):
    return [part.expand(model.members, -1, -1) for part in parts]


def by_hand(model, state, action):
    """Mean and std of the change of obs (and reward), and the logit, by the plain nets."""
    values = {name: value.double() for name, value in model.state_dict().items()}
    layers, size, count = len(model.config.hidden) + 1, model.heads.size, model.members
    unit = values["inputs.std"].where(values["inputs.std"] > 0, torch.ones(()))
    x = (torch.cat((state, action), -1).double() - values["inputs.mean"]) / unit
    for layer in range(layers):
        x = x @ values[f"net.weights.{layer}"][:count] + values[f"net.biases.{layer}"][:count]
        if layer < layers - 1:
            x = {"silu": F.silu, "tanh": torch.tanh}[model.config.activation](x)
    mean = values["targets.mean"] + values["targets.std"] * x[..., :size]
    std = torch.zeros_like(mean)
    if model.config.homoscedastic:
        log_var = values["heads.log_var"][:count].expand_as(mean)
        std = (0.5 * log_var).exp() * values["targets.std"]
    elif model.config.probabilistic:
        high, low = (values[f"heads.{name}_log_var"][:count] for name in ("max", "min"))
        log_var = high - F.softplus(high - x[..., size : 2 * size])
        std = (0.5 * (low + F.softplus(log_var - low))).exp() * values["targets.std"]
    return mean, std, x[..., -1]


# Learning


def test_a_known_noise_is_recovered(learned):
    """Mean within 0.03 and std within 15 % of the truth, averaged over the range of the data."""
    x = torch.linspace(-0.9, 0.9, 37).unsqueeze(-1)
    mean, std = learned.predict(*rows(learned, x, torch.zeros_like(x)))
    truth = x + mean_change(x, torch.zeros_like(x))
    assert (mean.mean(0)[:, :1] - truth).square().mean().sqrt() < 0.03
    total = spread(mean, std).total[:, :1].sqrt()
    assert (total / noise_std(x) - 1).abs().mean() < 0.15
    # and it depends on the place: the true ratio is 4.0
    assert total[-8:].mean() / total[:8].mean() > 3


def test_predictions_are_calibrated_on_held_out_data(learned):
    """On average each central interval contains its share to within 2.5 points."""
    fresh = data(5000, seed=9)
    mean, std = learned.predict(*rows(learned, fresh.obs, fresh.action))
    observed = calibration_curve(mean[..., :1], std[..., :1], fresh.next_obs, LEVELS)
    assert calibration_error(LEVELS, observed) < 0.025


def test_more_data_reduces_the_epistemic_variance_but_not_the_aleatoric(learned):
    """From 200 to 3000 steps disagreement more than halves; noise changes by at most a fifth."""
    fresh = data(500, seed=9)
    few, _ = fitted(200, FEW)
    parts = []
    for model in (few, learned):
        mean, std = model.predict(*rows(model, fresh.obs, fresh.action))
        both = spread(mean[..., :1], std[..., :1])
        parts.append((both.aleatoric.mean().sqrt(), both.epistemic.mean().sqrt()))
    (noise_few, doubt_few), (noise_many, doubt_many) = parts
    assert doubt_many < doubt_few / 2
    assert abs(noise_few / noise_many - 1) < 0.2
    shared, _ = fitted(200, replace(FEW, bootstrap=False))
    mean, std = shared.predict(*rows(shared, fresh.obs, fresh.action))
    # members with the same data would agree too much
    assert spread(mean, std).epistemic[:, 0].mean().sqrt() < doubt_few / 2


def test_members_disagree_outside_the_data(learned):
    inside, outside = torch.tensor([[0.0]]), torch.tensor([[3.0]])
    spreads = [
        learned.predict(*rows(learned, x, torch.zeros(1, 1))).mean[..., 0].std()
        for x in (inside, outside)
    ]
    assert spreads[1] > 5 * spreads[0]


def test_a_deterministic_ensemble_learns_the_mean_and_has_no_noise():
    model, _ = fitted(1500, replace(CONFIG, probabilistic=False, batch=32))
    x = torch.linspace(-0.9, 0.9, 37).unsqueeze(-1)
    state, action = rows(model, x, torch.zeros_like(x))
    mean, std = model.predict(state, action)
    assert not std.any()
    assert (mean.mean(0)[:, :1] - x - mean_change(x, torch.zeros(1))).abs().mean() < 0.04
    noisy = model.step(state, action, noise=torch.ones_like(state))
    assert torch.equal(noisy.state, model.step(state, action, noise=None).state)


def test_reward_and_termination_are_learned():
    """For a walk without noise: reward within 0.05, termination right in 97 of 100 cases."""
    config = replace(CONFIG, learn_reward=True, learn_termination=True, batch=32)
    steps, fresh = (
        seen._replace(
            next_obs=(after := seen.obs + mean_change(seen.obs, seen.action)),
            reward=after[:, 0] ** 2,
            terminated=after[:, 0] > 0.3,
        )
        for seen in (data(1500), data(1000, seed=9))
    )
    model = made(config)
    model.fit(steps, generator=seeded(1))
    out = model.step(*rows(model, fresh.obs, fresh.action), noise=None)
    assert (out.reward.mean(0) - fresh.reward).square().mean().sqrt() < 0.05
    right = (out.terminated == fresh.terminated).float().mean()
    assert 0.2 < fresh.terminated.float().mean() < 0.8
    assert right > 0.97
    assert (out.state.mean(0) - fresh.next_obs).square().mean().sqrt() < 0.05
    predicted = model.predict(*rows(model, fresh.obs, fresh.action))
    assert predicted.mean.shape == predicted.std.shape == (4, 1000, 2)
    torch.testing.assert_close(predicted.mean[..., 1], out.reward)


def test_a_reward_that_is_not_learned_is_zero(learned):
    state = torch.zeros(4, 3, 1)
    out = learned.step(state, state, noise=None)
    assert not out.reward.any() and not out.terminated.any()
    mean, std = learned.predict(state, state)
    assert not mean[..., 1].any() and not std[..., 1].any()
    assert std[..., 0].all()


def test_constant_columns_are_only_shifted():
    steps = data(200)
    still = torch.full((200, 1), 7.0)
    steps = steps._replace(
        obs=torch.cat((steps.obs, still), -1), next_obs=torch.cat((steps.next_obs, still), -1)
    )
    model = made(obs=2)
    model.fit(steps, generator=seeded())
    assert model.scale[1] == 1.0
    far = 10 * steps.obs  # in a long rollout a drift would add up
    state, action = rows(model, far, steps.action)
    mean, std = model.predict(state.requires_grad_(), action)
    assert torch.equal(mean[..., 1], state[..., 1])
    assert std[..., 1].max() < 1e-12
    (gradient,) = torch.autograd.grad(mean.sum() + std.sum(), state)
    assert gradient.isfinite().all()


def test_the_scale_is_the_std_of_the_change():
    steps = data(300)
    model = made(replace(CONFIG, epochs=1))
    model.fit(steps, generator=seeded())
    wanted = (steps.next_obs - steps.obs).std(0, correction=0)
    torch.testing.assert_close(model.scale, wanted)


# Fitting


def held_out(count, seed, share=0.1):
    """The rows that a fit with this generator holds out: its first draw permutes the data."""
    return torch.randperm(count, generator=seeded(seed))[: int(share * count)]


def held_out_loss(model, steps, index):
    """Each member's Gaussian negative log-likelihood in normalised units, without ln √2π."""
    state, action = (
        part[index].expand(model.config.members, -1, -1) for part in (steps.obs, steps.action)
    )
    mean, std, _ = by_hand(model, state, action)
    unit = model.state_dict()["targets.std"].double()
    change = (steps.next_obs - steps.obs)[index].double()
    return (0.5 * ((mean - change) / std).square() + (std / unit).log()).mean((1, 2))


@pytest.mark.parametrize("stacked", [True, False])
def test_each_member_keeps_the_weights_of_its_own_best_pass(monkeypatch, stacked):
    """Sixty rows are soon overfitted: without stopping the held-out loss becomes very large."""
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)
    config = replace(CONFIG, epochs=150, patience=15, batch=16, holdout=0.3, learning_rate=1e-2)
    steps = data(60)
    model = made(config)
    metrics = model.fit(steps, generator=seeded(5))
    index = held_out(60, 5, 0.3)
    losses = held_out_loss(model, steps, index)
    assert losses.mean().item() == pytest.approx(metrics["holdout_loss"], abs=1e-3)
    assert metrics["updates"] < 150 * 3
    assert losses.diff().min() >= -1e-4  # best first

    endless = made(replace(config, holdout=0))
    kept = torch.ones(60, dtype=torch.bool)
    kept[index] = False
    endless.fit(Transition(*(part[kept] for part in steps)), generator=seeded(5))
    assert held_out_loss(endless, steps, index).mean() > losses.mean() + 1


def test_elites_are_the_best_on_held_out_data():
    """Members that hardly train are ranked by the offsets given to their outputs."""
    offsets = [3.0, 0.0, 1.0, 5.0, 0.5]
    config = replace(CONFIG, members=5, elites=2, epochs=1, learning_rate=1e-6)
    model = made(config)
    with torch.no_grad():
        model.net.weights[-1].zero_()
        model.net.biases[-1][:, 0, 0] = torch.tensor(offsets)
    model.fit(data(500), generator=seeded())
    assert model.members == 2
    ranked = model.net.biases[-1][:, 0, 0]
    torch.testing.assert_close(ranked, torch.tensor(sorted(offsets)), atol=1e-4, rtol=0)
    assert model.predict(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1)).mean.shape == (2, 3, 2)
    with pytest.raises(ValueError, match=r"state must have shape \(2, 'B', 1\), got \(5, 3, 1\)"):
        model.predict(torch.zeros(5, 3, 1), torch.zeros(5, 3, 1))


@pytest.mark.parametrize("stacked", [True, False])
def test_members_do_not_depend_on_one_another(monkeypatch, stacked):
    """One starts far off: the others are fitted the same to the bit, and it is ranked last."""
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)

    def run(spoilt, holdout):
        model = made(replace(CONFIG, epochs=3, holdout=holdout))
        if spoilt:
            with torch.no_grad():
                model.net.weights[0][1] += 50.0
        model.fit(data(200), generator=seeded(3))
        return [weight.detach() for weight in model.net.weights]

    for broken, whole in zip(run(True, 0.0), run(False, 0.0), strict=True):
        assert torch.equal(broken[[0, 2, 3]], whole[[0, 2, 3]])
        assert not torch.equal(broken[1], whole[1])
    ranked = run(True, 0.1)[0]
    assert ranked[3].mean() > 40 and ranked[:3].abs().max() < 40


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_a_diverging_fit_raises_an_error_and_does_not_change_the_model(
    monkeypatch, stacked, holdout
):
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)
    model = made(replace(CONFIG, epochs=3, holdout=holdout, learning_rate=1e30, warm=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"members \[0, 1, 2, 3\] of 4 have"):
        model.fit(data(200), generator=seeded(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    one = made(replace(CONFIG, epochs=3, holdout=holdout))
    with torch.no_grad():
        one.net.weights[0][2] = math.nan
    with monkeypatch.context() as without:
        without.setattr(type(one.net), "reset", Net.reset)  # a net that cannot begin anew
        with pytest.raises(ValueError, match=r"members \[2\] of 4 have .* \(learning_rate 0.001"):
            one.fit(data(200), generator=seeded(3))
    assert one.net.weights[0][2].isnan().all()
    assert one.fit(data(200), generator=seeded(3))["restarted"] == 1
    assert all(value.isfinite().all() for value in one.state_dict().values())


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("holdout", [0.0, 0.1])
@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_a_fit_that_only_got_worse_raises_an_error(monkeypatch, stacked, holdout, rate):
    """All numbers are finite, but the model is far worse than one of random weights."""
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)
    wide = replace(CONFIG, hidden=(100, 100), epochs=5, holdout=holdout, learning_rate=rate)
    model = made(wide)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(fitting.FitDiverged, match="far above that of their initial weights"):
        model.fit(data(200), generator=seeded(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("stacked", [True, False])
def test_the_fit_is_the_same_to_the_bit_for_any_number_of_threads(monkeypatch, stacked):
    monkeypatch.setattr(fitting, "STACKED_WORK", math.inf if stacked else 0)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(fitted(600, replace(CONFIG, hidden=(200, 200), epochs=3)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    (model, metrics), *others = results
    for other, other_metrics in others:
        assert other_metrics == metrics
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_the_same_seed_gives_the_same_fit_and_the_global_stream_is_not_used():
    before = torch.get_rng_state()
    config = replace(CONFIG, epochs=2)
    (a, first), (b, again), (_, other) = (
        fitted(200, config), fitted(200, config), fitted(200, config, seed=1))  # fmt: skip
    assert first == again != other
    assert torch.equal(a.net.weights[0], b.net.weights[0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("warm", [True, False])
def test_a_refit_starts_from_the_old_weights_or_from_new_ones(learned, warm):
    """One pass with a negligible learning rate shows the initial weights."""
    model = made(replace(CONFIG, warm=warm, epochs=1, learning_rate=1e-9), seed=5)
    model.load_state_dict(learned.state_dict())
    steps = data(3000)
    error = model.fit(steps, generator=seeded(2))["holdout_mse"]
    # the noise is a third of the variance of the change, of which an unfitted net explains nothing
    assert error < 0.4 if warm else error > 0.8
    shared = [not torch.equal(model.net.weights[0][e], learned.net.weights[0][e]) for e in range(4)]
    assert all(shared) or warm


def test_weight_decay_applies_to_the_given_layers():
    config = replace(CONFIG, epochs=30, holdout=0.0)

    def norms(*decay):
        model = fitted(300, replace(config, weight_decay=decay))[0]
        return torch.stack([weight.square().mean().sqrt() for weight in model.net.weights])

    free = norms(0.0, 0.0, 0.0)
    for layer in range(3):
        decay = [0.0, 0.0, 0.0]
        decay[layer] = 0.1
        ratio = norms(*decay) / free
        assert ratio[layer] < 0.85
        assert all(ratio[other] > 0.95 for other in range(3) if other != layer)
    model = fitted(300, replace(config, weight_decay=0.1))[0]
    uniform = fitted(300, replace(config, weight_decay=(0.1, 0.1, 0.1)))[0]
    assert torch.equal(model.net.weights[1], uniform.net.weights[1])


def test_bootstrap_gives_each_member_its_own_data():
    """Nets with equal initial weights stay equal on the same data, and differ on resamples."""
    for bootstrap in (True, False):
        model = made(replace(CONFIG, bootstrap=bootstrap, batch=1000, epochs=20, holdout=0.0))
        with torch.no_grad():
            for parameter in model.net.parameters():
                parameter[:] = parameter[:1].clone()
        model.fit(data(200), generator=seeded())
        apart = model.predict(torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)).mean[:, 0, 0].std()
        assert apart > 1e-3 if bootstrap else apart < 1e-5


# Prediction

VARIANTS = {
    "plain": CONFIG,
    "elites": replace(CONFIG, elites=2),
    "tanh": replace(CONFIG, activation="tanh", hidden=(16,)),
    "deterministic": replace(CONFIG, probabilistic=False),
    "homoscedastic": replace(CONFIG, homoscedastic=True, elites=3),
    "everything": replace(CONFIG, learn_reward=True, learn_termination=True, elites=3),
    "as it comes": replace(CONFIG, normalise=False),
}


def assert_as_by_hand(model, tolerance):
    g = seeded(11)
    dtype = model.scale.dtype
    state = torch.randn(model.members, 9, 1, generator=g).to(dtype)
    action, noise = (torch.randn(state.shape, generator=g).to(dtype) for _ in range(2))
    mean, std, logit = by_hand(model, state, action)
    mean[..., :1] += state
    predicted = model.predict(state, action)
    close = {"rtol": tolerance, "atol": tolerance, "check_dtype": False}
    torch.testing.assert_close(predicted.mean[..., : model.heads.size], mean, **close)
    torch.testing.assert_close(predicted.std[..., : model.heads.size], std, **close)
    assert predicted.mean.dtype == dtype
    sampled = model.step(state, action, noise=noise)
    torch.testing.assert_close(sampled.state, mean[..., :1] + std[..., :1] * noise, **close)
    torch.testing.assert_close(model.step(state, action, noise=None).state, mean[..., :1], **close)
    if model.config.learn_reward:
        torch.testing.assert_close(sampled.reward, mean[..., 1], **close)
    if model.config.learn_termination:
        assert torch.equal(sampled.terminated, logit > 0)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_predictions_equal_those_of_the_plain_nets(config):
    """Also after a fit, a load, a cast and a change of a weight."""
    config = replace(config, epochs=2)
    model = made(config)
    assert_as_by_hand(model, 1e-5)
    far = data(300)
    far = far._replace(obs=far.obs + 3, next_obs=4 * far.next_obs)
    model.fit(far, generator=seeded())
    assert_as_by_hand(model, 1e-5)
    other = made(config, seed=7)
    assert_as_by_hand(other, 1e-5)
    other.load_state_dict(model.state_dict())
    assert_as_by_hand(other, 1e-5)
    state = torch.zeros(model.members, 2, 1)
    before = model.predict(state, state)
    assert torch.equal(before.mean, other.predict(state, state).mean)
    with torch.no_grad():
        other.net.biases[-1].add_(0.5)
    assert not torch.equal(before.mean, other.predict(state, state).mean)
    assert_as_by_hand(other, 1e-5)
    other.to(torch.float64)
    assert_as_by_hand(other, 1e-11)
    other.fit(data(200, seed=3), generator=seeded())
    assert_as_by_hand(other, 1e-11)
    other.load_state_dict(model.state_dict())
    assert_as_by_hand(other, 1e-11)


def test_the_log_variance_stays_within_its_bounds(learned):
    values = learned.state_dict()
    unit = values["targets.std"]
    low, high = ((0.5 * values[f"heads.{name}_log_var"]).exp() * unit for name in ("min", "max"))
    assert (values["heads.min_log_var"] > -15).all() and (values["heads.max_log_var"] < 0.5).all()
    wild = 100 * torch.randn(4, 2000, 2, generator=seeded())
    std = learned.predict(wild[..., :1], wild[..., 1:]).std[..., :1]
    assert (std >= 0.999 * low).all()
    # softplus lets the upper bound be passed by ln(1 + exp(low - high)) in log-variance
    slack = torch.log1p((values["heads.min_log_var"] - values["heads.max_log_var"]).exp())
    assert (std <= 1.001 * high * (0.5 * slack).exp()).all()


def test_gradients_match_finite_differences(learned):
    model = made(replace(CONFIG, learn_reward=True, activation="tanh"), seed=2)
    model.fit(data(200), generator=seeded())
    model.to(torch.float64)
    g = seeded(3)
    state, action, noise = (
        torch.randn(4, 2, 1, generator=g, dtype=torch.float64) for _ in range(3)
    )
    state.requires_grad_()
    action.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: model.step(s, a, noise=noise)[:2], (state, action))
    assert torch.autograd.gradcheck(lambda s, a: tuple(model.predict(s, a)), (state, action))


def test_predictions_of_many_threads_agree_after_a_change_of_weights(learned):
    """Workers must not use weights that another worker is still refreshing."""
    from concurrent.futures import ThreadPoolExecutor

    model = made()
    model.load_state_dict(learned.state_dict())
    state = torch.zeros(4, 1, 1)
    with ThreadPoolExecutor(4) as pool:
        for shift in range(60):
            with torch.no_grad():
                model.net.biases[-1][..., 0] = float(shift)
            means = pool.map(lambda _: model.predict(state, state).mean[..., 0], range(8))
            first, *others = means
            assert all(torch.equal(first, other) for other in others)


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 0}, "members must be an integer of at least 1, got 0"),
        ({"batch": 0}, "batch must be an integer of at least 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"patience": 0}, "patience must be an integer of at least 1"),
        ({"holdout_max": 0}, "holdout_max must be an integer of at least 1"),
        (
            {"hidden": ()},
            r"hidden must be a tuple of 1 or more values, each an integer of at least 1, got \(\)",
        ),
        ({"hidden": (8, 0)}, r"hidden must be .* got \(8, 0\)"),
        ({"activation": "gelu"}, "activation must be one of silu, relu, elu, mish, tanh, got"),
        ({"elites": 6}, r"elites must be in 1\.\.5 \(members\), got 6"),
        ({"elites": 0}, "elites must be an integer of at least 1 or None"),
        ({"holdout": 1.0}, r"holdout must be in \[0, 1\), got 1.0"),
        ({"holdout": math.nan}, r"holdout must be in \[0, 1\), got nan"),
        *(
            ({name: bad}, rf"{name} must be finite and >.*, got")
            for name in ("learning_rate", "improvement", "weight_decay", "bound_weight", "beta_nll")
            for bad in (math.nan, math.inf, -1.0)
        ),
        ({"weight_decay": (0.0, 0.0, math.nan, 0.0, 0.0)}, "weight_decay must be finite and >= 0"),
        ({"optimiser": "sgd"}, "optimiser must be one of adam, adamw, got 'sgd'"),
        ({"probabilistic": False, "homoscedastic": True}, "homoscedastic needs probabilistic"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0, got 0.0"),
        ({"weight_decay": (1e-5,)}, "weight_decay must be one number or 5, got 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        EnsembleConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": torch.zeros(20, 2)}, r"obs must have shape \(20, 1\), got \(20, 2\)"),
        ({"action": torch.zeros(20)}, r"action must have shape \(20, 1\), got \(20,\)"),
        ({"reward": torch.zeros(20, 1)}, r"reward must have shape \(20,\), got \(20, 1\)"),
        ({"next_obs": torch.zeros(19, 1)}, r"next_obs must have shape \(20, 1\)"),
        ({"terminated": torch.zeros(2)}, r"terminated must have shape \(20,\), got \(2,\)"),
        ({"action": torch.full((20, 1), math.nan)}, "action holds a number that is not finite"),
        ({"reward": torch.full((20,), math.inf)}, "reward holds a number that is not finite"),
    ],
)
def test_bad_data_are_refused_and_change_nothing(change, message):
    model = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.fit(data(20)._replace(**change), generator=seeded())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_too_few_data_are_refused_and_two_suffice():
    with pytest.raises(ValueError, match="a fit needs at least 2 transitions, got 1"):
        made().fit(data(1), generator=seeded())
    metrics = made(replace(CONFIG, epochs=2)).fit(data(2), generator=seeded())
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("state", "action", "message"),
    [
        ((4, 3, 2), (4, 3, 1), r"state must have shape \(4, 'B', 1\), got \(4, 3, 2\)"),
        ((3, 1), (3, 1), r"state must have shape \(4, 'B', 1\), got \(3, 1\)"),
        ((3, 3, 1), (3, 3, 1), "state must have shape"),
        ((4, 3, 1), (4, 3, 2), r"action must have shape \(4, 'B', 1\), got \(4, 3, 2\)"),
    ],
)
def test_wrong_shapes_are_refused(state, action, message):
    with pytest.raises(ValueError, match=message):
        made().predict(torch.zeros(state), torch.zeros(action))
    with pytest.raises(ValueError, match=message):
        made().step(torch.zeros(state), torch.zeros(action), noise=None)
