"""A model and a shard set -> the folder of their embeddings, by any number of processes, going on after a kill."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from fastface import dist
from fastface.data.damage import Bad, BadImage, describe
from fastface.data.embeddings import write_embeddings
from fastface.data.headers import Rejected
from fastface.data.image_sets import decode_stored
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.embedding_progress import UNFINISHED, Progress, already_there, collect_failed, prepare, write_failed
from fastface.evaluators import check_image_size
from fastface.inherited import digest_of
from fastface.metrics.scores import usable
from fastface.predictor import Embedder, find_checkpoint, load_embedder, read_network
from fastface.run_folder import hold

FLUSH_ROWS, FLUSH_S = 4_096, 30.0
"""What a kill may cost: so many images of each process, or so much time."""


def embed_shards(
    model: Path, shards: str, out: Path, *, device: str = "cpu", batch_size: int = 128, threads: int | None = None
) -> str:
    """Embed every image of a shard set into the folder `out`; return a report.

    Row i is record i, as the model gives it, flip included; NaN where an image failed. Images are decoded as
    deployment does. Each process embeds whole batches, so rows do not depend on their number, nor on kills. threads:
    of each process, to decode and, on a CPU, to compute; default: the cores, shared by the machine's processes.

    Raises:
        ValueError: for a model or set that is missing or does not fit, and a folder with other embeddings in it.
        OSError: where the disk has too little room.
        KeyboardInterrupt: having been asked to stop; its text says what is kept.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}; it must be 1 or more")
    own = threads or max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
    torch.set_num_threads(own)
    with dist.processes():
        where = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
        embedder, digest = open_model(model, where, own)
        index = Index.open(shards)
        check_image_size(index, embedder.card.input_size)
        about = identity_of(embedder, digest, index, batch_size, torch.device(where).type)
        return embed_into(out, embedder, index, about, own)


def open_model(model: Path, device: str, threads: int | None = None) -> tuple[Embedder, str]:
    """Load a RUN, step folder or .onnx file with the SHA-256 of its weights (of an .onnx file: of all of it)."""
    if model.suffix != ".onnx":
        return load_embedder(model, device=device), weights_digest(model)
    if device != "cpu":
        raise ValueError(f"an .onnx file runs on the CPU: leave out --device {device}, or give the RUN of {model}")
    return load_embedder(model, threads=threads), weights_digest(model)


