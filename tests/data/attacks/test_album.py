"""Folders of drawn and of real attacks: the same bytes for any number of workers, and shards with their columns."""

from __future__ import annotations

import importlib.util
import sys
import tarfile
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.synthetic import Identity, Shot, render
from fastface.data.synthetic.attacks import VARIANTS, Key, present, retake
from fastface.data.synthetic.attacks.album import draw_attacks, variants_of
from fastface.data.synthetic.attacks.files import attack_files

ROOT = Path(__file__).resolve().parents[3]


@cache
def tool(name: str) -> ModuleType:
    """Load a tool; its workers find it by its name."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_faces(out: Path, words: str) -> None:
    tool("make_faces").main(["--out", str(out), *words.split()])


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def told(index: Index, column: str) -> list[str]:
    return [index.meta["values"][column][k] for k in index.columns[column].tolist()]


def test_attacks_become_shards_with_attack_source_and_subject(tmp_path: Path) -> None:
    words = "--identities 3 --images 3 --size 32 --sites 2 --attacks print,mask-resin"
    make_faces(tmp_path / "one", f"{words} --workers 1 --sheet {tmp_path / 'sheet.png'}")
    make_faces(tmp_path / "two", f"{words} --workers 2")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) == 3 * 3 * 3
    convert(Options("liveness", tmp_path / "one", tmp_path / "set", workers=1))
    index = Index.open(tmp_path / "set")
    assert (index.num_samples, index.num_classes) == (27, 2)
    assert sorted(told(index, "attack")) == ["mask"] * 9 + ["none"] * 9 + ["print"] * 9
    assert sorted(set(told(index, "subject"))) == ["site-0/00000", "site-0/00002", "site-1/00001"]
    for source, subject in zip(told(index, "source"), told(index, "subject"), strict=True):
        assert subject.startswith(source + "/")
    for label, attack in zip(index.columns["label"].tolist(), told(index, "attack"), strict=True):
        assert (label == 0) == (attack == "none")
    assert Image.open(tmp_path / "sheet.png").height == 32 * (1 + 1 + len(variants_of("print")["print"]))


def test_clips_become_shards_with_clip_and_time(tmp_path: Path) -> None:
    words = "--identities 2 --images 1 --size 32 --sites 1 --clips still,video --frames 3 --fps 10"
    make_faces(tmp_path / "one", f"{words} --workers 1")
    make_faces(tmp_path / "two", f"{words} --workers 2")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    convert(Options("liveness", tmp_path / "one", tmp_path / "set", workers=1, fps=10.0))
    index = Index.open(tmp_path / "set")
    assert index.num_samples == 2 * 3 * 3
    assert index.columns["time_ms"].tolist() == [0, 100, 200] * 6
    assert sorted(np.bincount(index.columns["clip"]).tolist()) == [3] * 6
    assert sorted(told(index, "attack")) == ["none"] * 6 + ["replay"] * 6 + ["still"] * 6


def test_a_person_is_drawn_alike_whatever_else_is_asked_for() -> None:
    few = dict(draw_attacks(3, 1, 2, 32, variants_of("print-laser"), 2))
    more = dict(draw_attacks(3, 1, 2, 32, variants_of("print-laser,replay"), 2))
    assert all(np.array_equal(more[path], image) for path, image in few.items())
    who = Identity.draw(3, 1)
    live = render(who, Shot.draw(3, who, 0), 32)
    np.testing.assert_array_equal(few["site-1/live/id-00001/0000.png"], retake(live.image, Key(3, 1, 0), site=1))


def test_brightness_contrast_and_colour_of_whole_pictures_do_not_tell_attacks(tmp_path: Path) -> None:
    """Least squares on mean and deviation of the channels, fitted to half of the people and tried on the others."""
    rows, live, fold = [], [], []
    for number in range(14):
        for path, image in draw_attacks(0, number, 2, 32, variants_of("print,replay"), 3):
            pixels = image.astype(float) / 255
            rows.append([*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1)), 1.0])
            live.append("/live/" in path)
            fold.append(number % 2)
    table, is_live, odd = np.array(rows), np.array(live), np.array(fold) == 1
    weight = np.where(is_live, 1 / is_live.mean(), 1 / (~is_live).mean()) ** 0.5
    answer = np.linalg.lstsq((table * weight[:, None])[odd], (weight * np.where(is_live, 1.0, -1.0))[odd], rcond=None)[
        0
    ]
    scores = table[~odd] @ answer
    genuine, attacks = scores[is_live[~odd]], scores[~is_live[~odd]]
    auc = np.mean([(g > a) + 0.5 * (g == a) for g in genuine for a in attacks])
    assert auc < 0.8


def test_photographs_become_a_liveness_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    for name in ("ann/1.jpg", "bob/2.png"):
        (photos / name).parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), np.uint8)).save(photos / name)
    (photos / "bob/bad.jpg").write_bytes(b"no picture")
    count, bad = attack_files(photos, tmp_path / "out", "live,print-photo,cut", aligned=True)
    assert count == 2 * (1 + 1 + 2)
    assert len(bad) == 1
    assert bad[0].startswith("bob/bad.jpg: ")
    assert set(files(tmp_path / "out")) == {
        f"{folder}/{name}.png"
        for folder in ("live", "spoof/print-photo", "spoof/cut-eyes", "spoof/cut-outline")
        for name in ("ann/1", "bob/2")
    }
    alone, _ = attack_files(photos, tmp_path / "again", "print-photo")
    assert alone == 2
    for name in ("ann/1.png", "bob/2.png"):  # whatever else is asked for
        assert (
            files(tmp_path / "again")[f"spoof/print-photo/{name}"]
            == files(tmp_path / "out")[f"spoof/print-photo/{name}"]
        )


def test_the_tool_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(photo)
    common = [str(photo), "--out", str(out), "--attack"]
    assert tool("make_attacks").main([*common, "print-laser"]) == 0
    assert capsys.readouterr().out == f"1 pictures in {out}\n"
    assert tool("make_attacks").main([*common, "print-laser"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert tool("make_attacks").main([*common, "mask"]) == 2
    assert "--aligned" in capsys.readouterr().err
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png"):
        attack_files(tmp_path, tmp_path / "new", "print-laser")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--attacks prints", "'prints', perhaps you meant 'print'"),
        ("--clips stil", "'stil', perhaps you meant 'still'"),
        ("--attacks print --clips still", "one after the other"),
        ("--attacks print --sites 0", "--sites 0 must be at least 1"),
    ],
)
def test_make_faces_refuses_what_it_cannot_draw(tmp_path: Path, words: str, error: str) -> None:
    with pytest.raises(SystemExit, match=error):
        make_faces(tmp_path / "out", f"--identities 1 {words}")
    assert not (tmp_path / "out").exists()


def test_attacks_on_a_real_photograph_show_it(data: Path) -> None:
    with tarfile.open(data / "lfw112" / "images.tar") as tar:
        photo = next(member for member in tar if member.isfile())
        image = load_rgb(tar.extractfile(photo).read())  # pyright: ignore
    for variant in VARIANTS[:6]:
        made = present(image, variant, Key(0, 0, 0))
        assert np.corrcoef(image[30:82, 30:82].ravel(), made[30:82, 30:82].ravel())[0, 1] > 0.6
