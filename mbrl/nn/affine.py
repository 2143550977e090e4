"""The product of every layer of a stack of networks, by the library that computes it fastest."""

from __future__ import annotations

import platform
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """x (B, I) times the transpose of weight (O, I), plus bias (O,), by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")


def onednn_works() -> bool:
    """Whether oneDNN's product works in this build of torch and on this processor."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    ones = torch.ones(2, 2)
    try:
        return torch.equal(_onednn(ones, ones, None), 2 * ones)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _is_intel() -> bool:
    """Whether the processor is Intel's, for which MKL has specialised kernels."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return "GenuineIntel" in file.read(4096)
    except OSError:  # not Linux
        return "Intel" in platform.processor()


ONEDNN = onednn_works() and not _is_intel()
"""Whether oneDNN computes large float32 products on the CPU. On AMD processors it uses AVX-512,
which MKL does not, and is about twice as fast; on Intel processors MKL is faster (1.45 times in the
fit of an ensemble). Results differ in the last bits."""

ONEDNN_ROWS = 32
"""Below this number of rows per member one batched call for all members is faster, because oneDNN
rearranges the weights in every call."""

ONEDNN_WORK = 2_000_000
"""Below this number of multiplications in a member's largest layer a batched call is faster."""

ONEDNN_WORK_BACKWARD = 5_000_000
"""Like `ONEDNN_WORK`, if gradients of a whole network are needed."""


THIN = 4
"""Up to this number of outputs torch's own product is faster."""


def dense(
    x: Float[Tensor, "B I"],
    weight: Float[Tensor, "I O"],
    bias: Float[Tensor, " O"] | None,
    *,
    relu: bool = False,
) -> Float[Tensor, "B O"]:
    """x W + b by oneDNN, which can compute the ReLU of it at no cost."""
    if weight.shape[1] > THIN:
        return _onednn(x, weight.t(), bias, "relu" if relu else "none")
    out = torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
    return out.relu_() if relu else out


def input_gradient(
    grad: Float[Tensor, "B O"], weight: Float[Tensor, "I O"]
) -> Float[Tensor, "B I"]:
    """The gradient of x W with respect to x."""
    if weight.shape[1] > THIN:
        return _onednn(grad, weight, None)
    return torch.mm(grad, weight.t())


def weight_gradient(x: Float[Tensor, "B I"], grad: Float[Tensor, "B O"]) -> Float[Tensor, "I O"]:
    """The gradient of x W with respect to W."""
    inputs, outputs = x.shape[1], grad.shape[1]
    if outputs <= THIN:
        return torch.mm(x.t(), grad)
    if outputs < inputs:  # oneDNN copies its first factor, which is then the smaller one
        return _onednn(grad.t(), x.t(), None).t()
    return _onednn(x.t(), grad.t(), None)


def by_onednn(x: Float[Tensor, "E B I"], work: float, least: float) -> bool:
    """Whether a product of so many multiplications a member is left to oneDNN."""
    return (
        ONEDNN
        and x.shape[1] >= ONEDNN_ROWS
        and work >= least
        and x.dtype == torch.float32
        and x.is_cpu
    )


def affine(
    x: Float[Tensor, "E B I"], weight: Float[Tensor, "E I O"], bias: Float[Tensor, "E 1 O"] | None
) -> Float[Tensor, "E B O"]:
    """Each member's x W + b."""
    if by_onednn(x, x.shape[1] * weight[0].numel(), ONEDNN_WORK):
        out = _Affine.apply(x, weight, bias)
        assert isinstance(out, Tensor)
        return out
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


class _Affine(torch.autograd.Function):
    """`affine` by oneDNN, for whose product torch defines no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        offsets = [None] * len(x) if bias is None else bias.squeeze(1).unbind()
        parts = zip(x.unbind(), weight.unbind(), offsets, strict=True)
        return _joined([dense(*part) for part in parts])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        offset = grad.sum(1, keepdim=True) if by_bias else None
        if torch.is_grad_enabled():  # second derivatives are needed: use torch's own products
            rows = torch.bmm(grad, weight.mT) if by_x else None
            return rows, torch.bmm(x.mT, grad) if by_weight else None, offset
        each = grad.contiguous().unbind()
        rows = own = None
        if by_x:
            parts = zip(each, weight.unbind(), strict=True)
            rows = _joined([input_gradient(*part) for part in parts])
        if by_weight:
            parts = zip(x.unbind(), each, strict=True)
            own = _joined([weight_gradient(*part) for part in parts])
        return rows, own, offset


def _joined(parts: list[Tensor]) -> Tensor:
    """The parts stacked, which for one alone needs no copy."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)
