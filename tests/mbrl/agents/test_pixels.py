"""Agents and learners of images: what trains the encoder, what is kept, and what is learned."""

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import ddpg, dqn, off_policy, sac, td3
from mbrl.distributions import Bounds
from mbrl.encoders.configs import ImageConfig
from mbrl.encoders.convolution import ImageEncoder
from mbrl.learners.configs import SACConfig
from mbrl.learners.ddpg import DDPG
from mbrl.learners.dqn import DQN
from mbrl.learners.sac import SAC, DiscreteSAC
from mbrl.learners.value_configs import DDPGConfig, DQNConfig, TD3Config
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training import Run, evaluate, run_agent, vector
from mbrl.training.metrics import METRICS, MetricsLog
from mbrl.types import Transition

SHAPE = (16, 16, 1)
IMAGES = ImageConfig(channels=8, features=16, shift=1)
LOW, HIGH = torch.tensor([-1.0]), torch.tensor([1.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Dot(gymnasium.Env):
    """Each step shows a bright dot; the best action tells its column, and earns 0, others less."""

    def __init__(self, *, choices, shape=SHAPE):
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.choices, self.t = choices, 0
        box = gymnasium.spaces.Box(-1, 1, (1,))
        self.action_space = gymnasium.spaces.Discrete(3, start=1) if choices else box

    def _show(self):
        low, high = (0, 3) if self.choices else (2, 14)
        self.at = int(self.np_random.integers(low, high))
        column, row = 3 + 4 * self.at if self.choices else self.at, self.np_random.integers(3, 13)
        image = np.full(self.observation_space.shape, 20, np.uint8)
        image[row - 1 : row + 2, column - 1 : column + 2] = 250
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        if self.choices:
            reward = -float(action != self.at + 1)
        else:
            reward = -float((action[0] - (self.at - 7.5) / 6) ** 2)
        self.t += 1
        return self._show(), reward, False, self.t == 5, {}


def batch(count=8, *, choices, seed=0):
    g = seeded(seed)
    obs, after = torch.randint(256, (2, count, *SHAPE), generator=g, dtype=torch.uint8)
    action = LOW + (HIGH - LOW) * torch.rand(count, 1, generator=g)
    if choices:
        action = torch.randint(3, (count,), generator=g)
    ends = torch.rand(count, generator=g) < 0.3
    return Transition(obs, action, torch.randn(count, generator=g), after, ends, ~ends)


def learner(name, seed=0, *, rates=None, **settings):
    encoder = ImageEncoder(SHAPE, IMAGES, generator=seeded(seed + 100))
    own = {"hidden": (8,), "discount": 0.9, **(rates or {}), **settings}
    given = {"encoder": encoder, "generator": seeded(seed)}
    if name == "dqn":
        return DQN(16, 3, DQNConfig(target_every=1, polyak=0.5, **own), **given)
    if name == "dueling":
        return DQN(16, 3, DQNConfig(dueling=True, double=True, target_every=1, **own), **given)
    if name == "discrete sac":
        return DiscreteSAC(16, 3, SACConfig(**own), **given)
    if name in ("sac", "crossq"):
        crossq = {"norm": "batch-after", "target": False} if name == "crossq" else {}
        return SAC(16, Bounds(LOW, HIGH), SACConfig(**own, **crossq), **given)
    kind = TD3Config if name == "td3" else DDPGConfig
    return DDPG(16, Bounds(LOW, HIGH), kind(**own), **given)


BOX, CHOICE = ["sac", "crossq", "ddpg", "td3"], ["discrete sac", "dqn", "dueling"]


def updates(learner, name, count):
    g = seeded(3)
    return [
        dict(learner.update(batch(choices=name in CHOICE, seed=k), generator=g))
        for k in range(count)
    ]


def weights(module):
    return torch.cat([x.detach().flatten() for x in module.encoder.parameters()]).clone()


@pytest.mark.parametrize("name", BOX + CHOICE)
def test_the_critics_loss_trains_the_encoder(name):
    one = learner(name, rates={"learning_rate": 1e-2})
    before = weights(one.critic.module)
    updates(one, name, 1)
    after = weights(one.critic.module)
    assert ((after - before).abs() > 1e-3).float().mean() > 0.5  # a step of Adam is about 1e-2
    assert torch.equal(after, weights(one.critic.fixed))  # with which the policy acts


@pytest.mark.parametrize("name", ["sac", "ddpg", "td3", "discrete sac"])
def test_the_policys_loss_does_not_train_the_encoder(name):
    one = learner(name, rates={"learning_rate": 1e-2, "critic_learning_rate": 1e-30})
    before, actor = weights(one.critic.module), one.actor.value.detach().clone()
    updates(one, name, 2)
    # a step of Adam with the rate of the policy is about 1e-2
    assert (before - weights(one.critic.module)).abs().max() < 1e-20
    assert not torch.equal(actor, one.actor.value)
    names = [name for name, _ in one.actor.module.named_parameters()]
    assert not any("encoder" in name for name in names)


@pytest.mark.parametrize(
    ("name", "polyak"), [("sac", 0.005), ("discrete sac", 0.005), ("ddpg", 0.005), ("dqn", 0.5)]
)
def test_the_targets_encoder_follows_that_of_the_critic(name, polyak):
    one = learner(name, rates={"learning_rate": 1e-2})
    before = weights(one.critic.module)
    updates(one, name, 1)
    after = weights(one.critic.module)
    target = one.critic_target if name == "ddpg" else one.target
    torch.testing.assert_close(weights(target.module), before + polyak * (after - before))


@pytest.mark.parametrize("critics", [1, 5])
def test_an_image_is_encoded_once_for_all_critics(critics, monkeypatch):
    one, counts = learner("sac", critics=critics), []
    forward = ImageEncoder.forward
    monkeypatch.setattr(
        ImageEncoder, "forward", lambda net, obs: (counts.append(len(obs)), forward(net, obs))[1]
    )
    updates(one, "sac", 1)
    # obs and next_obs by the critics, next_obs by the target, and obs for the policy
    assert counts == [8, 8, 8, 8]


@pytest.mark.parametrize("name", BOX + CHOICE)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_policies_and_values_take_images_with_any_leading_dimensions(name, lead):
    one = learner(name)
    images = torch.randint(256, (*lead, *SHAPE), generator=seeded(), dtype=torch.uint8)
    for explore in (False, True):
        action = one.policy(images, generator=seeded(), explore=explore)
        assert action.shape == (lead if name in CHOICE else (*lead, 1))
    assert one.value(images).shape == lead


@pytest.mark.parametrize("name", BOX + CHOICE)
def test_saving_and_loading_give_the_same_next_updates(name, tmp_path):
    first, other = learner(name), learner(name, 7)
    updates(first, name, 2)
    updates(other, name, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert updates(first, name, 2) == updates(other, name, 2)
    assert torch.equal(first.critic.value, other.critic.value)


@pytest.mark.parametrize("name", BOX + CHOICE)
def test_wrong_images_are_refused_and_change_nothing(name):
    one, given = learner(name), batch(choices=name in CHOICE)
    before = one.critic.value.detach().clone()
    with pytest.raises(ValueError, match="obs must have shape"):
        one.update(given._replace(obs=given.obs[:, :8]), generator=seeded())
    with pytest.raises(ValueError, match="images: want uint8"):
        one.update(given._replace(next_obs=given.next_obs / 255), generator=seeded())
    assert torch.equal(before, one.critic.value) and one.updates == 0


def test_an_encoder_of_another_size_is_refused():
    encoder = ImageEncoder(SHAPE, IMAGES, generator=seeded())
    with pytest.raises(ValueError, match="size: the encoder gives 16 features, got 3"):
        DQN(3, 2, DQNConfig(discount=0.9), encoder=encoder, generator=seeded())


SCHEDULE = {
    "images": IMAGES, "learning_starts": 100, "batch": 32, "capacity": 2000, "log_every": 50
}  # fmt: skip
AGENTS = {
    "dqn": (dqn, dqn.Config(
        **SCHEDULE, learner=DQNConfig(
            hidden=(32,), learning_rate=2e-3, discount=0.01, target_every=10, exploration_steps=300
        ),
    )),
    "sac": (sac, sac.Config(
        **SCHEDULE, learner=SACConfig(
            hidden=(32,), learning_rate=2e-3, discount=0.01, temperature=1e-3
        ),
    )),
    "td3": (td3, td3.Config(
        **SCHEDULE, learner=TD3Config(hidden=(32,), learning_rate=2e-3, discount=0.01, noise=0.3),
    )),
    "ddpg": (ddpg, ddpg.Config(
        **SCHEDULE, learner=DDPGConfig(hidden=(32,), learning_rate=2e-3, discount=0.01, noise=0.3),
    )),
}  # fmt: skip


def go(path, name, steps, *, stop_at=10**9, count=1, **change):
    kind, config = AGENTS[name]
    env = vector([lambda: Dot(choices=name == "dqn")] * count)
    agent = kind.make(spec_of(env), config, generator=generator(3))
    run, seen = Run.open(path) if path.exists() else Run.create(path, {}), []
    with run:
        log = MetricsLog(path)
        try:
            run_agent(
                agent, env, run, seed=3, steps=steps, log=log, checkpoint_every=40,
                callback=lambda now: seen.append(now.env_steps),
                stop=lambda: seen[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()
    return agent


@pytest.mark.parametrize(("name", "bound"), [("dqn", -0.05), ("sac", -0.04), ("td3", -0.04)])
def test_the_column_of_a_dot_is_learned_from_images(tmp_path, name, bound):
    """Return of a step. Without looking, the best is -2/3 with choices and -1/3 in the box."""
    agent = go(tmp_path / "run", name, 700)
    player = agent.player(generator=seeded(1))
    env = Dot(choices=name == "dqn")
    returns = evaluate(player, env, episodes=40, seed=5)
    assert np.mean(returns) / 5 > bound
    assert agent.updates == 600


def test_replay_keeps_images_as_uint8_and_unchanged():
    env = Dot(choices=True)
    agent = dqn.make(spec_of(env), AGENTS["dqn"][1], generator=seeded())
    obs, _ = env.reset(seed=0)
    seen = [obs]
    for _ in range(4):
        action = agent.act(seen[-1][None], explore=True)
        after, reward, *ends, _ = env.step(action[0])
        columns = (seen[-1][None], action, [reward], after[None], *([end] for end in ends))
        agent.observe(Transition(*(torch.as_tensor(np.asarray(x)) for x in columns)))
        seen.append(after)
    kept = agent.replay.all()
    assert kept.obs.dtype == kept.next_obs.dtype == torch.uint8
    assert np.array_equal(kept.obs, seen[:-1]) and np.array_equal(kept.next_obs, seen[1:])


@pytest.mark.parametrize(("name", "count"), [("dqn", 1), ("sac", 3), ("ddpg", 1)])
def test_a_stopped_and_resumed_run_with_images_writes_the_same_bytes(tmp_path, name, count):
    go(tmp_path / "whole", name, 150, count=count)
    for stop in (30, 118):
        go(tmp_path / "parts", name, 150, stop_at=stop, count=count)
    parts = go(tmp_path / "parts", name, 150, count=count)
    files = [(tmp_path / kind / METRICS).read_bytes() for kind in ("whole", "parts")]
    assert files[0] == files[1] and b"critic_loss" in files[0]
    whole = Run.open(tmp_path / "whole").load()["agent"]
    assert torch.equal(whole["learner"]["critic"]["value"], parts.learner.critic.value)
    kept = parts.replay.state_dict()
    assert all(torch.equal(whole["replay"][name], kept[name]) for name in ("obs", "planes"))


@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_learning_is_the_same_as_from_a_buffer_of_whole_images(tmp_path, monkeypatch, name):
    go(tmp_path / "once", name, 150, count=2)
    plain = off_policy.Replay
    monkeypatch.setattr(
        off_policy, "Replay", lambda *args, distinct, **others: plain(*args, **others)
    )
    go(tmp_path / "whole", name, 150, count=2)
    files = [(tmp_path / kind / METRICS).read_bytes() for kind in ("once", "whole")]
    assert files[0] == files[1] and b"critic_loss" in files[0]


@pytest.mark.parametrize("settings", [{"n_step": 3}, {"priority": 0.6}, {"scale_reward": True}])
def test_schedules_take_images(settings):
    config = dqn.Config(
        **{**SCHEDULE, "learning_starts": 20, "batch": 8, **settings},
        learner=DQNConfig(hidden=(8,), discount=0.9),
    )
    env = Dot(choices=True)
    agent = dqn.make(spec_of(env), config, generator=seeded())
    obs, _ = env.reset(seed=0)
    for _ in range(30):
        action = agent.act(obs[None], explore=True)
        after, reward, *ends, _ = env.step(action[0])
        columns = (obs[None], action, [reward], after[None], *([end] for end in ends))
        agent.observe(Transition(*(torch.as_tensor(np.asarray(x)) for x in columns)))
        agent.update()
        obs = env.reset()[0] if any(ends) else after
    assert agent.updates == 10


def test_agents_of_images_guide_no_planner():
    agent = sac.make(spec_of(Dot(choices=False)), AGENTS["sac"][1], generator=seeded())
    with pytest.raises(ValueError, match="a planner needs observations that are vectors"):
        agent.guide()


def test_images_that_cannot_be_used_are_refused():
    small, large = (spec_of(Dot(choices=True, shape=(n, n, 3))) for n in (14, 16))
    with pytest.raises(ValueError, match="drq needs images of at least 15 x 15 pixels"):
        dqn.make(small, AGENTS["dqn"][1], generator=seeded())
    with pytest.raises(
        ValueError, match=r"images.network: nature needs .* 36 x 36 .* there is drq"
    ):
        dqn.make(large, dqn.Config(capacity=10), generator=seeded())
    scaled = dqn.Config(**SCHEDULE, normalise_obs=True)
    with pytest.raises(ValueError, match="normalise_obs: images are scaled by their encoder"):
        dqn.make(large, scaled, generator=seeded())


@pytest.mark.parametrize(("capacity", "images"), [(None, 500_000), (7, 7)])
def test_fewer_images_than_vectors_are_kept_where_the_settings_do_not_say(capacity, images):
    """Also in an environment that the library does not know."""
    config = sac.Config(images=IMAGES, capacity=capacity)
    made = sac.make(spec_of(Dot(choices=False)), config, generator=generator(0))
    assert made.replay.capacity == images
    vectors = sac.make(spec_of(gymnasium.make("Pendulum-v1")), config, generator=generator(0))
    assert vectors.replay.capacity == (capacity or 1_000_000)
