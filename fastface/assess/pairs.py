"""A model and pairs -> a report, metrics.json, pairs.csv and a picture, with baselines beside it where asked."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface import checkpoint
from fastface.assess.page import write_report
from fastface.card import Card
from fastface.eval_settings import EvalSet
from fastface.evaluation import Embed, Result, format_report, raw_pixels
from fastface.evaluators import PairSet, evaluate_on, open_pairs
from fastface.metrics.attributes import Sides, groups_by_attribute, groups_of_pairs, read_attributes, unused_rows
from fastface.metrics.breakdown import breakdown, format_breakdown
from fastface.metrics.comparison import compare, format_comparison
from fastface.metrics.curve import calibrate
from fastface.metrics.pairs import write_pairs
from fastface.metrics.pictures import verification_picture
from fastface.predictor import find_checkpoint, load_embedder, load_network, module_embedder, run_folder_of


def assess(
    model: Path,
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
    det: bool = False,
    attributes: Path | None = None,
    at_fmr: float = 1e-2,
    against: Sequence[Path] = (),
    report: Path | None = None,
) -> str:
    """Evaluate and write everything down; return what belongs on the screen.

    report: also write a page to look at, report.html, into this folder, and the rest beside it.

    Raises:
        ValueError: for a model, image set or pairs file that is missing or does not fit.
    """
    if compat == "ijb-insightface":
        raise ValueError(
            "--compat ijb-insightface is for --protocol templates; for pairs there is --compat insightface"
        )
    embedder = load_embedder(model, device=device)
    card = embedder.card
    if flip:
        card = card.model_copy(update={"flip": flip})
        embedder.card = card
    if compat and card.flip != "sum" and not flip:
        raise ValueError(f"--compat {compat} adds the mirrored image's embedding: give --flip sum (or none, knowingly)")
    settings = _settings(images, pairs, bin, crop)
    opened = open_pairs(settings, card, seed=seed)
    sides = groups_of_pairs(opened.pairs)
    if attributes is not None:
        table = read_attributes(attributes)
        sides |= groups_by_attribute(opened.pairs, table, opened.images)
    rules = {"centre": card.centre and not compat, "compat": compat}  # their protocol knows no mean subtraction
    runs: dict[str, tuple[Embed, PairSet, dict[str, Any]]] = {}
    runs["trained" if baselines else "model"] = embedder, opened, rules
    if baselines:
        if model.suffix != ".onnx":
            untrained = load_network(find_checkpoint(model), trained=False)
            runs["untrained"] = module_embedder(untrained, card, device, origin="the untrained network"), opened, {}
        runs["raw pixels"] = raw_pixels(), opened, {}
    origins = {next(iter(runs)): embedder.origin}
    for rival in against:
        other = load_embedder(rival, device=device)
        name = f"against {rival.absolute().parent.name}/{rival.name}"  # a run's name is its time
        name = name if name not in runs else f"against {rival}"
        pairs_of_other = open_pairs(settings, other.card, seed=seed)  # cut and resized for that model
        runs[name] = other, pairs_of_other, {"centre": other.card.centre and not compat}
        origins[name] = other.origin
    # Pairs of one kind have an accuracy and nothing else; small files of examples are like that.
    results = {
        name: evaluate_on(pair_set, embed, batch=batch_size, one_kind=True, **options)
        for name, (embed, pair_set, options) in runs.items()
    }
    for result in results.values() if sides else ():
        break_down(result, sides, at_fmr)
    compared = compare_with_first(results)
    folder = out or report or run_folder_of(model) / "eval" / set_name(images, pairs, bin)
    write_down(folder, opened, results, card, model, compared=compared, det=det or report is not None)
    lines = [f"{embedder.origin} on {opened.about}", "", format_report(results)]
    first = next(iter(results.values()))
    lines += ["", "folds  " + " ".join(f"{100 * a:.2f}" for a in first.details["accuracy"]["folds"])]
    for name, found in compared.items():
        lines += ["", format_comparison(next(iter(results)), name, found)]
    for title, found in first.details.get("breakdown", {}).items():
        lines += ["", format_breakdown(title, found)]
    if attributes is not None and (unused := unused_rows(opened.pairs, table, opened.images)):
        lines += ["", f"{unused:,} of {len(table.names):,} rows of {attributes} name nothing in these pairs"]
    lines += [f"written: {folder}/metrics.json, pairs.csv, verification.png"]
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        sets = {name: pair_set for name, (_, pair_set, _) in runs.items()}
        write_report(report / "report.html", folder / "verification.png", sets, results, compared, origins)
        lines += [f"a page to look at: {report}/report.html"]
    return "\n".join(lines)


def compare_with_first(results: dict[str, Result]) -> dict[str, Any]:
    """Compare the first result with each of the others, on the same pairs; nothing where those are of one kind."""
    (_, first), *others = results.items()
    if first.same.all() or not first.same.any():
        return {}
    found = {}
    for name, other in others:
        assert np.array_equal(first.same, other.same), "results of different pairs"
        assert first.accepted is not None
        assert other.accepted is not None
        scores, accepted = np.stack([first.scores, other.scores]), np.stack([first.accepted, other.accepted])
        found[name] = compare(scores, accepted, first.same, persons=first.persons)
    return found


def break_down(result: Result, sides: dict[str, Sides], at_fmr: float) -> None:
    """Add to a result's details, by attribute, the rates of each group at the threshold of one FMR on all pairs.

    Raises:
        ValueError: where pairs are all of one kind, so that no threshold can be chosen.
    """
    point = calibrate(result.scores, result.same, (at_fmr,))[0]
    rule = f"FMR at most {at_fmr:g} on all these pairs"
    result.details["breakdown"] = {
        title: {"rule": rule, **breakdown(result.scores, result.same, groups, point.threshold, persons=result.persons)}
        for title, groups in sides.items()
    }


def write_down(
    folder: Path,
    opened: PairSet,
    results: dict[str, Result],
    card: Card,
    model: Path,
    *,
    compared: dict[str, Any],
    det: bool = False,
) -> None:
    """Write metrics.json, pairs.csv (with the scores' order) and verification.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"metrics": r.metrics, "details": r.details} for name, r in results.items()}
    content = {"model": str(model), "pairs": opened.about, "flip": card.flip, "centre": card.centre, **content}
    content |= {"first_minus": compared} if compared else {}
    checkpoint.write_json(folder / "metrics.json", content)
    write_pairs(folder / "pairs.csv", opened.pairs, opened.images.name)
    curves = {name: (r.scores, r.same) for name, r in results.items()}
    verification_picture(folder / "verification.png", curves, training_losses(model), det=det, title=opened.title)


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
