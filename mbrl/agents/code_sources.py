"""What an agent on codes starts from: a new encoder, or what earlier runs left.

Those are the weights of an encoder, and transitions to learn codes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from gymnasium.spaces import Space
from torch import Generator, Tensor

from mbrl.agents.representing_config import RepresentingSchedule
from mbrl.data import Replay
from mbrl.encoders.autoencoder import Autoencoder
from mbrl.encoders.contrastive import Contrastive
from mbrl.encoders.images import Images, is_image
from mbrl.encoders.representation import Learned
from mbrl.encoders.self_prediction import SelfPrediction
from mbrl.encoders.vae import VAE
from mbrl.spaces import Vectors
from mbrl.types import Spec


def observations(space: Space, device: torch.device | str) -> Images | Vectors:
    """What turns observations into those that an encoder takes."""
    if is_image(space):
        return Images(space.shape or (), device=device)
    return Vectors(space, device=device)


def new_encoder(
    spec: Spec, config: RepresentingSchedule, *, saved: bool = False, generator: Generator
) -> Learned:
    """The encoder of the settings, with random weights or those of an earlier run.

    Args:
        spec: the environment.
        config: settings.
        saved: whether its weights are to be loaded, so that an earlier run is not read.
        generator: draws the weights.

    Raises:
        ValueError: no such run, or one of other observations or settings.
    """
    size = observations(spec.obs, "cpu").size
    shape = (size,) if isinstance(size, int) else size
    made: Learned
    if config.representation == "autoencoder":
        made = Autoencoder(shape, config.autoencoder, generator=generator)
    elif config.representation == "vae":
        made = VAE(shape, config.vae, generator=generator)
    elif config.representation == "contrastive":
        made = Contrastive(shape, config.contrastive, generator=generator)
    else:
        actions = int(np.prod(spec.action.shape or ()))
        made = SelfPrediction(shape, config.self_prediction, actions=actions, generator=generator)
    if config.encoder is not None and not saved:
        file, kind = _weights_of(config.encoder, "encoder"), config.representation
        found = _read(file, f"encoder/{kind}/")
        if not found:
            raise ValueError(f"encoder: {file} has no weights of the representation {kind}")
        put(made, found, f"encoder: {file}")
    return made


def saved(encoder: Learned, config: RepresentingSchedule) -> dict[str, Any]:
    """The weights of an encoder, by the name of its representation."""
    weights = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    return {config.representation: weights | {"shape": torch.tensor(encoder.shape)}}


def put(encoder: Learned, found: Mapping[str, Tensor], whose: str) -> None:
    """Give an encoder the weights that `saved` returned.

    Raises:
        ValueError: they are of other observations or settings.
    """
    shape = tuple(int(n) for n in found.get("shape", torch.zeros(0)))
    if shape != encoder.shape:
        raise ValueError(
            f"{whose} is of observations of the shape {shape}, these have {encoder.shape}"
        )
    own = encoder.state_dict()
    weights = {name: value for name, value in found.items() if name != "shape"}
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    if wrong or weights.keys() != own.keys():
        raise ValueError(f"{whose} is of other settings: latent, channels, layers or hidden differ")
    encoder.load_state_dict(weights)


def _weights_of(path: str, option: str) -> Path:
    """The file of tensors of a run's newest checkpoint, or the one that is named."""
    given = Path(path)
    found = [given] if given.is_file() else list(given.glob("checkpoints/*/model.safetensors"))
    if not found:
        raise ValueError(
            f"{option}: {path} is neither a run with a checkpoint nor a .safetensors file"
        )
    return max(found, key=lambda file: (file.parent.name.isdecimal(), file.stat().st_mtime))


def _read(file: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a file whose names have a prefix, without what is before and the prefix."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if f"/{prefix}" in f"/{name}"]  # noqa: SIM118
            return {name.split(prefix, 1)[1]: opened.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is no file of weights: {error}") from error


def transitions_of(
    spec: Spec, config: RepresentingSchedule, device: torch.device | str
) -> Replay | None:
    """The transitions that the replay buffer of the settings' run has, None for no run.

    With returns of n steps they are from an observation to the one n steps later.

    Raises:
        ValueError: no such run, or one of other observations or actions; transitions of several
            steps for a representation that predicts one.
    """
    if config.data is None:
        return None
    file = _weights_of(config.data, "data")
    # that of agents with a recurrent model is a part of what they save with it
    found: dict[str, Any] = _read(file, "replay/replay/") or _read(file, "replay/")
    if "rows" not in found:
        raise ValueError(f"data: {file} has no replay buffer")
    several = bool(_read(file, "window/kept/"))  # the rows then have a column more, the discount
    if several and config.representation == "self-prediction":
        raise ValueError(
            f"data: self-prediction learns from single steps, and {file} has returns of several"
        )
    inwards = observations(spec.obs, device)
    image, count = isinstance(inwards, Images), len(found["rows"])
    replay = Replay(
        max(1, count),
        inwards.size,
        tuple(spec.action.shape or ()),
        obs_dtype=torch.uint8 if image else torch.float32,
        distinct=image,
        device=device,
    )
    if several:
        found["rows"] = torch.cat((found["rows"][:, :-2], found["rows"][:, -1:]), -1)
    for name in ("priority", "last", "begun"):  # of prioritised and of hindsight replay
        found.pop(name, None)
    try:
        replay.load_state_dict(found | {"written": count})
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"data: the transitions of {file} are of other observations or actions: {error}"
        ) from error
    if not count:
        raise ValueError(f"data: the replay buffer of {file} is empty")
    return replay
