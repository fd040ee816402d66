"""A run's metrics.jsonl and timings.jsonl -> training.png: its loss, its terms, its evaluations and its time."""

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from fastface.metrics.drawing import (
    COLOURS,
    INK,
    Panel,
    draw_panels,
    draw_series,
    interval_means,
    line_style,
    step_axis,
)
from fastface.metrics.verification import METRIC_DIRECTION

PICTURE = "training.png"
PANEL_INCHES = (5.6, 3.6)
GROUPS = {  # panel -> the words, between underscores, that send a term there; the first that fits
    "Distances": ("distance",),
    "Triplets and pairs": ("active", "success", "kept", "anchors", "positives"),
    "Accuracy and cosine": ("acc", "accuracy", "cosine"),
    "Norm of the gradient": ("grad",),
}
PARTS: dict[str, str] = {
    "data": COLOURS[1],
    "forward": COLOURS[4],
    "loss": COLOURS[2],
    "mining": COLOURS[5],
    "backward": COLOURS[0],
    "optimizer": COLOURS[3],
}
"""In the order of a step, each with its colour."""
SHOWN = ("acc", "auc", "tar_1e-2", "tar_1e-3", "loss")  # of an evaluation; the others are in metrics.jsonl
RATIO = 20.0  # between the highest and the lower quartile of a curve, above which its axis is logarithmic


class Points(NamedTuple):
    """One evaluation metric over the run."""

    steps: list[int]
    values: list[float]


class History(NamedTuple):
    """What a run's folder tells about its training."""

    steps: np.ndarray
    """[N]: completed steps."""
    terms: dict[str, np.ndarray]
    """Name -> [N] float64; NaN where a step did not report it."""
    evaluations: dict[str, Points]
    timings: list[dict[str, Any]]
    best: dict[str, Any]


def draw_run(folder: Path) -> Path:
    """Draw what a run's folder tells so far into its training.png; return the path.

    Panels only for what exists. At most 2,000 points a curve, means of intervals where there are more steps; faint
    what was measured, strong its running mean over a fiftieth of the run. Takes 1 s and 7 s more per million steps of
    ten columns, and 180 MB for the first million (2 cores of an AMD EPYC virtual machine, 2026-11-24).
    """
    history = read_history(folder)
    panels = [_loss_panel(history)] if "loss" in history.terms else []
    panels += _term_panels(history) + _evaluation_panels(history)
    if history.timings:
        panels += [_parts_panel(history), _speed_panel(history)]
    title = f"{folder.resolve().parent.name}/{folder.resolve().name}  {int(history.steps[-1]):,} steps"
    path = folder / PICTURE
    draw_panels(path, panels, columns=min(len(panels), 3), title=title, inches=PANEL_INCHES)
    return path


def try_draw(folder: Path, say: Callable[[str], None]) -> None:
    """Draw a run in training: what goes wrong is said, and training goes on."""
    try:
        draw_run(folder)
    except Exception as error:  # a picture is not worth a run
        say(f"{folder / PICTURE} was not drawn: {type(error).__name__}: {error}")


