"""Parts of a training step -> milliseconds, without making the host wait for the device."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, Literal

import torch

Watch = Callable[[str], AbstractContextManager[None]]
"""What times a part of a step: `with watch("mining"): ...`; a Stopwatch, or `silent`."""


def silent(part: str) -> AbstractContextManager[None]:
    """Time nothing: what a task holds until a training loop gives it a stopwatch."""
    return nullcontext()


class Stopwatch:
    """Time the named parts of each step.

    Parts may lie within each other: the inner one's time is taken out of the outer one's, so that all parts add up
    to at most the step. A part that comes again in the same step (micro-batches) adds up.

    On a GPU each boundary is an event in the current stream, and the time of a part is the device's: `data` is how
    long the device stood still for want of a batch, not how long the host waited for one. Nothing waits for the
    device; `take` reads the steps it has finished and leaves the others for the next time. On a CPU the clock is
    read. Costs 0.8 us a part on a CPU (2 cores of an AMD EPYC virtual machine, 2026-11-24).
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self._clock = clock
        self._cuda = device.type == "cuda"
        self._parts: dict[str, _Part] = {}
        self._open: list[str] = []  # the parts we are in, outermost first
        self._since = 0.0  # CPU: when the innermost of them began or went on
        self._total_s: dict[str, float] = {}  # CPU: since the last take
        self._steps = 0  # CPU: since the last take
        self._marks: list[tuple[Any, str | None]] = []  # GPU, this step: (event, the part that goes on from there)
        self._queued: list[list[tuple[Any, str | None]]] = []  # GPU: steps not read yet
        self._pool: list[Any] = []  # GPU: events that can be used again

    def __call__(self, part: str) -> AbstractContextManager[None]:
        """Return what times a part while it is entered."""
        found = self._parts.get(part)
        if found is None:
            found = self._parts[part] = _Part(self, part)
        return found

    def end_step(self) -> None:
        """Close a step: what comes next belongs to another one."""
        assert not self._open, f"the step ended within {self._open}"
        if self._cuda:
            self._queued.append(self._marks)
            self._marks = []
        else:
            self._steps += 1

    def take(self) -> dict[str, float]:
        """Return the mean milliseconds a step of each part, over the finished steps since the last call."""
        if self._cuda:
            self._read_finished()
        steps, totals = self._steps, self._total_s
        self._steps, self._total_s = 0, {}
        return {part: 1e3 * seconds / steps for part, seconds in totals.items()} if steps else {}

    def _enter(self, part: str) -> None:
        self._turn(part)
        self._open.append(part)

    def _leave(self) -> None:
        self._open.pop()
        self._turn(self._open[-1] if self._open else None)

    def _turn(self, to: str | None) -> None:
        """Let the part that runs end here, and `to` begin or go on."""
        if self._cuda:
            event = self._pool.pop() if self._pool else torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self._marks.append((event, to))
            return
        now = self._clock()
        since, self._since = self._since, now
        if self._marks:
            part = self._marks.pop()[1]
            assert part is not None
            self._total_s[part] = self._total_s.get(part, 0.0) + now - since
        if to is not None:
            self._marks.append((None, to))

    def _read_finished(self) -> None:
        finished = 0
        for marks in self._queued:
            if marks and not marks[-1][0].query():
                break  # steps finish in order
            for (start, part), (end, _) in pairwise(marks):
                if part is not None:
                    self._total_s[part] = self._total_s.get(part, 0.0) + start.elapsed_time(end) / 1e3
            self._pool += [event for event, _ in marks]
            finished += 1
        del self._queued[:finished]
        self._steps += finished


class _Part:
    """One part of a stopwatch, entered as often as it comes."""

    __slots__ = ("_name", "_watch")

    def __init__(self, watch: Stopwatch, name: str) -> None:
        self._watch, self._name = watch, name

    def __enter__(self) -> None:
        self._watch._enter(self._name)

    def __exit__(self, *exception: object) -> Literal[False]:
        self._watch._leave()
        return False
