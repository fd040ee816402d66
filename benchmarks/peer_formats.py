"""A folder prepared by loader.py -> batches, by peers with formats of their own: FFCV, litdata, MDS, RecordIO."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.case import Batches, Build, Case
from benchmarks.pixels import documented, normalise, normalised, one_thread, planar, split_channels


def ffcv(mode: str, way: str) -> Build:
    """Build FFCV's loader over its .beton; way "documented", "tuned" or "uint8" (its pixels as they are)."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

        one_thread()

        def batches() -> Batches:
            scale = np.full(3, 127.5)
            if way == "documented":
                end = [NormalizeImage(scale, scale, np.float32), ToTensor(), ToTorchImage(channels_last=False)]
            else:
                end = [ToTensor()]
            loader = Loader(
                str(work / f"ffcv-{mode}/set.beton"),
                batch_size=batch,
                num_workers=threads,
                order=OrderOption.RANDOM,
                os_cache=True,
                seed=0,
                drop_last=True,
                pipelines={
                    "image": [SimpleRGBImageDecoder(), RandomHorizontalFlip(), *end],
                    "label": [IntDecoder(), ToTensor(), Squeeze(1)],
                },
            )
            if way == "documented":
                yield from loader
            else:
                yield from ready(loader, way)

        return batches()

    return build


def ready(batches: Any, way: str) -> Batches:
    """Hand on batches of uint8 [B, H, W, 3], or normalise them: several times faster than FFCV does on a CPU."""
    planes = out = None
    for images, labels in batches:
        torch.set_num_threads(1)  # FFCV has set it to its own number
        if way == "uint8":
            yield images.permute(0, 3, 1, 2), labels
            continue
        if planes is None or out is None:
            count, height, width, channels = images.shape
            planes = torch.empty(count, channels, height, width, dtype=torch.uint8)
            out = torch.empty(planes.shape)
        yield normalise(split_channels(images, planes), out), labels


def litdata(tuned: bool) -> Build:
    """Build litdata's streaming over local chunks: of images, which it decodes, or of bytes, which we decode."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from litdata import StreamingDataLoader, StreamingDataset
        from torchvision import transforms as T

        # litdata hands out a JPEG as a decoded uint8 tensor
        change = [T.RandomHorizontalFlip(), T.ConvertImageDtype(torch.float32), T.Normalize([0.5] * 3, [0.5] * 3)]
        transform = planar if tuned else T.Compose(change)

        class Samples(StreamingDataset):
            def __getitem__(self, record: Any) -> tuple[Any, int]:
                sample = super().__getitem__(record)
                return transform(sample["image"]), sample["label"]

        one_thread()

        def batches() -> Batches:
            folder = work / ("litdata-bytes" if tuned else "litdata-image")
            dataset = Samples(str(folder), shuffle=True, drop_last=True, seed=0)
            loader = StreamingDataLoader(
                dataset, batch_size=batch, num_workers=threads, shuffle=True, worker_init_fn=one_thread
            )
            yield from normalised(loader) if tuned else loader

        return batches()

    return build


def mosaic(tuned: bool) -> Build:
    """Build mosaicml-streaming over local MDS shards: of images, or of bytes that we decode."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        transform = planar if tuned else documented()

        class Samples(StreamingDataset):
            def __getitem__(self, record: Any) -> tuple[Any, int]:
                sample = super().__getitem__(record)
                return transform(sample["image"]), sample["label"]

        one_thread()

        def batches() -> Batches:
            clean_stale_shared_memory()  # of a run that was ended, which would stop this one
            folder = work / ("mds-bytes" if tuned else "mds-image")
            dataset = Samples(local=str(folder), shuffle=True, batch_size=batch, shuffle_seed=0)
            loader = StreamingDataLoader(dataset, batch_size=batch, num_workers=threads, worker_init_fn=one_thread)
            yield from normalised(loader) if tuned else loader

        return batches()

    return build


class RecordIO(Dataset):
    """Read records at random as InsightFace's trainers do, without MXNet, whose last release was in 2022."""

    def __init__(self, folder: Path, decoder: str) -> None:
        self.path, self.decoder, self.transform, self.file = folder / "set.rec", decoder, documented(), None
        self.offsets = [int(line.split("\t")[1]) for line in (folder / "set.idx").read_text().splitlines()]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, record: int) -> tuple[Tensor, int]:
        from PIL import Image

        if self.file is None:  # every worker opens its own
            self.file = open(self.path, "rb")
        self.file.seek(self.offsets[record])
        _, length = struct.unpack("<II", self.file.read(8))
        content = self.file.read(length)
        label = int(struct.unpack_from("<f", content, 4)[0])
        if self.decoder == "pil":
            image = Image.open(io.BytesIO(content[24:])).convert("RGB")
        else:
            import cv2

            image = Image.fromarray(cv2.imdecode(np.frombuffer(content, np.uint8, offset=24), cv2.IMREAD_COLOR_RGB))
        return self.transform(image), label


def record_io(decoder: str) -> Build:
    """Build DataLoader over a RecordIO, decoding sample by sample."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        one_thread()

        def batches() -> Batches:
            dataset = RecordIO(work / "record-io", decoder)
            yield from DataLoader(
                dataset, batch, shuffle=True, num_workers=threads, drop_last=True, worker_init_fn=one_thread
            )

        return batches()

    return build


# Where numba finds TBB (OpenCV's packages bring it), one of two threads did nine tenths of FFCV's work.
OPENMP = {"NUMBA_THREADING_LAYER": "omp"}
TUNED = OPENMP | {"OMP_WAIT_POLICY": "PASSIVE"}  # else its threads spin while they wait, beside the main thread's work

CASES: dict[str, Case] = {
    "FFCV raw": Case(ffcv("raw", "documented"), OPENMP, needs=("ffcv",), reads=("ffcv-raw",)),
    "FFCV raw, tuned": Case(ffcv("raw", "tuned"), TUNED, needs=("ffcv", "cv2"), reads=("ffcv-raw",)),
    "FFCV raw, tuned, uint8": Case(ffcv("raw", "uint8"), TUNED, "uint8", ("ffcv",), ("ffcv-raw",)),
    "FFCV JPEG": Case(ffcv("jpg", "documented"), OPENMP, needs=("ffcv",), reads=("ffcv-jpg",)),
    "FFCV JPEG, tuned": Case(ffcv("jpg", "tuned"), TUNED, needs=("ffcv", "cv2"), reads=("ffcv-jpg",)),
    "litdata": Case(litdata(False), needs=("litdata",), reads=("litdata-image",)),
    "litdata, tuned": Case(litdata(True), needs=("litdata", "cv2"), reads=("litdata-bytes",)),
    "mosaicml-streaming": Case(mosaic(False), needs=("streaming",), reads=("mds-image",)),
    "mosaicml-streaming, tuned": Case(mosaic(True), needs=("streaming", "cv2"), reads=("mds-bytes",)),
    "RecordIO, PIL": Case(record_io("pil"), reads=("record-io",)),
    "RecordIO, OpenCV": Case(record_io("cv2"), needs=("cv2",), reads=("record-io",)),
}
