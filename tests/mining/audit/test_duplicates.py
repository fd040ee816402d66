"""Hashes, bands, correlations and groups are those of slow loops, and changed pictures are found again."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastface.data.images import ImageSpec, load_rgb
from fastface.data.sources.kinds import open_source
from fastface.mining.audit import CORRELATION, duplicates
from fastface.mining.audit.duplicates import (
    AROUND,
    BITS,
    SHIFT,
    SIDE,
    Pairs,
    correlation,
    detail,
    equal_groups,
    groups_of,
    hashes,
    medians,
    propose,
    thumbnail_correlation,
)
from fastface.mining.audit.pixels import THUMB, measure


def pictures(number: int, seed: int = 0) -> list[Image.Image]:
    drawn = np.random.default_rng(seed)
    return [
        Image.fromarray(drawn.integers(0, 256, (9, 9, 3), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        for _ in range(number)
    ]


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    return np.stack([measure(np.asarray(image))[1] for image in images])


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def slow_coefficient(picture: np.ndarray, row: int, column: int) -> float:
    total = 0.0
    for y, x in itertools.product(range(THUMB), repeat=2):
        wave = np.cos(np.pi * (2 * y + 1) * row / (2 * THUMB)) * np.cos(np.pi * (2 * x + 1) * column / (2 * THUMB))
        total += float(picture[y, x]) * wave
    scale = [(1 if k == 0 else 2) / THUMB for k in (row, column)]
    return total * (scale[0] * scale[1]) ** 0.5


def test_a_hash_is_the_sign_beside_the_median() -> None:
    small = thumbnails(pictures(7))
    order = sorted(((r, c) for r in range(THUMB) for c in range(THUMB) if r + c), key=lambda p: (sum(p), p))[:BITS]
    values = np.array([[slow_coefficient(picture, r, c) for r, c in order] for picture in small])
    middle = medians(small)
    np.testing.assert_allclose(middle, np.sort(values, axis=0)[3], atol=1e-3)
    bits = np.unpackbits(hashes(small, middle), axis=1)
    clear = np.abs(values - middle) > 1e-3
    assert (bits[clear] == (values > middle)[clear]).all()
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(hashes(small, middle, mirrored=True), hashes(small[:, :, ::-1], middle))


@pytest.mark.parametrize(
    ("change", "bits"),
    [
        (lambda image: encoded(image, 40), 6),
        (
            lambda image: image.resize((40, 40), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BILINEAR),
            6,
        ),
        (lambda image: encoded(ImageOps.mirror(image), 75), 6),
        (lambda image: image.point(lambda value: value * 0.8), 6),
    ],
)
def test_changed_pictures_are_found_and_confirmed(change, bits: int) -> None:
    images = pictures(40)
    both = [*images, *(change(image) for image in images)]
    small = thumbnails(both)
    middle = medians(small)
    found = propose(hashes(small, middle), hashes(small, middle, mirrored=True), np.ones(80, bool), 12)
    pairs = set(zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True))
    expected = {(k, 40 + k) for k in range(40)}
    assert expected <= pairs
    right = [b for a, c, b in zip(*found.pairs, found.bits, strict=True) if (a, c) in expected]
    assert np.quantile(right, 0.9) <= bits
    fine = [detail(np.asarray(image)) for image in both]
    assert min(correlation(fine[k], fine[40 + k])[0] for k in range(40)) > 0.9
    assert max(correlation(fine[k], fine[k + 1])[0] for k in range(39)) < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_proposals_are_those_of_all_pairs(seed: int) -> None:
    """What differs in fewer bits than there are bands is found, and nothing beyond the radius."""
    drawn = np.random.default_rng(seed)
    base = drawn.integers(0, 2, (20, BITS), np.uint8).repeat(4, 0)
    base ^= (drawn.random(base.shape) < 0.02).astype(np.uint8)
    codes, turned = np.packbits(base, axis=1), np.packbits(base[drawn.permutation(80)], axis=1)
    usable = drawn.random(80) < 0.9
    found = propose(codes, turned, usable, 9)
    pairs = dict(
        zip(zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True), found.bits, strict=True)
    )
    bands = BITS // 12
    sure = 0
    for a, b in itertools.combinations(range(80), 2):
        ways = ((codes[a], codes[b]), (codes[a], turned[b]), (turned[a], codes[b]))
        apart = [int(np.unpackbits(x ^ y).sum()) for x, y in ways]
        if usable[a] and usable[b] and min(apart) < bands:
            sure += 1
            assert (a, b) in pairs
        if (a, b) in pairs:
            assert usable[a]
            assert usable[b]
            assert min(apart) <= 9
    assert sure > 50
    assert found.crowded == 0


def test_crowds_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "CROWD", 3)
    codes = np.zeros((10, BITS // 8), np.uint8)
    other = np.full_like(codes, 255)
    assert propose(codes, other, np.ones(10, bool), 5).crowded > 0
    assert propose(codes[:3], other[:3], np.ones(3, bool), 5).crowded == 0


def test_correlation_is_the_best_of_all_shifts() -> None:
    drawn = np.random.default_rng(0)
    first, second = drawn.normal(size=(2, SIDE, SIDE)).astype(np.float32)
    inner = SIDE - 2 * SHIFT
    best = -1.0
    for turned in (second, second[:, ::-1]):
        for y, x in itertools.product(range(2 * SHIFT + 1), repeat=2):
            a, b = first[SHIFT : SHIFT + inner, SHIFT : SHIFT + inner], turned[y : y + inner, x : x + inner]
            best = max(best, float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    assert correlation(first, second)[0] == pytest.approx(best, abs=1e-5)
    assert correlation(first, np.roll(first, (1, -2), (0, 1)))[0] > 0.999
    assert correlation(first, first[:, ::-1])[1] is True
    assert correlation(first, first) == (pytest.approx(1, abs=1e-5), False)


def test_detail_is_what_differs_from_the_pixels_around() -> None:
    image = pictures(1)[0].resize((2 * SIDE, 2 * SIDE))
    light = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)).astype(float)
    found, half = detail(np.asarray(image)), AROUND // 2
    for y, x in ((10, 12), (half, 30), (SIDE - 1 - half, 9)):
        around = [light[i, j] for i in range(y - half, y + half + 1) for j in range(x - half, x + half + 1)]
        assert found[y, x] == pytest.approx(light[y, x] - sum(around) / len(around), abs=1e-3)


def test_thumbnails_correlate_either_way() -> None:
    small = thumbnails(pictures(6))
    turned = np.concatenate([small, small[:, :, ::-1]])
    pairs = Pairs(np.array([0, 1, 2, 0]), np.array([6, 7, 8, 1]))
    scores = thumbnail_correlation(turned, pairs)
    np.testing.assert_allclose(scores[:3], 1, atol=1e-5)
    a, b = small[0].astype(float).ravel(), small[1].astype(float)
    expected = max(np.corrcoef(a, b.ravel())[0, 1], np.corrcoef(a, b[:, ::-1].ravel())[0, 1])
    assert scores[3] == pytest.approx(expected, abs=1e-5)


def test_groups() -> None:
    keys = np.array([5, 0, 7, 5, 0, 9, 7, 5], np.uint64)
    assert [group.tolist() for group in equal_groups(keys)] == [[0, 3, 7], [2, 6]]
    assert equal_groups(np.empty(0, np.uint64)) == []
    assert groups_of([(4, 2), (7, 9), (2, 1), (9, 8), (5, 6)]) == [[1, 2, 4], [5, 6], [7, 8, 9]]
    assert groups_of([]) == []


def test_photographs_that_lfw_has_under_two_names(data: Path) -> None:
    """Four pairs are one photograph; two men in one pose and dress are not, although their pixels correlate to 0.96."""
    same = [
        ("Ricky_Ray", "Bart_Hendricks"),
        ("Raul_Ibanez", "Carlos_Beltran"),
        ("Emmy_Rossum", "Eva_Amurri"),
        ("Andrew_Caldecott", "Andrew_Gilligan"),
    ]
    source = open_source("folder", data / "lfw" / "images.tar")[""]
    place = {source.name(i): i for i in range(len(source))}
    spec = ImageSpec((112, 112), 0.5)

    def seen(who: str) -> np.ndarray:
        return detail(load_rgb(source.read(place[f"{who}/{who}_0001.jpg"]), spec))

    assert min(correlation(seen(a), seen(b))[0] for a, b in same) > CORRELATION + 0.1
    assert correlation(seen("Garry_Trudeau"), seen("Brendan_Fraser"))[0] < CORRELATION - 0.05
    assert correlation(seen("Ricky_Ray"), seen("Eva_Amurri"))[0] < 0.5
