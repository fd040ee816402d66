"""A shard set and its embeddings -> what is wrong with the images and labels: a page, two lists, a summary."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.embeddings import Embeddings, open_embeddings
from fastface.data.index import Index
from fastface.durable import write_durably
from fastface.mining.audit.copies import Copies, find_copies
from fastface.mining.audit.findings import Finding, Place
from fastface.mining.audit.identities import (
    Compared,
    alike_images,
    clusters,
    compare_images,
    match,
    mislabelled,
    nearest_identity,
    resembling,
    same_person,
    search_over,
    shared_people,
)
from fastface.mining.audit.pixels import Looks, look_at
from fastface.mining.audit.quality import choose_limits, outliers
from fastface.mining.audit.report import Audited, Report, write_report
from fastface.mining.audit.scores import (
    Space,
    Thresholds,
    choose_thresholds,
    draw_scores,
    mean_direction,
)
from fastface.mining.search import Search

BITS = 12  # by which hashes may differ: LFW at quality 30: 4 of 96 at most in 99 %; at 1.3 times the brightness 12
CORRELATION = 0.8  # of detail; the same at quality 30: 0.99, through 32 px 0.91; the likest strangers of LFW: 0.78


class Set(NamedTuple):
    """One shard set with its embeddings and looks."""

    index: Index
    embeddings: Embeddings
    looks: Looks


def audit(
    embeddings: Path,
    out: Path,
    *,
    shards: str | None = None,
    against: Path | None = None,
    against_shards: str | None = None,
    bits: int = BITS,
    correlation: float = CORRELATION,
    thresholds: Mapping[str, float | None] | None = None,
    limits: Mapping[str, float | None] | None = None,
    centre: bool = True,
    threads: int | None = None,
    seed: int = 0,
    shown: int = 24,
) -> str:
    """Audit a shard set, and hold it against another; write a page and lists to `out`, return the summary.

    thresholds: fields of Thresholds, limits: fields of audit_quality.Limits that are not to be chosen from the data.
    centre: subtract the mean embedding first. Memory is that of the identities, of a few numbers an image, and of the
    findings: the pictures and embeddings of ten million images stay on disk.
    """
    sets = [_open(embeddings, shards, out, threads)]
    if against is not None:
        sets.append(_open(against, against_shards, out, threads))
        if sets[1].embeddings.rows.shape[1] != sets[0].embeddings.rows.shape[1]:
            raise ValueError(
                f"{against} has embeddings of {sets[1].embeddings.rows.shape[1]} values and {embeddings} of "
                f"{sets[0].embeddings.rows.shape[1]}: embed both with one model"
            )
    here = sets[0]
    mean = mean_direction(here.embeddings) if centre else None
    space = Space(here.embeddings, mean)
    drawn = draw_scores(space, seed=seed)
    chosen, ways = choose_thresholds(drawn, space.num_classes, thresholds or {})
    bounds, sides = choose_limits(here.looks, limits or {})
    sums = space.sums()
    search = search_over(sums)
    compared = compare_images(space, sums, search)
    alike = alike_images(space, compared, chosen)
    copies = find_copies(
        [(each.index, each.looks) for each in sets],
        [(a, b) for a, b, _ in alike],
        bits=bits,
        least=correlation,
        threads=threads,
    )
    findings = [
        *_copied(here, space, compared, copies, chosen),
        *_alike(copies, alike),
        *_doubtful(space, sums, search, compared, chosen),
        *_small(here, space),
        *_poor(here, space, outliers(here.looks, bounds)),
    ]
    facts, spaces = list[str](), [space]
    if len(sets) > 1:
        there = Space(sets[1].embeddings, mean)
        spaces.append(there)
        both = (sums, there.sums())
        found, facts = _shared(sets, space, there, both, chosen)
        pictures = sum(place.set for f in findings if f.kind == "shared-image" for place in f.images)
        findings += found
        facts.append(f"{pictures:,} images of the other set are here as the same picture")
    lines = {
        **{name: (getattr(chosen, name), ways[name]) for name in Thresholds._fields},
        "other": (
            resembling(compared, chosen),
            "nine of ten images resemble no other identity so much; at most likely",
        ),
        "correlation": (correlation, "of the detail of two pictures, from which they are one photograph"),
        "bits": (float(bits), "of 96, by which perceptual hashes may differ to be compared"),
        **{name: (getattr(bounds, name), sides[name]) for name in bounds._fields},
    }
    audited = [Audited(each.index, its) for each, its in zip(sets, spaces, strict=True)]
    if copies.crowded:
        facts.append(
            f"{copies.crowded:,} images share a part of their hash with more than 64 others: not all pairs of these "
            "were compared by their pixels"
        )
    if search.kind != "flat":
        facts.append(f"identities were searched through {search.kind}, recall {search.recall(10):.3f}")
    report = Report(audited, findings, lines, drawn, facts)
    summary = write_report(report, out, shown=shown)
    write_durably(out / "summary.txt", summary.encode("utf-8", "backslashreplace"))
    return summary


def _open(folder: Path, shards: str | None, out: Path, threads: int | None) -> Set:
    embeddings = open_embeddings(folder)
    where = shards or embeddings.meta.get("shards")
    if not where:
        raise ValueError(f"{folder} does not say of which shards it is: give --shards SET")
    index = Index.open(where)
    if index.dataset_id != embeddings.dataset_id or len(index) != len(embeddings):
        raise ValueError(
            f"{folder} holds embeddings of another set than {where} (dataset id {embeddings.dataset_id[:12]}, not "
            f"{index.dataset_id[:12]}): run embed.py on these shards, or give --shards"
        )
    return Set(index, embeddings, look_at(index, out / "measures" / index.dataset_id[:16], threads=threads))


def _copied(here: Set, space: Space, compared: Compared, copies: Copies, limits: Thresholds) -> list[Finding]:
    """Say of each group of copies whether it lies within an identity, under several, or in two sets."""
    found = []
    for places, exact, score in copies.groups:
        own = [place for place in places if place.set == 0]
        labels = [int(space.labels[place.record]) for place in own]
        kind = "duplicate" if exact else "near-duplicate"
        if len(places) > len(own):
            note = "the same pixels" if exact else ""
            found.append(
                Finding("shared-image", True, score, tuple(places), note=note, drop=tuple(p.record for p in own))
            )
        for label in dict.fromkeys(labels):
            members = [place for place, its in zip(own, labels, strict=True) if its == label]
            if len(members) > 1:
                kept = max(members, key=lambda place: _worth(here.looks, place.record))
                ordered = (kept, *(place for place in members if place != kept))
                drop = tuple(place.record for place in ordered[1:])
                found.append(Finding(kind, True, score, ordered, ((0, label),), drop=drop))
        if len(set(labels)) > 1:
            names = tuple((0, label) for label in dict.fromkeys(labels))
            found.append(Finding(f"{kind}-conflict", True, score, tuple(own), names))
    return found


def _worth(looks: Looks, record: int) -> tuple[int, float, int]:
    """Order copies: the largest, then the sharpest, then the first."""
    row = looks.measures[record]
    return int(row["width"]) * int(row["height"]), float(row["sharpness"]), -record


def _alike(copies: Copies, alike: Sequence[tuple[int, int, float]]) -> list[Finding]:
    scores = {(a, b): score for a, b, score in alike}
    found = []
    for first, second, same in copies.unlike:
        score = scores.get((first.record, second.record), math.nan)
        found.append(Finding("alike", False, score, (first, second), note=f"their detail correlates to {same:.3f}"))
    return sorted(found, key=lambda finding: -finding.score)


def _doubtful(space: Space, sums: np.ndarray, search: Search, compared: Compared, limits: Thresholds) -> list[Finding]:
    found = []
    for m in same_person(space, sums, search, compared, limits):
        note = f"{m.above:,} of {m.pairs:,} pairs of images at or above {limits.same:.3f}, the likest {m.best:.3f}"
        found.append(Finding("same-person", m.sure(limits.same), m.score, (), ((0, m.first), (0, m.second)), note))
    wrong = mislabelled(compared, limits.own, resembling(compared, limits))
    for odd in wrong:
        # One image on either side proves little: two poor images are alike in being poor.
        sure = odd.other >= limits.same and space.counts[odd.who] > 1
        names = ((0, int(space.labels[odd.record])), (0, odd.who))
        note = f"{odd.own:.3f} with its own identity, {odd.other:.3f} with the other"
        drop = (odd.record,) if sure else ()
        found.append(
            Finding("mislabelled", bool(sure), odd.other - odd.own, (Place(0, odd.record),), names, note, drop)
        )
    splits, loners = clusters(space, compared, limits)
    named = {odd.record for odd in wrong}
    for odd in loners:
        if odd.record not in named:
            names = ((0, int(space.labels[odd.record])),)
            note = f"{odd.own:.3f} with its own identity, {odd.other:.3f} with the likest other"
            found.append(Finding("loner", False, odd.own, (Place(0, odd.record),), names, note))
    for split in splits:
        sizes = " and ".join(f"{len(group):,}" for group in split.groups)
        images = tuple(Place(0, int(i)) for group in split.groups[:2] for i in group[:4])
        note = f"groups of {sizes} images, {split.between:.3f} between the largest two"
        found.append(Finding("split", False, split.between, images, ((0, split.identity),), note))
    return found


def _small(here: Set, space: Space) -> list[Finding]:
    counts = np.bincount(np.asarray(here.index.label), minlength=len(here.index.classes))
    empty = [Finding("empty", True, 0.0, (), ((0, int(c)),)) for c in np.flatnonzero(counts == 0)]
    tiny = np.flatnonzero(counts == 1)
    first = here.index.by_label[here.index.label_start[tiny]]
    return empty + [
        Finding("tiny", True, 1.0, (Place(0, int(i)),), ((0, int(c)),)) for c, i in zip(tiny, first, strict=True)
    ]


def _poor(here: Set, space: Space, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[Finding]:
    failed = here.looks.failed
    listed = [Finding("unreadable", True, math.nan, (Place(0, i),), note=why, drop=(i,)) for i, why in failed.items()]
    lost = [i for i in np.flatnonzero(~space.good).tolist() if i not in failed]
    listed += [Finding("no-embedding", True, math.nan, (Place(0, i),)) for i in lost]
    for kind, (records, values) in found.items():
        listed += [
            Finding(kind, False, float(value), (Place(0, int(i)),)) for i, value in zip(records, values, strict=True)
        ]
    return listed


def _shared(
    sets: Sequence[Set], here: Space, there: Space, sums: tuple[np.ndarray, np.ndarray], limits: Thresholds
) -> tuple[list[Finding], list[str]]:
    """Find identities of the first set in the second: by name, however written, and by embedding."""
    known: dict[str, int] = {}
    for label, name in enumerate(sets[0].index.classes):
        known.setdefault(plain_name(name), label)
    search = search_over(sums[0])
    nearest = nearest_identity(sums[1], search)
    found, named, agreed, alike = [], set(), 0, 0
    for label, name in enumerate(sets[1].index.classes):
        first = known.get(plain_name(name))
        if first is None:
            continue
        m = match(here, there, *sums, first, label, limits.same)
        named.add((first, label))
        agreed += int(nearest[label] == first)
        alike += m.score >= limits.likely or m.best >= limits.same
        note = f"likest images {m.best:.3f}"
        sure = not name.isdecimal()  # a number is no name
        found.append(Finding("shared-name", sure, m.score, (), ((0, first), (1, label)), note))
    people: Counter[str] = Counter()
    for m in shared_people(here, there, sums, search, limits):
        if (m.first, m.second) in named:
            continue
        sure = m.sure(limits.same)
        people["sure" if sure else "likely"] += 1
        note = f"{m.above:,} of {m.pairs:,} pairs of images at or above {limits.same:.3f}, the likest {m.best:.3f}"
        found.append(Finding("shared-person", sure, m.score, (), ((0, m.first), (1, m.second)), note))
    total = len(sets[1].index.classes)
    facts = [
        f"of the {total:,} identities of the other set {len(named):,} are here by name; of these {agreed:,} have the "
        f"identity of that name as their nearest, and {alike:,} look like it by the thresholds",
        f"under other names {people['sure']:,} surely and {people['likely']:,} perhaps look like one that is here",
    ]
    return found, facts


def plain_name(name: str) -> str:
    """Write a name as people compare them: letters and digits only, in one case."""
    return re.sub(r"[\W_]+", "", name).casefold() or name
