"""SAC from codes: what trains the encoder and what does not, what is kept, and what is learned."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import torch

from mbrl.agents import latent_pets, sac, sac_ae, td3
from mbrl.agents.code_sources import transitions_of
from mbrl.dynamics import RecurrentConfig
from mbrl.encoders.configs import (
    AutoencoderConfig,
    ContrastiveConfig,
    ImageConfig,
    SelfPredictionConfig,
    VAEConfig,
)
from mbrl.learners.configs import SACAEConfig, SACConfig
from mbrl.rng import generator
from mbrl.spaces import spec_of
from mbrl.training import Run, evaluate, run_agent, vector
from mbrl.training.metrics import METRICS, MetricsLog
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import load_run, train_run
from mbrl.types import Spec, Transition

SHAPE = (16, 16, 1)
KINDS = ["autoencoder", "vae", "contrastive", "self-prediction"]
SMALL = {"latent": 8, "channels": 8, "layers": 3, "activation": "relu", "hidden": (32,)}
LEARNER = SACAEConfig(hidden=(32,), learning_rate=2e-3, discount=0.01, temperature=1e-3)
CONFIG = sac_ae.Config(
    learner=LEARNER,
    learning_starts=100,
    batch=32,
    capacity=2000,
    log_every=50,
    autoencoder=AutoencoderConfig(**SMALL),
    vae=VAEConfig(**SMALL),
    contrastive=ContrastiveConfig(**SMALL, shift=1),
    self_prediction=SelfPredictionConfig(**SMALL, directions=16),
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Dot(gymnasium.Env):
    """A bright dot moves by an action's half pixel; what earns 0 and not less tells its column."""

    metadata = {"known": {"reward": None, "terminated": None, "ends": False, "why": ""}}

    def __init__(self, shape=SHAPE):
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.t = 0

    def _show(self):
        self.at = int(self.np_random.integers(2, 14))
        row = self.np_random.integers(3, 13)
        image = np.full(self.observation_space.shape or (), 20, np.uint8)
        image[row - 1 : row + 2, self.at - 1 : self.at + 2] = 250
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        reward = -float((action[0] - (self.at - 7.5) / 6) ** 2)
        self.t += 1
        return self._show(), reward, False, self.t == 5, {}


def made(seed: Any = 0, *, shape: Any = SHAPE, learner: Any = None, **settings: Any) -> Any:
    config = replace(CONFIG, learner=replace(LEARNER, **(learner or {})), **settings)
    return sac_ae.make(spec_of(Dot(shape)), config, generator=seeded(seed))


def batch(count=8, seed=0):
    g = seeded(seed)
    obs, after = torch.randint(256, (2, count, *SHAPE), generator=g, dtype=torch.uint8)
    no = torch.zeros(count, dtype=torch.bool)
    action = 2 * torch.rand(count, 1, generator=g) - 1
    return Transition(obs, action, torch.randn(count, generator=g), after, no, no)


def weights(module):
    return torch.cat([x.detach().flatten() for x in module.parameters()]).clone()


def moved(before, after):
    return float((after - before).detach().abs().max())


def go(path, steps, *, seed=3, count=1, stop_at=10**9, **settings) -> Any:
    config = replace(CONFIG, **settings)
    env = vector([Dot] * count)
    agent: Any = sac_ae.make(spec_of(env), config, generator=generator(seed))
    run, seen = Run.open(path) if path.exists() else Run.create(path, {}), []
    with run:
        log = MetricsLog(path)
        try:
            run_agent(
                agent, env, run, seed=seed, steps=steps, log=log, checkpoint_every=40,
                callback=lambda now: seen.append(now.env_steps),
                stop=lambda: seen[-1] >= stop_at,
            )  # fmt: skip
        finally:
            log.close()
    return agent


