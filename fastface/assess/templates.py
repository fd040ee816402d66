"""A model and images, or embeddings, and lists of templates -> a report, metrics.json and a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface import checkpoint
from fastface.data.image_sets import ShardImages, open_images
from fastface.data.images import ImageSpec
from fastface.evaluation import Result, embed_images, format_report
from fastface.metrics.pairs import find_images
from fastface.metrics.pictures import verification_picture
from fastface.metrics.template_files import (
    Templates,
    folder_templates,
    join_splits,
    read_template_pairs,
    read_templates,
    with_detector_scores,
)
from fastface.metrics.templates import format_templates, template_figures
from fastface.predictor import load_embedder, run_folder_of

FOLDERS = "folders"  # in place of a file: each folder of images is a template


def assess_templates(
    model: Path | None,
    *,
    images: Path | None,
    embeddings: Path | None,
    templates: Sequence[str],
    template_pairs: Sequence[Path],
    detector_scores: Path | None,
    norm: str,
    crop: str,
    flip: str | None,
    compat: str | None,
    det: bool,
    batch_size: int,
    device: str,
    out: Path | None,
) -> str:
    """Evaluate template pairs, write everything down, and return what belongs on the screen.

    `templates` and `template_pairs` name a file each, or one for each split. embeddings [n, D] (.npy) come in the order
    of the lines of the template files; without them images are embedded.

    Raises:
        ValueError: for a file that is missing or does not fit, or a template or image that is not there.
    """
    if not templates or len(templates) != len(template_pairs):
        raise ValueError("give --templates and --template-pairs: a file each, or equally many, one for each split")
    if (embeddings is None) == (model is None or images is None):
        raise ValueError("give --checkpoint RUN and --images DIR_OR_SHARDS, or --embeddings FILE.npy")
    if embeddings is not None and out is None:
        raise ValueError("--embeddings needs --out, the folder for metrics.json and verification.png")
    if compat == "insightface":
        raise ValueError("--compat insightface is for pairs; for templates there is --compat ijb-insightface")
    source = None if model is None or images is None else _Source(model, images, device, crop, flip)
    parts = []
    for listed, compared in zip(templates, template_pairs, strict=True):
        if listed != FOLDERS:
            read = read_templates(Path(listed))
        elif source is None:
            raise ValueError("--templates folders needs --images, whose folders are meant")
        else:
            read = folder_templates([source.images.name(i) for i in range(len(source.images))])
        read = read if detector_scores is None else with_detector_scores(read, detector_scores)
        parts.append((read, read_template_pairs(compared, read)))
    joined, pairs = join_splits(parts)
    if source is None:
        assert embeddings is not None
        rows, origin = _read_embeddings(embeddings, joined), str(embeddings)
    else:
        rows, origin = source.embed(joined, batch_size), source.embedder.origin
    found, scores = template_figures(rows, joined, pairs, keep_norm=norm == "keep", compat=compat)
    result = Result(found.metrics, found.details, scores, pairs.same)
    if out is None:
        assert model is not None
        out = run_folder_of(model) / "eval" / Path(template_pairs[0]).stem
    _write(out, result, origin, [*map(str, templates), *map(str, template_pairs)], det=det)
    lines = [f"{origin} on templates of {', '.join(map(str, templates))}", "", format_report({"model": result})]
    return "\n".join([*lines, "", format_templates(result.details), f"written: {out}/metrics.json, verification.png"])


class _Source:
    """A model and the images that it embeds."""

    def __init__(self, model: Path, images: Path, device: str, crop: str, flip: str | None) -> None:
        self.embedder = load_embedder(model, device=device)
        card = self.embedder.card
        if flip:
            card = self.embedder.card = card.model_copy(update={"flip": flip})
        trained = card.crop if isinstance(card.crop, float) else None
        cut = trained if crop == "as-trained" else None if crop == "none" else float(crop)
        self.images = open_images(images, ImageSpec(size=card.input_size, crop=cut))
        if isinstance(card.crop, str) and crop == "as-trained" and not isinstance(self.images, ShardImages):
            raise ValueError(f"the model was trained on faces cut out by {card.crop}: give shards, or --crop none")

    def embed(self, templates: Templates, batch: int) -> np.ndarray:
        """Embed the images of the templates, each once, in their order: float32 [n, D]."""
        found = find_images(templates.names, self.images, self.images.where)
        ids = np.array([found[name] for name in templates.names])
        return embed_images(self.images, ids, self.embedder, batch, progress=f"templates in {self.images.where}")


def _read_embeddings(path: Path, templates: Templates) -> np.ndarray:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not an .npy file of embeddings: {error}") from None
    if rows.ndim != 2 or len(rows) != len(templates.names) or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(
            f"{path} holds {rows.dtype} {list(rows.shape)}, and the templates list {len(templates.names)} images: "
            "it must hold floats, a row for each line of the template files, in their order"
        )
    return rows


def _write(folder: Path, result: Result, origin: str, files: list[str], *, det: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": {"metrics": result.metrics, "details": result.details}}
    checkpoint.write_json(folder / "metrics.json", {"model_file": origin, "files": files, **content})
    verification_picture(folder / "verification.png", {"model": (result.scores, result.same)}, det=det)
