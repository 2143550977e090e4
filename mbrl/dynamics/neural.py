"""What all neural models share: scaling, heads, fit, predictions and steps.

A model consists of a `Net` of E members, `Heads` that interpret its raw outputs, and `Normaliser`s
of its inputs and targets. In a `NeuralDynamics` the targets are the change of the state and, if it
is learned, the reward; a `Regression` is for any (x, y). A new kind of net needs a `NeuralConfig`
whose `build` makes the net and, if it is not fitted by gradient descent, whose `optimise` fits it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.data import Normaliser, moments
from mbrl.dynamics import fitting
from mbrl.dynamics.configs import FitConfig, NeuralConfig
from mbrl.nn import Net, Scaling
from mbrl.types import Gaussian, Metrics, Step, Transition

LOG_VAR = (-15.0, 0.5)
"""Initial bounds of the log-variance, in scaled units. The lower one of PETS is -10; on a noiseless
simulator that is more variance than the model's squared error, and plans become worse."""

_FALSE = torch.zeros((), dtype=torch.bool)


class Heads(nn.Module):
    """Interprets the raw outputs of a net in scaled units: D means, their variances, a logit.

    The columns are D means, then D raw log-variances if the variance depends on the input, and
    last a logit if termination is learned. A raw log-variance is softly bounded by two learned
    bounds (PETS, Chua et al. 2018); a homoscedastic one is a parameter.

    Args:
        members: E, or 1 if all members share one set of parameters.
        size: D.
        config: determines which heads there are.
        termination: whether there is a logit.

    Attributes:
        outputs: number of raw outputs.
    """

    def __init__(self, members: int, size: int, config: NeuralConfig, *, termination: bool) -> None:
        super().__init__()
        self.members, self.size = members, size
        self.termination, self.beta = termination, config.beta_nll
        self.bounded = config.probabilistic and not config.homoscedastic
        self.probabilistic, self.bound_weight = config.probabilistic, config.bound_weight
        self.outputs = size * (1 + self.bounded) + termination
        shape = (members, 1, size)
        if self.bounded:
            self.max_log_var = nn.Parameter(torch.empty(shape))
            self.min_log_var = nn.Parameter(torch.empty(shape))
        elif self.probabilistic:
            self.log_var = nn.Parameter(torch.empty(shape))
        self.reset()

    def reset(self) -> None:
        """Set the initial variances."""
        if self.bounded:
            nn.init.constant_(self.min_log_var, LOG_VAR[0])
            nn.init.constant_(self.max_log_var, LOG_VAR[1])
        elif self.probabilistic:
            nn.init.zeros_(self.log_var)

    def split(
        self, out: Float[Tensor, "E B K"]
    ) -> tuple[Float[Tensor, "E B D"], Float[Tensor, "E _ D"] | None, Float[Tensor, "E B"] | None]:
        """Mean, log-variance and logit; the last two are None if there is none."""
        mean, *others = out.split(self.size, -1)
        logit = others[-1].squeeze(-1) if self.termination else None
        if not self.probabilistic:
            return mean, None, logit
        if not self.bounded:
            return mean, self.log_var, logit
        high, low = self.max_log_var, self.min_log_var
        log_var = high - F.softplus(high - others[0])
        return mean, low + F.softplus(log_var - low), logit

    def loss(
        self,
        out: Float[Tensor, "E B K"],
        target: Float[Tensor, "E B D"],
        ends: Float[Tensor, "E B"] | None = None,
        *,
        weights: Float[Tensor, "E B"] | None = None,
        per_row: bool = False,
    ) -> Float[Tensor, " E"]:
        """Each member's mean loss over rows and dimensions: PETS eq. 1, or the squared error.

        The cross-entropy of a learned termination is added. With `per_row`, the loss of each row,
        (E, B).
        """
        mean, log_var, logit = self.split(out)
        losses = (mean - target).square()
        if log_var is not None:
            losses = losses * (-log_var).exp() + log_var
            if self.beta:
                losses = losses * (self.beta * log_var.detach()).exp()
        loss = _average(losses, weights, per_row)
        if log_var is not None:
            loss = 0.5 * loss
        if logit is not None and ends is not None:
            entropy = F.binary_cross_entropy_with_logits(logit, ends, reduction="none")
            loss = loss + _average(entropy.unsqueeze(-1), weights, per_row)
        return loss

    def penalty(self) -> Tensor | None:
        """Penalty on the distance between the bounds of the log-variance; None without bounds."""
        if not self.bounded:
            return None
        return self.bound_weight * (self.max_log_var.sum() - self.min_log_var.sum())

    def folding(self, targets: Normaliser) -> tuple[Tensor, Tensor]:
        """Factor (K,) and shift (E, 1, K) of raw outputs for `Net.fold`, in float64."""
        size, std = self.size, targets.std.double()
        scale = torch.ones(self.outputs, dtype=torch.double, device=std.device)
        shift = scale.new_zeros(1, 1, self.outputs)
        scale[:size] = std
        if self.bounded:
            shift = shift.repeat(len(self.max_log_var), 1, 1)
            shift[..., size : 2 * size] = -self.max_log_var
        shift[..., :size] = targets.mean.double()
        return scale, shift

    def variances(self, targets: Normaliser) -> tuple[Tensor | None, Tensor | None]:
        """Lower bound of the variance in physical units, and range above it, each (E, 1, D).

        Both are None without a variance; the range is None for a homoscedastic one.
        """
        if not self.probabilistic:
            return None, None
        unit = targets.std.double().square()
        low = self.min_log_var if self.bounded else self.log_var
        # because the square root has no gradient at 0
        least = torch.where(unit > 0, torch.finfo(torch.float32).tiny, 1e-30)
        floor = torch.maximum(unit * low.double().exp(), least).to(low.dtype)
        return floor, (unit * self.max_log_var.double().exp()).to(low) if self.bounded else None