@pytest.mark.parametrize("kind", KINDS)
def test_both_losses_train_the_encoder_and_the_policys_does_not(kind):
    for rates, trains in (
        ({"critic_learning_rate": 1e-30, "representation_learning_rate": 1e-2}, True),
        ({"critic_learning_rate": 1e-2, "representation_learning_rate": 1e-30}, True),
        ({"critic_learning_rate": 1e-30, "representation_learning_rate": 1e-30}, False),
    ):
        one = made(representation=kind, learner={**rates, "actor_every": 1}).learner
        before, actor = weights(one.learned.network), one.actor.value.detach().clone()
        one.update(batch(), generator=seeded())
        # a step of Adam with a rate of 1e-2 is about 1e-2
        assert (moved(before, weights(one.learned.network)) > 1e-3) == trains
        assert moved(actor, one.actor.value) > 1e-4


def test_a_decoder_learns_by_the_representations_loss_alone_and_each_n_updates():
    one = made(learner={"represent_every": 3, "critic_learning_rate": 1e-2}).learner
    before, seen = weights(one.learned.decoder), []
    for k in range(6):
        said = one.update(batch(seed=k), generator=seeded(k))
        assert ("representation_loss" in said) == (k in (2, 5))
        seen.append(moved(before, weights(one.learned.decoder)) > 0)
        before = weights(one.learned.decoder)
    assert seen == [False, False, True, False, False, True]


def test_the_targets_encoder_follows_at_its_own_rate():
    one = made(learner={"polyak": 0.01, "encoder_polyak": 0.05}).learner
    heads = [p for n, p in one.critic.module.named_parameters() if not n.startswith("encoder")]
    slow = [p for n, p in one.target.module.named_parameters() if not n.startswith("encoder")]
    start, trunk = [p.detach().clone() for p in heads], weights(one.critic.module.encoder)
    # the critics' step comes before their targets', that of the representation after
    one.representation.learning_rate = 0.0
    one.update(batch(), generator=seeded())
    for before, now, target in zip(start, heads, slow, strict=True):
        torch.testing.assert_close(target, before + 0.01 * (now.detach() - before))
    now = weights(one.critic.module.encoder)
    torch.testing.assert_close(weights(one.target.module.encoder), trunk + 0.05 * (now - trunk))
    assert moved(trunk, now) > 1e-4


@pytest.mark.parametrize("training", ["joint", "frozen"])
def test_the_slow_encoder_follows_in_pretraining_too(training):
    """As a moving average with weight 0.05, of the weights after each step."""
    agent = made(
        representation="contrastive", training=training, pretrain=3, learning_starts=10,
        learner={"encoder_polyak": 0.05, "representation_learning_rate": 1e-2},
    )  # fmt: skip
    loss, seen = agent.encoder.batch_loss, []

    def observed(batch, *, slow, generator):
        seen.append((weights(slow), weights(agent.encoder)))
        return loss(batch, slow=slow, generator=generator)

    object.__setattr__(agent.encoder, "batch_loss", observed)
    agent.observe(batch(11))
    agent.update()
    for (slow, _), (after, now) in pairwise(seen[:3]):
        torch.testing.assert_close(after, slow + 0.05 * (now - slow))
        assert moved(slow, after) > 1e-4


