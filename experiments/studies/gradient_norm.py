"""How far can a gradient be propagated through a model?

A policy acts for up to 200 steps in a model, and two gradients are taken: of the reward of step H
with respect to the first action, which is what that action is told of step H, and of the sum of H
rewards with respect to the policy's parameters. In a line s' = ρ s + a the first is ρ^(H - 1): it
vanishes or explodes. The other worlds are an ensemble fitted to random steps of Pendulum-v1, as
DHMBPO learns it, with a fresh policy, and with the same policy after plain backpropagation through
that model.
"""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
import torch
from torch import Tensor

from experiments import plots
from experiments.plots.lines import Curve
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report
from mbrl.distributions import Bounds
from mbrl.dynamics import Analytic, NeuralDynamics, NormedEnsembleConfig
from mbrl.imagination import rollout
from mbrl.learners.actors import SquashedActor
from mbrl.learners.svg import SVG, SVGConfig, World
from mbrl.training.executor import Work, stop_if_asked
from mbrl.types import Transition

HORIZONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 140, 200)
LINES = {"line, ρ 0.9": 0.9, "line, ρ 1": 1.0, "line, ρ 1.1": 1.1}
LEARNED = ("Pendulum-v1, fresh policy", "Pendulum-v1, trained policy")
GRADIENTS = {
    "action": "of the reward of step H, to the first action",
    "policy": "of the sum of H rewards, to the policy",
}
STARTS = 40
TINY = 1e-30
"""Norms below it are drawn as this."""


def gradient_norm(lab: Lab) -> Report:
    """Norms of both gradients by world and horizon."""
    horizons = [h for h in HORIZONS if h <= (10 if lab.fast else HORIZONS[-1])]
    work: dict[Any, Work] = {
        (name, seed): Work(norms, (name, seed, horizons, lab.fast), f"{name}, seed {seed}")
        for name in (*LINES, *LEARNED)
        for seed in range(lab.seeds)
    }
    answers = lab.answers(work)
    found = {
        name: {
            which: np.array([answers[name, seed][which] for seed in range(lab.seeds)])
            for which in GRADIENTS
        }
        for name in (*LINES, *LEARNED)
    }
    panels = {
        said: {name: _band(horizons, each[which]) for name, each in found.items()}
        for which, said in GRADIENTS.items()
    }
    figure = plots.curves(
        panels,
        title="The norm of a gradient through a model",
        xlabel="H, steps",
        ylabel="norm",
        log="xy",
        size=(13, 5.2),
    )
    plots.save(figure, lab.folder / "gradient_norm.png")
    numbers: dict[str, Any] = {
        "settings": {"horizons": horizons, "starts": STARTS},
        "norms": {
            name: {which: array.tolist() for which, array in each.items()}
            for name, each in found.items()
        },
    }
    some = [h for h in (1, 5, 20, 100, 200) if h in horizons]
    rows = [
        [name, which, *(f"{np.median(each[which][:, horizons.index(h)]):.3g}" for h in some)]
        for name, each in found.items()
        for which in GRADIENTS
    ]
    head = ["world", "gradient", *(f"H {h}" for h in some)]
    text = f"""# How far can a gradient be propagated through a model?

Norms of gradients, {"; ".join(f'"{name}": {said}' for name, said in GRADIENTS.items())}.
Median over {lab.seeds} seeds of the mean over {STARTS} starts (of "action"), without noise of the
model.

{labs.table(head, rows)}

In a line s' = ρ s + a the gradient to the first action is ρ^(H - 1). In the learned model it is the
product of the Jacobians of policy and model along the trajectory. Where it explodes, the sum over
many steps is governed by the last ones, and plain backpropagation through a whole episode has no
use for its direction; short horizons with a critic's value of the last state avoid both.
"""
    return Report(numbers, text)


def _band(horizons: list[int], values: np.ndarray) -> Curve:
    low, middle, high = np.quantile(np.maximum(values, TINY), (0.25, 0.5, 0.75), axis=0)
    return Curve(np.array(horizons), middle, low, high)


