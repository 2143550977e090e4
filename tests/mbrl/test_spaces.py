import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

import envs
from mbrl.spaces import bounds, obs_size, random_actions, spec_of
from mbrl.training import vector


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_bounds_in_float32_lie_in_a_float64_box(start, width):
    """0.1 in float64 lies between two float32 numbers, of which one is outside the box."""
    space = Box(np.array([start]), np.array([start + width]), dtype=np.float64)
    low, high = bounds(space)
    assert low.dtype == high.dtype == torch.float32
    assert start <= float(low[0]) <= float(high[0]) <= start + width
    for bound, wanted in ((low, start), (high, start + width)):
        assert float(bound[0]) == pytest.approx(wanted, rel=2.4e-7, abs=1e-37)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Discrete(3), "a bounded box of actions, not Discrete"),
        (Box(-np.inf, 1, (2,)), "is unbounded"),
        (Box(-3e38, 3e38, (2,)), "too wide for float32"),
        (Box(-1e300, 1e300, (2,), np.float64), "too wide for float32"),
        (Box(0, 5, (2,), np.int64), "a box of real actions"),
        (Box(0, 1, (2, 2)), r"of shape \(A,\)"),
    ],
)
def test_spaces_that_no_planner_can_search_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        bounds(space)
    if isinstance(space, Box):
        with pytest.raises(ValueError, match=message):
            random_actions(space, 2, generator=torch.Generator())


def test_observations_that_are_not_vectors_are_refused():
    assert obs_size(Box(-1, 1, (7,))) == 7
    for space in (Discrete(3), Box(0, 255, (8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="observations that are a vector"):
            obs_size(space)


@pytest.mark.parametrize(
    "space",
    [Box(-2, 3, (2,)), Discrete(4), Discrete(4, start=-2), MultiDiscrete([2, 5], start=[1, 0])],
)
def test_random_actions_are_uniform_over_the_space(space):
    drawn = random_actions(space, 4000, generator=torch.Generator().manual_seed(0))
    assert all(space.contains(action) for action in drawn[:50])
    columns = drawn.reshape(4000, -1).T
    if isinstance(space, Box):
        assert np.allclose(columns.mean(1), 0.5, atol=4 * 5 / np.sqrt(12 * 4000))
        return
    for column in columns:
        _, counts = np.unique(column, return_counts=True)
        share = 1 / len(counts)
        assert np.allclose(counts / 4000, share, atol=4 * np.sqrt(share / 4000))


def test_random_actions_refuse_other_spaces():
    with pytest.raises(ValueError, match="bounded box or indices, not Text"):
        random_actions(gymnasium.spaces.Text(3), 1, generator=torch.Generator())


@pytest.mark.parametrize("wrap", [lambda env: env, vector])
def test_the_spec_of_an_environment_has_its_known_functions(wrap):
    """The library's environments have known functions, however they are made."""
    known = envs.known("cartpole-swingup")
    for env in (envs.make("cartpole-swingup"), gymnasium.make("cartpole-swingup")):
        spec = spec_of(wrap(env))
        assert spec.reward is known.reward and spec.terminated is None and not spec.ends
        assert spec.episode_steps == 150 and spec.obs.shape == (5,) and spec.action.shape == (1,)
    falls = spec_of(wrap(envs.make("Hopper-v5")))
    assert falls.reward is None and falls.terminated is not None and not falls.ends
    strange = spec_of(wrap(gymnasium.make("Hopper-v5")))
    assert strange.reward is None and strange.terminated is None and strange.ends

    def reward(obs, action, next_obs):
        return obs[..., 0]

    told = spec_of(wrap(gymnasium.make("Hopper-v5")), reward=reward, terminated=falls.terminated)
    assert told.reward is reward and told.terminated is falls.terminated and not told.ends
