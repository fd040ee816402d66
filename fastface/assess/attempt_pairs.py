"""A recognition model, pairs, and the liveness scores of their images -> attempts on a system that uses both.

Of a pair a,b the first is before the camera and the second is enrolled. A live image makes a genuine attempt where both
are one person, and an impostor's where they are two; an attack counts where it shows the person who is enrolled.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.durable import write_durably
from fastface.eval_settings import EvalSet
from fastface.evaluators import evaluate_on, open_pairs
from fastface.metrics.full_system import Attempts, gather_attempts
from fastface.predictor import load_embedder

COLUMNS = ("name", "live", "attack")
NOT_SCORES = (*COLUMNS, "clip", "subject")


class Liveness(NamedTuple):
    """What scores.csv of --protocol liveness says of an image."""

    live: bool
    attack: str
    subject: str  # "" where it is not known
    score: float  # of the first model in the file; NaN where there is none


def read_liveness(path: Path) -> dict[str, Liveness]:
    """Read scores.csv by the names of the images. ValueError where it is none, or a name stands twice."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, header = list(reader), list(reader.fieldnames or [])
    except (OSError, csv.Error) as error:
        raise ValueError(f"The scores file {path} cannot be read: {error}.") from None
    models = [name for name in header if name not in NOT_SCORES]
    if not set(COLUMNS) <= set(header) or not models:
        raise ValueError(
            f"{path}: expected name,live,attack and a model's scores, as --protocol liveness writes them; "
            f"found {','.join(header)!r}."
        )
    found: dict[str, Liveness] = {}
    for number, row in enumerate(rows, start=2):
        try:
            score = float(row[models[0]] or "nan")
        except (TypeError, ValueError):
            raise ValueError(f"{path} line {number}: {row[models[0]]!r} is no score.") from None
        if row["name"] in found or row["live"] not in ("0", "1"):
            what = f"{row['name']!r} stands twice" if row["name"] in found else f"live is {row['live']!r}, not 0 or 1"
            raise ValueError(f"{path} line {number}: {what}.")
        found[row["name"]] = Liveness(row["live"] == "1", row["attack"], row.get("subject") or "", score)
    return found


def score_attempts(
    model: Path, images: Path, pairs: Path, scores: Path, *, batch: int, device: str
) -> tuple[Attempts, str]:
    """Match the pairs of a file by a recognition model and join the liveness of their first images.

    Returns the attempts and a line about them. Raises ValueError where files are missing or do not fit each other.
    """
    known = read_liveness(scores)
    embedder = load_embedder(model, device=device)
    opened = open_pairs(EvalSet(images=images, pairs=pairs), embedder.card)
    centre = embedder.card.centre
    matched = evaluate_on(opened, embedder, batch=batch, one_kind=True, centre=centre, intervals=False)
    probes, references = (
        [opened.images.name(int(i)) for i in side.tolist()] for side in (opened.pairs.first, opened.pairs.second)
    )
    attempts, left_out = join(probes, references, matched.same, matched.scores, known, scores)
    about = f"{opened.about}, matched by {embedder.origin}; liveness of {scores}"
    return attempts, about + (f"; left out: {left_out:,} attacks on other persons" if left_out else "")


def join(
    probes: Sequence[str],
    references: Sequence[str],
    same: np.ndarray,
    match: np.ndarray,
    known: Mapping[str, Liveness],
    where: Path,
) -> tuple[Attempts, int]:
    """Make attempts of scored pairs, and count the attacks that show another person than is enrolled.

    Persons are known where the file has the subject of both images of every pair that is kept.
    """
    if missing := sorted({name for name in probes if name not in known}):
        raise ValueError(f"{where} has no line for {len(missing):,} images of the pairs, the first is {missing[0]!r}")
    if enrolled := [name for name in references if name in known and not known[name].live]:
        raise ValueError(
            f"{len(enrolled):,} pairs enrol an attack, the first {enrolled[0]!r}: the second image of a pair is the "
            "reference, and must be live"
        )
    rows = [(known[a], known.get(b), bool(one)) for a, b, one in zip(probes, references, same.tolist(), strict=True)]
    kept = [k for k, (probe, _, one) in enumerate(rows) if probe.live or one]
    kinds = [("genuine" if rows[k][2] else "impostor") if rows[k][0].live else "attack" for k in kept]
    persons = None
    names = [(rows[k][0].subject, "" if (other := rows[k][1]) is None else other.subject) for k in kept]
    if all(a and b for a, b in names):
        persons = np.unique(np.array(names).T, return_inverse=True)[1].reshape(2, -1).astype(np.int64)
    live = np.array([rows[k][0].score for k in kept])
    attempts = gather_attempts(match[kept], live, kinds, [rows[k][0].attack for k in kept], persons)
    return attempts, len(rows) - len(kept)


def write_attempts(path: Path, attempts: Attempts) -> None:
    """Write attempts as the csv that `read_attempts` reads, such as for --dev."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seen = ["person", "reference"] if attempts.persons is not None else []
    writer.writerow(["match_score", "liveness_score", "kind", "attack", *seen])
    for i, number in enumerate(attempts.kind.tolist()):
        scores = [f"{x:.9g}" if np.isfinite(x) else "" for x in (attempts.match[i], attempts.live[i])]
        kind, attack = (attempts.kinds[number], "") if number < 2 else ("attack", attempts.kinds[number])
        writer.writerow([*scores, kind, attack, *([] if attempts.persons is None else attempts.persons[:, i].tolist())])
    write_durably(path, text.getvalue().encode("utf-8", "surrogateescape"))
