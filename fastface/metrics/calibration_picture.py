"""Log-likelihood ratios -> one picture: stated against observed probability, and the ratios of both kinds of pair."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from fastface.metrics.calibration import calibration_curve, cllr, ece
from fastface.metrics.drawing import INK, Panel, draw_panels, line_style
from fastface.metrics.pictures import BINS, GENUINE, IMPOSTOR, Scored


def calibration_picture(path: str | Path, curves: Mapping[str, Scored], *, title: str = "") -> None:
    """Write a PNG of log-likelihood ratios by name, the first in the foreground; failures (NaN) are left out.

    Panels: the calibration curves at prior 1/2, marks as large as their bins' weight, and the histogram of the first's
    ratios, cut at +-15 (odds of 3 million).
    """
    if not curves:
        raise ValueError("A picture needs at least one (log-likelihood ratios, same).")
    finite = {
        name: (llrs[np.isfinite(llrs)], np.asarray(same, bool)[np.isfinite(llrs)])
        for name, (llrs, same) in curves.items()
    }
    first = next(iter(finite))
    panels: list[Panel] = [lambda axes: _reliability(axes, finite), lambda axes: _ratios(axes, first, *finite[first])]
    draw_panels(path, panels, columns=2, title=title)


def _reliability(axes: Axes, curves: Mapping[str, Scored]) -> None:
    axes.plot((0, 1), (0, 1), color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.5, label="as it should be")
    for i, (name, (llrs, same)) in enumerate(curves.items()):
        bins = calibration_curve(llrs, same)
        style = line_style(i)
        label = f"{name}  Cllr {cllr(llrs, same):.4f}, ECE {ece(llrs, same):.4f}"
        stated, observed = [b.stated for b in bins], [b.observed for b in bins]
        axes.plot(stated, observed, label=label, **style)
        sizes = [10 + 400 * b.weight for b in bins]
        axes.scatter(stated, observed, sizes, color=style["color"], alpha=0.5, zorder=style["zorder"])
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("Calibration at prior 1/2")
    axes.set_xlabel("stated probability of one person")
    axes.set_ylabel("observed share")
    axes.legend(loc="upper left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _ratios(axes: Axes, name: str, llrs: np.ndarray, same: np.ndarray) -> None:
    edges = np.linspace(-15, 15, BINS + 1)
    for kind, colour, label in ((~same, IMPOSTOR, "impostor"), (same, GENUINE, "genuine")):
        share = np.histogram(np.clip(llrs[kind], -15, 15), edges)[0] / max(1, int(kind.sum()))
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=f"{label} ({int(kind.sum()):,})", zorder=2)
        axes.stairs(share, edges, color=colour, linewidth=1.2, zorder=3)
    axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
    axes.set_xlim(-15, 15)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.set_title(f"Log-likelihood ratios: {name}")
    axes.set_xlabel("natural logarithm; right of 0 speaks for one person")
    axes.set_ylabel("share of pairs")
    axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=8.5)