def norms(name: str, seed: int, horizons: list[int], fast: bool) -> dict[str, list[float]]:
    """Both norms at each horizon."""
    generator = torch.Generator().manual_seed(seed)
    if name in LINES:
        learner, starts = line(LINES[name], generator)
    else:
        learner, starts = pendulum(seed, name == LEARNED[1], generator, fast)
    assert learner.world is not None
    model, actor = learner.world.model, cast(SquashedActor, learner.actor.module)

    def acts(state: Tensor, *, generator: torch.Generator, explore: bool) -> Tensor:
        stop_if_asked()
        return actor(learner.inputs.scale(state), generator=generator, explore=explore)

    begin = starts.view(model.members, -1, starts.shape[-1])
    first = acts(begin, generator=generator, explore=False)
    action = first.detach().requires_grad_()
    found: dict[str, list[float]] = {which: [] for which in GRADIENTS}
    for which, given in (("action", action), ("policy", first)):
        imagined = rollout(
            model,
            begin,
            acts,
            horizon=horizons[-1],
            particles=model.members,
            reward=learner.world.reward,
            terminated=lambda after: torch.zeros(after.shape[:-1], dtype=torch.bool),
            sample=False,
            explore=False,
            first=given,
            gradients=True,
            generator=torch.Generator().manual_seed(seed),
        )
        for horizon in horizons:
            if which == "action":
                total = imagined.reward[..., horizon - 1].sum()
                (slope,) = torch.autograd.grad(total, action, retain_graph=True)
                norm = torch.linalg.vector_norm(slope, dim=-1).mean()
            else:
                total = imagined.reward[..., :horizon].sum(-1).mean()
                slopes = torch.autograd.grad(total, [*actor.net.parameters()], retain_graph=True)
                norm = torch.cat([slope.flatten() for slope in slopes]).norm()
            found[which].append(float(norm.nan_to_num(posinf=1e30)))
    return found


def line(rho: float, generator: torch.Generator) -> tuple[SVG, Tensor]:
    """s' = ρ s + a, whose reward is s', with the policy a = 0."""
    config = SVGConfig(hidden=(), tail=False, discount=1.0)
    bounds = Bounds(-torch.ones(1), torch.ones(1))
    learner = SVG(1, bounds, config, generator=generator)
    with torch.no_grad():
        learner.actor.value.zero_()
    model = Analytic(lambda s, a, _: rho * s + a, torch.zeros(1), torch.zeros(1))
    learner.world = World(model, reward=lambda obs, action, after: after[..., 0])
    return learner, torch.randn(STARTS, 1, generator=generator)


def pendulum(
    seed: int, trained: bool, generator: torch.Generator, fast: bool
) -> tuple[SVG, Tensor]:
    """An ensemble fitted to random steps, and a policy, which may be trained through it."""
    data = random_steps(seed, 300 if fast else 2000)
    model_config = NormedEnsembleConfig(
        members=2 if fast else 5, hidden=(16,) if fast else (128, 128), learn_reward=True,
        patience=10, epochs=2 if fast else 60,
    )  # fmt: skip
    model = NeuralDynamics(3, 1, model_config, generator=generator)
    model.fit(data, generator=generator)
    model.requires_grad_(False)
    bounds = Bounds(-2 * torch.ones(1), 2 * torch.ones(1))
    config = SVGConfig(
        hidden=(64, 64), tail=False, horizon=5 if fast else 20, discount=0.99, learning_rate=1e-3
    )
    learner = SVG(3, bounds, config, generator=generator)
    learner.world = World(model)
    learner.rescale(data.obs)

    def some(count: int) -> Tensor:
        index = torch.randint(len(data.obs), (count,), generator=generator)
        return data.obs[index]

    for _ in range((3 if fast else 300) if trained else 0):
        stop_if_asked()
        learner.improve(some(100), generator=generator)
    return learner, some(STARTS)


def random_steps(seed: int, count: int) -> Transition:
    """Transitions of Pendulum-v1 with random actions."""
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(seed)
    rows, (obs, _) = [], env.reset(seed=seed)
    for _ in range(count):
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, np.float32(reward), after, terminated, truncated))
        obs = env.reset()[0] if terminated or truncated else after
    env.close()
    return Transition(*(torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)))