def test_an_observation_is_encoded_once_for_critics_and_policy(monkeypatch):
    one, counts = made(learner={"represent_every": 2, "actor_every": 1}).learner, []
    kind = type(one.learned)
    encoded = kind.encoded
    monkeypatch.setattr(
        kind, "encoded", lambda net, obs: (counts.append(len(obs)), encoded(net, obs))[1]
    )
    one.update(batch(), generator=seeded())
    # next_obs by the encoder and by the target's, and obs once
    assert counts == [8, 8, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", ["joint", "frozen"])
def test_saving_and_loading_give_the_same_next_steps(kind, training, tmp_path):
    settings = {"representation": kind, "training": training, "pretrain": 3, "learning_starts": 20}
    runs = {}
    for name, stops in (("whole", ()), ("parts", (12, 31))):
        for stop in (*stops, 10**9):
            agent = go(tmp_path / name, 45, stop_at=stop, count=2, log_every=10, **settings)
        runs[name] = (tmp_path / name / METRICS).read_bytes(), agent.state_dict()
    assert runs["whole"][0] == runs["parts"][0] and b"critic_loss" in runs["whole"][0]
    a, b = (dict(flat(state)) for _, state in runs.values())
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert same, name


def flat(state, path=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", value


def test_the_column_of_a_dot_is_learned_from_codes(tmp_path):
    """Return of a step. Without looking, the best is -1/3."""
    agent = go(tmp_path / "run", 600, learner=replace(LEARNER, represent_every=4))
    returns = evaluate(agent.player(generator=seeded(1)), Dot(), episodes=20, seed=5)
    assert np.mean(returns) / 5 > -0.05


def test_a_frozen_encoder_of_random_steps_is_enough_to_learn_from(tmp_path):
    """The replay buffer keeps codes then. Without looking, the best is -1/3."""
    agent = go(tmp_path / "run", 800, training="frozen", pretrain=300)
    assert agent.frozen and agent.replay.all().obs.shape == (800, 8)
    returns = evaluate(agent.player(generator=seeded(1)), Dot(), episodes=20, seed=5)
    assert np.mean(returns) / 5 > -0.15


def test_a_frozen_encoder_stays_as_it_is_and_the_first_steps_are_kept_as_its_codes():
    agent = made(training="frozen", pretrain=5, learning_starts=10)
    env, observed = Dot(), []
    obs, _ = env.reset(seed=0)
    seen = []
    for _ in range(14):
        action = agent.act(obs[None], explore=True)
        after, reward, *ends, _ = env.step(action[0])
        columns = (obs[None], action, [reward], after[None], *([end] for end in ends))
        agent.observe(Transition(*(torch.as_tensor(np.asarray(x)) for x in columns)))
        observed.append(obs)
        agent.update()
        seen.append((agent.frozen, weights(agent.encoder)))
        obs = env.reset()[0] if any(ends) else after
    assert [frozen for frozen, _ in seen] == [False] * 10 + [True] * 4
    assert moved(seen[0][1], seen[9][1]) == 0 < moved(seen[9][1], seen[10][1])
    assert moved(seen[10][1], seen[13][1]) == 0 and agent.steps == len(agent.replay) == 14
    codes = torch.cat([agent.vectors(x[None]) for x in observed])
    torch.testing.assert_close(agent.replay.all().obs, codes)
    torch.testing.assert_close(codes[:11].mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    assert float(codes[:11].square().mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("training", ["joint", "frozen"])
def test_an_encoder_of_an_earlier_run_goes_on_from_its_weights(tmp_path, training):
    first = go(tmp_path / "run", 120)
    file = next((tmp_path / "run").glob("checkpoints/*/model.safetensors"))
    for path in (tmp_path / "run", file):
        agent = made(7, encoder=str(path), training=training)
        assert moved(weights(first.encoder), weights(agent.encoder)) == 0
    fresh = weights(made(7).encoder)
    assert moved(weights(first.encoder), fresh) > 0.1
    later = go(tmp_path / training, 110, encoder=str(file), training=training, pretrain=0)
    for name in ("background", "spread"):  # what the loaded decoder has learned to go with
        assert torch.equal(getattr(later.encoder, name), getattr(first.encoder, name))
    assert float(first.encoder.spread) < 1


@pytest.mark.parametrize("algo", ["sac", "sac-ae", "latent-pets"])
def test_the_replayed_frames_of_an_earlier_run_train_the_encoder(tmp_path, algo):
    if algo == "sac-ae":
        go(tmp_path / "run", 120)
    else:
        if algo == "sac":
            small = {"images": ImageConfig(channels=4, features=8), "batch": 8}
            config = sac.Config(**small, learner=SACConfig(hidden=(8,)), learning_starts=110)
        else:
            config = latent_pets.Config(model=RecurrentConfig(layers=2, length=5))
        env, makers = vector([Dot]), {"sac": sac, "latent-pets": latent_pets}
        with Run.create(tmp_path / "run", {}) as run:
            agent: Any = makers[algo].make(spec_of(env), config, generator=generator(0))
            log = MetricsLog(tmp_path / "run")
            run_agent(agent, env, run, seed=0, steps=120, log=log)
            log.close()
    settings = {"data": str(tmp_path / "run"), "pretrain": 3, "learning_starts": 5}
    agent = made(training="frozen", **settings)
    drawn = []
    loss = agent.encoder.loss

    def seen(obs, *, generator):
        drawn.append(obs)
        return loss(obs, generator=generator)

    object.__setattr__(agent.encoder, "loss", seen)
    env = Dot()
    obs, _ = env.reset(seed=9)
    no = torch.tensor([False])
    for _ in range(6):
        after = env.step(np.zeros(1))[0]
        rows = (torch.as_tensor(x[None]) for x in (obs, after))
        first, second = rows
        agent.observe(Transition(first, torch.zeros(1, 1), torch.zeros(1), second, no, no))
        agent.update()
        obs = after
    kept = safetensors.torch.load_file(next((tmp_path / "run").glob("checkpoints/*/*.safetensors")))
    (stored,) = (kept[name] for name in kept if name.endswith("/planes") and "replay" in name)
    planes = {bytes(plane.numpy()) for plane in stored}
    found = {bytes(image.numpy()) for images in drawn for image in images[..., 0].contiguous()}
    assert len(drawn) == 3 and found <= planes


@pytest.mark.parametrize("kind", ["several steps", "priorities"])
def test_transitions_of_several_steps_and_of_priorities_train_the_encoder_too(tmp_path, kind):
    """Their rows have the discount too, and priorities are beside them."""
    if kind == "several steps":
        agent = go(tmp_path / "run", 30, learning_starts=100, n_step=3)
    else:
        env, images = vector([Dot]), ImageConfig(channels=4, features=8)
        config = td3.Config(images=images, priority=0.6, learning_starts=100, capacity=2000)
        with Run.create(tmp_path / "run", {}) as run:
            agent = td3.make(spec_of(env), config, generator=generator(0))
            log = MetricsLog(tmp_path / "run")
            run_agent(agent, env, run, seed=0, steps=30, log=log)
            log.close()
    settings = {"data": str(tmp_path / "run"), "pretrain": 1}
    found = transitions_of(spec_of(Dot()), replace(CONFIG, **settings), "cpu")
    assert found is not None
    for own, other in zip(agent.replay.all(), found.all(), strict=True):
        assert torch.equal(own, other)
    if kind == "several steps":
        with pytest.raises(ValueError, match="data: self-prediction learns from single steps, and"):
            made(representation="self-prediction", **settings)


def test_self_prediction_learns_from_single_steps():
    """The next observation of a row is that after n steps, and its action the first of them."""
    with pytest.raises(ValueError, match="n_step: self-prediction learns from single steps; want"):
        replace(CONFIG, representation="self-prediction", n_step=3)
    found = sac_ae.VARIANTS["self-prediction"](replace(CONFIG, n_step=3))
    assert (found.representation, found.n_step) == ("self-prediction", 1)
    replace(CONFIG, representation="self-prediction", training="frozen", n_step=3)


@pytest.mark.parametrize("training", ["joint", "frozen"])
def test_a_saved_run_needs_neither_the_run_of_its_encoder_nor_that_of_its_data(tmp_path, training):
    go(tmp_path / "first", 30, n_step=1)
    first = str(tmp_path / "first")
    config = replace(CONFIG, encoder=first, data=first, pretrain=2, training=training, capacity=500)
    seen = {}
    for name in ("whole", "parts"):
        for steps in (105,) if name == "whole" else (102, 105):
            path = tmp_path / name
            if steps == 105 and name == "parts":
                (tmp_path / "first").rename(tmp_path / "moved")
            stored = RunConfig("sac-ae", "Dot", 0, steps, "cpu", config)
            train_run(stored, path, make_env=lambda _: Dot(), resume=path.exists())
        seen[name] = dict(flat(load_run(path, make_env=lambda _: Dot()).agent.state_dict()))
    assert seen["whole"].keys() == seen["parts"].keys()
    for name, value in seen["whole"].items():
        other = seen["parts"][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path):
    go(tmp_path / "run", 20)
    go(tmp_path / "none", 20, training="frozen")
    run = str(tmp_path / "run")
    (tmp_path / "text").write_text("no weights")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"encoder": run, "shape": (24, 24, 1)},
         r"encoder: .*model.safetensors is of observations of the shape \(16, 16, 1\), these have "
         r"\(24, 24, 1\)"),
        ({"data": run, "pretrain": 1, "shape": (24, 24, 1)},
         r"data: the transitions of .* are of other observations or actions: replay planes of "
         r"shape \(\d+, 16, 16\)"),
        ({"encoder": run, "representation": "vae"}, "has no weights of the representation vae"),
        ({"encoder": run, "autoencoder": AutoencoderConfig(latent=3, layers=3)},
         "is of other settings: latent, channels, layers or hidden differ"),
        ({"encoder": str(tmp_path / "text")}, "text is no file of weights"),
        ({"encoder": str(tmp_path / "nothing")},
         "encoder: .*nothing is neither a run with a checkpoint nor a .safetensors file"),
    ]  # fmt: skip
    for settings, says in refused:
        with pytest.raises(ValueError, match=says) as error:
            made(**settings)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="data: the encoder learns from it in pretraining"):
        replace(CONFIG, data=run)
    with pytest.raises(ValueError, match="hindsight: codes that are frozen have no goals"):
        replace(CONFIG, training="frozen", hindsight=4)
    with pytest.raises(ValueError, match="joint, target: sac-ae needs target networks"):
        made(learner={"joint": True, "norm": "batch"})


