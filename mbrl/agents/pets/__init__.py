"""PETS: probabilistic ensembles with trajectory sampling.

Chua et al. 2018, "Deep reinforcement learning in a handful of trials using probabilistic
dynamics models". Two settings make the three versions of model-based RL:

0.5  plan once per episode, model from random data only  aggregate=False, mpc.replan_every=0
1.0  + add the executed steps to the data                aggregate=True,  mpc.replan_every=0
1.5  + replan after every action (MPC)                   aggregate=True,  mpc.replan_every=1

The settings are in `config`, which imports no torch. The agent is in `agent`, which is loaded when
it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbrl.agents.pets.config import Config, version
from planners.lazy import lazy

if TYPE_CHECKING:
    from mbrl.agents.pets.agent import PETS, Model, make

__all__ = ["PETS", "Config", "Model", "make", "version"]

__getattr__ = lazy(__name__, {"mbrl.agents.pets.agent": ("PETS", "Model", "make")})


def __dir__() -> list[str]:
    return __all__
