"""Clips learn: the loss falls, a restart keeps every bit, movement is found, and what cannot be is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fastface.assess.liveness import assess_liveness
from fastface.clip_scorer import load_temporal
from fastface.clips import read_clip
from fastface.data.index import Index
from fastface.predictor import load_embedder
from tests.moving import write_clips, write_frames
from tests.training import assert_same_bits, cut_back, log_lines, losses, run_here, weights

STEPS, MIDDLE = 12, 8
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {"task": {"differences": "pixels"}},
    "gru": {"task": {"over": "gru", "layers": 2, "readout": "mean"}, "optim": {"ema_decay": 0.8}},
    "mean": {"task": {"over": "mean", "differences": "features"}},
    "frozen": {"task": {"freeze_backbone": True, "loss": {"name": "focal"}}, "model": {"weights": "IMAGE"}},
    "slow": {"optim": {"backbone_lr_scale": 0.1}, "model": {"weights": "IMAGE"}},
    "windows": {"data": {"plan": {"duration_s": 0.5, "spacing": "random", "balance": "label"}}},
}


def write_temporal(folder: Path, clips: Path, name: str = "lstm", **sections: dict[str, Any]) -> Path:
    content: dict[str, Any] = {
        "task": {"name": "temporal", "hidden": 16},
        "model": {"backbone": "test_vit", "embedding_size": 8},
        "data": {
            "shards": str(clips / "train" / "set"),
            "size": [32, 32],
            "plan": {"name": "clips", "frames": 4},
        },
        "optim": {"name": "adam", "lr": 0.003, "weight_decay": 0.0},
        "train": {"epochs": 50, "batch_size": 32, "micro_batch": 16, "max_steps": STEPS},
        "eval": {"every_epochs": None},
        "checkpoint": {"every_steps": MIDDLE},
        "log": {"every_steps": 2, "tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
        "out": str(folder / "runs"),
    }
    for overlay in (KINDS[name], sections):
        for section, values in overlay.items():
            plan = {"plan": {**content["data"]["plan"], **values["plan"]}} if "plan" in values else {}
            content[section] = {**content[section], **values, **plan}
    path = folder / "temporal.yaml"
    text = yaml.safe_dump(content).replace("IMAGE", str(clips / "image"))
    path.write_text(text.replace("VAL", str(clips / "val" / "set")))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make train and val (other clips), and image: a run of task liveness on the frames of train."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder / "train", 24)
    write_clips(folder / "val", 10, first=100)
    plan = {"name": "weighted", "column": "label"}
    config = yaml.safe_load(write_temporal(folder, folder).read_text())
    config |= {"task": {"name": "liveness"}, "data": {**config["data"], "plan": plan}}
    (folder / "image.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(run_here(folder / "image.yaml"), folder / "image")
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_falls_and_a_restart_keeps_every_bit(clips: Path, tmp_path: Path, name: str) -> None:
    straight = run_here(write_temporal(tmp_path, clips, name, task={"name": "temporal", **KINDS[name].get("task", {})}))
    values = list(losses(straight).values())
    assert len(values) == STEPS
    assert np.mean(values[-4:]) < np.mean(values[:4])
    copy = tmp_path / "again"
    shutil.copytree(straight, copy)
    cut_back(copy, MIDDLE)
    run_here(tmp_path / "temporal.yaml", resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))
    if name == "frozen":
        learned, loaded = weights(straight, STEPS), weights(clips / "image", STEPS)
        body = [key for key in learned if key.startswith("backbone.body.")]
        assert_same_bits({key: learned[key] for key in body}, {key: loaded[key] for key in body})


@pytest.fixture(scope="module")
def learned(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    more = {
        "train": {"max_steps": 60},
        "checkpoint": {"every_steps": 1000},
        "eval": {"every_epochs": None, "sets": {"val": {"images": "VAL", "windows": 2}}, "best_metric": "val/auc"},
    }
    return run_here(write_temporal(folder, clips, "lstm", **more))


def test_movement_is_found_that_single_frames_do_not_show(clips: Path, learned: Path, tmp_path: Path) -> None:
    (step,) = [line["eval"] for line in log_lines(learned) if "eval" in line]
    assert step["val/auc"] > 0.9
    assert {"val/acer", "val/apcer", "val/bpcer", "val/loss", "val/hter"} <= step.keys()
    val, train = clips / "val" / "set", clips / "train" / "set"
    assess_liveness([learned, clips / "image"], images=[val], dev=[train], out=tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    temporal, image = (found[name]["metrics"] for name in found["models"])
    assert temporal["auc"] > image["auc"] + 0.1
    assert found[next(iter(found["models"]))]["details"]["num_presentations"] == 20


def test_a_scorer_gives_what_evaluation_does(clips: Path, learned: Path, tmp_path: Path) -> None:
    scorer = load_temporal(learned)
    assert (scorer.card.kind, scorer.card.frames, scorer.card.classes) == ("temporal", 4, ("live", "spoof"))
    folders = [clips / "val" / "raw" / kind / f"{n:03d}" for kind in ("live", "spoof") for n in (100, 101)]
    read = np.concatenate([read_clip(folder, scorer.card.frames) for folder in folders])
    scores = scorer.scores(read)
    assert scores.dtype == np.float32
    assert scores.shape == (4,)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scorer.scores(read[2:3]), scores[2:3], rtol=1e-5)
    with pytest.raises(ValueError, match="takes clips of 4 frames"):
        scorer.scores(read[:, :3])
    with pytest.raises(ValueError, match="takes 32x32"):
        scorer.scores(read[:, :, :20])
    with pytest.raises(ValueError, match="tells live clips from attacks, and embeds nothing"):
        load_embedder(learned)
    with pytest.raises(ValueError, match="kind 'liveness', and one of task temporal"):
        load_temporal(clips / "image")


def test_a_clip_of_two_classes_is_refused(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips / "train" / "set", tmp_path / "set")
    index = Index.open(tmp_path / "set")
    clip = np.array(index.columns["clip"])
    first = [int(np.flatnonzero(np.asarray(index.label) == label)[0]) for label in (0, 1)]
    file = tmp_path / "set" / "index" / "clip.npy"
    clip[clip == clip[first[1]]] = clip[first[0]]
    file.unlink()
    np.save(file, clip)
    with pytest.raises(ValueError, match=r"is of another class than .* a frame of the same clip"):
        run_here(write_temporal(tmp_path, clips, data={"shards": str(tmp_path / "set")}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"plan": {"name": "shuffled"}}}, "set data.plan.name: clips"),
        ({"data": {"plan": {"name": "clips", "frames": 1}}}, "set data.plan.frames to 2 or more"),
        ({"task": {"freeze_backbone": True}}, "set model.weights to a run"),
        ({"task": {"over": "mean", "readout": "mean"}}, "over: mean has none"),
        ({"train": {"batch_size": 36, "micro_batch": 18}}, "would part rows that belong together"),
        ({"eval": {"flip": "sum"}}, "task temporal is evaluated as it is"),
        ({"eval": {"sets": {"val": {"images": "VAL", "only": {"label": "live"}}}}}, "has live or spoof clips only"),
        ({"eval": {"sets": {"val": {"images": "x"}}}}, "is no shard set"),
        ({"eval": {"sets": {"v": {"images": "VAL"}}, "best_metric": "v/tar_1e-3"}}, "this task has no tar_1e-3"),
    ],
)
def test_what_cannot_be_is_refused(clips: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = write_temporal(tmp_path, clips)
    content = yaml.safe_load(config.read_text())
    for section, values in change.items():
        content[section] = {**content.get(section, {}), **values}
    config.write_text(yaml.safe_dump(content).replace("VAL", str(clips / "val" / "set")))
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(config)
    assert message in str(caught.value)


def test_a_video_and_a_folder_of_its_frames_read_alike(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", 0, moves=True, frames=12)
    assert read_clip(folder, 3).shape == (1, 3, 32, 32, 3)
    whole = read_clip(folder, 12)[0]
    np.testing.assert_array_equal(read_clip(folder, 3)[0], whole[[2, 6, 10]])
    np.testing.assert_array_equal(read_clip(folder, 3, duration_s=0.6, fps=10)[0], whole[[4, 6, 8]])
    np.testing.assert_array_equal(read_clip(folder, 2, windows=2), whole[[[1, 7], [4, 10]]])
    np.testing.assert_array_equal(read_clip(folder, 24)[0, ::2], whole)
    with pytest.raises(ValueError, match="say with fps"):
        read_clip(folder, 3, duration_s=0.6)
    with pytest.raises(ValueError, match="does not exist"):
        read_clip(tmp_path / "none", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        read_clip(tmp_path / "empty", 3)
    (tmp_path / "x.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match="cannot be read as a clip"):
        read_clip(tmp_path / "x.mp4", 3)


def test_frames_of_a_video_are_chosen_by_time(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    whole = read_clip(write_frames(tmp_path / "frames", 0, moves=True, frames=10), 10)[0]
    times = [0, 1, 2, 3, 4, 5, 60, 70, 80, 90]  # hundredths of a second: fast at first
    with av.open(str(tmp_path / "v.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=100)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        for time, pixels in zip(times, whole, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = time
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    np.testing.assert_array_equal(read_clip(tmp_path / "v.mkv", 2)[0], whole[[5, 7]])  # at 0.25 and 0.75 s of 1 s
    np.testing.assert_array_equal(read_clip(tmp_path / "v.mkv", 10)[0], whole)


def test_restored_weights_take_the_place_of_a_file(clips: Path, tmp_path: Path) -> None:
    """A frozen run goes on without the run that it started from."""
    shutil.copytree(clips / "image", tmp_path / "image")
    model = {"weights": str(tmp_path / "image")}
    config = write_temporal(tmp_path, clips, "frozen", model={"backbone": "test_vit", "embedding_size": 8, **model})
    run = run_here(config, "--train.max_steps", "2")
    shutil.rmtree(tmp_path / "image")
    run_here(config, "--train.max_steps", "3", resume=str(run))
    assert torch.isfinite(weights(run, 3)["backbone.classifier.weight"]).all()
