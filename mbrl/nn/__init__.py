"""Networks: stacks of E multi-layer perceptrons, and blocks of parameters that are trained as one.

`stacked` has the base class `Net` and the stack, `normed` a stack that normalises the inputs of its
later layers, and `blocks` a stack of residual networks; `block` has the parameters of a module as
one tensor with its optimiser, and target copies of it; `simplicial` has simplicial normalisation.
"""

from mbrl.nn.block import Block, Diverged, Target, minimise
from mbrl.nn.blocks import StackedBlocks
from mbrl.nn.normed import NormedMLP
from mbrl.nn.simplicial import simnorm
from mbrl.nn.stacked import (
    ACTIVATIONS,
    INITS,
    Net,
    Scaling,
    StackedMLP,
    fold_scaling,
    stacked_mlp,
)

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "Block",
    "Diverged",
    "Net",
    "NormedMLP",
    "Scaling",
    "StackedBlocks",
    "StackedMLP",
    "Target",
    "fold_scaling",
    "minimise",
    "simnorm",
    "stacked_mlp",
]
