"""`mbrl audit`: what a run's model knows, what it does not, and who exploits that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli import options
from experiments.cli.names import Wrong

if TYPE_CHECKING:
    from mbrl.audit import Ahead, Audit


@dataclass(frozen=True)
class Auditing(options.Common):
    """Audit a run's model on fresh episodes; the page and its pictures are in RUN/audit."""

    run: tyro.conf.Positional[str] = "latest"
    """The run's folder, or latest."""
    episodes: int = 4
    """Fresh episodes of the agent, and as many of random actions. Two or more to recalibrate."""
    horizon: Annotated[int | None, options.unset("that of the agent's plans, or 25")] = None
    """Steps to predict."""
    recalibration: Literal["isotonic", "temperature", "logistic"] = "isotonic"
    """What is fitted to half of the episodes and judged on the others."""
    seed: int = 3000
    """Seed of these episodes."""
    device: Annotated[str | None, options.unset("that of the run")] = None
    """Device of the model."""


def run(args: list[str]) -> int:
    """Audit a run; returns the exit status."""
    parsed = options.parse(Auditing, "mbrl audit", args)
    options.check_least(parsed, episodes=1, horizon=1, seed=0, threads=1)
    options.check_runs(parsed, parsed.run)
    options.set_threads(parsed)
    import envs
    from experiments.plots.audit import audit_figures
    from mbrl.audit import audit
    from mbrl.training.checkpoint import write_json, written_whole
    from mbrl.training.folders import find_run
    from mbrl.training.runs import load_run
    from mbrl.types import ModelBased

    path = find_run(parsed.run, parsed.root)
    folder = path / "audit"
    options.check_writable(folder / "audit.md")
    loaded = load_run(path, make_env=envs.make, device=parsed.device)
    if not isinstance(loaded.agent, ModelBased):
        raise Wrong(f"{path}: {loaded.config.algo} has no model to audit")
    if not loaded.agent.fits:
        raise Wrong(f"{path}: its model is not fitted yet; train it on")
    found = audit(
        loaded.agent,
        loaded.env,
        episodes=parsed.episodes,
        seed=parsed.seed,
        horizon=parsed.horizon,
        kind=parsed.recalibration,
        device=loaded.config.device,
    )
    folder.mkdir(exist_ok=True)
    for file in audit_figures(found, folder):
        options.say(str(file))
    numbers = plain(found)
    write_json(folder / "numbers.json", numbers)
    text = page(path, found)
    with written_whole(folder / "audit.md") as file:
        file.write_text(text)
    options.say(text)
    options.emit(parsed, numbers)
    return 0


def plain(found: Audit) -> dict[str, Any]:
    """The numbers of an audit as plain values; None for nan."""

    def of(value: Any) -> Any:
        if value is None or isinstance(value, int | str):
            return value
        if isinstance(value, float):
            return value if value == value else None
        if hasattr(value, "_asdict"):
            return {name: of(part) for name, part in value._asdict().items()}
        if isinstance(value, list | tuple):
            return [of(part) for part in value]
        return value.tolist()

    return of(found)


def page(path: Path, found: Audit) -> str:
    """The page: numbers, pictures and what they mean."""
    own, random, steps = found.own, found.random, len(found.own.error)
    share = [_share(own, k) for k in (0, steps - 1)]
    over, at_random = (float((each.predicted - each.realised).mean()) for each in (own, random))
    order = found.drives.argsort(descending=True)[:3].tolist()
    drivers = ", ".join(f"observation {i} ({found.drives[i]:.2f})" for i in order)
    lines = [
        f"# Audit of {path}",
        f"{len(found.returns)} fresh episodes of the agent, mean return "
        f"{sum(found.returns) / len(found.returns):.1f}, and as many of random actions; "
        f"predictions up to {steps} steps ahead, along the actions that were taken.",
        "## Are its intervals right?",
        f"Calibration error (0 is calibrated, 0.5 the worst): {own.calibration[0]:.3f} one step "
        f"ahead and {own.calibration[-1]:.3f} at {steps} steps in the agent's own episodes, "
        f"{random.calibration[0]:.3f} and {random.calibration[-1]:.3f} under random actions.",
        "![Calibration error by steps ahead](calibration.png)",
        "## What would more data remove?",
        f"Of the predicted variance {share[0]:.0%} is epistemic one step ahead, and "
        f"{share[1]:.0%} at {steps} steps: that part falls with data. The rest is noise to the "
        f"model. The error is {own.error[0]:.3f} and {own.error[-1]:.3f} stds of the observations. "
        + _ordering(own),
        "![Spread and error by steps ahead](spread.png)",
        "## Does the planner exploit its errors?",
        f"Over {steps} steps the model predicts {_gap(over)} return than followed along the "
        f"agent's own actions, and {_gap(at_random)} along random ones. "
        + _promises(found)
        + "A planner that exploits errors is promised much more along its own actions.",
        "![Predicted and real returns](exploitation.png)",
        "## What drives its predictions?",
        f"Exchanging one observation between steps changes the predicted change most for "
        f"{drivers}, in stds of the change.",
        "![Change of the prediction by observation](observations.png)",
    ]
    lines += ["## What would recalibration change?", _recalibration(found)]
    if found.recalibrated is not None:
        lines.append("![Reliability one step ahead, before and after](reliability.png)")
    return "\n\n".join(lines) + "\n"


def _share(own: Ahead, step: int) -> float:
    total = float(own.aleatoric[step] + own.epistemic[step])
    return float(own.epistemic[step]) / total if total > 0 else 0.0


def _ordering(own: Ahead) -> str:
    if own.orders != own.orders:
        return "Its doubt is the same everywhere, so it orders no errors."
    return (
        f"Where it doubts more it errs more with rank correlation {own.orders:.2f} (1 is perfect)."
    )


def _promises(found: Audit) -> str:
    scores, real = found.promised
    if not scores:
        return ""
    gap = sum(scores) / len(scores) - sum(real) / len(real)
    return f"The scores of its plans are {_gap(gap)} than the returns that followed. "


def _gap(value: float) -> str:
    return f"{abs(value):.3g} {'more' if value >= 0 else 'less'}"


def _recalibration(found: Audit) -> str:
    if found.before is None or found.recalibrated is None:
        return (
            "It was not tried: that takes two episodes longer than these steps, and a model whose "
            "predictions have a spread. Ask for more --episodes."
        )
    before, after = found.before.calibration, found.recalibrated.calibration
    return (
        f"Fitted to every second episode, with a map for each step ahead, and judged on the "
        f"others, it takes the calibration error from {before[0]:.3f} to "
        f"{after[0]:.3f} one step ahead, and from {before[-1]:.3f} to {after[-1]:.3f} at "
        f"{len(before)} steps."
    )
