"""Networks with E members: the base class `Net` and a stack of MLPs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from mbrl.nn import affine as products
from mbrl.nn.affine import affine, dense, input_gradient, weight_gradient
from mbrl.nn.dropout import kept
from mbrl.nn.mish import mish, mish_backward
from planners.checks import check_memory

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "elu": F.elu,
    "mish": mish,
    "tanh": lambda x, inplace=False: x.tanh_() if inplace else x.tanh(),
}


SLOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silu": lambda grad, x, y: torch.ops.aten.silu_backward(grad, x),
    "relu": lambda grad, x, y: torch.ops.aten.threshold_backward(grad, y, 0),
    "elu": lambda grad, x, y: torch.ops.aten.elu_backward(grad, 1, 1, 1, False, x),
    "mish": lambda grad, x, y: mish_backward(grad, x),
    "tanh": lambda grad, x, y: torch.ops.aten.tanh_backward(grad, y),
}
"""Gradient with respect to x of y = activation(x), from the gradient with respect to y."""


def stacked_mlp(
    x: Float[Tensor, "E B I"],
    weights: Sequence[Float[Tensor, "E I O"]],
    biases: Sequence[Float[Tensor, "E 1 O"]],
    activation: str,
) -> Float[Tensor, "E B O"]:
    """The forward pass of E multi-layer perceptrons, each on its own rows."""
    work = x.shape[1] * max(weight.numel() for weight in weights) / len(x)
    wanted = torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in (*weights, *biases))
    )
    least = products.ONEDNN_WORK_BACKWARD if wanted else products.ONEDNN_WORK
    if not products.by_onednn(x, work, least):
        return _batched(x, weights, biases, activation)
    if not wanted:
        return _one_by_one(x, weights, biases, activation)
    out = _OneDNN.apply(activation, x, *weights, *biases)
    assert isinstance(out, Tensor)
    return out


def _batched(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str
) -> Tensor:
    act = ACTIVATIONS[activation]
    # the gradient of these two is computed from their output
    inplace = not torch.is_grad_enabled() or activation in ("relu", "tanh")
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = act(torch.baddbmm(bias, x, weight), inplace=inplace)
    return torch.baddbmm(biases[-1], x, weights[-1])


def _one_by_one(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """The forward pass by oneDNN, one member after the other.

    Appends to `kept`, for each member and layer, the input of the layer and its output before the
    activation, or after it for relu, whose gradient needs no more.
    """
    outs = []
    relu, act, last = activation == "relu", ACTIVATIONS[activation], len(weights) - 1
    layers = [(w.unbind(), b.squeeze(1).unbind()) for w, b in zip(weights, biases, strict=True)]
    for e, rows in enumerate(x.unbind()):
        for layer, (weight, bias) in enumerate(layers):
            out = dense(rows, weight[e], bias[e], relu=relu and layer < last)
            if kept is not None:
                kept += (rows, out)
            rows = out if relu or layer == last else act(out, inplace=kept is None)
        outs.append(rows)
    return torch.stack(outs)


class _OneDNN(torch.autograd.Function):
    """`_one_by_one` with a gradient, which torch does not define for oneDNN's product."""

    @staticmethod
    def forward(ctx: Any, activation: str, x: Tensor, *parameters: Tensor) -> Tensor:
        layers = len(parameters) // 2
        kept: list[Tensor] = []
        weights, biases = parameters[:layers], parameters[layers:]
        out = _one_by_one(x, weights, biases, activation, kept)
        ctx.activation, ctx.kept = activation, kept
        ctx.save_for_backward(x, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        layers = len(parameters) // 2
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # second derivatives are needed: use torch's own products
            inputs = [p for p, want in zip((x, *parameters), wanted, strict=True) if want]
            out = _batched(x, parameters[:layers], parameters[layers:], ctx.activation)
            found = iter(torch.autograd.grad(out, inputs, grads, create_graph=True))
            return None, *(next(found) if want else None for want in wanted)
        slope, in_weights = SLOPES[ctx.activation], any(wanted[1:])
        weights = [weight.unbind() for weight in parameters[:layers]]
        found_x, found_w, found_b = [], [[] for _ in weights], [[] for _ in weights]
        for e, grad in enumerate(grads[0].contiguous().unbind()):
            for layer in reversed(range(layers)):
                rows, _ = ctx.kept[2 * (e * layers + layer) :][:2]
                if in_weights:
                    found_w[layer].append(weight_gradient(rows, grad))
                    found_b[layer].append(grad.sum(0, keepdim=True))
                if layer or wanted[0]:
                    grad = input_gradient(grad, weights[layer][e])
                if layer:
                    before = ctx.kept[2 * (e * layers + layer) - 1]
                    grad = slope(grad, before, rows)
            found_x.append(grad)
        return (
            None,
            torch.stack(found_x) if wanted[0] else None,
            *(torch.stack(found) if in_weights else None for found in (*found_w, *found_b)),
        )


class Scaling(NamedTuple):
    """What is done to the inputs and the outputs of a net of several members, float64."""

    in_std: Float[Tensor, " I"]
    """Inputs are divided by it."""
    scale: Float[Tensor, " O"]
    """Outputs are multiplied by it."""
    shift: Float[Tensor, "_ 1 O"]
    """Added then; of each member, or of all."""


class Net(nn.Module, ABC):
    """E networks, or E samples of one network's weights, each on its own rows.

    The network of a `NeuralModel`. A subclass defines `members`, `forward` and, if it is to be
    refitted from fresh weights, `reset`; the other methods have defaults.

    Attributes:
        separable: whether every parameter and buffer has E as its first dimension and no member
            uses another's. Members then stop training independently, train in groups on several
            threads, and can be ranked by their loss. `members` must be computed from that
            dimension, because a group is a copy of the net with fewer members.
    """

    separable = False

    @property
    @abstractmethod
    def members(self) -> int:
        """E."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Raw outputs of each member on its own rows.

        In training mode it may draw noise from the generator of the last `resample`.
        """

    def penalty(self) -> Tensor | None:
        """The term that the fit adds to the negative log-likelihood of all the data, in nats.

        A KL divergence to the prior or minus the log prior, (E,) if the net is separable and a
        scalar if not. None, the default, adds nothing.
        """
        return None

    def resample(self, *, generator: Generator) -> None:
        """Draw new weight samples; does nothing by default, for nets without samples.

        The fit calls it before every update and once at its end.
        """

    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights.

        Raises:
            ValueError: the net does not define this method; it can be fitted only with `warm`.
        """
        raise ValueError(f"warm must be True: {type(self).__name__} cannot draw fresh weights")

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members`.

        A net whose first and last layers are affine can override this to multiply them into its
        weights.
        """
        dtype = next(self.parameters()).dtype
        return partial(_scaled, self, members, Scaling(*(value.to(dtype) for value in scaling)))


def _scaled(net: Net, members: int, scaling: Scaling, x: Tensor) -> Tensor:
    if members < net.members:  # `forward` takes rows for all members
        x = torch.cat((x, x[:1].expand(net.members - members, *x.shape[1:])))
    return net(x / scaling.in_std)[:members] * scaling.scale + scaling.shift


Norm = Literal["layer", "batch", "batch-after", "renorm-after"]
"""Normalisation: over a layer's features before each activation (Ba et al. 2016), over the batch at
the input and before each activation (Ioffe and Szegedy 2015), over the batch at the input and after
each activation, or the same with batch renormalisation (Ioffe 2017)."""

GATHERED = 100_000
"""Up to this size of a member's first layer the weights of some members are copied into one block,
which takes less time than the operations of one member after the other."""

INITS = ("pets", "uniform", "orthogonal")
"""Initial weights of `StackedMLP`."""


class Stack(Net):
    """A `Net` of E separate networks, whose weights are stacked."""

    separable = True
    weights: nn.ParameterList

    @property
    def members(self) -> int:
        """E."""
        return len(self.weights[0])

    def _check_fit(self, members: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer; ValueError if a fit does not fit into memory."""
        pairs = list(pairwise(sizes))
        count = members * sum((i + 1) * o for i, o in pairs)
        check_memory(  # float32, each with a gradient, Adam's two moments and the best so far
            f"{members} nets with layers of {', '.join(map(str, sizes))}: their fit", 5 * 4 * count
        )
        return pairs


class StackedMLP(Stack):
    """E multi-layer perceptrons of the same shape: layer l holds (E, I, O) and (E, 1, O).

    Args:
        members: E, the number of networks.
        sizes: input size, hidden sizes, output size.
        activation: function between layers, one of `ACTIVATIONS`.
        init: how weights are drawn. "pets": truncated normal of std 1/(2 sqrt(I)), biases 0, as
            PETS (Chua et al. 2018, their code). "uniform": both within ±1/sqrt(I), torch's default
            for linear layers. "orthogonal": orthogonal matrices times sqrt(2), biases 0, as PPO.
        last_gain: factor of the output layer's orthogonal matrix.
        norm: normalisation of hidden layers, one of `Norm`; None: none.
        dropout: share of hidden units dropped before the normalisation in training mode, with masks
            from the generator of the last `resample`; or that of each hidden layer.
        generator: draws the weights.

    Raises:
        ValueError: a size or member count below one, an unknown activation, init or norm, or a
            dropout outside [0, 1).
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        *,
        activation: str = "silu",
        init: str = "pets",
        last_gain: float = 1.0,
        norm: Norm | None = None,
        dropout: float | Sequence[float] = 0.0,
        generator: Generator,
    ) -> None:
        super().__init__()
        if members < 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"members and sizes must be >= 1, got {members} and {tuple(sizes)}")
        for name, value, known in (
            ("activation", activation, [*ACTIVATIONS]),
            ("init", init, [*INITS]),
            ("norm", norm, [*get_args(Norm), None]),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; take one of {known}")
        hidden = len(sizes) - 2
        shares = (dropout,) * hidden if isinstance(dropout, int | float) else tuple(dropout)
        if len(shares) != hidden or not all(0 <= share < 1 for share in (*shares, 0)):
            raise ValueError(
                f"dropout must be >= 0 and < 1, or {hidden} such numbers, got {dropout}"
            )
        self.sizes, self.activation, self.init = tuple(sizes), activation, init
        self.last_gain, self.norm, self.dropout = last_gain, norm, shares
        self._noise: Generator | None = None
        pairs = self._check_fit(members, sizes)
        self.weights = nn.ParameterList(torch.empty(members, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.empty(members, 1, o) for _, o in pairs)
        # a norm over the batch is also at the input
        normed = [] if norm is None else [*sizes[norm == "layer" : -1]]
        kinds = {"layer": LayerNorm, "renorm-after": BatchRenorm}
        kind = kinds.get(norm or "", BatchNorm)
        self.norms = nn.ModuleList(kind(members, size) for size in normed)
        self.reset(generator=generator)

    @torch.no_grad()
    def reset(self, *, generator: Generator) -> None:
        """Draw fresh initial weights."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            size = weight.shape[1]
            fresh, offset = torch.empty(weight.shape), torch.zeros(bias.shape)
            if self.init == "pets":
                std = 1 / (2 * math.sqrt(size))
                nn.init.trunc_normal_(fresh, std=std, a=-2 * std, b=2 * std, generator=generator)
            elif self.init == "uniform":
                most = 1 / math.sqrt(size)
                fresh.uniform_(-most, most, generator=generator)
                offset.uniform_(-most, most, generator=generator)
            else:
                gain = self.last_gain if layer == last else math.sqrt(2)
                for member in fresh:
                    nn.init.orthogonal_(member, gain, generator=generator)
            weight.copy_(fresh)
            bias.copy_(offset)
        for norm in self.norms:
            cast(LayerNorm | BatchNorm, norm).reset()

    def resample(self, *, generator: Generator) -> None:
        """Take later dropout masks from this generator."""
        self._noise = generator

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B O"]:
        """Each member's output on its own rows."""
        # iterating over a ParameterList would take longer than a small matrix product
        modules: dict[str, Any] = self._modules
        weights: list[Tensor] = [*modules["weights"]._parameters.values()]
        biases: list[Tensor] = [*modules["biases"]._parameters.values()]
        if self.norm is None and not (any(self.dropout) and self.training):
            return stacked_mlp(x, weights, biases, self.activation)
        if self.norm == "layer":
            return self._layer_normed(x, weights, biases, None)
        act, norms = ACTIVATIONS[self.activation], [*self.norms]
        after = self.norm in ("batch-after", "renorm-after")
        if len(norms) == len(weights):
            x = norms.pop(0)(x)
        for layer, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            x = affine(x, weight, bias)
            if self.training and self.dropout[layer]:
                x = x * self._mask(x, self.dropout[layer])
            if norms and not after:
                x = norms[layer](x)
            x = act(x)
            if after:
                x = norms[layer](x)
        return affine(x, weights[-1], biases[-1])

    def only(self, members: Sequence[int], x: Float[Tensor, "1 B I"]) -> Float[Tensor, "M B O"]:
        """The outputs of some members, all on the same rows.

        Raises:
            ValueError: a net with a norm other than layer norm.
        """
        if self.norm not in ("layer", None):
            raise ValueError(f"norm: want layer or None, got {self.norm}")
        if len(members) > 1 and self.weights[0].numel() > GATHERED * self.members:
            return torch.cat([self.only([member], x) for member in members])
        own: Any = slice(members[0], members[0] + 1)  # a view
        if len(members) > 1:
            own = torch.tensor(members, device=x.device)
        weights, biases = ([part[own] for part in each] for each in (self.weights, self.biases))
        x = x.expand(len(members), -1, -1)
        if self.norm is None:
            return stacked_mlp(x, weights, biases, self.activation)
        return self._layer_normed(x, weights, biases, own)

    def after_first(self, x: Float[Tensor, "E B W"]) -> Float[Tensor, "E B O"]:
        """The outputs, from those of the first layer before its layer norm.

        For inputs of which a part is the same in all rows, whose product is then needed once.
        """
        return self._layer_normed(x, [*self.weights], [*self.biases], None, first=False)

    def _layer_normed(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        own: Any,
        *,
        first: bool = True,
    ) -> Tensor:
        act = ACTIVATIONS[self.activation]
        norms = cast(list[Any], [*self.norms._modules.values()])
        for layer, norm in enumerate(norms):
            if layer or first:
                x = affine(x, weights[layer], biases[layer])
            if self.training and self.dropout[layer]:
                x = x * self._mask(x, self.dropout[layer])
            x = act(norm(x, own))
        return affine(x, weights[-1], biases[-1])

    def _mask(self, x: Tensor, share: float) -> Tensor:
        if self._noise is None:
            raise ValueError("dropout: call resample before a forward pass in training mode")
        return kept(x, share, generator=self._noise)

    @torch.no_grad()
    def to_unit_weights(self) -> None:
        """Scale each unit's incoming weights to length 1 (Lyle et al. 2024; XQC, 2025).

        Before a norm this does not change the outputs, but keeps the effective step size of the
        optimiser constant. The output layer is scaled, too, as in XQC's code.
        """
        for weight in self.weights:
            unit_columns(weight)

    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members`, at no extra cost."""
        if self.norm is not None:
            return super().fold(members, scaling)
        weights, biases = ([part[:members] for part in own] for own in (self.weights, self.biases))
        return fold_scaling(weights, biases, self.activation, scaling)


def fold_scaling(
    weights: list[Float[Tensor, "E I O"]],
    biases: list[Float[Tensor, "E 1 O"]],
    activation: str,
    scaling: Scaling,
) -> Callable[[Tensor], Tensor]:
    """`x -> mlp(x / in_std) · scale + shift`, with the scaling in the weights."""
    in_std, scale, shift = scaling
    dtype = weights[0].dtype
    first = weights[0].double() / in_std.unsqueeze(-1)
    weights[0] = first if len(weights) == 1 else first.to(dtype)
    weights[-1] = (weights[-1].double() * scale).to(dtype)
    biases[-1] = (biases[-1].double() * scale + shift).to(dtype)
    return partial(stacked_mlp, weights=weights, biases=biases, activation=activation)


def unit_columns(weight: Float[Tensor, "E I O"]) -> None:
    """Scale the weights into each of the O units to length 1, in place."""
    weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_min(1e-12))


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over the features of each row, then a scale and shift per member."""

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, size))
        self.bias = nn.Parameter(torch.zeros(members, 1, size))

    @torch.no_grad()
    def reset(self) -> None:
        """Scale 1, shift 0."""
        self.weight.fill_(1.0)
        self.bias.zero_()

    def forward(self, x: Float[Tensor, "E B D"], members: Any = None) -> Float[Tensor, "E B D"]:
        """Normalised rows, of the members at this index; of all if None."""
        weight, bias = self.weight, self.bias
        if members is not None:
            weight, bias = weight[members], bias[members]
        if len(weight) == 1:  # one operation instead of two
            return F.layer_norm(x, x.shape[-1:], weight.flatten(), bias.flatten())
        return torch.addcmul(bias, weight, F.layer_norm(x, x.shape[-1:]))


class BatchNorm(nn.Module):
    """Mean 0 and variance 1 over the rows of each member, then a scale and shift.

    In training mode the moments are those of the batch (Ioffe and Szegedy 2015), and running means
    of them, with a share of 0.01 for each batch, are what evaluation mode uses.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, size))
        self.bias = nn.Parameter(torch.zeros(members, 1, size))
        self.register_buffer("mean", torch.zeros(members, 1, size))
        self.register_buffer("variance", torch.ones(members, 1, size))

    @torch.no_grad()
    def reset(self) -> None:
        """Scale 1, shift 0, and no batch seen."""
        self.weight.fill_(1.0)
        self.bias.zero_()
        self.mean.zero_()
        self.variance.fill_(1.0)

    def forward(self, x: Float[Tensor, "E B D"]) -> Float[Tensor, "E B D"]:
        """Normalised rows."""
        variance, mean = self.variance, self.mean
        if self.training:
            variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
            with torch.no_grad():
                self.mean.lerp_(mean, 0.01)
                self.variance.lerp_(variance, 0.01)
        scale = self.weight * (variance + 1e-5).rsqrt()
        return torch.addcmul(self.bias - mean * scale, x, scale)


WARM_UP = 100_000
"""Batches before batch renormalisation differs from batch normalisation, as in CrossQ's code."""


class BatchRenorm(BatchNorm):
    """Batch renormalisation (Ioffe 2017, algorithm 1), with the numbers of CrossQ's code.

    In training mode y = weight · ((x - μ) / σ · r + d) + bias, with the moments μ, σ² of the batch
    and the constants r = clip(σ / σ', 1/3, 3) and d = clip((μ - μ') / σ', -5, 5), where μ', σ'² are
    the running moments before this batch. So within the limits y is what evaluation mode gives, and
    the gradient still knows that μ and σ depend on x. Over the first `WARM_UP` batches r is 1 and d
    is 0, which is batch normalisation. σ² includes ε = 1e-3.
    """

    batches: Tensor
    """(E, 1, 1), batches so far."""

    def __init__(self, members: int, size: int) -> None:
        super().__init__(members, size)
        self.register_buffer("batches", torch.zeros(members, 1, 1, dtype=torch.int64))

    @torch.no_grad()
    def reset(self) -> None:
        """Scale 1, shift 0, and no batch seen."""
        super().reset()
        self.batches.zero_()

    def forward(self, x: Float[Tensor, "E B D"]) -> Float[Tensor, "E B D"]:
        """Normalised rows."""
        known = (self.variance + 1e-3).rsqrt()  # 1 / σ'
        if not self.training:
            scale = self.weight * known
            return torch.addcmul(self.bias - self.mean * scale, x, scale)
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        inverse = (variance + 1e-3).rsqrt()
        with torch.no_grad():
            warm = self.batches >= WARM_UP
            r = torch.where(warm, (known / inverse).clamp(1 / 3, 3.0), 1.0)
            d = torch.where(warm, ((mean - self.mean) * known).clamp(-5.0, 5.0), 0.0)
            self.mean.lerp_(mean, 0.01)
            self.variance.lerp_(variance, 0.01)
            self.batches += 1
        scale = self.weight * inverse * r
        return torch.addcmul(self.bias + self.weight * d - mean * scale, x, scale)
