"""`mbrl mpc`: drive a robot by MPC, through its true simulator or a learned model of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.cli import names, options, own
from experiments.cli.names import Wrong
from experiments.presets import mpc_preset
from mbrl.agents import MPCConfig
from mbrl.parts import named as part
from mbrl.settings import DriveConfig

if TYPE_CHECKING:
    from mbrl.control import Drive, Driver, Tick
from mbrl.plain import file_name


@dataclass(frozen=True)
class DriveRobot(options.Common):
    """Drive a robot by MPC, through its true simulator or a learned model of it.

    Further options are the planner's, with the values of the environment's preset. --planner NAME
    takes another planner: it keeps those settings of the preset that it has too. latest, after
    --model or --learner, is the newest run under --root.
    """

    drive: DriveConfig = field(default_factory=DriveConfig)
    seed: int = 0
    """Seed of the first episode: of its start and of the planner's draws."""
    seeds: int = 1
    """Number of episodes, whose seeds count up from --seed."""
    steps: Annotated[int | None, options.unset("until the episode ends")] = None
    """Most control steps of an episode."""
    video: bool = False
    """Film the first episode: an mp4 and a sheet of frames in the folder."""
    viewer: bool = False
    """Open the robot live in a web browser: its plans, sliders for settings and weights, pushes.
    Runs until stopped and leaves no folder."""
    viewer_port: int = 8080
    """Port of this machine at which the page is served."""
    out: Annotated[Path | None, options.unset("a new one under --root")] = None
    """Folder for the numbers, the recorded controls and the figure; must not exist yet."""


def run(args: list[str]) -> int:
    """Drive an episode a seed, or live in a browser; returns the exit status."""
    args, planner = own.named(args)
    env_id = options.peek(args, "--env", "cartpole-swingup")
    names.check_env(env_id)
    tuned = mpc_preset(env_id)
    mpc = tuned or MPCConfig()
    if planner is not None and planner != mpc.planner.name:
        mpc = replace(mpc, planner=own.planned_by(mpc.planner, planner))
    name = mpc.planner.name
    start = DriveRobot(drive=DriveConfig(env=env_id, mpc=mpc))
    members = {"particles": "the members that step"} if mpc.particles == 1 else {}
    parsed = options.parse(
        DriveRobot, "mbrl mpc", args, start, _own_options(name, args), meanings=members
    )
    options.check_least(parsed, seed=0, seeds=1, steps=1, threads=1)
    parsed = replace(parsed, drive=_with_latest(parsed))
    if parsed.out is not None and not parsed.viewer:
        options.check_new(parsed.out)
    elif not parsed.viewer:
        options.check_folder(parsed.root)
    options.set_threads(parsed)
    if parsed.drive.model in ("true", "planning"):
        import envs

        envs.simulated(env_id)  # says of which environments there is a simulator
    if options.peek(args, "--particles", ""):
        _check_particles(parsed.drive)
    if parsed.viewer:
        from experiments.cli.live import live

        taken = live(
            parsed.drive,
            seed=parsed.seed,
            port=parsed.viewer_port,
            steps=parsed.steps,
            tell=options.say,
        )
        options.emit(parsed, {"steps": taken})
        return 0
    if tuned is None:
        options.say(_cost(parsed.drive))
    from mbrl.training.folders import new_folder

    with Watch(f"{name} {env_id}") as watch:
        summary = drive_all(
            parsed.drive,
            parsed.out or new_folder(parsed.root, env_id, f"mpc-{name}", parsed.seed),
            numbered=parsed.out is None,
            seeds=range(parsed.seed, parsed.seed + parsed.seeds),
            steps=parsed.steps,
            video=parsed.video,
            callback=watch,
            tell=options.say,
        )
    options.say(_said(summary))
    options.emit(parsed, summary)
    return 0


def _with_latest(parsed: DriveRobot) -> DriveConfig:
    """The drive through the newest run under --root, where latest is asked for.

    Raises:
        Wrong: there is no run.
    """
    asked = [name for name in ("model", "learner") if getattr(parsed.drive, name) == "latest"]
    if not asked:
        return parsed.drive
    options.check_runs(parsed, "latest")
    from mbrl.training.folders import find_run

    newest = str(find_run("latest", parsed.root))
    return replace(parsed.drive, **dict.fromkeys(asked, newest))


@contextmanager
def _driver(config: DriveConfig) -> Iterator[Driver]:
    import envs
    from mbrl.control import build_driver

    driver = build_driver(config, make_env=envs.make, seed=0)
    try:
        yield driver
    finally:
        driver.controller.close()
        driver.env.close()


def _check_particles(config: DriveConfig) -> None:
    """Check that a search can have so many particles.

    Raises:
        Wrong: it would take another number.
    """
    with _driver(config) as driver:
        asked, taken = config.mpc.particles, driver.controller.config.particles
        noisy = driver.controller.model.noise_shape != (0,)
    if taken != asked:
        accepted = f"a multiple of its {taken} members" if noisy else f"{taken}, its members"
        why = "" if noisy else ": it draws no noise, so more would be copies"
        raise Wrong(f"--particles of this model must be {accepted}, got {asked}{why}")


