"""Studies: each answers one question with figures, and with numbers and intervals over seeds.

`STUDIES[name](root, seeds=, workers=, fast=, say=)` runs one; see `lab.Study`. It writes to
`root/name`: `table.md` (and, if the study says its rows, `table.csv`), the PNG figures,
`results.json` (every number in them, settings, versions), `runs/` (as `mbrl train` writes them) and
`answers/` (the measurements of each run). Called again, it continues from these files.
"""

from collections.abc import Mapping

from experiments.studies import (
    acting,
    bandits,
    calibration,
    data_efficiency,
    decomposition,
    dyna,
    dyna_returns,
    dyna_savings,
    frontier,
    gradient_norm,
    guides,
    judo,
    learners,
    learners_returns,
    loops,
    model_bias,
    models,
    objectives,
    ood,
    overestimation,
    pc3,
    pets,
    pixel_returns,
    propagation,
    raw_targets,
    regression,
    risk,
    robots,
    rollout_bias,
    steve_chain,
    trees,
    two_rooms,
    versions,
    wrong_model,
)
from experiments.studies.lab import Study, study

STUDIES: Mapping[str, Study] = {
    "versions": study(versions.versions, seeds=5),
    "loops": study(loops.loops, seeds=5),
    "pets": study(pets.pets, seeds=5, choice=True),
    "propagation": study(propagation.propagation, seeds=1),
    "objectives": study(objectives.objectives, seeds=5, fast_seeds=2),
    "frontier": study(frontier.frontier, seeds=5),
    "gradient-norm": study(gradient_norm.gradient_norm, seeds=5, fast_seeds=2),
    "guides": study(guides.guides, seeds=3),
    "judo": study(judo.judo, seeds=10),
    "robots": study(robots.robots, seeds=10),
    "models": study(models.models, seeds=5),
    "bandits": study(bandits.bandits, seeds=1),
    "dyna": study(dyna.dyna, seeds=30, fast_seeds=2),
    "model-bias": study(model_bias.model_bias, seeds=5),
    "raw-targets": study(raw_targets.raw_targets, seeds=5),
    "wrong-model": study(wrong_model.wrong_model, seeds=5),
    "steve-chain": study(steve_chain.steve_chain, seeds=5),
    "acting": study(acting.acting, seeds=5, choice=True),
    "dyna-savings": study(dyna_savings.dyna_savings, seeds=5, choice=True),
    "dyna-returns": study(dyna_returns.dyna_returns, seeds=3, choice=True),
    "pixel-returns": study(pixel_returns.pixel_returns, seeds=3, choice=True),
    "rollout-bias": study(rollout_bias.rollout_bias, seeds=10, fast_seeds=2),
    "trees": study(trees.trees, seeds=10, fast_seeds=2),
    "overestimation": study(overestimation.overestimation, seeds=5, fast_seeds=2),
    "data-efficiency": study(data_efficiency.data_efficiency, seeds=5, choice=True),
    "decomposition": study(decomposition.decomposition, seeds=3, choice=True),
    "calibration": study(calibration.calibration, seeds=3, choice=True),
    "ood": study(ood.ood, seeds=3, choice=True),
    "regression": study(regression.regression, seeds=5, choice=True, data=True),
    "two-rooms": study(two_rooms.two_rooms, seeds=5),
    "pc3": study(pc3.pc3, seeds=10, choice=True),
    "risk": study(risk.risk, seeds=5, choice=True),
    "learners": study(learners.learners, seeds=1),
    "learners-returns": study(learners_returns.learners_returns, seeds=5, choice=True),
}
"""All studies by name."""

__all__ = ["STUDIES", "Study"]
