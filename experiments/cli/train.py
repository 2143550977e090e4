"""`mbrl train`: learn on an environment, or continue a run."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from experiments.cli import names, options, own
from experiments.cli.names import Wrong
from mbrl.dynamics.table import MODELS, model_config
from mbrl.parts import installed
from mbrl.parts import named as part

if TYPE_CHECKING:
    from mbrl.training import Progress, RunConfig
    from mbrl.types import Spec


@dataclass(frozen=True)
class Training(options.Common):
    """What a run takes, new or resumed."""

    checkpoint_every: int = 1000
    """Environment steps between checkpoints. An episode's end has one too, unless saving takes more
    than a tenth of the time."""
    log: Annotated[tuple[Literal["tensorboard", "wandb"], ...], options.unset("nowhere else")] = ()
    """Where to log besides metrics.jsonl, which is always written."""


@dataclass(frozen=True)
class Train(Training):
    """Learn on an environment. Further options are the algorithm's, with its preset's values."""

    agent: Any = None
    env: str = "cartpole-swingup"
    """A task of `mbrl list envs`, or any gymnasium id that suits the algorithm."""
    variant: Annotated[str | None, options.unset("the algorithm's own settings")] = None
    """A published variant of the algorithm, whose settings are then the defaults. A name that is
    not one of them lists all."""
    num_envs: int = 1
    """Environments stepped side by side; the preset may set it."""
    seed: int = 0
    """All randomness of the run comes from it."""
    steps: int = 0
    """Environment steps in all."""
    env_repeat: int = 1
    """Steps of the environment for which each action is taken; their rewards are summed, and all
    other numbers of steps are numbers of actions."""
    evaluate_every: int = 0
    """Environment steps between evaluations in an environment apart, without exploration; 0: none.
    metrics.jsonl gets a line of each."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation."""
    until_return: Annotated[float | None, options.unset("all steps")] = None
    """End once the mean return of the last training episodes is at least this."""
    until_episodes: int = 3
    """How many last episodes that is the mean of."""
    device: str = "cpu"
    """Device of the model: cpu, cuda, cuda:1, ..."""
    run: Annotated[Path | None, options.unset("a new one under --root")] = None
    """The run's folder, which must not exist yet."""


@dataclass(frozen=True)
class Resume(Training):
    """Continue a run from its newest checkpoint."""

    resume: str = "latest"
    """The run's folder, or latest."""
    steps: Annotated[int | None, options.unset("the run's own")] = None
    """Continue until so many environment steps in all, more than before to train on."""
    until_return: Annotated[float | None, options.unset("the run's own")] = None
    """End once the mean return of the last training episodes is at least this."""
    device: Annotated[str | None, options.unset("that of the run")] = None
    """Device of the model."""


USAGE = """\
usage: mbrl train ALGO --env ID ...                learn on an environment
       mbrl train --resume RUN [--steps STEPS] ... continue a run, or train it on

ALGO is one of {}; mbrl train ALGO --help lists its options, in which
--planner NAME takes another planner: it keeps those settings of the preset that it has too,
and --model module:Class takes a model of your own.
"""


