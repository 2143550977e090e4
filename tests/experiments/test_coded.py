"""Figures of learned codes, and runs from frames that cannot begin."""

import json

import mujoco
import numpy as np
import pytest
from PIL import Image

from envs import pixels
from experiments import plots
from experiments.cli.command import run
from experiments.plots.coded import linear_share, plane

SMALL = (
    "--env pc3-pendulum-swingup --steps 130 --learning-starts 100 --batch 8 --hidden 8 --threads 1"
)


def mbrl(*args: object) -> int:
    return run([str(arg) for arg in args])


def draws(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ("--autoencoder.channels 4 --autoencoder.layers 3",
         {"codes.png", "reconstructions.png", "return.png", "traversals.png"}),
        ("--variant self-prediction --training frozen --pretrain 5 --self-prediction.channels 4",
         {"codes.png", "return.png"}),
    ],
)  # fmt: skip
def test_plot_draws_what_codes_tell(tmp_path, capsys, options, drawn):
    path = tmp_path / "run"
    assert mbrl("train", "sac-ae", *SMALL.split(), *options.split(), "--run", path) == 0
    capsys.readouterr()
    assert mbrl("plot", path, "--episodes", 2, "--threads", 1, "--json") == 0
    out = capsys.readouterr()
    numbers = json.loads(out.out)[str(path)]
    assert {file.name for file in (path / "plots").glob("*.png")} == drawn
    for name in drawn:
        with Image.open(path / "plots" / name) as image:
            assert (np.asarray(image.convert("RGB")) != 255).any(2).mean() > 0.01
    assert len(numbers["code_state_r2"]) == 2 and 0 < numbers["code_plane_variance"] <= 1
    assert ("reconstruction_error" in numbers) == ("traversals.png" in drawn)
    if "traversals.png" not in drawn:
        assert "no decoder makes images of these codes" in out.err


def test_the_plane_is_that_of_the_greatest_variance():
    z = draws(0, 400, 5) * np.array([0.1, 3.0, 0.1, 2.0, 0.1]) + 7
    points, share = plane(z)
    assert share == pytest.approx(z.var(0)[[1, 3]].sum() / z.var(0).sum(), abs=0.01)
    assert abs(np.corrcoef(points[:, 0], z[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], z[:, 3])[0, 1]) > 0.99
    constant, none = plane(np.ones((4, 3)))
    assert none == 0 and not constant.any()


def test_the_linear_share_is_what_is_left_without_noise():
    """Of x, of x with noise of its own variance, of noise alone, and of a constant."""
    x, noise = draws(1, 4000, 3), draws(2, 4000, 2)
    z = x @ draws(3, 3, 8)
    states = np.column_stack((x[:, 0], x[:, 1] + noise[:, 0], noise[:, 1], np.ones(4000)))
    whole, half, none, constant = linear_share(z, states)
    assert whole == pytest.approx(1, abs=0.01) and half == pytest.approx(0.5, abs=0.05)
    assert none == pytest.approx(0, abs=0.02) and constant == 0


def test_a_grid_shows_each_picture_in_its_place():
    images = np.zeros((2, 3, 4, 4))
    images[1, 2] = 1
    figure = plots.image_grid("title", images, rows=("a", "b"), columns=("x", "y", "z"))
    shown = [np.asarray(ax.images[0].get_array()).mean() for ax in figure.axes]
    assert shown == [0, 0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="images: want 1 rows and any columns"):
        plots.image_grid("title", images, rows=("a",))
    with pytest.raises(ValueError, match="images: want 0 to 1, got 0 to 2"):
        plots.image_grid("title", 2 * images, rows=("a", "b"))
    with pytest.raises(ValueError, match=r"want points \(T, 2\) and colours \(T, 1\)"):
        plots.code_map(draws(0, 5, 2), draws(0, 4, 1), ["s"], share=1.0)


def test_without_opengl_a_run_from_frames_ends_in_one_line_and_leaves_no_folder(
    tmp_path, capsys, monkeypatch
):
    def broken(*args):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    for algo in ("sac-ae", "sac", "random"):
        where = ["--env", "cartpole-swingup-pixels", "--root", tmp_path / "runs"]
        assert mbrl("train", algo, *where) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--env cartpole-swingup-pixels: no OpenGL" in line and "libegl1" in line
        assert not (tmp_path / "runs").exists()


def test_a_camera_that_sees_nothing_is_named_before_there_is_a_folder(
    tmp_path, capsys, monkeypatch
):
    def blind(renderer, frames, name):
        raise ValueError(f"{name}: camera {renderer.cameras[0]!r} is inside the geom 'wall'")

    class Dark:
        cameras = ("side",)
        check_cameras = blind

        def __init__(self, *args):
            pass

        def frames(self, qpos, *others):
            return np.zeros((1, 1, 64, 64, 3), np.uint8)

        def close(self):
            pass

    monkeypatch.setattr(pixels, "FrameRenderer", Dark)
    where = ["--env", "cartpole-swingup-pixels", "--root", tmp_path / "runs"]
    assert mbrl("train", "sac-ae", *where) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cartpole-swingup-pixels: camera 'side' is inside the geom 'wall'" in line
    assert not (tmp_path / "runs").exists()
