"""Films of recorded actions."""

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from envs.video import SIZE
from experiments.plots.film import film
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
    path = film(name, actions, tmp_path / "new" / "a.mp4", seed=40)
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
