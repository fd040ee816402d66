"""Embeddings, or a model and shards -> figures of all pairs: a report, metrics.json, histogram.csv and a picture."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from fastface import dist
from fastface.checkpoint import write_json
from fastface.data.embeddings import open_embeddings
from fastface.durable import write_durably
from fastface.embedding import embed_shards
from fastface.metrics.all_pairs import AllPairs, all_pairs
from fastface.metrics.all_pairs.picture import all_pairs_picture
from fastface.metrics.all_pairs.report import all_pairs_details, format_all_pairs
from fastface.metrics.verification import TARGETS


def assess_all(
    *,
    embeddings: Path | None = None,
    model: Path | None = None,
    images: Path | None = None,
    targets: Sequence[float] = TARGETS,
    precision: str = "float32",
    state: Path | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    out: Path | None = None,
) -> str:
    """Compare every image with every other; return what belongs on the screen, on the main process.

    With a model and shards the images are embedded into the folder `embeddings` first (default: OUT/embeddings). Runs
    under torchrun as well: the processes share the work.

    Raises:
        ValueError: for what is missing or does not fit, or embeddings without both kinds of pairs.
    """
    if images is not None:
        if model is None or (embeddings is None and out is None):
            raise ValueError("--images SHARDS --pairs all needs --checkpoint RUN, and --embeddings or --out FOLDER")
        embeddings = embeddings or (out or Path()) / "embeddings"
        embed_shards(model, str(images), embeddings, device=device, batch_size=batch_size)
    if embeddings is None:
        raise ValueError("--pairs all needs --embeddings FOLDER (of tools/embed.py), or --images SHARDS to embed")
    opened = open_embeddings(embeddings)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with dist.processes():
        found = all_pairs(
            opened.rows,
            opened.labels,
            targets,
            precision=precision,
            device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device,
            threads=max((os.cpu_count() or 1) // processes, 1),
            state=state,
            progress=embeddings.name,
        )
        if not dist.is_main():
            return ""
        folder = out or embeddings / "all-pairs"
        write_all(folder, found, embeddings)
    name = f"all pairs of {len(opened):,} embeddings"
    return f"{format_all_pairs(found, name)}\n\nwritten: {folder}/metrics.json, histogram.csv, verification.png"


def write_all(folder: Path, found: AllPairs, embeddings: Path) -> None:
    """Write the figures, the histogram by bins of 2^-15 that are not empty, and ROC and histogram as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", {"embeddings": str(embeddings), **all_pairs_details(found)})
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["score_from", "genuine", "impostors"])
    filled = found.histogram.any(axis=0)
    lines.writerows(zip(found.edges[:-1][filled], *found.histogram[:, filled].tolist(), strict=True))
    write_durably(folder / "histogram.csv", text.getvalue().encode())
    all_pairs_picture(folder / "verification.png", found, f"all pairs of {embeddings.name}")
