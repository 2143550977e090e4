"""Figures of a run whose agent learns codes of its observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import envs
from experiments import plots
from mbrl.encoders.images import channels_first
from mbrl.encoders.representation import Representation
from mbrl.rng import episode_seed, generator
from mbrl.training.answers import closing
from mbrl.training.runs import Loaded

MOST, SHOWN, VARIED, STEPS = 2000, 8, 6, 7
"""Observations looked at, frames and components in a figure, and values of each component."""


def code_figures(
    loaded: Loaded, *, episodes: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Draw a run's codes on fresh episodes of its policy; returns their numbers.

    Returns:
        `code_state_r2`, where the environment gives the true state: of each of its dimensions, the
        share of the variance in the second half of the episodes that a linear map of the codes,
        fitted on the first, explains. `reconstruction_error`: mean squared error of a decoder, in
        units in which a range of colours is 1.
    """
    agent, folder = loaded.agent, loaded.run.path / "plots"

    def keep(figure: Figure, name: str) -> None:
        tell(str(plots.save(figure, folder / name)))

    obs, states = _played(loaded, episodes=episodes, seed=seed)
    codes = torch.cat([agent.codes(part) for part in np.array_split(obs, -(-len(obs) // 256))])
    z = codes.double().cpu().numpy()
    points, share = plane(z)
    numbers: dict[str, Any] = {"code_plane_variance": share}
    if states is not None and states.shape[1]:
        count = min(VARIED, states.shape[1])
        names = [f"state {k}" for k in range(count)]
        figure = plots.code_map(points, states[:, :count], names, share=share)
        numbers["code_state_r2"] = linear_share(z, states)
    else:
        step = np.arange(len(z), dtype=float)[:, None]
        figure = plots.code_map(points, step, ["step"], share=share)
    keep(figure, "codes.png")
    encoder = agent.encoder
    if not isinstance(encoder, Representation) or len(encoder.shape) != 3:
        tell("no reconstructions.png, no traversals.png: no decoder makes images of these codes")
        return numbers
    colours = _colours(loaded, encoder.shape)
    with torch.no_grad():
        at = torch.as_tensor(np.linspace(0, len(obs) - 1, SHOWN).astype(int))
        given, decoded = torch.as_tensor(obs)[at] / 255, encoder.reconstruct(codes[at]).cpu()
        numbers["reconstruction_error"] = float((given - decoded).square().mean())
        pair = np.stack([_newest(given, colours), _newest(decoded.clamp(0, 1), colours)])
        keep(
            plots.image_grid("Newest frames of stacks", pair, rows=("seen", "decoded")),
            "reconstructions.png",
        )
        keep(_traversals(encoder, codes, colours), "traversals.png")
    return numbers


def plane(z: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes (T, Z) in their first two principal components, (T, 2), and its share of variance."""
    centred = z - z.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(z), 2))
    points[:, : min(2, len(axes))] = centred @ axes[:2].T
    total = np.square(sizes).sum()
    return points, float(np.square(sizes[:2]).sum() / total) if total > 0 else 0.0


def linear_share(z: np.ndarray, states: np.ndarray) -> list[float]:
    """1 - error / variance of each dimension of states (T, S), on the second half of the rows.

    The linear map is fitted on the first half, by least squares with a ridge of 1e-3 of the codes'
    mean variance. It is 0 for a dimension that is constant there, and below 0 for a map that is
    worse than the mean.
    """
    half = len(z) // 2
    scaled = (z - z[:half].mean(0)) / max(float(z[:half].std(0).max()), 1e-12)
    mean = states[:half].mean(0)
    gram = scaled[:half].T @ scaled[:half]
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.lstsq(gram + ridge, scaled[:half].T @ (states[:half] - mean), rcond=None)[0]
    error = np.square(scaled[half:] @ weights + mean - states[half:]).mean(0)
    variance = states[half:].var(0)
    return [float(1 - e / v) if v > 1e-12 else 0.0 for e, v in zip(error, variance, strict=True)]


def _traversals(encoder: Representation, codes: Tensor, colours: int) -> Figure:
    """Each of the first principal components from -2 to 2 std, the rest as in one frame."""
    mean, base = codes.mean(0), codes[len(codes) // 2]
    _, sizes, axes = torch.linalg.svd(codes - mean, full_matrices=False)
    count = min(VARIED, len(axes))
    std = sizes[:count] / len(codes) ** 0.5
    values = torch.linspace(-2, 2, STEPS, device=codes.device)
    own = axes[:count] @ (base - mean)
    along = (values * std[:, None] - own[:, None]).unsqueeze(-1)  # (K, V, 1)
    z = base + along * axes[:count, None]
    images = _newest(encoder.reconstruct(z).clamp(0, 1).flatten(0, 1).cpu(), colours)
    return plots.image_grid(
        "One principal component of a code changed, the others kept",
        images.reshape(*z.shape[:2], *images.shape[1:]),
        rows=[f"component {k + 1}" for k in range(count)],
        columns=[f"{round(value, 1) + 0:+g} std" for value in values.tolist()],
    )


def _newest(images: Tensor, colours: int) -> np.ndarray:
    """The newest frame of stacks of images (N, *O): (N, H, W, 3), or (N, H, W) without colour."""
    if channels_first(images.shape[1:]):
        images = images.permute(0, 2, 3, 1)
    newest = images[..., -colours:].numpy()
    return newest if colours == 3 else newest[..., 0]


def _colours(loaded: Loaded, shape: tuple[int, ...]) -> int:
    """Channels of one frame: 3 where a camera sees colours, else 1."""
    with closing(loaded.config.made(envs.make)) as env:
        view = env.get_wrapper_attr("view") if env.has_wrapper_attr("view") else None
    grey = (view is None and min(shape) % 3) or (view is not None and view.grey)
    return 1 if grey else 3


def _played(loaded: Loaded, *, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Observations (T, *O) of fresh episodes, and the true states (T, S) where there are some."""
    player = loaded.agent.player(generator=generator(seed))
    seen: list[np.ndarray] = []
    states: list[Any] = []
    with closing(loaded.config.made(envs.make)) as env:
        for k in range(episodes):
            obs, info = env.reset(seed=episode_seed(seed, k))
            player.reset(np.ones(1, bool))
            over = False
            while not over and len(seen) < MOST:
                seen.append(np.asarray(obs))
                states.append(info.get("state"))
                action = player.act(np.asarray(obs)[None], explore=False)[0]
                obs, _, terminated, truncated, info = env.step(action)
                over = terminated or truncated
    given = all(state is not None for state in states)
    return np.stack(seen), np.stack([np.ravel(x) for x in states]) if given else None
