"""mbrl-lib 0.2.0, timed: a script for the virtual environment that has it.

Reads one JSON request a line on stdin and answers each with one JSON line on stdout, so that
the caller can take turns with it. A request names a `work` and any of its options; every work has
the options `repeats` (number of timings, default 1) and `threads` (torch's intra-op threads,
default as they are). The answer holds `seconds`, one entry for each repeat, `threads`, and the
amounts of work of one repeat; a request that cannot be met is answered by {"error": "one line"}.
The first request of a kind builds what it needs and runs it once untimed; later ones reuse it.

`info`    versions and threads.
`step`    `steps` calls of ModelEnv.step, each on `rows` states: `transitions`.
`score`   ModelEnv.evaluate_action_sequences of `candidates` plans: `transitions`.
`action`  one plan by TrajectoryOptimizerAgent, task "cart-pole" or "half-cheetah", optimizer
          "cem", "icem" or "mppi": `transitions`.
`imagine` a burst of MBPO: `rows` states of a buffer are stepped `horizon` times with actions of its
          SAC, and what is found is added to another buffer: `transitions`.
`sac`     one action of its SAC, one transition added to a buffer, and `updates` updates.
`train`   one epoch of ModelTrainer on bootstrapped batches: `batches`, updates of all members at
          once.

The networks and normalisation are those of mbrl-lib's PETS configuration (4 layers of 200, SiLU,
bounded log-variance, inputs normalised in double precision) with `members` of them. There is no
elite selection, which would only add a copy of the weights to the time.

mbrl-lib's package is imported by `import_module` only, since this repository has an `mbrl` too.
"""

from __future__ import annotations

import functools
import inspect
import runpy
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

VERSION = "0.2.0"
SEED = 0

Run = Callable[[], Any]  # does the work once and returns its numbers, to be checked as finite
Facts = dict[str, int]  # what the last run did

TASKS: dict[str, dict[str, Any]] = {
    "cart-pole": {
        "config": "pets_cartpole",
        "known": "cartpole",
        "terminated": "cartpole",
        "obs": 4,
        "action": 1,
        "horizon": 15,
        "population": 350,
    },
    "half-cheetah": {
        "config": "pets_halfcheetah",
        "known": "halfcheetah",
        "terminated": "no_termination",
        "obs": 18,
        "action": 6,
        "horizon": 30,
        "population": 500,
    },
}

# mbrl-lib's wheel lacks the folder of optimiser configurations; values not given by a request are
# those of its shipped overrides (pets_icem_cartpole, pets_mppi_halfcheetah).
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "cem": {
        "_target_": "mbrl.planning.CEMOptimizer",
        "elite_ratio": 0.1,
        "alpha": 0.1,
        "return_mean_elites": True,
    },
    "icem": {
        "_target_": "mbrl.planning.ICEMOptimizer",
        "elite_ratio": 0.1,
        "alpha": 0.1,
        "return_mean_elites": True,
        "population_decay_factor": 1.3,
        "colored_noise_exponent": 2,
        "keep_elite_frac": 0.3,
    },
    "mppi": {
        "_target_": "mbrl.planning.MPPIOptimizer",
        "gamma": 0.9,
        "sigma": 1.0,
        "beta": 0.9,
    },
}


_SERVING = runpy.run_path(str(Path(__file__).with_name("serving.py")))
accepted, timed, info, serve = (_SERVING[name] for name in ("accepted", "timed", "info", "serve"))


def peer(module: str) -> ModuleType:
    """A module of mbrl-lib."""
    return import_module(f"mbrl.{module}")


def shipped_config(task: str) -> Any:
    """mbrl-lib's PETS configuration for a task, as its wheel ships it, set to run on the CPU."""
    load = import_module("omegaconf").OmegaConf.load
    folder = Path(str(import_module("mbrl").__file__)).parent / "examples" / "conf"
    config = import_module("omegaconf").OmegaConf.create(
        {"device": "cpu", "seed": SEED, "debug_mode": False, "action_optimizer": {}}
    )
    config.algorithm = load(folder / "algorithm" / "pets.yaml")
    config.dynamics_model = load(folder / "dynamics_model" / "gaussian_mlp_ensemble.yaml")
    config.overrides = load(folder / "overrides" / f"{task}.yaml")
    # It was written for an older hydra, which did not instantiate nested targets.
    config.algorithm.agent._recursive_ = False
    config.dynamics_model._recursive_ = False
    return config


