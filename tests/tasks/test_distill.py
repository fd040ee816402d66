"""A teacher beside every task: its loss against a loop, what it sees, a student that learns, restarts to the bit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor, nn

from fastface.command import Command, load_config
from fastface.config import DataConfig, ModelConfig
from fastface.data.normalisation import PerColour, three
from fastface.inherited import digest_of, load_teacher
from fastface.run import build_run
from fastface.task_settings import TaskSettings
from fastface.tasks import build_task
from fastface.tasks.base import Task
from fastface.tasks.distill import Distillation, Teacher
from fastface.trainer import train
from tests.data.shard_sets import make_set
from tests.training import assert_same_bits, log_lines, run_here, weights, write_config

TASKS = ["arcface", "triplet", "supcon", "multi-similarity", "pair"]
SIZE = 16  # of the student's embeddings
LIKE_THE_STUDENT: dict[str, Any] = {"size": (32, 32), "mean": 127.5, "std": 127.5}


def teacher_of(network: nn.Module, embedding_size: int = SIZE, **changed: Any) -> Teacher:
    options = {**LIKE_THE_STUDENT, "student_mean": 127.5, "student_std": 127.5, **changed}
    return Teacher(network, embedding_size=embedding_size, **options)


def build(name: str, teacher: Teacher | None, weight: float = 0.7) -> Task:
    settings: Any = {"name": name}
    if teacher is not None:
        settings["distill"] = {"teacher": "anywhere", "weight": weight}
    task = TypeAdapter(TaskSettings).validate_json(json.dumps(settings))
    model = ModelConfig(backbone="mobilenetv3_small_050", embedding_size=SIZE)
    torch.manual_seed(0)
    return build_task(task, model, DataConfig(size=(32, 32)), num_classes=5, seed=0, teacher=teacher)


def mean_cosine(student: np.ndarray, teacher: np.ndarray) -> float:
    """Average the cosines of rows, one by one."""
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
        total += dot / math.sqrt(sum(a * a for a in ours)) / math.sqrt(sum(b * b for b in theirs))
    return total / len(student)


def rows(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [SIZE, 24])
@pytest.mark.parametrize("name", TASKS)
def test_the_teachers_share_is_added_to_every_tasks_loss(name: str, size: int) -> None:
    task, alone = build(name, teacher_of(nn.Identity(), size)).double(), build(name, None).double()
    embedding, labels = rows(8, SIZE, 1), torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])
    found = task.objective(embedding, {"labels": labels, "teacher": rows(8, size, 2)})
    student = embedding.numpy()
    assert task.distillation is not None
    if size != SIZE:
        assert task.distillation.projection is not None
        projection = task.distillation.projection.detach().numpy()
        student = np.array([[sum(p * e for p, e in zip(to, row, strict=True)) for to in projection] for row in student])
    expected = mean_cosine(student, rows(8, size, 2).numpy())
    own = alone.objective(embedding, {"labels": labels})
    assert found.terms["teacher_cosine"].item() == pytest.approx(expected, rel=1e-12)
    assert found.loss.item() == pytest.approx(own.loss.item() + 0.7 * (1 - expected), rel=1e-12)
    assert found.terms["task_loss"] == own.loss
    assert found.terms.keys() == {"task_loss", "teacher_cosine", *own.terms}


@pytest.mark.parametrize("name", TASKS)
def test_a_teacher_changes_nothing_of_how_a_student_starts(name: str) -> None:
    taught, alone = build(name, teacher_of(nn.Linear(2, 2), 24)).state_dict(), build(name, None).state_dict()
    assert taught.pop("distillation.projection").shape == (24, SIZE)
    assert_same_bits(taught, alone)


def test_parts_of_a_batch_average_to_the_whole() -> None:
    """What two processes do: each its half, then the mean of losses and gradients."""
    distillation = Distillation(teacher_of(nn.Identity(), 24), weight=1.0, embedding_size=SIZE, seed=0).double()
    assert distillation.projection is not None
    embedding, target = rows(8, SIZE, 1).requires_grad_(), rows(8, 24, 2)
    whole = distillation(embedding, target)
    by_row, by_projection = torch.autograd.grad(whole, [embedding, distillation.projection])
    halves = [distillation(embedding[part], target[part]) for part in (slice(0, 4), slice(4, 8))]
    both = torch.stack(halves).mean()
    again = torch.autograd.grad(both, [embedding, distillation.projection])
    torch.testing.assert_close(both, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(again, (by_row, by_projection), rtol=1e-11, atol=1e-14)


def resized(plane: np.ndarray, size: int) -> np.ndarray:
    """Resize the rows of [H, W] to `size` by a triangle as wide as two input or two output pixels, the wider one."""
    out, step = np.zeros((len(plane), size)), plane.shape[1] / size
    for i in range(size):
        near = [max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * step) / max(step, 1.0)) for j in range(plane.shape[1])]
        for j, weight in enumerate(near):
            out[:, i] += weight / sum(near) * plane[:, j]
    return out


@pytest.mark.parametrize(("given", "taken"), [((8, 8), (8, 8)), ((16, 8), (8, 4)), ((6, 9), (8, 12))])
@pytest.mark.parametrize("mean", [100.0, (120.0, 110.0, 100.0)])
@pytest.mark.parametrize("own_std", [128.0, (60.0, 128.0, 58.5)])
def test_a_teacher_sees_its_own_size_and_normalisation(
    given: tuple[int, int], taken: tuple[int, int], mean: PerColour, own_std: PerColour
) -> None:
    (width, height), (own_width, own_height) = given, taken
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, height, width)).astype(np.float64)
    teacher = teacher_of(nn.Flatten(), size=taken, mean=mean, std=50.0, student_mean=127.5, student_std=own_std)
    student = (pixels - 127.5) / np.array(three(own_std))[:, None, None]
    found = teacher(torch.from_numpy(student)).numpy().reshape(2, 3, own_height, own_width)
    for image, planes in zip(found, pixels, strict=True):
        for plane, source, m in zip(image, planes, three(mean), strict=True):
            expected = resized(resized(source, own_width).T, own_height).T
            np.testing.assert_allclose(plane, (expected - m) / 50, atol=1e-6)


def test_images_a_teacher_takes_as_they_are_keep_their_bits() -> None:
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher_of(nn.Identity())(images), images)


def test_a_teacher_never_learns_nor_shows() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, SIZE), nn.BatchNorm1d(SIZE))
    task = build("arcface", teacher_of(network))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    ids = {id(p) for p in task.parameters()}
    assert not ids & {id(p) for p in network.parameters()}
    assert not [name for name in task.state_dict() if name.startswith("distillation")]
    task.train()
    assert not any(module.training for module in network.modules())
    assert task.distillation is not None
    target = task.distillation.teacher(torch.randn(4, 3, 32, 32, requires_grad=True))
    assert not target.requires_grad
    assert_same_bits(network.state_dict(), before)
    task.double()  # it goes where the task goes
    assert all(p.dtype == torch.float64 for p in network.parameters())
    assert task.distillation.teacher(torch.randn(4, 3, 32, 32).double()).dtype == torch.float64


def test_a_student_learns_what_its_teacher_knows() -> None:
    """Of another size, on images it was not trained with."""
    torch.manual_seed(0)
    teacher = teacher_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Linear(6, 24)), 24, size=(2, 2))
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, SIZE))
    distillation = Distillation(teacher, weight=1.0, embedding_size=SIZE, seed=0)
    optimizer = torch.optim.Adam([*student.parameters(), *distillation.parameters()], lr=0.02)
    seen, unseen = torch.randn(2, 64, 3, 2, 2)
    before = float(distillation(student(unseen), teacher(unseen)).detach())
    for _ in range(60):
        optimizer.zero_grad()
        (1 - distillation(student(seen), teacher(seen))).backward()
        optimizer.step()
    assert before < 0.5
    assert float(distillation(student(unseen), teacher(unseen)).detach()) > 0.95


STEPS = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("shards"), people=6, images=8)


@pytest.fixture(scope="module")
def teacher(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run with larger embeddings, another size and normalisation than the student's."""
    config = write_config(tmp_path_factory.mktemp("teacher"), shards)
    more = ["--model.embedding_size", "24", "--data.resize", "True", "--data.size", "40", "40"]
    return run_here(config, *more, "--data.std", "128.0", "--train.max_steps", "6")


