"""Shard sets of live and spoof -> one index of all their images, in which column `source` says where each is from.

Nothing is copied but the index: it names the shards where they lie, so it is only good for as long as they stay there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.columns import RECORD_COLUMNS
from fastface.data.index import Index
from fastface.data.index_write import derive_columns, write_index

NAMED = {"attack": "unknown", "subject": ""}  # columns that the whole has, and what stands where a set lacks one


def join_sets(parts: Sequence[Index], sources: Sequence[Sequence[str]], folder: Path) -> Index:
    """Write the index of several sets, one after the other, into a folder, and open it.

    sources: of each set, the source of every record. Values go by their names, those of subjects begin with their
    source's; clips are numbered anew; further columns are kept where all sets have them without names of their own.
    ValueError where a set has other classes than the others.
    """
    classes = sorted(set(parts[0].classes))
    for part in parts:
        if sorted(part.classes) != classes:
            raise ValueError(
                f"{part.path} has the classes {', '.join(part.classes)}, {parts[0].path} {', '.join(classes)}"
            )
    first = np.cumsum([0, *(part.num_shards for part in parts)])
    columns = {name: np.concatenate([part.columns[name][:] for part in parts]) for name in RECORD_COLUMNS}
    columns["shard"] = np.concatenate([part.shard[:] + n for part, n in zip(parts, first[:-1], strict=True)])
    labels = [np.array([classes.index(name) for name in part.classes])[part.label] for part in parts]
    columns["label"] = np.concatenate(labels)
    columns = {name: column.astype(RECORD_COLUMNS[name]) for name, column in columns.items()}
    named: dict[str, list[list[str]]] = {"source": [list(own) for own in sources]}
    for name, absent in NAMED.items():
        named[name] = [_names_in(part, name, absent, own) for part, own in zip(parts, sources, strict=True)]
    tables: dict[str, list[str]] = {}
    for name, lists in named.items():
        everyone = [value for own in lists for value in own]
        tables[name] = sorted(set(everyone) - {""})
        number = {value: k for k, value in enumerate(tables[name])} | {"": -1}
        columns[name] = np.array([number[value] for value in everyone], np.int32)
    if all("clip" in part.columns for part in parts):
        clips = [np.unique(part.columns["clip"], return_inverse=True) for part in parts]
        starts = np.cumsum([0, *(len(values) for values, _ in clips)])
        moved = [place.reshape(-1) + n for (_, place), n in zip(clips, starts[:-1], strict=True)]
        columns["clip"] = np.concatenate(moved).astype(np.int32)
    for name, column in parts[0].columns.items():
        plain = all(_is_plain(part, name, column) for part in parts)
        if plain and name not in columns:
            columns[name] = np.concatenate([part.columns[name][:] for part in parts])
    names = (f"{own[i]}/{part.name(i)}" for part, own in zip(parts, sources, strict=True) for i in range(len(part)))
    columns |= derive_columns(columns["label"], len(classes), names)
    shards = [
        {**row, "name": str(part.shard_path(number).resolve())}
        for part in parts
        for number, row in enumerate(part.meta["shards"])
    ]
    options = [part.meta.get("options", {}) for part in parts]
    shared = {k: v for k, v in options[0].items() if all(other.get(k) == v for other in options)}
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, columns, classes, shards, {"options": shared, "values": tables})
    return Index.open(folder)


def _names_in(part: Index, column: str, absent: str, sources: Sequence[str]) -> list[str]:
    """Return the value of every record by name."""
    if column not in part.columns:
        return ["none" if column == "attack" and part.classes[k] == "live" else absent for k in part.label.tolist()]
    table = part.meta.get("values", {}).get(column, [])
    found = [table[k] if 0 <= k < len(table) else absent for k in part.columns[column].tolist()]
    if column != "subject":
        return found
    return [
        name if not name or name.startswith(f"{source}/") else f"{source}/{name}"
        for name, source in zip(found, sources, strict=True)
    ]


def _is_plain(part: Index, name: str, column: Any) -> bool:
    """Tell whether a set has this column of numbers, one for every record, that mean the same everywhere."""
    own, values = part.columns.get(name), part.meta.get("values", {})
    return own is not None and own.shape == (len(part), *column.shape[1:]) and name not in {"clip", "by_label", *values}


def sources_of(index: Index, otherwise: str) -> list[str]:
    """Return the source of every record by name: column `source`, else `otherwise`."""
    values: Mapping[str, list[str]] = index.meta.get("values", {})
    if "source" not in index.columns:
        return [otherwise] * len(index)
    table = values.get("source", [])
    return [table[k] if k in range(len(table)) else str(k) for k in index.columns["source"].tolist()]
