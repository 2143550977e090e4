"""Particles that are calibrated at every step ahead, for planning and imagination.

A model's errors are correlated in time, and its members differ, so no change of the noise of a step
makes predictions of several steps calibrated. Here, as is usual for weather forecasts, the
particles are corrected at each step ahead, by a map for this step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.special import ndtri

from mbrl.dynamics.recalibrated import KINDS, Kind, check_apart
from mbrl.dynamics.wrapped import Wrapped
from mbrl.imagination.rollout import rollout
from mbrl.particles import Propagation
from mbrl.types import Dynamics, Resampled, Step, Transition
from mbrl.uncertainty import LevelMap

DRAWS = 25
"""How often `particles_ahead` draws the weights of a model whose members are samples of them."""


class RecalibratedAhead(Wrapped):
    """A model whose imagined states are recalibrated at each step ahead, by `recalibrate_ahead`.

    Trajectories are stepped as the model does. Where `rollout` and `score_fn` hand out the states
    of step k, or compute reward and termination from them, the P particles of a candidate become
    P quantiles of mean + std · `level_maps[k - 1].noise(z)`, z standard normal, where mean and std
    are those of the particles, in each dimension. Each particle keeps its rank, so what the
    model says of how dimensions and steps depend on each other remains (ensemble copula coupling,
    Schefzik et al. 2013).

    In each dimension and at each step the predicted distribution is thus exactly the recalibrated
    one, whatever the members, for trajectories like those that the maps were fitted on. It is
    exact on average over these, not at each single start, and not for a sum over dimensions or
    steps. For other numbers of particles or another propagation it is approximate. A learned reward
    is that of the model's own states. One particle is left as it is.

    It cannot be fitted: fit the model that it wraps, and recalibrate again. Agents that fit their
    model do not accept it; planners, rollouts and `mbrl.Controller` do.

    Args:
        model: any `Dynamics`.
        level_maps: for 1, 2, ... steps ahead, each of as many dimensions as the model's state has.
            Later steps take the last one.

    Raises:
        ValueError: no maps, or maps of different numbers of dimensions.
    """

    def __init__(self, model: Dynamics, level_maps: Sequence[LevelMap]) -> None:
        dims = {level_map.dims for level_map in level_maps}
        if len(dims) != 1:
            raise ValueError(
                f"level_maps: want one map or more of one number of dimensions, got {sorted(dims)}"
            )
        super().__init__(model)
        self.level_maps = tuple(level_maps)
        self._noises: dict[int, Float[Tensor, "H P S"]] = {}
        if hasattr(model, "predict"):
            self.predict = model.predict  # type: ignore[attr-defined]

    @classmethod
    @torch.no_grad()
    def of_particles(
        cls,
        model: Dynamics,
        imagined: Float[Tensor, "P N H S"],
        real: Float[Tensor, "N H S"],
        kind: Kind = "isotonic",
    ) -> RecalibratedAhead:
        """The model with maps fitted to particles that are there already; see `recalibrate_ahead`.

        Args:
            model: any `Dynamics`.
            imagined: states of P particles, 1..H steps after N starts.
            real: the states that followed in the environment.
            kind: as in `recalibrate`.

        Raises:
            ValueError: an unknown kind, states of which one is not finite, or that are all the
                same, wrong shapes, fewer than two starts.
        """
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is unknown; take one of {[*KINDS]}")
        if imagined.ndim != 4 or imagined.shape[1:] != real.shape:
            raise ValueError(
                f"imagined, real: want (P, N, H, S) and (N, H, S), got {tuple(imagined.shape)} "
                f"and {tuple(real.shape)}"
            )
        maps = []
        for k in range(real.shape[1]):
            mean, std = _moments(imagined[:, :, k].double())
            if not bool((mean.isfinite() & std.isfinite()).all()):
                raise ValueError(
                    f"model: imagined states are not finite {k + 1} steps ahead; take fewer"
                )
            if not bool((std > 0).any()):
                raise ValueError(
                    f"model: the {type(model).__name__} predicts a std of 0, which no map can "
                    f"recalibrate"
                )
            # particles that rounding makes equal, as in a constant dimension
            rounding = torch.finfo(imagined.dtype).eps * mean.abs().amax(0)
            std = std.maximum(rounding).clamp_min(1e-30)
            maps.append(KINDS[kind].fit(mean[None], std[None], real[:, k].double()))
        return cls(model, maps)

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B *noise_shape"] | None,
    ) -> Step:
        """That of the model."""
        return self.model.step(state, action, noise=noise)

    def postprocess(self, steps: int, state: Float[Tensor, "P n S"]) -> Float[Tensor, "P n S"]:
        """The recalibrated states of each candidate's particles, `steps` steps after one start.

        Differentiable in the particles' mean and std.

        Raises:
            ValueError: a number of dimensions that the maps do not have.
        """
        particles, _, size = state.shape
        if size != self.level_maps[0].dims:
            raise ValueError(
                f"state: want (P, n, {self.level_maps[0].dims}), as the maps have that many "
                f"dimensions, got {tuple(state.shape)}"
            )
        if particles == 1:
            return state
        noises = self._noise(particles, state)[min(steps, len(self.level_maps)) - 1]
        found = state.detach()
        noise = torch.empty_like(found)
        noise.scatter_(0, found.argsort(0), noises.unsqueeze(1).expand_as(found))
        mean, std = _moments(state)
        return torch.addcmul(mean, std, noise)

    def _noise(self, particles: int, like: Tensor) -> Float[Tensor, "H P S"]:
        """P quantiles of each map's noise, in increasing order."""
        found = self._noises.get(particles)
        if found is None or found.device != like.device or found.dtype != like.dtype:
            z = ndtri((torch.arange(particles, dtype=torch.double) + 0.5) / particles)
            rows = z.unsqueeze(-1).expand(-1, self.level_maps[0].dims)
            found = torch.stack([each.noise(rows) for each in self.level_maps]).to(like)
            self._noises[particles] = found
        return found


