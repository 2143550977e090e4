"""Pictures of shapes, compared with Pillow's drawing at 16 times the size."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from envs import raster
from envs.raster import Grid, box, capsule, circle, half_plane, in_blocks, paint

GRID = Grid(24, 32)
FINE = 16


def by_pillow(draw):
    """The picture that `draw(pen, scale)` draws on a fine grid, averaged over pixels."""
    image = Image.new("L", (GRID.width * FINE, GRID.height * FINE))
    draw(ImageDraw.Draw(image), FINE)
    fine = np.asarray(image, np.float64).reshape(GRID.height, FINE, GRID.width, FINE)
    return fine.mean((1, 3))


def drawn(distance):
    return paint(np.zeros((GRID.height, GRID.width), np.float32), [(distance, 255.0)])


def disc(pen, s, x, y, r):
    pen.ellipse(((x - r) * s, (y - r) * s, (x + r) * s - 1, (y + r) * s - 1), fill=255)


def polygon(pen, s, corners):
    pen.polygon([(x * s - 0.5, y * s - 0.5) for x, y in corners], fill=255)


def turned(centre, half, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(a * half[0], b * half[1]) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [(centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos) for u, v in corners]


def strip(start, end, radius):
    """Corners of a capsule's straight part."""
    length = math.dist(start, end)
    u, v = (end[0] - start[0]) / length * radius, (end[1] - start[1]) / length * radius
    (a, b), (c, d) = start, end
    return [(a - v, b + u), (c - v, d + u), (c + v, d - u), (a + v, b - u)]


@pytest.mark.parametrize("seed", range(4))
def test_shapes_are_those_that_pillow_draws(seed):
    draw = np.random.default_rng(seed)
    x, y, u, v = (float(value) for value in draw.uniform(6, 18, 4))
    radius, angle = float(draw.uniform(1.5, 4)), float(draw.uniform(0, 2 * math.pi))
    half = (radius + 1, 2.0)
    point, other = np.float32([x, y]), np.float32([u, v])

    def both(pen, s):
        polygon(pen, s, strip((x, y), (u, v), radius))
        disc(pen, s, x, y, radius)
        disc(pen, s, u, v, radius)

    def below(pen, s):
        far = 100
        out = math.cos(angle), math.sin(angle)
        along = -out[1], out[0]
        ends = [(x + k * far * along[0], y + k * far * along[1]) for k in (-1, 1)]
        back = [(a - far * out[0], b - far * out[1]) for a, b in reversed(ends)]
        polygon(pen, s, [*ends, *back])

    cases = {
        "circle": (circle(GRID, point, radius), lambda pen, s: disc(pen, s, x, y, radius)),
        "capsule": (capsule(GRID, point, other, radius), both),
        "box": (
            box(GRID, point, half, np.float32(angle)),
            lambda pen, s: polygon(pen, s, turned((x, y), half, angle)),
        ),
        "half-plane": (half_plane(GRID, point, (math.cos(angle), math.sin(angle))), below),
    }
    for name, (distance, draws) in cases.items():
        wrong = np.abs(drawn(distance) - by_pillow(draws))
        touched = by_pillow(draws) > 0
        assert touched.sum() > 8, name
        # what `paint` says of its accuracy: 4 % and a quarter of 255
        assert wrong[touched].mean() < 0.04 * 255 and wrong.max() < 255 / 4, name


def test_a_box_along_the_axes_covers_pixels_in_proportion():
    frame = drawn(box(GRID, np.float32([4.25, 3.0]), (1.5, 1.0)))  # x from 2.75 to 5.75
    assert frame[2, 1:7].tolist() == [0, 64, 255, 255, 191, 0]
    assert frame[[1, 4]].max() == 0


def test_a_capsule_of_no_length_is_a_circle():
    point = np.float32([[7.3, 8.1], [20.0, 4.5]])
    np.testing.assert_allclose(
        capsule(GRID, point, point, 2.0), circle(GRID, point, 2.0), rtol=1e-6
    )


def test_distances_have_the_leading_dimensions_of_points_and_radii():
    draw = np.random.default_rng(0)
    start, end = draw.uniform(0, 24, (2, 5, 3, 2))
    radius = draw.uniform(1, 3, (5, 3))
    many = capsule(GRID, start, end, radius)
    assert many.shape == (5, 3, 24, 32)
    assert np.array_equal(many[4, 1], capsule(GRID, start[4, 1], end[4, 1], radius[4, 1]))


def test_torch_draws_the_same():
    points = np.random.default_rng(1).uniform(4, 20, (6, 2)).astype(np.float32)
    angle = np.linspace(0, 3, 6, dtype=np.float32)
    for shape in (
        lambda p, a: circle(GRID, p, 2.0),
        lambda p, a: capsule(GRID, p, p[..., :1] + p * 0.3, 1.5),
        lambda p, a: box(GRID, p, (3.0, 1.0), a),
    ):
        ours, theirs = (
            shape(points, angle),
            shape(torch.from_numpy(points), torch.from_numpy(angle)),
        )
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
        blank = torch.zeros(24, 32)
        frame = paint(blank, [(theirs, 255.0)])
        assert frame.dtype == torch.uint8
        assert np.abs(frame.numpy().astype(int) - drawn(ours)).max() <= 1


def test_later_layers_cover_earlier_ones_in_their_colours():
    left, right = np.float32([8, 12]), np.float32([12, 12])
    layers = [
        (circle(GRID, left, 5.0), (200.0, 0.0, 0.0)),
        (circle(GRID, np.stack([right, right + 50]), 5.0), (0.0, 0.0, 100.0)),
    ]
    frames = paint(np.full((24, 32, 3), 9.0, np.float32), layers)
    assert frames.shape == (2, 24, 32, 3)
    assert frames[0, 12, 11].tolist() == [0, 0, 100] and frames[1, 12, 11].tolist() == [200, 0, 0]
    assert frames[0, 12, 4].tolist() == [200, 0, 0] and frames[0, 0, 0].tolist() == [9, 9, 9]


def test_blocks_do_not_change_frames(monkeypatch):
    points = np.random.default_rng(2).uniform(4, 20, (17, 2)).astype(np.float32)

    def picture(p):
        return drawn(circle(GRID, p, 3.0))

    whole = picture(points)
    monkeypatch.setattr(raster, "BLOCK", 3 * 24 * 32)
    assert np.array_equal(in_blocks(picture, points, 24 * 32), whole)
