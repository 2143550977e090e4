"""The progress of a run: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mbrl.training.online import Progress


class ProgressDisplay:
    """A callback for `train`, to be used as a context manager around it.

    Args:
        title: title of the bar.
        steps: total number of environment steps.
        shows: whether to show anything.
        console: where to write; stderr if None.
    """

    def __init__(
        self, title: str, steps: int, *, shows: bool = True, console: Console | None = None
    ) -> None:
        self.steps, self.shows = steps, shows
        self.console = console or Console(stderr=True)
        self.first = -1
        self.bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (shows and self.console.is_terminal),
        )
        self.task = self.bar.add_task(title, total=steps, said="")

    def __enter__(self) -> ProgressDisplay:
        self.began = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show the progress after a step."""
        if not self.shows:
            return
        if self.first < 0:
            self.first = progress.env_steps - len(progress.episodes.over)
            if progress.lost:
                self._say(
                    f"episodes {', '.join(map(str, progress.lost))} did not replay to the same "
                    "state, so new ones begin"
                )
        rate = (progress.env_steps - self.first) / (time.perf_counter() - self.began)
        said = f"return {progress.episodes.returns[0]:7.1f}"
        if "model_holdout_mse" in progress.last:
            said += f"  model error {progress.last['model_holdout_mse']:.4f}"
        self.bar.update(self.task, completed=progress.env_steps, said=f"{said}  {rate:.1f} steps/s")
        for ended in progress.ended:
            left = (self.steps - progress.env_steps) / rate
            self._say(_line(ended, progress.env_steps, rate, left))

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _line(last: dict[str, Any], env_steps: int, rate: float, left: float) -> str:
    text = f"episode {last['episode'] + 1:3}  step {env_steps:6}  return {last['return']:8.1f}"
    if "model_holdout_mse" in last:
        text += f"  model error {last['model_holdout_mse']:.4f}"
    if last.get("rejected"):
        every = last["rejected"] >= last.get("evaluated", math.inf)
        text += f"  rejected {'every candidate' if every else last['rejected']}"
    return f"{text}  {rate:6.1f} steps/s  {left:5.0f} s left"
