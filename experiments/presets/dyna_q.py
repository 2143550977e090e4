"""Dyna on a table: number of steps, where none is given."""

from __future__ import annotations

from mbrl.agents.dyna_q import Config

PRESETS: dict[str, tuple[int, Config]] = {}
OTHERS: tuple[int, Config] = (20_000, Config())
