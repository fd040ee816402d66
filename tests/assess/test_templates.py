import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.assess.templates import assess_templates
from fastface.data.image_sets import open_images
from fastface.evaluate import main
from fastface.foreign import import_weights

OPTIONS: dict[str, Any] = {
    "images": None,
    "embeddings": None,
    "detector_scores": None,
    "norm": "keep",
    "crop": "none",
    "flip": None,
    "compat": None,
    "det": False,
    "batch_size": 32,
    "device": "cpu",
    "out": None,
}


@pytest.fixture
def listed(tmp_path: Path) -> dict[str, Any]:
    """Write 20 persons of two templates, of two images each; and embeddings that tell them apart."""
    rng = np.random.default_rng(0)
    lines = [f"{i}.jpg {i // 2} {i}\n" for i in range(80)]
    (tmp_path / "tid_mid.txt").write_text("".join(lines))
    pairs = [f"{a} {b} {int(a // 2 == b // 2)}\n" for a in range(40) for b in range(a)]
    (tmp_path / "pairs.txt").write_text("".join(pairs))
    rows = np.repeat(rng.normal(size=(20, 16)), 4, axis=0) + 0.3 * rng.normal(size=(80, 16))
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    files = {"templates": [str(tmp_path / "tid_mid.txt")], "template_pairs": [tmp_path / "pairs.txt"]}
    return {**OPTIONS, **files, "embeddings": tmp_path / "rows.npy", "out": tmp_path / "out"}


def test_embeddings_and_lists_become_a_report_and_files(listed: dict[str, Any]) -> None:
    text = assess_templates(None, **{**listed, "compat": "ijb-insightface"})
    for words in ("40 templates of 80 images", "TAR at FAR 1e-2", "nearest to the target", "for 20 persons"):
        assert words in text
    figures = json.loads((listed["out"] / "metrics.json").read_text())["model"]
    assert figures["metrics"]["auc"] > 0.99
    assert figures["details"]["num_genuine"] == 20
    assert (listed["out"] / "verification.png").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": None}, "give --checkpoint RUN and --images"),
        ({"template_pairs": []}, "a file each"),
        ({"out": None}, "needs --out"),
        ({"compat": "insightface"}, "--compat ijb-insightface"),
        ({"templates": ["folders"]}, "needs --images"),
        ({"embeddings": Path("none.npy")}, "is not an .npy file"),
    ],
)
def test_what_does_not_fit_is_refused(listed: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assess_templates(None, **{**listed, **change})


def test_embeddings_of_another_list_are_refused(listed: dict[str, Any]) -> None:
    np.save(listed["embeddings"], np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="templates list 80 images"):
        assess_templates(None, **listed)


def test_the_command_takes_each_protocols_flags_and_refuses_the_others(
    listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as stopped:
            code = int(str(stopped.code))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    files = ("--templates", listed["templates"][0], "--template-pairs", listed["template_pairs"][0])
    there = ("--embeddings", listed["embeddings"], "--out", listed["out"])
    code, text = call("--protocol", "templates", *files, *there)
    assert code == 0
    assert "40 templates of 80 images" in text
    code, text = call("--protocol", "templates", *files, *there, "--baselines")
    assert code == 2
    assert "--baselines has no meaning with --protocol templates" in text
    assert "has no meaning with --protocol pairs" in call(*files, "--checkpoint", "x")[1]
    assert "--checkpoint" in call("--images", "x")[1].splitlines()[-1]


@pytest.mark.slow
def test_lfw_by_templates_of_several_images(data: Path, listed: dict[str, Any], tmp_path: Path) -> None:
    """Public weights on six persons of LFW, two templates of two images each: all told apart."""
    import_weights("mobilefacenet_128d", data / "weights" / "mobilefacenet_128d" / "068.ckpt", tmp_path / "run")
    persons = ("George_W_Bush", "Colin_Powell", "Tony_Blair", "Gerhard_Schroeder", "Hugo_Chavez", "Ariel_Sharon")
    images = open_images(data / "lfw112" / "images.tar")
    names = [images.name(i) for i in range(len(images))]
    rows = []
    for k, person in enumerate(persons):
        own = [name for name in names if name.startswith(f"{person}/")][:4]
        rows += [f"{name},{2 * k + j // 2},{name},{person}\n" for j, name in enumerate(own)]
    (tmp_path / "t.csv").write_text("name,template,media,subject\n" + "".join(rows))
    (tmp_path / "p.csv").write_text("".join(f"{a},{b}\n" for a in range(12) for b in range(a)))
    files = {"templates": [str(tmp_path / "t.csv")], "template_pairs": [tmp_path / "p.csv"], "embeddings": None}
    options = {**listed, **files, "images": data / "lfw112" / "images.tar"}
    assess_templates(tmp_path / "run", **options)
    figures = json.loads((listed["out"] / "metrics.json").read_text())["model"]
    assert figures["details"]["num_genuine"] == 6
    assert figures["metrics"]["auc"] == 1.0
