"""Measures are those of slow loops, and a set is measured once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fastface.data.index import Index
from fastface.mining.audit.pixels import MEASURES, THUMB, look_at, measure, open_reader, read_image
from fastface.mining.audit.quality import Limits, choose_limits, outliers
from tests.data.shard_sets import make_set


def drawn(seed: int, height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def row_of(image: np.ndarray) -> np.void:
    return np.array([measure(image)[0]], MEASURES)[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 33), (112, 96)])
def test_measures_are_those_of_a_loop(height: int, width: int) -> None:
    image = drawn(0, height, width)
    light = np.asarray(Image.fromarray(image).convert("L")).astype(float).tolist()
    edges, every = [], [value for line in light for value in line]
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            around = light[y - 1][x] + light[y + 1][x] + light[y][x - 1] + light[y][x + 1]
            edges.append(around - 4 * light[y][x])
    colours = [
        max(map(int, image[y, x])) - min(map(int, image[y, x])) for y in range(0, height, 4) for x in range(0, width, 4)
    ]
    row = row_of(image)
    middle, mean = sum(edges) / len(edges), sum(every) / len(every)
    detail = sum((e - middle) ** 2 for e in edges) / len(edges)
    assert row["sharpness"] == pytest.approx(
        np.log10(detail / (sum((v - mean) ** 2 for v in every) / len(every))), abs=1e-5
    )
    assert row["brightness"] == pytest.approx(mean, abs=1e-3)
    assert row["contrast"] == pytest.approx((sum((v - mean) ** 2 for v in every) / len(every)) ** 0.5, abs=1e-3)
    assert row["colour"] == pytest.approx(sum(colours) / len(colours), abs=1e-4)
    assert (row["width"], row["height"]) == (width, height)
    if height % THUMB == 0 and width % THUMB == 0:
        side = height // THUMB, width // THUMB
        small = np.array(light).reshape(THUMB, side[0], THUMB, side[1]).mean(axis=(1, 3))
        assert np.abs(measure(image)[1] - small).max() <= 1  # Pillow rounds after each axis


def test_the_hash_is_of_size_and_pixels() -> None:
    image = drawn(1, 24, 36)
    other = image.copy()
    other[7, 9, 1] ^= 1
    keys = {int(row_of(each)["pixels"]) for each in (image, image.copy(), other, image.reshape(36, 24, 3))}
    assert len(keys) == 3


def test_records_are_measured_once_and_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.open(make_set(tmp_path, people=5, images=30, shard_size=40))
    looks = look_at(index, tmp_path / "looks", threads=3)
    reader = open_reader(index)
    for i in range(len(index)):
        row, small = measure(read_image(reader, i))
        assert looks.measures[i].tolist() == np.array([row], MEASURES)[0].tolist()
        assert (looks.thumbnails[i] == small).all()
    assert looks.failed == {}
    monkeypatch.setattr("fastface.mining.audit.pixels.measure", None)
    again = look_at(index, tmp_path / "looks")
    assert (again.measures == looks.measures).all()
    (tmp_path / "b").mkdir()
    other = Index.open(make_set(tmp_path / "b", people=2, images=3))
    with pytest.raises(TypeError):  # another set is measured, whatever is there
        look_at(other, tmp_path / "looks")


def test_outliers_are_those_beyond_the_limits(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path, people=10, images=10))
    looks = look_at(index, tmp_path / "looks")
    limits, ways = choose_limits(looks, {"grey": 40.0})
    values = sorted(float(v) for v in looks.measures["sharpness"])
    middle = (values[49] + values[50]) / 2
    away = sorted(abs(v - middle) for v in values)
    assert limits.blurred == pytest.approx(middle - 4 * 1.4826 * (away[49] + away[50]) / 2, abs=1e-5)
    assert (limits.grey, ways["grey"], limits.small) == (40.0, "given", 16.0)
    limits = Limits(blurred=values[3], dark=100.0, bright=150.0, flat=45.0, small=33.0, grey=60.0)
    found = outliers(looks, limits)
    columns = {
        "blurred": "sharpness",
        "dark": "brightness",
        "bright": "brightness",
        "flat": "contrast",
        "grey": "colour",
    }
    for kind, column in columns.items():
        expected = []
        for i in range(len(index)):
            value = float(looks.measures[column][i])
            if value > limits.bright if kind == "bright" else value < getattr(limits, kind):
                expected.append((-value if kind == "bright" else value, i))
        assert found[kind][0].tolist() == [i for _, i in sorted(expected)]
    assert len(found["blurred"][0]) == 3
    assert len(found["small"][0]) == 100


def test_blur_lowers_sharpness() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    assert row_of(soft)["sharpness"] < row_of(noise)["sharpness"] - 2
    assert row_of(np.full((9, 9, 3), 7, np.uint8))["sharpness"] == -3
