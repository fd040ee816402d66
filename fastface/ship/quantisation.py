"""An fp32 .onnx file -> the same network in fp16, or in int8 by the ranges that images give its activations."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from fastface.data.headers import Rejected
from fastface.data.image_sets import ImageSet

SAMPLES = 256
"""Images whose activations set the ranges."""
BATCH = 16
OPERATORS = ("Conv", "Gemm", "MatMul")
"""Computed in int8, with what lies between two of them. PReLU in int8 as well gained no time and cost accuracy."""


NOT_FINITE = "has weights, or activations of the images for int8's ranges, that are not finite"
METHODS = {
    "fp16": "weights and arithmetic in float16",
    "int8": "static, QDQ: int8 weights, a scale per output channel; uint8 activations, minimum to maximum",
}


class RangeImages(NamedTuple):
    """Images whose activations set the ranges of int8."""

    images: np.ndarray  # uint8 RGB [N, H, W, 3], of clips [N, T, H, W, 3]
    about: str


def draw_images(images: ImageSet, size: tuple[int, int], count: int, *, frames: int = 0, seed: int = 0) -> RangeImages:
    """Draw `count` images of (width, height) px without repetition, or take all where there are fewer.

    frames: of each, where they are clips.

    Raises:
        ValueError: naming an image that cannot be read, or is not of the model's size.
    """
    ids = np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False)
    width, height = size
    drawn = np.empty((len(ids), *((frames,) if frames else ()), height, width, 3), np.uint8)
    for place, i in enumerate(np.sort(ids).tolist()):
        try:
            image = images.load(i)
        except (Rejected, OSError) as error:
            raise ValueError(
                f"{images.name(i)} of {images.where}, drawn to set int8's ranges, cannot be read: {error}; "
                "mend it, or give other images with --int8-images"
            ) from None
        if image.shape != drawn.shape[1:]:
            raise ValueError(
                f"{images.name(i)} of {images.where} is {image.shape[-2]}x{image.shape[-3]}, the model takes "
                f"{width}x{height}: give others with --int8-images, made with make_shards.py --size {width}x{height}"
            )
        drawn[place] = image
    return RangeImages(drawn, f"{len(ids):,} of {len(images):,} images of {images.where}, seed {seed}")


def to_fp16(source: Path, out: Path) -> None:
    """Store weights and compute in float16; input and output stay float32."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quietly():
        model = ONNXModel(convert_float_to_float16(onnx.load(source), keep_io_types=True))
    model.topological_sort()  # the input's cast comes last otherwise, which ONNX forbids
    onnx.save(model.model, out)


def to_int8(source: Path, out: Path, images: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray]) -> None:
    """Quantise weights and activations to 8 bits, statically, as QDQ: any runtime of ONNX reads it.

    Weights: int8, symmetric, a scale per output channel. Activations: uint8, a range per tensor, which spans what
    `images` (uint8 [N, H, W, 3] or [N, T, H, W, 3], made into the network's input by `prepare`) give. Signed
    activations took twice the time on x86; percentiles or entropy instead of the whole range kept embeddings nearer to
    fp32's, and decided no better (MobileFaceNet, 1,200 pairs of LFW).

    Raises:
        ValueError: where a weight or an activation is not finite, or nothing of the network can be computed in int8.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(images, prepare)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return next(({name: batch} for batch in self.batches), None)

    with tempfile.TemporaryDirectory(dir=out.parent) as folder, _quietly():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # folds constants, infers shapes
        try:
            quantize_static(
                prepared,
                out,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except AssertionError as error:  # what onnxruntime says to a range or a weight without a number
            raise ValueError(f"{source} {NOT_FINITE} ({error})") from None
    _check_scales(out, source)


def _batches(images: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        yield prepare(images[start : start + BATCH])


def _check_scales(path: Path, source: Path) -> None:
    graph = onnx.load(path).graph
    names = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    scales = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in names]
    if not scales:
        raise ValueError(f"{source} has nothing that is computed in int8 ({', '.join(OPERATORS)}): ship it in fp32")
    if not all(np.isfinite(scale).all() for scale in scales):
        raise ValueError(f"{source} {NOT_FINITE}")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the converters' advice about their own preprocessing off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
