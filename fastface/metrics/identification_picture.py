"""Searches of a gallery -> one picture: CMC, misses over false alarms, and the scores behind them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.drawing import INK, Panel, draw_panels, line_style
from fastface.metrics.identification import Searches, cmc, det
from fastface.metrics.pictures import BINS, GENUINE, IMPOSTOR


def identification_picture(path: str | Path, named: Mapping[str, Searches], *, title: str = "") -> None:
    """Write a PNG of searches by name: CMC, FNIR over FPIR where there are non-mated searches, scores of the first."""
    open_sets = {name: s for name, s in named.items() if np.isfinite(s.non_mated).any()}
    panels: list[Panel] = [lambda axes: _cmc(axes, named)]
    if open_sets:
        panels.append(lambda axes: _misses(axes, open_sets))
        panels.append(lambda axes: _scores(axes, next(iter(open_sets.values()))))
    draw_panels(path, panels, columns=len(panels), title=title)


def _cmc(axes: Axes, named: Mapping[str, Searches]) -> None:
    last = max(searches.listed for searches in named.values())
    for i, (name, searches) in enumerate(named.items()):
        rates = cmc(searches) / len(searches.mate)
        style: dict[str, Any] = line_style(i)
        axes.plot(np.arange(1, len(rates) + 1), rates, label=f"{name}  rank 1 {rates[0]:.4f}", **style)
    axes.set_xscale("log")
    axes.set_xlim(1, max(last, 2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low = min(cmc(searches)[0] / len(searches.mate) for searches in named.values())
    margin = max(0.02, 0.12 * (1 - low))
    axes.set_ylim(max(0.0, low - margin), 1 + margin / 4)
    axes.set_title("CMC")
    axes.set_xlabel("rank")
    axes.set_ylabel("mated searches with their mate within it")
    axes.legend(loc="lower right", frameon=False, fontsize=8.5)


def _misses(axes: Axes, named: Mapping[str, Searches]) -> None:
    """Draw FNIR over FPIR, dotted where fewer than 30 searches raise a false alarm."""
    lowest = min(1 / len(searches.non_mated) for searches in named.values())
    floor = min(0.1, 10.0 ** np.floor(np.log10(lowest)))
    least = 1.0
    for i, (name, searches) in enumerate(named.items()):
        points = det(searches)
        known = points.impostors >= RULE_OF_THIRTY
        first = int(np.argmax(known)) if known.any() else len(known) - 1
        misses = 1 - points.tar
        least = min(least, float(misses[misses > 0].min(initial=1.0)))
        for part, dashes in ((slice(first + 1), ":"), (slice(first, None), "-")):
            style: dict[str, Any] = line_style(i) | {"linestyle": dashes}
            x, y = np.maximum(points.fmr[part], floor / 10), np.maximum(misses[part], 1e-9)
            axes.step(x, y, where="post", label=name if dashes == "-" else None, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(floor, 1)
    axes.set_ylim(max(least / 2, 1e-6), 1)
    axes.set_title("Misses over false alarms")
    axes.set_xlabel("FPIR (dotted: fewer than 30 false alarms)")
    axes.set_ylabel("FNIR: mate not first, or below the threshold")
    axes.legend(loc="lower left", frameon=False, fontsize=8.5)


def _scores(axes: Axes, searches: Searches) -> None:
    kinds = ((searches.non_mated, IMPOSTOR, "best of a non-mated search"), (searches.mate, GENUINE, "mate"))
    finite = [values[np.isfinite(values)].astype(np.float64) for values, _, _ in kinds]
    low, high = min(v.min() for v in finite), max(v.max() for v in finite)
    edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    for values, (_, colour, label) in zip(finite, kinds, strict=True):
        share = np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=f"{label} ({len(values):,})", zorder=2)
        axes.stairs(share, edges, color=colour, linewidth=1.2, zorder=3)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.set_title("Scores")
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("share of searches")
    axes.legend(loc="upper center", frameon=False, fontsize=8.5, labelcolor=INK)
