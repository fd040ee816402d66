"""Findings -> audit.html with their pictures, findings.csv, exclude.csv, and a summary in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.damage import BadImage
from fastface.data.headers import Rejected
from fastface.data.index import Index
from fastface.metrics import page
from fastface.mining.audit.findings import EXCLUDED, FINDINGS, KINDS, Finding, Place, write_csv
from fastface.mining.audit.identities import EVIDENCE
from fastface.mining.audit.pixels import open_reader, read_image
from fastface.mining.audit.scores import Drawn, Space

SIDE = 100  # px of a face in the page
FACES = 4  # of an identity beside a finding
LEGEND = "Red frames: the image in doubt, or one that exclude.csv lists. Green frames: the other identity or set."
SECTIONS = {  # title -> kinds
    "Shared with the other set": ("shared-name", "shared-image", "shared-person"),
    "Copies": ("duplicate", "near-duplicate", "alike"),
    "One picture under two names": ("duplicate-conflict", "near-duplicate-conflict"),
    "One person under two names": ("same-person",),
    "Wrong person": ("mislabelled", "loner", "split"),
    "Poor images": ("unreadable", "no-embedding", "blurred", "dark", "bright", "flat", "small", "grey"),
    "Small identities": ("empty", "tiny"),
}


class Audited(NamedTuple):
    """One set of the report."""

    index: Index
    space: Space


class Report(NamedTuple):
    """What there is to say."""

    sets: list[Audited]
    findings: list[Finding]
    thresholds: Mapping[str, tuple[float, str]]  # name -> value, how it was chosen
    drawn: Drawn
    facts: list[str]


def write_report(report: Report, out: Path, *, shown: int) -> str:
    """Write the page with up to `shown` findings of each kind, and the lists with all; return the summary."""
    dropped = _dropped(report.findings)
    index = report.sets[0].index
    write_csv(out / "findings.csv", FINDINGS, _rows(report))
    write_csv(
        out / "exclude.csv",
        EXCLUDED,
        ([index.name(i), _class(index, i), f.kind, _number(f.score)] for i, f in sorted(dropped.items())),
    )
    shared = _shared_names(report)
    if len(report.sets) > 1:
        text = "".join(f"{name}\n" for name in shared)
        (out / "shared_identities.txt").write_text(text, "utf-8", "surrogateescape")
    summary = _summary(report, dropped, shared, out)
    _write_page(report, dropped, summary, out / "audit.html", shown)
    return summary


def _dropped(findings: Iterable[Finding]) -> dict[int, Finding]:
    """Say for each image that is to be left out by which finding, the first one."""
    dropped: dict[int, Finding] = {}
    for finding in findings:
        for record in finding.drop:
            dropped.setdefault(record, finding)
    return dropped


def _shared_names(report: Report) -> list[str]:
    """Name the identities of the first set that are surely in the second."""
    index, labels = report.sets[0].index, set()
    for finding in report.findings:
        if finding.kind in ("shared-name", "shared-person") and finding.sure:
            labels |= {label for number, label in finding.identities if number == 0}
        if finding.kind == "shared-image":
            labels |= {int(index.label[place.record]) for place in finding.images if place.set == 0}
    return [str(index.classes[label]) for label in sorted(labels)]


def _rows(report: Report) -> Iterable[list[object]]:
    """One line a finding; one for each further image of a group, beside the first."""
    for f in report.findings:
        names = [report.sets[number].index.classes[label] for number, label in f.identities]
        start = [f.kind, "sure" if f.sure else "check", _number(f.score)]
        if len(f.images) > 1 and f.kind != "split":
            kept = f.images[0]
            for place in f.images[1:]:
                yield [*start, *_where(report, place), *_where(report, kept), f.note]
        else:
            image, identity = _where(report, f.images[0]) if f.images else ("", "")
            identity = names[0] if names else identity
            yield [*start, image, identity, "", names[1] if len(names) > 1 else "", f.note]


def _where(report: Report, place: Place) -> tuple[str, str]:
    index = report.sets[place.set].index
    return index.name(place.record), _class(index, place.record)


def _class(index: Index, record: int) -> str:
    return index.classes[int(index.label[record])]


def _number(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.4f}"


def _summary(report: Report, dropped: Mapping[int, Finding], shared: list[str], out: Path) -> str:
    index = report.sets[0].index
    sure = Counter(f.kind for f in report.findings if f.sure)
    check = Counter(f.kind for f in report.findings if not f.sure)
    lines = [f"{index.path}: {len(index):,} images of {len(index.classes):,} identities"]
    if len(report.sets) > 1:
        other = report.sets[1].index
        lines.append(f"held against {other.path}: {len(other):,} images of {len(other.classes):,} identities")
    lines.append(f"{'kind':<26}{'sure':>8}{'to check':>10}")
    for kind, meaning in KINDS.items():
        if sure[kind] or check[kind]:
            lines.append(f"{kind:<26}{sure[kind]:>8,}{check[kind]:>10,}  {meaning}")
    if not report.findings:
        lines.append("nothing was found")
    lines += report.facts
    lines += [f"{name} {value:.3f}: {how}" for name, (value, how) in report.thresholds.items()]
    lines.append(_not_excluded(dropped))
    if len(report.sets) > 1:
        lines.append(f"{len(shared):,} identities that are surely in both sets: {out / 'shared_identities.txt'}")
    lines.append(f"pictures of the findings: {out / 'audit.html'}; all of them: {out / 'findings.csv'}")
    return "\n".join(lines) + "\n"


def _not_excluded(dropped: Mapping[int, Finding]) -> str:
    kinds = Counter(f.kind for f in dropped.values())
    listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items()) or "nothing"
    return (
        f"exclude.csv lists {len(dropped):,} images ({listed}) for make_shards.py --exclude. Not in it: the copy "
        "of each group that is kept, pictures under two names where nothing says which name is right, whole "
        "identities, whatever is only to check, and poor images that can be decoded"
    )


class _Pictures:
    """Faces of the report, decoded when asked for, each once."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.readers = [open_reader(each.index) for each in report.sets]
        self.known: dict[Place, str] = {}

    def face(self, place: Place, mark: str = "", caption: str | None = None) -> page.Face:
        if place not in self.known:
            try:
                uri = page.jpeg_uri(read_image(self.readers[place.set], place.record), SIDE)
            except (Rejected, BadImage, OSError):
                uri = ""
            self.known[place] = uri
        name = self.report.sets[place.set].index.name(place.record)
        return page.Face(self.known[place], name if caption is None else caption, mark)

    def of(self, number: int, label: int, beside: np.ndarray | None = None, without: int = -1) -> list[page.Face]:
        """Show a few images of an identity: those nearest to a direction [D], else the first."""
        space = self.report.sets[number].space
        records = space.of(label, EVIDENCE)
        records = records[records != without]
        if beside is not None and len(records):
            records = records[np.argsort(-(space.take(records) @ beside), kind="stable")]
        return [self.face(Place(number, int(i))) for i in records[:FACES]]


