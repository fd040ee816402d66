"""A card's thresholds and calibration come with their evidence, doubtful ones marked or refused; old cards are read."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fastface.card import Calibration, Card, Threshold
from fastface.metrics.calibration import cllr, held_out_llrs
from fastface.metrics.curve import calibrate
from fastface.metrics.dependence import rate_interval
from fastface.metrics.folds import Pairs
from fastface.metrics.intervals import wilson
from fastface.ship.thresholds import (
    Evidence,
    calibration_of,
    decide,
    describe_evidence,
    intervals_of,
    pairs_digest,
    threshold_table,
)

EVIDENCE = Evidence("some pairs", "p" * 64, "m" * 64, "d" * 64)


def scored(num: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = np.arange(num) % 2 == 0
    scores = (rng.normal(size=num) * 0.2 + 0.5 * same).astype(np.float32)
    return scores, same, np.arange(num) // 2 % 10


def test_the_table_says_what_it_rests_on() -> None:
    scores, same, folds = scored()
    loose, strict = decide(scores, same, folds, (0.2, 0.01), EVIDENCE)["thresholds"]
    errors = sum(s >= loose.threshold for s, k in zip(scores.tolist(), same.tolist(), strict=True) if not k)
    hits = sum(s >= loose.threshold for s, k in zip(scores.tolist(), same.tolist(), strict=True) if k)
    assert (loose.errors, loose.fmr, loose.tar) == (errors, errors / 200, hits / 200)
    assert loose.fmr_interval == wilson(errors, 200)
    assert loose.tar_interval == pytest.approx(wilson(hits, 200))
    assert (loose.dataset_id, loose.pairs_sha256, loose.model_sha256) == ("d" * 64, "p" * 64, "m" * 64)
    assert loose.rule is not None
    assert "FMR <= target" in loose.rule
    assert (loose.supported, strict.supported) == (True, False)
    lines = describe_evidence([loose, strict], None)
    assert f"{errors} of 200 impostor pairs" in lines[0]
    assert "a guess" in lines[1]
    assert "too few" in lines[2]


def test_intervals_allow_for_persons_who_recur() -> None:
    scores, same, _ = scored()
    points = calibrate(scores, same, (0.2,))
    persons = np.stack([np.arange(400) // 80, np.where(same, np.arange(400) // 80, 5 + np.arange(400) // 80)])
    ((alone, _),) = intervals_of(points, scores, same, None)
    ((fmr, tar),) = intervals_of(points, scores, same, persons)
    wrong = scores[~same] >= points[0].threshold
    assert fmr == rate_interval(wrong, same[~same], persons[:, ~same])
    assert tar.low < points[0].tar < tar.high
    assert fmr.method != alone.method
    table = threshold_table(points, EVIDENCE, [(fmr, tar)])
    assert (table[0].fmr_interval, table[0].interval_method) == ((fmr.low, fmr.high), fmr.method)


def test_strict_refuses_what_the_pairs_are_too_few_for() -> None:
    scores, same, _ = scored()
    points = calibrate(scores, same, (0.2, 0.01, 0.001))
    intervals = intervals_of(points, scores, same, None)
    with pytest.raises(ValueError, match=r"200 impostor pairs, .*0\.01 \(3,000\), 0\.001 \(30,000\)"):
        threshold_table(points, EVIDENCE, intervals, strict=True)
    assert len(threshold_table(points[:1], EVIDENCE, intervals[:1], strict=True)) == 1


def test_the_calibration_is_judged_on_folds_it_has_not_seen() -> None:
    scores, same, folds = scored()
    scores[5] = np.nan
    found = calibration_of(scores, same, folds, EVIDENCE)
    assert found is not None
    held_out = np.delete(held_out_llrs(scores, same, folds), 5)
    assert found.cllr == pytest.approx(cllr(held_out, np.delete(same, 5)))
    assert found.min_cllr < found.cllr < 1
    assert (found.genuine, found.impostors) == (200, 199)
    llr = found.a * 0.3 + found.b
    assert found.llr(0.3) == pytest.approx(llr)
    odds = math.exp(llr) * 0.01 / 0.99
    assert found.probability(0.3, 0.01) == pytest.approx(odds / (1 + odds))
    steep = found.model_copy(update={"a": 1e5})
    assert (steep.probability(-1, 0.5), steep.probability(1, 0.5)) == (0.0, 1.0)
    (line,) = describe_evidence([], found)
    assert f"{found.a:.4f} * score" in line
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_too_few_pairs_have_no_calibration() -> None:
    assert calibration_of(np.array([0.9, 0.1]), np.array([True, False]), np.array([0, 1]), EVIDENCE) is None


def test_a_list_of_pairs_is_known_by_its_names() -> None:
    names = ["a", "b", "c"]
    pairs = Pairs(np.array([0, 1]), np.array([1, 2]), np.array([True, False]))
    found = pairs_digest(pairs, names.__getitem__)
    assert found == pairs_digest(pairs, names.__getitem__)
    assert found != pairs_digest(pairs._replace(same=np.array([True, True])), names.__getitem__)
    assert found != pairs_digest(pairs, ["a", "b", "d"].__getitem__)


def test_an_older_card_is_read(tmp_path: Path) -> None:
    old = {"target_fmr": 0.01, "threshold": 0.3, "fmr": 0.01, "tar": 0.9, "genuine": 9, "impostors": 99}
    card = {"format": 1, "kind": "recognition", "input_size": [112, 112], "mean": 127.5, "std": 127.5}
    card |= {"embedding_size": 4, "thresholds": [{**old, "supported": False, "source": "x"}], "training": {}}
    (tmp_path / "model.json").write_text(json.dumps(card))
    found = Card.read(tmp_path / "model.json")
    assert found.thresholds == [Threshold(**old, supported=False, source="x")]
    assert found.calibration is None
    assert "(9 genuine, 99 impostor pairs)" in describe_evidence(found.thresholds, None)[0]