def _average(losses: Tensor, weights: Tensor | None, per_row: bool) -> Tensor:
    if weights is None:
        return losses.mean(-1) if per_row else losses.mean((1, 2))
    rows = losses.mean(-1) * weights
    return rows if per_row else rows.mean(1)


class Trained(Net):
    """A net with its heads, as passed to the fit.

    Args:
        net: the net, of E members.
        heads: the heads for its raw outputs.
        share: factor of the net's penalty in a loss that is a mean over rows and dimensions.
    """

    def __init__(self, net: Net, heads: Heads, share: float) -> None:
        super().__init__()
        self.net, self.heads, self.share = net, heads, share
        # members with one set of heads are fitted together
        self.separable = net.separable and heads.members == net.members

    def of(self, net: Net) -> Trained:
        """Another net with these heads."""
        return Trained(net, self.heads, self.share)

    @property
    def members(self) -> int:
        """E."""
        return self.net.members

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B K"]:
        """The net's raw outputs."""
        return self.net(x)

    def penalty(self) -> Tensor | None:
        """The penalties of the net, in units of the loss, and of the heads; None if none."""
        prior, bounds = self.net.penalty(), self.heads.penalty()
        if prior is None:
            return bounds
        # a fit's loss is the sum over separate members, and the mean over those fitted together
        prior = self.share * (prior.sum() if self.separable else prior.mean())
        return prior if bounds is None else prior + bounds

    def resample(self, *, generator: Generator) -> None:
        """Draw new weight samples of the net."""
        self.net.resample(generator=generator)

    def fit(
        self,
        loss: fitting.Loss,
        rows: Sequence[Tensor],
        held: Sequence[Tensor],
        config: FitConfig,
        *,
        weights: Tensor | None,
        decay: Mapping[Tensor, float],
        generator: Generator,
    ) -> fitting.Fitted:
        """Fit net and heads by gradient descent; see `fitting.fit`."""
        return fitting.fit(
            self, loss, rows, held, config, weights=weights, decay=decay, generator=generator
        )


