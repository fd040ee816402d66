"""One way to change an image: its settings, its random parameters, and what they do to pixels, written three times."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import AfterValidator, Field

from fastface.data.compiled import Kernel
from fastface.section import Section

Parameters = dict[str, np.ndarray]  # name -> [B, ...], in shares of the image's sides or in units of their own


class Numbers(Protocol):
    """Four uniform numbers of [0, 1) per row from the operator's stream `name/field`: float64 [4, B]."""

    def __call__(self, field: str, item: int = 0) -> np.ndarray: ...


class Graph(NamedTuple):
    """What an operator needs to say itself in DALI's words."""

    fn: Any  # nvidia.dali.fn
    types: Any
    math: Any
    height: int
    width: int
    device: str  # "cpu" or "gpu", where the images are


class Operator(Section):
    """Base of all operators. Random is only what `draw` returns; all else is a function of it.

    `reference` is the specification, slow and obvious. `apply` gives the same bytes without the GIL where
    numba is there. `dali` says it in DALI's operators, within the tolerance that tests hold it to.
    """

    name: str
    p: float = Field(default=0.2, ge=0, le=1)
    """Probability that an image gets it."""

    kernel: ClassVar[Kernel | None] = None  # (images, rows, *arguments) -> images[rows] changed in place
    tolerance: ClassVar[int] = 0  # levels of uint8 by which DALI may differ from `reference`

    def draw(self, words: np.ndarray, numbers: Numbers) -> Parameters:
        """Return the parameters of each row from float64 [3, B] uniform words and, if those are few, `numbers`."""
        raise NotImplementedError

    def arguments(self, parameters: Parameters, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Turn parameters into what `reference` takes for images of this size: [B, ...] each."""
        raise NotImplementedError

    def reference(self, image: np.ndarray, *arguments: Any) -> np.ndarray:
        """Return the changed copy of uint8 [H, W, 3], given one row of `arguments`."""
        raise NotImplementedError

    def feeds(self, parameters: Parameters, height: int, width: int) -> dict[str, np.ndarray]:
        """Turn parameters into what `dali` takes: float32, int32 or uint8 [B, ...] each."""
        raise NotImplementedError

    def dali(self, graph: Graph, images: Any, feeds: dict[str, Any]) -> Any:
        """Return the node of the changed images; `feeds` are nodes on the CPU."""
        raise NotImplementedError

    def matrices(self, parameters: Parameters, height: int, width: int) -> np.ndarray | None:
        """Return where points (x, y, 1) go, float64 [B, 2, 3] px from the image's corner; None: they stay."""
        return None

    def apply(self, images: np.ndarray, rows: np.ndarray, arguments: tuple[np.ndarray, ...]) -> None:
        """Change rows (int64 [n]) of images (uint8 [B, H, W, 3]) in place; arguments are [n, ...] each."""
        function = self.kernel.function if self.kernel is not None else None
        if function is not None:
            function(images, rows, *arguments)
            return
        for place, row in enumerate(rows.tolist()):
            images[row] = self.reference(images[row], *(values[place] for values in arguments))


class Drawn(NamedTuple):
    """One operator's draws for the rows of a batch."""

    operator: Operator
    chosen: np.ndarray  # bool [B]; the other rows' parameters mean nothing
    parameters: Parameters

    def rows(self, start: int, stop: int) -> Drawn:
        """Return the draws of rows [start, stop)."""
        parameters = {name: values[start:stop] for name, values in self.parameters.items()}
        return Drawn(self.operator, self.chosen[start:stop], parameters)


def within(low: float, high: float) -> AfterValidator:
    """Check a range setting: two numbers in order, inside [low, high]."""

    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(
                f"[{value[0]:g}, {value[1]:g}] is no range: take two numbers in order, {low:g} to {high:g}"
            )
        return value

    return AfterValidator(check)


def between(words: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Spread uniform numbers of [0, 1) over a range."""
    return limits[0] + words * (limits[1] - limits[0])


def between_logs(words: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Spread uniform numbers over a range of positive ratios, a half as likely as a double."""
    return np.exp(between(words, (float(np.log(limits[0])), float(np.log(limits[1])))))


def rounded(values: np.ndarray) -> np.ndarray:
    """Round to the nearest whole number, halves up: int64."""
    return np.floor(values + 0.5).astype(np.int64)
