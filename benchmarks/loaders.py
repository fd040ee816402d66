"""A folder prepared by benchmarks/loader.py -> batches (images, labels), by each loader compared."""

from __future__ import annotations

import contextlib
import importlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Batches = Iterator[tuple[Any, Tensor]]


class Case(NamedTuple):
    """One row of the table."""

    build: Callable[[Path, int, int], Batches]  # (prepared folder, threads or workers, batch size)
    environment: dict[str, str] = {}  # noqa: RUF012 - of the process it runs in; never written to
    delivers: bool = True  # float32 images; decode only delivers nothing


def decode_only(work: Path, threads: int, batch: int) -> Batches:
    """Decode with libjpeg-turbo and keep nothing: the rate that bounds every loader here."""
    import simplejpeg

    from fastface.data.index import Index
    from fastface.data.plans import Shuffled
    from fastface.data.shards import ShardReader

    index = Index.open(work / "shards")
    reader, plan = ShardReader(index), Shuffled(index.num_samples, batch, seed=0)

    def decode(blobs: list[np.ndarray]) -> None:
        for blob in blobs:
            simplejpeg.decode_jpeg(blob)

    def batches() -> Batches:
        pool, waiting, step = ThreadPoolExecutor(threads), deque(), 0
        while True:
            records = plan[step].records
            waiting.append((pool.submit(decode, reader.views(records)), records))
            step += 1
            if len(waiting) > threads + 2:
                done, records = waiting.popleft()
                done.result()
                yield None, torch.from_numpy(index.label[records].astype(np.int64))

    torch.set_num_threads(1)
    return batches()


def fastface(decoder: str) -> Callable[[Path, int, int], Batches]:
    """Build a case of this project's loader."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from fastface.data.augment import Augment
        from fastface.data.index import Index
        from fastface.data.loader import Loader
        from fastface.data.plans import Shuffled

        for package in ["numba", "nvidia.dali"][: 2 if decoder == "dali-cpu" else 1]:
            with contextlib.suppress(ImportError):
                importlib.import_module(package)  # counted as import, as for every other loader

        torch.set_num_threads(1)

        def batches() -> Batches:
            index = Index.open(work / "shards")
            assert index.image_size
            plan = Shuffled(index.num_samples, batch, seed=0)
            loader = Loader(
                index,
                plan,
                augment=Augment(flip=0.5),
                decoder=decoder,
                size=index.image_size,
                micro_batch=batch,
                threads=threads,
                check_crc=True,
            )
            for item in loader.batches():
                yield item.images, item.labels

        return batches()

    return build


def imagefolder(work: Path, threads: int, batch: int) -> Batches:
    """Build torchvision's ImageFolder and torch's DataLoader as their documentation shows."""
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    transform = T.Compose([T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    torch.set_num_threads(1)

    def batches() -> Batches:
        dataset = ImageFolder(str(work / "images"), transform)
        yield from DataLoader(dataset, batch, shuffle=True, num_workers=threads, drop_last=True)

    return batches()


def imagefolder_tuned(work: Path, threads: int, batch: int) -> Batches:
    """Decode with torchvision's decoder in the workers; mirror and normalise batches in the main process."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    def load(path: str) -> Tensor:
        return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)

    torch.set_num_threads(1)

    def batches() -> Batches:
        dataset = ImageFolder(str(work / "images"), loader=load)
        loader = DataLoader(
            dataset,
            batch,
            shuffle=True,
            num_workers=threads,
            drop_last=True,
            prefetch_factor=4,
            persistent_workers=True,
        )
        out = None
        for images, labels in loader:
            out = torch.empty(images.shape) if out is None else out
            yield mirrored_and_normalised(images, out), labels

    return batches()


def mirrored_and_normalised(images: Tensor, out: Tensor) -> Tensor:
    """Finish uint8 [B, 3, H, W] in `out`, float32: recycled memory, eight images at a time in the cache."""
    rows = torch.nonzero(torch.rand(len(images)) < 0.5)[:, 0]
    images[rows] = images[rows].flip(-1)
    for source, target in zip(images.split(8), out.split(8), strict=True):
        target.copy_(source)
        target.sub_(127.5).mul_(1 / 127.5)
    return out


