"""Tree search through models: leaves, members, actions, and control of environments."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from envs.worlds import garnet
from mbrl.agents.tree_search import TreeModel, TreeSearch, TreeSearchConfig, uniform_actions
from mbrl.distributions import Bounds
from mbrl.dynamics import FiniteModel
from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.simplicial import SimplicialEncoder
from mbrl.imagination import score_fn
from mbrl.learners.tdmpc import TDMPC
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.training import evaluate
from mbrl.types import Step
from planners.mcts import UCT, Widening, search
from planners.riccati import lqr
from tests.lines import Seen


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear:
    """x' = x + gain · u + noise with a gain for each member; the reward is -x'², the end `edge`."""

    def __init__(self, *gains, edge=math.inf, std=0.0):
        self.gains, self.edge, self.std = torch.tensor(gains)[:, None, None], edge, std
        self.members, self.noise_shape = len(gains), (1,)

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def step(self, state, action, *, noise):
        after = state + self.gains * action
        if noise is not None:
            after = after + self.std * noise
        return Step(after, -after[..., 0].square(), after[..., 0].abs() > self.edge)


def config(**given):
    return TreeSearchConfig(**{"rule": UCT(), "rollouts": 0, "discount": 0.9} | given)


def tree(model, actions, settings, start=1.0, **functions):
    made = TreeModel(model, actions, settings, generator=seeded(), **functions)
    found = search(
        made.root(torch.tensor([[start]])), made.step, simulations=settings.simulations,
        generator=seeded(), rule=settings.rule, discount=settings.discount,
        max_depth=settings.max_depth, outcomes=made.outcomes, widening=settings.widening,
    )  # fmt: skip
    return made, found


# ----------------------------------------------------------------------------------- leaves


def test_a_leaf_is_its_value_its_rollouts_or_their_weighted_mean():
    """With one action, u = 1 from x = 1, three steps return -4 - 0.9 · 9 - 0.81 · 16."""
    played = -(4 + 0.9 * 9 + 0.81 * 16)
    one = torch.ones(1, 1)
    for settings, value, want in (
        (config(), None, 0.0),
        (config(rollouts=2, depth=3), None, played),
        (config(), lambda obs: 5 * obs[..., 0], 5.0),
        (config(rollouts=2, depth=3, share=0.25), lambda obs: 5 * obs[..., 0],
         0.25 * played + 0.75 * 5.0),
    ):  # fmt: skip
        made = TreeModel(Linear(1.0), one, settings, value=value, generator=seeded())
        assert made.root(torch.ones(1, 1)).value.tolist() == pytest.approx([want])


def test_rollouts_draw_all_actions_alike_and_stop_at_an_end():
    """u = ±1 from x = 0, ending beyond 1.5: -1 now, then 0 or -4, a half each; then after an end
    nothing. So two steps earn -1 - 0.9 · 2 on average."""
    settings = config(rollouts=4000, depth=2)
    made = TreeModel(
        Linear(1.0, edge=1.5), torch.tensor([[-1.0], [1.0]]), settings, generator=seeded()
    )
    error = 5 * 0.9 * 2 / math.sqrt(4000)  # five standard errors
    assert float(made.root(torch.zeros(1, 1)).value) == pytest.approx(-2.8, abs=error)
    far = made.step(made.root(torch.ones(1, 1)).state, torch.tensor([1]))
    assert far.terminated.tolist() == [True] and far.reward.tolist() == [-4.0]


def halve(state, *, generator, explore):
    return -state / 2


def test_rollouts_follow_a_given_policy_reward_and_termination():
    made = TreeModel(
        Linear(1.0), torch.ones(1, 1), config(rollouts=1, depth=5), policy=halve,
        reward=lambda obs, action, after: (obs + 10 * action + 100 * after)[..., 0],
        terminated=lambda after: after[..., 0] < 0.3, generator=seeded(),
    )  # fmt: skip
    root = made.root(torch.ones(1, 1))  # 1 -> 0.5 -> 0.25, the end
    assert root.value.tolist() == pytest.approx([1 - 5 + 50 + 0.9 * (0.5 - 2.5 + 25)])
    assert made.step(root.state, torch.tensor([0])).reward.tolist() == [211.0]


# ---------------------------------------------------------------------------------- members


@pytest.mark.parametrize("kappa", [-0.7, 0.0, 1.5])
@pytest.mark.parametrize("edge", [math.inf, 2.2, 1.2], ids=["endless", "some end", "all end"])
def test_the_value_of_a_path_is_the_objective_of_its_plan(kappa, edge):
    """With one action there is one path; simulation k adds the score of the plan of k steps."""
    model, settings = Linear(0.3, 0.5, 0.9, edge=edge), config(simulations=4, disagreement=kappa)
    _, found = tree(model, torch.ones(1, 1), settings)
    name = f"mean+std:{kappa}" if kappa > 0 else f"mean-std:{-kappa}"
    score = score_fn(
        model, torch.ones(1), particles=3, objective=name, horizon=4, discount=0.9,
        generator=seeded(),
    )  # fmt: skip
    plans = [0.0] + [float(score(torch.ones(1, steps, 1))) for steps in range(1, 5)]
    assert float(found.value) == pytest.approx(np.mean(plans), rel=1e-5)


def test_optimism_prefers_actions_on_which_members_disagree_and_pessimism_avoids_them():
    """Two actions with equal means; the members agree on one of them."""
    model = Linear(-1.0, 1.0)
    for kappa, want in ((1.0, 1), (-1.0, 0)):
        settings = config(simulations=40, disagreement=kappa, max_depth=1)
        _, found = tree(
            model, torch.tensor([[0.0], [1.0]]), settings, start=0.0,
            reward=lambda obs, action, after: after[..., 0],
        )  # fmt: skip
        assert found.action.tolist() == [want]


def test_the_variance_of_the_members_is_backed_up():
    _, found = tree(Linear(-1.0, 1.0), torch.ones(1, 1), config(simulations=1), start=0.0,
                       reward=lambda obs, action, after: after[..., 0])  # fmt: skip
    assert found.variances[0, 1] == pytest.approx(1 / 0.81)  # the returns are ±1, one step later


def test_all_outcomes_of_a_finite_world_have_their_probabilities():
    """With V* at the leaves, the value of an action that is tried once is Q*."""
    world = garnet(8, 3, 3, rng=np.random.default_rng(1), discount=0.5)
    settings = config(simulations=3, discount=0.5, outcomes="all")
    optimum = world.optimum()
    values = torch.from_numpy(optimum.values).float()
    for state in range(8):
        _, found = tree(
            FiniteModel.of(world), 3, settings, start=float(state),
            value=lambda obs: values[obs[..., 0].long()],
        )  # fmt: skip
        want = optimum.action_values[state]
        assert found.children_values()[0].numpy() == pytest.approx(want, abs=1e-5)
        for action, outcomes in enumerate(np.diff(world.transitions.indptr)[3 * state :][:3]):
            below = (found.parents[0] == 0) & (found.moves[0] == action) & (found.visits[0] > 0)
            assert below.sum() == outcomes
            assert found.chances[0, below].sum().item() == pytest.approx(1)


def test_models_that_cannot_list_outcomes_are_refused():
    with pytest.raises(ValueError, match="outcomes='all' needs a model of one member"):
        TreeModel(Linear(1.0), 2, config(outcomes="all"), generator=seeded())
    with pytest.raises(ValueError, match="outcomes must be a Widening, 'all' or None, got 'some'"):
        config(outcomes="some")


def test_noise_is_drawn_only_if_outcomes_are_drawn():
    for outcomes, several in ((None, False), (Widening(1.0, 0.5), True)):
        settings = config(simulations=16, max_depth=1, outcomes=outcomes)
        _, found = tree(Linear(1.0, std=1.0), torch.zeros(1, 1), settings, start=0.0)
        assert (len({float(x) for x in found.states[0, 1:, 0] if x != 0}) > 1) == several


# ----------------------------------------------------------------------------------- actions


def test_members_take_turns_to_sample_actions():
    def sampler(obs, generator):
        return (10 * obs[:, None] + torch.arange(5.0)[:, None]).contiguous()

    made = TreeModel(Linear(1.0, 2.0), sampler, config(), generator=seeded())
    root = made.root(torch.zeros(2, 1))
    assert root.actions[:, :, 0].tolist() == [[0, 1, 2, 3, 4]] * 2
    after = made.step(root.state, torch.ones(2, 1))  # members at 1 and 2
    assert after.actions[0, :, 0].tolist() == [10, 21, 12, 23, 14]


def test_priors_are_means_over_members():
    made = TreeModel(
        Linear(1.0, 2.0), 2, config(), prior=lambda obs: torch.cat((obs, -obs), -1),
        generator=seeded(),
    )  # fmt: skip
    after = made.step(made.root(torch.zeros(1, 1)).state, torch.tensor([1]))
    assert after.logits.tolist() == [[1.5, -1.5]]


def test_uniform_actions_cover_the_box():
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 2.5])
    drawn = uniform_actions(low, high, 500)(torch.zeros(3, 7), seeded())
    assert drawn.shape == (3, 500, 2)
    assert (drawn >= low).all() and (drawn <= high).all()
    spread = (high - low) / math.sqrt(12)
    assert drawn.flatten(0, 1).std(0).tolist() == pytest.approx(spread.tolist(), rel=0.05)


# ------------------------------------------------------------------------------------ players


class CartPole(Seen):
    """gymnasium's CartPole-v1 (Barto, Sutton and Anderson 1983): x, its speed, angle, its speed."""

    members, noise_shape = 1, (0,)

    def step(self, state, action, *, noise):
        rows, after = state.numpy(), torch.empty_like(state)
        speed, angle, turn = rows[..., 1], rows[..., 2], rows[..., 3]
        force, cos, sin = 20.0 * action.numpy()[..., 0] - 10.0, np.cos(angle), np.sin(angle)
        push = (force + 0.05 * turn * turn * sin) / 1.1
        spin = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1))
        pull = push - 0.05 * spin * cos / 1.1
        for column, slope in enumerate((speed, pull, turn, spin)):
            after.numpy()[..., column] = rows[..., column] + 0.02 * slope
        ends = (after[..., 0].abs() > 2.4) | (after[..., 2].abs() > 12 * math.pi / 180)
        return Step(after, torch.ones_like(after[..., 0]), ends)


