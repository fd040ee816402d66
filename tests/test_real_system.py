"""Real photographs through the whole system: public detectors and a public network, verified, enrolled, identified."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastface import Verifier
from fastface.enrolment import enrol
from fastface.foreign import import_weights
from fastface.identifier import Identifier
from tests.detection.people import FOUND, photographs

NAMES = ["Aaron_Peirsol/Aaron_Peirsol_0001.jpg", "Aaron_Peirsol/Aaron_Peirsol_0002.jpg", *FOUND]


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give a network, and the photographs by name: two of Aaron Peirsol, one with a bystander, one of somebody else."""
    data, folder = request.getfixturevalue("data"), tmp_path_factory.mktemp("real")
    import_weights("mobilefacenet_128d", data / "weights" / "mobilefacenet_128d" / "068.ckpt", folder / "model")
    for name, content in photographs(data, NAMES).items():
        (folder / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "people" / name).write_bytes(content)
    return {"model": folder / "model", "people": folder / "people", **{n: folder / "people" / n for n in NAMES}}


@pytest.mark.parametrize("detector", ["yunet:{0}/weights/yunet/yunet_n_dynamic.onnx", "mtcnn:{0}/weights/mtcnn"])
def test_one_person_is_more_alike_than_two(data: Path, real: dict[str, Path], detector: str) -> None:
    verifier = Verifier(real["model"], detector=detector.format(data), align="five-point")
    mates = verifier.compare(real[NAMES[0]], real[NAMES[1]])
    others = [verifier.compare(real[NAMES[0]], real[name]) for name in FOUND]
    assert mates.similarity is not None
    assert mates.similarity > 0.5 > 0.4 > max(other.similarity or 1 for other in others)
    assert mates.accepted is None
    assert "no decision" in str(mates)
    detected = {step.subject: step.said for other in others for step in other.steps if step.name == "detect"}
    faces = {name: len(found[detector[:5]]) for name, found in FOUND.items()}
    for name, count in faces.items():
        assert detected[str(real[name])].startswith("one face" if count == 1 else f"{count} faces: the largest")


def test_who_is_enrolled_is_found(data: Path, real: dict[str, Path], tmp_path: Path) -> None:
    detector = f"yunet:{data}/weights/yunet/yunet_n_dynamic.onnx"
    said = enrol(tmp_path / "g", real["people"], recognition=[real["model"]], detector=detector, align="five-point")
    assert "4 images of 3 people" in said
    found = Identifier(tmp_path / "g", threshold=0.6).identify(real[NAMES[1]])
    assert found.person == "Aaron_Peirsol"
    assert found.candidates[0].score == pytest.approx(1, abs=1e-5)
    enrol(tmp_path / "g", remove=["Aaron_Peirsol"])
    assert Identifier(tmp_path / "g", threshold=0.6).identify(real[NAMES[1]]).decision == "nobody"
