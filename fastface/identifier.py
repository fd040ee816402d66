"""A photograph and a gallery -> who of the enrolled people it shows, or nobody, with the grounds."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastface.capture import Capture
from fastface.data.sources.scan import scan
from fastface.decision import Step, ms_since
from fastface.enrolment import open_system
from fastface.gallery import Candidate, GalleryThreshold, open_gallery
from fastface.live_check import load_live_checks
from fastface.metrics.scores import usable

COLUMNS = ("photo", "decision", "person", "score", "threshold", "second", "second_score", "reason", "ms")


@dataclass(frozen=True)
class Identified:
    """What a search found."""

    subject: str
    candidates: tuple[Candidate, ...]
    """The likest enrolled people; none where the photograph is refused."""
    threshold: GalleryThreshold | None
    steps: tuple[Step, ...]
    refusals: tuple[str, ...]
    """Why it was not searched for: unreadable, no face, not live."""

    @property
    def person(self) -> str | None:
        """Who it is; None where nobody reaches the threshold, there is none, or the photograph is refused."""
        t, best = self.threshold, next(iter(self.candidates), None)
        return best.person if t is not None and best is not None and best.score >= t.threshold else None

    @property
    def decision(self) -> str:
        """One of refused, identified, nobody, no decision."""
        if self.refusals:
            return "refused"
        if self.threshold is None:
            return "no decision"
        return "nobody" if self.person is None else "identified"

    @property
    def reason(self) -> str:
        """Why, in a line."""
        if self.refusals:
            return "; ".join(self.refusals)
        best, t = self.candidates[0], self.threshold
        if t is None:
            return f"{best.person} is likest, {best.score:.4f}; the gallery has no threshold: give --threshold"
        sign = "below" if self.person is None else "at or above"
        return f"{best.person} scores {best.score:.4f}, {sign} {t.threshold:.4f} ({t.about})"

    def __str__(self) -> str:
        lines = [str(step) for step in self.steps]
        for rank, each in enumerate(self.candidates, start=1):
            lines.append(f"{rank:>3}. {each.score:.4f}  {each.person}  ({each.image})")
        return "\n".join([*lines, f"{self.decision}: {self.reason}"])

    def as_dict(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        t = self.threshold
        return {
            "photo": self.subject,
            "decision": self.decision,
            "person": self.person,
            "reason": self.reason,
            "candidates": [each._asdict() for each in self.candidates],
            "threshold": None if t is None else t._asdict(),
            "steps": [step._asdict() for step in self.steps],
        }

    def as_row(self) -> list[str]:
        """Return the values of COLUMNS."""
        first, second = [*self.candidates[:2], None, None][:2]
        ms = f"{sum(step.ms for step in self.steps):.1f}"
        wanted = "" if self.threshold is None else f"{self.threshold.threshold:.6f}"
        best = [] if first is None else [first.person, f"{first.score:.6f}"]
        next_one = [] if second is None else [second.person, f"{second.score:.6f}"]
        return [
            *(self.subject, self.decision),
            *(best or ["", ""]),
            wanted,
            *(next_one or ["", ""]),
            *(self.reason, ms),
        ]


class Identifier:
    """Search a gallery for the people in photographs.

    >>> identifier = Identifier("gallery/staff")
    >>> print(identifier.identify("photo.jpg"))

    Args:
        gallery: made by tools/enrol.py.
        recognition, fusion, detector, align: as the gallery was made with; empty or None: where it remembers them.
        liveness: models by each of which a photograph must show a living person.
        fpir: share of searches for people who are not enrolled that may find somebody, for the threshold.
        threshold: a score instead of that.
        count: candidates that are told.
    """

    def __init__(
        self,
        gallery: str | Path,
        *,
        recognition: Sequence[Path] = (),
        fusion: Path | None = None,
        detector: str | None = None,
        align: str | None = None,
        liveness: Sequence[Path] = (),
        liveness_rule: str | None = None,
        liveness_threshold: float | None = None,
        liveness_align: str | None = None,
        fpir: float = 1e-2,
        threshold: float | None = None,
        count: int = 5,
        device: str = "cpu",
    ) -> None:
        if count < 1:
            raise ValueError(f"--candidates is {count}; it must be 1 or more")
        self.gallery, self.count = open_gallery(Path(gallery)), count
        system = open_system(
            self.gallery, recognition=recognition, fusion=fusion, detector=detector, align=align, device=device
        )
        self.recognition = system.recognition
        checks = load_live_checks(
            liveness,
            system.finder,
            rule=liveness_rule,
            threshold=liveness_threshold,
            align=liveness_align,
            device=device,
        )
        self.capture = Capture(system.recognition.cuts, system.finder, checks)
        self.threshold = self.gallery.threshold(fpir, system.recognition.thresholds)
        if threshold is not None:
            self.threshold = GalleryThreshold(threshold, None, True, "as given")

    def identify(self, photo: str | Path) -> Identified:
        """Say whom a photograph shows; one that cannot be read, has no face or shows no living person is refused."""
        try:
            captured = self.capture(photo)
        except (ValueError, OSError) as error:
            return Identified(str(photo), (), self.threshold, (), (str(error),))
        if captured.refusals:
            return Identified(str(photo), (), self.threshold, tuple(captured.steps), tuple(captured.refusals))
        row, steps = self.recognition.embed(captured.pictures, captured.subject)
        if not usable(row[None])[0]:
            reason = f"{photo}: its embedding is zero or not finite"
            return Identified(str(photo), (), self.threshold, (*captured.steps, *steps), (reason,))
        began = time.perf_counter()
        candidates = self.gallery.find(row, self.count)
        said = f"{len(self.gallery.embeddings):,} images of {self.gallery.num_people:,} people"
        best = candidates[0].score
        wanted = None if self.threshold is None else self.threshold.threshold
        passed = None if wanted is None else best >= wanted
        search = Step("search", captured.subject, ms_since(began), said, best, wanted, passed)
        return Identified(str(photo), tuple(candidates), self.threshold, (*captured.steps, *steps, search), ())

    def identify_all(self, photos: Sequence[str | Path]) -> Iterator[Identified]:
        """Search for photographs, and for all below folders, one after the other, with a progress bar for several."""
        paths = photos_in(photos)
        interval = 0.2 if sys.stderr.isatty() else 30
        for path in tqdm(paths, unit=" photos", mininterval=interval, disable=len(paths) < 2):
            yield self.identify(path)


def identify(
    gallery: Path, photos: Sequence[Path], *, out: Path | None = None, **options: Any
) -> tuple[list[Identified], str]:
    """Search a gallery for photographs; return what was found, and a report.

    out: a csv of COLUMNS, a line for each photograph.

    Raises:
        ValueError: for a gallery or model that is missing or does not fit, and where there is no photograph.
    """
    identifier = Identifier(gallery, **options)
    found: list[Identified] = []
    if out is None:
        found += identifier.identify_all(photos)
    else:
        with open(out, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for each in identifier.identify_all(photos):
                writer.writerow(each.as_row())
                found.append(each)
    t = identifier.threshold
    lines = []
    if t is not None:
        lines.append(f"threshold {t.threshold:.4f} {t.about}: {t.source}")
    if len(found) == 1:
        return found, "\n".join([str(found[0]), *lines])
    counts = {name: sum(each.decision == name for each in found) for name in ("identified", "nobody", "refused")}
    if out is None:
        lines = [f"{each.subject}: {each.decision}: {each.reason}" for each in found] + lines
    lines.append(f"{len(found):,} photographs: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    spent = _median_ms(found)
    if spent:
        lines.append("median ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in spent.items()))
    return found, "\n".join([*lines, *([] if out is None else [f"written: {out}"])])


def photos_in(photos: Sequence[str | Path]) -> list[Path]:
    """List photographs, and those below folders, by name; ValueError where there are none."""
    paths: list[Path] = []
    for photo in map(Path, photos):
        paths += [photo / name for name in scan(photo).names] if photo.is_dir() else [photo]
    if not paths:
        raise ValueError(f"there is no photograph in {', '.join(map(str, photos))}")
    return paths


def _median_ms(found: Sequence[Identified]) -> dict[str, float]:
    names = dict.fromkeys(step.name for each in found for step in each.steps)
    return {
        name: float(np.median([sum(s.ms for s in e.steps if s.name == name) for e in found if e.candidates]))
        for name in names
        if any(each.candidates for each in found)
    }