def read_history(folder: Path) -> History:
    """Read a run's folder. A last line that is half there is left out.

    Raises:
        ValueError: where no step was logged, or a line other than the last is not one of a log.
    """
    steps = array("q")
    terms: dict[str, array[float]] = {}
    evaluations: dict[str, Points] = {}
    for row in _lines(folder / "metrics.jsonl"):
        if "eval" in row:
            for key, value in row["eval"].items():
                points = evaluations.setdefault(key, Points([], []))
                points.steps.append(row["step"])
                points.values.append(value)
            continue
        if "mined" in row:  # of neighbours, not of a step
            continue
        for key, value in row.items():
            if key == "step":
                continue
            if key not in terms:
                terms[key] = array("d", [np.nan]) * len(steps)
            terms[key].append(value)
        steps.append(row["step"])
        for column in terms.values():
            if len(column) < len(steps):
                column.append(np.nan)
    if not steps:
        raise ValueError(f"{folder / 'metrics.jsonl'} has no step yet: there is nothing to draw")
    best = folder / "best.json"
    return History(
        np.array(steps),
        {key: np.array(column) for key, column in terms.items()},
        evaluations,
        list(_lines(folder / "timings.jsonl")),
        json.loads(best.read_text(encoding="utf-8")) if best.is_file() else {},
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        bad: tuple[int, str] | None = None
        for number, line in enumerate(file, start=1):
            if bad is not None:
                raise ValueError(f"{path}, line {bad[0]} is not a line of a log: {bad[1][:60]!r}")
            try:
                row = json.loads(line)
                row["step"]
            except (ValueError, KeyError, TypeError):
                bad = number, line  # the last line of a run that is being written
                continue
            yield row


def _loss_panel(history: History) -> Panel:
    def draw(axes: Axes) -> None:
        smooth = draw_series(axes, history.steps, history.terms["loss"])
        if not _scale(axes, [smooth]):
            axes.set_ylim(bottom=min(0.0, float(np.nanmin(smooth, initial=0.0))))
        marks = sorted({step for points in history.evaluations.values() for step in points.steps})
        if marks:
            place = axes.get_xaxis_transform()
            label = f"evaluated ({len(marks)} times)"
            axes.plot(
                marks, [0.025] * len(marks), "^", color=COLOURS[1], ms=5, transform=place, clip_on=False, label=label
            )
        if history.best:
            text = f"best {history.best['metric']}"
            axes.axvline(history.best["step"], color=INK, linewidth=1.2, linestyle="--", label=text)
        _finish(axes, history, "Loss")

    return draw


def _term_panels(history: History) -> list[Panel]:
    groups: dict[str, list[str]] = {"Learning rate": []} | {title: [] for title in GROUPS} | {"Other terms": []}
    for name in history.terms:
        words = set(name.split("_"))
        titles = (title for title, those in GROUPS.items() if words & set(those))
        if name != "loss":
            groups["Learning rate" if words & {"lr"} else next(titles, "Other terms")].append(name)
    return [_terms_panel(history, title, names) for title, names in groups.items() if names]


def _terms_panel(history: History, title: str, names: list[str]) -> Panel:
    def draw(axes: Axes) -> None:
        exact = title == "Learning rate"
        curves = [
            draw_series(axes, history.steps, history.terms[name], i, name.replace("_", " "), exact=exact)
            for i, name in enumerate(names)
        ]
        if title == "Triplets and pairs":
            axes.set_ylim(-0.02, 1.02)
            axes.set_ylabel("share")
        else:
            _scale(axes, curves)
        _finish(axes, history, title, legend=len(names) > 1 or names[0] not in ("lr", "grad_norm"))

    return draw


def _evaluation_panels(history: History) -> list[Panel]:
    """One panel where there is one set, else one a metric; the losses apart."""
    shown = [key for key in history.evaluations if key.rsplit("/", 1)[-1] in SHOWN]
    sets = {key.rsplit("/", 1)[0] for key in shown}
    groups: dict[str, list[str]] = {}
    for key in sorted(shown, key=lambda key: SHOWN.index(key.rsplit("/", 1)[-1])):
        metric = key.rsplit("/", 1)[-1]
        title = f"Evaluation: {metric}" if len(sets) > 1 or metric == "loss" else "Evaluation"
        groups.setdefault(title, []).append(key)
    return [_evaluation_panel(history, title, keys) for title, keys in groups.items()]


def _evaluation_panel(history: History, title: str, keys: list[str]) -> Panel:
    def draw(axes: Axes) -> None:
        for i, key in enumerate(keys):
            points = history.evaluations[key]
            direction = METRIC_DIRECTION[key.rsplit("/", 1)[-1]]
            signed = direction * np.array(points.values, dtype=np.float64)
            top = int(np.argmax(np.where(np.isfinite(signed), signed, -np.inf)))
            chosen = history.best.get("metric") == key
            label = f"{key}  best {points.values[top]:.4f}" + (" (chosen)" if chosen else "")
            marker = {"marker": "o", "markersize": 3} if len(points.steps) <= 60 else {}
            axes.plot(points.steps, points.values, **line_style(i), **marker, label=label)
            look = {"marker": "*", "markersize": 15} if chosen else {"marker": "o", "markersize": 8}
            axes.plot(
                [points.steps[top]],
                [points.values[top]],
                color=line_style(i)["color"],
                markeredgecolor="white",
                zorder=5,
                clip_on=False,
                **look,
            )
        _finish(axes, history, title, legend=True)

    return draw


def _parts_panel(history: History) -> Panel:
    def draw(axes: Axes) -> None:
        rows = history.timings
        steps = np.array([row["step"] for row in rows])
        counts = np.array([row["steps"] for row in rows])
        whole = np.array([1e3 * row["seconds"] / row["steps"] for row in rows])
        found = {part for row in rows for part in row["parts_ms"]}
        names = [part for part in PARTS if part in found] + sorted(found - set(PARTS))
        layers = {name: np.array([row["parts_ms"].get(name, 0.0) for row in rows]) for name in names}
        rest = whole - sum(layers.values(), np.zeros(len(rows)))
        layers["the rest" if layers else "whole step"] = np.maximum(rest, 0)
        x = interval_means(steps, whole)[0]
        drawn = [interval_means(steps, values)[1] for values in layers.values()]
        x = np.concatenate([[steps[0] - counts[0]], x])
        drawn = [np.concatenate([values[:1], values]) for values in drawn]
        colours = [PARTS.get(name, COLOURS[2]) for name in names] + ["#b9bfc7"]
        for name, values in layers.items():
            layers[name] = np.average(values, weights=counts)
        labels = [f"{name}  {_short(float(value))} ms" for name, value in layers.items()]
        axes.stackplot(x, drawn, colors=colours, labels=labels, alpha=0.85, linewidth=0)
        total = np.sum(drawn, axis=0)
        usual, title = float(np.percentile(total, 95)), "Time of a step"
        if float(total.max()) > 2 * usual:  # a first step that compiles would flatten all others
            axes.set_ylim(0, 1.5 * usual)
            title += f" (highest: {_short(float(total.max()))} ms)"
        else:
            axes.set_ylim(0, 1.5 * max(float(total.max()), 1e-9))
        axes.set_ylabel("ms")
        _finish(axes, history, title)
        axes.legend(loc="upper center", ncols=3, frameon=False, fontsize=8.5, columnspacing=1.2)

    return draw


def _speed_panel(history: History) -> Panel:
    def draw(axes: Axes) -> None:
        rows = history.timings
        seconds = np.array([row["seconds"] for row in rows])
        rates, waits = (np.array([row[key] for row in rows]) for key in ("images_per_s", "data_wait"))
        mean, wait = np.average(rates, weights=seconds), np.average(waits, weights=seconds)
        steps = np.array([row["step"] for row in rows])
        draw_series(axes, steps, rates, 0, f"mean {_short(float(mean))}, data wait {wait:.1%}")
        axes.set_ylim(0, 1.3 * max(float(np.nanmax(rates)), 1e-9))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        _finish(axes, history, "Images per second", legend=True)

    return draw


def _scale(axes: Axes, curves: list[np.ndarray]) -> bool:
    """Make the vertical axis logarithmic where values of different size would hide each other; say whether."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < RATIO * np.percentile(values, 25):
        return False
    axes.set_yscale("log")
    return True


def _finish(axes: Axes, history: History, title: str, *, legend: bool | None = None) -> None:
    axes.set_title(title)
    step_axis(axes, float(history.steps[0]) if len(history.steps) > 1 else 0, float(history.steps[-1]))
    if legend or (legend is None and axes.get_legend_handles_labels()[0]):
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