def test_the_cart_pole_of_these_tests_equals_gymnasiums():
    env, model, rng = gymnasium.make("CartPole-v1").unwrapped, CartPole(), np.random.default_rng(0)
    for seed in range(20):
        env.reset(seed=seed)
        over = False
        while not over:
            state, action = torch.tensor(env.state)[None, None], int(rng.integers(2))
            _, reward, over, _, _ = env.step(action)
            step = model.step(state, torch.full((1, 1, 1), float(action)), noise=None)
            assert step.state[0, 0].tolist() == pytest.approx(env.state, abs=1e-6)
            assert (float(step.reward), bool(step.terminated)) == (reward, over)


def test_a_player_keeps_the_pole_upright_for_an_episode():
    """A random policy lasts about 22 steps; here episodes are truncated at 50."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=50)
    settings = TreeSearchConfig(simulations=16, rule=UCT(5.0), discount=1.0, rollouts=8, depth=15)
    player = TreeSearch(CartPole(), 2, settings, generator=seeded())
    assert evaluate(player, env, episodes=1, seed=0) == [50.0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_search_with_random_rollouts_keeps_the_pole_upright_for_500_steps():
    """Three parallel episodes, 64 simulations a step, leaf values by 16 random rollouts."""
    settings = TreeSearchConfig(simulations=64, rule=UCT(5.0), discount=1.0, rollouts=16, depth=20)
    made = TreeModel(CartPole(), 2, settings, generator=seeded())
    worlds = [gymnasium.make("CartPole-v1") for _ in range(3)]
    rows = [world.reset(seed=seed)[0] for seed, world in enumerate(worlds)]
    lengths, generator = [0] * 3, seeded(1)
    over = [False] * 3
    while not all(over):
        root = made.root(torch.tensor(np.array(rows), dtype=torch.float64))
        found = search(root, made.step, simulations=64, generator=generator, rule=settings.rule)
        for i, world in enumerate(worlds):
            if not over[i]:
                rows[i], _, terminated, truncated, _ = world.step(int(found.action[i]))
                lengths[i] += 1
                over[i] = terminated or truncated
    assert lengths == [500, 500, 500]


class Quadratic:
    """x' = x + u at a cost of x'² + u², for some steps; the state is x, the steps left and the unit
    of the reward, so that values in a search are of order 1."""

    members, noise_shape, horizon = 1, (0,), 10

    def encode(self, obs, *, state=None, action=None):
        return obs

    def decode(self, state):
        return state

    def step(self, state, action, *, noise):
        x, left, unit = state.unbind(-1)
        after, left = x + action[..., 0], left - 1
        reward = -(after.square() + action[..., 0].square()) / unit
        return Step(torch.stack((after, left, unit), -1), reward, left == 0)


def test_widening_controls_a_linear_quadratic_world_within_five_percent():
    """2000 simulations a step, 128 actions drawn from |u| <= |x|. Leaves have the value of the
    policy u = -0.3 x, which by itself costs 84 % more than Riccati's."""
    model, horizon, repeats = Quadratic(), Quadratic.horizon, 3
    to_go = [0.0]
    for _ in range(horizon):
        to_go.append(0.7**2 * (1 + to_go[-1]) + 0.3**2)
    state_cost = np.full((horizon + 1, 1, 1), 2.0)
    state_cost[0] = 0
    one = np.ones((1, 1))
    best = lqr(one, one, state_cost, 2 * one, horizon=horizon).value_xx[0, 0, 0] / 2
    assert to_go[-1] / best > 1.8
    worth = torch.tensor(to_go)

    def value(obs):
        x, left, unit = obs.unbind(-1)
        return -worth[left.long()] * x.square() / unit

    def sampler(obs, generator):
        draw = torch.rand(len(obs), 128, 1, generator=generator)
        return (2 * draw - 1) * obs[:, None, :1].abs()

    generator = seeded()
    settings = config(discount=1.0)
    made = TreeModel(model, sampler, settings, value=value, generator=generator)
    starts = torch.tensor([3.0, -1.0, 0.5]).repeat_interleave(repeats)
    x, cost = starts, torch.zeros_like(starts)
    for left in range(horizon, 0, -1):
        root = made.root(torch.stack((x, torch.full_like(x, left), x.square()), 1))
        found = search(
            root, made.step, simulations=2000, generator=generator, rule=UCT(0.1),
            widening=Widening(1.0, 0.5),
        )  # fmt: skip
        assert root.actions is not None
        u = root.actions[torch.arange(len(x)), found.action, 0]
        x = x + u
        cost = cost + x.square() + u.square()
    ratio = (cost / (best * starts.square())).view(-1, repeats).mean(1)
    assert (ratio > 1 - 1e-5).all()
    assert (ratio < 1.05).all(), ratio


