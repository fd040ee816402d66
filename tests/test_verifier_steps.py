"""From photograph to decision: faces found, cut and judged, each step told, every refusal with its reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastface import Verifier, verifier, verify
from fastface.card import MatchCard
from fastface.comparator import LoadedMatcher
from tests.coloured import photograph, system

__all__ = ["system"]
RED, RED_TOO, GREEN = (250, 20), (240, 30), (20, 250)


def test_one_person_is_accepted_with_every_step_told(tmp_path: Path, system: str) -> None:
    first, second = photograph(tmp_path / "a.png", RED), photograph(tmp_path / "b.png", RED_TOO)
    decision = Verifier("m", detector=system, liveness=["l"]).compare(first, second)
    assert decision.accepted
    named = [(step.name, step.subject) for step in decision.steps]
    own = ["read", "detect", "cut", "liveness"]
    a, b = str(first), str(second)
    assert named == [(n, a) for n in own] + [(n, b) for n in own] + [("embed", a), ("embed", b), ("match", "")]
    assert all(step.ms >= 0 for step in decision.steps)
    by_name = {step.name: step for step in decision.steps}
    assert by_name["detect"].score == pytest.approx(0.9)
    assert by_name["liveness"].score == pytest.approx(1 - 100 / 255)
    colours = [np.array([*each, 255.0]) - 128 for each in (RED, RED_TOO)]
    for colour in colours:
        colour[2] *= 0.01
    expected = colours[0] @ colours[1] / np.linalg.norm(colours[0]) / np.linalg.norm(colours[1])
    assert by_name["match"].score == decision.similarity == pytest.approx(expected, abs=1e-4)
    said = str(decision)
    assert "accepted: similarity" in said
    assert "same person (threshold 0.9000 for FMR 0.01)" in said
    content = json.loads(json.dumps(decision.as_dict()))
    assert content["accepted"] is True
    assert content["comparison"]["similarity"] == decision.similarity
    assert [step["name"] for step in content["steps"]] == [name for name, _ in named]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"faces": [GREEN]}, "different people"),
        ({"faces": []}, "b.png: no face found (blue, score 0.5 or more)"),
        ({"faces": [RED], "grey": 200}, "b.png is not live: 0.2157 < 0.5000 (threshold for bpcer=0.01 on colours; l)"),
    ],
)
def test_every_refusal_has_its_reason(tmp_path: Path, system: str, second: dict, reason: str) -> None:
    first = photograph(tmp_path / "a.png", RED)
    other = photograph(tmp_path / "b.png", *second["faces"], grey=second.get("grey", 100))
    decision = Verifier("m", detector=system, liveness=["l"]).compare(first, other)
    assert decision.accepted is False
    assert any(reason in each for each in decision.reasons)
    assert f"refused: {decision.reasons[0]}" in str(decision)
    compared = "different" in reason
    assert (decision.comparison is not None) == compared
    assert ("not run: embed, match" in str(decision)) == (not compared)
    assert any(step.name == "embed" for step in decision.steps) == compared


def test_both_refusals_are_told_and_a_trusted_picture_need_not_live(tmp_path: Path, system: str) -> None:
    print_, live = photograph(tmp_path / "print.png", RED, grey=200), photograph(tmp_path / "live.png", RED)
    checks = {"detector": system, "liveness": ["l"]}
    assert len(Verifier("m", **checks).compare(print_, print_).reasons) == 2
    trusting = Verifier("m", **checks, live="second")
    assert trusting.compare(print_, live).accepted
    assert trusting.compare(live, print_).accepted is False
    stricter = Verifier("m", **checks, liveness_threshold=0.7).compare(live, live)
    assert "is not live: 0.6078 < 0.7000 (threshold as given; l)" in stricter.reasons[0]


@pytest.mark.parametrize(("pick", "taken", "which"), [("largest", GREEN, "largest"), ("centre", RED, "centre")])
def test_of_several_faces_the_one_that_is_taken_is_told(
    tmp_path: Path, system: str, pick: str, taken: tuple, which: str
) -> None:
    several = photograph(tmp_path / "a.png", (20, 20), RED, GREEN)
    alone = photograph(tmp_path / "b.png", taken)
    decision = Verifier("m", detector=system, pick=pick).compare(several, alone)
    assert decision.accepted
    assert f"3 faces: the {'largest' if which == 'largest' else 'one nearest to the centre'} was taken" in str(decision)


@pytest.mark.parametrize("model", ["m", "five"])
def test_pictures_are_cut_as_the_card_says(tmp_path: Path, system: str, model: str) -> None:
    """A box shows nothing but the face, and so do the five points of these; the whole image shows the wall too."""
    photo = photograph(tmp_path / "a.png", RED)
    cut = Verifier(model, detector=system).embed(photo)
    expected = np.array([RED[0] - 128, RED[1] - 128, 1.27])
    assert cut == pytest.approx(expected / np.linalg.norm(expected), abs=0.02)
    whole = Verifier("uncut", detector=system, align="none").embed(photo)
    assert np.abs(whole - cut).max() > 0.1
    same = Verifier("uncut", detector=system, align="five-point").embed(photo)
    assert same == pytest.approx(cut, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recognition": "m", "detector": None}, "give --detector yunet:FILE"),
        ({"recognition": "uncut"}, "card does not say how faces are cut out for it; give --align five-point"),
        ({"recognition": "m", "align": "five-point"}, "--align five-point has no meaning"),
        ({"recognition": "m", "align": "fivepoint"}, "perhaps you meant 'five-point'"),
        ({"recognition": "m", "pick": "nearest"}, "--pick 'nearest'"),
        ({"recognition": ["m", "n"]}, "2 recognition models: give --fusion"),
        ({"recognition": []}, "no recognition model"),
        ({"recognition": "missing"}, "no such file: missing"),
        ({"recognition": "m", "live": "first"}, "--live 'first'"),
        ({"recognition": "m", "liveness": ["l"], "liveness_threshold": 2}, "must lie in 0 to 1"),
        ({"recognition": "m", "liveness": ["l"], "liveness_rule": "eer"}, "was calibrated for bpcer=0.01"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_read(system: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Verifier(**{"detector": system, **options})


def test_models_side_by_side_are_what_the_matcher_was_trained_on(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = MatchCard(embedding_sizes=(3, 6), embeddings=[])
    seen: list[tuple] = []

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append((a.shape, b.shape))
        return np.array([1.5], np.float32)

    monkeypatch.setattr(verifier, "load_matcher", lambda model, device: LoadedMatcher(score, card, "matcher"))
    photo = photograph(tmp_path / "a.png", RED)
    decision = Verifier(["m", "tall"], detector=system, match="x").compare(photo, photo)
    assert seen == [((1, 9), (1, 9))]
    assert decision.score == 1.5
    assert decision.accepted is None
    assert "no decision" in str(decision)
    with pytest.raises(ValueError, match="m and m makes 3 and 3"):
        Verifier(["m", "m"], detector=system, match="x")


def test_several_models_are_fused_where_their_sizes_fit(tmp_path: Path, system: str) -> None:
    (tmp_path / "fusion.onnx").write_bytes(b"weights")
    fusing = {"detector": system, "fusion": tmp_path / "fusion.onnx"}
    photo, other = photograph(tmp_path / "a.png", RED), photograph(tmp_path / "b.png", GREEN)
    decision = Verifier(["m", "tall"], **fusing).compare(photo, other)
    names = [step.name for step in decision.steps]
    assert names[-7:] == ["embed", "embed", "fuse", "embed", "embed", "fuse", "match"]
    assert decision.accepted is False
    assert "9 values -> 3" in str(decision)
    single = Verifier("m", detector=system).compare(photo, other)
    assert decision.similarity == pytest.approx(single.similarity, abs=1e-5)  # three times one embedding
    with pytest.raises(ValueError, match=r"fuses embeddings of 3 \+ 6 values, the recognition models make 6 \+ 3"):
        Verifier(["tall", "m"], **fusing)


def clip(folder: Path, *faces: list[tuple[int, int]], grey: tuple[int, ...] = (100,)) -> Path:
    for k, shown in enumerate(faces):
        photograph(folder / f"{k:02d}.png", *shown, grey=grey[min(k, len(grey) - 1)])
    return folder


def test_a_clip_is_judged_by_its_frames_and_embedded_by_their_mean(tmp_path: Path, system: str) -> None:
    photo = photograph(tmp_path / "a.png", RED)
    moving = clip(tmp_path / "clip", [RED], [], [RED_TOO], [RED], grey=(100, 100, 150, 100))
    checks = {"detector": system, "liveness": ["l"], "temporal": "t", "live": "second"}
    decision = Verifier("m", **checks).compare(photo, moving)
    assert decision.accepted
    steps = {step.name: step for step in decision.steps if step.subject == str(moving)}
    assert "4 frames of 80x64 px" in steps["read"].said
    assert "in 3 of 4 frames" in steps["detect"].said
    assert steps["liveness"].score == pytest.approx(1 - (100 + 150 + 100) / 3 / 255)
    assert steps["temporal"].score == pytest.approx(1 - 100 / 255)
    rows = [Verifier("m", detector=system).rows(photograph(tmp_path / f"{n}.png", c)) for n, c in enumerate([RED] * 2)]
    rows.append(Verifier("m", detector=system).rows(photograph(tmp_path / "2.png", RED_TOO, grey=150)))
    found = Verifier("m", detector=system, frames=4).rows(moving)
    assert found == pytest.approx(np.mean(rows, axis=0), abs=1e-3)
    dying = Verifier("m", **checks).compare(photo, clip(tmp_path / "d", *[[RED]] * 4, grey=(100, 100, 100, 200)))
    assert "d is not a living person's clip: 0.2157 < 0.5000" in dying.reasons[0]
    rare = Verifier("m", detector=system, frames=4).compare(photo, clip(tmp_path / "r", [RED], [], [], []))
    assert "a face in 1 of 4 frames only" in rare.reasons[0]


def test_photographs_are_no_clips(tmp_path: Path, system: str) -> None:
    photo, moving = photograph(tmp_path / "a.png", RED), clip(tmp_path / "clip", *[[RED]] * 4)
    with pytest.raises(ValueError, match=r"--temporal judges clips, and .*a\.png is none"):
        Verifier("m", detector=system, temporal="t").compare(photo, moving)
    assert Verifier("m", detector=system, temporal="t").compare(moving, moving).accepted
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        Verifier("m", detector=system).compare(photo, tmp_path / "empty")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be read as a clip"):
        Verifier("m", detector=system).compare(photo, tmp_path / "text.mp4")


def test_photographs_that_cannot_be_read_are_named(tmp_path: Path, system: str) -> None:
    good = photograph(tmp_path / "a.png", RED)
    (tmp_path / "text.jpg").write_text("hello")
    verify_ = Verifier("m", detector=system)
    with pytest.raises(ValueError, match=r"text\.jpg cannot be read as an image: not-an-image"):
        verify_.compare(good, tmp_path / "text.jpg")
    with pytest.raises(ValueError, match=r"there is no .*b\.png, perhaps you meant 'a\.png'"):
        verify_.compare(tmp_path / "b.png", good)


def test_the_command_line(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The photographs may come first or last, also after options that take several words; exit codes as documented."""
    a, b, green = (photograph(tmp_path / f"{n}.png", c) for n, c in (("a", RED), ("b", RED_TOO), ("g", GREEN)))

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["verify.py", *map(str, words)])
        return verify.main()

    assert call("--recognition", "m", "--detector", system, a, b) == 0
    assert call("--detector", system, "--recognition", "m", a, green) == 1
    assert call(a, b, "--detector", system, "--recognition", "m", "--liveness", "l", "k") == 0
    assert call("--detector", system, "--recognition", "m", "--liveness", "l", "k", a, b) == 0
    assert capsys.readouterr().out.count("live (k") == 4
    assert call("--recognition", "uncut", a, green) == 0  # two photographs alone: whatever comes out
    assert call("--recognition", "uncut", "--strict", a, a) == 0
    capsys.readouterr()
    assert call("--recognition", "m", "--detector", system, "--json", a, green) == 1
    assert json.loads(capsys.readouterr().out)["accepted"] is False
    assert call("--recognition", "m", "--detector", system, a, tmp_path / "none.png") == 2
    with pytest.raises(SystemExit):
        call("--recognition", "m", a)
