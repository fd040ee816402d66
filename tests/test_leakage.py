"""Leakage: what is in training and evaluation is found as a loop finds it, and refused where it flatters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.selection import Selection, select
from fastface.data.shards import ShardReader
from fastface.leakage import find_leak
from tests.data.attack_sets import attack_set, write_sources
from tests.data.fake_index import fake_index
from tests.training import run_here, write_task

LIVENESS = "name: liveness"
NETWORK = (
    "data: {size: [24, 24], resize: true, plan: {name: weighted}}\n"
    "model: {backbone: test_resnet}\n"
    "train: {max_steps: 1}"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return attack_set(tmp_path_factory.mktemp("whole"))


def subjects(index: Index) -> list[str]:
    return [index.meta["values"]["subject"][k] for k in index.columns["subject"].tolist()]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ({"source": ["A", "B"]}, {"source": ["B", "C"]}),
        ({"source": ["A"]}, {"source": ["C"]}),
        ({"attack": ["none", "print"]}, {"attack": ["replay"]}),
    ],
)
def test_persons_and_images_are_those_of_a_loop(whole: Index, train: Any, test: Any) -> None:
    first, second = (select([whole], Selection(one), "data")[0] for one in (train, test))
    leak = find_leak(first, second)
    assert leak.persons == sorted(set(subjects(first)) & set(subjects(second)))
    with ShardReader(first) as a, ShardReader(second) as b:
        known = {bytes(a.view(i)) for i in range(len(first))}
        assert leak.images == [second.name(i) for i in range(len(second)) if bytes(b.view(i)) in known]
    assert bool(leak) == (train != {"source": ["A"]})
    assert find_leak(MixedIndex([first, second], "merge-by-name"), second).persons == sorted(set(subjects(second)))


def test_persons_of_two_inputs_are_others_unless_a_source_names_them(tmp_path: Path) -> None:
    """Subject 000 of one data set is not that of another: only its images, byte for byte, would tell."""
    raw = write_sources(tmp_path / "raw", ("A", "B"), subjects=2, images=1)
    for name in "AB":  # converted apart, so that no source is known
        convert(Options("liveness", raw / name, tmp_path / name, ImageSpec(lossless=True), workers=1))
    first, second = Index.open(tmp_path / "A"), Index.open(tmp_path / "B")
    assert set(subjects(first)) == set(subjects(second)) == {"000", "001"}
    assert not find_leak(first, second)
    assert find_leak(first, first).persons == ["000", "001"]


def test_frames_of_one_clip_are_a_leak() -> None:
    clip = np.repeat(np.arange(4), 3).astype(np.int32)
    names = [f"live/clip{c}/{i}.png" for i, c in enumerate(clip.tolist())]
    index = fake_index(np.zeros(12, int), clip=clip, part=(np.arange(12) % 2).astype(np.int32))
    block = "".join(names).encode()
    starts = np.cumsum([0, *map(len, names)])
    object.__setattr__(index, "_names", np.frombuffer(block, np.uint8))
    object.__setattr__(index, "_names_start", starts)
    first, second = (select([index], Selection({"part": [part]}), "data")[0] for part in "01")
    assert find_leak(first, second).clips == [f"live/clip{c}" for c in range(4)]


@pytest.mark.parametrize("leakage", ["refuse", "tell"])
def test_a_run_refuses_what_it_would_be_evaluated_on(
    whole: Index, tmp_path: Path, leakage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = f"sets: {{val: {{images: {whole.path}, only: {{source: B}}}}}}"
    evaluation = f"eval: {{every_epochs: null, {sets}, leakage: {leakage}}}"
    config = write_task(tmp_path, whole.path, f"{{{LIVENESS}}}", NETWORK, evaluation)
    if leakage == "tell":
        run_here(config)
        assert "leakage: eval.sets.val holds what is trained on: 4 persons (B/000, " in capsys.readouterr().out
        run_here(config, "--data.without", "source", "B")
        assert "leakage" not in capsys.readouterr().out
        return
    with pytest.raises(ValueError, match=r"val holds what is trained on: 4 persons .*; 24 images .*--split-by subject"):
        run_here(config)
    assert not (tmp_path / "runs").exists()


def test_it_is_said_once_that_only_bytes_were_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = attack_set(tmp_path, known=False)
    one = f"images: {index.path}, held_out: 0.25"
    sets = f"eval: {{every_epochs: null, sets: {{x: {{{one}}}, y: {{{one}, only: {{source: A}}}}}}}}"
    config = write_task(tmp_path, index.path, f"{{{LIVENESS}}}", NETWORK, sets)
    run_here(config, "--data.held_out", "0.25")
    assert capsys.readouterr().out.count("leakage was checked by hash only") == 1


def splits(folder: Path, known: bool, copied: bool) -> Path:
    """Write train/ and val/ of other people, or with one picture of train in val again."""
    for split, subject in (("train", 0), ("val", 2)):
        raw = write_sources(folder / split, ("A",), subjects=subject + 2, known=known)
        for kind in ("real", "fake"):
            shutil.move(raw / "A" / kind, folder / "in" / split / kind)
            for file in (folder / "in" / split / kind).iterdir():
                if split == "val" and any(who in file.name for who in ("client000", "client001", "xa", "xb")):
                    file.unlink()
    if copied:
        name = "client000_0.png" if known else "xa_0.png"
        shutil.copy(folder / "in/train/real" / name, folder / "in/val/real" / ("client000_9.png" if known else "c.png"))
    return folder / "in"


@pytest.mark.parametrize("known", [True, False])
def test_given_splits_that_share_persons_or_bytes_are_refused(tmp_path: Path, known: bool) -> None:
    good = Options("liveness", splits(tmp_path / "good", known, False), tmp_path / "good set", workers=1)
    convert(good)
    bad = Options("liveness", splits(tmp_path / "bad", known, True), tmp_path / "bad set", workers=1)
    expected = r"1 persons are in both train and val \(000\)" if known else r"1 images are, byte for byte, in more than"
    with pytest.raises(ValueError, match=f"{expected}.*--leakage allow"):
        convert(bad)
    assert not (tmp_path / "bad set").exists()
    convert(Options("liveness", bad.input, bad.out, workers=1, leakage="allow"))
    sets = [Index.open(bad.out / name) for name in ("train", "val")]
    assert find_leak(*sets).images == ["val/real/client000_9.png" if known else "val/real/c.png"]


@pytest.mark.parametrize("by", ["subject", "source"])
def test_a_split_by_subject_or_source_parts_no_one(tmp_path: Path, by: str) -> None:
    raw = write_sources(tmp_path / "raw", subjects=4, images=1)
    convert(Options("liveness", raw, tmp_path / "set", workers=1, split={"train": 0.6, "val": 0.4}, split_by=by))
    parts = [Index.open(tmp_path / "set" / name) for name in ("train", "val")]
    names = [{part.meta["values"][by][k] for k in part.columns[by].tolist()} for part in parts]
    assert not names[0] & names[1]
    assert len(names[0]) == (7 if by == "subject" else 2)
    assert not find_leak(*parts)
