"""Job numbers -> batches in order, made ahead of their consumer by threads in recycled memory."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastface.data.batch import Batch, Buffer


class Prefetch:
    """Threads take job numbers 0, 1, ... in order, each with a free buffer, and leave batches for `next`.

    make: (job number, buffer) -> batch, called in the threads. count: how many jobs there are, None: no end.
    """

    def __init__(
        self, make: Callable[[int, Buffer], Batch], buffers: list[Buffer], threads: int, count: int | None
    ) -> None:
        self._make, self._count = make, count
        lock = threading.Lock()
        self._room, self._arrived = threading.Condition(lock), threading.Condition(lock)
        self._free = list(buffers)
        self._started = 0  # jobs given out
        self._delivered = 0
        self._done: dict[int, tuple[Buffer, Batch | BaseException]] = {}
        self._held: Buffer | None = None  # what the consumer is using
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"fastface-loader-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while True:
            with self._room:  # number and buffer are taken together, so the next job due always has a buffer
                while not self._closed and not self._free and self._started != self._count:
                    self._room.wait()
                if self._closed or self._started == self._count:
                    return
                number, buffer = self._started, self._free.pop()
                self._started += 1
            try:
                result = self._make(number, buffer)
            except BaseException as error:  # carried to the consumer, whatever it is
                result = error
            with self._arrived:
                self._done[number] = buffer, result
                self._arrived.notify()

    def next(self) -> Batch | None:
        """Return the next batch, or None at the end; the one before it goes back to the threads.

        Raises what `make` raised for this batch, and ValueError after `close`.
        """
        if self._held is not None:
            self._held.release()
        with self._arrived:
            if self._held is not None:
                self._free.append(self._held)
                self._held = None
                self._room.notify()
            if self._delivered == self._count:
                return None
            while not self._closed and self._delivered not in self._done:
                self._arrived.wait()
            if self._closed:
                raise ValueError("this iteration was ended by Loader.close() or a newer Loader.batches()")
            self._held, result = self._done.pop(self._delivered)
            self._delivered += 1
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Stop and join the threads; each finishes the job it is at."""
        with self._room:
            self._closed = True
            self._room.notify_all()
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()
