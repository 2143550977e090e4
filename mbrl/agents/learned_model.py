"""A learned model as agents use it: made from settings, refitted to real steps, and judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium.spaces import Discrete
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from mbrl.data import Replay
from mbrl.dynamics.configs import LearnedConfig
from mbrl.dynamics.own import OwnModel
from mbrl.spaces import Vectors
from mbrl.types import (
    Dynamics,
    Fittable,
    GaussianDynamics,
    Metrics,
    Policy,
    Resampled,
    RewardFn,
    Spec,
    Transition,
)
from mbrl.uncertainty import calibration_curve, calibration_error, negative_log_likelihood

LEVELS = 9
"""Central intervals whose shares are compared with their probabilities: 10 %, 20 %, ..., 90 %."""

JUDGED = 2000
"""Most transitions that a model is judged on."""


class LearnedModel:
    """A model of an environment with its reward, its termination and its fits.

    Actions that are indices are one-hot vectors to the model. Its weights need no gradient but in
    fits, so that derivatives with respect to states and actions are quick. Before each fit but the
    first the model is judged on the steps that came since the last one, which it has not seen.

    Args:
        spec: the environment; observations become vectors as in `Vectors`.
        config: settings of the model.
        generator: draws its first weights.
        device: where it is to be.

    Attributes:
        model: the model, a `Dynamics` that is `Fittable`.
        reward: as in `rollout`; None: the model predicts rewards.
        terminated: likewise.
        fits: how often the model was fitted.

    Raises:
        ValueError: a reward, or a termination, that is neither known nor learned; a model that
            cannot step, or cannot be fitted.
    """

    def __init__(
        self,
        spec: Spec,
        config: LearnedConfig | OwnModel,
        *,
        generator: Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        own = isinstance(config, OwnModel)  # may predict rewards and terminations
        if spec.reward is None and not (config.learn_reward or own):
            raise ValueError("the reward is not known: give it, or set model.learn_reward")
        if spec.ends and spec.terminated is None and not (config.learn_termination or own):
            raise ValueError(
                "the termination is not known: give it, or set model.learn_termination"
            )
        self.size = Vectors(spec.obs).size
        self.choices = int(spec.action.n) if isinstance(spec.action, Discrete) else None
        width = self.choices or int((spec.action.shape or (0,))[0])
        made: Any = config.make(self.size, width, generator=generator)
        self.model: Any = made.to(device) if hasattr(made, "to") else made
        if not (isinstance(self.model, Dynamics) and isinstance(self.model, Fittable)):
            raise ValueError(
                f"model: needs one that can step and be fitted (mbrl.types.Dynamics, Fittable), "
                f"not a {type(self.model).__name__}"
            )
        parameters = made.parameters() if isinstance(made, nn.Module) else []
        self._trained = [part for part in parameters if part.requires_grad]
        self._train(False)
        self.reward = None if config.learn_reward else self._of_vectors(spec)
        self.terminated = None if config.learn_termination else spec.terminated
        self.learns_reward, self.learns_termination = config.learn_reward, config.learn_termination
        self.constants = getattr(config, "constants", None) or ()
        self.fits = self.seen = 0
        self.bounds: tuple[Tensor, Tensor] | None = None

    def _of_vectors(self, spec: Spec) -> RewardFn | None:
        """The known reward, as a function of actions as the model takes them."""
        reward = spec.reward
        if reward is None or not isinstance(spec.action, Discrete):
            return reward
        first = int(spec.action.start)

        def of_vectors(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
            return reward(obs, self.indices(action) + first, next_obs)

        return of_vectors

    def vectors(self, action: Shaped[Tensor, "*lead"]) -> Float[Tensor, "*lead A"]:
        """Actions as the model takes them."""
        if self.choices is None:
            return action
        return F.one_hot(action.long(), self.choices).float()

    def indices(self, action: Float[Tensor, "*lead A"]) -> Shaped[Tensor, "*lead"]:
        """Actions of the model as the environment, or a learner, takes them."""
        return action if self.choices is None else action.argmax(-1)

    def policy(self, policy: Policy) -> Policy:
        """A policy whose actions are those that the model takes."""
        if self.choices is None:
            return policy

        def acts(state: Tensor, *, generator: Generator, explore: bool) -> Tensor:
            return self.vectors(policy(state, generator=generator, explore=explore))

        return acts

    def resample(self, generator: Generator) -> None:
        """Draw members anew that are samples, before a burst of imagination."""
        if isinstance(self.model, Resampled):
            self.model.resample(generator=generator)

    def fit(self, replay: Replay, *, margin: float, generator: Generator) -> Metrics:
        """Refit to all real transitions.

        Args:
            replay: of observations as vectors.
            margin: imagined states are within the box of the observations, which is wider by this
                many times its width on each side: `bounds`.
            generator: draws batches and resamples.

        Returns:
            Metrics of the fit, and those of `judge`.
        """
        data = replay.all()
        data = data._replace(action=self.vectors(data.action))
        new = min(replay.written - self.seen, len(data.reward), JUDGED) if self.fits else 0
        judged: dict[str, float] = {}
        model: object = self.model
        if new > 1 and isinstance(model, GaussianDynamics):
            judged = self.judge(Transition._make(column[-new:] for column in data))
        self._train(True)
        try:
            fitted = self.model.fit(data, generator=generator)
        finally:
            self._train(False)
        low, high = torch.aminmax(torch.cat((data.obs, data.next_obs)), dim=0)
        wider = margin * (high - low).clamp_min(1e-3)
        self.bounds = low - wider, high + wider
        self.fits, self.seen = self.fits + 1, replay.written
        return {f"model_{name}": value for name, value in {**fitted, **judged}.items()}

    def _train(self, on: bool) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(on)

    @torch.no_grad()
    def judge(self, data: Transition) -> dict[str, float]:
        """How well the model predicts transitions, before it learns from them.

        Dimensions that it keeps as they are (`constants`) are left out, and so are the transitions
        in which one of them changes.

        Returns:
            `error_N` of dimension N of the observation, and `error_reward`: root mean square error
            of the members' mean, in units of the std of the change, or of the reward, in the data;
            `error`, their mean. `nll`: negative log-likelihood of a transition, in nats.
            `calibration`: mean gap between the share of outcomes within central intervals and their
            probability, in [0, 1]. `error_termination`: share of terminations predicted wrongly.
            Nothing if fewer than two transitions are left.
        """
        model, size = self.model, self.size
        if self.constants:
            fixed = list(self.constants)
            same = (data.obs[:, fixed] == data.next_obs[:, fixed]).all(-1)
            data = Transition._make(column[same] for column in data)
            if len(data.reward) < 2:
                return {}
        rows = (column.expand(model.members, *column.shape) for column in (data.obs, data.action))
        state, action = rows
        mean, std = model.predict(state, action)
        target, unit = data.next_obs, (data.next_obs - data.obs).std(0)
        shown = [i for i in range(size) if i not in self.constants]
        names = [f"error_{i}" for i in shown]
        if self.learns_reward:
            target = torch.cat((target, data.reward.unsqueeze(-1)), -1)
            unit = torch.cat((unit, data.reward.std().view(1)))
            names.append("error_reward")
            shown.append(size)
        target, unit = target[..., shown], unit[shown]
        mean, std = mean[..., shown].double(), std[..., shown].double()
        off = (mean.mean(0) - target).square().mean(0).sqrt() / unit.clamp_min(1e-8)
        off = torch.where(unit > 0, off, 0.0)
        said = dict(zip(names, off.tolist(), strict=True)) | {"error": float(off.mean())}
        if bool((std > 0).all()):
            target = target.double()
            levels = torch.linspace(0, 1, LEVELS + 2, dtype=torch.double)[1:-1].to(std)
            curve = calibration_curve(mean, std, target, levels)
            said["calibration"] = float(calibration_error(levels, curve).mean())
            said["nll"] = float(negative_log_likelihood(mean, std, target).mean())
        if self.learns_termination:
            votes = model.step(state, action, noise=None).terminated.float().mean(0) > 0.5
            said["error_termination"] = float((votes != data.terminated).float().mean())
        return said

    def state_dict(self) -> dict[str, Any]:
        """The model's learned values, and the counters."""
        return {
            "model": dict(self.model.state_dict()),
            "fits": self.fits,
            "seen": self.seen,
            "bounds": None if self.bounds is None else [bound.clone() for bound in self.bounds],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError, RuntimeError, KeyError: it is from a different model.
        """
        if min(state["fits"], state["seen"]) < 0:
            raise ValueError("fits and seen must be >= 0")
        self.model.load_state_dict(state["model"])
        self.fits, self.seen = state["fits"], state["seen"]
        bounds = state["bounds"]
        self.bounds = None if bounds is None else (bounds[0].clone(), bounds[1].clone())


class WithModel:
    """What an agent with a `LearnedModel` shows of it; see `mbrl.types.ModelBased`."""

    learned: LearnedModel

    @property
    def model(self) -> Any:
        """The model."""
        return self.learned.model

    @property
    def reward(self) -> Any:
        """The reward as a function; None if the model predicts it."""
        return self.learned.reward

    @property
    def terminated(self) -> Any:
        """The termination as a function; None if the model predicts it."""
        return self.learned.terminated

    @property
    def fits(self) -> int:
        """How often the model was fitted."""
        return self.learned.fits
