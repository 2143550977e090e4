"""The parameters of a module as one flat tensor, which one operation updates.

Small networks spend more time on the bookkeeping of many tensors than on arithmetic. A flat block
needs one optimiser step, one clip and one Polyak average, whatever the number of layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

Optimiser = Literal["adam", "adamw", "rmsprop", "sgd"]
"""Kinds of optimisers."""


SUBNORMAL = 5e-324
"""A number that is equal to 0 where the processor takes subnormal numbers for 0."""


class Diverged(ValueError):
    """A loss or a parameter is no longer finite."""


class Block:
    """A module, its parameters as views of one vector, and their optimiser.

    Attributes:
        module: the module, whose parameters receive gradients.
        fixed: the same module with constant parameters: gradients pass through it to its inputs
            but not to its parameters. It has the same memory, so it is always up to date.
        learning_rate: the step size of the next updates.

    Args:
        module: any module with parameters of one dtype and device; they are moved into the vector.
        learning_rate: step size.
        optimiser: one of `Optimiser`.
        betas: Adam's decay rates of the gradient's moments; RMSprop uses the second.
        eps: added to the root of the second moment.
        weight_decay: Adam's L2 term; decoupled from the gradient for "adamw".
        clip: largest Euclidean norm of the gradient; larger ones are scaled down. None: no limit.

    Raises:
        ValueError: a module without parameters, or with several dtypes or devices.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        optimiser: Optimiser = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> None:
        self.module, self.clip = module, clip
        self.value = _flattened(module)
        self.fixed = twin(module)
        self._trained = [p for p in module.parameters() if p.requires_grad]
        self._gradients = [p.grad for p in self._trained]  # views of that of `value`
        if optimiser not in get_args(Optimiser):
            raise ValueError(
                f"optimiser {optimiser!r} is unknown; take one of {get_args(Optimiser)}"
            )
        self.learning_rate, self._kind, self._eps = learning_rate, optimiser, eps
        self._betas, self._weight_decay = betas, weight_decay
        # of the optimiser; only Adam uses the first two
        self._steps = torch.zeros((), device=self.value.device)
        self._zero = torch.zeros((), device=self.value.device)
        self._mean, self._square = torch.zeros_like(self.value), torch.zeros_like(self.value)

    def another(self, *, learning_rate: float) -> Block:
        """A block of the same parameters and memory, whose optimiser has moments of its own.

        So two losses with steps of their own can train one network.
        """
        other = copy.copy(self)
        other.learning_rate = learning_rate
        other._steps = torch.zeros_like(self._steps)
        other._mean, other._square = torch.zeros_like(self._mean), torch.zeros_like(self._square)
        return other

    def gradient(self, loss: Tensor) -> Tensor:
        """The gradient (parameters,) of a scalar loss; it stays in place until the next call."""
        return gradients(loss, [self])[0]

    def minimise(self, loss: Tensor) -> Tensor:
        """One step of the optimiser; returns the norm of the gradient before any clipping.

        The norm is 0 where there is no `clip`, as computing it takes time.
        """
        return minimise(loss, [self], clip=self.clip)

    def _step(self, grad: Tensor) -> None:
        rate, decay, (beta1, beta2) = self.learning_rate, self._weight_decay, self._betas
        if self._kind in ("adam", "adamw"):
            self._steps += 1
            # what torch.optim.Adam calls with fused=True; its step takes longer than this operation
            fused = getattr(torch, f"_fused_{self._kind}_")
            fused(
                [self.value],
                [grad],
                [self._mean],
                [self._square],
                [],
                [self._steps],
                lr=rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
            )
            return
        if decay:
            grad.add_(self.value, alpha=decay)
        if self._kind == "rmsprop":
            self._square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            grad.div_(self._square.sqrt().add_(self._eps))
        self.value.sub_(grad, alpha=rate)

    def restart(self) -> None:
        """Forget the optimiser's moments and number of steps."""
        for part in (self._steps, self._mean, self._square):
            part.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers and the optimiser's moments, as one nested dict of tensors."""
        return {
            "value": self.value.detach().clone(),
            "buffers": {name: value.clone() for name, value in self.module.named_buffers()},
            "steps": self._steps.clone(),
            "mean": self._mean.clone(),
            "square": self._square.clone(),
            "learning_rate": self.learning_rate,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is from another module; nothing is changed then.
        """
        for name in ("value", "mean", "square"):
            _check(name, self.value, state[name])
        _check("steps", self._steps, state["steps"])
        _load(self.value, self.module, state)
        self._steps.copy_(state["steps"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self.learning_rate = state["learning_rate"]


def gradients(loss: Tensor, blocks: Sequence[Block]) -> list[Tensor]:
    """The gradient (parameters,) of a scalar loss in each block; they stay in place until the next.

    Parameters that the loss does not depend on have the gradient 0.
    """
    trained = [parameter for block in blocks for parameter in block._trained]
    # copying each into place takes less time than adding it to zeros, as backward() does
    found = torch.autograd.grad(loss, trained, materialize_grads=True)
    with torch.no_grad():
        places = [place for block in blocks for place in block._gradients]
        cast(Any, torch)._foreach_copy_(places, found)
    return [cast(Tensor, block.value.grad) for block in blocks]


def minimise(loss: Tensor, blocks: Sequence[Block], *, clip: float | None = None) -> Tensor:
    """One step of the optimisers of blocks with one loss, each with a step size of its own.

    Args:
        loss: a scalar.
        blocks: whose parameters it depends on.
        clip: largest Euclidean norm of the gradient in all of them together; larger ones are scaled
            down. None: no limit. Their own `clip` does not count.

    Returns:
        The norm before any clipping; 0 where there is no `clip`, as computing it takes time.
    """
    found = gradients(loss, blocks)
    norm = blocks[0]._zero
    if clip is not None:
        norms = [torch.linalg.vector_norm(grad) for grad in found]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        if not norm.is_cpu:  # its value would have to be waited for
            for grad in found:
                grad.mul_((clip / (norm + 1e-6)).clamp_max(1.0))
        elif not (length := float(norm) + 1e-6) <= clip:
            for grad in found:
                grad.mul_(clip / length)
    # Moments of a unit that stays silent decay until they are subnormal, below 1.2e-38. Adam's
    # step then takes ten times as long, so they count as 0.
    flushed = SUBNORMAL == 0.0  # if the processor is set so anyway
    torch.set_flush_denormal(True)
    try:
        with torch.no_grad():
            for block, grad in zip(blocks, found, strict=True):
                block._step(grad)
    finally:
        torch.set_flush_denormal(flushed)
    return norm


class Target:
    """A copy of a block's module that follows it slowly (Mnih et al. 2015; Lillicrap et al. 2016).

    Attributes:
        module: the copy; its parameters are constants.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.module = copy.deepcopy(block.module).requires_grad_(False)
        self.value = _flattened(self.module).requires_grad_(False)

    @torch.no_grad()
    def follow(self, rate: float, part: slice = slice(None)) -> None:
        """Move the share `rate` of the way to the block's parameters; 1 copies them.

        Args:
            rate: the share.
            part: which of `value` move.
        """
        self.value[part].lerp_(self.block.value[part], rate)
        for own, other in zip(self.module.buffers(), self.block.module.buffers(), strict=True):
            own.copy_(other)

    def state_dict(self) -> dict[str, Any]:
        """The parameters and the buffers."""
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        return {"value": self.value.clone(), "buffers": buffers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is from another module; nothing is changed then.
        """
        _check("value", self.value, state["value"])
        _load(self.value, self.module, state)


def twin(module: nn.Module) -> nn.Module:
    """The module with constant parameters and the same memory, for parameters and buffers."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(module, memo)


def _flattened(module: nn.Module) -> nn.Parameter:
    parameters = list(module.parameters())
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) != 1:
        raise ValueError(f"module: want parameters of one dtype and device, got {len(kinds)}")
    flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    grad = torch.zeros_like(flat)
    flat.grad = grad
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat.data[start:end].view(parameter.shape)
        parameter.grad = grad[start:end].view(parameter.shape) if parameter.requires_grad else None
        start = end
    return flat


def _check(name: str, own: Tensor, other: Any) -> None:
    if not isinstance(other, Tensor) or other.shape != own.shape:
        raise ValueError(f"{name}: want {own.numel()} numbers of a module like this")
    if not bool(other.isfinite().all()):
        raise ValueError(f"{name}: holds a number that is not finite")


@torch.no_grad()
def _load(value: Tensor, module: nn.Module, state: Mapping[str, Any]) -> None:
    buffers = dict(module.named_buffers())
    if buffers.keys() != state["buffers"].keys():
        raise ValueError(f"buffers: want {[*buffers]}, got {[*state['buffers']]}")
    for name, buffer in buffers.items():
        if buffer.shape != state["buffers"][name].shape:
            raise ValueError(f"buffers/{name}: want the shape {tuple(buffer.shape)}")
    value.copy_(state["value"])
    for name, buffer in buffers.items():
        buffer.copy_(state["buffers"][name])


def check_finite(metrics: Mapping[str, Any]) -> None:
    """Check that the metrics of an update are finite.

    Raises:
        Diverged: the first that is not, by name.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} became {float(value)}")