class NoisyQuadratic(Quadratic):
    """The same with noise of std 0.2 in x'."""

    std, noise_shape = 0.2, (1,)

    def step(self, state, action, *, noise):
        x, left, unit = state.unbind(-1)
        after, left = x + action[..., 0] + self.std * noise[..., 0], left - 1
        reward = -(after.square() + action[..., 0].square()) / unit
        return Step(torch.stack((after, left, unit), -1), reward, left == 0)


@pytest.mark.slow
def test_double_widening_controls_a_noisy_linear_quadratic_world_within_five_percent():
    """As above, from x = 1, with drawn outcomes: 96 episodes with the same noise as for Riccati's
    controller, u = -(1 + P) / (2 + P) x with P' = (1 + P) / (2 + P). About ten draws distinguish
    two near actions only if outcomes widen faster than actions."""
    model, horizon, roots = NoisyQuadratic(), Quadratic.horizon, 96
    worth, extra, riccati = [0.0], [0.0], [0.0]
    for _ in range(horizon):
        extra.append(extra[-1] + model.std**2 * (1 + worth[-1]))
        worth.append(0.7**2 * (1 + worth[-1]) + 0.3**2)
        riccati.append((1 + riccati[-1]) / (2 + riccati[-1]))
    squares, rest = torch.tensor(worth), torch.tensor(extra)

    def value(obs):
        x, left, unit = obs.unbind(-1)
        return -(squares[left.long()] * x.square() + rest[left.long()]) / unit

    def sampler(obs, generator):
        draw = torch.rand(len(obs), 128, 1, generator=generator)
        return (2 * draw - 1) * obs[:, None, :1].abs()

    generator = seeded()
    settings = config(discount=1.0, outcomes=Widening(2.0, 0.9))
    made = TreeModel(model, sampler, settings, value=value, generator=generator)
    x, y, z = torch.ones(3, roots)
    cost, best, blind = torch.zeros(3, roots)
    for left in range(horizon, 0, -1):
        unit = x.square() + model.std**2
        root = made.root(torch.stack((x, torch.full_like(x, left), unit), 1))
        found = search(
            root, made.step, simulations=2000, generator=generator, rule=UCT(0.3),
            widening=Widening(1.0, 0.4), outcomes=made.outcomes,
        )  # fmt: skip
        assert root.actions is not None
        u = root.actions[torch.arange(roots), found.action, 0]
        v, w = -(1 + riccati[left - 1]) / (2 + riccati[left - 1]) * y, -0.3 * z
        noise = model.std * torch.randn(roots, generator=generator)
        x, y, z = x + u + noise, y + v + noise, z + w + noise
        cost, best, blind = (
            total + state.square() + move.square()
            for total, state, move in ((cost, x, u), (best, y, v), (blind, z, w))
        )
    assert blind.mean() / best.mean() > 1.3  # the policy of the leaves
    assert cost.mean() / best.mean() < 1.05, cost.mean() / best.mean()


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "change, message",
    [
        ({"simulations": 0}, "simulations must be an integer of at least 1, got 0"),
        ({"rollouts": -1}, "rollouts must be an integer of at least 0, got -1"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"discount": 0.0}, r"discount must be in \(0, 1\], got 0.0"),
        ({"discount": math.nan}, r"discount must be in \(0, 1\], got nan"),
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"disagreement": math.inf}, "disagreement must be finite, got inf"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        TreeSearchConfig(**change)


