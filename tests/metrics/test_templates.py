import json

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from fastface.metrics import templates as module
from fastface.metrics.scores import pair_scores
from fastface.metrics.template_files import TemplatePairs, Templates
from fastface.metrics.templates import format_templates, nearest_points, pool, tar_by_fold, template_figures
from tests.metrics.golden_pairs import golden_pairs
from tests.metrics.scored import scored


def people(seed: int = 0, num: int = 30, each: int = 3) -> tuple[np.ndarray, Templates, TemplatePairs]:
    """Draw `each` templates of each person: images of few media, in any order, with detector scores."""
    rng = np.random.default_rng(seed)
    template = rng.permutation(np.repeat(np.arange(num * each), 5))
    media = rng.integers(0, 3, len(template)) + 100 * (template // each)
    rows = rng.normal(size=(num, 8))[template // each] + rng.normal(size=(len(template), 8))
    rows *= rng.uniform(0.5, 2, (len(template), 1))
    score = rng.uniform(0.1, 1, len(template))
    names = [f"{i}.jpg" for i in range(len(template))]
    made = Templates(names, template, media, score, np.arange(num * each), None)
    first, second = np.triu_indices(num * each, 1)
    pairs = TemplatePairs(first, second, first // each == second // each, None)
    return rows.astype(np.float32), made, pairs


def pooled_slowly(rows: np.ndarray, t: Templates, keep_norm: bool) -> np.ndarray:
    out = []
    for k in range(len(t.ids)):
        total = np.zeros(rows.shape[1])
        here = [i for i in range(len(rows)) if t.template[i] == k and np.isfinite(rows[i]).all()]
        for medium in sorted({int(t.media[i]) for i in here}):
            frames = []
            for i in here:
                if t.media[i] == medium:
                    row = rows[i].astype(np.float64)
                    row = row if keep_norm else row / np.linalg.norm(row)
                    frames.append(row if t.score is None else row * t.score[i])
            total += sum(frames) / len(frames)
        out.append(total / np.linalg.norm(total) if here else np.full(rows.shape[1], np.nan))
    return np.array(out)


@pytest.mark.parametrize("keep_norm", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_pooling_averages_frames_and_sums_media(
    weighted: bool, keep_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, t, _ = people()
    t = t if weighted else t._replace(score=None)
    rows[t.template == 4] = np.nan
    rows[[7, 20]] = np.nan
    expected = pooled_slowly(rows, t, keep_norm)
    for chunk in (3, 17, 16_384):
        monkeypatch.setattr(module, "CHUNK", chunk)
        assert pool(rows, t, keep_norm=keep_norm) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert np.isnan(expected).any(axis=1).sum() == 1


def test_no_usable_image_gives_no_template() -> None:
    rows, t, _ = people(num=2)
    assert np.isnan(pool(np.full_like(rows, np.nan), t)).all()


def test_template_pairs_become_figures() -> None:
    rows, t, pairs = people()
    found, scores = template_figures(rows, t, pairs, compat="ijb-insightface", targets=(0.1, 1e-2))
    assert np.array_equal(scores, pair_scores(pool(rows, t), pairs.first, pairs.second))
    genuine, impostors = scores[pairs.same], scores[~pairs.same]
    assert found.metrics["auc"] == pytest.approx(
        np.mean([(u > v) + 0.5 * (u == v) for u in genuine for v in impostors])
    )
    assert found.details["intervals"]["persons"] == 30, "genuine pairs tell who is who"
    assert found.details["templates"]["persons_from"] == "genuine pairs"
    assert "accuracy" not in found.details
    json.dumps(found.details, allow_nan=False)
    text = format_templates(found.details)
    assert "90 templates of 450 images" in text
    assert "nearest to the target" in text


def test_folds_bring_accuracy_and_the_tar_of_each() -> None:
    """As YouTube Faces (accuracy) and IJB-A (TAR, mean and deviation over splits) are reported."""
    rows, t, pairs = people()
    t = t._replace(subject=np.arange(90) // 3)
    pairs = pairs._replace(fold=(np.arange(len(pairs.same)) % 4).astype(np.int16))
    found, scores = template_figures(rows, t, pairs, targets=(0.1,))
    assert found.details["templates"]["persons_from"] == "subjects"
    assert len(found.details["accuracy"]["folds"]) == 4
    tars = []
    for k in range(4):
        here = pairs.fold == k
        impostors = sorted(scores[here & ~pairs.same].tolist(), reverse=True)
        tars.append(np.mean(scores[here & pairs.same] > impostors[int(0.1 * len(impostors))]))
    point = found.details["tar_by_fold"]["points"][0]
    assert point["folds"] == pytest.approx(tars)
    assert (point["mean"], point["std"]) == pytest.approx((np.mean(tars), np.std(tars)))
    assert "+-" in format_templates(found.details)


def test_contradicting_pairs_leave_persons_unknown() -> None:
    rows, t, pairs = people()
    same = pairs.same.copy()
    same[np.flatnonzero(same)[0]] = False
    found, _ = template_figures(rows, t, pairs._replace(same=same), targets=(0.1,))
    assert found.details["intervals"]["persons"] is None
    assert "impostor pairs show one person" in found.details["persons"]["why_not"]


def test_a_template_that_failed_is_a_false_non_match() -> None:
    rows, t, pairs = people()
    rows[t.template == 0] = 0
    found, scores = template_figures(rows, t, pairs, targets=(0.1,), compat="ijb-insightface")
    assert np.isnan(scores).sum() == 89
    assert found.details["failures"] == {"genuine": 2, "impostors": 87}


def test_insightfaces_point_is_the_nearest_of_the_thinned_curve() -> None:
    """On the golden pairs the target 0.1 is read at an FPR of 0.0873."""
    first, second, same = golden_pairs()
    scores = 1 - np.square(first - second).sum(axis=1) / 2
    points = nearest_points(scores, same, (1e-1, 1e-3))["points"]
    assert points[0]["fpr"] == pytest.approx(0.0873, abs=5e-5)
    assert points[1]["exact_tar"] == pytest.approx(0.981333, abs=5e-7)
    fpr, tpr, _ = roc_curve(same, scores)
    for point in points:
        best = None
        for x, y in sorted(zip(fpr.tolist(), tpr.tolist(), strict=True), reverse=True):  # as the original walks it
            if best is None or abs(x - point["target_fmr"]) < abs(best[0] - point["target_fmr"]):
                best = x, y
        assert (point["fpr"], point["tar"]) == best
        assert point["difference"] == point["tar"] - point["exact_tar"]


def test_insightfaces_point_survives_failures() -> None:
    scores, same = scored(0)
    scores[:4] = np.nan
    worst = np.where(np.isfinite(scores), scores, -1e9)
    assert nearest_points(scores, same, (0.1,))["points"] == nearest_points(worst, same, (0.1,))["points"]


def test_a_fold_without_impostors_is_refused() -> None:
    scores, same = scored(0)
    with pytest.raises(ValueError, match="impostor"):
        tar_by_fold(scores, same, same.astype(int), (0.1,))


def test_unknown_compat_is_refused() -> None:
    rows, t, pairs = people(num=2)
    with pytest.raises(ValueError, match="ijb-insightface"):
        template_figures(rows, t, pairs, compat="insightface")