def webdataset_documented(work: Path, threads: int, batch: int) -> Batches:
    """Build webdataset's pipeline and WebLoader as its documentation shows."""
    import webdataset
    from torchvision import transforms as T

    transform = T.Compose([T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    torch.set_num_threads(1)

    def batches() -> Batches:
        shards = sorted(str(path) for path in (work / "shards").glob("*.tar"))
        dataset = (
            webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False)
            .shuffle(1000)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(transform, int)
            .batched(batch, partial=False)
        )
        yield from webdataset.WebLoader(dataset, batch_size=None, num_workers=threads)

    return batches()


def webdataset_tuned(work: Path, threads: int, batch: int) -> Batches:
    """Give webdataset the fastest decoder; mirror and normalise whole batches in the main process."""
    import simplejpeg
    import webdataset
    from torch.utils.data import default_collate

    def load(data: bytes) -> np.ndarray:
        return np.ascontiguousarray(simplejpeg.decode_jpeg(data).transpose(2, 0, 1))

    torch.set_num_threads(1)

    def batches() -> Batches:
        shards = sorted(str(path) for path in (work / "shards").glob("*.tar"))
        dataset = (
            webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False)
            .shuffle(1000)
            .to_tuple("jpg", "cls")
            .map_tuple(load, int)
            .batched(batch, collation_fn=default_collate, partial=False)
        )
        out = None
        for images, labels in webdataset.WebLoader(dataset, batch_size=None, num_workers=threads):
            out = torch.empty(images.shape) if out is None else out
            yield mirrored_and_normalised(images, out), labels

    return batches()


def dali_reader(work: Path, threads: int, batch: int) -> Batches:
    """Build a DALI pipeline on the CPU around its own webdataset reader."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    shards = sorted((work / "shards").glob("*.tar"))
    torch.set_num_threads(1)

    @pipeline_def(batch_size=batch, num_threads=threads, device_id=None, seed=0, prefetch_queue_depth=2)
    def pipeline() -> tuple[Any, Any]:
        encoded, label = fn.readers.webdataset(
            paths=[str(path) for path in shards],
            index_paths=[str(work / "idx" / f"{path.stem}.idx") for path in shards],
            ext=["jpg", "cls"],
            random_shuffle=True,
            initial_fill=1000,
            name="reader",
        )
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        mirror = fn.random.coin_flip()
        images = fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="CHW", mean=[127.5] * 3, std=[127.5] * 3, mirror=mirror
        )
        return images, fn.pad(label, shape=[9], fill_value=0)

    def batches() -> Batches:
        iterator = DALIGenericIterator(
            pipeline(), ["images", "label"], reader_name="reader", last_batch_policy=LastBatchPolicy.DROP
        )
        for (item,) in iterator:
            yield item["images"], numbers(item["label"])

    return batches()


def numbers(text: Tensor) -> Tensor:
    """Read decimal labels that arrive as text: uint8 [B, digits], zero where there is none."""
    value = torch.zeros(len(text), dtype=torch.int64)
    for column in text.long().unbind(1):
        value = torch.where(column > 0, value * 10 + column - ord("0"), value)
    return value


CASES: dict[str, Case] = {
    "decode only": Case(decode_only, delivers=False),
    "fastface torch": Case(fastface("torch")),
    "fastface torch, no numba": Case(fastface("torch"), {"NUMBA_DISABLE_JIT": "1"}),
    "fastface dali-cpu": Case(fastface("dali-cpu")),
    "DALI webdataset reader": Case(dali_reader),
    "webdataset": Case(webdataset_documented),
    "webdataset, tuned": Case(webdataset_tuned),
    "ImageFolder + DataLoader": Case(imagefolder),
    "ImageFolder + DataLoader, tuned": Case(imagefolder_tuned),
}
