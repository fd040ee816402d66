"""Resizing: Pillow's BILINEAR, images of any size through every decoder, and batches of many scales."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from fastface.config import ArcFaceTask, DataConfig, ModelConfig
from fastface.data.augment import Augment, Draws, apply_reference
from fastface.data.augment.presets import operators
from fastface.data.augment.resample import DALI, PILLOW, centred, resize, resize_into
from fastface.data.batch import resize_planes
from fastface.data.compiled import Kernel
from fastface.data.damage import BadImage
from fastface.data.decode import build_decoder
from fastface.data.loader import Loader
from fastface.data.plans import Shuffled
from fastface.tasks import build_task
from tests.data import tiny
from tests.data.augment.photographs import scene
from tests.data.augment.test_backends import EVERY

WIDTH, HEIGHT = 96, 112
SIZES = [(112, 96), (250, 250), (100, 180), (60, 50), (45, 33), (200, 90), (112, 97), (301, 7), (1, 1)]  # height, width


def pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut the centre and resize: the specification, in Pillow's hands."""
    part = centred(image, height, width)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=part))


@pytest.mark.parametrize("size", [(112, 112), (45, 33), (120, 60), (70, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("new", [(HEIGHT, WIDTH), (17, 40), (1, 3)], ids=str)
def test_resize_is_pillows(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    part = centred(image, *new)
    assert np.abs(resize(image, *new, part=part).astype(int) - pillow(image, *new)).max() <= 1
    for height, width in [(new[0], size[1]), (size[0], new[1])]:
        plain = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        assert np.array_equal(resize(image, height, width), np.asarray(plain))
    out = np.empty((*new, 3), np.uint8)
    for manner in (PILLOW, DALI):
        resize_into(image, out, manner, part)
        assert np.array_equal(out, resize(image, *new, manner, part))


def test_without_numba_resizing_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "function", None)
    out = np.empty((20, 30, 3), np.uint8)
    resize_into(scene(0, 50, 40), out)
    assert np.array_equal(out, resize(scene(0, 50, 40), 20, 30))


def test_planes_are_resized_alike_on_a_device() -> None:
    images = np.stack([scene(seed, 60, 80) for seed in range(4)])
    for new in [(60, 80), (33, 90), (120, 40)]:
        result = resize_planes(torch.from_numpy(images).permute(0, 3, 1, 2), *new).permute(0, 2, 3, 1).numpy()
        expected = np.stack([resize(image, *new) for image in images])
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("name", EVERY)
def test_every_decoder_takes_any_size_when_told(name: str) -> None:
    device = "cuda" if name == "dali-gpu" else "cpu"
    blobs = [simplejpeg.encode_jpeg(scene(i, *size), 95, colorsubsampling="420") for i, size in enumerate(SIZES)]
    expected = np.stack([pillow(simplejpeg.decode_jpeg(blob), HEIGHT, WIDTH) for blob in blobs])
    draws = Draws(np.arange(len(blobs)) % 2 == 0)
    expected[draws.flip] = expected[draws.flip, :, ::-1]
    decoder = build_decoder(name, size=(WIDTH, HEIGHT), resize=True, threads=1, device=device, mean=0, std=1)
    out = torch.full((len(blobs), 3, HEIGHT, WIDTH), torch.nan, device=device)
    views = [np.frombuffer(blob, np.uint8) for blob in blobs]
    decoder(views, draws, out)
    difference = np.abs(out.cpu().numpy().transpose(0, 2, 3, 1) - expected)
    assert difference.max() <= {"torch": 1, "dali-cpu": 1, "dali-gpu": 3}[name]
    assert difference.mean() < {"torch": 0.1, "dali-cpu": 0.3, "dali-gpu": 1.5}[name]
    with pytest.raises(BadImage) as caught:
        decoder([*views[:3], views[3][:100], *views[4:]], draws, out)
    assert caught.value.row == 3
    decoder.close()


def test_a_png_of_another_size_is_resized() -> None:
    image = scene(3, 40, 70)
    decoder = build_decoder("torch", size=(24, 24), resize=True, threads=1, mean=0, std=1)
    out = torch.empty(1, 3, 24, 24)
    decoder([np.frombuffer(tiny.encode(image, "png"), np.uint8)], Draws(np.zeros(1, bool)), out)
    assert np.array_equal(out[0].permute(1, 2, 0).numpy(), resize(image, 24, 24, part=centred(image, 24, 24)))


@pytest.mark.parametrize("name", EVERY)
def test_what_is_augmented_is_resized_last(name: str) -> None:
    device = "cuda" if name == "dali-gpu" else "cpu"
    blobs = [simplejpeg.encode_jpeg(scene(seed, 64, 64), 95) for seed in range(6)]
    augment = Augment(0.5, operators("detection"))
    draws = augment.draw(Shuffled(6, 6, 0)[0])
    images = apply_reference(np.stack([simplejpeg.decode_jpeg(blob) for blob in blobs]), draws)
    decoder = build_decoder(name, size=(64, 64), threads=1, device=device, mean=0, std=1)
    for width, height in [(48, 48), (64, 64), (80, 40)]:
        out = torch.empty(6, 3, height, width, device=device)
        decoder([np.frombuffer(blob, np.uint8) for blob in blobs], draws, out)
        expected = np.stack([resize(image, height, width) for image in images]).astype(float)
        if name == "torch":
            expected[draws.flip] = expected[draws.flip, :, ::-1]
        difference = np.abs(out.cpu().numpy().transpose(0, 2, 3, 1) - expected)
        if name != "torch":  # mirrored before: the same but for halves that round the other way
            expected[draws.flip] = expected[draws.flip, :, ::-1]
            difference = np.abs(out.cpu().numpy().transpose(0, 2, 3, 1) - expected)
        assert difference.mean() < {"torch": 1e-9, "dali-cpu": 0.2, "dali-gpu": 1.5}[name]
    decoder.close()


def test_a_step_has_one_size_for_all_processes(tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    scales = ((24, 16), (12, 8), (36, 24))
    augment = Augment(0.5, operators("recognition"), scales, seed=3)
    assert Augment(0.5).size(3) is None

    def run(world: int, micro: int, threads: int, start: int) -> list[list[np.ndarray]]:
        steps: list[list[np.ndarray]] = [[] for _ in range(8)]
        for rank in range(world):
            options = {"size": scales[0], "micro_batch": micro, "rank": rank, "world": world, "threads": threads}
            plan = Shuffled(index.num_samples, 8, seed=9)
            with Loader(index, plan, augment=augment, decoder="torch", **options) as loader:
                for batch in loader.batches(start, 8):
                    steps[batch.step].append(batch.images.numpy().copy())
        return steps

    whole = [np.concatenate(step) for step in run(1, 8, 1, 0)]
    assert [step.shape[2:][::-1] for step in whole] == [augment.size(step) for step in range(8)]
    assert len({step.shape for step in whole}) == 3
    for world, micro, threads, start in [(1, 2, 3, 0), (2, 4, 2, 0), (2, 2, 1, 5)]:
        for step, parts in enumerate(run(world, micro, threads, start)):
            assert step < start or np.array_equal(np.concatenate(parts), whole[step])


def test_sizes_are_drawn_evenly_from_seed_and_step() -> None:
    scales = ((96, 96), (112, 112), (128, 128))
    drawn = [Augment(0.5, (), scales, seed=1).size(step) for step in range(1500)]
    assert all(abs(drawn.count(size) / 1500 - 1 / 3) < 0.05 for size in scales)
    assert drawn != [Augment(0.5, (), scales, seed=2).size(step) for step in range(1500)]


def test_the_loader_resizes_only_when_told(tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    options = {"augment": Augment(0), "decoder": "torch", "size": (16, 16), "micro_batch": 4}
    with pytest.raises(ValueError, match=r"24x16, data\.size asks for 16x16.*or set data\.resize"):
        Loader(index, Shuffled(40, 4, 0), **options)
    with Loader(index, Shuffled(40, 4, 0), resize=True, **options) as loader:
        assert next(iter(loader.batches())).images.shape == (4, 3, 16, 16)


def test_networks_of_one_size_refuse_scales() -> None:
    data = DataConfig(size=(32, 32), scales=((32, 32), (48, 48)))
    with pytest.raises(ValueError, match=r"data\.scales needs a network that takes any size.*low_resolution"):
        build_task(ArcFaceTask(), ModelConfig(backbone="mobilefacenet"), data, num_classes=10, seed=0)