def stub_simulator() -> None:
    """Replace gymnasium's MuJoCo base class, which the module of a pure function imports."""
    stub: Any = ModuleType("gymnasium.envs.mujoco")
    stub.mujoco_env = SimpleNamespace(MujocoEnv=type("MujocoEnv", (), {}))
    sys.modules["gymnasium.envs.mujoco"] = stub


def random_transitions(rows: int, obs: int, action: int) -> Any:
    """A TransitionBatch of smooth random dynamics, in double precision as in its PETS."""
    draw = np.random.default_rng(SEED)
    state, act = draw.normal(size=(rows, obs)), draw.uniform(-1, 1, size=(rows, action))
    change = np.tanh(state @ draw.normal(size=(obs, obs)) + act @ draw.normal(size=(action, obs)))
    none = np.zeros(rows, dtype=bool)
    return peer("types").TransitionBatch(
        state, act, state + 0.1 * change, change.sum(axis=1), none, none
    )


def model_for(config: Any, obs: int, action: int, *, members: int, propagation: str) -> Any:
    """mbrl-lib's transition model, untrained, with its input normaliser set by random data."""
    config.dynamics_model.ensemble_size = members
    config.dynamics_model.propagation_method = propagation
    model = peer("util.common").create_one_dim_tr_model(config, (obs,), (action,))
    model.update_normalizer(random_transitions(1000, obs, action))
    return model


def model_env(model: Any, obs: int, action: int, *, known: str | None, terminated: str) -> Any:
    """mbrl-lib's ModelEnv, with its own reward and termination functions of these names."""
    box = import_module("gymnasium").spaces.Box
    spaces = SimpleNamespace(
        observation_space=box(-np.inf, np.inf, (obs,)), action_space=box(-1.0, 1.0, (action,))
    )
    reward = getattr(peer("env.reward_fns"), known) if known else None
    return peer("models").ModelEnv(
        spaces,
        model,
        getattr(peer("env.termination_fns"), terminated),
        reward,
        generator=torch.Generator().manual_seed(SEED),
    )


def locomotion_env(
    members: int, obs: int, action: int, propagation: str, learned_reward: bool
) -> Any:
    """A ModelEnv of half-cheetah's size, without the task's own preprocessing of observations."""
    config = shipped_config("pets_halfcheetah")
    config.overrides.obs_process_fn = None
    config.algorithm.learned_rewards = learned_reward
    model = model_for(config, obs, action, members=members, propagation=propagation)
    known = None if learned_reward else "halfcheetah"
    return model_env(model, obs, action, known=known, terminated="no_termination")


def step(
    rows: int = 10_000,
    steps: int = 5,
    propagation: str = "random_model",
    members: int = 5,
    obs: int = 17,
    action: int = 6,
    learned_reward: bool = False,
) -> tuple[Run, Facts]:
    """Sampled steps of `rows` states; propagation random_model, fixed_model or expectation."""
    env = locomotion_env(members, obs, action, propagation, learned_reward)
    draw = np.random.default_rng(SEED)
    start = draw.normal(size=(rows, obs))
    actions = torch.as_tensor(draw.uniform(-1, 1, size=(steps, rows, action)), dtype=torch.float32)

    def run() -> torch.Tensor:
        state = env.reset(start, return_as_np=False)
        for act in actions:
            _, _, _, state = env.step(act, state, sample=True)
        return state["obs"]

    return run, {"transitions": rows * steps, "outputs": obs + learned_reward}


def score(
    candidates: int = 500,
    horizon: int = 30,
    particles: int = 20,
    propagation: str = "random_model",
    members: int = 5,
    obs: int = 17,
    action: int = 6,
    learned_reward: bool = False,
) -> tuple[Run, Facts]:
    """Scores of `candidates` action sequences from one state, averaged over particles."""
    env = locomotion_env(members, obs, action, propagation, learned_reward)
    draw = np.random.default_rng(SEED)
    start = draw.normal(size=obs)
    actions = torch.as_tensor(
        draw.uniform(-1, 1, size=(candidates, horizon, action)), dtype=torch.float32
    )

    def run() -> torch.Tensor:
        return env.evaluate_action_sequences(actions, initial_state=start, num_particles=particles)

    transitions = candidates * horizon * particles
    return run, {"transitions": transitions, "outputs": obs + learned_reward}


