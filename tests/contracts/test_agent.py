"""The contract of agents with the loop that drives them. A new agent adds its maker to `MAKERS`."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch

from mbrl.agents import (
    AGENTS,
    PETS,
    MPCConfig,
    PlannerConfig,
    RandomAgent,
    agent,
    ddpg,
    latent_mbpo,
    latent_pets,
    mb_pg,
    mve,
    name_of,
    sac,
    sac_ae,
    td3,
    tdmpc,
)
from mbrl.agents.pets import Config
from mbrl.agents.world_config import planning
from mbrl.dynamics import (
    DropoutConfig,
    EnsembleConfig,
    GPConfig,
    NormedEnsembleConfig,
    SgmcmcConfig,
    SwagConfig,
)
from mbrl.dynamics.recurrent_config import RecurrentConfig
from mbrl.encoders.configs import AutoencoderConfig, SelfPredictionConfig
from mbrl.learners.configs import SACAEConfig, SACConfig
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.learners.value_configs import DDPGConfig, TD3Config
from mbrl.types import Agent, Player, Spec, Transition
from tests.proof import bayesian_linear, dyna

OBS, COUNT = 2, 3
LOW, HIGH = np.array([-1.0, -3.0], np.float32), np.array([1.0, 0.5], np.float32)
SPEC = Spec(
    gymnasium.spaces.Box(-np.inf, np.inf, (OBS,)),
    gymnasium.spaces.Box(LOW, HIGH),
    reward=None,
    ends=False,
    episode_steps=6,
)

FINITE = Spec(gymnasium.spaces.Discrete(4), gymnasium.spaces.Discrete(2))


def pets(guide=False, model=None, **settings):
    own_model = model

    def make(seed=0):
        mpc = MPCConfig(
            PlannerConfig(horizon=3, population=10, iterations=2, elites=2),
            particles=2, **settings,
        )  # fmt: skip
        model = EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True)
        model = model if own_model is None else own_model
        own = SACConfig(hidden=(8,), discount=0.9)
        config = Config(mpc=mpc, model=model, random_steps=12, guide=guide, sac=own)
        return PETS(SPEC, config, generator=seeded(seed))

    return make


def latent_planning(seed=0):
    config = latent_pets.Config(
        mpc=MPCConfig(
            PlannerConfig("cem", horizon=3, population=10, iterations=2, elites=2),
            replan_every=2, propagation="expectation",
        ),
        model=RecurrentConfig(
            latent=2, deterministic=4, width=4, hidden=(4,), batch=2, length=4, updates=2
        ),
        random_steps=12,
    )  # fmt: skip
    return latent_pets.make(SPEC, config, generator=seeded(seed))


def latent_imagining(seed=0):
    config = latent_mbpo.Config(
        model=RecurrentConfig(
            latent=2, deterministic=4, width=4, hidden=(4,), batch=2, length=4, updates=2
        ),
        learner=SACConfig(hidden=(8,), discount=0.9),
        random_steps=12, first_updates=3, fit_every=6, sequences=3, horizon=2, batch=8,
    )  # fmt: skip
    return latent_mbpo.make(SPEC, config, generator=seeded(seed))


def imagining(seed=0):
    model = bayesian_linear.Config(members=2, learn_reward=True)
    config = dyna.Config(model, random_steps=12, every=6, real=2, imagined=2, starts=5, batch=8)
    return dyna.make(SPEC, config, generator=seeded(seed))


def model_gradient(base, own=(), **settings):
    start = mb_pg.Config(
        base=base,
        model=EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True),
        learning_starts=12,
        fit_every=6,
        rounds=2,
        rollouts=3,
        validate_every=1,
        **settings,
    )
    learner = dataclasses.replace(start.learner, hidden=(8,), discount=0.9, **dict(own))
    config = dataclasses.replace(start, **{base: learner})
    return lambda seed=0: mb_pg.make(SPEC, config, generator=seeded(seed))


def soft(seed, **settings):
    own = SACConfig(hidden=(8,), discount=0.9)
    config = sac.Config(learning_starts=12, batch=8, log_every=12, learner=own, **settings)
    return sac.make(SPEC, config, generator=seeded(seed))


def coded(seed, **settings):
    config = sac_ae.Config(
        learning_starts=12, batch=8, log_every=12, learner=SACAEConfig(hidden=(8,), discount=0.9),
        autoencoder=AutoencoderConfig(latent=3, hidden=(8,)),
        self_prediction=SelfPredictionConfig(latent=3, hidden=(8,), predictor=(8,), directions=4),
        **settings,
    )  # fmt: skip
    return sac_ae.make(SPEC, config, generator=seeded(seed))


def expanding(seed, **settings):
    model = EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True)
    config = mve.Config(
        model=model, learning_starts=12, fit_every=6, batch=8, log_every=12, horizon=2,
        td3=TD3Config(hidden=(8,), discount=0.9), sac=SACConfig(hidden=(8,), discount=0.9),
        **settings,
    )  # fmt: skip
    return mve.make(SPEC, config, generator=seeded(seed))


def rollouts(name, learner=(), **settings):
    module = agent(name)
    start = module.Config()
    inner = dataclasses.replace(start.learner, hidden=(8,), **dict(learner))
    config = dataclasses.replace(start, learner=inner, **settings)
    return lambda seed=0: module.make(SPEC, config, generator=seeded(seed))


def deterministic(seed, module=ddpg, kind=DDPGConfig, **settings):
    own = kind(hidden=(8,), discount=0.9)
    config = module.Config(learning_starts=12, batch=8, log_every=12, learner=own, **settings)
    return module.make(SPEC, config, generator=seeded(seed))


def imagined(name, learner, model=None, **settings):
    module = agent(name)
    if model is None:
        model = EnsembleConfig(members=2, hidden=(8,), epochs=2, batch=16, learn_reward=True)
    config = dataclasses.replace(
        module.Config(), model=model, starts=8, learning_starts=12, fit_every=6, batch=8,
        log_every=12, updates=1, **settings, **learner,
    )  # fmt: skip
    return lambda seed=0: module.make(SPEC, config, generator=seeded(seed))


SOFT = SACConfig(hidden=(8,), discount=0.9)

SAMPLED = {"members": 2, "hidden": (8,), "epochs": 2, "batch": 16, "learn_reward": True}

PROCESSES = {
    "members": 2, "points": 15, "frequencies": 4, "iterations": 3, "learn_reward": True,
}  # fmt: skip


def through_model(seed, name, learner=(), **settings):
    module = agent(name)
    start = module.Config()
    own = dataclasses.replace(start.learner, hidden=(8,), discount=0.9, horizon=2, **dict(learner))
    model = NormedEnsembleConfig(
        members=2, hidden=(8,), patience=1, epochs=2, batch=16, learn_reward=True
    )
    config = dataclasses.replace(
        start, learner=own, model=model, learning_starts=12, fit_every=12, batch=8, **settings
    )
    return module.make(SPEC, config, generator=seeded(seed))


def double_horizon(seed, **settings):
    return through_model(
        seed, "dhmbpo", critic_updates=2, updates=4, first=2, visit_every=3, visit_steps=3,
        starts=7, states=30, **settings,
    )  # fmt: skip


def latent(seed, **settings):
    own = TDMPCConfig(
        latent=8, group=4, hidden=(8,), encoder_hidden=(8,), critics=3, horizon=2, **settings
    )
    plan = planning(population=10, iterations=2, elites=2, proposals=2)
    config = tdmpc.Config(
        learner=own, plan=plan, random_steps=12, first_updates=2, train_every=2, batch=8,
        log_every=12,
    )  # fmt: skip
    return tdmpc.make(SPEC, config, generator=seeded(seed))


MAKERS = {
    "mbpo": imagined("mbpo", {"learner": SOFT}, last_horizon=4, horizon_from=12, horizon_to=20),
    "macura": imagined("mbpo", {"learner": SOFT}, trust="macura", horizon=3),
    "infoprop": imagined("mbpo", {"learner": SOFT}, trust="infoprop", horizon=3),
    "dyna sac": imagined("dyna", {"sac": SOFT}, normalise_obs=True, actions="buffer"),
    "dyna planning": imagined(
        "dyna",
        {"sac": SOFT},
        planning=True,
        plan=MPCConfig(PlannerConfig(horizon=2, population=8, iterations=2, elites=2), particles=2),
    ),
    "dyna td3": imagined(
        "dyna", {"base": "td3", "td3": TD3Config(hidden=(8,), discount=0.9)}, actions="random"
    ),
    "a2c": rollouts("a2c"),
    "actor-critic": rollouts("actor-critic", rollout=4),
    "off-policy actor-critic": rollouts(
        "off-policy-actor-critic", learning_starts=12, batch=8, log_every=12
    ),
    "ppo": rollouts("ppo", {"epochs": 2, "batch": 5}, rollout=4),
    "ppo normalised": rollouts("ppo", rollout=5, normalise_obs=True, normalise_reward=True),
    "ppo gSDE": rollouts("ppo", {"gsde": True}, rollout=7, noise_every=3),
    "reinforce": rollouts("reinforce", episodes=4),
    "trpo": rollouts("trpo", rollout=6),
    "ddpg": lambda seed=0: deterministic(seed, n_step=2, priority=0.6),
    "td3": lambda seed=0: deterministic(seed, td3, TD3Config),
    "mve": lambda seed=0: expanding(seed, imagined_states=True),
    "mve with sac": lambda seed=0: expanding(seed, base="sac", sample=True, scale_reward=True),
    "steve": lambda seed=0: expanding(seed, steve=True, normalise_obs=True),
    "pets": pets(),
    "pets guided": pets(guide=True),
    "pets open loop": pets(replan_every=0),
    "pets, dropout": pets(model=DropoutConfig(**SAMPLED)),
    "pets, swag": pets(model=SwagConfig(swag_epochs=2, **SAMPLED)),
    "pets, gp": pets(model=GPConfig(**PROCESSES)),
    "mbpo, gp": imagined("mbpo", {"learner": SOFT}, GPConfig(**PROCESSES), trust="macura"),
    "mbpo, sgmcmc": imagined(
        "mbpo", {"learner": SOFT}, SgmcmcConfig(cycle_steps=8, cycle_samples=2, **SAMPLED)
    ),
    "dyna": imagining,
    "latent-mbpo": latent_imagining,
    "latent-pets": latent_planning,
    "mb-pg": model_gradient("trpo"),
    "mb-pg with ppo, short rollouts": model_gradient(
        "ppo", {"epochs": 2, "batch": 5}, horizon=2, normalise_obs=True, scale_reward=True
    ),
    "dhmbpo": lambda seed=0: double_horizon(seed),
    "svg": lambda seed=0: through_model(seed, "svg", log_every=12),
    "svg without critics": lambda seed=0: through_model(
        seed, "svg", {"tail": False}, normalise_obs=False
    ),
    "sac": lambda seed=0: soft(seed),
    "sac, scaled": lambda seed=0: soft(
        seed, normalise_obs=True, scale_reward=True, updates=2, n_step=3
    ),
    "sac, held noise": lambda seed=0: soft(seed, hold_noise=16),
    "sac-ae": lambda seed=0: coded(seed),
    "sac-ae, frozen": lambda seed=0: coded(
        seed, training="frozen", pretrain=3, representation="self-prediction", n_step=2
    ),
    "tdmpc": lambda seed=0: latent(seed, dropout=0.3),
    "tdmpc, other losses": lambda seed=0: latent(seed, rho=1.0, subset=3, bins=11),
    "random": lambda seed=0: RandomAgent(SPEC.action, generator=seeded(seed)),
}
"""name -> make(seed) -> a fresh agent for `SPEC`."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def make(request):
    return request.param