@torch.no_grad()
def recalibrate_ahead(
    model: Dynamics,
    obs: Float[Tensor, "N H+1 O"],
    action: Float[Tensor, "N H A"],
    kind: Kind = "isotonic",
    *,
    particles: int,
    propagation: Propagation = "tsinf",
    trained_on: Transition | None = None,
    generator: Generator,
) -> RecalibratedAhead:
    """The model with a map for each of 1..H steps ahead, fitted on held-out pieces of episodes.

    The actions of each piece are imagined from its first observation, by `particles_ahead`. At each
    step and in each dimension a map is fitted to the levels of the real state in the Gaussian with
    the mean and variance of the particles. Pieces of one episode resemble each other, so many
    episodes count more than many pieces.

    Args:
        model: any `Dynamics` whose particles differ.
        obs: H + 1 successive observations in each of N >= 2 pieces, on the model's device.
        action: the actions between them.
        kind: as in `recalibrate`.
        particles: P of the plans that it is for, at least 2.
        propagation: that of these plans; expectation has no particles that differ.
        trained_on: (T,) transitions that the model was trained on, to be compared with the pieces.
        generator: draws noise and assignments.

    Raises:
        ValueError: an unknown kind; wrong shapes, or numbers that are not finite; expectation, or
            fewer than two particles or pieces; steps that are in `trained_on`, compared in float32;
            imagined states that are not finite, or all the same.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is unknown; take one of {[*KINDS]}")
    _check_pieces(obs, action)
    if propagation == "expectation" or particles < 2:
        raise ValueError(
            f"particles: want two or more that differ, got {particles} with {propagation!r}"
        )
    if trained_on is not None:
        check_apart(_transitions(obs, action), trained_on)
    states = [model.encode(obs[:, 0])]
    for k in range(action.shape[1]):
        states.append(model.encode(obs[:, k + 1], state=states[-1], action=action[:, k]))
    imagined = particles_ahead(
        model, states[0], action, particles=particles, propagation=propagation, generator=generator
    )
    return RecalibratedAhead.of_particles(model, imagined, torch.stack(states[1:], 1), kind)


@torch.no_grad()
def particles_ahead(
    model: Dynamics,
    state: Float[Tensor, "N S"],
    action: Float[Tensor, "N H A"],
    *,
    particles: int,
    propagation: Propagation = "tsinf",
    generator: Generator,
) -> Float[Tensor, "P N H S"]:
    """Imagined states 1..H steps after each start, as plans see them.

    Weights of a model whose members are samples of them are drawn anew for each of `DRAWS` groups
    of starts, because a planner draws them anew for each plan. Raises as `rollout`.
    """
    groups = min(DRAWS, len(state)) if isinstance(model, Resampled) else 1
    found: list[Tensor] = []
    for first in range(groups):
        if isinstance(model, Resampled):
            model.resample(generator=generator)
        imagined = rollout(
            model,
            state[first::groups],
            action[first::groups],
            particles=particles,
            propagation=propagation,
            generator=generator,
        )
        found.append(imagined.state[:, :, 1:])
    whole = found[0].new_empty(len(found[0]), *action.shape[:2], state.shape[-1])
    for first, part in enumerate(found):
        whole[:, first::groups] = part
    return whole


def _moments(state: Float[Tensor, "P n S"]) -> tuple[Tensor, Tensor]:
    return state.mean(0), state.std(0, correction=0)


def _check_pieces(obs: Tensor, action: Tensor) -> None:
    if (
        obs.ndim != 3
        or action.ndim != 3
        or len(obs) != len(action)
        or obs.shape[1] != action.shape[1] + 1
        or not action.shape[1]
    ):
        raise ValueError(
            f"obs, action: want (N, H + 1, O) and (N, H, A) with H >= 1, "
            f"got {tuple(obs.shape)} and {tuple(action.shape)}"
        )
    if len(obs) < 2:
        raise ValueError(f"obs: want two pieces of episodes or more, got {len(obs)}")
    for name, value in (("obs", obs), ("action", action)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite")


def _transitions(obs: Tensor, action: Tensor) -> Transition:
    before, after, moves = (part.flatten(0, 1) for part in (obs[:, :-1], obs[:, 1:], action))
    nothing = torch.zeros(len(moves), dtype=torch.bool)
    return Transition(before, moves, torch.zeros(len(moves)), after, nothing, nothing)