def test_vectors_have_codes_too():
    """Their scale is that of the data when learning starts."""
    env = gymnasium.make("Pendulum-v1")
    for training in ("joint", "frozen"):
        config = replace(CONFIG, training=training, pretrain=2, learning_starts=30)
        agent: Any = sac_ae.make(spec_of(env), config, generator=seeded())
        obs, _ = env.reset(seed=0)
        for _ in range(32):
            action = agent.act(obs[None], explore=True)
            after, reward, *ends, _ = env.step(action[0])
            columns = (obs[None], action, [reward], after[None], *([end] for end in ends))
            agent.observe(Transition(*(torch.as_tensor(np.asarray(x)).float() for x in columns[:4]),
                                     *(torch.tensor(x) for x in columns[4:])))  # fmt: skip
            agent.update()
            obs = after
        assert agent.updates == 2
        assert float(agent.encoder.scaling.normaliser.std[2]) > 0.3  # rad/s; sines are below 1
        if training == "joint":  # encodes what a planner imagines, which are observations
            states = agent.vectors(np.stack([obs, after]))
            one, two = (agent.guide().value(part) for part in (states, states.view(1, 2, -1)))
            assert torch.equal(one, two[0])
            assert torch.equal(one, agent.value(states))
        else:
            with pytest.raises(ValueError, match="observations that are vectors, not images or"):
                agent.guide()


