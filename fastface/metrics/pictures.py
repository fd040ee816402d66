"""Scores -> one picture: ROC and score histograms, and where asked for DET and the training loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from scipy.stats import norm

from fastface.metrics.curve import RULE_OF_THIRTY, Curve, area, calibrate, curve, equal_error
from fastface.metrics.drawing import INK, Panel, draw_panels, draw_series, line_style, step_axis

GENUINE, IMPOSTOR = "#1a8a5a", "#b3342d"
MOST_POINTS = 4_000  # of a drawn curve; its corners are no closer than a pixel
BINS = 80

Scored = tuple[np.ndarray, np.ndarray]
"""Scores [P] and same [P]."""


def verification_picture(
    path: str | Path,
    curves: Mapping[str, Scored],
    losses: Sequence[float] | np.ndarray | None = None,
    *,
    det: bool = False,
    title: str = "",
) -> None:
    """Write a PNG that compares scorings of pairs by name, the first of them in the foreground.

    Panels: ROC over a logarithmic FAR axis, the score histograms of the first two, DET on request (then in
    place of the second histogram), and the loss of each training step where `losses` [steps] is given. ROC
    curves are dotted where fewer than 30 impostor errors stand behind them, and left out where all pairs are of
    one kind.
    """
    if not curves:
        raise ValueError("A picture needs at least one (scores, same).")
    both = {name: scored for name, scored in curves.items() if len(np.unique(scored[1])) == 2}
    traced = {name: curve(scores, same) for name, (scores, same) in both.items()}
    panels: list[Panel] = [lambda axes: _roc(axes, traced)] if traced else []
    histograms = [_histogram_of(name, *scored) for name, scored in curves.items()]
    panels += histograms[: 1 if det else 2]
    if det and traced:
        panels.append(lambda axes: _det(axes, traced))
    if losses is not None and len(losses):
        steps = np.asarray(losses, dtype=np.float64)
        panels.append(lambda axes: _loss(axes, steps))
    draw_panels(path, panels, columns=len(panels) if len(panels) <= 3 else 2, title=title)


def _roc(axes: Axes, traced: Mapping[str, Curve]) -> None:
    lowest = min(1 / points.num_impostors for points in traced.values())
    floor = min(0.1, 10.0 ** np.floor(np.log10(max(lowest, 1e-7))))
    for i, (name, points) in enumerate(traced.items()):
        fmr, tar = _corners(points.fmr, points.tar)
        known = fmr * points.num_impostors >= RULE_OF_THIRTY
        first = int(np.argmax(known)) if known.any() else len(known) - 1
        label = f"{name}  AUC {area(points):.4f}"
        for part, dashes in ((slice(first + 1), ":"), (slice(first, None), "-")):
            x, y = np.maximum(fmr[part], floor / 10), tar[part]
            style: dict[str, Any] = line_style(i) | {"linestyle": dashes}
            axes.step(x, y, where="post", **style, label=label if dashes == "-" else None)
    chance = np.geomspace(floor, 1, 200)
    axes.plot(chance, chance, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.5, label="chance")
    axes.set_xscale("log")
    axes.set_xlim(floor, 1)
    axes.set_ylim(0, 1.01)
    axes.set_title("ROC")
    axes.set_xlabel("false accept rate (dotted: fewer than 30 errors)")
    axes.set_ylabel("true accept rate")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _histogram_of(name: str, scores: np.ndarray, same: np.ndarray) -> Panel:
    def draw(axes: Axes) -> None:
        finite = np.isfinite(scores)
        values, genuine = scores[finite].astype(np.float64), np.asarray(same, dtype=bool)[finite]
        low, high = float(values.min()), float(values.max())
        edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
        for kind, colour, label in ((~genuine, IMPOSTOR, "impostor"), (genuine, GENUINE, "genuine")):
            share = np.histogram(values[kind], edges)[0] / max(1, int(kind.sum()))
            text = f"{label} ({int(kind.sum()):,})"
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=text, zorder=2)
            axes.stairs(share, edges, color=colour, linewidth=1.2, zorder=3)
        for at, dashes, text in _marks(scores, same):
            axes.axvline(at, ymax=0.78, color=INK, linewidth=1.2, linestyle=dashes, label=text)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
        axes.set_title(f"Scores: {name}")
        axes.set_xlabel("cosine similarity")
        axes.set_ylabel("share of pairs")
        axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=8.5)

    return draw


def _marks(scores: np.ndarray, same: np.ndarray) -> list[tuple[float, str, str]]:
    """List (threshold, line style, label): equal rates, and 1 % false accepts where the pairs support it."""
    if len(np.unique(same)) < 2:
        return []
    eer, threshold = equal_error(curve(scores, same))
    strict = calibrate(scores, same, (1e-2,))[0]
    marks = [(threshold, "--", f"EER {_percent(eer)}")]
    return marks + [(strict.threshold, ":", f"FAR 1 %: TAR {_percent(strict.tar)}")] * strict.supported


def _det(axes: Axes, traced: Mapping[str, Curve]) -> None:
    lowest = min(1 / max(points.num_impostors, points.num_genuine) for points in traced.values())
    floor = min(0.05, max(1e-7, lowest))
    for i, (name, points) in enumerate(traced.items()):
        fmr, tar = _corners(points.fmr, points.tar)
        x, y = (norm.ppf(np.clip(rate, floor / 10, 1 - floor / 10)) for rate in (fmr, 1 - tar))
        axes.step(x, y, where="post", **line_style(i), label=f"{name}  EER {_percent(equal_error(points)[0])}")
    ticks = [t for t in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5) if t >= floor]
    span = float(norm.ppf(floor)), float(norm.ppf(0.6))
    axes.plot(span, span, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.5, label="equal rates")
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_major_locator(FixedLocator(norm.ppf(ticks).tolist()))
        axis.set_minor_locator(NullLocator())
        axis.set_ticklabels([_percent(tick) for tick in ticks])
        limit(*span)
    axes.set_title("DET")
    axes.set_xlabel("false accept rate")
    axes.set_ylabel("false reject rate")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _loss(axes: Axes, losses: np.ndarray) -> None:
    draw_series(axes, np.arange(1, len(losses) + 1), losses)
    axes.set_ylim(bottom=min(0.0, float(losses[np.isfinite(losses)].min(initial=0.0))))
    axes.set_title("Training loss")
    step_axis(axes, 1, len(losses))
    axes.set_ylabel("loss")


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _corners(fmr: np.ndarray, tar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop points that repeat a rate, then thin what is left evenly along the drawn axes."""
    turn = np.append(True, (fmr[1:] != fmr[:-1]) | (tar[1:] != tar[:-1]))
    fmr, tar = fmr[turn], tar[turn]
    if len(fmr) <= MOST_POINTS:
        return fmr, tar
    way = np.log10(np.maximum(fmr, 1e-9)) / 7 + tar  # grows along the curve
    keep = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], MOST_POINTS)).clip(0, len(fmr) - 1))
    return fmr[keep], tar[keep]
