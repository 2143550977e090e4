"""Latent spaces for control from images, in which dynamics are close to linear.

An encoder of observations into codes z and a transition z' = f(z, u) are learned together from
triples (x, u, x'). Planners then see z alone: the reward is minus the squared distance to the code
of a goal's observation. Three published losses of one model (`LocallyLinearConfig.loss`):

- E2C, "embed to control" (Watter et al. 2015, arXiv 1506.07365);
- PCC, "prediction, consistency, curvature" (Levine et al. 2020, arXiv 1909.01506);
- PC3, "predictive coding for locally-linear control" (Shu et al. 2020, ICML, arXiv 2003.01086).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from mbrl.checks import check_state
from mbrl.distributions import DiagonalGaussian, clamp_log_std
from mbrl.dynamics.fitting import FitDiverged
from mbrl.dynamics.latent_configs import LocallyLinearConfig
from mbrl.dynamics.quadratic import SmoothQuadratic
from mbrl.encoders.encoder import leading
from mbrl.encoders.losses import curvature, info_nce, kl_to_diagonal
from mbrl.encoders.networks import MLP, VectorScaling
from mbrl.encoders.sparse import SparseImages
from mbrl.nn import ACTIVATIONS, Block
from mbrl.nn.stacked import stacked_mlp
from mbrl.types import Metrics, RewardFn, Step, Transition


class Affine(NamedTuple):
    """z' = A z + B u + o around one z."""

    state: Float[Tensor, "*n Z Z"]
    action: Float[Tensor, "*n Z A"]
    offset: Float[Tensor, "*n Z"]


