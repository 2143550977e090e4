"""mctx's trees for small problems, stored in mctx.npz for machines without mctx.

    PYTHONPATH=. python tests/planners/mcts/golden_mctx.py

runs mctx (`make peers`) and writes the file again.
"""

from pathlib import Path

import numpy as np

from experiments.peers import Mctx

FILE = Path(__file__).with_name("mctx.npz")

PUCT = {"rule": "puct", "temperature": 0.0, "dirichlet_fraction": 0.0}
GUMBEL = {"rule": "gumbel"}
CASES = {
    "puct": PUCT,
    "puct with noise": PUCT | {"dirichlet_fraction": 0.4, "noise": True},
    "puct with forbidden actions": PUCT | {"invalid": True},
    "puct three deep": PUCT | {"max_depth": 3},
    "puct with ends": PUCT | {"ends": True},
    "puct, another prior weight": PUCT | {"pb_c_init": 0.7, "pb_c_base": 50.0},
    "gumbel without noise": GUMBEL,
    "gumbel": GUMBEL | {"noise": True},
    "gumbel over three": GUMBEL | {"noise": True, "max_num_considered_actions": 3},
    "gumbel with forbidden actions": GUMBEL | {"noise": True, "invalid": True},
    "gumbel three deep": GUMBEL | {"max_depth": 3},
    "gumbel with ends": GUMBEL | {"noise": True, "ends": True},
}
"""name -> settings of mctx's; `noise`, `invalid` and `ends` say that the problem has them."""

STATES, ACTIONS, ROOTS, SIMULATIONS = 12, 5, 3, 60


def problem(name: str) -> dict:
    """The request of a case, with a table drawn from its number."""
    settings = dict(CASES[name])
    rng = np.random.default_rng(list(CASES).index(name))
    shape = (STATES, ACTIONS)
    discount = np.full(shape, 0.9)
    if settings.pop("ends", False):
        discount[rng.random(shape) < 0.25] = 0.0
    table = {
        "next": rng.integers(STATES, size=shape),
        "reward": rng.normal(size=shape),
        "discount": discount,
        "logits": rng.normal(size=shape),
        "value": rng.normal(size=STATES),
        "roots": np.arange(ROOTS),
    }
    if settings.pop("noise", False):
        gumbel = settings["rule"] == "gumbel"
        size = (ROOTS, ACTIONS)
        table["noise"] = rng.gumbel(size=size) if gumbel else rng.dirichlet([0.3] * ACTIONS, ROOTS)
    if settings.pop("invalid", False):
        table["invalid"] = rng.random((ROOTS, ACTIONS)) < 0.4
        table["invalid"][:, 1] = False
    return {k: v.tolist() for k, v in table.items()} | settings | {"simulations": SIMULATIONS}


def ask(peer: Mctx, name: str) -> dict[str, np.ndarray]:
    """mctx's tree of a case."""
    return {k: np.array(v) for k, v in peer.ask(work="search", **problem(name)).items()}


if __name__ == "__main__":
    with Mctx() as peer:
        np.savez_compressed(
            FILE,
            **{f"{name}/{k}": v for name in CASES for k, v in ask(peer, name).items()},
        )