def weights_digest(model: Path) -> str:
    """Return the SHA-256 of the weights of a RUN or step folder; of an .onnx file, of all of it."""
    if model.suffix != ".onnx":
        return digest_of(read_network(find_checkpoint(model).path))
    with open(model, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(embedder: Embedder, digest: str, index: Index, batch_size: int, device: str) -> dict[str, Any]:
    """Say what the bits of the rows depend on; what is the same may be joined in one folder."""
    card = embedder.card
    keys = ("input_size", "mean", "std", "crop", "flip", "centre")
    model = {"sha256": digest, **{key: getattr(card, key) for key in keys}}
    about = {"dataset_id": index.dataset_id, "model": model, "batch_size": batch_size, "device": device}
    return json.loads(json.dumps(about))


def embed_into(out: Path, embedder: Embedder, index: Index, identity: dict[str, Any], threads: int) -> str:
    """Embed what is not done yet of `out`, as `embed_shards`; identity: see `identity_of`."""
    if not len(index):
        raise ValueError(f"{index.path} holds no images")
    width_px, height_px = embedder.card.input_size
    width = embedder(np.zeros((1, height_px, width_px, 3), np.uint8)).shape[1]
    num, size = len(index), identity["batch_size"]
    finished, lock = _start(out, identity, index, width)
    if finished:
        return f"{out}: nothing to do, it holds the embeddings of these {num:,} images by this model already"
    with lock or contextlib.nullcontext(), contextlib.closing(Progress(out, num, width, size)) as progress:
        before, began = progress.rows_done(), time.monotonic()
        stopped = _fill(progress, embedder, index, threads, _bar(out, num, before))
        if stopped:
            kept = f"{progress.rows_done():,} of {num:,} embeddings are kept in {out}"
            raise KeyboardInterrupt(f"stopped: {kept}; the same command goes on from here")
        if not dist.is_main():
            return ""
        seconds, added = time.monotonic() - began, num - before
        failed = collect_failed(out)
        if len(failed) == num:
            raise ValueError(f"none of the {num:,} images of {index.path} could be embedded; the first: {failed[0]}")
        rate = added / max(seconds, 1e-9)
        last = {"images": added, "seconds": seconds, "images_per_s": rate, "processes": dist.world()}
        about = {"shards": str(index.path), "origin": embedder.origin, **identity, "failed": len(failed)}
        write_failed(out, failed)
        write_embeddings(out, None, index.label, index.names, index.classes, {**about, "last_start": last})
    shutil.rmtree(out / UNFINISHED)
    lines = [f"{out}: {num:,} embeddings of {width} values, by {embedder.origin} (flip {embedder.card.flip})"]
    lines += [f"{added:,} images in {seconds:,.1f} s, {rate:,.0f} images/s, {dist.world()} process(es)"]
    if failed:
        where = f"{out}/failed.csv; the first: {failed[0]}"
        lines += [f"! {len(failed):,} of {num:,} images failed, their rows are NaN: {where}"]
    return "\n".join(lines)


def _fill(progress: Progress, embedder: Embedder, index: Index, threads: int, bar: tqdm) -> bool:
    """Embed this process's share of what is not done, on rank 0 wait for the others; say whether asked to stop."""
    width, height = embedder.card.input_size
    # Each process takes batches that follow one another: it reads its shards in order, and no other's.
    mine = np.array_split(np.flatnonzero(~progress.done()), dist.world())[dist.rank()]
    dist.barrier()  # all have seen the same state before anything is added to it
    stop, flushed = dist.StopRequest(), time.monotonic()
    with bar, contextlib.closing(stop):
        for loaded in _load(index, mine, progress.batch_size, (height, width), threads):
            progress.put(loaded.batch, *_rows(embedder, index, loaded, progress.width))
            if stop.signal or progress.waiting >= FLUSH_ROWS or time.monotonic() - flushed > FLUSH_S:
                progress.flush()
                flushed = time.monotonic()
            bar.update(min(progress.rows_done() + progress.waiting, progress.num_rows) - bar.n)
            if stop.signal:
                break
        progress.flush()
        while dist.is_main() and not stop.signal and not progress.done().all():
            bar.update(progress.rows_done() - bar.n)
            time.sleep(0.2)  # for the others; if one dies, the launcher stops this one
    return bool(stop.signal)


def _start(out: Path, identity: dict[str, Any], index: Index, width: int) -> tuple[bool, Any]:
    """Let rank 0 prepare the folder; return whether there is nothing to do, and the lock."""
    finished, lock, problem = False, None, None
    if dist.is_main():
        try:
            finished = already_there(out, identity)
            if not finished:
                (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
                lock = hold(out / UNFINISHED)
                others = 4 * len(index) + index.names.data.nbytes + index.names.start.nbytes
                prepare(out, identity, len(index), width, identity["batch_size"], others)
        except (ValueError, OSError) as error:
            problem = error
            if lock is not None:
                lock.close()
    finished, failed = dist.share((finished, problem is not None))
    if problem is not None:
        raise problem
    if failed:
        sys.exit(2)  # rank 0 says why
    return finished, lock


class _Loaded(NamedTuple):
    batch: int
    records: np.ndarray  # int64 [B]
    pictures: np.ndarray  # uint8 [n, H, W, 3], those that could be read
    there: np.ndarray  # bool [B], which those are
    failed: list[Bad]


def _load(index: Index, batches: np.ndarray, size: int, shape: tuple[int, int], threads: int) -> Iterator[_Loaded]:
    """Yield batches of pictures in order, decoded by `threads` that are two batches ahead each."""

    def load(batch: int) -> _Loaded:
        records = np.arange(batch * size, min((batch + 1) * size, len(index)))
        pictures, there, failed = np.empty((len(records), *shape, 3), np.uint8), np.zeros(len(records), bool), []
        # Opened for this batch and then forgotten: what was read of a mapped shard counts as memory until unmapped.
        reader = ShardReader(index, check_crc=True, tolerant=True)
        for row, record in enumerate(records.tolist()):
            try:
                picture = decode_stored(reader.view(record))
            except BadImage as error:
                failed.append(describe(index, record, error.reason))
                continue
            except Rejected as error:
                failed.append(describe(index, record, str(error)))
                continue
            if picture.shape[:2] != shape:
                found = f"it has {picture.shape[1]}x{picture.shape[0]} pixels, not {shape[1]}x{shape[0]}"
                failed.append(describe(index, record, found))
                continue
            pictures[int(there.sum())] = picture
            there[row] = True
        return _Loaded(batch, records, pictures[: int(there.sum())], there, failed)

    ahead: deque[Future[_Loaded]] = deque()
    with ThreadPoolExecutor(threads, "embedding-decode") as pool:
        try:
            for batch in batches.tolist():
                ahead.append(pool.submit(load, batch))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _rows(embedder: Embedder, index: Index, loaded: _Loaded, width: int) -> tuple[np.ndarray, list[Bad]]:
    """Embed a batch: float32 [B, width], NaN where an image failed, and those that failed."""
    rows = np.full((len(loaded.records), width), np.nan, np.float32)
    if len(loaded.pictures):
        rows[loaded.there] = embedder(loaded.pictures)
    odd = loaded.records[loaded.there & ~usable(rows)]
    rows[~usable(rows)] = np.nan
    return rows, loaded.failed + [describe(index, int(i), "its embedding is zero or not finite") for i in odd]


def _bar(out: Path, total: int, done: int) -> tqdm:
    """Show rank 0's bar on a terminal, and in a log a line every 30 s."""
    interval = 0.2 if sys.stderr.isatty() else 30
    hidden = not dist.is_main()
    return tqdm(total=total, initial=done, desc=out.name, unit=" images", mininterval=interval, disable=hidden)
