"""Domain randomisation: simulators whose parameters differ from the model's.

MuJoCo is imported when it is needed, so that the settings can be read without it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco
    import numpy as np


@dataclass(frozen=True)
class Randomisation:
    """How far the members' parameters lie from the model's: the std of the log of a factor.

    Tobin et al. 2017 and Peng et al. 2018 for domain randomisation; here the members are what a
    planner's objective (mean, CVaR, worst case) is taken over.
    """

    mass: float = 0.1
    """Mass and inertia of each body."""
    friction: float = 0.2
    """Sliding friction of each geom, and damping and dry friction of each degree of freedom."""
    gain: float = 0.1
    """Force of each actuator, by its gain and bias. Limits of the force (`forcerange`) stay, and so
    does the feedforward input of a PID controller, which is a force itself."""

    def __post_init__(self) -> None:
        for name in ("mass", "friction", "gain"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"randomisation: {name} must be finite and >= 0, got {value!r}")

    def draw(self, model: mujoco.MjModel, rng: np.random.Generator) -> mujoco.MjModel:
        """A copy of the model with parameters drawn anew.

        Raises ValueError for `gain` above 0 and an actuator whose force MuJoCo does not compute
        itself (of a plugin, or of type `user`).
        """
        import mujoco
        import numpy as np

        drawn = copy.copy(model)

        def factors(spread: float, count: int) -> np.ndarray:
            return np.exp(spread * rng.standard_normal(count))

        mass = factors(self.mass, model.nbody)
        drawn.body_mass[:] *= mass
        drawn.body_inertia[:] *= mass[:, None]
        drawn.geom_friction[:, 0] *= factors(self.friction, model.ngeom)
        dry = factors(self.friction, model.nv)
        drawn.dof_damping[:] *= dry
        drawn.dof_frictionloss[:] *= dry
        gains = factors(self.gain, len(model.actuator_gaintype))
        if self.gain > 0:
            for i, factor in enumerate(gains):
                _scale_force(drawn, i, factor)
        mujoco.mj_setConst(drawn, mujoco.MjData(drawn))
        # MuJoCo computes the peak force of a muscle without `force` from this constant, so it
        # would change with the masses.
        drawn.actuator_acc0[:] = model.actuator_acc0
        return drawn


def _scale_force(model: mujoco.MjModel, index: int, factor: float) -> None:
    """Multiply an actuator's force by a factor, in place."""
    import mujoco

    gain, bias = model.actuator_gainprm[index], model.actuator_biasprm[index]
    kinds = (
        mujoco.mjtGain(int(model.actuator_gaintype[index])).name,
        mujoco.mjtBias(int(model.actuator_biastype[index])).name,
    )
    for kind, parameters in zip(kinds, (gain, bias), strict=True):
        if kind.endswith("_USER") or model.actuator_plugin[index] >= 0:
            raise ValueError(
                f"randomisation: actuator {model.actuator(index).name or f'#{index}'} computes its "
                "force in a plugin or callback, whose gain is not known; set gain to 0"
            )
        if kind.endswith("_MUSCLE"):  # the other parameters are lengths and shapes
            parameters[2:4] *= factor
        elif kind == "mjGAIN_DCMOTOR":  # the resistance R in force = K (u - K w) / R
            parameters[0] /= factor
        elif kind != "mjBIAS_DCMOTOR":
            parameters *= factor
