"""Encoders of images compared with torch's own layers and with shifts worked out pixel by pixel."""

import math

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mbrl.encoders.configs import NATURE, ImageConfig
from mbrl.encoders.convolution import ImageEncoder
from mbrl.encoders.images import Images, channels_first, is_image, random_shift

DRQ = ImageConfig(channels=4, features=6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(*shape, seed=0):
    return torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3), (0,)])
@pytest.mark.parametrize(
    ("config", "shape"),
    [(DRQ, (17, 20, 3)), (DRQ, (2, 16, 15)), (ImageConfig(network="nature"), (36, 40, 1))],
)
def test_features_have_the_leading_dimensions_of_the_images(config, shape, lead):
    encoder = ImageEncoder(shape, config, generator=seeded())
    features = encoder(pictures(*lead, *shape))
    assert features.shape == (*lead, config.features) and features.dtype == torch.float32
    assert features.isfinite().all()
    if config.network == "drq":
        assert (features.abs() < 1).all()
    else:
        assert (features >= 0).all()


def test_drq_is_four_convolutions_a_linear_layer_layer_norm_and_tanh():
    encoder = ImageEncoder((17, 19, 3), DRQ, generator=seeded())
    images = pictures(7, 17, 19, 3)
    with torch.no_grad():
        x = images.movedim(-1, 1).double() / 255 - 0.5
        for layer, stride in zip(encoder.convolutions, (2, 1, 1, 1), strict=True):
            x = F.conv2d(x, layer.weight.double(), layer.bias.double(), stride=stride).clamp_min(0)
        assert x.shape == (7, 4, 2, 3)  # (17, 19) -> (8, 9), and 2 less for each of three layers
        x = x.reshape(7, -1) @ encoder.linear.weight.double().T
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        wanted = ((x - mean) / (var + 1e-5).sqrt()).tanh()
        torch.testing.assert_close(encoder(images).double(), wanted, atol=1e-4, rtol=0)


def test_nature_has_the_sizes_of_the_paper():
    """84 x 84 -> 20 x 20 -> 9 x 9 -> 7 x 7, and 3136 numbers become 512 features."""
    encoder = ImageEncoder((4, 84, 84), NATURE, generator=seeded())
    sizes = [tuple(layer.weight.shape) for layer in encoder.convolutions]
    assert sizes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert encoder.linear.weight.shape == (512, 3136)


def test_images_with_channels_first_and_last_give_the_same_features():
    last = ImageEncoder((16, 16, 3), DRQ, generator=seeded())
    first = ImageEncoder((3, 16, 16), DRQ, generator=seeded())
    images = pictures(5, 16, 16, 3)
    torch.testing.assert_close(last(images), first(images.movedim(-1, 1)))
    assert channels_first((4, 84, 84)) and not channels_first((84, 84, 4))


def test_weights_are_orthogonal_and_drawn_only_from_the_generator():
    before = torch.get_rng_state()
    encoder, same, other = (ImageEncoder((16, 16, 3), DRQ, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    weights = [layer.weight.flatten(1) for layer in encoder.convolutions]
    for weight in weights:  # as many rows as channels, of length √2
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(4), atol=1e-5, rtol=0)
    assert torch.equal(weights[1], same.convolutions[1].weight.flatten(1))
    assert not torch.equal(weights[1], other.convolutions[1].weight.flatten(1))


@pytest.mark.parametrize(
    ("network", "size", "said"),
    [
        ("drq", (14, 40, 3), "drq needs images of at least 15 x 15 pixels, got 14 x 40"),
        ("nature", (40, 35, 3), "nature needs images of at least 36 x 36 pixels, got 40 x 35, for"),
        ("nature", (3, 9, 99), "nature needs images of at least 36 x 36 pixels, got 9 x 99"),
    ],
)
def test_images_that_are_too_small_are_refused_with_the_least_size(network, size, said):
    with pytest.raises(ValueError, match=said) as error:
        ImageEncoder(size, ImageConfig(network=network), generator=seeded())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("images", [torch.zeros(2, 16, 16, 3), pictures(2, 3, 16, 16)])
def test_images_of_another_shape_or_type_are_refused(images):
    encoder = ImageEncoder((16, 16, 3), DRQ, generator=seeded())
    with pytest.raises(ValueError, match=r"images: want uint8 of shape \(\*lead, 16, 16, 3\), got"):
        encoder(images)


@pytest.mark.parametrize("first", [False, True])
def test_shifted_images_are_cut_from_images_with_repeated_edges(first):
    """Every result is one of the 25 crops, and all of them occur about equally often."""
    image = np.arange(6 * 7 * 2, dtype=np.uint8).reshape(6, 7, 2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    crops = {padded[i : i + 6, j : j + 7].tobytes(): 0 for i in range(5) for j in range(5)}
    images = torch.from_numpy(np.stack([image] * 5000))
    given = images.movedim(-1, 1).contiguous() if first else images
    shifted = random_shift(given, 2, generator=seeded())
    assert shifted.dtype == torch.uint8 and shifted.shape == given.shape
    for one in shifted.movedim(1, -1) if first else shifted:
        crops[one.numpy().tobytes()] += 1
    counts = np.array([*crops.values()])
    assert len(counts) == 25 and counts.sum() == 5000
    assert abs(counts - 200).max() < 5 * math.sqrt(200)


def test_only_uint8_boxes_of_three_dimensions_are_images():
    box = gymnasium.spaces.Box
    assert is_image(box(0, 255, (16, 16, 3), np.uint8))
    for space in (
        box(0, 1, (16, 16, 3), np.float32), box(0, 255, (128,), np.uint8),
        gymnasium.spaces.Discrete(3),
    ):  # fmt: skip
        assert not is_image(space)
    with pytest.raises(ValueError, match=r"images: want uint8, got torch.float32"):
        Images((16, 16, 3))(np.zeros((1, 16, 16, 3), np.float32))