def _write_page(report: Report, dropped: Mapping[int, Finding], summary: str, path: Path, shown: int) -> None:
    index, pictures = report.sets[0].index, _Pictures(report)
    by_kind: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for f in report.findings:
        by_kind[f.kind].append(f)
    sure = sum(f.sure and f.kind not in ("tiny", "shared-name") for f in report.findings)
    head = page.tiles(
        [
            (len(index), "images"),
            (len(index.classes), "identities"),
            (sure, "surely wrong, counted as findings"),
            (len(dropped), "images in exclude.csv"),
        ]
    )
    counts = page.table(
        ["kind", "sure", "to check", "what it is"],
        [
            [kind, sum(f.sure for f in found), sum(not f.sure for f in found), KINDS[kind]]
            for kind, found in by_kind.items()
            if found
        ],
    )
    facts = [page.paragraph(fact) for fact in report.facts]
    parts = [head, page.section("What was found", counts, *facts, page.paragraph(LEGEND, soft=True))]
    for title, kinds in SECTIONS.items():
        inside = [_kind(report, pictures, kind, by_kind[kind], shown) for kind in kinds if by_kind[kind]]
        if inside:
            parts.append(page.section(title, *inside))
    chosen = page.table(
        ["threshold", "value", "how it was chosen"], [[n, value, how] for n, (value, how) in report.thresholds.items()]
    )
    parts.append(page.section("Thresholds", chosen, _scores(report.drawn)))
    parts.append(page.section("What to leave out", page.paragraph(_not_excluded(dropped) + ".")))
    parts.append(page.section("Summary", page.Html(f"<pre>{page.escape(summary)}</pre>")))
    lead = f"{len(index):,} images, dataset {index.dataset_id[:12]}"
    if len(report.sets) > 1:
        lead += f"; held against {report.sets[1].index.path.name}, {len(report.sets[1].index):,} images"
    page.write_page(path, f"Audit of {index.path.name}", *parts, lead=lead)


