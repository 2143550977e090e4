"""What does scaling the targets of a model change? Errors of each output, and returns of MBPO."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plots
from experiments.studies import lab as labs
from experiments.studies.common import means, measured
from experiments.studies.lab import Lab, Report
from mbrl.training import RunConfig
from mbrl.training.folders import learning
from mbrl.training.metrics import read_metrics

ENVIRONMENTS = ("cartpole-swingup", "Pendulum-v1")
KINDS = {"scaled": True, "raw": False}


def raw_targets(lab: Lab) -> Report:
    """Errors and returns with scaled and with raw targets [Δs, r]."""
    episodes = 2 if lab.fast else 20
    cases = [(env, kind) for env in (ENVIRONMENTS[1:] if lab.fast else ENVIRONMENTS)
             for kind in KINDS]  # fmt: skip
    configs = {f"{env}, {kind}": config(lab, env, KINDS[kind]) for env, kind in cases}
    paths = lab.train(configs)
    asked = {name: [(path, episodes, {}) for path in own] for name, own in paths.items()}
    returns = means(measured(lab, labs.final_returns, asked))
    numbers: dict[str, Any] = {"episodes": episodes}
    rows = []
    for name, own in paths.items():
        found = [unseen_errors(path) for path in own]
        outputs = found[0].keys()
        numbers[name] = {
            "return": labs.summary(returns[name]),
            "errors": {output: labs.summary([one[output] for one in found]) for output in outputs},
            "curves": [learning(path) for path in own],
        }
        each = numbers[name]["errors"]
        states = [f"{each[output]['estimate']:.3f}" for output in outputs if output != "reward"]
        rows.append(
            [
                name,
                f"{configs[name].steps:,}",
                labs.shown(numbers[name]["return"]),
                labs.shown(each["reward"], 3),
                ", ".join(states),
            ]
        )
    for env in dict.fromkeys(env for env, _ in cases):
        figure = plots.learning_curve(
            {kind: numbers[f"{env}, {kind}"]["curves"] for kind in KINDS},
            title=f"MBPO with scaled and raw targets, {env}",
        )
        plots.save(figure, lab.folder / f"{env}.png")
    text = f"""# Scaled and raw targets of a model

MBPO with a learned reward. Its model predicts the change of the state and the reward, either scaled
to mean 0 and std 1 on the data, or raw. Errors on steps that the model had not seen, mean over the
last half of the fits, as a share of the std of the output: 1 is as good as predicting its mean.
Return of {episodes} new episodes; interquartile mean over {lab.seeds} seeds [95 % bootstrap
interval].

{labs.table(["", "steps", "return", "error of the reward", "of each dimension of the state"], rows)}
"""
    return Report(numbers, text)


def config(lab: Lab, env: str, scaled: bool) -> RunConfig:
    """A run of the preset of MBPO, with a learned reward."""
    steps, agent = labs.preset_of("mbpo", env)
    model = replace(agent.model, learn_reward=True, normalise_targets=scaled)
    if lab.fast:
        steps, model = 420, replace(model, hidden=(8,), epochs=2)
        learner = replace(agent.learner, hidden=(8,))
        agent = replace(agent, updates=1, starts=50, learner=learner)
    return RunConfig("mbpo", env, 0, steps, "cpu", replace(agent, model=model))


def unseen_errors(path: Path) -> dict[str, float]:
    """Errors by output, "0", "1", ... and "reward", mean over the last half of a run's fits."""
    lines = [line for line in read_metrics(path / "metrics.jsonl") if "model_error" in line]
    late = lines[len(lines) // 2 :]
    names = [name for name in late[0] if name.startswith("model_error_")]
    return {
        name.removeprefix("model_error_"): float(np.mean([line[name] for line in late]))
        for name in names
    }
