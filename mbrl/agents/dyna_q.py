"""Dyna on a table: Dyna-Q, Dyna-Q+, prioritised sweeping; see `mbrl.tabular.dyna`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbrl.agents.tabular import over_table, table_of
from mbrl.tabular.config import DynaConfig

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.tabular import Tabular
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(DynaConfig):
    """Q-learning on a table, from real steps and from those of a learned model (Dyna-Q)."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, with the discount of the environment where it defines one."""
        return cls() if spec.discount is None else cls(discount=spec.discount)


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Tabular:
    """An agent with a `Dyna`; it is in numpy, so `device` means nothing to it.

    Raises:
        ValueError: observations or actions that are not indices from 0.
    """
    from mbrl.tabular import Dyna

    return over_table(Dyna(*table_of(spec), config), config, generator)
