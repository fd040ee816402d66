"""Attempts and ways of deciding -> one picture: the trade-off, the plane of both scores, and the errors of each way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fastface.metrics.drawing import COLOURS, INK, draw_panels, line_style
from fastface.metrics.full_system import Attempts, SystemRates
from fastface.metrics.fused_decision import LlrFusion
from fastface.metrics.pictures import GENUINE, IMPOSTOR

MOST_DOTS = 1_500  # of a kind
TRIED = 200  # in each direction of the plane


def full_system_picture(
    path: str | Path,
    attempts: Attempts,
    lines: Mapping[str, Sequence[SystemRates]],
    details: Mapping[str, Sequence[Mapping[str, Any]]],
    alone: SystemRates,
    *,
    far: float,
    corner: tuple[float, float],
    contour: tuple[LlrFusion, float],
) -> None:
    """Write a PNG. lines: as `trade_off` gives them; details: `detailed_rates` of each way of deciding.

    alone: the match without attack detection; corner: match and liveness thresholds of AND fusion; contour: the fused
    score and its threshold.
    """
    panels = [
        lambda axes: _trade_off(axes, lines, alone, far),
        lambda axes: _plane(axes, attempts, corner, contour),
        lambda axes: _errors(axes, details),
    ]
    draw_panels(path, panels, columns=3)


def _trade_off(axes: Axes, lines: Mapping[str, Sequence[SystemRates]], alone: SystemRates, far: float) -> None:
    reached = [point.iapar for points in lines.values() for point in points if point.iapar > 0]
    floor = min(0.05, min(reached, default=0.05) / 1.5)
    for i, (name, points) in enumerate(lines.items()):
        iapar, frr = np.array([[max(point.iapar, floor), point.frr] for point in points]).T
        least = min(point.riapar for point in points)
        style: dict[str, Any] = line_style(i)
        axes.step(iapar, frr, where="post", label=f"{name}  least RIAPAR {100 * least:.1f} %", **style)
    axes.plot(max(alone.iapar, floor), alone.frr, "X", color=INK, markersize=8, label="match alone", zorder=6)
    axes.set_xscale("log")
    axes.set_xlim(floor, 1.05)
    axes.set_ylim(0, 1.02 * max(point.frr for points in lines.values() for point in points) + 1e-3)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_title(f"Refused over attacks accepted, FAR <= {far:g}")
    axes.set_xlabel("IAPAR of the worst attack")
    axes.set_ylabel("FRR: genuine attempts refused")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


def _plane(axes: Axes, attempts: Attempts, corner: tuple[float, float], contour: tuple[LlrFusion, float]) -> None:
    known = np.isfinite(attempts.match) & np.isfinite(attempts.live)
    colours = (GENUINE, IMPOSTOR, *(colour for colour in COLOURS if colour not in (GENUINE, IMPOSTOR)))
    rng = np.random.default_rng(0)
    for number, name in enumerate(attempts.kinds):
        mine = np.flatnonzero(known & (attempts.kind == number))
        mine = rng.permutation(mine)[:MOST_DOTS]
        style = {"color": colours[number % len(colours)], "alpha": 0.45, "edgecolors": "none"}
        axes.scatter(attempts.match[mine], attempts.live[mine], s=9, label=name, zorder=2, **style)
    x = np.linspace(attempts.match[known].min(), attempts.match[known].max(), TRIED)
    y = np.linspace(attempts.live[known].min(), attempts.live[known].max(), TRIED)
    match, live = (max(t, float(lowest)) for t, lowest in zip(corner, (x[0], y[0]), strict=True))
    axes.plot([match, match, x[-1]], [y[-1], live, live], color=INK, linewidth=1.5, label="and", zorder=4)
    fusion, threshold = contour
    every = np.stack(np.meshgrid(x, y)).reshape(2, -1)
    scores = fusion.scores(attempts._replace(match=every[0], live=every[1])).reshape(TRIED, TRIED)
    if scores.min() < threshold < scores.max():
        axes.contour(x, y, scores, levels=[threshold], colors=[INK], linestyles="--", linewidths=1.5, zorder=4)
        axes.plot([], [], color=INK, linestyle="--", linewidth=1.5, label="llr")
    axes.set_title("Attempts: accepted is the upper right")
    axes.set_xlabel("match score")
    axes.set_ylabel("probability of live")
    axes.legend(loc="center left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


def _errors(axes: Axes, details: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw FRR, FAR and IAPAR of each species, with intervals, for each way of deciding."""
    kinds = [f"{row['rate_name']} {row['name']}" if row["rate_name"] == "IAPAR" else row["rate_name"]
             for row in next(iter(details.values()))]  # fmt: skip
    step = 0.8 / len(details)
    for i, (way, rows) in enumerate(details.items()):
        colour = INK if i == 0 else line_style(i - 1)["color"]
        for at, row in enumerate(rows):
            place = at - 0.4 + step * (i + 0.5)
            label = way if at == 0 else None
            axes.barh(place, row["rate"], height=step * 0.9, color=colour, alpha=0.6, label=label, zorder=2)
            axes.plot(row["interval"], [place, place], color=INK, linewidth=1.1, zorder=3)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_title("Errors at the thresholds")
    axes.set_xlabel("share of attempts, with 95 % interval")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)
