"""Shards to make -> made by as many processes as asked for, which stop together and never outlive us."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from fastface.conversion.pack import Counters, Job, pack_shard


def num_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_shared: tuple[Sequence[Job], Counters]  # in a worker process: what all its tasks use


def _begin(jobs: Sequence[Job], counters: Counters, held: Sequence[int], parent: int) -> None:
    global _shared
    _shared = (jobs, counters)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for handle in held:
        os.close(handle)  # or the locks would outlive a parent that was killed
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.25)
    os._exit(1)


def _task(job: int, shard: int) -> None:
    jobs, counters = _shared
    pack_shard(jobs[job], shard, counters)


def pack_all(
    jobs: Sequence[Job],
    tasks: Sequence[tuple[int, int]],
    workers: int,
    held: Sequence[int],
    show: Callable[[int, int], None],
) -> None:
    """Make the shards `tasks` (job number, shard) with `workers` processes.

    `held` are the file handles of locks, which workers must not keep; `show(done, rejected)` is called
    several times a second with counts of images. On any error or Ctrl-C the workers stop within a few images
    and what is unfinished is deleted, then the error goes on.
    """
    detects = any(job.finder is not None for job in jobs)  # which stays out of this process
    if (workers == 1 or len(tasks) <= 1) and not detects:
        counters = Counters(show=show)
        for job, shard in tasks:
            pack_shard(jobs[job], shard, counters)
        return
    # fork shares the source's arrays with the workers; no thread runs yet, and torch is not loaded, or not used
    safe = all(job.finder is None or job.finder.may_fork() for job in jobs)
    method = "fork" if sys.platform == "linux" and safe else "spawn"
    context = multiprocessing.get_context(method)
    counters = Counters(context)
    start = (jobs, counters, held if method == "fork" else (), os.getpid())
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_begin, initargs=start)
    try:
        pending = {pool.submit(_task, *task) for task in tasks}
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            show(*counters.read())
            for future in finished:
                future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a worker process was killed, perhaps because memory ran out: use fewer --workers; finished "
            "shards are kept, so the same command goes on from here"
        ) from None
    finally:
        counters.stop.value = 1  # a no-op where all is done
        pool.shutdown(wait=True, cancel_futures=True)
