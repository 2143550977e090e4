import math

import pytest
import torch

from planners import Evolution
from planners.evolution import _step_sizes, _weights

LOW, HIGH = torch.tensor([-1.0]).double(), torch.tensor([1.0]).double()
CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planner(**settings):
    return Evolution(LOW, HIGH, 8, **settings)


def test_step_sizes_and_weights_equal_hand_computed_values():
    steps, logs = _step_sizes(5, 4.0, torch.float64, CPU)
    torch.testing.assert_close(steps[:, 0], torch.tensor([4, 2, 1, 0.5, 0.25]).double())
    torch.testing.assert_close(logs.exp(), torch.tensor([4, 2, 1, 0.5, 0.25, 0.25]).double())
    # log 2.5 - log 1, log 2.5 - log 2, normalised
    torch.testing.assert_close(
        _weights(2, torch.float64, CPU),
        torch.tensor([0.804163, 0.195837]).double(),
        atol=1e-6,
        rtol=0,
    )


def test_the_refit_averages_elites_and_their_step_sizes():
    one = planner(population=5, elites=2)
    mean, std = torch.zeros(8, 1).double(), torch.full((8, 1), 0.1).double()
    knots = torch.arange(6.0).double()[:, None, None].expand(6, 8, 1)
    scores = torch.tensor([0, 9, 0, 7, 0, 0]).double()
    new, step = one.refit(mean, std, knots, scores, knots[[1, 3]])
    torch.testing.assert_close(
        new, torch.full_like(mean, 0.804163 * 1 + 0.195837 * 3), atol=1e-5, rtol=0
    )
    # steps 2 and 1/2, so 2 to the power of the difference of the weights
    torch.testing.assert_close(
        step, 0.1 * torch.full_like(std, 2 ** (0.804163 - 0.195837)), atol=1e-6, rtol=0
    )


def test_draws_have_their_step_sizes_and_are_linear_between_knots():
    one = planner(noise_knots=2)
    mean, std = torch.full((8, 1), 0.3).double(), torch.full((8, 1), 0.1).double()
    draws = torch.stack([one.sample(mean, std, 5, generator=seeded(i)) for i in range(3000)])
    noise = draws - mean
    wanted = 0.1 * _step_sizes(5, 4.0, torch.float64, CPU)[0][:, 0]
    for end in (0, -1):
        torch.testing.assert_close(noise[:, :, end, 0].std(0), wanted, rtol=0.06, atol=0)
    torch.testing.assert_close(noise.diff(dim=2).diff(dim=2), torch.zeros(3000, 5, 6, 1).double())
    alone = planner(noise_knots=40).sample(mean, std, 5, generator=seeded())
    assert (alone - mean).diff(dim=1).diff(dim=1).abs().min() > 0


def test_the_std_of_a_start_is_widened_and_bounded():
    one = planner(sigma=0.2, floor=0.01, widen=3.0)
    start = one.plan(lambda a: -a.square().sum((1, 2)), None, generator=seeded())
    for std, wanted in ((0.05, 0.15), (1e-9, 0.02), (9.0, 0.4)):  # of a box 2 wide
        _, found, _ = one.begin(start._replace(std=torch.full_like(start.std, std)))
        torch.testing.assert_close(found, torch.full_like(found, wanted))
    torch.testing.assert_close(one.begin(None)[1], torch.full((8, 1), 0.4).double())


def test_the_std_shrinks_for_a_fixed_target_and_grows_after_it_jumps():
    one = planner()

    def at(aim):
        return lambda actions: -(actions - aim).square().sum((1, 2))

    plan = None
    for i in range(30):
        plan = one.plan(at(0.0), plan, generator=seeded(i))
    assert plan is not None
    still = float(plan.std.mean())
    assert still < 0.003 and plan.actions.abs().max() < 0.003
    largest = 0.0
    for i in range(30):
        plan = one.plan(at(0.7), plan, generator=seeded(i))
        largest = max(largest, float(plan.std.mean()))
    assert largest > 10 * still
    assert (plan.actions - 0.7).abs().max() < 0.03


def test_a_search_from_a_plan_returns_no_worse_plan():
    one = planner()

    def bowl(actions):
        return -(actions - 0.4).square().sum((1, 2))

    plan = one.plan(bowl, None, generator=seeded())
    for i in range(20):
        again = one.plan(bowl, plan, generator=seeded(i))
        assert again.score >= bowl(plan.mean[None])[0]
        plan = again


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"elites": 0}, "elites must be an integer of at least 1, got 0"),
        ({"floor": 0.0}, "floor must be finite and > 0, got 0.0"),
        ({"floor": 0.2}, r"floor must lie in \(0, sigma = 0.15\], got 0.2"),
        ({"spread": 0.5}, "spread must be finite and >= 1, got 0.5"),
        ({"widen": math.inf}, "widen must be finite and >= 1, got inf"),
        ({"noise_knots": 0}, "noise_knots must be an integer of at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_with_what_is_accepted(settings, told):
    with pytest.raises(ValueError, match=told):
        planner(**settings)
