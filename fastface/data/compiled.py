"""A function of loops -> machine code that holds no GIL, where numba is there to make it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any


class Kernel:
    """Compile `loops` for one `signature` when first asked for; keep the code beside its file or in numba's cache.

    relaxed: what LLVM may do to floating-point arithmetic ("reassoc": sum in any order), where the result allows it.
    """

    def __init__(self, signature: str, loops: Callable[..., Any], relaxed: Iterable[str] = ()) -> None:
        self.signature, self.loops, self.relaxed = signature, loops, set(relaxed)

    @functools.cached_property
    def function(self) -> Callable[..., Any] | None:
        """The machine code, or None where numba is missing or switched off: the caller knows a slower way."""
        try:
            import numba
        except ImportError:  # not installed, or it refuses this numpy
            return None
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            return None
        try:
            return numba.njit(self.signature, nogil=True, cache=True, fastmath=self.relaxed)(self.loops)
        except Exception as error:  # numba names no type for "no folder to cache in" (RuntimeError, OSError, ...)
            warnings.warn(
                f"numba cannot use its cache ({error}); compiling afresh, about 1 s. Set NUMBA_CACHE_DIR",
                stacklevel=3,
            )
            return numba.njit(self.signature, nogil=True, fastmath=self.relaxed)(self.loops)


def kernel(signature: str, relaxed: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorate a function of loops over arrays: nothing in it may call Python."""
    return lambda loops: Kernel(signature, loops, relaxed)
