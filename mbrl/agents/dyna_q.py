"""Dyna on a table: Dyna-Q, Dyna-Q+, prioritised sweeping; see `mbrl.tabular.dyna`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbrl.agents.schedules import with_discount
from mbrl.agents.tabular import over_table, table_of
from mbrl.tabular.config import DynaConfig
from planners.checks import Share

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.tabular import Tabular
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(DynaConfig):
    """Q-learning on a table, from real steps and from those of a learned model (Dyna-Q)."""

    discount: Share | None = None
    """γ, in [0, 1]. If unset, that of the environment, or 0.95 if it defines none."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit every finite environment."""
        return cls()


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Tabular:
    """An agent with a `Dyna`; it is in numpy, so `device` means nothing to it.

    Raises:
        ValueError: observations or actions that are not indices from 0.
    """
    from mbrl.tabular import Dyna

    own = with_discount(config, spec, 0.95)
    return over_table(Dyna(*table_of(spec), own), config, generator)
