"""Tiles of rough scores -> counts and candidates, in loops for numba; tally.py has the same in torch's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastface.data.compiled import kernel
from fastface.metrics.all_pairs.keys import MIDDLE, PER_ONE

NEAR_ZERO = 1e-5  # below it a float32 is finer than the bound of a float64 sum: the bound is then measured


class Kernels(NamedTuple):
    """The three loops of a tile."""

    count: Callable[..., int]
    dots: Callable[..., None]
    place: Callable[..., int]


def kernels() -> Kernels | None:
    """Compile the loops, once per machine; None where numba is missing or switched off."""
    made = [loops.function for loops in (_count, _dots, _place)]
    return None if None in made else Kernels(*made)  # type: ignore[arg-type]


# Bins come first, because that loop then runs on vectors: 0.9 ns a pair, 1.2 in one loop with counters of 64 bits (one
# core of an AMD EPYC, 2026-11-24).
@kernel(
    "int64(Array(float32, 2, 'C', readonly=True), int64[::1], int64[::1], uint32[:,::1], boolean[::1],"
    " int32[::1], int32[::1], int32[::1], int32[::1])"
)
def _count(scores, first, stop, coarse, near, rows, columns, bins, line):  # type: ignore[no-untyped-def]
    genuine, impostors = coarse[0], coarse[1]
    width = scores.shape[1]
    found = 0
    for i in range(scores.shape[0]):
        row = scores[i]
        begin, middle = np.uintp(first[i]), np.uintp(stop[i])
        for x in range(begin, np.uintp(width)):
            line[x] = np.int32(row[x] * np.float32(PER_ONE) + np.float32(MIDDLE))
        for x in range(begin, middle):
            number = np.uintp(np.uint32(line[x]))
            genuine[number] += np.uint32(1)
            if near[number]:
                rows[found], columns[found], bins[found] = i, x, line[x]
                found += 1
        for x in range(middle, np.uintp(width)):
            number = np.uintp(np.uint32(line[x]))
            impostors[number] += np.uint32(1)
            if near[number]:
                rows[found], columns[found], bins[found] = i, x, line[x]
                found += 1
    return found


# Summed in whatever order the machine likes: the bound holds for all of them. 512 numbers a pair take 60 ns so, and 550
# one after the other.
@kernel(
    "void(Array(float32, 2, 'C', readonly=True), Array(float32, 2, 'C', readonly=True),"
    " Array(float64, 1, 'C', readonly=True), Array(float64, 1, 'C', readonly=True),"
    " int32[::1], int32[::1], float64, float64[::1], float64[::1])",
    relaxed=("reassoc", "contract", "nsz"),
)
def _dots(first, second, first_inverse, second_inverse, rows, columns, unit_error, dots, errors):  # type: ignore[no-untyped-def]
    size = np.uintp(first.shape[1])
    for k in range(len(rows)):
        a, b = first[rows[k]], second[columns[k]]
        scale = first_inverse[rows[k]] * second_inverse[columns[k]]
        dot = 0.0
        for i in range(size):
            dot += np.float64(a[i]) * np.float64(b[i])
        dots[k] = dot * scale
        errors[k] = unit_error
        if abs(dot * scale) < NEAR_ZERO:
            absolute = 0.0
            for i in range(size):
                absolute += abs(np.float64(a[i]) * np.float64(b[i]))
            errors[k] = unit_error * absolute * scale


@kernel("int64(int64[::1], int32[::1], boolean[::1], int64[:,::1], int64[::1], int64[:,::1])")
def _place(keys, bins, genuine, windows, counts, kept):  # type: ignore[no-untyped-def]
    found = 0
    for k in range(len(keys)):
        for w in range(windows.shape[0]):
            if windows[w, 3] <= bins[k] <= windows[w, 4]:
                low, shift, slots = windows[w, 0], windows[w, 1], windows[w, 2]
                keep, offset = windows[w, 5], windows[w, 6]
                slot = min(max(((keys[k] - low) >> shift) + 1, 0), slots + 1)
                counts[offset + (0 if genuine[k] else slots + 2) + slot] += 1
                if keep and slot == 1 and found < kept.shape[0]:
                    kept[found, 0], kept[found, 1] = w, 2 * keys[k] + (not genuine[k])
                    found += 1
    return found
