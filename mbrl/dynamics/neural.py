"""What all neural models share: scaling, fit and predictions; and the dynamics among them.

A model consists of a `Net` of E members, `Heads` that interpret its raw outputs, and `Normaliser`s
of its inputs and targets. In a `NeuralDynamics` the targets are the change of the state and, if it
is learned, the reward; a `mbrl.dynamics.regression.Regression` is for any (x, y). A new kind of net
needs a `NeuralConfig` whose `build` makes the net and, if it is not fitted by gradient descent,
whose `optimise` fits it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.data import Normaliser, moments
from mbrl.dynamics import fitting
from mbrl.dynamics.configs import LearnedConfig
from mbrl.dynamics.heads import Heads, Trained, model_loss
from mbrl.nn import Net, Scaling
from mbrl.types import Gaussian, Metrics, Step, Transition


class _Readout(NamedTuple):
    """Net and heads with the scalers folded in."""

    inputs_mean: Tensor  # (I,)
    forward: Callable[[Tensor], Tensor]  # from x - mean to physical means, raw - high, logit
    floor: Tensor | None  # (E, 1, D) lower bound of the variance
    range: Tensor | None  # (E, 1, D) range of the variance above it
    size: int  # D
    termination: bool  # the last column is a logit


class NeuralModel(nn.Module):
    """E nets, or weight samples, from inputs to a Gaussian over targets.

    Predictions are differentiable in the inputs, and in the weights if those require a gradient and
    gradients are enabled. Otherwise they use a cache of the weights with the scalers folded in, so
    after `requires_grad_(False)` it is faster to differentiate in the inputs alone.

    Args:
        inputs: I.
        targets: D.
        config: see `LearnedConfig`; its `build` makes the net.
        termination: whether to learn a logit too.
        generator: draws the initial weights.

    Raises:
        ValueError: elites for a net that is not separable.
    """

    net: Net

    def __init__(
        self,
        inputs: int,
        targets: int,
        config: LearnedConfig,
        *,
        termination: bool = False,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.config = config
        probe = Heads(1, targets, config, termination=termination)
        self.net = config.build(inputs, probe.outputs, generator=generator)
        if config.elites is not None and not self.net.separable:
            raise ValueError(
                f"elites must be unset: {type(self.net).__name__} has no separate members"
            )
        members = config.members if self.net.separable else 1
        self.heads = Heads(members, targets, config, termination=termination)
        self.inputs, self.targets = Normaliser(inputs), Normaliser(targets)
        self._clear_cache()
        self.eval()  # in training mode some nets draw for each row and would have no samples yet
        self.net.resample(generator=generator)

    @property
    def members(self) -> int:
        """E of `Dynamics`: the number of members that predict."""
        return self.config.elites or self.config.members

    def resample(self, *, generator: Generator) -> None:
        """Draw E new weight samples; does nothing if the net has none."""
        self.net.resample(generator=generator)

    def _apply(self, *args, **kwargs):
        result = super()._apply(*args, **kwargs)
        self._clear_cache()  # buffers are now other tensors
        return result

    def _clear_cache(self) -> None:
        self._sources: list[Tensor] = []
        self._readout_key: tuple[int, ...] = ()

    def _gaussian(
        self, x: Float[Tensor, "E B I"]
    ) -> tuple[Float[Tensor, "E B D"], Float[Tensor, "E B D"] | None, Float[Tensor, "E B"] | None]:
        """Mean and std of the targets in physical units, and the logit."""
        inputs_mean, forward, floor, more, size, termination = self._readout()
        mean, *others = forward(x - inputs_mean).split(size, -1)
        logit = others[-1].squeeze(-1) if termination else None
        if floor is None:
            return mean, None, logit
        if more is None:
            return mean, floor.sqrt().expand_as(mean), logit
        # exp(low + softplus(bounded - low)) with bounded = high - softplus(high - raw) is
        # exp(low) + exp(high) · sigmoid(raw - high)
        share = torch.sigmoid(others[0])
        return mean, torch.addcmul(floor, more, share).sqrt(), logit

    def _readout(self) -> _Readout:
        """The members that predict, with the scalers folded into them.

        Cached until a parameter or a buffer changes, which its version counter shows.
        """
        if not self._sources:
            self._sources = [*self.parameters(), *self.buffers()]
        sources = self._sources
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            return self._fold()
        key = (sources[0].data_ptr(), *(source._version for source in sources))
        if key != self._readout_key:
            with torch.inference_mode(False), torch.no_grad():
                self._readout_value = self._fold()
            self._readout_key = key  # last: another worker may read between the two
        return self._readout_value

    def _fold(self) -> _Readout:
        heads, members = self.heads, self.members
        scale, shift = heads.folding(self.targets)
        unit = self.inputs.unit.double()
        forward = self.net.fold(members, Scaling(unit, scale, shift[:members]))
        floor, more = (
            None if value is None else value[:members] for value in heads.variances(self.targets)
        )
        return _Readout(self.inputs.mean, forward, floor, more, heads.size, heads.termination)

    def _fit(
        self,
        inputs: Float[Tensor, "T I"],
        targets: Float[Tensor, "T D"],
        ends: Float[Tensor, " T"] | None,
        weights: Tensor | None,
        generator: Generator,
    ) -> Metrics:
        """Fit to checked rows; if an exception is raised, the model is unchanged.

        A fit from the last weights that diverges is repeated once, from fresh ones.
        """
        before = {name: value.clone() for name, value in self.state_dict().items()}
        rows = inputs, targets, ends, weights, generator
        try:
            try:
                return self._fitted(*rows)
            except fitting.FitDiverged:
                if not self.config.warm or type(self.net).reset is Net.reset:
                    raise
                self.load_state_dict(before)
                self._fresh(generator)
                return {**self._fitted(*rows), "restarted": 1.0}
        except BaseException:
            self.load_state_dict(before)
            raise

    def _fresh(self, generator: Generator) -> None:
        self.net.reset(generator=generator)
        self.heads.reset()

    def _fitted(
        self,
        inputs: Tensor,
        targets: Tensor,
        ends: Tensor | None,
        weights: Tensor | None,
        generator: Generator,
    ) -> Metrics:
        config, count, dtype = self.config, len(inputs), self.inputs.mean.dtype
        if config.normalise:
            self.inputs.fit(inputs)
            if config.normalise_targets:
                self.targets.fit(targets)
        parts = [self.inputs.scale(inputs).to(dtype), self.targets.scale(targets).to(dtype)]
        parts += [] if ends is None else [ends.to(dtype)]
        held = min(int(config.holdout * count), config.holdout_max, count - 1)
        if config.holdout and count > 1:
            held = max(held, 1)
        order = torch.randperm(count, generator=generator).to(inputs.device)
        test, train = order[:held], order[held:]
        if not config.warm:
            self._fresh(generator)
        # the loss is a mean over rows and dimensions, of half the squared error with a variance
        share = (1 if config.probabilistic else 2) / (len(train) * targets.shape[1])
        rows = fitting.Rows(
            [part[train] for part in parts],
            [part[test] for part in parts],
            None if weights is None else weights.to(inputs)[..., train],
        )
        trained = Trained(self.net, self.heads, share)
        fitted = config.optimise(trained, model_loss, rows, generator=generator)
        if held and self.net.separable:
            self._reorder(fitted.score.argsort())
        metrics = {
            "loss": float(fitted.loss.mean()),
            "epochs": float(fitted.epoch.mean()),
            "updates": fitted.updates,
            **fitted.more,
        }
        if held:
            metrics["holdout_loss"] = float(fitted.score.mean())
            metrics["holdout_mse"] = self._error(*rows.held[:2])
        return metrics

    @torch.no_grad()
    def _error(self, inputs: Tensor, targets: Tensor) -> float:
        """Mean squared error of the predicting members' mean, in scaled units."""
        out = self.net(inputs.expand(self.config.members, -1, -1))[: self.members]
        return float((out[..., : self.heads.size] - targets).square().mean())

    @torch.no_grad()
    def _reorder(self, order: Tensor) -> None:
        for part in (*self.net.parameters(), *self.net.buffers(), *self.heads.parameters()):
            part.copy_(part[order.to(part.device)])