def test_an_encoder_of_normalised_vectors_is_scaled_to_what_it_sees():
    space, action = gymnasium.spaces.Box(-9, 9, (2,)), gymnasium.spaces.Box(-1, 1, (1,))
    config = replace(CONFIG, normalise_obs=True, learning_starts=40)
    agent: Any = sac_ae.make(Spec(space, action, episode_steps=50), config, generator=seeded())
    obs, no = torch.randn(42, 2, generator=seeded()) * 2 + torch.tensor([3.0, -4.0]), [False] * 42
    ends = torch.tensor(no)
    agent.observe(Transition(obs, torch.zeros(42, 1), torch.zeros(42), obs, ends, ends))
    agent.update()
    scaled = (obs - obs.mean(0)) / obs.std(0, correction=0)
    seen = agent.encoder.scaling(scaled)
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(2), atol=0.02, rtol=0)
    torch.testing.assert_close(agent.codes(obs.numpy()), agent.encoder(scaled).detach())


def test_each_environments_own_steps_are_joined_where_the_oldest_frames_are_overwritten():
    """Rewards say which environment a step is of, and returns are of two steps."""
    agent = made(training="frozen", capacity=7, learning_starts=15, pretrain=1, n_step=2)
    no = torch.zeros(2, dtype=torch.bool)
    obs = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    for _ in range(9):
        agent.observe(Transition(obs, torch.zeros(2, 1), torch.tensor([1.0, 100.0]), obs, no, no))
        agent.update()
    assert agent.frozen
    found = agent.replay.all().reward
    alone = torch.isclose(found[:, None], torch.tensor([1.01, 101.0]))  # the discount is 0.01
    assert len(found) > 4 and alone.any(1).all()