def action(
    task: str = "cart-pole",
    optimizer: str = "cem",
    horizon: int | None = None,
    population: int | None = None,
    iterations: int = 5,
    particles: int = 20,
    propagation: str = "random_model",
    members: int = 5,
) -> tuple[Run, Facts]:
    """One plan, warm-started from the last; horizon and population default to the task's."""
    about = TASKS[accepted("task", task, TASKS)]
    search = OPTIMIZERS[accepted("optimizer", optimizer, OPTIMIZERS)]
    stub_simulator()
    config = shipped_config(about["config"])
    config.overrides.planning_horizon = horizon or about["horizon"]
    config.action_optimizer = {
        **search,
        "num_iterations": iterations,
        "population_size": population or about["population"],
        "lower_bound": "???",
        "upper_bound": "???",
        "device": "cpu",
    }
    size = about["obs"], about["action"]
    model = model_for(config, *size, members=members, propagation=propagation)
    env = model_env(model, *size, known=about["known"], terminated=about["terminated"])
    agent = peer("planning").create_trajectory_optim_agent_for_model(
        env, config.algorithm.agent, num_particles=particles
    )
    facts = {"transitions": 0, "candidates": 0}
    evaluate = agent.trajectory_eval_fn

    def counted(state: np.ndarray, sequences: torch.Tensor) -> torch.Tensor:
        facts["candidates"] += len(sequences)
        facts["transitions"] += len(sequences) * sequences.shape[1] * particles
        return evaluate(state, sequences)

    agent.set_trajectory_eval_fn(counted)
    start = 0.1 * np.random.default_rng(SEED).normal(size=about["obs"])

    def run() -> np.ndarray:
        facts.update(transitions=0, candidates=0)  # iCEM's first plan scores fewer than the rest
        return agent.act(start)

    return run, facts


def train(
    rows: int = 10_240,
    batch: int = 256,
    members: int = 5,
    obs: int = 17,
    action: int = 6,
    learned_reward: bool = True,
) -> tuple[Run, Facts]:
    """One pass over `rows` transitions, resampled with replacement for each member."""
    config = shipped_config("pets_halfcheetah")
    config.overrides.obs_process_fn = None
    config.overrides.no_delta_list = None
    config.algorithm.learned_rewards = learned_reward
    model = model_for(config, obs, action, members=members, propagation="random_model")
    kinds = dict.fromkeys(("obs_type", "action_type", "reward_type"), np.double)
    buffer = peer("util").ReplayBuffer(
        rows, (obs,), (action,), rng=np.random.default_rng(SEED), **kinds
    )
    buffer.add_batch(*random_transitions(rows, obs, action).astuple())
    batches, _ = peer("util.common").get_basic_buffer_iterators(
        buffer, batch, val_ratio=0, ensemble_size=members
    )
    trainer = peer("models").ModelTrainer(
        model, optim_lr=config.overrides.model_lr, weight_decay=config.overrides.model_wd
    )

    def run() -> list[float]:
        return trainer.train(batches, num_epochs=1, evaluate=False, silent=True)[0]

    return run, {"batches": len(batches), "outputs": obs + learned_reward}


def soft_actor_critic(obs: int, action: int, hidden: int) -> Any:
    """Its SAC with the settings of its MBPO, but two layers of `hidden`."""
    args = SimpleNamespace(
        gamma=0.99,
        tau=0.005,
        alpha=0.2,
        policy="Gaussian",
        target_update_interval=1,
        automatic_entropy_tuning=True,
        target_entropy=None,
        hidden_size=hidden,
        device=torch.device("cpu"),
        lr=3e-4,
    )
    box = import_module("gymnasium").spaces.Box(-1.0, 1.0, (action,))
    return peer("third_party.pytorch_sac_pranz24.sac").SAC(obs, box, args)


