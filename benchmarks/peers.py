"""A folder prepared by loader.py -> batches, by peers that read our shards: DataLoader, DALI, SPDL, grain."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peer_formats
from benchmarks.case import Batches, Build, Case
from benchmarks.pixels import Tars, decode_planar, documented, normalise, normalised, one_thread, planar


def dataloader_tuned(work: Path, threads: int, batch: int) -> Batches:
    """Let each worker decode a whole batch into one block of shared memory; normalise in the main process."""
    from torch.utils.data import DataLoader, Dataset

    class Decoded(Dataset):
        def __init__(self, tars: Tars) -> None:
            self.tars = tars

        def __len__(self) -> int:
            return len(self.tars)

        def __getitems__(self, records: list[int]) -> tuple[Tensor, Tensor]:
            blobs, labels = self.tars.take(np.array(records))
            images = torch.empty(len(blobs), 3, *self.tars.image_shape, dtype=torch.uint8).share_memory_()
            for blob, image in zip(blobs, images.numpy(), strict=True):
                decode_planar(blob, image)
            return images, labels

    one_thread()

    def batches() -> Batches:
        yield from normalised(
            DataLoader(
                Decoded(Tars(work)),
                batch,
                shuffle=True,
                num_workers=threads,
                drop_last=True,
                collate_fn=lambda whole: whole,
                worker_init_fn=one_thread,
            )
        )

    return batches()


def dali_external(kind: str, output: str) -> Build:
    """Build a DALI pipeline on the CPU fed with views of our tars; `kind` of pixels it makes, `output` after it."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        one_thread()

        def encoded() -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
            tars = Tars(work)
            for records in tars.shuffled(batch):
                blobs, labels = tars.take(records)
                yield blobs, labels.numpy()  # DALI looks for a GPU when it is given a tensor

        @pipeline_def(batch_size=batch, num_threads=threads, device_id=None, seed=0, prefetch_queue_depth=2)
        def pipeline() -> tuple[Any, Any]:
            data, label = fn.external_source(
                source=encoded(), num_outputs=2, batch=True, dtype=[types.UINT8, types.INT64], no_copy=True
            )
            images = fn.decoders.image(data, device="cpu", output_type=types.RGB)
            scale: Any = {"mean": [127.5] * 3, "std": [127.5] * 3} if kind == "float32" else {}
            dtype = types.FLOAT if kind == "float32" else types.UINT8
            mirror = fn.random.coin_flip()
            return fn.crop_mirror_normalize(images, dtype=dtype, output_layout="CHW", mirror=mirror, **scale), label

        def batches() -> Batches:
            made = ((item["images"], item["label"]) for (item,) in DALIGenericIterator(pipeline(), ["images", "label"]))
            yield from made if output == kind else normalised(made)

        return batches()

    return build


