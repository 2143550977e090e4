"""A model of a user's own, in the config of an agent.

No torch is imported until a model is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbrl.parts import check_settings, named

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class OwnModel:
    """A model of a user's own: a class to be called with O, A, `generator` and the settings.

    `make` raises ValueError for a class that cannot be found or built, or whose model fails
    `mbrl.check_model`.
    """

    name: str
    """module:Class, or the name of an installed package's entry point."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by name; the others have the defaults of the class."""
    learn_reward: bool = False
    """Whether to use the model's reward even if the reward is known as a function."""
    learn_termination: bool = False
    """Whether to use the model's termination even if termination is known as a function."""

    def make(
        self,
        obs_size: int,
        action_size: int,
        *,
        generator: Generator,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        """A new model for observations (O,) and actions (A,), on the CPU.

        `rows` are observations (B, O) and actions (B, A) to check it on; drawn numbers if None.
        """
        import torch

        from mbrl.contract import check_model

        kind = named("model", self.name, {})
        check_settings(f"model {self.name!r}", kind, 2, self.settings)
        made: Any
        try:
            made = kind(obs_size, action_size, generator=generator, **self.settings)
        except Exception as error:  # a user's constructor may raise anything
            said = " ".join(str(error).split()) or "nothing more"
            raise ValueError(
                f"model {self.name!r} cannot be built from (obs_size, action_size, *, generator, "
                f"settings): {type(error).__name__}: {said}"
            ) from error
        if rows is None:
            drawn = torch.randn(
                4, obs_size + action_size, generator=torch.Generator().manual_seed(0)
            )
            rows = drawn[:, :obs_size], drawn[:, obs_size:]
        check_model(made, *rows)
        return made
