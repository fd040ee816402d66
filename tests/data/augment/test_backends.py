"""Every decoder applies the same draws: torch to the bit, DALI within each operator's tolerance."""

import numpy as np
import pytest
import simplejpeg
import torch

from fastface.data.augment import Augment, Draws, apply_reference
from fastface.data.augment.graph import augmented, graph_inputs, resized
from fastface.data.augment.operator import Graph, Operator
from fastface.data.augment.presets import PRESETS, operators
from fastface.data.decode import build_decoder
from fastface.data.plan import Slots, slot_keys
from tests.data.augment.photographs import draws_of, every_operator, photographs

EVERY = [
    "torch",
    pytest.param("dali-cpu", marks=pytest.mark.dali),
    pytest.param("dali-gpu", marks=[pytest.mark.dali, pytest.mark.gpu]),
]
SIZES = [(112, 112), (45, 67)]  # height, width
# On a GPU: decoding differs by up to 2 levels, which steep operators enlarge; shares of levels are what can be held.
GPU_MEAN = 1.5


def decoded(name: str, images: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Encode, decode by backend `name` with draws; also what the reference makes of it. Both uint8 [B, H, W, 3]."""
    blobs = [simplejpeg.encode_jpeg(image, 95, colorsubsampling="420") for image in images]
    expected = apply_reference(np.stack([simplejpeg.decode_jpeg(blob) for blob in blobs]), draws)
    expected[draws.flip] = expected[draws.flip, :, ::-1]
    device = "cuda" if name == "dali-gpu" else "cpu"
    decoder = build_decoder(name, size=(images.shape[2], images.shape[1]), threads=1, device=device, mean=0, std=1)
    out = torch.full((len(blobs), 3, *images.shape[1:3]), torch.nan, device=device)
    decoder([np.frombuffer(blob, np.uint8) for blob in blobs], draws, out)
    decoder.close()
    return out.cpu().numpy().transpose(0, 2, 3, 1), expected


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", every_operator(0.6), ids=lambda o: o.name)
def test_every_backend_applies_every_operator(name: str, size: tuple[int, int], operator: Operator) -> None:
    draws = draws_of(operator, rows=10)
    result, expected = decoded(name, photographs(10, *size), draws)
    difference = np.abs(result - expected)
    if name == "torch":
        assert difference.max() == 0
    elif name == "dali-cpu":
        assert difference.max() <= operator.tolerance
        assert difference[~draws.operators[0].chosen].max() == 0
    else:
        assert difference[~draws.operators[0].chosen].max() <= 2
        assert difference.mean() < GPU_MEAN


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_backend_applies_every_preset(name: str, preset: str) -> None:
    augment = Augment(0.5, operators(preset))
    draws = augment.draw(Slots(0, 0, np.zeros(40, np.int64), slot_keys(5, 1, 40)))
    result, expected = decoded(name, photographs(40, 64, 64), draws)
    difference = np.abs(result - expected)
    if name == "torch":
        assert difference.max() == 0
    elif name == "dali-cpu":  # one level before a JPEG is compressed can be many after; most pixels differ by none
        assert (difference > 2).mean() < 0.01
        assert difference.mean() < 0.1
    else:
        assert difference.mean() < GPU_MEAN


@pytest.mark.parametrize("name", EVERY)
def test_a_decoder_takes_lists_and_batches_that_change(name: str) -> None:
    device = "cuda" if name == "dali-gpu" else "cpu"
    images = photographs(7, 32, 24)
    blobs = [np.frombuffer(simplejpeg.encode_jpeg(image, 95), np.uint8) for image in images]
    plain = np.stack([simplejpeg.decode_jpeg(blob) for blob in blobs])
    decoder = build_decoder(name, size=(24, 32), threads=1, device=device, mean=0, std=1)
    for preset, rows in [("recognition", 7), ("none", 7), ("liveness", 3), ("liveness", 7), ("recognition", 2)]:
        augment = Augment(0.0, operators(preset))
        draws = augment.draw(Slots(0, 0, np.zeros(rows, np.int64), slot_keys(rows, 1, rows)))
        out = torch.full((rows, 3, 32, 24), torch.nan, device=device)
        decoder(blobs[:rows], draws, out)
        difference = np.abs(out.cpu().numpy().transpose(0, 2, 3, 1) - apply_reference(plain[:rows], draws))
        assert difference.mean() < {"torch": 1e-9, "dali-cpu": 0.2, "dali-gpu": GPU_MEAN}[name]
    decoder.close()


@pytest.mark.parametrize("name", EVERY[:2])
def test_batches_of_any_cut_get_the_same_pixels(name: str) -> None:
    images = photographs(12, 40, 40)
    blobs = [np.frombuffer(simplejpeg.encode_jpeg(image, 95), np.uint8) for image in images]
    draws = Augment(0.5, operators("liveness_aggressive")).draw(
        Slots(0, 0, np.zeros(12, np.int64), slot_keys(2, 1, 12))
    )
    decoder = build_decoder(name, size=(40, 40), threads=1)
    whole = torch.empty(12, 3, 40, 40)
    decoder(blobs, draws, whole)
    for start, stop in [(0, 5), (5, 6), (6, 12)]:
        part = torch.empty(stop - start, 3, 40, 40)
        decoder(blobs[start:stop], draws.rows(start, stop), part)
        assert torch.equal(part, whole[start:stop])
    decoder.close()


@pytest.mark.dali
@pytest.mark.parametrize("resize", [False, True])
def test_dali_accepts_the_graph_for_a_gpu_where_there_is_none(resize: bool) -> None:
    from nvidia import dali
    from nvidia.dali import fn, types

    draws = draws_of(*every_operator(0.5), rows=4)
    inputs = graph_inputs(draws, 40, 48)
    graph = Graph(fn, types, dali.math, 40, 48, "gpu")

    @dali.pipeline_def(batch_size=4, num_threads=1, device_id=None, enable_conditionals=True)
    def pipeline() -> object:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, batch=True)
        images = fn.decoders.image(encoded, device="mixed", output_type=types.RGB)
        if resize:
            images = resized(images, encoded, graph)
        return augmented(images, draws, inputs, graph)

    assert pipeline().serialize()
