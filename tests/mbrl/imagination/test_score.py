"""The score of a plan, also for models that diverge; it is a pure function."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.imagination import propagation as module
from mbrl.imagination import rollout, score_fn
from planners import PLANNERS
from tests.lines import PROPAGATIONS, Bad, Line, plans, seeded, spring, start

# Models that diverge


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["state", "reward"])
def test_a_candidate_that_is_not_finite_scores_minus_infinity(propagation, value, what):
    model = Bad(wall=2.5, value=value, what=what)
    score = score_fn(model, start(), particles=2, horizon=3, propagation=propagation,
                     generator=seeded())  # fmt: skip
    assert score(plans([1.0] * 3, [0.5] * 3, [9.0, 0, 0])).tolist() == [-math.inf, 3.0, -math.inf]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_not_finite_is_rejected_even_if_the_reward_is_finite(value):
    model = Bad(wall=2.5, value=value)
    score = score_fn(model, start(), particles=2, horizon=1, generator=seeded(),
                     reward=lambda obs, action, next_obs: torch.ones_like(obs[..., 0]))  # fmt: skip
    assert score(plans([3.0], [0.5])).tolist() == [-math.inf, 1.0]


def test_one_particle_that_is_not_finite_rejects_the_candidate():
    """One of three members diverges by squaring; the returns of the others must not hide it."""
    model = Line([1.0, 1.0, 1e30], dtype=torch.float32)
    for name in ("mean", "cvar:0.3", "mean+std:1"):
        score = score_fn(model, tensor([1.0]), particles=3, horizon=3, objective=name,
                         generator=seeded())  # fmt: skip
        assert score(plans([0.0] * 3).float()).item() == -math.inf


def test_actions_that_are_not_finite_score_minus_infinity():
    score = score_fn(Line([1.0]), start(), particles=1, horizon=2, generator=seeded())
    assert score(plans([math.nan, 0.0], [math.inf, 0.0])).tolist() == [-math.inf] * 2


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_planner_chooses_a_plan_whose_state_is_not_finite(planner, value):
    """The highest rewards are just beyond the wall, where the state is not finite."""
    model = Bad(wall=0.5, value=value)
    score = score_fn(model, start(), particles=2, horizon=4, generator=seeded())
    search = planner(start(-1.0), start(1.0), 4, population=200)
    plan = search.plan(score, None, generator=seeded())
    assert plan.rejected > 0
    assert plan.score.isfinite()
    assert plan.actions.cumsum(0).max() <= 0.5


# A pure function


@pytest.fixture(scope="module")
def net():
    """A new ensemble, with some disagreement and noise."""
    model = Ensemble(3, 2, EnsembleConfig(members=4, hidden=(16, 16)), generator=seeded())
    with torch.no_grad():
        model.heads.max_log_var.fill_(-3.0)
    return model


def net_score(net, propagation="tsinf", seed=1, **kwargs):
    return score_fn(net, tensor([0.1, -0.2, 0.3]), particles=8, horizon=6, generator=seeded(seed),
                    propagation=propagation, reward=spring, **kwargs)  # fmt: skip


def candidates(count, seed=2):
    return 2 * torch.rand(count, 6, 2, generator=seeded(seed)) - 1


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_the_same_actions_score_the_same_to_the_bit(net, propagation):
    score, actions = net_score(net, propagation), candidates(40)
    kept = actions.clone()
    first = score(actions)
    assert first.shape == (40,) and first.isfinite().all() and first.std() > 0
    assert torch.equal(first, score(actions))
    assert torch.equal(actions, kept)
    assert torch.equal(first, net_score(net, propagation)(actions))
    if propagation != "expectation":
        assert not torch.equal(first, net_score(net, propagation, seed=3)(actions))


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_scores_do_not_depend_on_the_other_candidates(net, propagation):
    """Moment matching refits across particles, but not across candidates."""
    score, actions = net_score(net, propagation), candidates(40)
    together = score(actions)
    alone = torch.cat([score(actions[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(score(actions[7:19]), together[7:19], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_scores_do_not_depend_on_the_size_of_the_blocks(net, propagation, monkeypatch):
    score, actions = net_score(net, propagation), candidates(40)
    whole = score(actions)
    for rows, split in ((1, 10**9), (7, 10**9), (10**9, 1), (10**9, 10**9)):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
        monkeypatch.setattr(module, "SPLIT_ROWS", split)
        torch.testing.assert_close(score(actions), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_scores_do_not_depend_on_the_number_of_threads(net, propagation, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    before = torch.get_num_threads()
    actions, results = candidates(60), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            scores = net_score(net, propagation)(actions)
            imagined = rollout(net, torch.zeros(3), actions, particles=8, propagation=propagation,
                               reward=spring, generator=seeded())  # fmt: skip
            results.append((scores, imagined.state, imagined.reward))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), propagation=st.sampled_from(PROPAGATIONS), count=st.integers(1, 30))
def test_permuting_candidates_permutes_scores(data, propagation, count):
    model = Line([1.0, 0.9, 1.1], sigma=0.1, ends_above=1.0)
    score = score_fn(model, start(0.2), particles=6, horizon=6, propagation=propagation,
                     objective="cvar:0.4", generator=seeded())  # fmt: skip
    order = tensor(data.draw(st.permutations(range(count))))
    actions = candidates(count)[..., :1].double()
    torch.testing.assert_close(score(actions[order]), score(actions)[order], rtol=1e-9, atol=1e-9)


def test_scoring_draws_nothing_from_the_global_stream(net):
    before = torch.get_rng_state()
    net_score(net, "ts1")(candidates(3))
    rollout(net, torch.zeros(3), candidates(3), particles=4, reward=spring, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())
