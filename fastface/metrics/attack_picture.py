"""Presentations and models' figures -> one picture: scores by attack, both error rates, and APCER of every attack."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fastface.metrics.attack_curve import AttackCurve, count_presentations, rank
from fastface.metrics.attacks import AttackFigures
from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.drawing import COLOURS, INK, Panel, draw_panels, line_style
from fastface.metrics.pictures import GENUINE, IMPOSTOR
from fastface.metrics.presentations import Presentations

BINS = 50
MOST_SPECIES = 12  # drawn, the worst ones; the table has them all
ATTACKS = tuple(colour for colour in COLOURS if colour != GENUINE)


class Judged(NamedTuple):
    """What a model made of the presentations."""

    presented: Presentations
    figures: AttackFigures


def attack_picture(path: str | Path, judged: Mapping[str, Judged], *, title: str = "") -> None:
    """Write a PNG of models by name, the first in the foreground, all on the same presentations."""
    first = next(iter(judged.values()))
    panels: list[Panel] = [
        lambda axes: _scores(axes, first),
        lambda axes: _trade_off(axes, judged),
        lambda axes: _species(axes, judged),
    ]
    draw_panels(path, panels, columns=3, title=title)


def _worst_first(figures: AttackFigures) -> list[dict[str, Any]]:
    return sorted(figures.details["species"], key=lambda group: (-group["rate"], group["name"]))[:MOST_SPECIES]


def _scores(axes: Axes, judged: Judged) -> None:
    presented, figures = judged
    known = np.isfinite(presented.scores)
    values = presented.scores[known].astype(np.float64)
    inside = 0 <= values.min() and values.max() <= 1  # probabilities; other scores have a range of their own
    edges = np.linspace(*((0.0, 1.0) if inside else (values.min(), values.max() + 1e-9)), BINS + 1)

    def share(chosen: np.ndarray) -> np.ndarray:
        return np.histogram(values[chosen[known]], edges)[0] / max(1, int(chosen.sum()))

    live = presented.live
    text = f"live ({int(live.sum()):,})"
    axes.stairs(share(live), edges, fill=True, color=GENUINE, alpha=0.4, label=text, zorder=2)
    shown = _worst_first(figures)[: len(ATTACKS)]
    for colour, group in zip(ATTACKS, shown, strict=False):
        chosen = presented.species == presented.attacks.index(group["name"])
        text = f"{group['name']} ({int(chosen.sum()):,})"
        axes.stairs(share(chosen), edges, color=colour, linewidth=1.7, label=text, zorder=3)
    axes.axvline(figures.details["threshold"], color=INK, linewidth=1.2, linestyle="--", label="threshold")
    axes.set_yscale("log")
    axes.set_ylim(min(0.5 / len(values), 1e-2), 4)
    axes.set_xlim(edges[0], edges[-1])
    more = len(figures.details["species"]) - len(shown)
    axes.set_title("Scores by attack" + (f" ({more} more not drawn)" if more else ""))
    axes.set_xlabel("probability of live")
    axes.set_ylabel("share of presentations")
    axes.legend(loc="upper center", ncols=2, frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


def _trade_off(axes: Axes, judged: Mapping[str, Judged]) -> None:
    """Draw BPCER over APCER of the worst attack, dotted where fewer than 30 attacks are accepted."""
    curves = {name: count_presentations(rank(one.presented)) for name, one in judged.items()}
    floor = min(10.0 ** np.floor(np.log10(_least(points))) for points in curves.values())
    for i, (name, points) in enumerate(curves.items()):
        details, metrics = judged[name].figures.details, judged[name].figures.metrics
        apcer, bpcer = np.maximum(points.apcer, floor), np.maximum(points.bpcer, floor)
        known = points.attacks.sum(axis=0) >= RULE_OF_THIRTY
        first = int(np.argmax(known)) if known.any() else len(known) - 1
        for part, dashes in ((slice(first + 1), ":"), (slice(first, None), "-")):
            style: dict[str, Any] = line_style(i) | {"linestyle": dashes}
            label = f"{name}  EER {100 * metrics['eer']:.2f} %" if dashes == "-" else None
            axes.step(apcer[part], bpcer[part], where="post", label=label, **style)
        place = points.place_of(details["threshold"])
        axes.plot(apcer[place], bpcer[place], "o", color=line_style(i)["color"], markersize=6, zorder=5)
    axes.plot([floor, 1], [floor, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.5, label="equal rates")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(floor, 1.02)
    axes.set_ylim(floor, 1.02)
    axes.set_title("Errors (dot: at the threshold)")
    axes.set_xlabel("APCER of the worst attack (dotted: < 30 errors)")
    axes.set_ylabel("BPCER")
    axes.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


def _least(points: AttackCurve) -> float:
    return min(0.05, 1 / max(points.num_live, int(points.num_attacks.max())))


def _species(axes: Axes, judged: Mapping[str, Judged]) -> None:
    """Draw BPCER, then APCER of each attack, the worst of the first model on top, with intervals."""
    first = next(iter(judged.values())).figures
    names = [first.details["bona_fide"]["name"], *(group["name"] for group in _worst_first(first))]
    step = 0.7 / len(judged)
    for i, (name, one) in enumerate(judged.items()):
        groups = {group["name"]: group for group in (one.figures.details["bona_fide"], *one.figures.details["species"])}
        for row, species in enumerate(names):
            group = groups[species]
            at = row - 0.35 + step * (i + 0.5)
            plain = GENUINE if row == 0 else IMPOSTOR  # of a single model colour tells the kind of error
            colour = plain if len(judged) == 1 else line_style(i)["color"]
            low, high = group["interval"]
            axes.barh(at, group["rate"], height=step * 0.9, color=colour, alpha=0.55, zorder=2)
            axes.plot([low, high], [at, at], color=INK, linewidth=1.3, zorder=3)
            text = f"{group['errors']:,}/{group['presentations']:,}"
            axes.annotate(text, (high, at), (4.0, 0.0), textcoords="offset points", va="center", fontsize=7.5)
        if len(judged) > 1:
            axes.barh(0, 0, color=line_style(i)["color"], alpha=0.55, label=name)
    axes.set_yticks(range(len(names)), ["BPCER", *names[1:]])
    room = 0.3 * (len(judged) + 1) * len(names) / 5 if len(judged) > 1 else 0.0  # for the legend, below the bars
    axes.set_ylim(len(names) - 0.5 + room, -0.5)
    axes.set_xlim(0, min(1.0, axes.get_xlim()[1]) * 1.22)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    left_out = len(first.details["species"]) - (len(names) - 1)
    axes.set_title("BPCER, and APCER by attack" + (f" ({left_out} lower not drawn)" if left_out else ""))
    axes.set_xlabel("share of errors, with 95 % interval")
    if len(judged) > 1:
        axes.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)
