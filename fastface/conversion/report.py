"""What a conversion did -> the lines that tell its user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastface.conversion.duplicates import Duplicates
from fastface.data.sources import printable


@dataclass
class Report:
    """What a conversion did."""

    out: Path
    sets: dict[str, dict[str, Any]]  # meta by set ("" where there is one); empty after a part
    skipped: Counter[str]  # files the scan left out, by reason
    shared: dict[tuple[str, str], list[str]]  # identities in two sets
    made: int  # shards made now
    reused: int  # shards found finished
    images: int  # images read now
    rejected: int  # of them
    seconds: float
    part: tuple[int, int] | None
    duplicates: Duplicates | None = None  # of what was joined

    def __str__(self) -> str:
        lines = [_describe(self.out / name, meta) for name, meta in self.sets.items()]
        if self.part is not None:
            lines = [f"part {self.part[0]}/{self.part[1]} of {self.out} is done: run the other parts, then --join"]
        if self.reused:
            lines.append(f"{self.reused:,} shards were found finished")
        if self.made:
            rate = self.images / max(self.seconds, 1e-9)
            lines.append(
                f"made {self.made:,} shards: {self.images:,} images in {self.seconds:.1f} s "
                f"({rate:,.0f} images/s), {self.rejected:,} rejected"
            )
        if self.skipped:
            lines.append(f"left out by the scan: {_counts(self.skipped)}")
        for (a, b), names in self.shared.items():
            lines.append(f"{len(names):,} identities are in both {a} and {b}: {_some(names)}")
        if self.duplicates is not None and self.duplicates.groups:
            lines.append(f"{self.duplicates}; see {self.out / 'duplicates.csv'}")
        if self.sets and (self.skipped or any(meta["rejected"] for meta in self.sets.values())):
            lines.append(f"each is listed with its reason in {self.out / 'rejects.csv'}")
        return "\n".join(lines)


def _describe(folder: Path, meta: Mapping[str, Any]) -> str:
    size = sum(shard["bytes"] for shard in meta["shards"])
    pixels = "of several sizes" if meta["image_size"] is None else "{}x{}".format(*meta["image_size"])
    text = (
        f"{folder}: {meta['num_samples']:,} images ({pixels}, {meta['kept']:,} with their bytes as found) of "
        f"{meta['num_classes']:,} identities in {len(meta['shards']):,} shards, {size / 1e6:,.1f} MB\n"
        f"  dataset id {meta['dataset_id']}"
    )
    if meta["rejected"]:
        text += f"\n  rejected: {_counts(meta['rejected'])}"
    if meta["faces"]:
        text += f"\n  boxes and landmarks: {_counts(meta['faces'])}"
    if meta.get("without_face"):
        text += (
            f"\n  {meta['without_face']:,} images show no face and are there whole; --no-face reject leaves them out"
        )
    if meta["lost_classes"]:
        text += f"\n  {len(meta['lost_classes']):,} identities have no readable image and are no classes: "
        text += _some(meta["lost_classes"])
    if meta.get("pairs"):
        text += "\n  pairs.csv: {written:,} pairs, {left_out:,} left out with their images".format(**meta["pairs"])
    return text


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))


def _some(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