def run(args: list[str]) -> int:
    """Train, or continue a run; returns the exit status."""
    if any(arg.split("=")[0] == "--resume" for arg in args):
        return _resume(options.parse(Resume, "mbrl train", args))
    algorithms = names.algorithms()
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(", ".join([*algorithms, *installed("agent")])))
        options.parse(Resume, "mbrl train", ["--help"])
    algo, *rest = args
    if not own.is_own("agent", algo):
        names.check_name("algorithm", algo, [*algorithms, *installed("agent")])
    env_id = options.peek(rest, "--env", "cartpole-swingup")
    names.check_env(env_id)
    from experiments.presets import environments, preset
    from mbrl.agents import agent

    # Help texts and wrong options are answered without it: torch and MuJoCo take seconds to import.
    world = functools.cache(lambda repeat=1: _world(env_id, repeat))
    repeated = options.peek(rest, "--env-repeat", "1") != "1"
    steps, config = preset(
        algo, env_id, lambda: world()[0], known=names.known(env_id), repeated=repeated
    )
    config, rest = _varied(algo, config, rest)
    rest, config, parts = _exchanged(rest, config)
    kind = train_of(agent(algo).Config, *_exchanges(config))
    count = environments(algo, env_id)
    start = kind(agent=config, env=env_id, steps=steps, num_envs=count)
    parsed = options.parse(kind, f"mbrl train {algo}", rest, start, parts)
    options.check_least(
        parsed,
        steps=1,
        seed=0,
        num_envs=1,
        env_repeat=1,
        evaluate_every=0,
        evaluation_episodes=1,
        until_episodes=1,
    )
    _prepare(parsed)
    from mbrl.rng import generator
    from mbrl.training import RunConfig
    from mbrl.training.folders import new_folder
    from mbrl.training.runs import check_device

    spec, why = world(parsed.env_repeat)
    check_device(parsed.device, "--device asks for the")
    made = RunConfig(
        algo,
        env_id,
        parsed.seed,
        parsed.steps,
        parsed.device,
        parsed.agent,
        parsed.num_envs,
        action_repeat=parsed.env_repeat,
        evaluate_every=parsed.evaluate_every,
        evaluation_episodes=parsed.evaluation_episodes,
        until_return=parsed.until_return,
        until_episodes=parsed.until_episodes,
    )
    agent(algo).make(spec, parsed.agent, generator=generator(0))  # what does not fit is refused now
    if why:
        options.say(f"{env_id}: {why}")
    path = parsed.run or new_folder(parsed.root, env_id, algo, parsed.seed)
    return _go(made, path, parsed, numbered=parsed.run is None)


def _varied(algo: str, config: Any, args: list[str]) -> tuple[Any, list[str]]:
    """The settings of the variant that is asked for; it stays among the arguments for the help."""
    from mbrl.agents import varied

    name = options.peek(args, "--variant", "")
    try:
        return (varied(algo, config, name) if name else config), args
    except ValueError as error:
        raise Wrong(f"--{error}") from None


def _exchanged(args: list[str], config: Any) -> tuple[list[str], Any, dict[str, type]]:
    """The arguments and settings with the planner and the model that are asked for.

    Third, the options of both, by the field that has them. An agent of a user's own, whose settings
    have neither, may have options of the same names.
    """
    parts: dict[str, type] = {}
    has = {field.name for field in dataclasses.fields(config)}
    takes = {"planner": own.planner_of(config) is not None, "model": own.takes_model(config)}
    for kind, taken in takes.items():
        if options.peek(args, f"--{kind}", "") and not taken and kind not in has:
            raise Wrong(f"--{kind}: this algorithm has no {kind} to exchange")
    if takes["planner"]:
        args, planner = own.named(args)
        before = config.mpc.planner
        after = before if planner is None else own.planned_by(before, planner)
        config = dataclasses.replace(config, mpc=dataclasses.replace(config.mpc, planner=after))
        parts["planner"] = own.planner_options(after.name, args)
    model = options.peek(args, "--model", "")
    if takes["model"] and model in MODELS:
        config = dataclasses.replace(config, model=model_config(model, config.model))
        at = next(i for i, arg in enumerate(args) if arg.split("=")[0] == "--model")
        args = args[:at] + args[at + (1 if "=" in args[at] else 2) :]
    elif takes["model"] and model:
        if not own.is_own("model", model):
            names.check_name("model", model, [*MODELS, *installed("model")])
        from mbrl.dynamics import OwnModel

        flags = {n: getattr(config.model, n) for n in ("learn_reward", "learn_termination")}
        config = dataclasses.replace(config, model=OwnModel(model, **flags))
        parts["model"] = own.options("model", model, part("model", model, {}), 2, OwnModel)
        args = [arg.replace("--model=", "--model.name=") for arg in args]
        args = ["--model.name" if arg == "--model" else arg for arg in args]
    return args, config, parts