class NeuralDynamics(NeuralModel):
    """E nets that each map (obs, action) to a Gaussian over the change of obs.

    A `GaussianDynamics`, differentiable in state, action and weights, on any device; its state is
    the observation. `members` is the number of elites: `fit` sorts the members, best first. The
    change and, if it is learned, the reward are scaled to mean 0 and std 1.

    Args:
        obs_size: O (and S).
        action_size: A.
        config: see `LearnedConfig`.
        generator: draws the initial weights.

    Attributes:
        scale: (S,) std of the one-step change of each observation in the data last fitted.

    Raises:
        ValueError: constants that are no dimensions of the observation.
    """

    scale: Tensor

    def __init__(
        self, obs_size: int, action_size: int, config: LearnedConfig, *, generator: Generator
    ) -> None:
        super().__init__(
            obs_size + action_size + config.noise_inputs,
            obs_size + config.learn_reward,
            config,
            termination=config.learn_termination,
            generator=generator,
        )
        wrong = [i for i in config.constants or () if i >= obs_size]
        if wrong:
            raise ValueError(
                f"constants: {wrong[0]} is no dimension of an observation of {obs_size}, which "
                f"are 0 to {obs_size - 1}"
            )
        self.obs_size, self.action_size = obs_size, action_size
        self.register_buffer("scale", torch.ones(obs_size))
        self._clear_cache()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(O,): one number for each dimension of the observation."""
        return (self.obs_size,)

    def encode(
        self,
        obs: Float[Tensor, "*lead O"],
        *,
        state: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Float[Tensor, "*lead S"]:
        """The identity."""
        return obs

    def decode(self, state: Float[Tensor, "*lead S"]) -> Float[Tensor, "*lead O"]:
        """The identity."""
        return state

    def predict(self, state: Float[Tensor, "E B S"], action: Float[Tensor, "E B A"]) -> Gaussian:
        """Mean and std of next state and reward, (E, B, S + 1); 0 for a reward not learned.

        Raises:
            ValueError: wrong shapes.
        """
        change, std, _ = self._gaussian(self._joined(state, action))
        return self._next(state, change, torch.zeros_like(change) if std is None else std)

    def _next(self, state: Tensor, change: Tensor, std: Tensor) -> Gaussian:
        """The Gaussian of next state and reward from that of the targets."""
        if not self.config.learn_reward:
            change, std = F.pad(change, (0, 1)), F.pad(std, (0, 1))
        return Gaussian(F.pad(state, (0, 1)) + change, std)

    def step(
        self,
        state: Float[Tensor, "E B S"],
        action: Float[Tensor, "E B A"],
        *,
        noise: Float[Tensor, "E B S"] | None,
    ) -> Step:
        """One step of each member: mean + std · noise, or the mean if `noise` is None.

        A learned reward is the predicted mean, because its noise averages out of every score. A
        learned termination is True if its probability exceeds one half. Reward and termination that
        are not learned are 0 and False.

        Raises:
            ValueError: wrong shapes.
        """
        change, std, logit = self._gaussian(self._joined(state, action))
        ends = None if logit is None else logit > 0
        return self._stepped(state, change, std, ends, noise)

    def _stepped(
        self,
        state: Tensor,
        change: Tensor,
        std: Tensor | None,
        ends: Tensor | None,
        noise: Tensor | None,
    ) -> Step:
        """The step by the targets' mean and std; the reward among them is taken without noise."""
        lead = state.shape[:-1]
        if self.config.learn_reward:
            change, reward = change[..., :-1], change[..., -1]
            std = None if std is None else std[..., :-1]
        else:
            reward = state.new_zeros(()).expand(lead)
        next_state = state + change
        if noise is not None and std is not None:
            next_state = torch.addcmul(next_state, std, noise)
        if ends is None:
            ends = state.new_zeros((), dtype=torch.bool).expand(lead)
        return Step(next_state, reward, ends)

    def _joined(self, state: Tensor, action: Tensor) -> Tensor:
        members = self.members
        for name, value, size in (
            ("state", state, self.obs_size),
            ("action", action, self.action_size),
        ):
            if value.ndim != 3 or value.shape[0] != members or value.shape[2] != size:
                raise ValueError(
                    f"{name} must have shape {(members, 'B', size)}, got {tuple(value.shape)}"
                )
        return self._inputs(state, action)

    def _inputs(self, state: Tensor, action: Tensor) -> Tensor:
        """Inputs of the net."""
        return torch.cat((state, action), -1)

    def fit(
        self,
        data: Transition,
        *,
        weights: Float[Tensor, " T"] | Float[Tensor, "E T"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """Fit every member to transitions (T,) until its held-out score no longer improves.

        The score is the Gaussian negative log-likelihood in scaled units (mean squared error
        without a variance), plus the cross-entropy of a learned termination. See `fitting.fit`;
        `weights` multiply the losses of rows that are not held out.

        Returns:
            `loss` and `holdout_loss`: means over members, each in its best pass. `holdout_mse`: in
            scaled units, of the members that predict. `epochs`: number of the best pass, mean over
            members. `updates`: in all passes, mean over groups of members. `restarted`: 1 if the
            fit from the last weights diverged and was repeated from fresh ones. `chain_restarts`:
            how often Markov chains diverged.

        Raises:
            ValueError: wrong shapes, fewer than two transitions, numbers that are not finite, or
                (`fitting.FitDiverged`) a fit that diverged; the model is then as it was.
        """
        parts = [torch.as_tensor(value).to(self.scale.device) for value in data]
        obs, action, reward, next_obs, terminated, _ = parts
        steps = len(obs)
        shapes = {
            "obs": (obs, (steps, self.obs_size)),
            "action": (action, (steps, self.action_size)),
            "reward": (reward, (steps,)),
            "next_obs": (next_obs, (steps, self.obs_size)),
            "terminated": (terminated, (steps,)),
        }
        check_rows(shapes, "transitions", weights, self.config.members)
        change = next_obs - obs
        targets = change
        if self.config.learn_reward:
            targets = torch.cat((change, reward.unsqueeze(-1)), -1)
        ends = terminated if self.config.learn_termination else None
        inputs = self._inputs(obs, action)
        if self.config.constants:
            kept = ~(change[:, list(self.config.constants)] != 0).any(-1)
            if int(kept.sum()) < 2:
                raise ValueError(
                    f"constants: dimensions {list(self.config.constants)} change in all but "
                    f"{int(kept.sum())} of {steps} transitions; a fit needs at least 2"
                )
            change, inputs, targets = change[kept], inputs[kept], targets[kept]
            ends = None if ends is None else ends[kept]
            weights = None if weights is None else weights[..., kept.to(weights.device)]
        metrics = self._fit(inputs, targets, ends, weights, generator)
        std = moments(change)[1]
        self.scale.copy_(torch.where(std > 0, std, 1.0))
        return metrics


def check_rows(
    shapes: Mapping[str, tuple[Tensor, tuple[int, ...]]],
    what: str,
    weights: Tensor | None,
    members: int,
) -> None:
    """Raise ValueError unless arrays of rows have their shapes, and only finite numbers.

    Args:
        shapes: by name, the rows and the shape that they should have.
        what: they are called in messages.
        weights: factors of the rows, which must be of shape (T,) or (E, T) and not negative.
        members: E.
    """
    count = len(next(iter(shapes.values()))[0])
    for name, (value, shape) in shapes.items():
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds a number that is not finite")
    if count < 2:
        raise ValueError(f"a fit needs at least 2 {what}, got {count}")
    if weights is None:
        return
    if tuple(weights.shape) not in ((count,), (members, count)):
        raise ValueError(
            f"weights must have shape {(count,)} or {(members, count)}, got {tuple(weights.shape)}"
        )
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError("weights holds a number that is negative or not finite")
