"""SAC from learned codes of frames (SAC+AE; Yarats et al. 2019); see `mbrl.learners.sac_ae`.

No torch is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mbrl.agents.representing_config import RepresentingSchedule

if TYPE_CHECKING:
    from torch import Generator

    from mbrl.agents.representing import Frozen, Joint
    from mbrl.types import Spec


@dataclass(frozen=True)
class Config(RepresentingSchedule):
    """SAC on codes of frames, learned by the critics' loss and by one of their own, or before.

    Vectors have codes too, by layers instead of convolutions.
    """


VARIANTS: Mapping[str, Callable[[Config], Config]] = {
    "vae": lambda config: replace(config, representation="vae"),
    "curl": lambda config: replace(config, representation="contrastive"),
    "self-prediction": lambda config: replace(config, representation="self-prediction", n_step=1),
    "frozen": lambda config: replace(config, training="frozen"),
}
"""The kinds of representations, and an encoder that stays as it is while policy and critics learn.
Self-prediction needs transitions of one step."""


def make(
    spec: Spec, config: Config, *, generator: Generator, device: str = "cpu"
) -> Joint | Frozen:
    """An agent whose encoder learns all along, or stays as it is, as `config.training` says.

    Raises:
        ValueError: observations or actions that it cannot use; an encoder or data that are not
            there, or are of other observations.
    """
    from mbrl.agents.representing import representing

    return representing(spec, config, generator=generator, device=device)


def make_saved(
    spec: Spec, config: Config, *, generator: Generator, device: str = "cpu"
) -> Joint | Frozen:
    """An agent whose state is loaded next, so that no encoder of an earlier run is read.

    Nor are data of one, until the encoder is to learn from them.

    Raises:
        ValueError: observations or actions that it cannot use.
    """
    from mbrl.agents.representing import representing

    return representing(spec, config, saved=True, generator=generator, device=device)