class World:
    """COUNT parallel walks in the plane in episodes of six steps, each one step behind the last."""

    def __init__(self):
        self.at = np.zeros((COUNT, OBS), np.float32)
        self.steps = -np.arange(COUNT)

    def go(self, agent):
        action = agent.act(self.at, explore=True)
        after = (0.9 * self.at + 0.1 * action).astype(np.float32)
        self.steps += 1
        over = self.steps % 6 == 0
        agent.observe(
            Transition(*(torch.as_tensor(x) for x in (
                self.at, action, after[:, 0], after, np.zeros(COUNT, bool), over)))
        )  # fmt: skip
        self.at = np.where(over[:, None], 0, after).astype(np.float32)
        return action, dict(agent.update())


def copied(state):
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


def walk(agent, steps):
    world = World()
    return [world.go(agent) for _ in range(steps)]


def test_every_agent_and_its_player_satisfy_the_protocols(make):
    assert isinstance(make(), Agent)
    assert isinstance(make().player(generator=seeded()), Player)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_in_the_table_is_made_from_a_spec_alone(name):
    module, spec = agent(name), FINITE if name in ("dqn", "dyna-q", "tabular") else SPEC
    config = module.Config.suited(spec)
    made = module.make(spec, config, generator=seeded())
    assert isinstance(made, Agent) and name_of(config) == name
    obs = np.zeros((COUNT, *spec.obs.shape), spec.obs.dtype)
    assert made.act(obs, explore=True).shape == (COUNT, *spec.action.shape)


