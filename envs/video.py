"""Videos and contact sheets of episodes, from frames (h, w, 3) of uint8.

Needs imageio-ffmpeg and pillow; `envs` itself does not import this module.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from typing import IO

import gymnasium
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.registry import make

Frame = NDArray[np.uint8]

SIZE = {"width": 480, "height": 272}
"""Width and height of a film in pixels, even because H.264 needs even sizes."""


class VideoError(RuntimeError):
    """The encoder is missing or failed; the message is one line."""


def make_filmed(env_id: str, *, action_repeat: int = 1) -> gymnasium.Env:
    """The environment with frames of `SIZE`, or of its own size if that cannot be set.

    Raises what `envs.make` raises.
    """
    try:
        return make(env_id, render_mode="rgb_array", action_repeat=action_repeat, **SIZE)
    except ValueError:  # its constructor has no width and height
        return make(env_id, render_mode="rgb_array", action_repeat=action_repeat)


def write_film(
    frames: Sequence[Frame], returns: Sequence[float], path: str | Path, *, fps: float
) -> Path:
    """Write an episode as an mp4, and eight of its frames as a .png with the same name.

    Each frame (h, w, 3) has its step and the return so far, from `returns`, as a caption. Raises
    what `write_video` raises.
    """
    path = Path(path)
    captions = [f"step {t}   return {total:.1f}" for t, total in enumerate(returns, 1)]
    write_video(frames, path, fps, captions=captions)
    shown = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
    contact_sheet(
        [frames[i] for i in shown],
        path.with_suffix(".png"),
        4,
        rows=2,
        captions=[captions[i] for i in shown],
    )
    return path


def write_video(
    frames: Iterable[Frame],
    path: str | Path,
    fps: float,
    *,
    captions: Iterable[str] | None = None,
) -> Path:
    """Encode frames (h, w, 3) uint8 as H.264 in an .mp4 that any browser plays; returns the path.

    Frames are taken one at a time and not kept. `captions` gives each frame a line, written at
    its lower left ("step 40, return 31.2"); it must not end before the frames do. H.264 needs
    even sides: an odd one is lengthened by repeating its last line of pixels. Raises VideoError
    if the encoder is missing or fails, ValueError for another suffix, no frames, frames of another
    type or size, too few captions, or a frame rate that is not positive. `path` is then unchanged.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"path: want a name ending in .mp4, got {path.name!r}")
    if not fps > 0:
        raise ValueError(f"fps: want more than 0, got {fps}")
    supply = iter(frames)
    first = next(supply, None)
    if first is None:
        raise ValueError("frames: are none; want at least one")
    height, width = _checked(first, None).shape[:2]
    lines = repeat(None) if captions is None else captions
    with _replacing(path) as temporary, tempfile.TemporaryFile() as errors:
        encoder = _encoder(width + width % 2, height + height % 2, fps, temporary, errors)
        assert encoder.stdin is not None
        try:
            pairs = zip(chain([first], supply), _never_ending(lines), strict=False)
            for frame, line in pairs:
                picture = _checked(frame, first.shape)
                if line is not None:
                    picture = _captioned(picture, line)
                padding = (0, height % 2), (0, width % 2), (0, 0)
                encoder.stdin.write(np.pad(picture, padding, mode="edge").tobytes())
            encoder.stdin.close()
            status = encoder.wait()
        except BrokenPipeError:  # the encoder ended first, with a reason on its stderr
            status = encoder.wait()
        finally:
            if encoder.poll() is None:
                encoder.kill()
                encoder.wait()
            with suppress(BrokenPipeError):
                encoder.stdin.close()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        if status != 0:
            raise VideoError(
                f"the video encoder failed on {path.name} with status {status}: "
                f"{said[-1] if said else 'it gave no reason'}"
            )
    return path


def contact_sheet(
    frames: Sequence[Frame],
    path: str | Path,
    columns: int,
    *,
    rows: int = 1,
    captions: Sequence[str] | None = None,
    width: int = 1600,
) -> Path:
    """One PNG of rows × columns frames, evenly spaced from the first to the last, for a README.

    It reads left to right, then down. `captions` has a line for every frame, which is written on it
    if it is chosen. The sheet is `width` pixels wide, or less if frames would have to be
    enlarged. With fewer frames than places, each appears once. Raises ValueError for no frames,
    frames of another type or size, another number of captions, or less than one column or row.
    """
    if columns < 1 or rows < 1:
        raise ValueError(f"columns, rows: want at least 1, got {columns} and {rows}")
    if len(frames) == 0:
        raise ValueError("frames: are none; want at least one")
    if captions is not None and len(captions) != len(frames):
        raise ValueError(
            f"captions: want one for each of {len(frames)} frames, got {len(captions)}"
        )
    places = min(rows * columns, len(frames))
    chosen = np.linspace(0, len(frames) - 1, places).round().astype(int)
    shape = _checked(frames[0], None).shape
    gap = 6
    columns = min(columns, places)
    tile_w = min(shape[1], (width - gap * (columns - 1)) // columns)
    tile_h = round(shape[0] * tile_w / shape[1])
    size = (columns * (tile_w + gap) - gap, -(-places // columns) * (tile_h + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for place, i in enumerate(map(int, chosen)):
        tile = Image.fromarray(_checked(frames[i], shape))
        tile = tile.resize((tile_w, tile_h), Image.Resampling.LANCZOS)
        if captions is not None:
            tile = Image.fromarray(_captioned(np.asarray(tile), captions[i]))
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * (tile_w + gap), row * (tile_h + gap)))
    with _replacing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return Path(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` if the block does not raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _encoder(
    width: int, height: int, fps: float, path: Path, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    no_encoder = "no video encoder found: reinstall imageio-ffmpeg, or install ffmpeg"
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise VideoError(no_encoder) from None
    command = [
        program,
        "-y",
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        f"{fps:g}",
        "-i",
        "-",
        "-an",
        # 4:2:0 is what browsers decode; faststart lets them play before the end has loaded.
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-crf",
        "20",
        "-movflags",
        "+faststart",
        str(path),
    ]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
        )
    except OSError as error:
        raise VideoError(f"{no_encoder} ({error.strerror})") from None


def _never_ending(captions: Iterable[str | None]) -> Iterable[str | None]:
    """The captions; raises ValueError when another one is asked for after the last."""
    yield from captions
    raise ValueError("captions: ended before the frames did; want one for each")


def _checked(frame: Frame, shape: tuple[int, ...] | None) -> Frame:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"frames: want (h, w, 3) of uint8, got {frame.shape} of {frame.dtype}")
    if shape is not None and frame.shape != shape:
        raise ValueError(f"frames: want all of the first one's shape {shape}, got {frame.shape}")
    return frame


def _captioned(frame: Frame, line: str) -> Frame:
    """The frame with the line in white on a dark box at the lower left."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(9, round(0.045 * image.height))
    font = ImageFont.load_default(size)
    # The box's height is the font's, as the height of the text changes from frame to frame.
    ascent = round(0.95 * size)
    pad, margin = round(0.4 * size), round(0.6 * size)
    right = margin + 2 * pad + round(draw.textlength(line, font=font))
    bottom = image.height - margin
    top = bottom - 2 * pad - round(1.2 * size)
    draw.rectangle((margin, top, right, bottom), fill=(20, 20, 20, 165))
    draw.text((margin + pad, top + pad + ascent), line, font=font, fill="white", anchor="ls")
    return np.asarray(image)
