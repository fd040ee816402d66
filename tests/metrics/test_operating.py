import numpy as np
import pytest

from benchmarks.interval_coverage import Population, simulate
from fastface.metrics.curve import calibrate, curve, hull_error, tar_at
from fastface.metrics.intervals import wilson
from fastface.metrics.operating import curve_figures
from tests.metrics.scored import scored


def lowest_crossing(scores: np.ndarray, same: np.ndarray) -> float:
    """Try every line between two points of the ROC: the lowest (FMR = FNMR) that any of them passes."""
    points = [(0.0, 0.0), (1.0, 1.0)]
    for t in {*scores[np.isfinite(scores)].tolist()}:
        points.append((float(np.mean(scores[~same] >= t)), float(np.mean(scores[same] >= t))))
    best = 1.0
    for a, b in points:
        for c, d in points:
            start, end = 1 - b - a, 1 - d - c  # FNMR - FMR
            if start >= 0 >= end and start > end:
                best = min(best, a + start / (start - end) * (c - a))
    return best


@pytest.mark.parametrize("failures", [0, 3])
@pytest.mark.parametrize("seed", range(6))
def test_hull_error_is_the_best_any_mixture_of_thresholds_reaches(seed: int, failures: int) -> None:
    scores, same = scored(seed)
    scores[:failures] = -np.inf
    assert hull_error(curve(scores, same)) == pytest.approx(lowest_crossing(scores, same), abs=1e-12)


@pytest.mark.parametrize(("scores", "expected"), [([0.9, 0.8, 0.2, 0.1], 0.0), ([0.1, 0.2, 0.8, 0.9], 0.5)])
def test_hull_error_of_order_and_of_its_reverse(scores: list[float], expected: float) -> None:
    assert hull_error(curve(np.array(scores), np.array([True, True, False, False]))) == expected


@pytest.mark.parametrize("target", [0.5, 0.29, 0.1, 0.04, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_tar_on_the_curve_is_that_of_the_calibrated_threshold(seed: int, target: float) -> None:
    scores, same = scored(seed)
    scores[same.nonzero()[0][0]] = np.nan
    assert tar_at(curve(scores, same), target) == calibrate(scores, same, (target,))[0].tar


def test_intervals_say_how_they_were_found() -> None:
    scores, same, persons = simulate(Population(), 40, 3, np.random.default_rng(0))
    for known in (persons, None):
        details = curve_figures(scores, same, (1e-2,), persons=known)[1]
        point = details["tar_at_far"]["points"][0]
        low, high = point["tar_interval"]
        assert low < point["tar"] < high
        assert point["fnmr_interval"] == [1 - high, 1 - low]
        assert point["fnmr"] == 1 - point["tar"]
        accepted = round(point["tar"] * point["genuine"])
        if known is None:
            assert (low, high) == pytest.approx(wilson(accepted, point["genuine"]))
            assert "independent" in point["tar_interval_method"]
            assert details["auc"]["interval"] is None
            assert details["intervals"] == {"confidence": 0.95, "persons": None, "bootstrap": None}
        else:
            assert "bootstrap" in point["tar_interval_method"]
            assert details["auc"]["interval"][0] < details["auc"]["value"] < details["auc"]["interval"][1]
            assert details["intervals"]["persons"] == 40
            wider = point["at_threshold"]["tar_interval"]
            assert wider[1] - wider[0] > np.diff(wilson(accepted, point["genuine"]))[0]


def test_what_no_draw_can_change_is_counted() -> None:
    """All genuine pairs are accepted in every draw, which does not make the true rate 1."""
    _, same, persons = simulate(Population(), 20, 2, np.random.default_rng(0))
    details = curve_figures(same + np.linspace(0, 0.5, len(same)), same, (1e-2,), persons=persons)[1]
    point = details["tar_at_far"]["points"][0]
    assert point["tar"] == 1
    assert point["tar_interval"] == pytest.approx(wilson(40, 40))
    assert "effective" in point["tar_interval_method"]
    assert (details["auc"]["interval"], details["eer"]["interval"]) == (None, None)
