"""Measured rates of a training run -> one sentence: what bounds it, and what to change."""

from __future__ import annotations

import math
from typing import NamedTuple

COSTS_NOTHING = 0.95  # end to end, of the network alone: above it, loading is not worth a thought
DECODING = 0.65  # loader alone, of decoding alone; below it time goes elsewhere (results/loader.jsonl: 0.69 to 0.83)
HEADROOM = 1.2  # how much faster than a GPU's network the loader should be: its batches do not come evenly
EXPLAINED = 0.9  # of what loading and network give when they take turns on the same cores
LOW_UTILISATION = 0.25  # of a GPU's peak
DISTURBED = 0.1  # of the cores: above it, what other processes used spoils the figures


class Figures(NamedTuple):
    """What benchmarks/doctor.py measures; rates in images per second of this process."""

    decode_only: float  # libjpeg-turbo in as many threads as the loader's, nothing kept
    loader_only: float
    model_only: float  # the same step on one batch that stays in memory
    end_to_end: float
    wait_share: float  # of the time end to end, spent waiting for a batch: 0 to 1
    utilisation: float | None  # of the arithmetic peak, model only; None where the peak is not known
    threads: int  # of the loader
    cores: int  # that this process may use
    on_gpu: bool
    decoder: str
    compiled: bool  # the loader's arithmetic, by numba
    others: float  # cores that other processes used meanwhile


def diagnose(f: Figures) -> str:
    """Say in one sentence what bounds the run and what to change first."""
    sentence = _what_bounds(f)
    if f.others > DISTURBED * f.cores:
        used = f"Other processes used {f.others:.1f} of {_plural(f.cores, 'core')}"
        return f"{used}, so measure again without them; as it was: {sentence[0].lower()}{sentence[1:]}"
    return sentence


def _what_bounds(f: Figures) -> str:
    kept = f.end_to_end / f.model_only
    if kept >= COSTS_NOTHING:
        share = f"{min(kept, 1):.0%} of the network alone"
        return f"The network is the limit: loading costs nothing ({share}){_faster_network(f)}."
    if f.loader_only < f.model_only * (HEADROOM if f.on_gpu else 1):
        return _loader_is_slow(f)
    return _too_little_together(f, kept) if f.on_gpu else _sharing_cores(f, kept)


def _loader_is_slow(f: Figures) -> str:
    """Say why the loader falls short of the network."""
    needed = math.ceil(f.threads * HEADROOM * f.model_only / f.loader_only)
    lag = f"The loader gives {f.loader_only:,.0f} images/s and the network takes {f.model_only:,.0f}: "
    if f.decoder == "dali-gpu":
        return f"{lag}the GPU decodes beside training; try data.decoder torch with {_plural(f.cores, 'thread')}."
    if f.loader_only < DECODING * f.decode_only:
        share = f"{1 - f.loader_only / f.decode_only:.0%} of loading is not decoding; "
        if not f.compiled:
            return f'{lag}{share}pip install "numba>=0.61", which compiles the rest.'
        return f"{lag}{share}if a second run of the doctor says so too, put the shards on a faster disk or in memory."
    if f.threads >= f.cores:
        gpu = "data.decoder dali-gpu, " if f.on_gpu else ""
        return (
            f"{lag}it waits on decoding and has a thread on each of the {_plural(f.cores, 'core')} already; {gpu}"
            f"more cores ({needed} would do) or smaller JPEGs would help."
        )
    if needed <= f.cores:
        more = _plural(needed - f.threads, "more thread")
        return f"{lag}it waits on decoding; {more} would keep up: set runtime.decode_threads to {needed}."
    return (
        f"{lag}it waits on decoding; set runtime.decode_threads to all {_plural(f.cores, 'core')}, though {needed} "
        f"would be needed to keep up."
    )


def _sharing_cores(f: Figures, kept: float) -> str:
    """Say what it means that the network runs on the cores that decode."""
    costs = f"loading takes {_us(f.loader_only)} an image and the network {_us(f.model_only)}"
    in_turn = 1 / (1 / f.loader_only + 1 / f.model_only)
    if f.end_to_end >= EXPLAINED * in_turn:
        return (
            f"Decoding and the network share {_plural(f.cores, 'core')}: {costs}, and they add up; threads cannot "
            f"help, more cores, a GPU or smaller JPEGs can."
        )
    puzzle = f"End to end is {kept:.0%} of the network alone, and loading does not explain it ({costs}): "
    if f.others > DISTURBED * f.cores:
        return f"{puzzle}the other processes may."
    return f"{puzzle}threads of decoding and arithmetic are in each other's way, lower runtime.decode_threads to 1."


def _too_little_together(f: Figures, kept: float) -> str:
    """Say why a GPU idles though the loader alone is fast enough."""
    if f.wait_share > 1 - COSTS_NOTHING:
        return (
            f"The loader is fast enough ({f.loader_only / f.model_only:.1f} times the network), but its batches come "
            f"unevenly and {f.wait_share:.0%} of the time is waiting: raise data.ahead."
        )
    return (
        f"The loader's {_plural(f.threads, 'thread')} keep ahead ({f.wait_share:.0%} waiting) but slow the one that "
        f"drives the GPU, to {kept:.0%} of the network alone: lower runtime.decode_threads or take dali-gpu."
    )


def _faster_network(f: Figures) -> str:
    """Add how the network could go faster, where that is to be seen."""
    if not f.on_gpu or f.utilisation is None or f.utilisation >= LOW_UTILISATION:
        return ""
    return f", but uses {f.utilisation:.0%} of the GPU's arithmetic: try a larger train.micro_batch or train.compile"


def _us(rate: float) -> str:
    return f"{1e6 / rate:,.0f} us"


def _plural(count: float, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
