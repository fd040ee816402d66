"""Operators on the host: the compiled kernels against the specification, and the specification against common sense."""

import io

import numpy as np
import pytest
from PIL import Image

from fastface.data.augment import Augment, apply_on_host, apply_reference
from fastface.data.augment.blur import GaussianBlur, MotionBlur
from fastface.data.augment.cover import CropPad, Cutout, Erase
from fastface.data.augment.geometry import Affine, RandomResizedCrop
from fastface.data.augment.jpeg import Jpeg
from fastface.data.augment.light import Colour, Gamma, Grey
from fastface.data.augment.noise import Noise
from fastface.data.augment.presets import OPERATORS, PRESETS, operators
from fastface.data.augment.resolution import LowResolution
from fastface.data.compiled import Kernel
from fastface.data.plan import Slots, slot_keys
from tests.data.augment.photographs import draws_of, every_operator, photographs

SIZES = [(112, 112), (45, 67), (16, 16), (3, 5), (1, 1)]  # height, width


@pytest.mark.parametrize("operator", every_operator(0.7), ids=lambda o: o.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernels_equal_the_reference(operator, size: tuple[int, int]) -> None:
    rows = 4 if size == (112, 112) else 12
    images, draws = photographs(rows, *size), draws_of(operator, rows=rows)
    expected = apply_reference(images, draws)
    apply_on_host(images, draws)
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("operator", every_operator(1.0), ids=lambda o: o.name)
def test_without_numba_the_reference_steps_in(operator, monkeypatch: pytest.MonkeyPatch) -> None:
    images, draws = photographs(3, 20, 31), draws_of(operator, rows=3)
    expected = images.copy()
    apply_on_host(expected, draws)
    monkeypatch.setattr(Kernel, "function", None)
    apply_on_host(images, draws)
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_that_were_not_drawn_stay(preset: str) -> None:
    images = photographs(40, 24, 24)
    draws = Augment(0.5, operators(preset)).draw(Slots(0, 0, np.zeros(40, np.int64), slot_keys(3, 1, 40)))
    drawn = np.any([drawn.chosen for drawn in draws.operators], axis=0) if draws.operators else np.zeros(40, bool)
    result = images.copy()
    apply_on_host(result, draws)
    assert np.array_equal(result[~drawn], images[~drawn])
    assert np.array_equal(result, apply_reference(images, draws))
    if preset != "none":
        assert (result[drawn] != images[drawn]).any((1, 2, 3)).mean() > 0.9
        assert preset == "recognition" or drawn.mean() > 0.8


def test_a_list_is_applied_in_its_order() -> None:
    images = photographs(6, 32, 32)
    grey, erase = Grey(p=1.0), Erase(p=1.0)
    for order in ((grey, erase), (erase, grey)):
        result = images.copy()
        apply_on_host(result, draws_of(*order, rows=6))
        assert (result == result[..., :1]).all() == (order[-1] is grey)


# What each operator is known by, beside its own reference.


def one(operator, images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    draws = draws_of(operator, rows=len(images), seed=seed)
    result = images.copy()
    apply_on_host(result, draws)
    return result, draws.operators[0].parameters


def test_crop_pad_keeps_a_part_in_place() -> None:
    images = np.maximum(photographs(20, 60, 50), 1)
    result, drawn = one(CropPad(p=1.0, area=(0.2, 0.6)), images)
    kept = (result == images).all(3)
    assert ((result == 0).all(3) | kept).all()
    assert np.abs(kept.mean((1, 2)) - drawn["area"]).max() < 0.05
    for mask in kept:  # one upright rectangle
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_erase_and_cutout_cover_what_they_say() -> None:
    images = np.full((30, 64, 64, 3), 201, np.uint8)
    result, drawn = one(Erase(p=1.0, area=(0.1, 0.3)), images)
    covered = (result != images).any(3)
    assert np.abs(covered.mean((1, 2)) - drawn["area"]).max() < 0.06
    assert all(
        (image[mask] == colour).all() for image, mask, colour in zip(result, covered, drawn["colour"], strict=True)
    )
    result, drawn = one(Cutout(p=1.0, holes=1, side=(0.25, 0.25)), images)
    assert set(np.unique(result)) == {0, 201}
    assert (result[..., 0] == 0).sum((1, 2)).max() == 16 * 16


def test_neutral_settings_change_nothing() -> None:
    images = photographs(5, 40, 36)
    same = [
        Affine(p=1.0, angle_degrees=(0.0, 0.0), scale=(1.0, 1.0), shift=(0.0, 0.0)),
        RandomResizedCrop(p=1.0, area=(1.0, 1.0), ratio=(36 / 40, 36 / 40)),
        LowResolution(p=1.0, side=(1.0, 1.0)),
        MotionBlur(p=1.0, length_px=(1.0, 1.0)),
        Gamma(p=1.0, gamma=(1.0, 1.0)),
        Noise(p=1.0, sigma=(0.0, 0.0)),
        Colour(p=1.0, brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue_degrees=(0.0, 0.0)),
        GaussianBlur(p=1.0, sigma_px=(0.05, 0.05)),
    ]
    for operator in same:
        result, _ = one(operator, images)
        assert np.array_equal(result, images), operator.name


def test_constant_images_stay_constant() -> None:
    images = np.full((4, 33, 29, 3), (7, 130, 255), np.uint8)
    for kind in (RandomResizedCrop, LowResolution, GaussianBlur, MotionBlur):
        result, _ = one(kind(p=1.0), images)
        assert np.array_equal(result, images), kind


def test_affine_turns_clockwise_and_magnifies() -> None:
    image = np.zeros((1, 41, 41, 3), np.uint8)
    image[0, 5:8, 19:22] = 255  # above the centre
    quarter = Affine(p=1.0, angle_degrees=(90.0, 90.0), scale=(1.0, 1.0), shift=(0.0, 0.0))
    assert np.array_equal(one(quarter, image)[0], np.rot90(image, -1, (1, 2)))
    double = Affine(p=1.0, angle_degrees=(0.0, 0.0), scale=(2.0, 2.0), shift=(0.35, 0.35))
    result = one(double, image)[0][0, ..., 0]
    y, x = np.mgrid[:41, :41] + 0.5
    centre = [(axis * result).sum() / result.sum() for axis in (x, y)]
    assert np.abs(np.array(centre) - [20.5 + 41 * 0.35, 20.5 - 2 * 14 + 41 * 0.35]).max() < 0.05


def test_random_resized_crop_is_pillows() -> None:
    images = photographs(6, 50, 60)
    operator = RandomResizedCrop(p=1.0, area=(0.2, 0.9))
    result, parameters = one(operator, images)
    feeds = operator.feeds(parameters, 50, 60)
    for image, out, (y0, x0), (y1, x1) in zip(images, result, feeds["start"], feeds["stop"], strict=True):
        expected = Image.fromarray(image).resize((60, 50), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
        assert np.abs(out.astype(int) - np.asarray(expected)).max() <= 1


def test_blurs_spread_light_as_far_as_they_say() -> None:
    image = np.zeros((40, 61, 61, 3), np.uint8)
    x = np.arange(61) - 30
    image[:, :, 30] = 255
    for picture in (image, image.swapaxes(1, 2).copy()):
        result, drawn = one(GaussianBlur(p=1.0, sigma_px=(1.0, 4.0)), picture)
        profile = result[..., 0].max(1 if picture is image else 2).astype(float)
        profile /= profile.sum(1, keepdims=True)
        assert np.abs(np.sqrt((profile * x**2).sum(1)) / drawn["sigma"] - 1).max() < 0.05
    image[:] = 0
    image[:, 30, 30] = 255
    result, drawn = one(MotionBlur(p=1.0, length_px=(5.0, 15.0)), image)
    share = result[..., 0] / result[..., 0].sum((1, 2), keepdims=True)
    across, down = (share * x**2).sum((1, 2)), (share * x[:, None] ** 2).sum((1, 2))
    both = (share * x * x[:, None]).sum((1, 2))
    assert np.abs(np.sqrt(12 * (across + down)) - drawn["length"]).max() < 1.5  # variance of a line is length^2 / 12
    direction = np.arctan2(2 * both, across - down) / 2
    assert np.abs(np.angle(np.exp(2j * (direction - drawn["angle"])))).max() < 0.1


def test_colour_knows_grey_brightness_and_hue() -> None:
    images = photographs(8, 30, 30)
    neutral = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue_degrees": (0.0, 0.0)}
    grey, _ = one(Colour(p=1.0, **{**neutral, "saturation": (0.0, 0.0)}), images)
    expected = images @ [0.299, 0.587, 0.114]
    assert np.abs(grey - expected[..., None]).max() <= 1.5
    dark, _ = one(Colour(p=1.0, **{**neutral, "brightness": (0.5, 0.5)}), images)
    assert np.abs(dark - images * 0.5).max() <= 1
    flat, _ = one(Colour(p=1.0, **{**neutral, "contrast": (0.1, 0.1)}), images)
    assert np.abs(flat - (128 + (images - 128.0) * 0.1)).max() <= 1
    turned, _ = one(
        Colour(p=1.0, **{**neutral, "hue_degrees": (120.0, 120.0)}), np.full((1, 2, 2, 3), (200, 40, 40), np.uint8)
    )
    assert turned[0, 0, 0].argmax() != 0  # red no more


def test_gamma_and_noise_have_their_numbers() -> None:
    images = photographs(20, 64, 64)
    result, drawn = one(Gamma(p=1.0), images)
    expected = 255 * (images / 255) ** drawn["gamma"][:, None, None, None]
    assert np.abs(result - expected).max() <= 0.5 + 1e-9
    grey = np.full((60, 64, 64, 3), 128, np.uint8)
    result, drawn = one(Noise(p=1.0, sigma=(1.0, 20.0)), grey)
    noise = result - 128.0
    assert np.abs(noise.std((1, 2, 3)) / np.abs(drawn["sigma"]) - 1).max() < 0.07
    assert np.abs(noise.mean((1, 2, 3)) / np.abs(drawn["sigma"])).max() < 0.05
    assert (drawn["sigma"] < 0).any()
    assert (drawn["sigma"] > 0).any()
    unlike = np.corrcoef(noise.reshape(60, -1)) - np.eye(60)
    assert np.abs(unlike).max() < 0.1  # nobody gets another's noise


def test_jpeg_is_pillows_and_quality_is_whole() -> None:
    images = photographs(40, 24, 40)
    result, drawn = one(Jpeg(p=1.0, quality=(10.0, 12.0)), images)
    assert set(drawn["quality"]) == {10, 11, 12}
    file = io.BytesIO()
    Image.fromarray(images[7]).save(file, "JPEG", quality=int(drawn["quality"][7]), subsampling=2)
    assert np.array_equal(result[7], np.asarray(Image.open(file)))


def test_low_resolution_takes_detail_away() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 48, 48, 3), np.uint8)
    result, drawn = one(LowResolution(p=1.0, side=(0.1, 0.9)), images)
    left = result.astype(float).std((1, 2, 3))
    assert np.corrcoef(left, drawn["side"])[0, 1] > 0.8
    assert left.max() < images.std()


def test_every_operator_is_in_the_table_and_has_a_doc_line_for_every_setting() -> None:
    assert len(OPERATORS) == 13
    for name, kind in OPERATORS.items():
        assert kind.__doc__
        for field, info in kind.model_fields.items():
            assert field == "name" or info.description, (name, field)
