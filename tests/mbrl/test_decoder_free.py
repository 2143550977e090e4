"""Losses of codes that nothing decodes, against closed forms, and what encoders learn by them."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import levy_stable, norm

from mbrl.encoders.configs import ContrastiveConfig, SelfPredictionConfig
from mbrl.encoders.contrastive import Contrastive
from mbrl.encoders.losses import epps_pulley, info_nce, isotropy
from mbrl.encoders.self_prediction import SelfPrediction
from mbrl.nn import Block
from mbrl.types import Transition


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def exact(x):
    """The statistic over all t, by Gaussian integrals; pairs of samples have all the detail."""
    pairs = torch.exp(-(x[:, None] - x[None]).square() / 2).mean((0, 1))
    single = torch.exp(-x.square() / 4).mean(0)
    first, second, third = (
        math.sqrt(2 * math.pi),
        2 * math.sqrt(math.pi),
        math.sqrt(2 * math.pi / 3),
    )
    return len(x) * (first * pairs - second * single + third)


@pytest.mark.parametrize("rows", [1, 2, 50])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.3, 1.5)])
def test_the_statistic_is_its_closed_form(rows, scale, shift):
    x = scale * normal(rows, 4) + shift
    torch.testing.assert_close(epps_pulley(x, knots=400, most=9.0), exact(x))


def test_the_published_rule_is_near_the_integral_to_three():
    x = normal(40, 1, seed=3)

    def integrand(t):
        angle = t * x[:, 0]
        error = (angle.cos().mean() - math.exp(-t * t / 2)) ** 2 + angle.sin().mean() ** 2
        return float(error) * math.exp(-t * t / 2)

    wanted = 40 * quad(integrand, -3, 3)[0]
    assert float(epps_pulley(x)) == pytest.approx(wanted, rel=0.01)


def test_of_gaussian_samples_it_is_its_expectation_for_any_number_of_them():
    """sqrt(2 pi) - sqrt(2 pi / 3) = 1.06, from E |mean exp(itx)|² = 1/B + (1 - 1/B) exp(-t²)."""
    wanted = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    for rows in (5, 50):
        found = epps_pulley(normal(rows, 4000, seed=rows), knots=60, most=8.0)
        error = float(found.std()) / math.sqrt(4000)
        assert abs(float(found.mean()) - wanted) < 4 * error < 0.1


def test_of_samples_that_are_all_equal_it_grows_with_their_number():
    for rows in (10, 100):
        found = float(epps_pulley(torch.zeros(rows, 1, dtype=torch.float64), knots=60, most=8.0))
        whole = quad(lambda t: (1 - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2), -8, 8)[0]
        assert found == pytest.approx(rows * whole, rel=1e-6)
        assert found > 3.8 * rows / 10


def test_samples_of_other_distributions_are_told_from_a_gaussian():
    draw = 7
    uniform = math.sqrt(12) * (torch.rand(4000, 1, generator=seeded()).double() - 0.5)
    heavy = torch.as_tensor(levy_stable.rvs(1.5, 0, size=(4000, 1), random_state=draw))
    gauss = torch.as_tensor(norm.rvs(size=(4000, 1), random_state=draw))
    assert float(epps_pulley(gauss)) < 3 < 10 < float(epps_pulley(uniform))
    assert float(epps_pulley(heavy)) > 10


def test_isotropy_is_about_one_for_isotropic_codes_and_large_for_others():
    directions, z = normal(6, 500, seed=1), normal(256, 6, seed=2)
    wanted = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    assert float(isotropy(z, directions)) == pytest.approx(wanted, rel=0.15)
    assert float(isotropy(torch.zeros_like(z), directions)) > 90
    flat = z.clone()
    flat[:, 3:] = 0
    assert float(isotropy(flat, directions)) > 5
    assert float(isotropy(z + 1, directions)) > 5
    scaled = isotropy(z, 7 * directions)
    torch.testing.assert_close(scaled, isotropy(z, directions))


def test_the_gradient_of_isotropy_spreads_codes_that_are_too_close():
    z = (0.1 * normal(64, 3)).requires_grad_(True)
    isotropy(z, normal(3, 100, seed=1)).backward()
    assert (
        z.grad is not None and float((z.grad * z.detach()).sum()) < 0
    )  # a step against the gradient makes them longer


def test_info_nce_is_the_cross_entropy_of_the_own_key():
    logits = normal(5, 5)
    torch.testing.assert_close(
        info_nce(logits), F.cross_entropy(logits, torch.arange(5), reduction="none")
    )
    assert info_nce(torch.zeros(7, 7)).tolist() == pytest.approx([math.log(7)] * 7)
    with pytest.raises(ValueError, match=r"scores: want \(B, B\), got \(2, 3\)"):
        info_nce(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: epps_pulley(torch.zeros(3)), r"x: want \(B, M\) with B >= 1, got \(3,\)"),
        (lambda: epps_pulley(torch.zeros(0, 2)), "x: want"),
        (lambda: epps_pulley(torch.zeros(2, 2), knots=1), "knots: want 2 or more, got 1"),
        (lambda: epps_pulley(torch.zeros(2, 2), most=0.0), "most: must be finite and above 0"),
        (lambda: isotropy(torch.zeros(2, 3), torch.zeros(2, 4)), r"want z \(B, Z\) and direct"),
    ],
)
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def dots():
    """Images of 16 x 16 with a bright square at each of 16 places, three pixels apart."""
    images = torch.full((16, 16, 16, 1), 20, dtype=torch.uint8)
    for k, image in enumerate(images):
        row, column = 2 + 3 * (k // 4), 2 + 3 * (k % 4)
        image[row - 1 : row + 2, column - 1 : column + 2] = 250
    return images


def rows(obs, action=None, next_obs=None):
    no = torch.zeros(len(obs), dtype=torch.bool)
    action = torch.zeros(len(obs), 1) if action is None else action
    return Transition(obs, action, torch.zeros(len(obs)), obs if next_obs is None else next_obs,
                      no, no)  # fmt: skip


def test_contrastive_codes_tell_images_apart_that_are_shifted():
    """By a pixel; their squares are three apart. By chance one of 16 is matched."""
    config = ContrastiveConfig(latent=8, channels=8, layers=3, activation="relu", shift=1)
    net = Contrastive((16, 16, 1), config, generator=seeded())
    block, given = Block(net, learning_rate=2e-3), rows(dots())
    first, before = net.batch_loss(given, slow=net, generator=seeded(1))
    for step in range(300):
        loss, _ = net.batch_loss(given, slow=net, generator=seeded(step))
        block.minimise(loss)
    loss, after = net.batch_loss(given, slow=net, generator=seeded(1000))
    assert float(first.detach()) > math.log(16) / 2 and float(before["matched"]) < 0.4
    assert float(loss.detach()) < math.log(16) / 4 and float(after["matched"]) > 0.75


def steps(count, seed=0):
    """A system x' = R x + a b with four observed numbers, of which the state is two."""
    g = seeded(seed)
    turn = torch.tensor([[0.8, -0.5], [0.5, 0.8]])
    shown = torch.randn(2, 4, generator=seeded(9))
    x, a = torch.randn(count, 2, generator=g), torch.randn(count, 1, generator=g)
    after = x @ turn.T + a @ torch.tensor([[0.0, 0.3]])
    return rows(x @ shown, a, after @ shown)


@pytest.mark.parametrize(("weight", "collapses"), [(0.1, False), (1e-8, True)])
def test_only_isotropy_keeps_codes_that_predict_themselves_from_becoming_equal(weight, collapses):
    config = SelfPredictionConfig(
        latent=2, hidden=(32,), predictor=(32,), isotropy=weight, directions=32
    )
    net = SelfPrediction((4,), config, actions=1, generator=seeded())
    net.rescale(steps(500).obs)
    block = Block(net, learning_rate=3e-3)
    for step in range(400):
        loss, _ = net.batch_loss(steps(64, seed=step), slow=net, generator=seeded(step))
        block.minimise(loss)
    _, said = net.batch_loss(steps(500, seed=1000), slow=net, generator=seeded())
    spread = float(net(steps(500).obs).detach().std(0).mean())
    assert float(said["error"]) < 0.05
    if collapses:
        assert spread < 0.1 and float(said["isotropy"]) > 50
    else:
        assert 0.7 < spread < 1.3 and float(said["isotropy"]) < 10
