"""Films of recorded actions."""

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from envs.video import SIZE
from experiments.plots.film import film, film_or_tell
from mbrl.rng import episode_seed


class Fading(gymnasium.Env):
    """Renders its brightness, to which actions add."""

    observation_space = gymnasium.spaces.Box(0, 255, (1,))
    action_space = gymnasium.spaces.Box(0, 100, (1,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode, self.size = render_mode, (60, 40)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = np.float32(seed % 100)
        return np.array([self.level]), {}

    def step(self, action):
        self.level += action[0]
        return np.array([self.level]), float(action[0]), False, False, {}

    def render(self):
        width, height = self.size
        return np.full((height, width, 3), self.level, np.uint8)


class Sized(Fading):
    def __init__(self, render_mode=None, width=0, height=0):
        super().__init__(render_mode)
        self.size = width, height


@pytest.mark.parametrize(
    ("kind", "size"),
    [(Fading, (60, 40)), (Sized, (SIZE["width"], SIZE["height"]))],
)
def test_a_film_replays_the_actions_at_the_size_the_environment_takes(kind, size, tmp_path):
    name = f"{kind.__name__}-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, kind)
    actions = np.full((5, 1), 20, np.float32)
    path = tmp_path / "new" / "a.mp4"
    assert film(name, actions, path, seed=40) == 100.0
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    frames = np.stack([np.frombuffer(f, np.uint8).reshape(*size[::-1], 3) for f in reader])
    assert meta["size"] == size and meta["fps"] == 10 and len(frames) == 5
    first = episode_seed(40, 0) % 100
    top = frames[:, :10]  # the captions are at the bottom
    np.testing.assert_allclose(top.mean((1, 2, 3)), first + 20 * np.arange(1, 6), atol=4)
    assert Image.open(path.with_suffix(".png")).size[0] <= 1600
    with pytest.raises(ValueError, match="frames: are none"):
        film(name, [], tmp_path / "none.mp4", seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_actions_that_were_taken_for_several_steps_are_filmed_so(tmp_path):
    if "Fading-v0" not in gymnasium.registry:
        gymnasium.register("Fading-v0", Fading)
    path, actions = tmp_path / "a.mp4", np.full((5, 1), 4, np.float32)
    assert film("Fading-v0", actions, path, seed=40, action_repeat=3) == 60.0
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["fps"] == 3  # of the environment 10
    frames = np.stack([np.frombuffer(f, np.uint8).reshape(40, 60, 3) for f in reader])
    first = episode_seed(40, 0) % 100
    np.testing.assert_allclose(frames[:, :10].mean((1, 2, 3)), first + 12 * np.arange(1, 6), atol=4)


def test_a_film_of_another_episode_than_the_one_that_was_played_is_told(tmp_path):
    if "Fading-v0" not in gymnasium.registry:
        gymnasium.register("Fading-v0", Fading)
    actions, said = np.full((5, 1), 4, np.float32), []
    for earned in (20.0, 60.0):
        path = tmp_path / f"{earned}.mp4"
        assert film_or_tell("Fading-v0", actions, path, seed=40, tell=said.append, earned=earned)
    assert said[0].startswith("video") and said[1].startswith("video") and len(said) == 3
    assert "returned 20.0 for the same actions, not 60.0" in said[2]
