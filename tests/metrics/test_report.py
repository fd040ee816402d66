import numpy as np
import pytest

from fastface.metrics.report import format_report
from fastface.metrics.verification import Verification, verification


def figures(gap: float, num: int = 400, **options: str) -> Verification:
    same = np.arange(num) % 2 == 0
    return verification(np.random.default_rng(0).normal(size=num) + gap * same, same, **options)


def test_results_stand_side_by_side_with_their_support() -> None:
    results = {"trained": figures(4.0, 8000), "raw pixels": figures(0.2)}
    lines = format_report(results).splitlines()
    rows = {line.split("  ")[0]: line for line in lines}
    assert lines[0].split() == ["trained", "raw", "pixels"]
    start = lines[0].index("raw")
    assert rows["AUC"][start:] == f"{results['raw pixels'].metrics['auc']:.5f}"
    point = results["trained"].details["tar_at_far"]["points"][1]
    assert f"{point['tar']:.4f}" in rows["TAR at FAR 1e-2"]
    assert "40/4,000" in rows["TAR at FAR 1e-2"]
    assert rows["TAR at FAR 1e-2"][start - 2] == "!", "200 impostors do not support 1 in 100"
    assert "!" not in rows["TAR at FAR 1e-1"][: start - 2]
    assert "TAR at FAR 1e-4" not in rows
    text = "\n".join(lines)
    assert "! unsupported: fewer than 30" in text
    assert "no interpolation" in text
    assert "failed" not in text


def test_nists_figure_stands_under_its_name() -> None:
    found = figures(4.0, 8000)
    rows = {line.split("  ")[0]: line for line in format_report({"x": found}).splitlines()}
    point = found.details["tar_at_far"]["points"][1]
    low, high = point["tar_interval"]
    assert rows["FNMR at FMR 1e-2"].split()[-3:] == [f"{1 - point['tar']:.4f}", f"[{1 - high:.4f},", f"{1 - low:.4f}]"]
    assert "FNMR: 1 - TAR: as NIST counts" in "\n".join(rows)


def test_support_for_lower_rates_shows_them() -> None:
    text = format_report({"x": figures(3.0, 60_000)})
    assert "TAR at FAR 1e-3" in text
    assert "!" not in text
    assert "TAR at FAR 1e-4" not in text


def test_failures_are_told() -> None:
    same = np.arange(40) % 2 == 0
    scores = np.where(same, 0.9, 0.1)
    scores[0] = np.nan
    found = verification(scores, same)
    found.details["failed_images"] = {"number": 1, "first": [{"name": "a.jpg", "reason": "truncated"}]}
    text = format_report({"x": found})
    assert "failed pairs" in text
    assert "a.jpg: truncated" in text


def test_pairs_of_one_kind_leave_figures_out() -> None:
    text = format_report({"x": verification(np.linspace(0, 1, 20), np.ones(20, bool), one_kind=True)})
    rows = {line.split("  ")[0]: line.split()[-1] for line in text.splitlines() if line}
    assert [rows[key] for key in ("AUC", "EER", "loss")] == ["-", "-", "-"]
    assert "need both genuine and impostor pairs" in text


def test_compat_is_named() -> None:
    text = format_report({"x": figures(2.0, compat="insightface")})
    assert "InsightFace's rule" in text
    assert "(exact: " in text


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no results"):
        format_report({})
