"""Tables for regression, with the rows of their test sets: from files, packages or a seed."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Inputs and a target, and splits into training and test rows."""

    name: str
    inputs: Array
    """(N, D)."""
    target: Array
    """(N,)."""
    tests: tuple[NDArray[np.int64], ...]
    """The rows of each split's test set; all other rows are its training set."""
    truth: tuple[Array, Array] | None = None
    """Mean (N,) and std (N,) of the distribution that the target was drawn from, if known."""

    def __repr__(self) -> str:
        # a study finds stored answers by this text, which must therefore tell other numbers apart
        parts = [self.inputs, self.target, *self.tests, *(self.truth or ())]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return f"Table({self.name!r}, {digest.hexdigest()[:16]})"

    def training(self, split: int) -> NDArray[np.int64]:
        """The rows of a split that are not in its test set."""
        return np.setdiff1d(np.arange(len(self.target)), self.tests[split])


def files(folder: Path) -> dict[str, Path]:
    """The files NAME.npz of a folder by name, in alphabetical order.

    Raises:
        ValueError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; want one with tables NAME.npz")
    found = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    if not found:
        raise ValueError(f"{folder} has no tables; want files NAME.npz")
    return found


def read(path: Path) -> Table:
    """The table in a file of NumPy arrays.

    They are `inputs` (N, D), `target` (N,), and for each split the row numbers of its test set:
    `test_0`, `test_1`, ... Others are not read. Nothing in the file is executed.

    Raises:
        ValueError: in one line that names the file, what is wrong with it.
    """
    arrays = _arrays(path)
    inputs, target = (_numbers(path, arrays, name) for name in ("inputs", "target"))
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise ValueError(f"{path}: inputs must have shape (N, D), got {inputs.shape}")
    count = len(inputs)
    if target.shape != (count,):
        raise ValueError(f"{path}: target must have shape {(count,)}, got {target.shape}")
    tests = [name for name in arrays if name.startswith("test_")]
    for name in ["test_0", *(f"test_{split}" for split in range(len(tests)))]:
        if name not in arrays:
            raise ValueError(f"{path} has no array {name}; test sets are test_0, test_1, ...")
    splits = (_rows(path, f"test_{k}", arrays[f"test_{k}"], count) for k in range(len(tests)))
    return Table(path.stem, inputs, target, tuple(splits))


def synthetic(rows: int, splits: int) -> Table:
    """A table whose noise is known and grows with an input; its numbers are always the same.

    Four inputs x are uniform in [-1, 1], the mean is sin(3 x₀) + x₁ x₂, and the std of the normal
    noise is 0.1 + 0.5 (x₀ + 1) / 2. The last input does not matter. A tenth of the rows are a
    split's test set.
    """
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (rows, 4))
    mean = np.sin(3 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2]
    std = 0.1 + 0.25 * (inputs[:, 0] + 1)
    target = mean + std * rng.standard_normal(rows)
    tests = tuple(rng.permutation(rows)[: rows // 10] for _ in range(splits))
    return Table("synthetic", inputs, target, tests, (mean, std))


def shipped(splits: int) -> dict[str, Callable[[], Table]]:
    """What reads the tables that come with installed packages, by name.

    `diabetes` comes with scikit-learn, `airfoil` and `concrete` with sklearn-contrib-bde, of which
    nothing is run.
    """
    found: dict[str, Callable[[], Table]] = {}
    if find_spec("sklearn") is not None:
        found["diabetes"] = partial(_diabetes, splits)
    spec = find_spec("bde")
    if spec is not None and spec.origin is not None:
        data = Path(spec.origin).parent / "data"
        found["airfoil"] = partial(_airfoil, data / "airfoil.csv")
        found["concrete"] = partial(_concrete, data / "concrete.data", splits)
    return found


def _diabetes(splits: int) -> Table:
    inputs, target = import_module("sklearn.datasets").load_diabetes(return_X_y=True, scaled=False)
    return Table("diabetes", inputs, target, _tenths(len(target), splits))


def _concrete(path: Path, splits: int) -> Table:
    numbers = np.loadtxt(path)
    return Table("concrete", numbers[:, :-1], numbers[:, -1], _tenths(len(numbers), splits))


def _airfoil(path: Path) -> Table:
    """With the split and the scale of Sommer et al. 2025, "Microcanonical Langevin ensembles".

    The split is scikit-learn's with seed 0 and a fifth of the rows. The target has mean 0 and std 1
    on the training rows.
    """
    numbers = np.loadtxt(path, delimiter=",", skiprows=1)
    order = np.random.RandomState(0).permutation(len(numbers))
    test, train = np.split(order, [math.ceil(0.2 * len(numbers))])
    inputs, target = numbers[:, :-1], numbers[:, -1]
    return Table("airfoil", inputs, (target - target[train].mean()) / target[train].std(), (test,))


def _tenths(rows: int, splits: int) -> tuple[NDArray[np.int64], ...]:
    """Test sets of a random tenth of the rows, always the same."""
    draw = np.random.default_rng(0)
    return tuple(draw.permutation(rows)[: rows // 10] for _ in range(splits))


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            raise ValueError("it holds a single array")
        with loaded as file:
            wanted = ("inputs", "target")
            return {k: file[k] for k in file.files if k in wanted or k.startswith("test_")}
    # what numpy and zipfile raise for damaged files; NotImplementedError: an unknown compression
    except (OSError, ValueError, EOFError, NotImplementedError, MemoryError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as NumPy arrays: {why}") from error


def _numbers(path: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> Array:
    """An array of finite numbers."""
    if name not in arrays:
        raise ValueError(f"{path} has no array {name}; want inputs, target and test_0, test_1, ...")
    value = arrays[name]
    if value.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} must hold numbers, got {value.dtype}")
    found = value.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{path}: {name} holds a number that is not finite")
    return found


def _rows(path: Path, name: str, rows: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Row numbers of a test set, which leaves at least two rows for training."""
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or len(rows) == 0:
        raise ValueError(
            f"{path}: {name} must be a vector of row numbers, got {rows.dtype} {rows.shape}"
        )
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise ValueError(f"{path}: {name} must have row numbers in 0..{count - 1}, got {wrong}")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{path}: {name} has a row number twice")
    if len(rows) > count - 2:
        raise ValueError(
            f"{path}: {name} must leave two rows or more for training, got {len(rows)} of {count}"
        )
    return rows.astype(np.int64)