def test_an_unknown_agent_is_refused_with_the_known_names():
    with pytest.raises(
        ValueError, match=f"agent 'petz' is unknown; there are {', '.join(sorted(AGENTS))}"
    ):
        agent("petz")


def test_actions_are_arrays_within_bounds(make):
    for action, _ in walk(make(), 15):
        assert isinstance(action, np.ndarray) and action.shape == (COUNT, 2)
        assert action.dtype == np.float32
        assert (action >= LOW).all() and (action <= HIGH).all()


def test_actions_are_equal_only_for_equal_seeds(make):
    global_state = torch.get_rng_state()
    first, again, other = (walk(make(seed), 24) for seed in (0, 0, 1))
    for (a, said), (b, says) in zip(first, again, strict=True):
        assert np.array_equal(a, b) and said == says
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))
    assert torch.equal(global_state, torch.get_rng_state())


@pytest.mark.parametrize("steps", [0, 3, 12, 21])
def test_saving_and_loading_give_the_same_next_actions(make, steps):
    agent, other, world, mirror = make(), make(7), World(), World()
    for _ in range(steps):
        world.go(agent)
    walk(other, 15)  # its state before loading must have no effect
    other.load_state_dict(copied(agent.state_dict()))
    mirror.at, mirror.steps = world.at.copy(), world.steps.copy()
    for _ in range(14):
        (a, said), (b, says) = world.go(agent), mirror.go(other)
        assert np.array_equal(a, b) and said == says


