"""Every decoder against one slow reference: decode, mirror, normalise, image by image in numpy."""

import io
import sys

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from fastface.data.augment import Draws
from fastface.data.damage import BadImage
from fastface.data.decode import DECODERS, build_decoder
from fastface.data.decode_torch import unaligned_words
from fastface.data.normalisation import PerColour, normalised, three
from tests.data import tiny

MARKS = {"dali-cpu": [pytest.mark.dali], "dali-gpu": [pytest.mark.dali, pytest.mark.gpu]}
EVERY = [pytest.param(name, marks=MARKS.get(name, [])) for name in DECODERS]
ON_CPU = [pytest.param(name, marks=MARKS.get(name, [])) for name in DECODERS if name != "dali-gpu"]
KINDS = ["420", "444", "422", "gray", "png"]
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def reference(blobs: list[bytes], flip: np.ndarray, mean: PerColour, std: PerColour) -> np.ndarray:
    """The specification: float32 [B, 3, H, W]."""
    images = []
    for blob, mirror in zip(blobs, flip, strict=True):
        if blob.startswith(b"\x89PNG"):
            pixels = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        else:
            pixels = simplejpeg.decode_jpeg(blob)
        planes = pixels.transpose(2, 0, 1)
        if mirror:
            planes = planes[:, :, ::-1]
        colours = zip(planes.astype(np.float32), three(mean), three(std), strict=True)
        images.append(np.stack([(plane - np.float32(m)) * np.float32(1 / s) for plane, m, s in colours]))
    return np.stack(images)


def decode(name: str, blobs: list[bytes], flip: np.ndarray, device: str = "cpu", **options: object) -> np.ndarray:
    size: tuple[int, int] = options.pop("size", (tiny.WIDTH, tiny.HEIGHT))  # type: ignore[assignment]
    decoder = build_decoder(name, size=size, threads=2, device=device, **options)  # type: ignore[arg-type]
    out = torch.full((len(blobs), 3, size[1], size[0]), torch.nan, device=device)
    decoder([np.frombuffer(blob, np.uint8) for blob in blobs], Draws(flip), out)
    decoder.close()
    return out.cpu().numpy()


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("kind", KINDS)
def test_cpu_decoders_equal_the_reference(name: str, kind: str) -> None:
    blobs = [tiny.encode(tiny.picture(seed), kind) for seed in range(19)]  # two chunks and a rest
    flip = np.random.default_rng(1).random(19) < 0.5
    for mean, std in [(127.5, 127.5), (127.5, 128.0), (103.94, 57.38), IMAGENET]:
        expected = reference(blobs, flip, mean, std)
        assert np.array_equal(decode(name, blobs, flip, mean=mean, std=std), expected)


@pytest.mark.parametrize("name", EVERY)
def test_every_decoder_is_within_tolerance(name: str) -> None:
    device = "cuda" if name == "dali-gpu" else "cpu"
    blobs = [tiny.encode(tiny.picture(seed, 112, 112)) for seed in range(16)]
    flip = np.arange(16) % 3 == 0
    images = decode(name, blobs, flip, device, size=(112, 112), mean=0.0, std=1.0)
    difference = np.abs(images - reference(blobs, flip, 0.0, 1.0))
    assert difference.max() <= (2 if name == "dali-gpu" else 0)
    assert difference.mean() < 0.5


@pytest.mark.gpu
def test_torch_on_a_device_equals_the_reference() -> None:
    blobs = [tiny.encode(tiny.picture(seed), kind) for seed, kind in enumerate(KINDS * 4)]
    flip = np.random.default_rng(1).random(len(blobs)) < 0.5
    assert np.array_equal(decode("torch", blobs, flip, "cuda"), reference(blobs, flip, 127.5, 127.5))


