"""Samples are drawn on the device of their generator, as CUDA needs it."""

import pytest
import torch

from mbrl.dynamics.table import MODELS, model_config
from mbrl.types import Resampled, Transition

DRAWS = ("rand", "randn", "randint", "randperm")
SMALL = {
    "hidden": (8,), "members": 2, "samples": 2, "epochs": 1, "chains": 2, "steps": 2, "burn_in": 1,
    "draws": 4, "cycles": 2, "networks": 2,
}  # fmt: skip

FIXED = ("ensemble", "normed-ensemble", "anchored", "conditional-vae")
"""Models whose members are not drawn."""


def small(name):
    config = model_config(name, MODELS["ensemble"]())
    own = {key: value for key, value in SMALL.items() if hasattr(config, key)}
    return type(config)(**own)


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_a_model_are_drawn_where_the_generator_is(name, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    config = small(name)
    model = config.make(2, 1, generator=generator)
    none = torch.zeros(40, dtype=torch.bool)
    obs, action = torch.randn(40, 2), torch.randn(40, 1)
    model.fit(Transition(obs, action, obs[:, 0], obs + 0.1, none, none), generator=generator)
    asked = []

    def watched(draw):
        def drawn(*args, **kwargs):
            if kwargs.get("generator") is not None:
                asked.append(kwargs.get("device"))
            return draw(*args, **kwargs)

        return drawn

    for draw in DRAWS:
        monkeypatch.setattr(torch, draw, watched(getattr(torch, draw)))
    if isinstance(model, Resampled):
        model.resample(generator=generator)
    assert bool(asked) is (name not in FIXED)
    assert None not in asked
