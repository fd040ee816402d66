"""What all pictures share: colours, panels in a grid, and series over training steps."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

COLOURS = ("#0b5fa5", "#e07b00", "#6f7680", "#8a3ea8", "#1a8a5a", "#b3342d")  # told apart by the colour-blind
INK, FAINT = "#22272e", "#d9dde2"
MOST_INTERVALS = 2_000  # of a series; a panel is about 700 px wide
DPI = 150

Panel = Callable[[Axes], None]


def draw_panels(
    path: str | Path,
    panels: Sequence[Panel],
    *,
    columns: int,
    title: str = "",
    inches: tuple[float, float] = (5.2, 4.5),
) -> None:
    """Write a PNG of panels in rows of `columns`, each `inches` wide and high; whole, or not at all."""
    rows = -(-len(panels) // columns)
    size = (inches[0] * columns, inches[1] * rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.04)  # type: ignore[union-attr]
    for place, draw in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        draw(axes)
        _dress(axes)
    if title:
        figure.suptitle(title, color=INK, fontsize=13, fontweight="bold")
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    os.replace(partial, path)


def line_style(i: int) -> dict[str, Any]:
    """Style the i-th curve; the first lies on top. After the last colour they come again, dashed."""
    dashes = "-" if i < len(COLOURS) else (0, (4, 1.5))
    return {"color": COLOURS[i % len(COLOURS)], "linewidth": 2.0, "zorder": 4 - 0.1 * i, "linestyle": dashes}


def draw_series(
    axes: Axes, steps: np.ndarray, values: np.ndarray, i: int = 0, label: str | None = None, *, exact: bool = False
) -> np.ndarray:
    """Draw values [N] over steps [N] faintly and their running mean over a fiftieth strongly; return the mean [M].

    exact: there is no noise to be smoothed.
    """
    x, y = interval_means(steps, values)
    smooth = y if exact else running_mean(y, max(1, len(y) // 50))
    style = line_style(i)
    if len(y) == 1:
        style |= {"marker": "o"}
    elif len(y) >= 100:  # of fewer, the mean is the values themselves
        axes.plot(x, y, color=style["color"], linewidth=0.7, alpha=0.35, zorder=2)
    axes.plot(x, smooth, label=label, **style)
    return smooth


def step_axis(axes: Axes, first: float, last: float) -> None:
    """Let a panel's horizontal axis be the steps from first to last."""
    axes.set_xlim(first, last if last > first else first + 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("step")


def interval_means(steps: np.ndarray, values: np.ndarray, most: int = MOST_INTERVALS) -> tuple[np.ndarray, np.ndarray]:
    """Average series [N] over at most `most` intervals of equally many values (the last may have fewer).

    Values that are not finite are left out; an interval without a finite one is NaN.
    """
    if len(steps) <= most:
        return steps.astype(np.float64), np.where(np.isfinite(values), values, np.nan)
    starts = np.arange(0, len(steps), -(-len(steps) // most))
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(np.float64), starts)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    sizes = np.diff(np.append(starts, len(steps)))
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(steps.astype(np.float64), starts) / sizes, means


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value [N] with its neighbours, `window` in all and fewer at the ends; NaN is left out, and stays."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    low, high = np.maximum(place - (window - 1) // 2, 0), np.minimum(place + window // 2 + 1, len(values))
    number = counts[high] - counts[low]
    means = np.divide(sums[high] - sums[low], number, out=np.full(len(values), np.nan), where=number > 0)
    return np.where(known, means, np.nan)


def _dress(axes: Axes) -> None:
    axes.set_title(axes.get_title(), loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.set_title("", loc="center")
    axes.grid(color=FAINT, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8b929b")
    axes.tick_params(colors=INK, labelsize=9, which="both")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(10)
