"""The model of latent states: its steps, and the short cut for many actions in one state."""

import pytest
import torch

from mbrl.distributions import Bounds, symexp
from mbrl.dynamics.latent import LatentModel, LatentNets
from mbrl.types import Dynamics

Z, A = 8, 2
BOUNDS = Bounds(torch.tensor([-1.0, 0.0]), torch.tensor([3.0, 1.0]))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def model(hidden=(16, 12), termination=True):
    nets = LatentNets(
        Z, BOUNDS, hidden, group=4, bins=torch.linspace(-3, 3, 7), termination=termination,
        generator=seeded(),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in nets.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    return LatentModel(torch.nn.Identity(), nets)


def rows(count):
    state = torch.rand(1, count, Z, generator=seeded(1))
    return state, 2 * torch.rand(1, count, A, generator=seeded(2)) - 1


def test_a_step_gives_simplices_the_mean_reward_and_the_end():
    world, (state, action) = model(), rows(50)
    step = world.step(state, action, noise=None)
    torch.testing.assert_close(step.state.view(50, 4, 2).sum(1), torch.ones(50, 2))
    after, logits = world.nets(world.nets.joined(state, action))
    mean = symexp((logits.softmax(-1) * torch.linspace(-3, 3, 7)).sum(-1))
    torch.testing.assert_close(step.reward, mean)
    torch.testing.assert_close(step.state, after)
    ends = world.nets.termination
    assert ends is not None
    with torch.no_grad():  # half of the chances are above one half
        ends.biases[-1].sub_(ends(step.state).median())
    step = world.step(state, action, noise=None)
    assert torch.equal(step.terminated, ends(step.state).sigmoid()[..., 0] > 0.5)
    assert 20 < step.terminated.sum() < 30


@pytest.mark.parametrize("hidden", [(16,), (16, 12), (16, 12, 9)])
def test_many_actions_in_one_state_have_the_steps_that_copies_of_it_have(hidden):
    world, (_, action) = model(hidden), rows(50)
    state = torch.rand(Z, generator=seeded(3))
    with torch.no_grad():
        quick = world.step(state.expand(1, 50, Z), action, noise=None)
        plain = world.step(state.repeat(1, 50, 1), action, noise=None)
    for one, other in zip(quick, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_action():
    world, (state, action) = model(), rows(5)
    action = action.requires_grad_()
    step = world.step(state[:, :1].expand(1, 5, Z), action, noise=None)
    (found,) = torch.autograd.grad(step.reward.sum() + step.state.square().sum(), action)
    assert (found != 0).all()


def test_without_termination_nothing_ends():
    state, action = rows(50)
    assert not model(termination=False).step(state, action, noise=None).terminated.any()


def test_it_is_a_dynamics_without_decoder():
    world = model()
    assert isinstance(world, Dynamics) and (world.members, world.noise_shape) == (1, (0,))
    with pytest.raises(NotImplementedError, match="predicts no observations"):
        world.decode(torch.zeros(Z))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hidden": ()}, "hidden: want one layer or more"),
     ({"group": 3}, "group: want a divisor of the 8 latent numbers, got 3")],
)  # fmt: skip
def test_bad_sizes_are_refused(change, message):
    settings = {"hidden": (4,), "group": 4} | change
    hidden = settings.pop("hidden")
    with pytest.raises(ValueError, match=message):
        LatentNets(
            Z, BOUNDS, hidden, bins=torch.linspace(-1, 1, 3), termination=False,
            generator=seeded(), **settings,
        )  # fmt: skip