@pytest.mark.parametrize("name", ON_CPU)
def test_a_decoder_takes_batches_of_changing_size(name: str) -> None:
    blobs = [np.frombuffer(tiny.encode(tiny.picture(seed)), np.uint8) for seed in range(9)]
    flip = np.zeros(9, bool)
    expected = reference([bytes(blob) for blob in blobs], flip, 127.5, 127.5)
    decoder = build_decoder(name, size=(tiny.WIDTH, tiny.HEIGHT), threads=1)
    for count in (4, 9, 1, 5):
        out = torch.zeros(count, 3, tiny.HEIGHT, tiny.WIDTH)
        decoder(blobs[:count], Draws(flip[:count]), out)
        assert np.array_equal(out.numpy(), expected[:count])


@pytest.mark.parametrize("name", ON_CPU)
def test_a_decoder_names_the_bad_row_and_goes_on(name: str) -> None:
    good = [tiny.encode(tiny.picture(seed)) for seed in range(6)]
    decoder = build_decoder(name, size=(tiny.WIDTH, tiny.HEIGHT), threads=1)
    out = torch.zeros(6, 3, tiny.HEIGHT, tiny.WIDTH)
    large = tiny.encode(tiny.picture(0, tiny.WIDTH + 2))
    small = tiny.encode(tiny.picture(0, tiny.WIDTH, tiny.HEIGHT - 2))
    turned = tiny.encode(tiny.picture(0, tiny.HEIGHT, tiny.WIDTH))  # as many pixels
    for bad in (
        good[0][:200],
        b"",
        b"no image",
        large,
        small,
        turned,
        tiny.encode(tiny.picture(0), "png")[:90],
    ):
        blobs = [np.frombuffer(blob, np.uint8) for blob in [*good[:4], bad, good[5]]]
        with pytest.raises(BadImage) as caught:
            decoder(blobs, Draws(np.zeros(6, bool)), out)
        assert caught.value.row == 4
    decoder([np.frombuffer(blob, np.uint8) for blob in good], Draws(np.ones(6, bool)), out)
    assert np.array_equal(out.numpy(), reference(good, np.ones(6, bool), 127.5, 127.5))


def test_words_never_lie_where_the_decoder_writes_past_the_cache() -> None:
    for size in [(112, 112), (100, 3), (7, 5), (1, 1)]:
        words = unaligned_words(3, size)
        assert words.shape == (3, size[1], size[0])
        assert words.ctypes.data % 32 == 4
        words[:] = 1  # all of it is ours


@pytest.mark.parametrize("name", EVERY)
def test_uint8_is_delivered_as_decoded(name: str) -> None:
    device = "cuda" if name == "dali-gpu" else "cpu"
    blobs = [tiny.encode(tiny.picture(seed), kind) for seed, kind in enumerate(KINDS)]
    flip = np.array([True, False, True, False, True])
    decoder = build_decoder(name, size=(tiny.WIDTH, tiny.HEIGHT), threads=1, device=device)
    out = torch.zeros(5, 3, tiny.HEIGHT, tiny.WIDTH, dtype=torch.uint8, device=device)
    decoder([np.frombuffer(blob, np.uint8) for blob in blobs], Draws(flip), out)
    difference = np.abs(out.cpu().numpy().astype(int) - reference(blobs, flip, 0.0, 1.0))
    assert difference.max() <= (2 if name == "dali-gpu" else 0)
    for mean, std in ((127.5, 127.5), IMAGENET):
        expected = decode(name, blobs, flip, device, mean=mean, std=std)
        assert np.array_equal(normalised(out.cpu(), mean, std).numpy(), expected)


def test_missing_dali_is_said_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # what an import finds where a package is missing
    with pytest.raises(ValueError, match=r'pip install "fastface\[cuda13\]".*data\.decoder torch'):
        build_decoder("dali-cpu", size=(8, 8), threads=1)


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'tortch' is unknown, perhaps you meant 'torch'; known: torch, dali-cpu, dali-gpu"
    ):
        build_decoder("tortch", size=(8, 8), threads=1)
    with pytest.raises(ValueError, match="dali-gpu needs a CUDA device, not cpu"):
        build_decoder("dali-gpu", size=(8, 8), threads=1)
