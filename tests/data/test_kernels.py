"""Kernels: numba and numpy give the bits of the obvious formula from every layout, mirrored or not."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.data import kernels as kernels_module
from fastface.data.kernels import Kernels, kernels

SHAPES = [(1, 1), (7, 5), (16, 24), (112, 112), (64, 97)]


@pytest.fixture(params=["numba", "numpy"])
def made(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "numba":
        pytest.importorskip("numba")
    chosen = kernels(request.param == "numba")
    assert chosen.name == request.param
    return chosen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 5, 19])
def test_every_layout_gives_the_bits_of_the_formula(made: Kernels, shape: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, *shape, 3), np.uint8)
    pixels.flags.writeable = False  # as DALI's are
    flip = rng.random(count) < 0.5
    expected = np.stack([(i[:, ::-1] if f else i).transpose(2, 0, 1) for i, f in zip(pixels, flip, strict=True)])
    words = np.concatenate([pixels, rng.integers(0, 256, (count, *shape, 1), np.uint8)], 3).view(np.uint32)[..., 0]
    planes, rows = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), rng.integers(0, count, count)
    imagenet = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    for mean, std in [([127.5] * 3, [127.5] * 3), ([0.0] * 3, [255.0] * 3), imagenet]:
        m, scale = np.float32(mean), np.float32([1 / s for s in std])

        def formula_of(x: np.ndarray, m: np.ndarray = m, scale: np.ndarray = scale) -> np.ndarray:
            return np.stack([(x[:, c].astype(np.float32) - m[c]) * scale[c] for c in range(3)], 1)

        for dtype, formula in [
            (np.float32, formula_of),
            (np.uint8, lambda x: x),
        ]:
            out = np.full((count, 3, *shape), 77, dtype)
            made.words(np.ascontiguousarray(words), flip, out, m, scale)
            assert np.array_equal(out, formula(expected))
            out[:] = 77
            made.pixels(pixels, flip, out, m, scale)
            assert np.array_equal(out, formula(expected))
            made.planes(planes, rows, flip, out, m, scale)
            mirrored = [planes[r, :, :, ::-1] if f else planes[r] for r, f in zip(rows, flip, strict=True)]
            assert np.array_equal(out, formula(np.stack(mirrored)))


@pytest.mark.parametrize("shape", SHAPES)
def test_words_become_pixels(made: Kernels, shape: tuple[int, int]) -> None:
    four = np.random.default_rng(1).integers(0, 256, (4, *shape, 4), np.uint8)
    pixels = np.zeros((4, *shape, 3), np.uint8)
    made.pixels_of_words(four.view(np.uint32)[..., 0], pixels)
    assert np.array_equal(pixels, four[..., :3])


def test_without_numba_numpy_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # what an import finds where a package is missing
    module = copied(Path(kernels_module.__file__), monkeypatch)
    assert module.kernels().name == "numpy"
    with pytest.raises(ValueError, match=r"numba is not installed.*pip install"):
        module.kernels(compiled=True)


def copied(source: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a file once more, under another name, with nothing compiled yet."""
    spec = importlib.util.spec_from_file_location("copied_kernels", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "copied_kernels", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_numba_works_where_nothing_can_be_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    source = tmp_path / "copied_kernels.py"
    source.write_text(Path(kernels_module.__file__).read_text())
    (tmp_path / "__pycache__").touch()  # a file where numba wants a folder: this stops root as well
    monkeypatch.setenv("XDG_CACHE_HOME", str(source / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = copied(source, monkeypatch)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        assert module.kernels().name == "numba"