def _loss(
    trained: Net,
    x: Tensor,
    target: Tensor,
    *ends: Tensor,
    weights: Tensor | None = None,
    per_row: bool = False,
) -> Tensor:
    assert isinstance(trained, Trained)
    out = trained.net(x)
    return trained.heads.loss(out, target, *ends, weights=weights, per_row=per_row)


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
        config: see `NeuralConfig`; its `build` makes the net.
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
        config: NeuralConfig,
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
        self.net.resample(generator=generator)
        self.eval()

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
        fitted = config.optimise(
            Trained(self.net, self.heads, share),
            _loss,
            [part[train] for part in parts],
            held_rows := [part[test] for part in parts],
            weights=None if weights is None else weights.to(inputs)[..., train],
            generator=generator,
        )
        if held and self.net.separable:
            self._reorder(fitted.score.argsort())
        metrics = {
            "loss": float(fitted.loss.mean()),
            "epochs": float(fitted.epoch.mean()),
            "updates": fitted.updates,
        }
        if held:
            metrics["holdout_loss"] = float(fitted.score.mean())
            metrics["holdout_mse"] = self._error(*held_rows[:2])
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
        config: see `NeuralConfig`.
        generator: draws the initial weights.

    Attributes:
        scale: (S,) std of the one-step change of each observation in the data last fitted.

    Raises:
        ValueError: constants that are no dimensions of the observation.
    """

    scale: Tensor

    def __init__(
        self, obs_size: int, action_size: int, config: NeuralConfig, *, generator: Generator
    ) -> None:
        super().__init__(
            obs_size + action_size,
            obs_size + config.learn_reward,
            config,
            termination=config.learn_termination,
            generator=generator,
        )
        wrong = [i for i in config.constants if i >= obs_size]
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
        if std is None:
            std = torch.zeros_like(change)
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
        lead = state.shape[:-1]
        if self.config.learn_reward:
            change, reward = change[..., :-1], change[..., -1]
            std = None if std is None else std[..., :-1]
        else:
            reward = state.new_zeros(()).expand(lead)
        next_state = state + change
        if noise is not None and std is not None:
            next_state = torch.addcmul(next_state, std, noise)
        ended = _FALSE.to(state.device).expand(lead) if logit is None else logit > 0
        return Step(next_state, reward, ended)

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
            fit from the last weights diverged and was repeated from fresh ones.

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
        _check_rows(shapes, "transitions", weights, self.config.members)
        change = next_obs - obs
        targets = change
        if self.config.learn_reward:
            targets = torch.cat((change, reward.unsqueeze(-1)), -1)
        ends = terminated if self.config.learn_termination else None
        inputs = torch.cat((obs, action), -1)
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


class Regression(NeuralModel):
    """E nets, or weight samples, that each map x to a Gaussian over y.

    Args:
        x_size: I.
        y_size: D.
        config: see `NeuralConfig`.
        generator: draws the initial weights.
    """

    def __init__(
        self, x_size: int, y_size: int, config: NeuralConfig, *, generator: Generator
    ) -> None:
        super().__init__(x_size, y_size, config, generator=generator)

    def predict(self, x: Float[Tensor, "B I"] | Float[Tensor, "E B I"]) -> Gaussian:
        """Mean and std of y, (E, B, D).

        Raises:
            ValueError: wrong shapes.
        """
        members, size = self.members, len(self.inputs.mean)
        rows = x.expand(members, *x.shape) if x.ndim == 2 else x
        if rows.ndim != 3 or rows.shape[0] != members or rows.shape[2] != size:
            raise ValueError(
                f"x must have shape {('B', size)} or {(members, 'B', size)}, got {tuple(x.shape)}"
            )
        mean, std, _ = self._gaussian(rows)
        return Gaussian(mean, torch.zeros_like(mean) if std is None else std)

    def fit(
        self,
        x: Float[Tensor, "T I"],
        y: Float[Tensor, "T D"],
        *,
        weights: Float[Tensor, " T"] | Float[Tensor, "E T"] | None = None,
        generator: Generator,
    ) -> Metrics:
        """Fit to T rows; see `NeuralDynamics.fit` for what is returned.

        Raises:
            ValueError: wrong shapes, fewer than two rows, numbers that are not finite, or a fit
                that diverged; the model is then as it was.
        """
        x, y = (torch.as_tensor(value).to(self.inputs.mean.device) for value in (x, y))
        shapes = {
            "x": (x, (len(x), len(self.inputs.mean))),
            "y": (y, (len(x), self.heads.size)),
        }
        _check_rows(shapes, "rows", weights, self.config.members)
        return self._fit(x, y, None, weights, generator)


def _check_rows(
    shapes: Mapping[str, tuple[Tensor, tuple[int, ...]]],
    what: str,
    weights: Tensor | None,
    members: int,
) -> None:
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
