"""Embeddings -> their nearest neighbours by cosine, through FAISS: exact, or approximate with its recall measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastface.durable import write_durably
from fastface.metrics.scores import usable

Kind = Literal["flat", "ivf", "hnsw", "pq"]
"""flat: exact. ivf: lists around centroids; hnsw: a graph; pq: codes of a byte per 8 values, the least memory."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 65_536  # rows scaled and added at a time: 128 MB of 512 values
QUERIES = 4_096  # at a time, so that k lists of them stay small
SPARE = 8  # candidates beyond those asked for: FAISS's float32 may order the end of a list otherwise
SCORED_BYTES = 1 << 21  # of float64 rows that are scored at a time: half the time of 64 MB, which leave the caches
GPU_SCRATCH = 256 << 20  # bytes of a GPU's memory beside the rows, where training has the rest; FAISS takes 1.5 GB
GPU_MOST = 2_048  # neighbours that FAISS finds on a GPU (faiss/gpu, utils/DeviceDefs.cuh)


class Found(NamedTuple):
    """The nearest rows of each query, the likest first; ties by the smaller id."""

    scores: np.ndarray  # float32 [Q, k]: the float64 product of unit rows, rounded; -inf where there are no more
    ids: np.ndarray  # int64 [Q, k]; -1 where there are no more


