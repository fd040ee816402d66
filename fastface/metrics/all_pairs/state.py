"""Counts of the pairs done so far -> files in a folder, from which any number of processes goes on.

FOLDER/about.json says what the counts belong to, pass-0/windows.json what is counted exactly; pass-0/*.npz each hold
the counts of some couples of panels. Files are only ever added: an interrupt leaves whole ones.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from fastface.durable import write_durably
from fastface.metrics.all_pairs.search import Window
from fastface.metrics.all_pairs.tally import Counts, no_counts

FORMAT = 1


class State:
    """A folder of counts. `about` is what they depend on: a folder that says otherwise is refused."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        about = {"format": FORMAT, **about}
        file = folder / "about.json"
        if not file.is_file():
            if folder.is_dir() and any(folder.iterdir()):
                raise ValueError(f"{folder} is not empty, and holds no state of all pairs; name a new folder.")
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(file, json.dumps(about, indent=1).encode())
        found = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name in {**about, **found} if about.get(name) != found.get(name)]
        if other:
            raise ValueError(
                f"{folder} holds the counts of another evaluation: {', '.join(other)} differ"
                f" ({other[0]}: {found.get(other[0])!r} there, {about.get(other[0])!r} here). Name a new folder."
            )

    def windows(self, number: int, wanted: list[Window]) -> list[Window]:
        """Return the windows with which a pass was begun; begin it with those wanted if it was not."""
        folder = self.folder / f"pass-{number}"
        file = folder / "windows.json"
        if not file.is_file():
            folder.mkdir(exist_ok=True)
            write_durably(file, json.dumps(wanted).encode())
        return [Window(*fields) for fields in json.loads(file.read_text(encoding="utf-8"))]

    def load(self, number: int, windows: list[Window]) -> tuple[set[tuple[int, int]], Counts]:
        """Return which couples of panels a pass has done, and their counts."""
        done: set[tuple[int, int]] = set()
        counts = no_counts(windows)
        for file in sorted((self.folder / f"pass-{number}").glob("*.npz")):
            with np.load(file, allow_pickle=False) as part:
                units = {(int(i), int(j)) for i, j in part["units"]}
                if units & done:
                    raise ValueError(f"{file} counts pairs that another file counts too: two runs wrote here at once.")
                done |= units
                counts += Counts(*(part[name] for name in Counts._fields))
        return done, counts

    def save(self, number: int, units: list[tuple[int, int]], counts: Counts) -> None:
        """Keep the counts of some couples of panels that no file has."""
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, units=np.array(units, np.int32), **counts._asdict())
        i, j = units[0]
        write_durably(self.folder / f"pass-{number}" / f"{i:06d}-{j:06d}.npz", content.getvalue())
