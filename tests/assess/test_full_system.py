import json
from pathlib import Path

import numpy as np
import pytest

from fastface.assess.full_system import assess_full_system
from fastface.metrics.attempt_files import read_attempts
from fastface.metrics.full_system import accept_both, rates_of
from tests.metrics.attempts import drawn


def write(path: Path, seed: int, persons: int | None = 30) -> Path:
    attempts = drawn(seed, num=600, failures=3, persons=persons)
    lines = ["match_score,liveness_score,kind,attack,person,reference"]
    for i, number in enumerate(attempts.kind.tolist()):
        scores = [f"{x:.9g}" if np.isfinite(x) else "" for x in (attempts.match[i], attempts.live[i])]
        kind = attempts.kinds[number] if number < 2 else "attack"
        seen = ["", ""] if attempts.persons is None else [f"p{p}" for p in attempts.persons[:, i].tolist()]
        lines.append(",".join([*scores, kind, attempts.kinds[number] if number >= 2 else "", *seen]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("with_dev", [True, False])
def test_figures_are_those_at_the_thresholds_written_down(tmp_path: Path, with_dev: bool) -> None:
    scores, dev = write(tmp_path / "test.csv", 0), write(tmp_path / "dev.csv", 1)
    text = assess_full_system(scores, dev=[dev] if with_dev else [], at_fmr=0.05, at_iapar=0.1)
    folder = tmp_path / "test-full-system"
    assert sorted(path.name for path in folder.iterdir()) == ["full_system.png", "metrics.json"]
    content = json.loads((folder / "metrics.json").read_text())
    attempts = read_attempts(scores)
    for name in ("and, liveness at eer", "and, tuned together"):
        match, live = content["thresholds"][name]
        rates = rates_of(attempts, accept_both(attempts, match, live))
        assert content["metrics"][name] == pytest.approx(rates._asdict() | {"riapar": rates.riapar})
    chosen = content["metrics"]["and, tuned together"]
    if not with_dev:
        assert chosen["far"] <= 0.05
        assert chosen["iapar"] <= 0.1
    assert ("which flatters" in text) != with_dev
    assert content["metrics"]["match alone"]["iapar"] > chosen["iapar"]
    for name, metrics in content["metrics"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert row.endswith(f"{metrics['riapar']:.4f}")


def test_one_development_set_only(tmp_path: Path) -> None:
    scores = write(tmp_path / "test.csv", 0, persons=None)
    with pytest.raises(ValueError, match="takes one --dev"):
        assess_full_system(scores, dev=[scores, scores])