def _world(env_id: str, repeat: int) -> tuple[Spec, str]:
    """What is known of an environment with repeated actions, and why no more is."""
    import envs
    from mbrl.encoders.images import is_image
    from mbrl.spaces import spec_of
    from mbrl.training.answers import closing

    with closing(envs.make(env_id, action_repeat=repeat)) as env:
        if is_image(env.observation_space):
            try:  # no OpenGL, or a camera that sees nothing, before there is a folder
                env.reset(seed=0)
            except (envs.RenderingUnavailable, ValueError) as error:
                raise Wrong(f"--env {env_id}: {error}") from None
        return spec_of(env), env.metadata["known"]["why"]


def train_of(kind: Any, *said: str) -> Any:
    """`Train` whose `agent` has the algorithm's own type; `said` is added to its help."""
    field = ("agent", kind, dataclasses.field(default_factory=kind))
    made = dataclasses.make_dataclass("Train", [field], bases=(Train,), frozen=True)
    made.__doc__ = "\n".join([str(Train.__doc__), *said])
    return made


def _exchanges(config: Any) -> list[str]:
    """What the help says of the parts of an agent's settings that can be exchanged as a whole."""
    said = []
    if own.planner_of(config) is not None:
        said.append(
            "--planner NAME takes another planner, which keeps those settings of the preset that "
            f"it has too: {', '.join(own.planners())}, or module:Class."
        )
    if own.takes_model(config):
        said.append(f"--model NAME takes another model: {', '.join(MODELS)}, or module:Class.")
    return said


def _prepare(parsed: Training) -> None:
    options.check_least(parsed, checkpoint_every=1)
    options.set_threads(parsed)


def _resume(parsed: Resume) -> int:
    options.check_runs(parsed, parsed.resume)
    _prepare(parsed)
    from mbrl.training import Run, RunConfig
    from mbrl.training.folders import find_run
    from mbrl.training.runs import check_device

    begun = Run.open(find_run(parsed.resume, parsed.root))
    config = RunConfig.of(begun)
    if parsed.device is None:
        check_device(config.device, f"the run {begun.path} lives on")
    else:
        check_device(parsed.device, "--device asks for the")
        config = dataclasses.replace(config, device=parsed.device)
    if parsed.steps is not None and parsed.steps != config.steps:
        if parsed.steps < (begun.latest() or 0):
            raise Wrong(f"--steps {parsed.steps}: the run is at step {begun.latest()} already")
        config = dataclasses.replace(config, steps=parsed.steps)
    if parsed.until_return is not None:
        config = dataclasses.replace(config, until_return=parsed.until_return)
    return _go(config, begun.path, parsed, resume=True)


def _go(config: RunConfig, path: Path, parsed: Any, **how: bool) -> int:
    import envs
    from mbrl.training.checkpoint import CONFIG, Run
    from mbrl.training.runs import train_run
    from mbrl.training.stopping import stop_on_interrupt

    seen: list[Progress] = []
    try:
        with stop_on_interrupt() as stop:
            progress = train_run(
                config,
                path,
                make_env=envs.make,
                **how,
                checkpoint_every=parsed.checkpoint_every,
                sinks=parsed.log,
                stop=stop,
                callback=lambda now: seen.append(now) if not seen else None,
                progress=True,
            )
    except KeyboardInterrupt:  # at once, without a checkpoint of this step
        path = seen[0].path or path if seen else path
        if not (path / CONFIG).exists():
            raise
        options.say(f"mbrl: interrupted at once ({Run.open(path).said()}); {_go_on(path)}")
        return 130
    path = progress.path or path
    if progress.reached:
        options.say(
            f"reached a return of {config.until_return:g} (mean of the last "
            f"{config.until_episodes}) at step {progress.env_steps}"
        )
    elif progress.env_steps < config.steps:
        options.say(f"mbrl: interrupted at step {progress.env_steps}; {_go_on(path)}")
        return 130
    summary = {
        "run": str(path),
        "env_steps": progress.env_steps,
        "episodes": progress.episodes.begun,
        "last_return": progress.returns[-1] if progress.returns else None,
        "best_return": max(progress.returns, default=None),
        "seconds": {name: round(value, 2) for name, value in progress.seconds.items()},
    }
    options.say(f"run {path}")
    options.emit(parsed, summary)
    return 0


def _go_on(path: Path) -> str:
    return f"go on with: mbrl train --resume {path}"
