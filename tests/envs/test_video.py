from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from envs.video import VideoError, contact_sheet, write_video

FLOATS: Any = [np.zeros((4, 4, 3))]


def grey(values, height=48, width=64):
    """Frames, each of one shade of grey."""
    return [np.full((height, width, 3), v, np.uint8) for v in values]


def read(path):
    """Metadata and frames (T, h, w, 3) of a video."""
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]
    return meta, np.stack(frames)


def test_a_written_video_is_read_back(tmp_path):
    path = write_video(iter(grey(range(0, 240, 20))), tmp_path / "new" / "a.mp4", fps=25)
    meta, frames = read(path)
    assert frames.shape == (12, 48, 64, 3)
    assert meta["fps"] == 25 and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    np.testing.assert_allclose(frames.mean((1, 2, 3)), range(0, 240, 20), atol=4)
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_odd_sides_are_padded_to_even(tmp_path):
    _, frames = read(write_video(grey([200] * 3, 33, 47), tmp_path / "a.mp4", fps=10))
    assert frames.shape == (3, 34, 48, 3)
    np.testing.assert_allclose(frames, 200, atol=4)


def test_captions_are_drawn_at_the_lower_left(tmp_path):
    frames = grey([128] * 3, 120, 160)
    path = write_video(frames, tmp_path / "a.mp4", 10, captions=["return 1", "return 2", "r"])
    _, read_back = read(path)
    lower = read_back[:, 100:, :80].astype(int)
    assert lower[0].min() < 90 and lower[0].max() > 200  # the dark box and the white letters
    assert np.abs(lower[0] - lower[1]).max() > 60  # the captions differ
    np.testing.assert_allclose(read_back[:, :90], 128, atol=6)
    np.testing.assert_array_equal(frames[0], 128)  # the frames were copied


def test_a_contact_sheet_shows_evenly_spaced_frames(tmp_path):
    path = contact_sheet(grey(range(101)), tmp_path / "a.png", 3, rows=2, width=204)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (3 * 64 + 2 * 6, 2 * 48 + 6)
        pixels = np.asarray(image)
    centres = pixels[24::54, 32::70, 0]
    np.testing.assert_array_equal(centres, [[0, 20, 40], [60, 80, 100]])


def test_a_contact_sheet_fits_its_width_and_repeats_no_frame(tmp_path):
    frames = grey([10, 250], 400, 600)
    path = contact_sheet(frames, tmp_path / "a.png", 5, width=306, captions=["a", "b"])
    with Image.open(path) as image:
        assert image.size == (306, 100)


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda p: write_video([], p, 25), "frames: are none"),
        (lambda p: write_video(grey([1]), p, 0), "fps: want more than 0"),
        (lambda p: write_video(grey([1]), p.with_suffix(".gif"), 25), "ending in .mp4"),
        (lambda p: write_video(FLOATS, p, 25), "uint8, got .* float64"),
        (lambda p: write_video(grey([1]) + grey([1], 20), p, 25), r"first one's shape \(48, 64"),
        (lambda p: write_video(grey([1, 2]), p, 25, captions=["a"]), "captions: ended before"),
        (lambda p: contact_sheet([], p, 3), "frames: are none"),
        (lambda p: contact_sheet(grey([1]), p, 0), "columns, rows: want at least 1, got 0"),
        (lambda p: contact_sheet(grey([1]), p, 1, captions=[]), "captions: want one for each"),
    ],
)
def test_bad_input_is_refused_by_name_and_the_old_file_kept(call, culprit, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(ValueError, match=culprit):
        call(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "#!/bin/sh\necho loading >&2\necho 'Unknown encoder libx264' >&2\nexit 1\n",
            "status 1: Unknown encoder libx264",
        ),
        ("#!/bin/sh\ncat > /dev/null\nexit 3\n", "status 3: it gave no reason"),
        (None, "no video encoder found"),
    ],
)
def test_a_failing_encoder_raises_an_error_of_one_line(script, message, tmp_path, monkeypatch):
    encoder = tmp_path / "ffmpeg"
    if script is not None:
        encoder.write_text(script)
        encoder.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
    with pytest.raises(VideoError, match=message) as caught:
        write_video(grey([1] * 50, 480, 640), tmp_path / "out" / "a.mp4", 25)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_an_environment_that_fails_leaves_no_video(tmp_path):
    def frames():
        yield from grey([1, 2])
        raise ArithmeticError("simulation diverged")

    with pytest.raises(ArithmeticError):
        write_video(frames(), tmp_path / "a.mp4", 25)
    assert not list(tmp_path.iterdir())
