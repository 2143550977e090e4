"""mujoco ships no type stubs; its names are C bindings."""

from typing import Any

def __getattr__(name: str) -> Any: ...
