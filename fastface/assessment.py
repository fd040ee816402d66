"""A model and pairs -> a report, metrics.json, pairs.csv and a picture, with baselines beside it where asked."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface import checkpoint
from fastface.card import Card
from fastface.config import EvalSet
from fastface.evaluation import Embed, Result, format_report, raw_pixels
from fastface.evaluators import PairSet, evaluate_on, open_pairs
from fastface.matching import assess_matcher
from fastface.metrics.attributes import Sides, groups_by_attribute, groups_of_pairs, read_attributes, unused_rows
from fastface.metrics.breakdown import breakdown, format_breakdown
from fastface.metrics.curve import calibrate
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.pairs import write_pairs
from fastface.metrics.pictures import verification_picture
from fastface.predictor import find_checkpoint, load_embedder, load_network, module_embedder


def assess(
    checkpoint: Path,
    *,
    images: Path | None,
    pairs: str,
    bin: Path | None,  # the flag's name
    crop: str,
    flip: str | None,
    compat: str | None,
    baselines: bool,
    seed: int,
    batch_size: int,
    device: str,
    out: Path | None,
    embeddings: Sequence[Path] = (),
    det: bool = False,
    attributes: Path | None = None,
    at_fmr: float = 1e-2,
) -> str:
    """Evaluate and write everything down; return what belongs on the screen.

    Raises:
        ValueError: for a model, image set or pairs file that is missing or does not fit.
    """
    if embeddings:
        if images or bin or flip or compat or baselines:
            raise ValueError(
                "--embeddings are compared as they are: give --pairs, --seed, --device and --out with them"
            )
        return assess_matcher(checkpoint, embeddings=embeddings, pairs=pairs, seed=seed, device=device, out=out)
    embedder = load_embedder(checkpoint, device=device)
    card = embedder.card
    if flip:
        card = card.model_copy(update={"flip": flip})
        embedder.card = card
    if compat and card.flip != "sum" and not flip:
        raise ValueError(f"--compat {compat} adds the mirrored image's embedding: give --flip sum (or none, knowingly)")
    opened = open_pairs(_settings(images, pairs, bin, crop), card, seed=seed)
    sides = groups_of_pairs(opened.pairs)
    if attributes is not None:
        table = read_attributes(attributes)
        sides |= groups_by_attribute(opened.pairs, table, opened.images)
    embedders: dict[str, Embed] = {"trained" if baselines else "model": embedder}
    if baselines:
        if checkpoint.suffix != ".onnx":
            untrained = load_network(find_checkpoint(checkpoint), trained=False)
            embedders["untrained"] = module_embedder(untrained, card, device, origin="the untrained network")
        embedders["raw pixels"] = raw_pixels()
    results: dict[str, Result] = {}
    for name, embed in embedders.items():
        learned = name in ("trained", "model")
        centre = card.centre and learned and not compat  # their protocol knows no mean subtraction
        rules = {"centre": centre, "compat": compat if learned else None}
        # Pairs of one kind have an accuracy and nothing else; small files of examples are like that.
        results[name] = evaluate_on(opened, embed, batch=batch_size, one_kind=True, **rules)
    for result in results.values() if sides else ():
        break_down(result, sides, at_fmr, opened)
    folder = out or run_folder_of(checkpoint) / "eval" / set_name(images, pairs, bin)
    write_down(folder, opened, results, card, checkpoint, det=det)
    lines = [f"{embedder.origin} on {opened.about}", "", format_report(results)]
    first = next(iter(results.values()))
    lines += ["", "folds  " + " ".join(f"{100 * a:.2f}" for a in first.details["accuracy"]["folds"])]
    for title, found in first.details.get("breakdown", {}).items():
        lines += ["", format_breakdown(title, found)]
    if attributes is not None and (unused := unused_rows(opened.pairs, table, opened.images)):
        lines += ["", f"{unused:,} of {len(table.names):,} rows of {attributes} name nothing in these pairs"]
    lines += [f"written: {folder}/metrics.json, pairs.csv, verification.png"]
    return "\n".join(lines)


def break_down(result: Result, sides: dict[str, Sides], at_fmr: float, opened: PairSet) -> None:
    """Add to a result's details, by attribute, the rates of each group at the threshold of one FMR on all pairs.

    Raises:
        ValueError: where pairs are all of one kind, so that no threshold can be chosen.
    """
    point = calibrate(result.scores, result.same, (at_fmr,))[0]
    first, second = (opened.images.identities[ids] for ids in opened.pairs[:2])
    persons = persons_of_pairs(first, second, result.same)[0]
    rule = f"FMR at most {at_fmr:g} on all these pairs"
    result.details["breakdown"] = {
        title: {"rule": rule, **breakdown(result.scores, result.same, groups, point.threshold, persons=persons)}
        for title, groups in sides.items()
    }


def write_down(
    folder: Path, opened: PairSet, results: dict[str, Result], card: Card, model: Path, *, det: bool = False
) -> None:
    """Write metrics.json, pairs.csv (with the scores' order) and verification.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"metrics": r.metrics, "details": r.details} for name, r in results.items()}
    content = {"model": str(model), "pairs": opened.about, "flip": card.flip, "centre": card.centre, **content}
    checkpoint.write_json(folder / "metrics.json", content)
    write_pairs(folder / "pairs.csv", opened.pairs, opened.images.name)
    curves = {name: (r.scores, r.same) for name, r in results.items()}
    verification_picture(folder / "verification.png", curves, training_losses(model), det=det, title=opened.title)


def run_folder_of(model: Path) -> Path:
    """Return where results about a model belong: its run folder, or the folder of its .onnx file."""
    if model.suffix == ".onnx":
        return model.parent
    return model if (model / "checkpoints").is_dir() else model.parent.parent


def set_name(images: Path | None, pairs: str, bin: Path | None) -> str:
    """Name a set of pairs for a folder: lfw, or test for shards/demo/test, with the pairs file where one is given."""
    if bin is not None:
        return bin.stem
    assert images is not None
    return images.stem if pairs.isdecimal() else f"{images.stem}-{Path(pairs).stem}"


def training_losses(model: Path) -> np.ndarray | None:
    """Return the loss of every training step of a run folder, if that is what the model is."""
    log = run_folder_of(model) / "metrics.jsonl"
    if not log.is_file():
        return None
    losses = []
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a run still going may be half there
            losses += [row["loss"]] if "loss" in (row := json.loads(line)) else []
    return np.array(losses) if losses else None


def _settings(images: Path | None, pairs: str, bin: Path | None, crop: str) -> EvalSet:
    if (images is None) == (bin is None):
        raise ValueError("give --images DIR_OR_SHARDS (with --pairs FILE or a number) or --bin FILE")
    try:
        cut = crop if crop in ("as-trained", "none") else float(crop)
    except ValueError:
        raise ValueError(f"--crop {crop!r} is none of as-trained, none, or a fraction such as 0.5") from None
    return EvalSet(images=images, pairs=int(pairs) if pairs.isdecimal() else Path(pairs), bin=bin, crop=cut)  # type: ignore[arg-type]
