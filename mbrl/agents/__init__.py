"""Recipes that join models, planners and learners, one file each.

Each of `AGENTS` is a module with `make(spec, config, *, generator, device)` and `Config`, a frozen
dataclass whose `Config.suited(spec)` are the default settings for an environment. One that reads
other files has `make_saved` too, which makes an agent whose state is loaded next. A new agent is
one such file and one line here. To keep the command's help quick, `Config` should be read without
torch and `make` loaded when it is first used, as in `pets`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mbrl.parts import named
from planners.lazy import lazy

if TYPE_CHECKING:
    from mbrl.agents.controllers import KINDS, Controller, Controllers, Pipelined
    from mbrl.agents.mpc import MPCConfig, PlannerConfig
    from mbrl.agents.pets import PETS
    from mbrl.agents.random import RandomAgent

AGENTS: Mapping[str, str] = {
    "a2c": "mbrl.agents.a2c",
    "actor-critic": "mbrl.agents.actor_critic",
    "ddpg": "mbrl.agents.ddpg",
    "dhmbpo": "mbrl.agents.dhmbpo",
    "dqn": "mbrl.agents.dqn",
    "dyna": "mbrl.agents.dyna",
    "dyna-q": "mbrl.agents.dyna_q",
    "latent-mbpo": "mbrl.agents.latent_mbpo",
    "latent-pets": "mbrl.agents.latent_pets",
    "mb-pg": "mbrl.agents.mb_pg",
    "mbpo": "mbrl.agents.mbpo",
    "mve": "mbrl.agents.mve",
    "off-policy-actor-critic": "mbrl.agents.off_policy_actor_critic",
    "pets": "mbrl.agents.pets",
    "ppo": "mbrl.agents.ppo",
    "random": "mbrl.agents.random",
    "reinforce": "mbrl.agents.reinforce",
    "sac": "mbrl.agents.sac",
    "sac-ae": "mbrl.agents.sac_ae",
    "svg": "mbrl.agents.svg",
    "tabular": "mbrl.agents.tabular",
    "td3": "mbrl.agents.td3",
    "tdmpc": "mbrl.agents.tdmpc",
    "trpo": "mbrl.agents.trpo",
}
"""Module of each agent, by name."""


def agent(name: str) -> Any:
    """The module of an agent: `Config` and `make`.

    Args:
        name: one of `AGENTS`, or `module:make` of your own module, which has both.

    Raises:
        ValueError: an unknown name; a module that cannot be imported, or has no `Config` or `make`.
    """
    found = named("agent", name, AGENTS)
    if name in AGENTS:
        return importlib.import_module(found)
    module: Any = inspect.getmodule(found) if inspect.isfunction(found) else found
    for wanted in ("Config", "make"):
        if not hasattr(module, wanted):
            raise ValueError(
                f"agent {name!r}: its module has no {wanted}; it needs Config and make"
            )
    if not (dataclasses.is_dataclass(module.Config) and hasattr(module.Config, "suited")):
        raise ValueError(f"agent {name!r}: its Config must be a dataclass with suited(spec)")
    return module


def varied(name: str, config: Any, variant: str | None) -> Any:
    """The settings of a published variant of an algorithm, such as "redq" of "sac".

    Args:
        name: of the agent.
        config: its settings; those that the variant does not name stay as they are.
        variant: one of the `VARIANTS` of the agent's module; None: none.

    Raises:
        ValueError: an unknown variant.
    """
    if variant is None:
        return config
    known: Mapping[str, Any] = getattr(agent(name), "VARIANTS", {})
    if variant not in known:
        said = f"there are {', '.join(known)}" if known else f"{name} has none"
        raise ValueError(f"variant {variant!r} is unknown; {said}")
    return known[variant](config)


def name_of(config: object) -> str:
    """The name in `AGENTS` of a config's agent, or the module of its class if it has none."""
    module = type(config).__module__
    homes = ((name, path) for name, path in AGENTS.items() if f"{module}.".startswith(f"{path}."))
    return next((name for name, _ in homes), module)


__all__ = [
    "AGENTS",
    "KINDS",
    "PETS",
    "Controller",
    "Controllers",
    "MPCConfig",
    "Pipelined",
    "PlannerConfig",
    "RandomAgent",
    "agent",
    "name_of",
    "varied",
]


__getattr__ = lazy(  # a listing of names needs no torch
    __name__,
    {
        "mbrl.agents.controllers": ("KINDS", "Controller", "Controllers", "Pipelined"),
        "mbrl.agents.mpc": ("MPCConfig", "PlannerConfig"),
        "mbrl.agents.pets": ("PETS",),
        "mbrl.agents.random": ("RandomAgent",),
    },
)
