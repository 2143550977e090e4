"""Pictures of circles, capsules, boxes and half-planes in a plane, many at once, without OpenGL.

A shape is the array of its signed distances in pixels, negative inside, at the centres of all
pixels; `paint` covers a background with shapes. All of it is in array-API style: numpy, or torch on
any device. Points are (x, y) in pixels from the upper left corner, y downwards, so the centre of
pixel [0, 0] is (1/2, 1/2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from envs.task import Array


class Grid(NamedTuple):
    """The centres of the pixels of a frame."""

    height: int
    width: int

    def offsets(self, point: Array) -> tuple[Array, Array]:
        """From points (..., 2): x to each column (..., 1, W), and y to each row (..., H, 1)."""
        xp = array_namespace(point)
        kind = {"dtype": point.dtype, "device": device(point)}
        columns = xp.arange(self.width, **kind) + 0.5
        rows = xp.arange(self.height, **kind) + 0.5
        return (
            (columns - point[..., 0, None])[..., None, :],
            (rows - point[..., 1, None])[..., :, None],
        )


def circle(grid: Grid, centre: Array, radius: float | Array) -> Array:
    """Signed distances (..., H, W) of circles: centres (..., 2), radii (...) or one number."""
    xp = array_namespace(centre)
    x, y = grid.offsets(centre)
    distance = xp.sqrt(x * x + y * y)
    distance -= _per_frame(radius)
    return distance


def capsule(grid: Grid, start: Array, end: Array, radius: float | Array) -> Array:
    """Signed distances (..., H, W) of lines with round ends.

    Args:
        grid: the pixels.
        start: (..., 2), one end of the line.
        end: (..., 2), the other, which may be the same point.
        radius: (...) or one number, half the line's width.
    """
    xp = array_namespace(start)
    x, y = grid.offsets(start)
    line = end - start
    length = xp.sqrt(xp.sum(line * line, axis=-1))[..., None, None]
    point = length == 0
    scale = xp.where(point, xp.ones_like(length), length)
    cos = xp.where(point, xp.ones_like(length), line[..., 0, None, None] / scale)
    sin = line[..., 1, None, None] / scale
    # Each of these is a sum of a row and a column: one operation a pixel.
    half = length / 2
    along = x * cos + (y * sin - half)
    across = y * cos - x * sin
    beyond = xp.abs(along)
    beyond -= half
    beyond = xp.maximum(beyond, xp.zeros_like(half))
    beyond *= beyond
    across *= across
    beyond += across
    distance = xp.sqrt(beyond)
    distance -= _per_frame(radius)
    return distance


def box(grid: Grid, centre: Array, half: tuple[float, float], angle: Array | None = None) -> Array:
    """Signed distances (..., H, W) of boxes; beyond a corner that of the farther side's line.

    Args:
        grid: the pixels.
        centre: (..., 2).
        half: half the box's extent along its own x and y.
        angle: (...), rad, by which it is turned from x towards y; None: not at all.
    """
    xp = array_namespace(centre)
    x, y = grid.offsets(centre)
    if angle is not None:
        cos, sin = xp.cos(angle)[..., None, None], xp.sin(angle)[..., None, None]
        x, y = x * cos + y * sin, y * cos - x * sin
    return xp.maximum(xp.abs(x) - half[0], xp.abs(y) - half[1])


def half_plane(grid: Grid, point: Array, outwards: tuple[float, float]) -> Array:
    """Signed distances (..., H, W) of half-planes.

    Args:
        grid: the pixels.
        point: (..., 2), on the edge.
        outwards: a vector at a right angle to the edge that points out of the half-plane.
    """
    x, y = grid.offsets(point)
    norm = math.hypot(*outwards)
    return x * (outwards[0] / norm) + y * (outwards[1] / norm)


def paint(background: Array, layers: Sequence[tuple[Array, float | Sequence[float]]]) -> Array:
    """Frames (..., H, W), or (..., H, W, 3), of uint8: a background covered by shapes.

    Args:
        background: (H, W) or (H, W, 3), in 0..255 and of the shapes' dtype; or (..., H, W[, 3]).
        layers: signed distances (..., H, W) and the colour, 0..255, of each shape, from the
            lowest to the highest. A colour is a number, or three where the background has three.

    A pixel is covered in proportion to 1/2 - distance, within 0 and 1, so edges are anti-aliased.
    Over the pixels that it touches, the cover of a shape of more than 3 pixels differs from the
    exact one by less than 4 % on average, and by less than a quarter at corners.
    """
    xp = array_namespace(background, *[distance for distance, _ in layers])
    frame = background
    for distance, colour in layers:
        cover = xp.clip(0.5 - distance, min=0.0, max=1.0)
        if isinstance(colour, Sequence):
            cover = cover[..., None]
            colour = xp.asarray(colour, dtype=cover.dtype, device=device(cover))
        change = colour - frame
        if np.broadcast_shapes(cover.shape, change.shape) == tuple(cover.shape):
            # in place, which is faster by a third
            cover *= change
            cover += frame
            frame = cover
        else:
            frame = frame + cover * change
    return xp.astype(frame + 0.5, xp.uint8)


BLOCK = 1 << 18
"""Pixels that are painted at once on the CPU: the fastest of several on one machine."""


def in_blocks(picture: Callable[[Array], Array], state: Array, pixels: int) -> Array:
    """`picture(state)` for states (N, ...), computed in blocks of states that suit the device.

    `pixels` is the number of pixels of a frame.
    """
    xp = array_namespace(state)
    rows = max(1, (BLOCK if "cpu" in str(device(state)) else BLOCK << 8) // pixels)
    if len(state) <= rows:
        return picture(state)
    starts = range(0, len(state), rows)
    return xp.concat([picture(state[start : start + rows]) for start in starts], axis=0)


def _per_frame(radius: float | Array) -> float | Array:
    return radius if isinstance(radius, int | float) else radius[..., None, None]
