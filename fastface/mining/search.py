"""Embeddings -> their nearest neighbours by cosine, through FAISS: exact, or approximate with its recall measured."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastface.metrics.scores import usable

Kind = Literal["flat", "ivf", "hnsw", "pq"]
"""flat: exact. ivf: lists around centroids; hnsw: a graph; pq: codes of a byte per 8 values, the least memory."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 65_536  # rows scaled and added at a time: 128 MB of 512 values
QUERIES = 4_096  # at a time, so that k lists of them stay small
GPU_SCRATCH = 256 << 20  # bytes of a GPU's memory beside the rows, where training has the rest; FAISS takes 1.5 GB
GPU_MOST = 2_048  # neighbours that FAISS finds on a GPU (faiss/gpu, utils/DeviceDefs.cuh)


class Found(NamedTuple):
    """The nearest rows of each query, the likest first; ties by the smaller id."""

    scores: np.ndarray  # float32 [Q, k], cosines; -inf where there are no more
    ids: np.ndarray  # int64 [Q, k]; -1 where there are no more


class Search:
    """Rows [N, D] that can be searched by cosine. Rows without direction (zero, not finite) are never found.

    kind: see Kind; probes: lists that ivf looks at, or how far hnsw looks (efSearch); None: FAISS's way, 16 and 64.
    gpu: whether to search on the GPU (flat and ivf only); None: where there is one. device: on this one of several, for
    processes that have one each; None: on all.
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
    ) -> None:
        self.kind, self.num, self.width = kind, len(rows), rows.shape[1]
        self.rows = rows
        self.index = _build(rows, kind, probes, seed)
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
        for start in range(0, len(queries), QUERIES):
            part = np.asarray(queries[start : start + QUERIES])
            good = np.flatnonzero(usable(part))
            if len(good) and self.index.ntotal:
                found = _ordered(*self.index.search(unit_rows(part[good]), min(k, self.num)))
                scores[start + good, : found.ids.shape[1]], ids[start + good, : found.ids.shape[1]] = found
        return Found(scores, ids)

    def recall(self, k: int, *, most: int = 1_000, seed: int = 0) -> float:
        """Measure which share of the k true nearest rows is found, over `most` rows drawn as queries."""
        if self.kind == "flat":
            return 1.0
        drawn = np.random.default_rng(seed).permutation(self.num)[:most]
        queries = np.asarray(self.rows[np.sort(drawn)])
        truth, found = Search(self.rows, "flat", gpu=self.on_gpu)(queries, k), self(queries, k)
        hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(truth.ids, found.ids, strict=True))
        return hits / max(int((truth.ids >= 0).sum()), 1)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: float32 [N, D], the length taken in float64."""
    wide = np.asarray(rows, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _build(rows: np.ndarray, kind: Kind, probes: int | None, seed: int) -> Any:
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
    for start in range(0, num, CHUNK):
        part = np.asarray(rows[start : start + CHUNK])
        good = np.flatnonzero(usable(part))
        if len(good):
            index.add_with_ids(unit_rows(part[good]), (start + good).astype(np.int64))
    return index


def _ordered(scores: np.ndarray, ids: np.ndarray) -> Found:
    """Order each list by falling score and then by id: FAISS leaves ties as they come."""
    scores = np.where(ids < 0, np.float32(-np.inf), scores)
    order = np.lexsort((ids, -scores), axis=1)
    return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1))


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
