"""Two photographs: similarity, decision and probability are those of the card, and say what they rest on."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface import recognition, verifier
from fastface.card import Calibration, Card, MatchCard, Threshold
from fastface.comparator import LoadedMatcher
from fastface.predictor import Embedder
from fastface.verifier import Verifier

THRESHOLD = Threshold(
    target_fmr=0.01,
    threshold=0.25,
    fmr=0.005,
    tar=0.9,
    genuine=100,
    impostors=6000,
    supported=True,
    source="val, seed 0",
    errors=30,
    fmr_interval=(0.0035, 0.0071),
)
CALIBRATION = Calibration(
    a=10.0,
    b=-3.0,
    genuine=100,
    impostors=6000,
    cllr=0.2,
    min_cllr=0.15,
    ece=0.02,
    source="val, seed 0",
    pairs_sha256="p",
    model_sha256="m",
)
CARD = Card(input_size=(8, 8), mean=0, std=1, embedding_size=3, thresholds=[THRESHOLD], calibration=CALIBRATION)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = []
    for number, colour in enumerate([(200, 30, 30), (180, 60, 30), (10, 20, 220)]):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    return paths


def build(monkeypatch: pytest.MonkeyPatch, card: Card = CARD, match: MatchCard | None = None, **options) -> Verifier:
    """Embed a photograph by its mean colour; a matcher's score is minus the distance of the rows."""
    embedder = Embedder(lambda images: images.mean((2, 3)), card, "embedder")
    monkeypatch.setattr(recognition, "open_model", lambda model, device: (embedder, "digest"))
    if match is not None:
        score = lambda a, b: -np.linalg.norm(a - b, axis=1)  # noqa: E731
        monkeypatch.setattr(verifier, "load_matcher", lambda model, device: LoadedMatcher(score, match, "matcher"))
    return Verifier("model.onnx", match=None if match is None else "match.onnx", **options)


def cosine(a: tuple, b: tuple) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("prior", [0.5, 1e-4])
def test_similarity_decision_probability_and_grounds(
    monkeypatch: pytest.MonkeyPatch, photographs: list[Path], prior: float
) -> None:
    found = build(monkeypatch, prior=prior).compare(photographs[0], photographs[1])
    similarity = cosine((200, 30, 30), (180, 60, 30))
    assert found.similarity == found.score == pytest.approx(similarity, abs=1e-6)
    assert found.same
    odds = math.exp(10 * similarity - 3) * prior / (1 - prior)
    assert found.llr == pytest.approx(10 * similarity - 3, abs=1e-5)
    assert found.probability == pytest.approx(odds / (1 + odds), rel=1e-4)
    said = str(found)
    assert f"similarity {similarity:.4f}; same person (threshold 0.2500 for FMR 0.01)" in said
    assert f"where {prior:g} of pairs show one" in said
    assert "30 of 6,000 impostor pairs accepted, FMR 5.00e-03 [3.50e-03, 7.10e-03]" in said
    assert "held-out Cllr 0.2000" in said
    other = build(monkeypatch).compare(photographs[0], photographs[2])
    assert not other.same
    assert other.llr is not None
    assert other.llr < 0
    assert "different people" in str(other)


def test_an_older_card_gives_what_it_has(monkeypatch: pytest.MonkeyPatch, photographs: list[Path]) -> None:
    old = THRESHOLD.model_copy(update={"errors": None, "fmr_interval": None, "supported": False})
    found = build(monkeypatch, CARD.model_copy(update={"thresholds": [old], "calibration": None}))
    said = str(found.compare(photographs[0], photographs[1]))
    assert said.count("\n") == 0
    assert "a guess: calibrated on 6,000 impostor pairs only" in said
    bare = build(monkeypatch, CARD.model_copy(update={"thresholds": [], "calibration": None}))
    assert bare.compare(photographs[0], photographs[1]).same is None


def test_a_matcher_decides(monkeypatch: pytest.MonkeyPatch, photographs: list[Path]) -> None:
    threshold = THRESHOLD.model_copy(update={"threshold": -50.0})
    calibration = CALIBRATION.model_copy(update={"a": 0.1, "b": 4.0})
    match = MatchCard(embedding_sizes=(3,), embeddings=[], thresholds=[threshold], calibration=calibration)
    verify = build(monkeypatch, match=match)
    near, far = verify.compare(*photographs[:2]), verify.compare(photographs[0], photographs[2])
    distance = math.dist((200, 30, 30), (180, 60, 30))
    assert near.score == pytest.approx(-distance, rel=1e-6)
    assert (near.same, far.same) == (True, False)
    assert near.llr == pytest.approx(4 - 0.1 * distance, rel=1e-5)
    assert f"matcher {-distance:.4f}" in str(near)
    with pytest.raises(ValueError, match="embedder makes 3"):
        build(monkeypatch, match=match.model_copy(update={"embedding_sizes": (5,)})).compare(*photographs[:2])


@pytest.mark.parametrize(("options", "message"), [({"prior": 0.0}, "prior is 0"), ({"target_fmr": 0.5}, "FMR 0.5")])
def test_what_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(monkeypatch, **options)


def test_a_photograph_without_its_face(monkeypatch: pytest.MonkeyPatch, photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="cut out by 'five-point'"):
        build(monkeypatch, CARD.model_copy(update={"crop": "five-point"})).compare(*photographs[:2])