def _cost(config: DriveConfig) -> str:
    """What a plan costs, and which budget keeps up, where nobody has tuned the settings."""
    from mbrl.control import plan_seconds

    with _driver(config) as driver:
        needed = 1e3 * plan_seconds(driver)
    held = config.mpc.action_repeat * max(config.mpc.replan_every, 1)
    there = 1e3 * driver.control_step * held
    line = f"{config.env} has no preset: a plan takes {needed:.3g} ms, "
    if needed <= there:
        return f"{line}which keeps up with its {there:.3g} ms a plan"
    planner: Any = driver.controller.mpc.planner
    fewer, other = int(getattr(planner, "population", 0) * there / needed), ""
    with suppress(ValueError, TypeError):  # it has none, or wants more, such as for its elites
        replace(planner, population=fewer)
        other = f" or --planner.population {fewer}"
    return f"{line}and there are {there:.3g} ms for it: --budget-ms {there:.3g}{other} keeps up"


def _own_options(planner: str, args: Sequence[str]) -> dict[str, type]:
    """Options of the planner, and of a model of the user's own."""
    found, model = (
        {"planner": own.planner_options(planner, args)},
        options.peek(args, "--model", "planning"),
    )
    if own.is_own("model", model) and not Path(model).exists():
        found["model_settings"] = own.settings_options(model, part("model", model, {}), 2)
    return found


def drive_all(
    config: DriveConfig,
    path: Path,
    *,
    numbered: bool = False,
    seeds: Sequence[int],
    steps: int | None = None,
    video: bool = False,
    callback: Callable[[int, Tick], None] = lambda episode, tick: None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """An episode a seed; what `save_drives` writes and a figure in the folder `path`.

    Without OpenGL the video is skipped, with a message.

    Raises:
        ValueError, RunError: see `build_driver`.
    """
    import envs
    from experiments import plots
    from experiments.plots.film import film_or_tell
    from mbrl.control import drive_seeds, save_drives
    from mbrl.training.checkpoint import make_folder

    drives = drive_seeds(
        config,
        make_env=envs.make,
        seeds=seeds,
        steps=steps,
        callback=callback,
        done=lambda place, drive: tell(_line(place, seeds[place], drive)),
    )
    if drives.summary["rejected"]:
        tell(
            f"warning: {drives.summary['rejected']} candidates diverged in the simulation: rejected"
        )
    path = make_folder(path, numbered=numbered)
    save_drives(path, config, drives, seeds=seeds)
    figure = plots.drives(
        [drive.rewards for drive in drives.each],
        [drive.plan_ms for drive in drives.each],
        control_step=drives.control_step,
        budget_ms=config.mpc.budget_ms,
        title=f"{config.env} driven by {config.mpc.planner.name}",
    )
    plots.save(figure, path / "plots" / "drive.png")
    if video:
        target = path / "videos" / f"{file_name(config.env)}.mp4"
        first = drives.each[0]
        earned = float(first.rewards.sum())
        film_or_tell(
            config.env, first.actions, target, seed=seeds[0], earned=earned, tell=tell,
            action_repeat=first.env_repeat,
        )  # fmt: skip
    return {"path": str(path), **drives.summary}


def _line(place: int, seed: int, drive: Drive) -> str:
    import numpy as np

    said = "" if drive.success is None else "  success" if drive.success else "  no success"
    return (
        f"episode {place + 1:3}  seed {seed:3}  return {drive.rewards.sum():8.2f}  "
        f"reward {drive.rewards.mean():7.4f}{said}  plan {np.median(drive.plan_ms):6.2f} ms  "
        f"real time x {drive.realtime:.2f}"
    )


def _said(summary: dict[str, Any]) -> str:
    done = "" if summary["succeeded"] is None else f"{summary['succeeded']} succeeded, "
    kept = summary["within_budget"]
    budget = "" if kept is None else f", within budget {kept:.1%}"
    return (
        f"{summary['episodes']} episodes  {done}reward {summary['reward']:.4f} a step "
        f"(last second {summary['reward_last_second']:.4f})  plan {summary['plan_ms']:.2f} ms "
        f"(best {summary['plan_ms_best']:.2f}), {summary['plan_hz']:.3g} plans a simulated second"
        f"{budget}  real time x {summary['realtime']:.2f}\nfolder {summary['path']}"
    )


class Watch:
    """Shows each `Tick` of a drive in a terminal; a context manager around all of it."""

    def __init__(self, title: str) -> None:
        from rich.progress import Progress, TextColumn

        err = options.console()
        columns = [
            TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[said]}")
        ]
        self.bar = Progress(*columns, console=err, disable=not err.is_terminal)
        self.task = self.bar.add_task(title, said="")

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, episode: int, tick: Tick) -> None:
        """Show one step."""
        self.bar.update(
            self.task,
            said=f"episode {episode + 1}  step {tick.step:5}  reward {tick.reward:8.4f}  "
            f"score {tick.mean_reward:8.4f}  plan {tick.plan_ms:6.2f} ms  "
            f"real time x {tick.realtime:.2f}",
        )
