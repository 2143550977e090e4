"""A model whose predicted distributions are recalibrated, for planning and imagination.

Malik et al. 2019, "Calibrated model-based deep reinforcement learning": a planner that weighs
risks needs predictions whose probabilities are right, and a map fitted on held-out data makes them
so. The maps are in `mbrl.uncertainty.recalibration`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.checks import check_batch
from mbrl.dynamics.wrapped import Wrapped
from mbrl.types import Gaussian, GaussianDynamics, Step, Transition
from mbrl.uncertainty import Isotonic, LevelMap, Logistic, Temperature, noise_moments

Kind = Literal["temperature", "isotonic", "logistic"]
"""Kinds of maps that `recalibrate` fits."""

KINDS = {"temperature": Temperature, "isotonic": Isotonic, "logistic": Logistic}


class Recalibrated(Wrapped):
    """A `GaussianDynamics` that steps as another one, with recalibrated noise.

    A step adds std · `level_map.noise(z)` to each member's mean instead of std · z. `predict` gives
    the mean and std of that distribution, which is a Gaussian for a `Temperature` only. A step
    without noise, and a learned reward, are those of the model.

    Each member is recalibrated about its own mean, so the mixture of all is recalibrated exactly if
    members agree. Where they differ, their disagreement remains and only the noise changes; a
    `Temperature` is fitted with that taken into account. Nothing is fitted to more than one step:
    see `mbrl.imagination.recalibrate_ahead` for both.

    It cannot be fitted: fit the model that it wraps, and recalibrate again. Agents that fit their
    model do not accept it; planners, rollouts and `mbrl.Controller` do.

    Args:
        model: any `GaussianDynamics` whose step is mean + std · noise.
        level_map: maps of as many dimensions as the model's noise has.

    Raises:
        ValueError: a model that predicts no Gaussian, or maps of another number of dimensions.
    """

    def __init__(self, model: GaussianDynamics, level_map: LevelMap) -> None:
        _check_gaussian(model)
        if model.noise_shape != (level_map.dims,):
            raise ValueError(
                f"level_map: has {level_map.dims} dimensions, but the noise of the model has shape "
                f"{model.noise_shape}"
            )
        super().__init__(model)
        self.level_map = level_map
        mean, std = noise_moments(level_map)
        # the reward is left as it is
        self._shift = torch.cat((mean, mean.new_zeros(1)))
        self._factor = torch.cat((std, std.new_ones(1)))

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of the recalibrated next state, and the model's of the reward.

        Raises what the model raises.
        """
        mean, std = self.model.predict(state, action)
        if self._shift.device != std.device:  # once, and not in every step of a plan
            self._shift, self._factor = self._shift.to(std.device), self._factor.to(std.device)
        return Gaussian(mean + std * self._shift.to(std), std * self._factor.to(std))

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S"] | None,
    ) -> Step:
        """One step of each member with recalibrated noise; that of the model if `noise` is None.

        Raises what the model raises.
        """
        moved = None if noise is None else self.level_map.noise(noise)
        return self.model.step(state, action, noise=moved)


@torch.no_grad()
def recalibrate(
    model: GaussianDynamics,
    data: Transition,
    kind: Kind = "temperature",
    *,
    trained_on: Transition | None = None,
) -> Recalibrated:
    """The model with a map for each dimension of the next state, fitted on held-out data.

    A map is fitted to the PIT values of the mixture of all members, or, for a temperature, to its
    likelihood. A learned reward is left as it is, because a step takes its mean.

    Args:
        model: any `GaussianDynamics` whose step is mean + std · noise.
        data: (T,) transitions that it was not trained on, two or more.
        kind: temperature (`Temperature`), isotonic (`Isotonic`) or logistic (`Logistic`).
        trained_on: (T',) transitions that it was trained on, to be compared with `data`.

    Raises:
        ValueError: an unknown kind; wrong shapes, or numbers that are not finite; fewer than two
            transitions; transitions that are in `trained_on`, compared in float32; a model that
            predicts no Gaussian, whose step is not mean + std · noise, or that predicts a std of 0.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is unknown; take one of {[*KINDS]}")
    _check_gaussian(model)
    _check_rows("data", data, like=data)
    if len(data.reward) < 2:
        raise ValueError(f"data: want two transitions or more, got {len(data.reward)}")
    if trained_on is not None:
        _check_rows("trained_on", trained_on, like=data)
        check_apart(data, trained_on)
    state = model.encode(data.obs)
    target = model.encode(data.next_obs, state=state, action=data.action).double()
    if model.noise_shape != target.shape[-1:]:
        raise ValueError(
            f"model: a step of the {type(model).__name__} is not mean + std · noise, since its "
            f"noise has shape {model.noise_shape} for {target.shape[-1]} dimensions; take "
            f"recalibrate_ahead"
        )
    rows = (part.expand(model.members, *part.shape) for part in (state, data.action))
    mean, std = (part[..., : target.shape[-1]].double() for part in model.predict(*rows))
    if bool((std == 0).any()):
        raise ValueError(
            f"model: the {type(model).__name__} predicts a std of 0, which no map can recalibrate"
        )
    return Recalibrated(model, KINDS[kind].fit(mean, std, target))


def _check_gaussian(model: object) -> None:
    if not isinstance(model, GaussianDynamics):
        raise ValueError(
            f"model: want one that predicts a Gaussian (mbrl.types.GaussianDynamics), "
            f"not a {type(model).__name__}"
        )


def _check_rows(name: str, rows: Transition, *, like: Transition) -> None:
    try:
        check_batch(rows, like.obs.shape[1:], like.action.shape[1:])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_apart(data: Transition, trained_on: Transition) -> None:
    """Raise ValueError with the number of transitions that are in both, compared in float32."""
    seen = set(_rows(trained_on))
    shared = sum(row in seen for row in _rows(data))
    if shared:
        raise ValueError(
            f"data: {shared} of {len(data.reward)} transitions are in trained_on too; "
            f"recalibrate on transitions that the model was not trained on"
        )


def _rows(data: Transition) -> list[bytes]:
    parts = [part.flatten(1).float() for part in (data.obs, data.action, data.next_obs)]
    table = torch.cat(parts, -1) + 0.0  # -0.0 becomes 0.0
    return [row.tobytes() for row in table.cpu().numpy()]