@pytest.mark.parametrize("when", [4, 12])
def test_no_return_goes_on_where_an_episode_is_given_up(when):
    """Before and after the encoder has learned; rewards say which step they are of."""
    agent = made(training="frozen", learning_starts=8, pretrain=1, n_step=2)
    no, obs = torch.zeros(1, dtype=torch.bool), torch.zeros(1, *SHAPE, dtype=torch.uint8)
    for t in range(16):
        if t == when:
            agent.give_up(np.array([True]))
        agent.observe(Transition(obs, torch.zeros(1, 1), torch.tensor([t + 1.0]), obs, no, no))
        agent.update()
    found = agent.replay.all().reward
    assert agent.frozen and len(found) > 10
    across = when + 0.01 * (when + 1)  # the discount is 0.01
    assert not torch.isclose(found, torch.tensor(across)).any()
    assert torch.isclose(found, torch.tensor(across - 1.01)).any()


@pytest.mark.parametrize(
    ("space", "seen", "hot"),
    [
        (gymnasium.spaces.Discrete(3, start=3), [3, 5], [[1, 0, 0], [0, 0, 1]]),
        (gymnasium.spaces.MultiDiscrete([1, 2]), [[0, 0], [0, 1]], [[1, 1, 0], [1, 0, 1]]),
    ],
)
def test_indices_seen_before_the_encoder_learned_are_kept_as_codes_too(space, seen, hot):
    action = gymnasium.spaces.Box(-1, 1, (1,))
    config = replace(CONFIG, training="frozen", pretrain=2, learning_starts=12, batch=4)
    agent: Any = sac_ae.make(Spec(space, action, episode_steps=5), config, generator=seeded())
    obs, no = torch.tensor(seen), torch.zeros(2, dtype=torch.bool)
    for _ in range(7):
        agent.observe(Transition(obs, torch.zeros(2, 1), torch.zeros(2), obs, no, no))
        agent.update()
    assert agent.frozen
    codes = (agent.encoder(torch.tensor(hot).float()) - agent.vectors.mean) / agent.vectors.std
    torch.testing.assert_close(agent.replay.all().obs, codes.detach().repeat(7, 1))


@pytest.mark.parametrize("training", ["joint", "frozen"])
def test_frames_of_another_shape_or_kind_are_refused_and_not_kept(training):
    agent = made(training=training)
    no = torch.tensor([False])
    obs = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    step = Transition(obs, torch.zeros(1, 1), torch.zeros(1), obs, no, no)
    with pytest.raises(ValueError, match="images: want uint8, got torch.float32"):
        agent.observe(step._replace(obs=obs / 255))
    with pytest.raises(ValueError, match=r"next_obs has shape \(1, 8, 16, 1\), not \(1, 16, 16"):
        agent.observe(step._replace(next_obs=obs[:, :8]))
    with pytest.raises(ValueError, match=r"observations: want shape \(\*lead, 16, 16, 1\)"):
        agent.codes(obs[:, :8].numpy())
    assert agent.steps == 0
    agent.observe(step)
    assert agent.steps == 1
