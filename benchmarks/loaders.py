"""A folder prepared by benchmarks/loader.py -> batches (images, labels), by this project and what it brings along."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import Batches, Build, Case
from benchmarks.pixels import documented, normalised, one_thread, planar


def decode_only(layout: str) -> Build:
    """Build a case that decodes with libjpeg-turbo and keeps nothing: the rate that bounds every loader here."""
    return functools.partial(_decode_only, layout)


def _decode_only(layout: str, work: Path, threads: int, batch: int) -> Batches:
    import simplejpeg

    from fastface.data.index import Index
    from fastface.data.plans import Shuffled
    from fastface.data.shards import ShardReader

    index = Index.open(work / "shards")
    reader, plan = ShardReader(index), Shuffled(index.num_samples, batch, seed=0)

    def decode(blobs: list[np.ndarray]) -> None:
        for blob in blobs:
            simplejpeg.decode_jpeg(blob, layout)

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


def fastface(decoder: str, images: int | None = None, augment: str = "none", **options: Any) -> Build:
    """Build a case of this project's loader: `images` of each identity, a preset of augmentation, further options."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from fastface.data.augment import Augment
        from fastface.data.augment.presets import operators
        from fastface.data.index import Index
        from fastface.data.loader import Loader
        from fastface.data.plans import PerIdentity, Shuffled

        for package in ["numba", "nvidia.dali"][: 2 if decoder == "dali-cpu" else 1]:
            with contextlib.suppress(ImportError):
                importlib.import_module(package)  # counted as import, as for every other loader

        torch.set_num_threads(1)

        def batches() -> Batches:
            index = Index.open(work / "shards")
            assert index.image_size
            plan = PerIdentity(index, images, batch, 0) if images else Shuffled(index.num_samples, batch, seed=0)
            loader = Loader(
                index,
                plan,
                augment=Augment(0.5, operators(augment)),
                decoder=decoder,
                size=index.image_size,
                micro_batch=batch,
                threads=threads,
                check_crc=True,
                **options,
            )
            for item in loader.batches():
                yield item.images, item.labels

        return batches()

    return build


def imagefolder(work: Path, threads: int, batch: int) -> Batches:
    """Build torchvision's ImageFolder and torch's DataLoader as their documentation shows."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    transform = documented()
    torch.set_num_threads(1)

    def batches() -> Batches:
        dataset = ImageFolder(str(work / "images"), transform)
        yield from DataLoader(dataset, batch, shuffle=True, num_workers=threads, drop_last=True)

    return batches()


def imagefolder_tuned(work: Path, threads: int, batch: int) -> Batches:
    """Decode with torchvision's decoder and mirror in the workers; normalise batches in the main process."""
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    def load(path: str) -> Tensor:
        return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)

    torch.set_num_threads(1)

    def batches() -> Batches:
        dataset = ImageFolder(str(work / "images"), T.RandomHorizontalFlip(), loader=load)
        loader = DataLoader(
            dataset,
            batch,
            shuffle=True,
            num_workers=threads,
            drop_last=True,
            prefetch_factor=4,
            persistent_workers=True,
        )
        yield from normalised(loader)

    return batches()


def webdataset_documented(work: Path, threads: int, batch: int) -> Batches:
    """Build webdataset's pipeline and WebLoader as its documentation shows."""
    import webdataset

    transform = documented()
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
    """Give webdataset the fastest decoder, mirror in the workers; normalise whole batches in the main process."""
    import webdataset
    from torch.utils.data import default_collate

    one_thread()

    def batches() -> Batches:
        shards = sorted(str(path) for path in (work / "shards").glob("*.tar"))
        dataset = (
            webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False)
            .shuffle(1000)
            .to_tuple("jpg", "cls")
            .map_tuple(planar, int)
            .batched(batch, collation_fn=default_collate, partial=False)
        )
        yield from normalised(webdataset.WebLoader(dataset, batch_size=None, num_workers=threads))

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
    "decode only": Case(decode_only("RGB"), delivers="nothing"),
    "decode only, four bytes a pixel": Case(decode_only("RGBX"), delivers="nothing"),
    "fastface torch": Case(fastface("torch")),
    "fastface torch, uint8": Case(fastface("torch", output="uint8"), delivers="uint8"),
    "fastface torch, P x K": Case(fastface("torch", images=4)),
    "fastface torch, preset recognition": Case(fastface("torch", augment="recognition"), augments=True),
    "fastface torch, no numba": Case(fastface("torch"), {"NUMBA_DISABLE_JIT": "1"}),
    "fastface cached": Case(fastface("torch", cache="memory"), epochs_before=1),
    "fastface cached, uint8": Case(
        fastface("torch", cache="memory", output="uint8"), delivers="uint8", epochs_before=1
    ),
    "fastface dali-cpu": Case(fastface("dali-cpu"), needs=("nvidia.dali",)),
    "DALI webdataset reader": Case(dali_reader, needs=("nvidia.dali",), reads=("idx",)),
    "webdataset": Case(webdataset_documented),
    "webdataset, tuned": Case(webdataset_tuned, needs=("cv2",)),
    "ImageFolder + DataLoader": Case(imagefolder, reads=("images",)),
    "ImageFolder + DataLoader, tuned": Case(imagefolder_tuned, reads=("images",)),
}