def test_a_state_consists_of_tensors_and_plain_values(make, tmp_path):
    agent = make()
    walk(agent, 15)
    torch.save(agent.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    other = make(7)
    other.load_state_dict(loaded)
    obs = np.zeros((COUNT, OBS), np.float32)
    assert np.array_equal(agent.act(obs, explore=True), other.act(obs, explore=True))


def test_an_update_returns_no_metrics_if_none_is_due(make):
    agent = make()
    assert agent.update() == {}
    history = walk(agent, 3)
    assert [said for _, said in history] == [{}] * 3
    agent = make()
    walk(agent, 12)
    assert agent.update() == {}  # the update was done already


def test_metrics_of_updates_are_finite_numbers(make):
    for _, said in walk(make(), 24):
        assert all(isinstance(name, str) for name in said)
        assert np.isfinite([float(value) for value in said.values()]).all()


def test_a_player_does_not_change_the_agent(make):
    agent, twin = make(), make()
    world, mirror = World(), World()
    every = np.ones(COUNT, bool)
    for step in range(15):
        if step % 5 == 0:
            played = []
            for _ in range(2):
                player = agent.player(generator=seeded(3))
                player.reset(every)
                played.append([player.act(world.at, explore=False) for _ in range(4)])
            assert np.array_equal(*played)
        assert np.array_equal(world.go(agent)[0], mirror.go(twin)[0])


def test_a_player_acts_in_one_environment_as_in_several(make):
    agent = make()
    walk(agent, 8)
    alone, both = (agent.player(generator=seeded(3)) for _ in range(2))
    obs = np.full((1, OBS), 0.3, np.float32)
    assert np.array_equal(alone.act(obs, explore=False),
                          both.act(np.repeat(obs, 2, 0), explore=False)[:1])  # fmt: skip
