"""The figures of every source that was held out -> one table with mean and spread, and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fastface.metrics.drawing import COLOURS, draw_panels

FIGURES = {"hter": "HTER", "auc": "AUC", "apcer": "APCER", "bpcer": "BPCER", "acer": "ACER"}


def leave_one_out_text(results: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """Return the tables: a line for each source, their mean and standard deviation, and how to read them."""
    first = ["held out", "live", "spoof", "threshold", "HTER", "AUC", "ACER"]
    second = ["held out", "APCER", "of its worst species", "BPCER"]
    rows: list[list[str]] = []
    more: list[list[str]] = []
    for result in results:
        details, name = result["details"], result["source"]
        live = details["bona_fide"]["presentations"]
        spoof = sum(species["presentations"] for species in details["species"])
        figures = [_cell(result, figure) for figure in ("hter", "auc", "acer")]
        rows.append([name, f"{live:,}", f"{spoof:,}", f"{result['threshold']:.4f}", *figures])
        more.append([name, _cell(result, "apcer"), details["worst_species"], _cell(result, "bpcer")])
    for name, of in (("mean", np.mean), ("sd", _spread)):
        values = {figure: f"{of([result['metrics'][figure] for result in results]):.4f}" for figure in FIGURES}
        rows.append([name, "", "", "", values["hter"], values["auc"], values["acer"]])
        more.append([name, values["apcer"], "", values["bpcer"]])
    share, epochs = f"{about['held_out_for_development']:.0%}", about["epochs"]
    lines = [
        *_table(first, rows),
        "",
        *_table(second, more),
        "",
        f"Each line: trained for {epochs:g} epochs on the other sources, of which {share} were kept back to choose the",
        "checkpoint and the threshold (their EER); the source itself chose nothing. [ ]: 95 %; sd: between sources.",
        "APCER is that of the worst species of attack, HTER pools them, ACER = (APCER + BPCER) / 2.",
        f"Leakage between training, development and test was checked {about['leakage_checked']}.",
    ]
    leaks = [f"{result['source']}: {result['leak']}" for result in results if result["leak"]]
    lines += [f"! what is trained on is tested on, so these figures are too good: {'; '.join(leaks)}"] if leaks else []
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lay out columns, with rules below the head and above the last two rows."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:-2], rule, *lines[-2:]]


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample."""
    return float(np.std(values, ddof=1))


def interval_of(result: dict[str, Any], figure: str) -> tuple[float, float] | None:
    """Return the interval of a figure: Wilson's of the two rates, draws of persons for the others."""
    details = result["details"]
    if figure == "bpcer":
        return tuple(details["bona_fide"]["interval"])
    if figure == "apcer":
        (worst,) = [one for one in details["species"] if one["name"] == details["worst_species"]]
        return tuple(worst["interval"])
    drawn = (details["intervals"] or {}).get(figure)
    return None if drawn is None else (drawn[0], drawn[1])


def _cell(result: dict[str, Any], figure: str) -> str:
    interval = interval_of(result, figure)
    shown = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{result['metrics'][figure]:.4f}{shown}"


def leave_one_out_picture(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Draw errors and AUC of every source with their intervals, and the mean as a line."""

    def panel(figure: str, colour: str) -> Any:
        def draw(axes: Axes) -> None:
            values = [result["metrics"][figure] for result in results]
            axes.bar(range(len(values)), values, color=colour, width=0.6)
            for place, result in enumerate(results):
                if interval := interval_of(result, figure):
                    axes.plot([place, place], interval, color="black", linewidth=1.5)
            axes.axhline(float(np.mean(values)), color=COLOURS[2], linewidth=1, linestyle="--")
            axes.set_xticks(range(len(values)), [result["source"] for result in results])
            axes.set_ylim(0, 1)
            axes.set_title(FIGURES[figure])
            axes.set_xlabel("held out")

        return draw

    panels = [panel(figure, colour) for figure, colour in zip(FIGURES, COLOURS, strict=False)]
    draw_panels(path, panels, columns=3, title="leave one source out", inches=(4.2, 3.4))