def filled_buffer(rows: int, obs: int, action: int, room: int = 0) -> Any:
    """A ReplayBuffer with so many random transitions, and room for more."""
    buffer = peer("util").ReplayBuffer(
        rows + room, (obs,), (action,), rng=np.random.default_rng(SEED)
    )
    buffer.add_batch(*random_transitions(rows, obs, action).astuple())
    return buffer


def imagine(
    rows: int = 100_000,
    horizon: int = 1,
    data: int = 10_240,
    members: int = 7,
    hidden: int = 256,
    obs: int = 17,
    action: int = 6,
) -> tuple[Run, Facts]:
    """What its MBPO does after each refit; its function for it wants packages for videos."""
    env = locomotion_env(members, obs, action, "random_model", learned_reward=True)
    learner, real = soft_actor_critic(obs, action, hidden), filled_buffer(data, obs, action)
    found = peer("util").ReplayBuffer(
        rows * horizon, (obs,), (action,), rng=np.random.default_rng(SEED)
    )

    def run() -> np.ndarray:
        state = real.sample(rows).obs
        model_state = env.reset(state, return_as_np=True)
        over = np.zeros(rows, dtype=bool)
        for _ in range(horizon):
            with torch.no_grad():
                act = learner.select_action(state, batched=True, evaluate=False)
            after, reward, done, model_state = env.step(act, model_state, sample=True)
            on, cut = ~over, np.zeros_like(done)
            found.add_batch(state[on], act[on], after[on], reward[on, 0], done[on, 0], cut[on, 0])
            state, over = after, over | done[:, 0]
        return state

    return run, {"transitions": rows * horizon, "outputs": obs + 1}


def sac(
    updates: int = 20,
    batch: int = 256,
    data: int = 10_240,
    hidden: int = 256,
    obs: int = 17,
    action: int = 6,
) -> tuple[Run, Facts]:
    """What its MBPO does in each step of the environment, apart from the environment's step."""
    learner, found = soft_actor_critic(obs, action, hidden), filled_buffer(data, obs, action)
    real = filled_buffer(data, obs, action, room=1000)
    one = [column[0] for column in random_transitions(1, obs, action).astuple()]
    done = 0

    def run() -> list[float]:
        nonlocal done
        with torch.no_grad():
            learner.select_action(one[0], evaluate=False)
        real.add(*one)
        losses = []
        for _ in range(updates):
            losses += learner.update_parameters(found, batch, done, reverse_mask=True)
            done += 1
        return losses

    return run, {"updates": updates}


WORKS: dict[str, Callable[..., tuple[Run, Facts]]] = {
    "step": step,
    "score": score,
    "action": action,
    "imagine": imagine,
    "sac": sac,
    "train": train,
}


@functools.cache
def ready(work: str, threads: int, **options: Any) -> tuple[Run, Facts]:
    """The work, built, and run once to check that its numbers are finite; kept for later."""
    del threads  # part of the cache's key: another number of threads warms up anew
    for option in options:
        accepted(f"{work} option", option, inspect.signature(WORKS[work]).parameters)
    torch.manual_seed(SEED)
    run, facts = WORKS[work](**options)
    if not np.isfinite(np.asarray(run())).all():
        raise ValueError(f"{work} gave numbers that are not finite, so its time says nothing")
    return run, facts


def answer(
    work: str = "info", repeats: int = 1, threads: int | None = None, **options: Any
) -> dict[str, Any]:
    """Does what one request asks for."""
    accepted("work", work, ("info", *WORKS))
    if threads is not None:
        torch.set_num_threads(threads)
    threads = torch.get_num_threads()
    if work == "info":
        packages = ("mbrl", "torch", "numpy", "gymnasium", "hydra-core")
        return info(packages) | {"threads": threads}
    run, facts = ready(work, threads, **options)
    return {"seconds": timed(run, repeats), "threads": threads, **facts}


def main() -> None:
    """Answers requests until stdin ends."""
    found = import_module("mbrl")
    # Our own `mbrl` could have the same version one day.
    if getattr(found, "__version__", None) != VERSION or not find_spec("mbrl.planning"):
        sys.exit(f"this Python has no mbrl-lib {VERSION}: {sys.executable}")
    serve(answer)


if __name__ == "__main__":
    main()
