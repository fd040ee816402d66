"""A raw dataset and options -> a complete shard set, resumable, the same for any number of workers."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from fastface import __version__
from fastface.conversion.duplicates import Duplicates, find_duplicates, write_duplicates
from fastface.conversion.faces import Finder
from fastface.conversion.join import DataError, check_columns, join_set, write_rejects
from fastface.conversion.options import Options
from fastface.conversion.order import auto_shard_size, fingerprint, order_of, shared_identities
from fastface.conversion.pack import Job, prepare_record, read_note
from fastface.conversion.partial import Partial, StorageError
from fastface.conversion.report import Report
from fastface.conversion.workers import num_cores, pack_all
from fastface.data.columns import FORMAT
from fastface.data.images import Rejected
from fastface.data.index import Index
from fastface.data.sources import enough_images, include_exclude, split_by_identity
from fastface.data.sources.kinds import open_source
from fastface.data.values import listed
from fastface.durable import write_durably

if TYPE_CHECKING:
    from fastface.data.sources import Source

OVERHEAD_BYTES = 2 * 512 + 512 + 256 + 160  # per image: two headers, label, padding, rows in index and notes
LEAKAGE = (
    "What is trained on must not be tested on: move them into one split, take them out, or, knowing that figures will "
    "be too good, say --leakage allow"
)
LIVE_AND_SPOOF = {"live", "spoof"}
SAMPLES = 32  # images tried to estimate the size of the output


class _Bar(tqdm):
    monitor_interval = 0  # its watching thread would be there when the workers are forked


def convert(
    options: Options,
    sources: Mapping[str, Source] | None = None,
    *,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Report:
    """Convert `options.input` (or `sources`, already open, by set name) to shards in `options.out`.

    The folder `out` appears only when complete; until then all is in OUT.partial, and the same call goes on
    from there. ValueError where input and options do not fit, StorageError (disk, lock), DataError (nothing
    readable). KeyboardInterrupt carries a message that says what is kept. `facts` join the meta.json of each set,
    `files` are published beside the sets.
    """
    partial = Partial(options.out)
    partial.probe()
    with partial.lock(options.part):
        try:
            opened = dict(sources or open_source(options.kind, options.input, **options.settings()))
            opened = _narrow(opened, options)
            sets = _divide(opened, options)
        except OSError as error:  # before anything was written, so it is the input's
            raise ValueError(f"cannot read {error.filename or options.input}: {error.strerror}") from error
        finder = _finder(options)
        jobs = {name: _job(source, name, options, partial, finder) for name, source in sets.items()}
        with partial.storage():
            partial.agree(_plan(options, jobs))
            for job in jobs.values():
                job.shards.mkdir(parents=True, exist_ok=True)
                job.notes.mkdir(parents=True, exist_ok=True)
            partial.sweep()
            report = _pack(options, partial, list(jobs.values()))
            report.skipped = Counter(reason for source in opened.values() for _, reason in source.skipped)
            report.shared = shared_identities(sets)
            if options.part is None:
                for name, data in (files or {}).items():
                    write_durably(partial.made / name, data)
                _join(options, partial, jobs, opened, report, facts or {})
        return report


def _narrow(sources: dict[str, Source], options: Options) -> dict[str, Source]:
    """Keep the identities that are asked for."""
    if len(sources) > 1 and (options.include or options.exclude or options.split):
        raise ValueError(
            f"{options.input} has the splits {', '.join(sources)} already: --split, --include and --exclude "
            f"need one of them as input, such as {options.input / next(iter(sources))}"
        )
    chosen = {name: include_exclude(source, options.include, options.exclude) for name, source in sources.items()}
    return {name: enough_images(source, options.min_images) for name, source in chosen.items()}


def _divide(sources: dict[str, Source], options: Options) -> dict[str, Source]:
    """Split where that is asked for, and check that every set can be made."""
    chosen = sources
    if options.split is not None:
        chosen = split_by_identity(chosen[""], dict(options.split), options.seed, options.split_by)
    for name, source in chosen.items():
        if not len(source):
            raise DataError(f"{options.input} {name} has no images")
        check_columns(source)
        if options.boxes and source.boxes is None:
            raise ValueError(f"--crop box: {options.input} has no boxes; a list needs columns x0,y0,x1,y1")
        if options.align is not None:
            options.align.check_source(source, str(options.input))
    if options.leakage == "refuse" and (shared := _leaks(shared_identities(chosen), chosen)):
        raise ValueError(f"{options.input}: {shared} {LEAKAGE}")
    return chosen


def _leaks(shared: Mapping[tuple[str, str], list[str]], sets: Mapping[str, Source]) -> str:
    """Say which persons two sets of live and spoof images share, or nothing."""
    found = [
        f"{len(people):,} persons are in both {a} and {b} ({listed(people)})"
        for (a, b), people in shared.items()
        if all("subject" in sets[name].columns and set(sets[name].classes) <= LIVE_AND_SPOOF for name in (a, b))
    ]
    return "; ".join(found)


def _check_copies(found: Duplicates, made: Mapping[str, Index]) -> None:
    """Refuse sets of live and spoof images that share images of the same bytes."""
    several = [group for group in found.groups if len({k for k, _ in group}) > 1]
    titles, opened = list(made), list(made.values())
    if several and all(set(index.classes) <= LIVE_AND_SPOOF for index in opened):
        named = ", ".join(f"{titles[k]}: {opened[k].name(i)}" for k, i in several[0])
        raise DataError(f"{len(several):,} images are, byte for byte, in more than one set ({named}). {LEAKAGE}")


def _finder(options: Options) -> Finder | None:
    """Read what the detector found in earlier conversions to the same folder."""
    if options.align is None or options.align.detector is None or options.join:
        return None
    finder = Finder(options.align.detector, options.out.parent / "detections")
    if len(finder.known):
        print(f"faces of {len(finder.known):,} images are known from {finder.known.folder}", file=sys.stderr)
    return finder


def _job(source: Source, name: str, options: Options, partial: Partial, finder: Finder | None) -> Job:
    size = len(source)
    order = order_of(source, options.seed, options.shuffle)
    shard_size = options.shard_size or auto_shard_size(size)
    made, notes = partial.made / name, partial.notes / name
    return Job(source, order, shard_size, options.spec, options.boxes, made, notes, options.align, finder)


def _plan(options: Options, jobs: Mapping[str, Job]) -> dict[str, Any]:
    """Say what a conversion is; all that changes a byte of the output is in it."""
    packages = {"pillow", "simplejpeg"}.union(*(job.source.made_with for job in jobs.values()))
    made_with = {"fastface": __version__, **{name: version(name) for name in sorted(packages)}}
    sets = {
        name: {
            "images": len(job.source),
            "classes": len(job.source.classes),
            "shard_size": job.shard_size,
            "scan": fingerprint(job.source),
        }
        for name, job in jobs.items()
    }
    return {"format": FORMAT, "made_with": made_with, "options": options.essence(), "sets": sets}


def _pack(options: Options, partial: Partial, jobs: list[Job]) -> Report:
    """Make the shards that are missing, of our part."""
    tasks = [(number, shard) for number, job in enumerate(jobs) for shard in range(job.num_shards)]
    if options.part is not None:
        tasks = tasks[options.part[0] :: options.part[1]]
    todo = [(number, shard) for number, shard in tasks if not jobs[number].finished(shard)]
    if options.join and todo:
        raise ValueError(
            f"--join: {len(todo):,} of {len(tasks):,} shards are not made yet, the first is {todo[0][1]}: "
            "run the missing parts, or leave --join out to make them here"
        )
    total, left = (sum(len(jobs[n].positions(k)) for n, k in some) for some in (tasks, todo))
    reused = len(tasks) - len(todo)
    if reused and todo:
        print(f"going on: {reused:,} of {len(tasks):,} shards are finished in {partial.root}", file=sys.stderr)
    bytes_per_image = _estimate(jobs, todo) if todo else 0.0
    for job in jobs:
        job.source.close()
    _check_space(partial, bytes_per_image, left)
    workers = options.workers or num_cores()
    start, done, rejected = time.monotonic(), 0, 0
    interval = 0.2 if sys.stderr.isatty() else 30
    with _Bar(total=total, initial=total - left, unit=" images", mininterval=interval, disable=not todo) as bar:

        def show(now_done: int, now_rejected: int) -> None:
            nonlocal done, rejected
            if now_rejected != rejected:
                bar.set_postfix_str(f"{now_rejected:,} rejected", refresh=False)
            bar.update(now_done - done)
            done, rejected = now_done, now_rejected

        partial.needed = lambda: max(bytes_per_image * (left - done), 0)
        try:
            pack_all(jobs, todo, workers, partial.held, show)
        except KeyboardInterrupt:
            finished = sum(jobs[number].finished(shard) for number, shard in tasks)
            raise KeyboardInterrupt(
                f"stopped: {finished:,} of {len(tasks):,} shards are finished and kept in {partial.root}; "
                "the same command goes on from here"
            ) from None
    seconds = time.monotonic() - start
    return Report(options.out, {}, Counter(), {}, len(todo), reused, left, rejected, seconds, options.part)


def _estimate(jobs: list[Job], todo: list[tuple[int, int]]) -> float:
    """Prepare some images of the shards to be made and return the mean bytes that one takes in the output."""
    shards = [todo[i] for i in np.linspace(0, len(todo) - 1, min(SAMPLES, len(todo))).astype(int)]
    sizes = []
    for number, shard in shards:
        positions = jobs[number].positions(shard)
        for position in np.linspace(positions[0], positions[-1], -(-SAMPLES // len(shards))).astype(int):
            try:
                data = prepare_record(jobs[number], int(jobs[number].order[position]), look=False).data
            except Rejected:
                continue
            sizes.append(len(data) + OVERHEAD_BYTES)
    return sum(sizes) / max(len(sizes), 1)


def _check_space(partial: Partial, bytes_per_image: float, images: int) -> None:
    needed, free = bytes_per_image * images, partial.free()
    if needed > free:
        raise StorageError(
            f"{images:,} images need about {needed:,.0f} bytes, {free:,} are free on the disk of "
            f"{partial.out}: free some space or choose another --out"
        )


def _join(
    options: Options,
    partial: Partial,
    jobs: Mapping[str, Job],
    opened: Mapping[str, Source],
    report: Report,
    facts: Mapping[str, Mapping[str, Any]],
) -> None:
    notes = [read_note(job, shard) for job in jobs.values() for shard in range(job.num_shards)]
    skipped = [item for source in opened.values() for item in source.skipped]
    rejects, images = sum(len(note.rejects) for note in notes), sum(len(job.order) for job in jobs.values())
    listed = write_rejects(partial.root, notes, skipped)
    if rejects > options.max_rejects * images:
        raise DataError(
            f"{rejects:,} of {images:,} images were rejected, more than --max-rejects "
            f"{options.max_rejects:g} allows: see {listed}; a larger "
            "--max-rejects publishes what is left, without making it again"
        )
    for name, job in jobs.items():
        others = {(set(pair) - {name}).pop(): len(shared) for pair, shared in report.shared.items() if name in pair}
        more = {
            "fastface": __version__,
            "set": name or None,
            "options": {
                **options.essence(),
                "shard_size": job.shard_size,
                "shuffle": options.shuffle and not job.source.ordered,
            },
            "identities_shared_with": others,
            "skipped": dict(sorted(report.skipped.items())),
            **facts.get(name, {}),
        }
        report.sets[name] = join_set(job, f"{options.input} {name}".strip(), more)
    os.replace(listed, partial.made / "rejects.csv")
    made = {name: Index.open(partial.made / name) for name in jobs}
    report.duplicates = find_duplicates(list(made.values()))
    write_duplicates(partial.made / "duplicates.csv", made, report.duplicates)
    if options.leakage == "refuse":
        _check_copies(report.duplicates, made)
    partial.publish()
