"""The library's learned models by name. No torch is imported, so the command's help is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mbrl.dynamics import bayesian_configs as bayesian
from mbrl.dynamics.configs import ConditionalConfig, EnsembleConfig, NormedEnsembleConfig

ModelConfig = (
    EnsembleConfig
    | NormedEnsembleConfig
    | bayesian.AnchoredConfig
    | bayesian.BayesByBackpropConfig
    | bayesian.DropoutConfig
    | bayesian.GPConfig
    | bayesian.LangevinConfig
    | bayesian.LaplaceConfig
    | bayesian.SgmcmcConfig
    | bayesian.SwagConfig
    | ConditionalConfig
)
"""Settings of any of them."""

MODELS: Mapping[str, type[ModelConfig]] = {
    "ensemble": EnsembleConfig,
    "normed-ensemble": NormedEnsembleConfig,
    "anchored": bayesian.AnchoredConfig,
    "bayes-by-backprop": bayesian.BayesByBackpropConfig,
    "dropout": bayesian.DropoutConfig,
    "gp": bayesian.GPConfig,
    "langevin": bayesian.LangevinConfig,
    "laplace": bayesian.LaplaceConfig,
    "sgmcmc": bayesian.SgmcmcConfig,
    "swag": bayesian.SwagConfig,
    "conditional-vae": ConditionalConfig,
}

OWN = ("bootstrap", "epochs", "patience", "improvement", "stop", "optimiser", "row_weights")
"""Settings of a fit that suit one kind of model; in another kind they have its own defaults."""


MORE: Mapping[str, tuple[str, ...]] = {
    "langevin": ("hidden", "activation"),
    "conditional-vae": ("homoscedastic",),
}
"""Further ones, by kind."""


def model_config(name: str, like: Any) -> ModelConfig:
    """Settings of another kind of model, which keep what both kinds have: sizes, heads, scaling.

    Args:
        name: one of `MODELS`.
        like: settings of any model.

    Raises:
        ValueError: values of `like` that this kind refuses.
    """
    kind = MODELS[name]
    if type(like) is kind:
        return like
    own = {*OWN, *MORE.get(name, ())}
    names = {field.name for field in fields(kind)} - own
    if not issubclass(kind, EnsembleConfig):
        names -= {"elites"}  # samples are not ranked
    kept = {f.name: getattr(like, f.name) for f in fields(like) if f.name in names}
    return kind(**kept)
