"""laplace-torch 0.3 and bayesian-torch 0.5.0: predictions by samples of a network's weights.

A script for the virtual environment that has them. It reads one JSON request a line on stdin and
answers each with one JSON line on stdout, as `judo.py` does. A `library` is "laplace-torch" (last
layer, Kronecker-factored) or "bayesian-torch" (all layers, reparameterised).

`info`     versions.
`predict`  outputs of `samples` draws of the weights of a network of the given `sizes`, for `rows`
           random inputs, on one thread; `seconds` of each of `repeats` after one that is not timed.

laplace-torch draws by its `predictive_samples(pred_type="nn")`. Its default, which linearises the
network, gives a Gaussian without samples and takes some hundred times as long at these sizes.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LIBRARIES = ("laplace-torch", "bayesian-torch")
ROWS = 1000
"""Random rows to which laplace-torch fits its posterior."""

_SERVING = runpy.run_path(str(Path(__file__).with_name("serving.py")))
accepted, info, serve, timed = (_SERVING[name] for name in ("accepted", "info", "serve", "timed"))


def layers(sizes: Sequence[int], linear: Callable[[int, int], nn.Module]) -> list[nn.Module]:
    """Linear layers with SiLU between them."""
    found: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        found += [linear(inputs, outputs), nn.SiLU()]
    return found[:-1]


def laplace(sizes: Sequence[int], samples: int) -> Callable[[Tensor], Any]:
    """Samples of a last-layer Laplace approximation."""
    model = nn.Sequential(*layers(sizes, nn.Linear))
    found = import_module("laplace").Laplace(
        model, "regression", subset_of_weights="last_layer", hessian_structure="kron"
    )
    x, y = torch.randn(ROWS, sizes[0]), torch.randn(ROWS, sizes[-1])
    found.fit(DataLoader(TensorDataset(x, y), batch_size=ROWS))
    return lambda rows: found.predictive_samples(rows, pred_type="nn", n_samples=samples)


def variational(sizes: Sequence[int], samples: int) -> Callable[[Tensor], Any]:
    """Samples of a network whose weights are independent Gaussians."""
    parts = layers(sizes, import_module("bayesian_torch.layers").LinearReparameterization)

    def once(x: Tensor) -> Tensor:
        for part in parts:
            out = part(x)
            x = out[0] if isinstance(out, tuple) else out  # a layer gives its divergence too
        return x

    return lambda rows: torch.stack([once(rows) for _ in range(samples)])


def answer(work: str, **request: Any) -> dict[str, Any]:
    """The answer to a request."""
    if accepted("work", work, ("info", "predict")) == "info":
        return info(LIBRARIES)
    return predict(**request)


def predict(
    library: str, sizes: Sequence[int], rows: int, samples: int, repeats: int = 1
) -> dict[str, Any]:
    """Seconds of predictions."""
    made = {"laplace-torch": laplace, "bayesian-torch": variational}
    torch.manual_seed(0)
    run = made[accepted("library", library, LIBRARIES)](sizes, samples)
    x = torch.randn(rows, sizes[0])
    with torch.no_grad():
        run(x)
        return {"seconds": timed(lambda: run(x), repeats)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(answer)