class Search:
    """Rows [N, D] that can be searched by cosine. Rows without direction (zero, not finite) are never found.

    FAISS proposes candidates, and their scores are computed anew in float64: what is found does not depend on FAISS's
    arithmetic, on a CPU or a GPU.

    kind: see Kind; probes: lists that ivf looks at, or how far hnsw looks (efSearch); None: FAISS's way, 16 and 64.
    gpu: whether to search on the GPU (flat and ivf only); None: where there is one. device: on this one of several, for
    processes that have one each; None: on all. saved: a file that `save` wrote of the same rows.
    """

    def __init__(
        self,
        rows: np.ndarray,
        kind: Kind = "flat",
        *,
        probes: int | None = None,
        gpu: bool | None = None,
        device: int | None = None,
        seed: int = 0,
        saved: Path | None = None,
    ) -> None:
        self.kind, self.num, self.width = kind, len(rows), rows.shape[1]
        self.rows = rows
        self.index, self.lengths = _build(rows, kind, probes, seed) if saved is None else _opened(rows, kind, saved)
        self.on_gpu = _gpus() > 0 and kind in ("flat", "ivf") if gpu is None else gpu
        if self.on_gpu:
            self.index = _to_gpu(self.index, device)

    def __call__(self, queries: np.ndarray, k: int) -> Found:
        """Find the k nearest rows of queries [Q, D] that need no unit length; a query without direction finds none."""
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(f"queries {queries.shape} do not fit embeddings of {self.width} values")
        if not k > 0:
            raise ValueError(f"k is {k}; it must be 1 or more")
        if self.on_gpu and k > GPU_MOST:
            raise ValueError(f"k is {k}; on a GPU FAISS finds at most {GPU_MOST} neighbours: take fewer, or gpu=False")
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        wide = min(k + SPARE, self.num, GPU_MOST if self.on_gpu else self.num)
        for start in range(0, len(queries), QUERIES):
            part = np.asarray(queries[start : start + QUERIES])
            good = np.flatnonzero(usable(part))
            if len(good) and self.index.ntotal:
                found = self._scored(part[good], self.index.search(unit_rows(part[good]), wide)[1])
                width = min(k, wide)
                scores[start + good, :width], ids[start + good, :width] = (column[:, :width] for column in found)
        return Found(scores, ids)

    def _scored(self, queries: np.ndarray, ids: np.ndarray) -> Found:
        """Score candidates [Q, k] by the definition, and order them by falling score and then by id."""
        scores = np.full(ids.shape, -np.inf, np.float32)
        wide = queries.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        step = max(1, SCORED_BYTES // (8 * ids.shape[1] * self.width))
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            there = np.maximum(ids[part], 0)
            dots = np.einsum("qkd,qd->qk", np.asarray(self.rows[there], np.float64), wide[part])
            scores[part] = np.where(ids[part] < 0, -np.inf, dots / self.lengths[there] / lengths[part])
        order = np.lexsort((ids, -scores), axis=1)
        return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1))

    def save(self, path: Path) -> None:
        """Write the index, so that it need not be built again; of an index on a CPU."""
        import faiss

        assert not self.on_gpu
        write_durably(path, faiss.serialize_index(self.index).tobytes())

    def recall(self, k: int, queries: np.ndarray | None = None, *, most: int = 1_000, seed: int = 0) -> float:
        """Measure which share of the k true nearest rows is found, by queries [Q, D], or `most` of the rows, drawn."""
        if self.kind == "flat":
            return 1.0
        if queries is None:
            drawn = np.random.default_rng(seed).permutation(self.num)[:most]
            queries = np.asarray(self.rows[np.sort(drawn)])
        truth, found = Search(self.rows, "flat", gpu=self.on_gpu)(queries, k), self(queries, k)
        hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(truth.ids, found.ids, strict=True))
        return hits / max(int((truth.ids >= 0).sum()), 1)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: float32 [N, D], the length taken in float64."""
    wide = np.asarray(rows, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _build(rows: np.ndarray, kind: Kind, probes: int | None, seed: int) -> tuple[Any, np.ndarray]:
    """Make an index of the rows that have a direction; return it and the length of every row, float64 [N]."""
    import faiss

    num, width = rows.shape
    if kind == "flat":
        inner: Any = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        inner = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efSearch = probes or 64
    elif kind in ("ivf", "pq"):
        # Around 4 sqrt(N) lists, and the 39 rows that each needs to be trained on (faiss.wiki, Guidelines).
        lists = max(1, min(int(4 * num**0.5), num // 39))
        if kind == "ivf":
            inner = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        else:
            if width % 8:
                raise ValueError(
                    f"pq cuts embeddings into parts of 8 values, and theirs are {width}: take another kind"
                )
            if num < 256:
                raise ValueError(f"pq learns 256 codes, and there are {num} embeddings: take flat, which is exact")
            coarse = faiss.IndexFlatIP(width)
            inner = faiss.IndexIVFPQ(coarse, width, lists, width // 8, 8, faiss.METRIC_INNER_PRODUCT)
        inner.nprobe, inner.cp.seed = min(probes or 16, lists), seed + 1
        inner.cp.spherical = True
        drawn = np.sort(np.random.default_rng(seed).permutation(num)[: max(256 * lists, 65_536)])
        sample = np.asarray(rows[drawn])
        if not usable(sample).any():
            raise ValueError("none of the embeddings has a direction: all are zero or not finite")
        inner.train(unit_rows(sample[usable(sample)]))
    else:
        raise ValueError(f"there is no index {kind!r}; choose one of {', '.join(KINDS)}")
    index = inner if kind in ("ivf", "pq") else faiss.IndexIDMap(inner)
    lengths = np.full(num, np.nan)
    for good, part in _usable_parts(rows):
        index.add_with_ids(unit_rows(part), good)
        lengths[good] = np.linalg.norm(part.astype(np.float64), axis=1)
    return index, lengths


def _opened(rows: np.ndarray, kind: Kind, saved: Path) -> tuple[Any, np.ndarray]:
    """Read an index of the rows from a file; return it and the length of every row, float64 [N]."""
    import faiss

    try:
        index: Any = faiss.deserialize_index(np.fromfile(saved, np.uint8))
    except RuntimeError as error:  # FAISS's own
        raise ValueError(f"{saved} is no index that FAISS reads: {str(error).strip().splitlines()[-1]}") from None
    lengths = np.full(len(rows), np.nan)
    for good, part in _usable_parts(rows):
        lengths[good] = np.linalg.norm(part.astype(np.float64), axis=1)
    if index.ntotal != np.isfinite(lengths).sum() or index.d != rows.shape[1]:
        raise ValueError(f"{saved} is not the {kind} index of these {len(rows):,} embeddings: it has {index.ntotal:,}")
    return index, lengths


def _usable_parts(rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows that have a direction, some at a time: their numbers, int64 [n], and they, [n, D]."""
    for start in range(0, len(rows), CHUNK):
        part = np.asarray(rows[start : start + CHUNK])
        good = np.flatnonzero(usable(part))
        if len(good):
            yield (start + good).astype(np.int64), part[good]


def _gpus() -> int:
    import faiss

    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


def _to_gpu(index: Any, device: int | None) -> Any:
    import faiss

    if not _gpus():
        raise ValueError("FAISS sees no GPU here: leave out gpu, and it searches on the CPU")
    if device is None:
        return faiss.index_cpu_to_all_gpus(index)
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH)
    moved: Any = faiss.index_cpu_to_gpu(resources, device, index)
    moved.resources = resources  # the index does not keep what it works with
    return moved


def use_threads(count: int) -> None:
    """Let FAISS search with so many threads in this process: it does not follow torch's number."""
    import faiss

    faiss.omp_set_num_threads(count)
