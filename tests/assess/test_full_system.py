import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.assess.attempt_pairs import Liveness, join, read_liveness
from fastface.assess.full_system import assess_full_system
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.metrics.attempt_files import read_attempts
from fastface.metrics.full_system import accept_both, rates_of
from tests.metrics.attempts import drawn
from tests.training import run_here, write_config


def make_persons(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in range(6):
        base = rng.integers(40, 200, (4, 4, 3))
        for k in range(3):
            pixels = np.kron(base // (2 if k == 2 else 1) + rng.integers(0, 20), np.ones((8, 8, 1))).astype(np.uint8)
            place = folder / "raw" / f"p{person}" / f"{k}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
    convert(Options("folder", folder / "raw", folder / "set", workers=1))
    return folder / "set"


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
    assert sorted(path.name for path in folder.iterdir()) == ["attempts.csv", "full_system.png", "metrics.json"]
    content = json.loads((folder / "metrics.json").read_text())
    attempts, again = read_attempts(scores), read_attempts(folder / "attempts.csv")
    np.testing.assert_allclose(again.match, attempts.match, rtol=1e-8)
    np.testing.assert_array_equal(again.kind, attempts.kind)
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


KNOWN = {
    "ada/1": Liveness(True, "none", "ada", 0.9),
    "ada/2": Liveness(True, "none", "ada", 0.8),
    "bob/1": Liveness(True, "none", "bob", np.nan),
    "print/ada": Liveness(False, "print", "ada", 0.3),
}


def test_pairs_become_attempts() -> None:
    probes = ["ada/2", "bob/1", "print/ada", "print/ada"]
    references = ["ada/1", "ada/1", "ada/1", "bob/1"]
    same = np.array([True, False, True, False])
    attempts, left_out = join(probes, references, same, np.array([0.7, 0.1, 0.6, 0.2]), KNOWN, Path("s.csv"))
    assert left_out == 1
    assert [attempts.kinds[number] for number in attempts.kind] == ["genuine", "impostor", "print"]
    np.testing.assert_array_equal(attempts.match, [0.7, 0.1, 0.6])
    np.testing.assert_array_equal(attempts.live, [0.8, np.nan, 0.3])
    assert attempts.persons is not None
    assert attempts.persons.tolist() == [[0, 1, 0], [0, 0, 0]]
    unknown = {**KNOWN, "ada/1": KNOWN["ada/1"]._replace(subject="")}
    assert join(probes, references, same, np.zeros(4), unknown, Path("s.csv"))[0].persons is None


@pytest.mark.parametrize(
    ("probe", "reference", "message"),
    [
        ("eve/1", "ada/1", "no line for 1 images of the pairs, the first is 'eve/1'"),
        ("ada/1", "print/ada", "an attack"),
    ],
)
def test_pairs_that_do_not_fit(probe: str, reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join([probe], [reference], np.array([True]), np.zeros(1), KNOWN, Path("s.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,live,attack\na,1,none\n", "and a model's scores"),
        ("name,live,attack,run\na,1,none,high\n", "line 2: 'high' is no score"),
        ("name,live,attack,run\na,yes,none,1\n", "line 2: live is 'yes'"),
        ("name,live,attack,run\na,1,none,1\na,1,none,1\n", "line 3: 'a' stands twice"),
    ],
)
def test_liveness_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_liveness(tmp_path / "scores.csv")


def test_a_recognition_run_and_liveness_scores(tmp_path: Path) -> None:
    """Six persons, two live pictures and a darker one of each, matched by a run of a few steps."""
    shards = make_persons(tmp_path)
    run = run_here(write_config(tmp_path, shards))
    names = [f"p{p}/{k}.png" for p in range(6) for k in range(3)]
    kinds_of = {"0": "1,none", "1": "1,none", "2": "0,print"}
    lines = [f"{name},{kinds_of[name[3]]},{name[:2]},{0.2 * k % 1}" for k, name in enumerate(names)]
    (tmp_path / "scores.csv").write_text("name,live,attack,subject,run\n" + "\n".join(lines) + "\n")
    pairs = [(a, b) for a in names for b in names if a != b and b[3] == "0"]
    text = "".join(f"{a},{b},{int(a[:2] == b[:2])}\n" for a, b in pairs)
    (tmp_path / "pairs.csv").write_text("a,b,same\n" + text)
    said = assess_full_system(
        tmp_path / "scores.csv", model=run, images=shards, pairs=str(tmp_path / "pairs.csv"), out=tmp_path / "out"
    )
    found = read_attempts(tmp_path / "out" / "attempts.csv")
    kept = [(a, b) for a, b in pairs if a[3] != "2" or a[:2] == b[:2]]
    assert f"left out: {len(pairs) - len(kept):,} attacks on other persons" in said
    assert len(found.kind) == len(kept)
    kinds = ["genuine" if a[:2] == b[:2] else "impostor" for a, b in kept]
    kinds = ["print" if a[3] == "2" else kind for (a, _), kind in zip(kept, kinds, strict=True)]
    assert [found.kinds[number] for number in found.kind] == kinds
    assert found.live.tolist() == pytest.approx([0.2 * names.index(a) % 1 for a, _ in kept])
