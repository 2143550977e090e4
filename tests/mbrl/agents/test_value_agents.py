import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import ddpg, dqn, sac, td3
from mbrl.data import PrioritisedReplay
from mbrl.learners.configs import SACConfig
from mbrl.learners.value_configs import DDPGConfig, DQNConfig, TD3Config
from mbrl.types import Spec, Transition

CHAIN, COUNT = 5, 2
SPEC = Spec(
    gymnasium.spaces.Discrete(CHAIN), gymnasium.spaces.Discrete(2, start=3), ends=True, discount=0.8
)
BOX = Spec(gymnasium.spaces.Box(-np.inf, np.inf, (2,)), gymnasium.spaces.Box(-1, 1, (1,)))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(seed=0, learner=None, **settings):
    own = {
        "hidden": (16,), "learning_rate": 1e-2, "target_every": 25, "exploration_steps": 300,
        **(learner or {}),
    }  # fmt: skip
    schedule = {"learning_starts": 50, "batch": 16, "capacity": 500, "log_every": 50, **settings}
    config = dqn.Config(learner=DQNConfig(**own), **schedule)
    return dqn.make(SPEC, config, generator=seeded(seed))


class Chain:
    """COUNT chains: action 4 goes right, action 3 back to the start; the last step earns 1."""

    def __init__(self):
        self.at = np.zeros(COUNT, np.int64)

    def go(self, agent):
        action = agent.act(self.at, explore=True)
        assert set(action.tolist()) <= {3, 4}
        over = (action == 4) & (self.at == CHAIN - 1)
        after = np.where(action == 4, np.minimum(self.at + 1, CHAIN - 1), 0)
        columns = (self.at, action, over.astype(np.float32), after, over, np.zeros(COUNT, bool))
        agent.observe(Transition(*map(torch.as_tensor, columns)))
        self.at = np.where(over, 0, after)
        return action.tolist(), dict(agent.update())


VARIANTS = {
    "dqn": {},
    "three steps": {"n_step": 3},
    "prioritised": {"priority": 0.6},
    "rainbow": {
        "n_step": 2, "priority": 0.5,
        "learner": {"double": True, "dueling": True, "atoms": 11, "value_range": (0.0, 1.0)},
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=list(VARIANTS))
def test_values_of_a_chain_are_those_of_its_best_policy(settings):
    """γ^4 at the start to 1 at the end for going right, and the policy does so everywhere."""
    agent, chain = make(**settings), Chain()
    for _ in range(400):
        chain.go(agent)
    values = agent.learner.values(torch.eye(CHAIN))
    wanted = 0.8 ** torch.arange(CHAIN - 1, -1, -1)
    torch.testing.assert_close(values[:, 1], wanted, atol=0.05, rtol=0)
    player = agent.player(generator=seeded(1))
    assert (player.act(np.arange(CHAIN), explore=False) == 4).all()


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=list(VARIANTS))
def test_a_restored_agent_goes_on_as_the_first(settings):
    first, chain = make(**settings), Chain()
    for _ in range(90):
        chain.go(first)
    other, mirror = make(9, **settings), Chain()
    for _ in range(40):
        mirror.go(other)
    other.load_state_dict(first.state_dict())
    mirror.at = chain.at.copy()
    assert [chain.go(first) for _ in range(60)] == [mirror.go(other) for _ in range(60)]


def test_learning_waits_for_the_first_n_step_transition():
    """Two updates are due at 4 steps, 2 in each of two environments; they are made up for at 6."""
    agent, chain = make(n_step=3, learning_starts=2, log_every=2), Chain()
    said = [chain.go(agent)[1] for _ in range(3)]
    assert said[:2] == [{}, {}] and said[2]["updates"] == agent.updates == 4


def test_exploration_falls_with_the_steps_of_all_environments():
    agent, chain = make(), Chain()
    assert agent.learner.policy.amount == 1.0
    for _ in range(75):
        chain.go(agent)
    assert agent.learner.policy.amount == pytest.approx(1 - 0.95 * 150 / 300)


def test_updates_change_priorities_and_weights_are_corrected_more_and_more(monkeypatch):
    """β goes from 0.4 to 1 over 400 steps: it is 0.478 at the first update, 0.7 after 200 steps."""
    agent = make(priority=1.0, correction=0.4, correction_steps=400)
    assert isinstance(agent.replay, PrioritisedReplay)
    chain, seen, weights = Chain(), [], agent.replay.weights

    def recorded(index, *, beta):
        seen.append(beta)
        return weights(index, beta=beta)

    monkeypatch.setattr(agent.replay, "weights", recorded)
    for _ in range(100):
        chain.go(agent)
    assert (seen[0], seen[-1]) == (pytest.approx(0.478), pytest.approx(0.7))
    assert len(agent.replay.probabilities().unique()) > 20


def test_rows_are_those_of_n_steps_with_their_discounts():
    agent, chain = make(n_step=3, learning_starts=10_000), Chain()
    for _ in range(200):
        chain.go(agent)
    columns = agent.replay.columns(slice(None))
    ended = columns["terminated"]
    torch.testing.assert_close(columns["discount"][~ended].unique(), torch.tensor([0.512]))
    # the reward comes with the last step: of k steps it is worth γ^(k - 1)
    torch.testing.assert_close(columns["reward"][ended], columns["discount"][ended] / 0.8)
    assert len(columns["discount"][ended].unique()) == 3


def test_continuous_actions_take_the_same_data():
    """Both learn from n-step rows that are drawn by priority, and differ by their settings."""
    for module, kind in ((ddpg, DDPGConfig), (td3, TD3Config)):
        config = module.Config(
            learning_starts=20, batch=8, log_every=20, n_step=3, priority=0.6,
            learner=kind(hidden=(8,)),
        )  # fmt: skip
        agent, g, at, said = module.make(BOX, config, generator=seeded()), seeded(1), None, []
        at = torch.randn(COUNT, 2, generator=g)
        for _ in range(40):
            action = torch.as_tensor(agent.act(at.numpy(), explore=True))
            after = 0.9 * at + 0.1 * action
            ends = torch.rand(COUNT, generator=g) < 0.1
            agent.observe(Transition(at, action, -after[:, 0], after, ends & False, ends))
            at = torch.where(ends[:, None], torch.randn(COUNT, 2, generator=g), after)
            said.append(dict(agent.update()))
        last = [x for x in said if x][-1]
        assert {"q", "critic_loss", "td_error", "actor_loss", "updates"} == last.keys()
        assert agent.learner.updates == 60 and agent.learner.discount == 0.99
        assert agent.learner.config.critics == (2 if kind is TD3Config else 1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="dqn: needs actions that are indices"):
        dqn.make(BOX, dqn.Config(), generator=seeded())
    with pytest.raises(
        ValueError,
        match="td3: needs actions that are in a bounded box of real vectors, not Discrete",
    ):
        td3.make(SPEC, td3.Config(), generator=seeded())
    with pytest.raises(ValueError, match="priority: this learner measures no errors"):
        config = sac.Config(priority=0.6, learner=SACConfig(hidden=(4,)))
        sac.make(BOX, config, generator=seeded())
