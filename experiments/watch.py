"""What one sees of a run: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.build import RunConfig
from experiments.driving import Tick
from mbrl import training


class Watch:
    """Called after each environment step; a context manager around the run."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.episode = -1
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(f"{config.algo} {config.env}", total=config.steps, said="")

    def __enter__(self) -> Watch:
        self.began, self.first = time.perf_counter(), None
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, progress: training.Progress) -> None:
        """Show one step."""
        if self.first is None:
            self.first = progress.env_steps - 1
        rate = (progress.env_steps - self.first) / (time.perf_counter() - self.began)
        said = f"return {progress.episode_return:7.1f}"
        if "model_holdout_mse" in progress.last:
            said += f"  model error {progress.last['model_holdout_mse']:.4f}"
        self.bar.update(self.task, completed=progress.env_steps, said=f"{said}  {rate:.1f} steps/s")
        if progress.last and progress.last["episode"] != self.episode:
            self.episode = progress.last["episode"]
            left = (self.config.steps - progress.env_steps) / rate
            line = _line(progress.last, progress, rate, left)
            self.console.print(line, highlight=False, soft_wrap=True)


class Driving:
    """Called with each `Tick` of a drive; a context manager around all of it."""

    def __init__(self, title: str, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, said="")

    def __enter__(self) -> Driving:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, tick: Tick) -> None:
        """Show one step."""
        self.bar.update(
            self.task,
            said=f"episode {tick.episode + 1}  step {tick.step:5}  reward {tick.reward:8.4f}  "
            f"score {tick.score:8.4f}  plan {tick.plan_ms:6.2f} ms  "
            f"real time x {tick.realtime:.2f}",
        )

    def tell(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _line(last: dict[str, Any], progress: training.Progress, rate: float, left: float) -> str:
    text = (
        f"episode {last['episode'] + 1:3}  step {progress.env_steps:6}  "
        f"return {last['return']:8.1f}"
    )
    if "model_holdout_mse" in last:
        text += f"  model error {last['model_holdout_mse']:.4f}"
    if last.get("rejected"):
        text += f"  rejected plans {last['rejected']}"
    return f"{text}  {rate:6.1f} steps/s  {left:5.0f} s left"
