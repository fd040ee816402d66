"""Columns looked up at random -> mapped so that a lookup brings in little, whatever the page cache holds."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

AREA = 1 << 15  # bytes; with 64 kB, all that Linux maps around a fault, a start took up to 40 MB more (DECISIONS.md)
LARGEST_AREA = 1 << 20  # bytes: still less than a folio of 2 MB
LIMIT = Path("/proc/sys/vm/max_map_count")  # areas that a process may have, 65,530 by default


def open_for_lookups(file: Path) -> np.memmap:
    """Map a .npy file, telling the kernel that single values will be read here and there.

    On a cold start a lookup then reads 4 kB of the file and not 128 kB around it.
    """
    with open(file, "rb") as opened:
        without_reading_ahead(opened.fileno())
        opened.read(1)  # the page that np.load looks at: it would set the kernel reading ahead
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    assert isinstance(mapped, np.memmap)
    _mapping(mapped).madvise(mmap.MADV_RANDOM)
    return mapped


def without_reading_ahead(descriptor: int) -> None:
    """Let the kernel cache of a file what is asked for and no more."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


def map_little(columns: Sequence[np.memmap]) -> None:
    """Cut mappings into small areas, so that a lookup brings in no more than one of them.

    Where a file was read or written as a whole just before, the page cache holds it in folios of up to 2 MB. Since
    6.18 Linux maps a whole folio at a fault (mm/filemap.c; finish_fault in mm/memory.c), unless it reaches over the
    ends of the area; then it maps up to 64 kB, and nothing beyond the area. Areas that differ are not merged: every
    second one is marked to be left out of core dumps, where unchanged pages of files are not written anyway. Half of
    the areas that the process may have are left to others: what does not fit into the rest is cut less finely.
    """
    if not hasattr(mmap, "MADV_DONTDUMP") or not LIMIT.exists() or AREA % mmap.PAGESIZE:
        return  # not Linux, or pages of 64 kB
    mappings = [_mapping(column) for column in columns]
    size, total = AREA, sum(len(mapping) for mapping in mappings)
    room = int(LIMIT.read_text()) // 2 - count_areas()
    while total > size * room and size <= LARGEST_AREA:
        size *= 2
    if size > LARGEST_AREA:
        return
    for mapping in mappings:
        for start in range(0, len(mapping), 2 * size):
            mapping.madvise(mmap.MADV_DONTDUMP, start, min(size, len(mapping) - start))


def count_areas() -> int:
    """Return how many memory areas this process has."""
    with open("/proc/self/maps", "rb") as areas:
        return sum(1 for _ in areas)


def _mapping(column: np.memmap) -> mmap.mmap:
    return cast(mmap.mmap, column.base)