def _kind(report: Report, pictures: _Pictures, kind: str, found: list[Finding], shown: int) -> page.Html:
    text = f"{KINDS[kind]}: {len(found):,}"
    text += f", of which {shown:,} are shown" if len(found) > shown else ""
    if kind in ("tiny", "grey", "small", "empty", "unreadable", "no-embedding"):  # little to see
        body = page.strip(pictures.face(f.images[0]) for f in found[:shown] if f.images)
        if kind == "empty":
            body = page.paragraph(", ".join(report.sets[0].index.classes[f.identities[0][1]] for f in found[:shown]))
        return page.folded(f"{kind}: {text}", body)
    if kind in ("blurred", "dark", "bright", "flat"):
        inside = page.strip(pictures.face(f.images[0], caption=_captioned(report, f)) for f in found[:shown])
        return page.join([page.heading(kind), page.paragraph(text + "."), inside])
    findings = [page.finding(*_shown(report, pictures, f)) for f in found[:shown]]
    return page.join([page.heading(kind), page.paragraph(text + "."), page.findings(findings)])


def _captioned(report: Report, f: Finding) -> str:
    return f"{_where(report, f.images[0])[0]}, {f.score:.2f}"


def _shown(report: Report, pictures: _Pictures, f: Finding) -> tuple[page.Html, list[page.Face]]:
    """Say one finding and choose its faces."""
    names = [report.sets[number].index.classes[label] for number, label in f.identities]
    names = names or list(dict.fromkeys(_where(report, place)[1] for place in f.images))
    text = page.join([page.strong(" / ".join(names))])
    said = [f"{f.score:.3f}" if not math.isnan(f.score) else "", f.note, "sure" if f.sure else "to check"]
    text = page.join([text, ": ", ", ".join(part for part in said if part)])
    if f.kind == "mislabelled":
        place, (_, own), (_, other) = f.images[0], *f.identities
        beside = report.sets[0].space.take(np.array([place.record]))[0]
        faces = [pictures.face(place, "bad"), *pictures.of(0, own, without=place.record)[:3]]
        return text, [*faces, *(face._replace(mark="good") for face in pictures.of(0, other, beside)[:3])]
    if f.kind == "loner":
        place = f.images[0]
        return text, [pictures.face(place, "bad"), *pictures.of(0, f.identities[0][1], without=place.record)]
    if f.kind in ("same-person", "shared-person", "shared-name"):
        sides = [report.sets[number].space for number, _ in f.identities]
        middles = [
            side.take(side.of(label, EVIDENCE)).mean(axis=0)
            for side, (_, label) in zip(sides, f.identities, strict=True)
        ]
        (n, a), (m, b) = f.identities
        other = [face._replace(mark="good") for face in pictures.of(m, b, middles[0])]
        return text, [*pictures.of(n, a, middles[1]), *other]
    marks = dict.fromkeys(f.drop, "bad")
    return text, [pictures.face(p, marks.get(p.record, "") if p.set == 0 else "good") for p in f.images[:12]]


def _scores(drawn: Drawn) -> page.Html:
    """Table of quantiles of the scores from which thresholds follow."""
    shares = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
    rows = [
        [name, len(values), *(float(np.quantile(values, q)) for q in shares)]
        for name, values in (("under one label", drawn.genuine), ("under two labels", drawn.impostor))
        if len(values)
    ]
    return page.table(["pairs of images", "drawn", *(f"{q:g}" for q in shares)], rows, "Cosines at quantiles")
