"""Exact Gaussian processes as a `Net`, whose members are functions drawn from their posterior.

Rasmussen and Williams 2006, "Gaussian processes for machine learning". Each output has a process of
its own over the same inputs, in scaled units, with mean 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mbrl.checks import check_memory
from mbrl.dynamics.bayesian_configs import GPConfig
from mbrl.dynamics.fitting import FitDiverged, Fitted
from mbrl.dynamics.gp_tuning import Hyperparameters, tune
from mbrl.dynamics.moment_matching import Matched, match
from mbrl.dynamics.pathwise import Function, beside, correlation, prior_value
from mbrl.nn import Net, Scaling
from mbrl.parallel import single_thread

if TYPE_CHECKING:
    from mbrl.dynamics.heads import Heads

FIRST_NOISE = 0.1
"""Std of the noise before any fit, in scaled units; that of the function is 1."""


class GaussianProcesses(Net):
    """K independent Gaussian processes, as E functions drawn from their posterior.

    The last output is that of a learned termination, if there is one: of least squares on 0 and 1
    (Rasmussen and Williams 2006, section 6.5), less 1/2. All numbers are float64; results have the
    dtype of the inputs.

    Args:
        config: see `GPConfig`.
        inputs: I.
        outputs: K.
        generator: draws the first functions, from the prior.

    Attributes:
        rows: n, the number of rows that predict; 0 before a fit.
        x, y: (points, I) and (points, K), of which the first n are the rows.
        length: (K, I), length scales.
        scale, noise: (K,), stds of the function under the prior and of the noise.
    """

    rows: Tensor
    x: Tensor
    y: Tensor
    length: Tensor
    scale: Tensor
    noise: Tensor
    slope: Tensor
    shift: Tensor
    update: Tensor
    directions: Tensor
    weights: Tensor

    def __init__(
        self, config: GPConfig, inputs: int, outputs: int, *, generator: Generator
    ) -> None:
        super().__init__()
        self.config = config
        members, features = config.members, config.frequencies
        shapes = {
            "x": (config.points, inputs),
            "y": (config.points, outputs),
            "length": (outputs, inputs),
            "scale": (outputs,),
            "noise": (outputs,),
            "slope": (outputs,),  # from a process to its output, which differs for terminations
            "shift": (outputs,),
            "update": (members, outputs, config.points),
            "directions": (members, outputs, inputs, features),
            "weights": (members, outputs, 2 * features),
        }
        numbers = sum(math.prod(shape) for shape in shapes.values())
        check_memory(f"{members} functions of {features} frequencies", 8 * numbers)
        self.register_buffer("rows", torch.zeros((), dtype=torch.long))
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.double))
        self._key: tuple[int, ...] = ()
        self.reset(generator=generator)

    @property
    def members(self) -> int:
        """E."""
        return self.config.members

    def reset(self, *, generator: Generator) -> None:
        """Forget the data: the functions are then drawn from the first prior."""
        for part in self.buffers():
            part.zero_()
        self.length.fill_(math.sqrt(self.x.shape[1]))
        self.scale.fill_(1.0)
        self.noise.fill_(max(FIRST_NOISE, self.config.least_noise))
        self.slope.fill_(1.0)
        if self.config.learn_termination:  # nothing terminates that was never seen to
            self.slope[-1], self.shift[-1] = 0.0, -0.5
        self.resample(generator=generator)

    def fit(self, heads: Heads, rows: Sequence[Tensor], *, generator: Generator) -> Fitted:
        """Find the hyperparameters, take up the rows, and draw functions.

        Of more rows than `points` the first are taken, which a model has shuffled. An output that
        is constant in them keeps its hyperparameters.

        Args:
            heads: of the model; the noise is written to their variance.
            rows: inputs (T, I), targets (T, D) and, if it is learned, terminations (T,).
            generator: draws the functions.

        Returns:
            As `score` and `loss` minus the log marginal likelihood of a row and an output, without
            its constant; as `epoch` the iterations of L-BFGS, mean over outputs.

        Raises:
            FitDiverged: the likelihood is nowhere finite.
        """
        config = self.config
        x, y, *ends = (part[: config.points].double() for part in rows)
        count, targets = len(x), y.shape[1]
        check_memory(f"points {config.points}: the kernels", 8 * count**2 * (self.y.shape[1] + 4))
        self.slope.fill_(1.0)
        self.shift.zero_()
        if ends:
            share = ends[0].mean()
            std = (share * (1 - share)).sqrt()
            self.slope[-1], self.shift[-1] = std, share - 0.5
            column = (ends[0] - share) / torch.where(std > 0, std, 1.0)
            y = torch.cat((y, column.unsqueeze(1)), 1)
        few = min(count, config.tuning_points)
        moving = [k for k in range(y.shape[1]) if bool((y[:few, k] != y[0, k]).any())]
        found = tune(x[:few], y[:few, moving], [self._of(k) for k in moving], config)
        for k, (best, _, _) in zip(moving, found, strict=True):
            self.length[k], self.scale[k], self.noise[k] = best
        self.rows.fill_(count)
        for held, part in ((self.x, x), (self.y, y)):
            held.zero_()
            held[:count] = part
        with torch.no_grad():
            heads.log_var.copy_(2 * self.noise[:targets].log())
        self.resample(generator=generator)
        losses = [
            0.5 * (float(self.y[:count, k] @ weights) / count) + float(root.diagonal().log().mean())
            for k, (root, weights) in enumerate(self.solved())
        ]
        loss = x.new_tensor([sum(losses) / len(losses)])
        work = [x.new_tensor(each).mean() for each in zip(*[f[1:] for f in found], strict=True)]
        iterations, calls = work or [x.new_zeros(())] * 2
        return Fitted(loss, loss, iterations.view(1), float(calls))

    def _of(self, k: int) -> Hyperparameters:
        return Hyperparameters(self.length[k], self.scale[k], self.noise[k])

    def solved(self) -> list[tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]]:
        """Of each output the Cholesky factor of K + σ² 1, and (K + σ² 1)⁻¹ y.

        Raises:
            FitDiverged: the matrix is not positive definite.
        """
        parts = (self.rows, self.x, self.y, self.length, self.scale, self.noise)
        key = (self.x.data_ptr(), *(part._version for part in parts))
        if key != self._key:
            with torch.inference_mode(False), torch.no_grad(), single_thread():
                self._solved = [self._solve(k) for k in range(self.y.shape[1])]
            self._inverses: Tensor | None = None
            self._key = key
        return self._solved

    def _solve(self, k: int) -> tuple[Tensor, Tensor]:
        rows = self.x[: int(self.rows)] / self.length[k]
        gram = self.scale[k] ** 2 * correlation(self.config.kernel, rows, beside(rows))
        gram.diagonal().add_(self.noise[k] ** 2)
        root, wrong = torch.linalg.cholesky_ex(gram)
        if bool(wrong) or not bool(root.isfinite().all()):
            raise FitDiverged("the kernel of the rows is not positive definite; raise least_noise")
        target = self.y[: len(rows), k]
        return root, torch.cholesky_solve(target.unsqueeze(1), root).squeeze(1)

    @torch.no_grad()
    def resample(self, *, generator: Generator) -> None:
        """Draw E functions from the posterior."""
        members, outputs, _, frequencies = self.directions.shape
        count = int(self.rows)
        own = {"generator": generator, "device": generator.device, "dtype": torch.double}
        draws = torch.randn(self.directions.shape, **own)
        if self.config.kernel == "matern52":  # spectral density: Student's t, 5 degrees of freedom
            shape = (5, members, outputs, 1, frequencies)
            squares = torch.randn(shape, **own).square()
            draws = draws * (5 / squares.sum(0)).sqrt()
        self.directions.copy_(draws)
        draws = torch.randn(self.weights.shape, **own)
        self.weights.copy_(
            draws.to(self.weights) * (self.scale / math.sqrt(frequencies)).view(-1, 1)
        )
        noise = torch.randn((members, outputs, count), **own)
        noise = noise.to(self.x) * self.noise.view(-1, 1)
        self.update.zero_()
        if not count:
            return
        with single_thread():
            for k, (root, weights) in enumerate(self.solved()):
                rows = self.x[:count] / self.length[k]
                features = self.directions[:, k], self.weights[:, k].unsqueeze(-1)
                prior = prior_value(rows, *(part.float() for part in features))
                away = torch.cholesky_solve((prior.squeeze(-1) + noise[:, k]).mT, root).mT
                self.update[:, k, :count] = self.scale[k] ** 2 * (weights - away)

    def forward(self, x: Float[Tensor, "E B I"]) -> Float[Tensor, "E B K"]:
        """Values of each function."""
        one = self.x.new_ones(1)
        scaling = Scaling(one.expand(x.shape[-1]), one.expand(len(self.scale)), 0 * one)
        return self.fold(self.members, scaling)(x)

    @torch.no_grad()
    def fold(self, members: int, scaling: Scaling) -> Callable[[Tensor], Tensor]:
        """`x -> net(x / in_std) · scale + shift` for the first `members` functions."""
        scaling = Scaling(*(part.to(self.x) for part in scaling))
        count = int(self.rows)
        functions = [
            Function(
                self.config.kernel,
                self.length[k] * scaling.in_std,
                beside(self.x[:count] / self.length[k]),
                self.update[:members, k, :count].unsqueeze(-1).clone(),
                self.directions[:members, k].float(),
                self.weights[:members, k].unsqueeze(-1).float(),
            )
            for k in range(len(self.scale))
        ]
        slope = self.slope * scaling.scale
        shift = self.shift * scaling.scale + scaling.shift

        def values(x: Tensor) -> Tensor:
            wide = x.double()
            found = [function(wide) for function in functions]
            return torch.addcmul(shift, torch.cat(found, -1), slope).to(x.dtype)

        return values

    def posterior(
        self, x: Float[Tensor, "B I"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Mean and variance of the outputs, without noise, of inputs in scaled units."""
        means, variances = [], []
        for k, (root, weights) in enumerate(self.solved()):
            rows = beside(self.x[: int(self.rows)] / self.length[k])
            u = x.double() / self.length[k]
            cross = self.scale[k] ** 2 * correlation(self.config.kernel, u, rows)
            means.append(cross @ weights)
            known = torch.linalg.solve_triangular(root, cross.mT, upper=False).square().sum(0)
            variances.append((self.scale[k] ** 2 - known).clamp_min(0.0))
        mean, variance = torch.stack(means, -1), torch.stack(variances, -1)
        return mean * self.slope + self.shift, variance * self.slope.square()

    def moments(
        self, mean: Float[Tensor, " I"], cov: Float[Tensor, "I I"], *, outputs: int
    ) -> Matched:
        """Of the first outputs for a Gaussian input, in scaled units; see `moment_matching.match`.

        Raises:
            ValueError: another kernel than the squared exponential.
        """
        if self.config.kernel != "se":
            raise ValueError(
                f"kernel: moments in closed form need the squared exponential 'se', "
                f"not {self.config.kernel!r}"
            )
        solved = self.solved()
        if self._inverses is None:
            with torch.inference_mode(False), torch.no_grad(), single_thread():
                roots = torch.stack([root for root, _ in solved])
                self._inverses = torch.cholesky_inverse(roots)
        weights = torch.stack([weights for _, weights in solved])
        rows, length, scale = self.x[: int(self.rows)], self.length[:outputs], self.scale[:outputs]
        inverses = self._inverses[:outputs]
        return match(rows, weights[:outputs], inverses, length, scale.square(), mean, cov)
