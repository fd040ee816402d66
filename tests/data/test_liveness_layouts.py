"""Liveness datasets of images, and folders of frames: each line of what is known of a record is what its makers say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.sources import Source
from fastface.data.sources.kinds import open_source
from fastface.data.sources.liveness_layouts import LAYOUTS
from tests.data.badfiles import encode, photo
from tests.data.test_liveness_source import told
from tests.data.test_sources import fill, names_of


def rows_of(sources: dict[str, Source], *columns: str) -> dict[str, list[tuple]]:
    """List (name, label, columns ...) of each split, with names in place of numbers."""
    result = {}
    for split, source in sources.items():
        cells = [
            list(told(source, name).values()) if name in source.values else source.columns[name] for name in columns
        ]
        labels = [source.classes[k] for k in source.labels]
        result[split] = [tuple(row) for row in zip(names_of(source), labels, *cells, strict=True)]
    return result


def lines(path: Path, *text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in text))


def spoof_numbers(kind: int, light: int = 0, place: int = 0, label: int | None = None) -> list[int]:
    return [0] * 40 + [kind, light, place, int(kind > 0) if label is None else label]


CELEBA = {
    "train": {
        "Data/train/10/live/1.png": spoof_numbers(0),
        "Data/train/10/spoof/2.png": spoof_numbers(1, 1, 1),
        "Data/train/11/spoof/3.png": spoof_numbers(5, 4, 2),
        "Data/train/11/spoof/4.png": spoof_numbers(8, 2, 1),
    },
    "test": {"Data/test/12/live/1.png": spoof_numbers(0), "Data/test/12/spoof/2.png": spoof_numbers(10, 3, 2)},
}


def celeba(root: Path, **change: dict) -> Path:
    for split, table in (CELEBA | change).items():
        lines(root / f"metas/intra_test/{split}_label.json", json.dumps(table))
        for name in table:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encode(np.roll(photo(64, 112), len(list(root.rglob("*.png"))), axis=0), "PNG"))
    return root


def test_celeba_spoof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = celeba(tmp_path / "in" / "CelebA_Spoof")
    lines(root / "Data/train/10/spoof/2_BB.txt", "56 28 112 56 0.998")
    lines(root / "Data/train/11/spoof/3_BB.txt", "0 0 0 0 0")
    fill(root, ["Data/train/99/live/9.png"])
    sources = open_source("liveness", tmp_path / "in")
    assert "laid out as celeba-spoof" in capsys.readouterr().err
    at = "CelebA_Spoof/Data/"
    assert rows_of(sources, "attack", "medium", "illumination", "environment", "subject", "source") == {
        "train": [
            (at + "train/10/live/1.png", "live", "none", "none", "none", "none", "10", "celeba-spoof"),
            (at + "train/10/spoof/2.png", "spoof", "print", "photo", "normal", "indoor", "10", "celeba-spoof"),
            (at + "train/11/spoof/3.png", "spoof", "cut", "upper-body-mask", "dark", "outdoor", "11", "celeba-spoof"),
            (at + "train/11/spoof/4.png", "spoof", "replay", "pad", "strong", "indoor", "11", "celeba-spoof"),
        ],
        "test": [
            (at + "test/12/live/1.png", "live", "none", "none", "none", "none", "12", "celeba-spoof"),
            (at + "test/12/spoof/2.png", "spoof", "mask", "3d-mask", "back", "outdoor", "12", "celeba-spoof"),
        ],
    }
    # the image is 64 x 112 px, the box one of 224 x 224
    boxes = sources["train"].boxes
    assert boxes is not None
    assert boxes[1].tolist() == [56 * 64 / 224, 28 * 112 / 224, 168 * 64 / 224, 84 * 112 / 224]
    assert np.isnan(boxes[[0, 2, 3]]).all()
    assert sources["test"].boxes is None
    assert sources["train"].skipped == [(at + "train/99/live/9.png", "outside-the-layout")]


def test_boxes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """A camera that stored 64 x 112 px lying on their side: upright they are 112 x 64."""
    root = celeba(tmp_path, train={name.replace(".png", ".jpg"): told for name, told in CELEBA["train"].items()})
    image = root / "Data/train/10/live/1.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(load_rgb(image.read_bytes())).save(image, exif=exif)
    lines(image.with_name("1_BB.txt"), "56 28 112 56 1")
    source = open_source("liveness", root)["train"]
    assert load_rgb(source.read(0)).shape == (64, 112, 3)
    assert source.boxes is not None
    assert source.boxes[0].tolist() == [56 * 112 / 224, 28 * 64 / 224, 168 * 112 / 224, 84 * 64 / 224]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"Data/train/1/live/1.png": [0] * 43}, r"train_label.json: 'Data/train/1/live/1.png' has \[0.* expected 44"),
        ({"Data/train/1/live/1.png": spoof_numbers(11)}, r"spoof type \(number 40\) is 11, expected 0 to 10"),
        ({"Data/train/1/live/1.png": spoof_numbers(0, 5)}, r"illumination \(number 41\) is 5"),
        ({"Data/train/1/live/1.png": spoof_numbers(0, label=1)}, "lies in live, has label 1 and spoof type 0"),
        ({"Data/train/1/spoof/1.png": spoof_numbers(0)}, "lies in spoof, has label 0"),
        ({"1.png": spoof_numbers(0)}, "'1.png' is not SPLIT/SUBJECT"),
        ({**CELEBA["train"], "Data/x/12/live/7.png": spoof_numbers(0)}, "subject 12 is in test .* and in train"),
        (CELEBA["train"] | CELEBA["test"], "is in the other split's list too"),
    ],
)
def test_celeba_spoof_labels_that_contradict_are_refused(tmp_path: Path, train: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("liveness", celeba(tmp_path, train=train))


def test_a_damaged_json_is_refused_with_its_line(tmp_path: Path) -> None:
    root = celeba(tmp_path)
    lines(root / "metas/intra_test/train_label.json", "{", '"Data/train/1/live/1.png": [0,', "}")
    with pytest.raises(ValueError, match=r"train_label.json line 3: "):
        open_source("liveness", root)


def test_a_damaged_box_file_is_refused_with_its_line(tmp_path: Path) -> None:
    root = celeba(tmp_path)
    lines(root / "Data/train/10/live/1_BB.txt", "1 2 3")
    with pytest.raises(ValueError, match=r"1_BB.txt line 1: expected X Y WIDTH HEIGHT SCORE, found '1 2 3'"):
        open_source("liveness", root)


NUAA = {
    "client_train": ["0001\\0001_00_00_01_0.jpg", "0002\\0002_01_02_02_7.jpg"],
    "client_test": ["0001\\0001_00_00_03_0.jpg"],
    "imposter_train": ["0001\\0001_00_00_01_0.jpg 12 30 60 60", ""],
    "imposter_test": ["0016\\0016_01_05_03_115.jpg"],
}


def nuaa(root: Path, form: str = "raw", **change: list[str]) -> Path:
    for which, listed in (NUAA | change).items():
        lines(root / f"{which}_{form}.txt", *listed)
        folder = which.split("_")[0].capitalize() + form.capitalize()
        fill(root, [f"{folder}/" + line.split()[0].replace("\\", "/") for line in listed if "\\" in line])
    return root


@pytest.mark.parametrize("form", ["raw", "face", "normalized"])
def test_nuaa(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    nuaa(tmp_path / form, form)
    (tmp_path / form / "ImposterX.jpg").write_bytes(b"")
    sources = open_source("liveness", tmp_path)
    client, imposter = f"{form}/Client{form.capitalize()}", f"{form}/Imposter{form.capitalize()}"
    assert rows_of(sources, "attack", "subject", "session", "source") == {
        "train": [
            (f"{client}/0001/0001_00_00_01_0.jpg", "live", "none", "0001", "1", "nuaa"),
            (f"{client}/0002/0002_01_02_02_7.jpg", "live", "none", "0002", "2", "nuaa"),
            (f"{imposter}/0001/0001_00_00_01_0.jpg", "spoof", "print", "0001", "1", "nuaa"),
        ],
        "test": [
            (f"{client}/0001/0001_00_00_03_0.jpg", "live", "none", "0001", "3", "nuaa"),
            (f"{imposter}/0016/0016_01_05_03_115.jpg", "spoof", "print", "0016", "3", "nuaa"),
        ],
    }
    assert "official splits are of sessions and share people, such as 0001" in capsys.readouterr().err
    assert sources["train"].skipped == [(f"{form}/ImposterX.jpg", "outside-the-layout")]


def test_nuaa_is_converted_where_its_shared_people_are_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.make_shards import main

    root = nuaa(tmp_path / "in")
    for k, image in enumerate(sorted(root.rglob("*.jpg"))):
        image.write_bytes(encode(photo(40 + k, 40)))
    command = ["liveness", str(root), "--out", str(tmp_path / "set"), "--workers", "1"]
    assert main(command) == 2
    assert "1 persons are in both train and test" in capsys.readouterr().err
    assert main([*command, "--leakage", "allow"]) == 0
    index = Index.open(tmp_path / "set" / "train")
    assert index.meta["identities_shared_with"] == {"test": 1}
    assert [index.meta["values"]["attack"][k] for k in sorted(index.columns["attack"])] == ["none", "none", "print"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"client_test": ["0001_00_00_03_0.jpg"]}, r"client_test_raw.txt line 1: expected 0001/0001"),
        ({"client_test": ["", "0002\\0001_00_00_03_0.jpg"]}, r"client_test_raw.txt line 2: expected 0001/0001"),
        ({"client_test": ["0001\\0001_00_00_01_0.jpg"]}, r"client_train_raw.txt line 1: .* listed already, for test"),
    ],
)
def test_nuaa_lists_that_are_wrong_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("liveness", nuaa(tmp_path, **change))


def test_images_that_are_listed_and_not_there_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nuaa(tmp_path) / "ClientRaw/0002/0002_01_02_02_7.jpg").unlink()
    assert len(open_source("liveness", tmp_path)["train"]) == 2
    assert "client_train_raw.txt: 1 of the 2 that it lists are not there" in capsys.readouterr().err


def test_two_forms_of_nuaa_are_not_mixed(tmp_path: Path) -> None:
    nuaa(tmp_path / "raw"), nuaa(tmp_path / "Detectedface", "face")
    with pytest.raises(ValueError, match="several forms"):
        open_source("liveness", tmp_path)


def test_lcc_fasd(tmp_path: Path) -> None:
    parts = {"training": "train", "development": "val", "evaluation": "test"}
    fill(tmp_path, [f"LCC_FASD/LCC_FASD_{part}/{label}/{label}_1.png" for part in parts for label in ("real", "spoof")])
    sources = open_source("liveness", tmp_path)
    assert rows_of(sources, "attack", "subject", "source") == {
        split: [
            (f"LCC_FASD/LCC_FASD_{part}/real/real_1.png", "live", "none", None, "lcc-fasd"),
            (f"LCC_FASD/LCC_FASD_{part}/spoof/spoof_1.png", "spoof", "unknown", None, "lcc-fasd"),
        ]
        for part, split in parts.items()
    }


FRAMES = ["train_release/1/1.avi/9.png", "train_release/1/1.avi/10.png", "train_release/1/HR_4/0.png"]
TEST_FRAMES = ["test_release/1/2/7.png", "test_release/1/5/7.png"]


def test_extracted_frames_of_a_video_dataset_are_clips(tmp_path: Path) -> None:
    """In the order of their numbers: 9 comes before 10."""
    fill(tmp_path, [*FRAMES, *TEST_FRAMES, "train_release/1/9/0.png"])
    with pytest.raises(ValueError, match="give --fps"):
        open_source("liveness", tmp_path)
    sources = open_source("liveness", tmp_path, fps=25)
    assert rows_of(sources, "attack", "device", "subject", "clip", "time_ms") == {
        "train": [
            (FRAMES[0], "live", "none", "normal-quality", "train-1", 0, 0),
            (FRAMES[1], "live", "none", "normal-quality", "train-1", 0, 40),
            (FRAMES[2], "spoof", "replay", "high-quality", "train-1", 1, 0),
        ],
        "test": [
            (TEST_FRAMES[0], "live", "none", "low-quality", "test-1", 0, 0),
            (TEST_FRAMES[1], "spoof", "cut", "normal-quality", "test-1", 1, 0),
        ],
    }
    assert sources["train"].skipped == [("train_release/1/9/0.png", "outside-the-layout")]


def test_folders_of_frames_in_a_tree_are_clips_where_a_rate_is_given(tmp_path: Path) -> None:
    names = ["a/train/live/0001/c0/0.png", "a/train/live/0001/c0/1.png", "a/train/spoof/0001/replay_c1/0.png"]
    fill(tmp_path, names)
    assert "clip" not in open_source("liveness", tmp_path)["train"].columns
    sources = open_source("liveness", tmp_path, fps=10)
    assert rows_of(sources, "attack", "source", "subject", "clip", "time_ms") == {
        "train": [
            (names[0], "live", "none", "a", "a/0001", 0, 0),
            (names[1], "live", "none", "a", "a/0001", 0, 100),
            (names[2], "spoof", "replay", "a", "a/0001", 1, 0),
        ]
    }


def test_the_plain_form_of_several_sources_converts(tmp_path: Path) -> None:
    """SOURCE/real|fake/IMAGE.png, without splits and people."""
    names = [f"{source}/{kind}/{k}.png" for source in ("cam", "web") for kind in ("fake", "real") for k in "01"]
    fill(tmp_path, names)
    source = open_source("liveness", tmp_path)[""]
    assert [source.classes[k] for k in source.labels] == ["spoof", "spoof", "live", "live"] * 2
    assert list(told(source, "source").values()) == ["cam"] * 4 + ["web"] * 4
    assert set(told(source, "subject").values()) == {None}


def test_layouts_are_chosen_by_name_and_refused_where_that_makes_no_sense(tmp_path: Path) -> None:
    fill(tmp_path, ["LCC_FASD_training/real/1.png", "LCC_FASD_training/spoof/2.png"])
    tree = open_source("liveness", tmp_path, layout="tree")
    assert list(tree) == [""]
    assert set(told(tree[""], "source").values()) == {"LCC_FASD_training"}
    for settings, message in (
        ({"layout": "lcc-fasdd"}, "lcc-fasdd', perhaps you meant 'lcc-fasd'"),
        ({"layout": "nuaa"}, r"0 live and 0 spoof images; expected both, in layout nuaa: ClientRaw"),
        ({"fps": 5.0}, "layout lcc-fasd holds images, not videos"),
        ({"protocol": "1"}, "is for layout oulu-npu only, not lcc-fasd"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source("liveness", tmp_path, **settings)
    nuaa(tmp_path)
    with pytest.raises(ValueError, match=r"several datasets: nuaa .*, lcc-fasd"):
        open_source("liveness", tmp_path)
    assert list(LAYOUTS) == ["casia-fasd", "celeba-spoof", "nuaa", "replay-attack", "oulu-npu", "siw", "lcc-fasd"]