class Stage:
    """Decode whole batches in SPDL's threads, into memory that goes round."""

    def __init__(self, tars: Tars, batch: int, output: str, blocks: int) -> None:
        self.tars, self.output = tars, output
        self.free: SimpleQueue[Tensor] = SimpleQueue()
        height, width = tars.image_shape
        for _ in range(blocks):
            if output == "uint8":
                self.free.put(torch.zeros(batch, height, width, 3, dtype=torch.uint8))
            else:
                self.free.put(torch.zeros(batch, 3, height, width))

    def __call__(self, records: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the images and labels of records (int64 [B]); the images' memory is to go back to `free`."""
        import cv2
        import simplejpeg

        blobs, labels = self.tars.take(records)
        out = self.free.get()
        if self.output == "uint8":
            buffer = np.empty(out.shape[1:], np.uint8)
            for blob, image in zip(blobs, out.numpy(), strict=True):
                if random.getrandbits(1):
                    cv2.flip(simplejpeg.decode_jpeg(blob, buffer=buffer), 1, image)
                else:
                    simplejpeg.decode_jpeg(blob, buffer=image)
            return out, labels
        planes = torch.empty(out.shape, dtype=torch.uint8)
        for blob, image in zip(blobs, planes.numpy(), strict=True):
            decode_planar(blob, image)
        return normalise(planes, out), labels


def spdl_batches(output: str) -> Build:
    """Let SPDL schedule one stage that does all the work of a batch: what its speed is bounded by."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        from spdl.pipeline import PipelineBuilder

        one_thread()

        def batches() -> Batches:
            tars = Tars(work)
            stage = Stage(tars, batch, output, blocks=threads + 4)
            builder = PipelineBuilder().add_source(tars.shuffled(batch)).pipe(stage, concurrency=threads)
            pipeline = builder.add_sink(2).build(num_threads=threads)
            with pipeline.auto_stop():
                for images, labels in pipeline.get_iterator():
                    yield images.permute(0, 3, 1, 2) if output == "uint8" else images, labels
                    stage.free.put(images)

        return batches()

    return build


def spdl_documented(work: Path, threads: int, batch: int) -> Batches:
    """Decode with SPDL's own load_image_batch (FFmpeg) in its threads; mirror and normalise there."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    one_thread()

    def batches() -> Batches:
        tars = Tars(work)

        def load(records: np.ndarray) -> tuple[Tensor, Tensor]:
            blobs, labels = tars.take(records)
            data = [blob.tobytes() for blob in blobs]
            # without a filter that scales, or frames come with another range of values than the files'
            buffer = spdl.io.load_image_batch(data, width=None, height=None, filter_desc="format=pix_fmts=rgb24")
            images = spdl.io.to_torch(buffer).permute(0, 3, 1, 2).contiguous()
            rows = torch.nonzero(torch.rand(len(images)) < 0.5)[:, 0]
            images[rows] = images[rows].flip(-1)
            return normalise(images, torch.empty(images.shape)), labels

        builder = PipelineBuilder().add_source(tars.shuffled(batch)).pipe(load, concurrency=threads)
        pipeline = builder.add_sink(3).build(num_threads=threads)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    return batches()


def grain_documented(work: Path, threads: int, batch: int) -> Batches:
    """Build grain's chain over its ArrayRecord: shuffle, PIL and transforms for each sample, batch, processes."""
    import grain

    transform = documented()
    torch.set_num_threads(1)

    def load(record: bytes) -> tuple[np.ndarray, np.int64]:
        import io

        from PIL import Image

        image = transform(Image.open(io.BytesIO(record[4:])).convert("RGB"))
        return image.numpy(), np.int64(struct.unpack("<i", record[:4])[0])

    def batches() -> Batches:
        parse_flags()
        source: Any = grain.sources.ArrayRecordDataSource(str(work / "array-record/set.array_record"))
        # samples are read ahead, 500 by default, in 16 threads: batches, if they were made before, would be too
        dataset = grain.MapDataset.source(source).shuffle(0).map(load).to_iter_dataset()
        workers = grain.MultiprocessingOptions(num_workers=threads)
        for images, labels in dataset.batch(batch, drop_remainder=True).mp_prefetch(workers, one_thread):
            yield torch.from_numpy(images), torch.from_numpy(labels)

    return batches()


def decode_pair(sample: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.int64]:
    """Decode an encoded image of a grain source."""
    return planar(sample[0]), np.int64(sample[1])


def grain_tuned(processes: bool) -> Build:
    """Build grain over mapped tars with the fastest decoder; batching before reading makes whole batches its tasks."""

    def build(work: Path, threads: int, batch: int) -> Batches:
        import grain

        one_thread()

        def batches() -> Batches:
            parse_flags()
            dataset = grain.MapDataset.source(Tars(work)).shuffle(0).map(decode_pair).batch(batch, drop_remainder=True)
            if processes:
                reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
                workers = grain.MultiprocessingOptions(num_workers=threads, per_worker_buffer_size=2)
                made = dataset.to_iter_dataset(reading).mp_prefetch(workers)
            else:
                made = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4))
            yield from normalised((torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in made)

        return batches()

    return build


def parse_flags() -> None:
    """Do what absl.app.run would have done before grain starts processes."""
    from absl import flags

    flags.FLAGS(["loader"])


CASES: dict[str, Case] = {
    "DataLoader over tars, tuned": Case(dataloader_tuned, needs=("cv2",)),
    "DALI external source": Case(dali_external("float32", "float32"), needs=("nvidia.dali",)),
    "DALI external source, tuned": Case(dali_external("uint8", "float32"), needs=("nvidia.dali",)),
    "DALI external source, uint8": Case(dali_external("uint8", "uint8"), delivers="uint8", needs=("nvidia.dali",)),
    "SPDL": Case(spdl_documented, needs=("spdl",)),
    "SPDL, tuned": Case(spdl_batches("float32"), needs=("spdl", "cv2")),
    "SPDL, tuned, uint8": Case(spdl_batches("uint8"), delivers="uint8", needs=("spdl", "cv2")),
    "grain": Case(grain_documented, needs=("grain",), reads=("array-record",)),
    "grain, tuned, threads": Case(grain_tuned(False), needs=("grain", "cv2")),
    "grain, tuned, processes": Case(grain_tuned(True), needs=("grain", "cv2")),
    **peer_formats.CASES,
}