@pytest.fixture(scope="module")
def config(shards: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_config(tmp_path_factory.mktemp("config"), shards)
    text = path.read_text().replace("s: 16.0}", f"s: 16.0, distill: {{teacher: {teacher}, weight: 8.0}}}}")
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def student(config: Path) -> Path:
    return run_here(config)


def test_a_run_comes_nearer_to_its_teacher(student: Path) -> None:
    lines = log_lines(student)
    for line in lines:
        assert line["loss"] == pytest.approx(line["task_loss"] + 8 * (1 - line["teacher_cosine"]), rel=1e-5)
    cosine = [line["teacher_cosine"] for line in lines]
    assert np.mean(cosine[-4:]) > np.mean(cosine[:4]) + 0.02


def test_a_checkpoint_has_the_map_and_the_teachers_name_but_not_the_teacher(student: Path, teacher: Path) -> None:
    folder = student / "checkpoints" / "step-00000012"
    saved = load_file(folder / "model.safetensors")
    extra = [name for name in saved if not name.startswith(("backbone.", "head."))]
    assert extra == ["distillation.projection"]
    loaded, _ = load_teacher(teacher, DataConfig(size=(32, 32)), None)
    assert json.loads((folder / "state.json").read_text())["teacher"] == loaded.sha256
    start = load_file(student / "checkpoints" / "step-00000003" / "model.safetensors")
    assert not torch.equal(start["distillation.projection"], saved["distillation.projection"])


def test_a_restart_is_the_same_to_the_bit(student: Path, config: Path, teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(student, tmp_path / "run")
    shutil.copytree(teacher, tmp_path / "moved")  # a teacher is known by its weights, not by its place
    at = str(tmp_path / "run" / "checkpoints" / "step-00000006")
    run_here(config, "--task.distill.teacher", str(tmp_path / "moved"), resume=at)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (student / "metrics.jsonl").read_text()
    assert_same_bits(weights(tmp_path / "run", STEPS), weights(student, STEPS))


def test_a_restart_refuses_another_teacher(student: Path, config: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot change the teacher: the run began with weights of sha256 \w{12}, "):
        run_here(config, "--task.distill.teacher", str(student), resume=str(student))
    with pytest.raises(ValueError, match=r"cannot change the teacher: .* task\.distill gives none"):
        run_here(write_config(tmp_path, shards), resume=str(student))


@pytest.mark.parametrize("micro", [8, 16])
def test_a_loss_across_the_batch_has_its_teacher_at_any_accumulation(config: Path, teacher: Path, micro: int) -> None:
    """At 8 the embeddings are computed without a graph first (fastface/step.py), and so are the teacher's."""
    path = config.with_name(f"triplet{micro}.yaml")
    lines = config.read_text().splitlines()
    lines = [f"task: {{name: triplet, distill: {{teacher: {teacher}}}}}" if x.startswith("task:") else x for x in lines]
    path.write_text("\n".join(lines).replace("[32, 32]}", "[32, 32], plan: {name: per-identity, images: 4}}"))
    AcceleratorState._reset_state()
    overrides = ["--train.max_steps", "1", "--train.micro_batch", str(micro)]
    run = build_run(Command(load_config(path, overrides=overrides), path.stem, None))
    assert train(run) == 0
    first = log_lines(run.folder)[0]
    assert run.task.distillation is not None
    assert digest_of(run.task.distillation.teacher.network.state_dict()) == run.state["teacher"]
    assert first["loss"] == pytest.approx(first["task_loss"] + 1 - first["teacher_cosine"], rel=1e-5)
    assert abs(first["teacher_cosine"]) < 0.9
    assert first["grad_norm"] > 0


@pytest.mark.parametrize(
    ("run", "size", "expected"),
    [
        ("model.onnx", (32, 32), "give the RUN it was exported from"),
        ("nowhere", (32, 32), "neither a run folder"),
        (None, (32, 24), "takes images of 40x40, data.size is 32x24"),
    ],
)
def test_what_is_no_teacher_is_refused(teacher: Path, run: str | None, size: tuple[int, int], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        load_teacher(teacher if run is None else Path(run), DataConfig(size=size), None)


def test_a_teacher_of_faces_cut_otherwise_is_said(teacher: Path, tmp_path: Path) -> None:
    assert len(load_teacher(teacher, DataConfig(size=(32, 32)), 0.5)[1]) == 1  # its shards do not say
    shutil.copytree(teacher, tmp_path / "run")
    step = tmp_path / "run" / "checkpoints" / "step-00000006"
    state = json.loads((step / "state.json").read_text())
    state["card"]["crop"] = 0.5
    (step / "state.json").write_text(json.dumps(state))
    manifest = json.loads((step / "manifest.json").read_text())
    del manifest["files"]["state.json"]
    (step / "manifest.json").write_text(json.dumps(manifest))
    assert len(load_teacher(tmp_path / "run", DataConfig(size=(32, 32)), 0.5)[1]) == 1
    notes = load_teacher(tmp_path / "run", DataConfig(size=(32, 32)), "five-point")[1]
    assert "cut by 0.5, these shards are cut by 'five-point'" in notes[1]
