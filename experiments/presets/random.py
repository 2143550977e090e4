"""Random actions: the number of steps if none is given."""

from __future__ import annotations

from mbrl.agents.random import Config

PRESETS: dict[str, tuple[int, Config]] = {}
OTHERS: tuple[int, Config] = (1000, Config())