class LocallyLinear(nn.Module):
    """An encoder and a transition between its codes; a `Dynamics` and a `SmoothDynamics`.

    Args:
        shape: *O, of an observation: an image of uint8, or a vector.
        action_size: A.
        config: see `LocallyLinearConfig`.
        generator: draws the weights.

    Attributes:
        goal: (Z,), the code of the goal; NaN before `set_goal`, and after a fit, which moves codes.
        metric: M (Z, Z) of the reward; the identity before `fit`.
        members: 1.

    Raises:
        ValueError: a shape that is neither a vector's nor an image's.
    """

    members = 1
    goal: Tensor
    metric: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        action_size: int,
        config: LocallyLinearConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"shape: want that of a vector or an image, got {tuple(shape)}")
        self.shape, self.action_size, self.config = tuple(shape), action_size, config
        self.dtype = getattr(torch, config.dtype)
        size, codes, act = math.prod(shape), config.latent, config.activation
        self.scaling = VectorScaling(size) if len(shape) == 1 else None
        random = config.loss != "pc3"  # the encoder says a Gaussian

        def mlp(first: int, hidden: Sequence[int], last: int) -> MLP:
            return MLP((first, *hidden, last), act, generator=generator)

        hidden = config.transition_hidden
        self.encoder = mlp(size, config.hidden, (1 + random) * codes)
        if config.loss == "e2c":
            self.trunk = mlp(codes, hidden, codes * (codes + action_size + 2))
        else:
            self.trunk = mlp(codes + action_size, hidden, 2 * codes)
        if random:
            self.decoder = mlp(codes, config.hidden[::-1], size)
            learned = len(shape) == 1 and config.noise is None
            start = torch.tensor(math.log(config.noise or 1.0))
            self.log_noise = nn.Parameter(start, requires_grad=learned)
        if config.loss == "pcc":
            self.backward_encoder = mlp(2 * codes + action_size, hidden, 2 * codes)
        self.register_buffer("goal", torch.full((codes,), math.nan))
        self._aimed = False  # whether there is a goal, without asking the device
        self.register_buffer("metric", torch.eye(codes))
        self.to(self.dtype)

    # As a `Dynamics`.

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.config.latent,)

    def encode(
        self,
        obs: Shaped[Tensor, "*lead *O"],
        *,
        state: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Float[Tensor, "*lead Z"]:
        """The codes, means of E2C's and PCC's.

        Raises:
            ValueError: observations of another shape, images that are not uint8, or vectors that
                are not finite.
        """
        lead = leading(obs, self.shape)
        out = self.encoder(self._flat(obs))
        return out[..., : self.config.latent].view(*lead, -1)

    def decode(self, state: Float[Tensor, "*lead Z"]) -> Float[Tensor, "*lead *O"]:
        """The observations that codes stand for: vectors, or images from 0 to 1.

        Raises:
            NotImplementedError: PC3's model has no decoder.
        """
        if self.config.loss == "pc3":
            raise NotImplementedError("decode: a model with the loss pc3 has no decoder")
        out = self.decoder(state)
        flat = out.sigmoid() if self.scaling is None else self.scaling.back(out)
        return flat.view(*state.shape[:-1], *self.shape)

    def step(
        self,
        state: Float[Tensor, "1 B Z"],
        action: Float[Tensor, "1 B A"],
        *,
        noise: Float[Tensor, "1 B Z"] | None,
    ) -> Step:
        """One step; nothing terminates. The reward is -q |z' - z*|²_M - r |u|².

        Raises:
            ValueError: wrong shapes, or no goal is set.
        """
        for name, part, size in (
            ("state", state, self.config.latent),
            ("action", action, self.action_size),
        ):
            if part.ndim != 3 or len(part) != 1 or part.shape[-1] != size:
                raise ValueError(f"{name}: want (1, B, {size}), got {tuple(part.shape)}")
        self._check_goal()
        then = self.transition(state, action)
        after = then.mean if noise is None else then.sample(noise.to(then.mean))
        away, effort = after - self.goal, self.config.action_scale * action.to(after)
        cost = self.config.state_cost * (away @ self.metric * away).sum(-1)
        cost = cost + self.config.action_cost * effort.square().sum(-1)
        return Step(after, -cost, torch.zeros_like(cost, dtype=torch.bool))

    def set_goal(self, obs: Shaped[Tensor, " *O"]) -> None:
        """Reward closeness to the code of this observation.

        Raises:
            ValueError: as `encode`, or several observations.
        """
        if tuple(obs.shape) != self.shape:
            raise ValueError(f"goal: want shape {self.shape}, got {tuple(obs.shape)}")
        with torch.no_grad():
            self.goal.copy_(self.encode(obs))
        self._aimed = True

    def smooth(
        self, state: Float[Tensor, " Z"], *, action_repeat: int, reward: RewardFn | None
    ) -> SmoothQuadratic:
        """The model with derivatives from a code, for `planners.ILQR`.

        Raises:
            ValueError: a reward as a function of observations, or no goal is set.
        """
        if reward is not None:
            raise ValueError("reward: a locally linear model has its own, of codes; want None")
        self._check_goal()
        config = self.config
        return SmoothQuadratic(
            lambda z, u: self.transition(z, u).mean, state.to(self.dtype), self.goal,
            config.state_cost * self.metric, config.action_cost * config.action_scale**2,
            repeat=action_repeat,
        )  # fmt: skip

    def transition(
        self, state: Float[Tensor, "*n Z"], action: Float[Tensor, "*n A"]
    ) -> DiagonalGaussian:
        """p(z'|z, u), (*n, Z), with log stds held to [-4, 2]."""
        action = self.config.action_scale * action.to(self.dtype)
        if self.config.loss != "e2c":
            out = self._through(self.trunk, torch.cat((state, action), -1))
            change, log_std = out.chunk(2, -1)
            return DiagonalGaussian(state + change, clamp_log_std(log_std, -4.0, 2.0))
        near, log_std = self._affine(state)
        moved = (near.state @ state.unsqueeze(-1) + near.action @ action.unsqueeze(-1)).squeeze(-1)
        return DiagonalGaussian(moved + near.offset, log_std)

    def _affine(self, state: Tensor) -> tuple[Affine, Tensor]:
        """E2C's A(z), B(z) and o(z), and the log std of its noise."""
        size, actions = self.config.latent, self.action_size
        parts = self._through(self.trunk, state).split(
            (size * size, size * actions, size, size), -1
        )
        eye = torch.eye(size, dtype=self.dtype, device=state.device)
        matrix = eye + parts[0].unflatten(-1, (size, size))
        near = Affine(matrix, parts[1].unflatten(-1, (size, actions)), parts[2])
        return near, clamp_log_std(parts[3] - 3.0, -4.0, 2.0)

    def _through(self, net: MLP, x: Tensor) -> Tensor:
        """The network by operations that have derivatives in forward mode."""
        act = ACTIVATIONS[self.config.activation]
        stack = net.stack
        for layer, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
            x = x @ weight[0] + bias[0, 0]
            x = act(x) if layer + 1 < len(stack.weights) else x
        return x

    def _check_goal(self) -> None:
        if not self._aimed:
            raise ValueError("goal: none is set, so there is no reward; call set_goal first")

    def _flat(self, obs: Tensor) -> Tensor:
        """Observations (n, D) as the encoder has them."""
        leading(obs, self.shape)
        rows = obs.reshape(-1, math.prod(self.shape))
        if self.scaling is None:
            if obs.dtype != torch.uint8:
                raise ValueError(f"images: want uint8, got {obs.dtype}")
            return rows.to(self.dtype) / 255
        if not bool(rows.isfinite().all()):
            raise ValueError("observations: hold a number that is not finite")
        return self.scaling(rows.to(self.dtype))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is from a model of other sizes, such as of another camera, or of another
                loss or dtype.
        """
        unaimed = {**self.state_dict(), "goal": torch.full_like(self.goal, math.nan)}
        check_state(dict(state_dict), unaimed)
        self._aimed = not bool(state_dict["goal"].isnan().any())
        return super().load_state_dict(state_dict, strict, assign)

    # As a `Fittable`.

    def fit(
        self,
        data: Transition,
        *,
        generator: Generator,
        callback: Callable[[int, Metrics], None] | None = None,
    ) -> Metrics:
        """Fit to transitions (T,), of which neither rewards nor ends are used; forgets the goal.

        Args:
            data: observations, actions and next observations.
            generator: draws batches and noise.
            callback: called after each epoch with its number, from 1, and its metrics.

        Returns:
            Means over the last epoch: `loss`, its parts without their weights, and `spread`, the
            root mean square of a code.

        Raises:
            ValueError: wrong shapes, numbers that are not finite, or one transition alone with the
                metric mahalanobis.
            FitDiverged: the loss is no longer finite; the weights are not usable then.
        """
        config, count = self.config, len(data.obs)
        self._check_data(data)
        self.goal.fill_(math.nan)
        self._aimed = False
        action, seen = data.action.to(self.dtype), torch.cat((data.obs, data.next_obs))
        sparse = None
        if self.scaling is None:
            sparse = SparseImages.of(seen.flatten(1), self.dtype)
        else:
            self.scaling.normaliser.fit(seen)
        block = Block(self, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
        found: dict[str, float] = {}
        for epoch in range(config.epochs):
            if config.last_learning_rate is not None:
                part = 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
                low = config.last_learning_rate
                block.learning_rate = low + part * (config.learning_rate - low)
            found = {}
            for some in torch.randperm(count, generator=generator).split(config.batch):
                both = torch.cat((some, count + some))
                x = None if sparse is not None and config.loss == "pc3" else self._flat(seen[both])
                out = self.encoder(x) if sparse is None else self._codes(sparse, both)
                loss, parts = self._losses(out, action[some], x, generator)
                block.minimise(loss)
                for name, value in (("loss", loss), *parts.items()):
                    found[name] = found.get(name, 0.0) + float(value.detach()) * len(some) / count
            if not math.isfinite(found["loss"]):
                raise FitDiverged(f"epoch {epoch + 1}: the loss is not finite")
            if callback is not None:
                callback(epoch + 1, found)
        if config.metric == "mahalanobis":
            with torch.no_grad():
                codes = torch.cat([self.encode(part) for part in data.obs.split(config.batch)])
            covariance = codes.T.cov().reshape(config.latent, config.latent)
            unit = covariance.trace() / config.latent
            self.metric.copy_(unit * torch.linalg.pinv(covariance, hermitian=True))
        return found

    def _check_data(self, data: Transition) -> None:
        shapes = [tuple(part.shape) for part in (data.obs, data.next_obs, data.action)]
        want = (len(data.obs), *self.shape)
        if shapes != [want, want, (len(data.obs), self.action_size)]:
            raise ValueError(
                f"data: want observations {want} and actions {(want[0], self.action_size)}, "
                f"got {shapes[0]}, next {shapes[1]}, and {shapes[2]}"
            )
        least = 2 if self.config.metric == "mahalanobis" else 1
        if len(data.obs) < least:
            raise ValueError(f"data: want {least} or more transitions, got {len(data.obs)}")
        if not bool(data.action.isfinite().all()):
            raise ValueError("action: holds a number that is not finite")
        for part in (data.obs, data.next_obs):
            self._flat(part if self.scaling is not None else part[:1])  # refuses wrong numbers

    def _codes(self, images: SparseImages, rows: Int[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """The encoder's outputs for some of the images."""
        (first, *weights), (shift, *biases) = self.encoder.stack.weights, self.encoder.stack.biases
        x = images.product(rows, first[0]) + shift[0]
        if not weights:
            return x
        act = self.config.activation
        return stacked_mlp(ACTIVATIONS[act](x).unsqueeze(0), weights, biases, act)[0]

    def _losses(
        self, out: Tensor, action: Tensor, x: Tensor | None, generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of B transitions and its parts.

        Args:
            out: outputs of the encoder for x and then x', (2 B, K).
            action: u, (B, A).
            x: both observations (2 B, D), for a decoder.
            generator: draws noise.
        """
        config, size = self.config, self.config.latent
        here, there = out.chunk(2)

        def noise(width: int = size) -> Tensor:
            shape, device = (len(action), width), generator.device
            return torch.randn(shape, generator=generator, dtype=self.dtype, device=device).to(out)

        if config.loss == "pc3":
            z, after = here, there + config.code_noise * noise()
            then = self.transition(z, action)
            scores = log_probs(then, after)
            prediction, consistency = info_nce(scores), -scores.diagonal()
        elif config.loss == "pcc":
            assert x is not None
            q, after_q = gaussian(here), gaussian(there)
            z, after = q.sample(noise()), after_q.sample(noise())
            given = torch.cat((q.mean, config.action_scale * action, after), -1)
            back = gaussian(self.backward_encoder(given))
            then = self.transition(back.sample(noise()), action)
            consistency = back.kl(q) - then.log_prob(after) - after_q.entropy()
            prediction = consistency - self._log_likelihood(x.chunk(2)[1], after)
        else:
            assert x is not None
            q, after_q = gaussian(here), gaussian(there)
            z = q.sample(noise())
            near, log_std = self._affine(z)
            push = (near.action @ (config.action_scale * action).unsqueeze(-1)).squeeze(-1)
            push = push + near.offset
            mean, after = ((near.state @ v.unsqueeze(-1)).squeeze(-1) + push for v in (q.mean, z))
            after = after + log_std.exp() * noise()
            scaled = near.state * q.std.unsqueeze(-2)
            covariance = scaled @ scaled.mT + torch.diag_embed((2 * log_std).exp())
            consistency = kl_to_diagonal(mean, covariance, after_q.mean, after_q.log_std)
            likelihood = sum(
                self._log_likelihood(*pair) for pair in zip(x.chunk(2), (z, after), strict=True)
            )
            zeros = torch.zeros_like(z)
            prediction = q.kl(DiagonalGaussian(zeros, zeros)) - likelihood
        parts = {"prediction": prediction.mean(), "consistency": consistency.mean()}
        loss = config.prediction * parts["prediction"] + config.consistency * parts["consistency"]
        if config.loss != "e2c" and config.curvature:
            changes = noise(), noise(self.action_size) / config.action_scale
            parts["curvature"] = curvature(
                lambda z, u: self.transition(z, u).mean, z, action,
                *(config.curvature_noise * part for part in changes),
            ).mean()  # fmt: skip
            loss = loss + config.curvature * parts["curvature"]
        loss = loss + config.centre * here[:, :size].mean(0).square().sum()
        parts["spread"] = here[:, :size].detach().square().sum(-1).mean().sqrt()
        return loss, parts

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Float[Tensor, " B"]:
        """log p(x|z): of bits with these means for images, Gaussian for vectors."""
        out = self.decoder(z)
        if self.scaling is None:
            return -F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(-1)
        return DiagonalGaussian(out, self.log_noise.expand(out.shape[-1:])).log_prob(x)


def gaussian(out: Float[Tensor, "*n 2*Z"]) -> DiagonalGaussian:
    """Of a network's outputs: the mean, and the log std held to [-4, 2]."""
    mean, log_std = out.chunk(2, -1)
    return DiagonalGaussian(mean, clamp_log_std(log_std, -4.0, 2.0))


def log_probs(then: DiagonalGaussian, value: Float[Tensor, "N Z"]) -> Float[Tensor, "N M"]:
    """Log density of every value under each of M Gaussians (M, Z), by one matrix product."""
    middle = value.detach().mean(0)  # less is lost in the differences of squares
    value, mean, weight = value - middle, then.mean - middle, (-2 * then.log_std).exp()
    constant = (mean.square() * weight).sum(-1) + 2 * then.log_std.sum(-1)
    left = torch.cat((value.square(), -2 * value, torch.ones_like(value[:, :1])), -1)
    right = torch.cat((weight, mean * weight, constant.unsqueeze(-1)), -1)
    return -0.5 * (left @ right.T) - 0.5 * math.log(2 * math.pi) * value.shape[-1]