@pytest.mark.parametrize(
    "actions, functions, message",
    [
        (torch.zeros(3), {}, r"actions must be \(K, A\) with K >= 1, got \(3,\)"),
        (0, {}, r"actions must be \(K, A\) with K >= 1, got \(0, 1\)"),
        ("left", {}, "actions must be a number, a tensor .* or a sampler, got 'left'"),
        (lambda obs, g: obs, {}, r"the sampler must give \(B, K, A\) with B = 2, got \(2, 1\)"),
        (2, {"value": lambda obs: obs}, r"the value function must give \(E, B\) = \(2, 1\)"),
        (2, {"prior": lambda obs: obs}, r"the prior must give \(E, B, K\) = \(2, 1, 2\)"),
        (2, {"reward": lambda o, a, n: n}, r"the reward must give \(E, B\) = \(2, 1\)"),
        (2, {"terminated": lambda n: n > 0}, r"the termination must give \(E, B\) = \(2, 1\)"),
        (2, {"value": lambda obs: obs[..., 0] / 0}, "tree 0: the model gave a value that is not"),
        (2, {"reward": lambda o, a, n: n[..., 0] * math.nan},
         "simulation 1, tree 0: the model gave a reward that is not finite"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_match_are_refused_by_name(actions, functions, message):
    with pytest.raises(ValueError, match=message):
        tree(Linear(1.0, 2.0), actions, config(simulations=3), **functions)


def test_a_state_that_is_not_finite_is_refused():
    player = TreeSearch(Linear(1.0), 2, config(), generator=seeded())
    with pytest.raises(ValueError, match="state must be finite"):
        player.act(np.array([math.nan]))


# ----------------------------------------------------------------------------------- codes


def test_a_model_without_a_decoder_is_searched_by_functions_of_its_states():
    """The value is called with the states themselves; without `of_states` they would be decoded."""

    class Undecoded(Linear):
        def decode(self, state):
            raise NotImplementedError("no decoder")

    def value(state):
        return -state[..., 0].abs()

    sampler = uniform_actions(torch.tensor([-1.0]), torch.tensor([1.0]), 8)
    settings = config(simulations=60, max_depth=2)
    _, found = tree(Undecoded(1.0), sampler, settings, value=value, of_states=True)
    _, same = tree(Linear(1.0), sampler, settings, value=value)
    assert torch.equal(found.visits, same.visits) and torch.equal(found.action, same.action)
    with pytest.raises(NotImplementedError, match="no decoder"):
        tree(Undecoded(1.0), sampler, settings, value=value)


def test_a_search_in_codes_of_pictures_takes_the_policy_for_actions_and_the_critics_for_values():
    """TD-MPC2's parts in a tree of sampled actions (Hubert et al. 2021)."""
    images = ImageConfig(channels=4, features=8, shift=0)
    encoder = SimplicialEncoder(
        (16, 16, 3), 8, group=4, hidden=(), images=images, generator=seeded()
    )
    bounds = Bounds(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0]))
    sizes = TDMPCConfig(latent=8, group=4, hidden=(16,), discount=0.9)
    learner = TDMPC(encoder, bounds, sizes, termination=False, generator=seeded())

    def policy(state, generator):
        drawn = [learner.policy(state, generator=generator, explore=True) for _ in range(4)]
        return torch.stack(drawn, 1)

    player = TreeSearch(
        learner.world, policy, config(simulations=20), value=learner.world.value, of_states=True,
        generator=seeded(),
    )  # fmt: skip
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    actions = player.act(pictures)
    assert actions.shape == (3, 2)
    assert (actions >= [-2, 0]).all() and (actions <= [2, 1]).all()
    assert player.tree.visits[:, 0].tolist() == [21] * 3
